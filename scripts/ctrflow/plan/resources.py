"""What a job asks for: memory by the size of its files, minutes, a GPU, and the job of a cluster that it shares."""

import os
import shutil

from ctrflow import encoders
from ctrflow.plan.load import Plan
from ctrflow.plan.run import Run
from ctrflow.training import memory

SHORT_MIN = 30  # short enough to share a job on a cluster, where each job costs two starts of the engine
FOLD_JOB = "fold.{task}.{fold}.{encoder}"
RUN_JOB = "run.{task}.{fold}.{encoder}.{method}.{seed}"
SECTION_JOB = "section.{section}"


def run_mb(run: Run, table: str, pictures: str) -> int:
    """Memory for a method, by the size of its view and of the listed pictures, where they are there."""
    listed = memory.listed_bytes(pictures) if pictures else 0
    return max(run.spec.memory_mb, memory.asked_mb(run.spec.dense, _bytes(table), listed))


def fold_mb(files) -> int:
    """Memory for the tables of a fold: a section at a time, and the target whole (docs/scale.md)."""
    return max(8000, memory.fold_mb(max(map(_bytes, files))))


def score_minutes(run: Run) -> int:
    """Time for a scoring; of a method that learns while it scores, for both."""
    return min(60, run.spec.minutes) if run.spec.trains else run.spec.minutes


def run_job(run: Run, gpu: bool) -> str:
    """The job of a cluster for learning and scoring: the fold's where both are short, "" for what is of no fold."""
    short = not gpu and run.spec.minutes <= SHORT_MIN
    return (FOLD_JOB if short else RUN_JOB).format(**run.wildcards) if run.fold.name else ""


def gpus(plan: Plan, gains: bool) -> bool:
    """Whether a job asks for a GPU: it gains from one, and there are some: always with `cuda`, never with `cpu`, with
    `auto` where this machine has one."""
    device = plan.settings["device"]
    return gains and (device == "cuda" or (device == "auto" and shutil.which("nvidia-smi") is not None))


def device(plan: Plan, gains: bool) -> str:
    """Where a job computes: as configured, or on the CPU where it gains nothing, also where a GPU is insisted on."""
    return plan.settings["device"] if gains else "cpu"


def is_network(plan: Plan, encoder: str) -> bool:
    """Whether an encoder gains from a GPU."""
    return encoders.is_network(plan.settings["encoders"][encoder])


def _bytes(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
