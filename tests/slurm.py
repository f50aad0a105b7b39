"""A real SLURM on one machine: munged, slurmctld and slurmd, with all files in one private folder.

No systemd, no cgroups (so memory limits are not enforced) and no accounting. The GPUs are ordinary device files that
SLURM assigns like GPUs. Needs root, and slurmctld, slurmd and munged of the distribution.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
MEMORY_MB = 64_000  # declared by the node, not enforced: a retried job requests a multiple
STAND_INS = ("/dev/null", "/dev/zero")  # GPUs; existing devices are enough for SLURM

CONF = """
ClusterName=ctrflow
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
# squeue is asked what became of a job, and the tests of all jobs at the end: keep the finished ones, seconds
MinJobAge=36000
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.log
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
EnforcePartLimits=ALL
JobRequeue=0
KillWait=5
InactiveLimit=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=2-00:00:00 State=UP
PartitionName=gpu Nodes={host} Default=NO MaxTime=2-00:00:00 State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """A running SLURM: the folder that holds all of it."""

    base: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which sbatch finds this SLURM, and the login node GPUs."""
        path = f"{self.base / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"SLURM_CONF": str(self.base / "slurm.conf"), "PATH": path}

    def ask(self, *command: str) -> str:
        """The output of a SLURM program."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def jobs(self) -> list[dict[str, str]]:
        """All jobs, including finished ones, as reported by the controller (JobState, Partition, TresPerJob ...)."""
        lines = self.ask("scontrol", "--oneliner", "show", "jobs").splitlines()
        fields = [[word.split("=", 1) for word in line.split() if "=" in word] for line in lines]
        return [dict(words) for words in fields if words]  # without jobs, the output is a sentence

    def pid(self, daemon: str) -> int:
        """The process of a daemon."""
        return int((self.base / f"{daemon}.pid").read_text())

    def kill(self, daemon: str) -> None:
        """Kill a daemon, as a power cut would; its jobs continue, as on a real node."""
        os.kill(self.pid(daemon), signal.SIGKILL)

    def start(self, daemon: str) -> None:
        """Start slurmctld or slurmd."""
        command = [daemon, "-f", str(self.base / "slurm.conf")]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def node_state(self) -> str:
        """`idle`, `mixed`, `allocated`, `down*` ..."""
        return self.ask("sinfo", "-h", "-p", "cpu", "-o", "%T").strip()


def missing() -> str:
    """What this machine lacks for a SLURM; "" if nothing."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian, Ubuntu: apt install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "SLURM's daemons must be started as root"


def start(base: Path, cpus: int) -> Cluster:
    """Start a SLURM of one node with `cpus` CPUs and two stand-in GPUs in a new folder; wait until it accepts jobs."""
    base.mkdir(parents=True)
    base.chmod(0o755)  # munged rejects a folder that others can write to
    for name in ("state", "spool", "bin"):
        (base / name).mkdir()
    cluster = Cluster(base)
    _start_munge(base)
    host = socket.gethostname().split(".")[0]
    conf = CONF.format(
        base=base, host=host, cpus=cpus, memory_mb=MEMORY_MB, gpus=len(STAND_INS),
        controller_port=_free_port(), node_port=_free_port(),
    )  # fmt: skip
    (base / "slurm.conf").write_text(conf)
    (base / "gres.conf").write_text("".join(f"NodeName={host} Name=gpu File={path}\n" for path in STAND_INS))
    # the executor's inner srun is started without SLURM_CONF
    _program(base / "bin" / "srun", f'SLURM_CONF={base}/slurm.conf exec {shutil.which("srun")} "$@"')
    # with nvidia-smi on the login node, the workflow requests GPUs from SLURM
    _program(base / "bin" / "nvidia-smi", "exit 0")
    for daemon in ("slurmctld", "slurmd"):
        cluster.start(daemon)
    _until(lambda: cluster.node_state() == "idle", f"the node did not come up; see {base}/*.log")
    return cluster


def stop(cluster: Cluster) -> None:
    """Cancel all jobs and stop exactly the daemons that `start` started."""
    cluster.ask("scancel", "--user", "root", "--full")
    for daemon in ("slurmd", "slurmctld", "munged"):
        pid = cluster.pid(daemon)
        if Path(f"/proc/{pid}/comm").is_file() and Path(f"/proc/{pid}/comm").read_text().strip() == daemon:
            os.kill(pid, signal.SIGTERM)
            _until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"{daemon} does not end")


def _start_munge(base: Path) -> None:
    key = base / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    command = [
        "munged", "--force", f"--key-file={key}", f"--socket={base}/munge.socket", f"--pid-file={base}/munged.pid",
        f"--log-file={base}/munged.log", f"--seed-file={base}/munge.seed", "--num-threads=2",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


def _program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _until(condition, what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)
