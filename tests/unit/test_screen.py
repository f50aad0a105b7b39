"""What a run shows, from the events of Snakemake made by hand: on a terminal, elsewhere, and in a dry run."""

import io
import logging
import os
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console
from snakemake_interface_logger_plugins.common import LogEvent

import screen

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR


class Clock:
    """A clock that stands still until told."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(screen, "time", clock)
    return clock


@pytest.fixture
def still(monkeypatch):
    """No thread that ticks by itself, and stderr of the tests as it is."""
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    monkeypatch.setattr(screen, "Captured", lambda say: SimpleNamespace(close=lambda: None))


@pytest.fixture
def show(still, clock, tmp_path, monkeypatch):
    """Makes a screen of a run in `tmp_path`, with what gives it events."""
    monkeypatch.chdir(tmp_path)
    made = []

    def make(terminal: bool, **stats: int) -> "Run":
        made.append(Run(terminal, clock))
        made[-1].tell(INFO, LogEvent.RUN_INFO, stats=stats | {"total": sum(stats.values())})
        return made[-1]

    yield make
    for run in made:
        run.screen.close()


class Run:
    """A screen, and the events of a run."""

    def __init__(self, terminal: bool, clock: Clock):
        self.clock, self.file, self.own = clock, io.StringIO(), io.StringIO()
        console = Console(file=self.file, force_terminal=terminal, width=100)
        self.screen = screen.Screen(logging.StreamHandler(self.own), console, ["study"])

    @property
    def said(self) -> str:
        return self.file.getvalue()

    def tell(self, level: int, event: LogEvent | None = None, message: str = "", **fields) -> None:
        record = logging.LogRecord("snakemake.logging", level, "", 0, message, (), None)
        record.__dict__ |= {"event": event} | fields
        self.screen.handle(record)

    def begin(self, jobid: int, rule: str, log: str = "", **wildcards: str) -> None:
        fields = {"wildcards": {"study": "s"} | wildcards, "log": [log] if log else []}
        self.tell(INFO, LogEvent.JOB_INFO, jobid=jobid, rule_name=rule, **fields)

    def end(self, jobid: int, done: int, total: int, seconds: float = 0) -> None:
        self.clock.now += seconds
        self.tell(INFO, LogEvent.JOB_FINISHED, job_id=jobid)
        self.tell(INFO, LogEvent.PROGRESS, done=done, total=total)

    def fail(self, jobid: int, rule: str, log: list[str], indent: bool = False, rule_msg: str | None = None) -> None:
        self.tell(ERROR, LogEvent.JOB_ERROR, jobid=jobid, rule_name=rule, log=log, indent=indent, rule_msg=rule_msg)


CALLED = "RuleException:\nCalledProcessError in file x, line 3:\nCommand 'python y' returned non-zero exit status 137."


def test_without_a_terminal_a_line_comes_each_tenth_of_the_steps(show):
    run = show(False, short=100)
    for number in range(1, 101):
        run.begin(number, "short")
        run.end(number, number, 100, seconds=2)
    lines = run.said.splitlines()
    assert len(lines) == 1 + 9 + 1
    assert lines[0] == "100 steps"
    assert lines[3] == "30 of 100 steps in 60 s, about 2 min left"
    assert lines[-1] == "100 of 100 steps in 3 min"


def test_a_long_step_says_how_far_it_is_and_ever_more_rarely(show, tmp_path):
    run = show(False, train=1, all=1)
    run.begin(1, "train", "train.log", method="spacrd", seed="2")
    for minute in range(1, 601):
        (tmp_path / "train.log").write_text(f"12:00:00 INFO epoch {minute} of 600, 9 s left\n")
        os.utime(tmp_path / "train.log", ns=(minute, minute))
        run.screen.steps[1].offset = 0
        run.clock.now += 60
        run.screen.tick()
    lines = run.said.splitlines()
    assert lines[1] == "0 of 2 steps in 60 s; train (spacrd, seed 2): epoch 1 of 600, 9 s left"
    assert lines[2].startswith("0 of 2 steps in 2 min;")
    assert 20 < len(lines) < 60


def test_the_time_left_counts_what_each_rule_takes(show):
    """Three short steps are done, and one of three long ones, of 100 s: 200 s are left, and not 2/4 of 106 s."""
    run = show(False, short=3, long=3)
    for jobid, rule, seconds in ((1, "short", 2), (2, "short", 2), (3, "short", 2), (4, "long", 100)):
        run.begin(jobid, rule)
        run.end(jobid, jobid, 6, seconds)
    assert run.screen.standing() == "4 of 6 steps in 2 min, about 3 min left"
    run.begin(5, "long")
    run.clock.now += 90
    assert run.screen.standing() == "4 of 6 steps in 3 min, about 2 min left"
    run.clock.now += 400  # longer than the others: the last one is left
    assert "about 2 min left" in run.screen.standing()


def test_a_terminal_shows_a_bar_and_the_running_steps(show, tmp_path):
    run = show(True, embed=10)
    for jobid in range(1, 9):
        run.begin(jobid, "embed", f"{jobid}.log", section=f"P{jobid}")
    (tmp_path / "1.log").write_text("12:00:00 INFO 30 of 60 spots, 7.0 spots/s\n")
    run.end(8, 1, 10, seconds=4)
    assert "1 of 10 steps in 4 s" in run.said
    assert "━" in run.said
    assert "embed (P1)  30 of 60 spots, 7.0 spots/s" in run.said
    assert "embed (P7)" not in run.said.rsplit("1 of 10 steps", 1)[1]
    assert "and 1 more" in run.said


@pytest.mark.parametrize("terminal", [True, False])
def test_a_warning_of_a_step_is_shown_once_and_its_information_not(terminal, show, tmp_path):
    (tmp_path / "2.log").write_text("11:00:00 WARNING of an earlier run\n")
    run = show(terminal, check=3)
    for jobid in (1, 2, 3):
        run.begin(jobid, "check", f"{jobid}.log", section=f"P{jobid}")
    (tmp_path / "1.log").write_text("12:00:00 INFO fine\n12:00:01 WARNING rotated\nby 90 degrees\n12:00:02 INFO done\n")
    run.screen.tick()
    run.screen.tick()
    run.end(1, 1, 3)
    assert run.said.count("check (P1): rotated") == 1
    assert run.said.count("by 90 degrees") == 1
    (tmp_path / "3.log").write_text("12:00:01 WARNING rotated\nby 90 degrees\n")
    run.end(2, 2, 3)
    run.end(3, 3, 3)
    assert "of an earlier run" not in run.said
    assert ": fine" not in run.said
    assert "check (P3): rotated" not in run.said
    assert "warned 2 times, see the logs: rotated" in run.said


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failed_step_is_shown_once_with_message_and_log(terminal, show, tmp_path):
    run = show(terminal, ingest=2)
    run.begin(1, "ingest", "1.log", section="P1")
    (tmp_path / "1.log").write_text(
        "12:00:00 INFO reading\n12:00:01 ERROR sheet.tsv, row 3: cure\nsheet.tsv, row 4: b\n"
    )
    run.tell(ERROR, LogEvent.ERROR, CALLED)
    run.screen.tick()
    run.fail(1, "ingest", ["1.log"])
    run.tell(ERROR, None, "Exiting because a job execution failed. Look above for error messages")
    run.screen.close()
    wanted = "Error in rule ingest (P1):\n    sheet.tsv, row 3: cure\n    sheet.tsv, row 4: b\n    log: 1.log\n"
    assert run.said.count("row 3") == 1
    if not terminal:
        assert wanted in run.said
        assert run.said.endswith("stopped: 0 of 2 steps in 0 s\n")
    assert "exit status" not in run.said


def test_of_a_traceback_the_last_lines_are_shown(show, tmp_path):
    run = show(False, ingest=2)
    run.begin(1, "ingest", "1.log")
    lines = [f'  File "{n}.py", line {n}' for n in range(20)]
    text = "\n".join(["12:00:01 ERROR failed", "Traceback (most recent call last):", *lines, "ValueError: ours"])
    (tmp_path / "1.log").write_text(text + "\n")
    run.fail(1, "ingest", ["1.log"])
    assert "Error in rule ingest:\n    Traceback, its last lines:\n" in run.said
    assert "    ValueError: ours\n    log: 1.log\n" in run.said
    assert '"0.py"' not in run.said


def test_a_step_that_could_say_nothing_is_told_as_snakemake_knows_it(show):
    """Killed for its memory, say; the other failures of Snakemake's own are shown in its words."""
    run = show(False, train=3)
    for jobid in (1, 2, 3):
        run.begin(jobid, "train", f"{jobid}.log", seed=str(jobid))
    run.tell(ERROR, LogEvent.ERROR, CALLED)
    run.tell(ERROR, LogEvent.ERROR, "MissingOutputException in rule train")
    run.fail(1, "train", ["1.log"])
    run.fail(3, "train", ["3.log", "slurm/3.log"], rule_msg="SLURM status is: 'OUT_OF_MEMORY'")
    said = run.said
    assert (
        "Error in rule train (seed 1):\n    Command 'python y' returned non-zero exit status 137.\n    log: 1.l" in said
    )
    assert said.count("MissingOutputException") == 1
    assert "train (seed 3):\n    SLURM status is: 'OUT_OF_MEMORY'\n    log: 3.log, slurm/3.log\n" in said


