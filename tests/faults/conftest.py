"""Faults of a run, not of its input: kills, full disks, damaged files. The run recovers, or fails with one clear error.

`recovered` and `reported` count the faults that a test tries; the run ends with a summary.
"""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from interruptions import differing, left_behind, numbers, tables
from runs import MINI, copy, copy_with_three_patients, good, run

# one target; a network, a linear model, a method without training
STUDY = MINI | {
    "study": "short",
    "seeds": [1],
    "methods": [MINI["methods"][0], "linear", "random"],
    "tasks": [
        {"name": "one", "split": "transfer", "source": 'section in ["P2", "P3"]', "target": 'section == "P1"'},
    ],
}
COMMAND = ("metrics", "--cores", "2", "--config", "study=short")
OUTCOMES = {"recovered": "recovered to the same bytes", "reported": "rejected with one clear error"}


@pytest.fixture(scope="session")
def untouched(tmp_path_factory) -> Path:
    """A copy with three small patients in the sheet and the study `short`, not run yet. Do not write into it."""
    return copy_with_three_patients(tmp_path_factory.mktemp("untouched") / "repo", STUDY)


@pytest.fixture(scope="session")
def undisturbed(untouched, tmp_path_factory) -> Path:
    """A copy in which `short` was computed without faults. Do not write into it."""
    folder = copy(untouched, tmp_path_factory.mktemp("undisturbed") / "repo")
    good(folder, *COMMAND)
    return folder


@pytest.fixture
def finished_copy(undisturbed, tmp_path) -> Path:
    """A copy of the finished study to damage."""
    return copy(undisturbed, tmp_path / "repo")


@pytest.fixture
def command() -> tuple[str, ...]:
    """The command that computes `short`."""
    return COMMAND


@pytest.fixture
def assert_undisturbed(undisturbed):
    """The results of a folder must equal those of the undisturbed run, byte for byte, without temporary files."""

    def check(folder: Path) -> None:
        expected = numbers(undisturbed)
        assert {Path(path).name for path in expected} >= {
            "metrics.tsv", "scores.tsv", "calls.tsv", "threshold.json", "labels.tsv", "model.safetensors"
        }  # fmt: skip
        assert len(expected) >= 3 * 3 + 3 + 2 + 1  # scores, calls, thresholds; labels; models; metrics
        assert differing(numbers(folder), expected) == []
        assert differing(tables(folder), tables(undisturbed)) == []
        assert left_behind(folder) == []

    return check


@pytest.fixture
def assert_error():
    """A run must fail and print all texts, the first exactly once, without a traceback."""

    def check(folder: Path, arguments, texts) -> str:
        done = run(folder, *arguments)
        assert done.returncode == 1, done.stdout[-3000:]
        assert [text for text in texts if text not in done.stdout] == [], done.stdout[-6000:]
        assert done.stdout.count(texts[0]) == 1, done.stdout[-6000:]
        assert "Traceback" not in done.stdout, done.stdout[-6000:]
        return done.stdout

    return check


@pytest.fixture
def recovered(request):
    """Count faults after which the results equal those of an undisturbed run."""
    return _counter(request, "recovered")


@pytest.fixture
def reported(request):
    """Count faults that were reported with one clear error."""
    return _counter(request, "reported")


def _counter(request, kind: str):
    return lambda number=1: request.node.user_properties.append((kind, number))


@pytest.fixture
def mounted():
    """Mount a file system on a folder for the duration of a block, if the machine permits it."""

    def call(command: str, folder: Path):
        return subprocess.run(command.format(folder=folder).split(), capture_output=True, text=True, check=False)

    @contextmanager
    def mount(folder: Path, *commands: str):
        try:
            for command in commands:
                done = call(command, folder)
                if done.returncode:
                    pytest.skip(f"cannot mount here: {done.stderr.strip()}")
            yield
        finally:
            while call("umount {folder}", folder).returncode == 0:  # until nothing is mounted on it
                continue

    return mount


def pytest_terminal_summary(terminalreporter) -> None:
    """The number of faults that this run has tried, by outcome."""
    here = "/".join(Path(__file__).parts[-3:-1]) + "/"
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and report.nodeid.startswith(here)
    ]
    if not reports:
        return
    counts = dict.fromkeys(OUTCOMES, 0)
    for kind, number in (line for report in reports for line in report.user_properties):
        counts[kind] += number
    failed = sum(report.failed for report in reports)
    parts = [f"{number} {OUTCOMES[kind]}" for kind, number in counts.items()] + [f"{failed} failed"] * bool(failed)
    terminalreporter.section("faults")
    terminalreporter.line(f"{sum(counts.values()) + failed} faults: {', '.join(parts)}")
