"""Kill a run of the workflow at random moments, and examine what it leaves.

`PYTHONPATH=scripts python tests/interruptions.py FOLDER REFERENCE [KILLS] [CORES]` kills the default study in a copy of
the repository (FOLDER, not run yet) and compares it with a finished one (REFERENCE).
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from runs import SNAKEMAKES, environment, jobs, run

# results that a user reads or passes on, and what they are computed from; not the costs
NUMBERS = ("metrics.tsv", "scores.tsv", "calls.tsv", "threshold.json", "labels.tsv", "losses.tsv", "*.safetensors",
           "check.json", "summary.tsv", "*.loupe.csv", "*.geojson")  # fmt: skip
TABLES = ("spots.h5ad", "cells.h5ad", "train.h5ad", "target.h5ad", "embeddings/*/*.h5ad", "superpixels/*.h5ad")
STARTED = re.compile(r"^(?:local)?rule (\w+):$")
MOMENTS = ("planning", "starting", "running", "writing", "written", "alone")
SLOWEST_S = 900  # for one job to start, write and end


def numbers(folder: Path) -> dict[str, bytes]:
    """All results with numbers, as bytes, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in NUMBERS
        for path in sorted(folder.glob(f"results/**/{name}"))
    }


def tables(folder: Path) -> dict[str, dict]:
    """The arrays of all intermediate .h5ad files, by path; the files themselves differ, as HDF5 stores the time."""
    return {
        str(path.relative_to(folder)): _arrays(path)
        for name in TABLES
        for path in sorted(folder.glob(f"results/**/{name}"))
    }


def _arrays(path: Path) -> dict[str, bytes]:
    import h5py
    import numpy as np

    arrays = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            content = np.asarray(item[()])
            arrays[name] = repr(content.tolist()).encode() if content.dtype == object else content.tobytes()

    with h5py.File(path) as file:
        file.visititems(add)
    return arrays


def left_behind(folder: Path) -> list[str]:
    """Temporary files in the results."""
    return sorted(str(path.relative_to(folder)) for path in (folder / "results").rglob(".[0-9]*.*"))


def processes(folder: Path) -> list[int]:
    """The running processes that were started in a folder, the oldest first."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")) == folder and "Z" not in (entry / "stat").read_text().split()[2]:
                pids.append(int(entry.name))
        except OSError:
            continue  # has ended, or belongs to another user
    return sorted(pids)


class Interruptions:
    """Runs of one folder, each killed at a random moment."""

    def __init__(self, folder: Path, arguments: list[str], seed: int):
        self.folder, self.arguments = Path(os.path.realpath(folder)), arguments
        self.rng = random.Random(seed)
        self.during: list[tuple[str, str]] = []  # moment and rule of each kill
        self.outputs: list[str] = []  # Snakemake's output when only a job was killed

    def kill(self, moment: str, left: int) -> bool:
        """One run with one kill; False if it ended before the moment. `left`: number of kills after this one."""
        run(self.folder, "--unlock", *self.arguments)
        log = self.folder / "kills.log"
        start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out, self._started(out) as process:
            try:
                rule = self._wait(process, log, start, moment, left)
                if process.poll() is not None:
                    return False
                if moment == "alone":
                    os.kill(processes(self.folder)[-1], signal.SIGKILL)
                    process.wait(SLOWEST_S)
                    self.outputs.append(log.read_bytes()[start:].decode())
                    self.during.append((moment, rule))
                    return True
            finally:
                self._end(process)
        self.during.append((moment, rule))
        return True

    def _started(self, out) -> subprocess.Popen:
        command = [sys.executable, "-u", "-m", "snakemake", *self.arguments, *SNAKEMAKES]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment(), stdout=out, stderr=out, start_new_session=True
        )

    def _end(self, process: subprocess.Popen) -> None:
        """Kill Snakemake and all its processes at once, as if the machine stopped."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pid in processes(self.folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while processes(self.folder):
            time.sleep(0.01)

    def _wait(self, process, log: Path, start: int, moment: str, left: int) -> str:
        """Wait for the moment; returns the rule that is running then."""
        if moment == "planning":
            time.sleep(self.rng.uniform(0.5, 6))
            return "-"
        total = self._await(process, lambda: sum(jobs(self._output(log, start)).values()))
        # spread the remaining kills over the remaining jobs, without reaching the end
        job = max(1, min(total - left - 2, int(1 + self.rng.uniform(0, 2) * total / (left + 2))))
        rule, outputs = self._await(process, lambda: self._job(log, start, job)) or ("-", [])
        first = self.folder / (outputs[0] if outputs else ".")
        if moment == "running":
            time.sleep(self.rng.uniform(2, 8))
        elif moment == "alone":
            time.sleep(self.rng.uniform(1.5, 4))
            self._await(process, lambda: len(processes(self.folder)) > 1, 0)
        elif moment == "writing":
            self._await(process, lambda: list(first.parent.glob(f".[0-9]*.{first.name}")) or first.exists(), 0.0005)
            time.sleep(self.rng.uniform(0, 0.01))
        elif moment == "written":  # while Snakemake records the output
            self._await(process, first.exists, 0.001)
            time.sleep(self.rng.uniform(0, 1))
        return rule

    @staticmethod
    def _output(log: Path, start: int) -> str:
        return log.read_bytes()[start:].decode(errors="replace")

    def _job(self, log: Path, start: int, number: int) -> tuple[str, list[str]] | None:
        """The rule and the outputs of the `number`-th job of a run."""
        lines = self._output(log, start).splitlines()
        starts = [i for i, line in enumerate(lines) if STARTED.match(line)]
        if len(starts) < number:
            return None
        after = lines[starts[number - 1] :]
        outputs = next((line for line in after if line.startswith("    output: ")), None)
        return (STARTED.match(after[0])[1], outputs.split(": ", 1)[1].split(", ")) if outputs else None

    @staticmethod
    def _await(process, condition, every_s: float = 0.05):
        deadline = time.monotonic() + SLOWEST_S
        while process.poll() is None and time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(every_s)
        return condition()

    def survive(self, kills: int) -> None:
        """Kill `kills` times, then run to the end."""
        turns = [MOMENTS[i % len(MOMENTS)] for i in range(kills)]
        self.rng.shuffle(turns)
        for left, moment in zip(range(kills - 1, -1, -1), turns, strict=True):
            if not self.kill(moment, left):
                break
        run(self.folder, "--unlock", *self.arguments)
        done = run(self.folder, *self.arguments, timeout_s=7200)
        assert done.returncode == 0, done.stdout[-6000:]


def differing(one: dict, other: dict) -> list[str]:
    """The paths that only one of two has, or whose content differs."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def main(folder: str, reference: str, kills: str = "25", cores: str = "1") -> None:
    tried = Interruptions(Path(folder), ["--cores", cores], seed=25)
    tried.survive(int(kills))
    actual, expected = Path(folder), Path(reference)
    print(f"{len(tried.during)} kills: {dict(Counter(moment for moment, _ in tried.during))}")
    print(", ".join(f"{rule} ({moment})" for moment, rule in tried.during))
    print(f"differing of {len(numbers(expected))} files with numbers: {differing(numbers(actual), numbers(expected))}")
    print(f"differing of {len(tables(expected))} tables: {differing(tables(actual), tables(expected))}")
    print(f"temporary files: {left_behind(actual)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
