"""The run ends with what was fuzzed."""


def pytest_terminal_summary(terminalreporter) -> None:
    """Inputs tried and edges of the library's code reached, by target."""
    found = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "fuzzed"
    ]
    if not found:
        return
    terminalreporter.section("fuzzing")
    for target, inputs, edges in found:
        terminalreporter.line(f"{target}: {inputs:,} inputs, {edges:,} edges reached")
