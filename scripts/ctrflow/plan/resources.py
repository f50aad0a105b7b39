"""Resources of a job: memory by the size of its inputs, minutes, GPU, and its group on a cluster."""

import os
import shutil

from ctrflow import encoders
from ctrflow.plan.load import Plan
from ctrflow.plan.run import Run
from ctrflow.training import memory

SHORT_MIN = 30  # at most this: share one cluster job, because each one starts Snakemake twice
FOLD_JOB = "fold.{task}.{fold}.{encoder}"
SCORES_JOB = "scores.{task}.{fold}.{encoder}"
SECTION_JOB = "section.{section}"


def run_mb(run: Run, table: str, patch_list: str) -> int:
    """Memory of training or scoring, by the size of its table and of the listed patches, if they exist already."""
    listed = memory.listed_bytes(patch_list) if patch_list else 0
    return max(run.spec.memory_mb, memory.asked_mb(run.spec.dense, _bytes(table), listed))


def fold_mb(files) -> int:
    """Memory for the tables of a fold, from the size of its largest section (docs/scale.md)."""
    return max(8000, memory.fold_mb(max(map(_bytes, files))))


def score_minutes(run: Run) -> int:
    """Minutes of scoring, which includes the fit of methods without a training job."""
    return min(60, run.spec.minutes) if run.spec.trains else run.spec.minutes


def calibrates(plan: Plan, run: Run) -> bool:
    """Whether a training also learns the probability, for which it trains again without each patient.

    By the study's key `calibrate`: `short` for methods whose training is short, `all`, or `none`.
    """
    mode = plan.content["calibrate"]
    return bool(run.level) and (mode == "all" or (mode == "short" and run.spec.minutes <= SHORT_MIN))


def train_minutes(plan: Plan, run: Run, seeds: int) -> int:
    """Minutes of a training with so many seeds, and of those without each patient."""
    patients = len(set(plan.sheet.loc[list(run.learned)].patient)) if calibrates(plan, run) else 0
    return run.spec.minutes * seeds * (1 + patients)


def trains_fast(run: Run) -> bool:
    """Whether a training is short, so that its seeds share a job."""
    return run.trains and _is_short(run)


def scores_fast(run: Run) -> bool:
    """Whether a scoring is short, so that its seeds share a job: not where a method learns while it scores."""
    return run.spec.trains or _is_short(run)


def _is_short(run: Run) -> bool:
    fast = run.spec.presets.get("fast")
    return run.spec.minutes <= SHORT_MIN or bool(fast and fast.items() <= run.options.items())


def train_group(run: Run, gpu: bool) -> str:
    """The cluster job of a training: that of its fold if it is short, "" for a job of its own."""
    short = not gpu and run.spec.minutes <= SHORT_MIN
    return FOLD_JOB.format(**run.wildcards) if short and run.fold.name else ""


def score_group(run: Run, gpu: bool) -> str:
    """The cluster job of a scoring: that of its fold, that of the scorings after long trainings, or ""."""
    if gpu or not scores_fast(run):
        return ""
    return (FOLD_JOB if run.spec.minutes <= SHORT_MIN else SCORES_JOB).format(**run.wildcards)


def gpus(plan: Plan, gains: bool) -> bool:
    """Whether a job requests a GPU: if it gains from one and the device is `cuda`, or `auto` with a GPU present."""
    device = plan.settings["device"]
    return gains and (device == "cuda" or (device == "auto" and shutil.which("nvidia-smi") is not None))


def device(plan: Plan, gains: bool) -> str:
    """The device of a job: as configured, but the CPU for a job that does not gain from a GPU."""
    return plan.settings["device"] if gains else "cpu"


def is_network(plan: Plan, encoder: str) -> bool:
    """Whether an encoder is a network and so gains from a GPU."""
    return encoders.is_network(plan.settings["encoders"][encoder])


def networks(plan: Plan) -> list[str]:
    """The encoders of a study that are networks; none where the plan has problems: an encoder may be one of them."""
    return [] if plan.problems else [name for name in plan.encoders if name != "none" and is_network(plan, name)]


def _bytes(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
