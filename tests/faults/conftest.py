"""What happens to a run, not to its input: kills, full disks, damaged files. Each is survived or told in one message.

`survived` and `told` count the faults that a test tries; the run ends with their number.
"""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from interruptions import differing, left_behind, numbers, tables
from runs import MINI, copy, copy_with_three_patients, good, run

# one target; a network, a model, a method without training
STUDY = MINI | {
    "study": "short",
    "seeds": [1],
    "methods": [MINI["methods"][0], "linear", "random"],
    "tasks": [
        {"name": "one", "split": "transfer", "source": 'section in ["P2", "P3"]', "target": 'section == "P1"'},
    ],
}
COMMAND = ("metrics", "--cores", "2", "--config", "study=short")
OUTCOMES = {"survived": "recovered to the same bytes", "told": "told in one clear message"}


@pytest.fixture(scope="session")
def untouched(tmp_path_factory) -> Path:
    """A copy with three small patients in the sheet and the study `short`, nothing run yet. Do not write into it."""
    return copy_with_three_patients(tmp_path_factory.mktemp("untouched") / "repo", STUDY)


@pytest.fixture(scope="session")
def undisturbed(untouched, tmp_path_factory) -> Path:
    """A copy in which the numbers of `short` were computed with nothing in the way. Do not write into it."""
    folder = copy(untouched, tmp_path_factory.mktemp("undisturbed") / "repo")
    good(folder, *COMMAND)
    return folder


@pytest.fixture
def finished_copy(undisturbed, tmp_path) -> Path:
    """A copy of the finished study to do harm to."""
    return copy(undisturbed, tmp_path / "repo")


@pytest.fixture
def command() -> tuple[str, ...]:
    """What computes the numbers of `short`."""
    return COMMAND


@pytest.fixture
def is_as_undisturbed(undisturbed):
    """The results of a folder are those of the undisturbed run, byte for byte, and nothing half done lies about."""

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
def is_told():
    """A run must fail, and say each of the texts, the first once; without a traceback."""

    def check(folder: Path, arguments, texts) -> str:
        done = run(folder, *arguments)
        assert done.returncode == 1, done.stdout[-3000:]
        assert [text for text in texts if text not in done.stdout] == [], done.stdout[-6000:]
        assert done.stdout.count(texts[0]) == 1, done.stdout[-6000:]
        assert "Traceback" not in done.stdout, done.stdout[-6000:]
        return done.stdout

    return check


@pytest.fixture
def survived(request):
    """Count faults after which the results were those of an undisturbed run."""
    return _counter(request, "survived")


@pytest.fixture
def told(request):
    """Count faults that ended in one clear message."""
    return _counter(request, "told")


def _counter(request, kind: str):
    return lambda number=1: request.node.user_properties.append((kind, number))


@pytest.fixture
def mounted():
    """Mount a file system on a folder for the length of a block, where the machine lets us."""

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
            while call("umount {folder}", folder).returncode == 0:  # until nothing is mounted there
                continue

    return mount


def pytest_terminal_summary(terminalreporter) -> None:
    """How many faults this run has tried, and what came of them."""
    here = "/".join(Path(__file__).parts[-3:-1]) + "/"
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and report.nodeid.startswith(here)
    ]
    if not reports:
        return
    came_of = dict.fromkeys(OUTCOMES, 0)
    for kind, number in (line for report in reports for line in report.user_properties):
        came_of[kind] += number
    failed = sum(report.failed for report in reports)
    shares = [f"{number} {OUTCOMES[kind]}" for kind, number in came_of.items()] + [f"{failed} not"] * bool(failed)
    terminalreporter.section("faults")
    terminalreporter.line(f"{sum(came_of.values()) + failed} faults tried: {', '.join(shares)}")
