"""A summary of the fuzzing at the end of the run."""


def pytest_terminal_summary(terminalreporter) -> None:
    """Inputs tried and edges of the library's code reached, by target."""
    fuzzed = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "fuzzed"
    ]
    if not fuzzed:
        return
    terminalreporter.section("fuzzing")
    for target, inputs, edges in fuzzed:
        terminalreporter.line(f"{target}: {inputs:,} inputs, {edges:,} edges reached")