def test_of_a_failed_group_the_step_that_failed_is_shown(show, tmp_path):
    run = show(False, build=1, infer=1)
    run.begin(1, "build", "1.log")
    run.begin(2, "infer", "2.log")
    (tmp_path / "1.log").write_text("12:00:01 ERROR no genes left\n")
    run.tell(ERROR, LogEvent.GROUP_ERROR, groupid="fold", aux_logs=["slurm/7.log"])
    run.fail(1, "build", ["1.log"], indent=True)
    run.fail(2, "infer", ["2.log"], indent=True)
    assert run.said.splitlines()[1:] == [
        "Error in group fold", "    log: slurm/7.log", "Error in rule build:", "    no genes left", "    log: 1.log",
    ]  # fmt: skip


def test_before_the_run_snakemake_speaks(still):
    run = Run(False, Clock())
    run.tell(INFO, LogEvent.WORKFLOW_STARTED, "Date: ...")
    run.tell(INFO, None, "Assuming unrestricted shared filesystem usage.")
    run.tell(INFO, None, "Nothing to be done")
    run.tell(ERROR, LogEvent.ERROR, "WorkflowError:\nsections.tsv, row 2: cure")
    run.screen.close()
    assert run.own.getvalue() == "Nothing to be done\nWorkflowError:\nsections.tsv, row 2: cure\n"
    assert run.said == ""


