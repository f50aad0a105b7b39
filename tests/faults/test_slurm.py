"""A small study on a real SLURM, with a job killed and a node's daemon killed in between.

One machine is login node and compute node (tests/slurm.py). The SLURM profile is used unchanged; the run must recover
from the faults, and all results must equal those of a run without SLURM.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import slurm as cluster
from interruptions import differing, numbers
from runs import copy

# faster than a user's profile, which queries the controller twice a minute
OFTEN = (
    "--slurm-status-command", "squeue", "--seconds-between-status-checks", "1",
    "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10",
)  # fmt: skip

pytestmark = pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing())


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A running SLURM with four CPUs (more than exist, as jobs mostly wait) and two stand-in GPUs."""
    running = cluster.start(tmp_path_factory.mktemp("slurm") / "run", cpus=4)
    yield running
    cluster.stop(running)


class Faults(threading.Thread):
    """Kills a script of a job during the run, and later the node's daemon, which is restarted.

    Both wait until a script is computing.
    """

    def __init__(self, slurm: cluster.Cluster):
        super().__init__(daemon=True)
        self.slurm = slurm
        self.done: list[str] = []

    def run(self) -> None:
        self.kill_job(after=2)
        self.kill_daemon(after=4)

    def kill_job(self, after: int) -> None:
        self.wait_for(after)
        victim = self.computing()
        for pid in victim:
            os.kill(pid, signal.SIGKILL)
        self.done.append("job")

    def kill_daemon(self, after: int) -> None:
        self.wait_for(after)
        self.computing()
        self.slurm.kill("slurmd")
        time.sleep(5)
        self.slurm.start("slurmd")
        self.done.append("daemon")

    def wait_for(self, ended: int) -> None:
        while sum(job["JobState"] == "COMPLETED" for job in self.slurm.jobs()) < ended:
            time.sleep(1)

    def computing(self) -> list[int]:
        """The processes of a script that is running in a job; waits for one."""
        while True:
            for path in Path("/proc").glob("[0-9]*"):
                if pids := self.script_of(path):
                    return pids
            time.sleep(0.2)

    def script_of(self, path: Path) -> list[int]:
        """The process of a folder in /proc, if it is a script of this SLURM."""
        try:
            if b".snakemake/scripts/" not in (path / "cmdline").read_bytes():
                return []
            ours = f"SLURM_CONF={self.slurm.base}/slurm.conf".encode() in (path / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            return []
        return [int(path.name)] if ours else []


@pytest.fixture(scope="module")
def on_slurm(slurm, untouched, tmp_path_factory):
    """A copy in which `short` ran on SLURM with faults in between; its output; which faults there were."""
    folder = copy(untouched, tmp_path_factory.mktemp("short_slurm") / "repo")
    faults = Faults(slurm)
    faults.start()
    environment = slurm.environment
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "slurm", *OFTEN, "--config", "study=short"]
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout[-6000:]
    return folder, ended.stdout, faults.done


def test_the_run_recovers_from_a_killed_job_and_a_killed_daemon(on_slurm, slurm, recovered):
    _, output, faults = on_slurm
    assert faults == ["job", "daemon"]
    assert len(re.findall("Trying to restart job", output)) >= 1
    states = [job["JobState"] for job in slurm.jobs()]
    assert states.count("FAILED") == 1
    assert states.count("COMPLETED") == len(states) - 1
    recovered(len(faults))


def test_every_number_is_that_of_a_run_without_slurm(on_slurm, undisturbed):
    here, there = numbers(on_slurm[0]), numbers(undisturbed)  # of the metrics alone, without report and exports
    assert len(there) >= 3 * 3 + 3 + 2 + 1  # scores, calls, thresholds; labels; models; metrics
    assert differing({path: here.get(path) for path in there}, there) == []
    assert (on_slurm[0] / "results/short/report.html").is_file()


def test_gpu_jobs_go_to_the_partition_with_gpus_and_no_others(on_slurm, slurm):
    jobs = slurm.jobs()
    asked = {job["JobId"]: job.get("TresPerJob") == "gres:gpu:1" for job in jobs}
    assert any(asked.values())
    assert {job["Partition"] for job in jobs if asked[job["JobId"]]} == {"gpu"}
    assert {job["Partition"] for job in jobs if not asked[job["JobId"]]} == {"cpu"}


def test_short_steps_share_a_job(on_slurm, slurm):
    _, output, _ = on_slurm
    steps = int(re.search(r"^(\d+) steps$", output, flags=re.MULTILINE)[1])
    assert len(slurm.jobs()) < steps / 2
