"""What a run shows: a bar and the current steps on a terminal, elsewhere a line now and then; warnings and errors once.

`Screen` takes the events that Snakemake gives to logger plugins, and reads what steps say in their log files.
"""

import logging
import os
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

from ctrflow.logs import LOG_ONLY

ENTRY = re.compile(r"\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)")  # in a log file of ctrflow.logs
BEFORE = ("Assuming unrestricted", "Using shell", "Conda environments: ignored", "Group jobs: inactive")  # not shown
DURING = ("Trying to restart", "Will exit", "Shutting down", "Complete log")  # all that is shown, but for errors
LONGEST_LINE, LAST_LINES, STEPS_AT_ONCE, LONG_S = 300, 6, 6, 60


def install(logger: logging.Logger, workflow, constant=()) -> None:
    """Put `Screen` in place of Snakemake's handler, unless the user asked for Snakemake's; cut long lines of dry runs.

    `constant` names the wildcards that have one value in the whole run: a step is known without them.
    """
    os.environ.pop(LOG_ONLY, None)  # a cluster hands it on to its jobs, whose steps should fill the log of the job
    settings = workflow.output_settings
    own = next((handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"), None)
    asked = ("verbose", "quiet", "debug_dag", "printshellcmds", "show_failed_logs", "log_handler_settings")
    if own is None or not workflow.is_main_process or any(getattr(settings, name) for name in asked):
        return
    if settings.dryrun:
        own.setFormatter(Cut(own.formatter))
        return
    terminal = own.stream.isatty() and os.environ.get("TERM") != "dumb"
    file = own.stream
    if terminal:  # the bar is drawn past the file descriptor that `Captured` takes
        file = os.fdopen(os.dup(2), "w", encoding=file.encoding, errors="backslashreplace")
    logger.removeHandler(own)
    logger.addHandler(Screen(own, Console(file=file, force_terminal=terminal, no_color=own.nocolor), constant))
    os.environ[LOG_ONLY] = "1"


def duration(seconds: float) -> str:
    """About how long, for people."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{int(unit == 'h')}f} {unit}"
    return f"{seconds:.0f} s"


class Cut(logging.Formatter):
    """Another formatter, its longest lines cut."""

    def __init__(self, inner: logging.Formatter):
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(self._cut, str(self.inner.format(record)).split("\n")))

    @staticmethod
    def _cut(line: str) -> str:
        more = len(line) - LONGEST_LINE
        return line if more <= 0 else f"{line[:LONGEST_LINE]}... ({more:,} more characters with --verbose)"


class Captured:
    """What this process and its children write to stderr, by lines: written directly, it would tear the bar."""

    def __init__(self, say):
        self.saved = os.dup(2)
        read, write = os.pipe()
        os.dup2(write, 2)
        os.close(write)
        self.thread = threading.Thread(target=self._copy, args=(read, say), daemon=True)
        self.thread.start()

    @staticmethod
    def _copy(read: int, say) -> None:
        with open(read, errors="replace") as lines:
            for line in lines:
                say(line.rstrip("\n"))

    def close(self) -> None:
        os.dup2(self.saved, 2)
        self.thread.join(1)  # not for ever: a process that outlives the run may hold the other end


class Step:
    """A running job, and what it has written to its log since it began."""

    def __init__(self, rule: str, wildcards: dict, log: list[str], constant=()):
        values = [f"{name} {value}" if re.fullmatch(r"[\d.]+", value) else value
                  for name, value in wildcards.items() if name not in constant]  # fmt: skip
        self.rule, self.name = rule, f"{rule} ({', '.join(values)})" if values else rule
        self.log, self.start = Path(log[0]) if log else None, time.monotonic()
        self.before = self._changed()  # a log of an earlier run
        self.offset, self.level, self.said, self.error = 0, "", "", []

    def _changed(self) -> int | None:
        return self.log.stat().st_mtime_ns if self.log and self.log.is_file() else None

    def follow(self) -> list[str]:
        """Read on; returns new warnings."""
        warnings: list[str] = []
        if self._changed() in (None, self.before):
            return warnings
        with self.log.open("rb") as file:
            file.seek(self.offset)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self.offset += len(new)
        for line in new.decode(errors="replace").splitlines():
            entry = ENTRY.match(line)
            self.level, text = entry.groups() if entry else (self.level, line)
            if self.level == "INFO" and entry:
                self.said = text
            elif self.level == "WARNING":
                warnings.append(text if entry or not warnings else f"{warnings.pop()}\n{text}")
            elif self.level in ("ERROR", "CRITICAL"):
                self.error.append(text)
        return warnings

    def why(self) -> list[str]:
        """Why it failed: the whole of a message, the last lines of a traceback."""
        is_message = not any(line.startswith("Traceback (most recent") for line in self.error)
        return self.error if is_message else ["Traceback, its last lines:", *self.error[-LAST_LINES:]]


class Screen(logging.Handler):
    """Shows a run. Snakemake's own handler shows what comes before its start, and words Snakemake's errors."""

    def __init__(self, own: logging.Handler, console: Console, constant=()):
        super().__init__()
        self.own, self.console, self.constant = own, console, constant
        self.live = self.captured = self.start = None
        self.steps: dict[int, Step] = {}
        self.counts: dict[str, int] = {}
        self.took: dict[str, list[float]] = defaultdict(list)  # rule -> seconds of its finished steps
        self.causes: list[str] = []  # why steps failed; the next event names the step
        self.warned: Counter[str] = Counter()
        self.done = self.total = self.tenths = 0
        self.shown = 0.0
        self.over = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record, getattr(record, "event", None))
        except Exception:  # noqa: BLE001 - as all handlers of `logging`: a run must not fail for what it shows
            self.handleError(record)

    def _emit(self, record: logging.LogRecord, event: LogEvent | None) -> None:
        if event == LogEvent.RUN_INFO:
            self._begin(record.stats)
        elif self.start is None:
            header = event in (LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO)
            if not header and not record.getMessage().startswith(BEFORE):
                self.own.handle(record)
        elif event == LogEvent.JOB_INFO:
            self.steps[record.jobid] = Step(record.rule_name, record.wildcards or {}, record.log, self.constant)
        elif event == LogEvent.JOB_FINISHED:
            self._step_ends(self.steps.pop(record.job_id, None))
        elif event == LogEvent.PROGRESS:
            self.done, self.total = record.done, record.total
            self.tick()
        elif event == LogEvent.JOB_ERROR:
            self._step_fails(record)
        elif event == LogEvent.GROUP_ERROR:
            self.say("\n    ".join([f"Error in group {record.groupid}", *_logs(record.aux_logs)]), "red")
        elif event == LogEvent.ERROR and "CalledProcessError" in record.getMessage():
            self.causes.append(record.getMessage().splitlines()[-1])
        elif record.levelno >= logging.WARNING:
            self.say(self.own.format(record), "red" if record.levelno >= logging.ERROR else "yellow")
        elif event is None and record.getMessage().startswith(DURING):
            self.say(record.getMessage())

    def say(self, text: str, style: str = "") -> None:
        """A message, above the bar if there is one."""
        self.console.print(Text(text, style), soft_wrap=True)

    def _begin(self, stats: dict) -> None:
        self.counts = {rule: count for rule, count in stats.items() if rule != "total"}
        self.total, self.start = stats["total"], time.monotonic()
        self.shown = self.start
        self.say(f"{self.total} steps")
        if self.console.is_terminal:
            shared = sys.stdout.isatty()  # else it goes to a file, and must
            self.live = Live(
                console=self.console, auto_refresh=False, transient=True, redirect_stdout=shared, redirect_stderr=False
            )
            self.captured = Captured(self.say)
            self.live.start()
        threading.Thread(target=self._keep_ticking, daemon=True).start()

    def _keep_ticking(self) -> None:
        while not self.over.wait(0.5 if self.live else 5):
            with self.lock:
                if not self.over.is_set():
                    self.tick()

    def tick(self) -> None:
        """Read the logs of running steps, and show how far the run is; if there is no bar, only when it is time."""
        for step in self.steps.values():
            self._warn(step)
        now, tenths = time.monotonic(), 10 * self.done // self.total
        if self.done >= self.total:
            self._end()
        elif self.live:
            self.live.update(self._picture(), refresh=True)
        elif tenths > self.tenths or now - self.shown >= max(60, (now - self.start) / 10):
            self.shown, self.tenths = now, tenths
            long = [step for step in self.steps.values() if step.said and now - step.start >= LONG_S]
            self.say("; ".join([self.standing(), *(f"{step.name}: {step.said}" for step in long[:1])]))

    def standing(self) -> str:
        """How many steps are done, in what time, and about how long the others take."""
        now = time.monotonic()
        spent, took = now - self.start, [seconds for of_rule in self.took.values() for seconds in of_rule]
        text = f"{self.done} of {self.total} steps in {duration(spent)}"
        if len(took) < 3 or self.done >= self.total or self.over.is_set():
            return text
        means = {rule: sum(of_rule) / len(of_rule) for rule, of_rule in self.took.items() if of_rule}
        mean = {rule: means.get(rule, sum(took) / len(took)) for rule in self.counts}
        todo = sum(mean[rule] * (count - len(self.took[rule])) for rule, count in self.counts.items())
        running = {step: now - step.start for step in self.steps.values()}
        todo -= sum(min(seconds, mean.get(step.rule, 0)) for step, seconds in running.items())
        left = spent * todo / (sum(took) + sum(running.values()))
        return text if left < 1 else f"{text}, about {duration(left)} left"

    def _picture(self) -> Group:
        head = Table.grid(padding=(0, 1))
        head.add_row(ProgressBar(self.total, self.done, width=30), self.standing())
        steps = sorted(self.steps.values(), key=lambda step: not step.said)  # those that only wait in a queue last
        lines = [f"  {step.name}  {step.said}" for step in steps]
        more = [f"  and {len(lines) - STEPS_AT_ONCE} more"] if len(lines) > STEPS_AT_ONCE else []
        lines = [*lines[:STEPS_AT_ONCE], *more]
        return Group(head, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))

    def _warn(self, step: Step) -> None:
        for text in step.follow():
            self.warned[text] += 1
            if self.warned[text] == 1:
                self.say(f"{step.name}: {text}", "yellow")

    def _step_ends(self, step: Step | None) -> None:
        if step:
            self._warn(step)
            self.took[step.rule].append(time.monotonic() - step.start)

    def _step_fails(self, record: logging.LogRecord) -> None:
        step = self.steps.pop(record.jobid, None) or Step(record.rule_name, {}, record.log)
        self._warn(step)
        cause = [self.causes.pop(0)] if self.causes else []
        if record.indent and not step.error:
            return  # another step of its group failed
        why = step.why() or [*(record.rule_msg or "").splitlines(), *cause]
        self.say("\n    ".join([f"Error in rule {step.name}:", *why, *_logs(record.log)]), "red")

    def _end(self) -> None:
        """Take the bar away, and say how far the run came."""
        if self.start is None or self.over.is_set():
            return
        self.over.set()
        if self.live:
            self.live.stop()
            self.captured.close()
        for cause in self.causes:
            self.say(cause, "red")
        for text, count in self.warned.items():
            if count > 1:
                self.say(f"warned {count} times, see the logs: {text}", "yellow")
        self.say(("" if self.done >= self.total else "stopped: ") + self.standing())

    def close(self) -> None:
        self._end()
        super().close()


def _logs(paths: list[str]) -> list[str]:
    return [f"log: {', '.join(paths)}"] if paths else []