def test_in_a_run_of_snakemakes_own_messages_few_are_shown(show):
    run = show(False, short=2)
    run.tell(INFO, LogEvent.JOB_STARTED, "Execute 1 jobs...")
    run.tell(INFO, None, "Select jobs to execute...")
    run.tell(INFO, None, "Trying to restart job 3.")
    run.tell(WARNING, None, "the disk is slow")
    assert run.said.splitlines() == ["2 steps", "Trying to restart job 3.", "the disk is slow"]


def test_long_lines_of_a_dry_run_are_cut():
    cut = screen.Cut(logging.Formatter("%(message)s"))
    record = logging.LogRecord("", INFO, "", 0, "rule all:\n    reason: " + "x" * 9500, (), None)
    first, second = cut.format(record).split("\n")
    assert first == "rule all:"
    assert second == "    reason: " + "x" * 288 + "... (9,212 more characters with --verbose)"


SETTINGS = ("verbose", "quiet", "debug_dag", "printshellcmds", "show_failed_logs", "log_handler_settings", "dryrun")


@pytest.mark.parametrize("asked", [None, *SETTINGS, "child"])
def test_what_the_user_asks_of_snakemake_is_left_to_it(asked, monkeypatch):
    monkeypatch.setenv(screen.LOG_ONLY, "1")  # as a job of a cluster inherits it
    own = logging.StreamHandler(io.StringIO())
    own.name, own.nocolor = "DefaultStreamHandler", True
    logger = logging.Logger("run")
    logger.addHandler(own)
    settings = SimpleNamespace(**{name: name == asked for name in SETTINGS})
    screen.install(logger, SimpleNamespace(output_settings=settings, is_main_process=asked != "child"))
    ours = asked is None
    assert [isinstance(handler, screen.Screen) for handler in logger.handlers] == [ours]
    assert (os.environ.get(screen.LOG_ONLY) == "1") is ours
    assert isinstance(own.formatter, screen.Cut) is (asked == "dryrun")


def test_what_processes_write_to_stderr_is_handed_on():
    lines, code = [], "import os; os.system('echo child >&2')"
    before = os.fstat(2)
    captured = screen.Captured(lines.append)
    os.write(2, b"this process\n")
    os.system(f'{os.sys.executable} -c "{code}"')
    captured.close()
    assert lines == ["this process", "child"]
    assert os.fstat(2).st_ino == before.st_ino
