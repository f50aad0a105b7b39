"""What a job asks the scheduler for: memory by the size of its inputs, minutes, a GPU, and its group on a cluster."""

import os
import shutil

from ctrflow import encoders
from ctrflow.plan.load import Plan
from ctrflow.plan.run import Run
from ctrflow.training import memory

SHORT_MIN = 30  # short enough to share a cluster job: each one starts Snakemake twice
FOLD_JOB = "fold.{task}.{fold}.{encoder}"
RUN_JOB = "run.{task}.{fold}.{encoder}.{method}.{seed}"
SECTION_JOB = "section.{section}"


def run_mb(run: Run, table: str, patch_list: str) -> int:
    """Memory for a training or scoring, by the size of its table and of the listed patches, as far as they exist."""
    listed = memory.listed_bytes(patch_list) if patch_list else 0
    return max(run.spec.memory_mb, memory.asked_mb(run.spec.dense, _bytes(table), listed))


def fold_mb(files) -> int:
    """Memory for the tables of a fold: a section at a time, and the target whole (docs/scale.md)."""
    return max(8000, memory.fold_mb(max(map(_bytes, files))))


def score_minutes(run: Run) -> int:
    """Minutes for a scoring; a method without a training job learns in it."""
    return min(60, run.spec.minutes) if run.spec.trains else run.spec.minutes


def run_job(run: Run, gpu: bool) -> str:
    """The cluster job of a training and its scoring: the fold's where both are short, "" without a fold."""
    short = not gpu and run.spec.minutes <= SHORT_MIN
    return (FOLD_JOB if short else RUN_JOB).format(**run.wildcards) if run.fold.name else ""


def gpus(plan: Plan, gains: bool) -> bool:
    """Whether a job that gains from a GPU asks for one: with the device `cuda`, or `auto` on a machine that has one."""
    device = plan.settings["device"]
    return gains and (device == "cuda" or (device == "auto" and shutil.which("nvidia-smi") is not None))


def device(plan: Plan, gains: bool) -> str:
    """The device of a job: as configured; the CPU for a job that gains nothing from a GPU."""
    return plan.settings["device"] if gains else "cpu"


def is_network(plan: Plan, encoder: str) -> bool:
    """Whether an encoder is a network, which gains from a GPU."""
    return encoders.is_network(plan.settings["encoders"][encoder])


def _bytes(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
