"""Losses of a training by stage, epoch and term."""

import numpy as np

COLUMNS = ["stage", "epoch", "term", "value"]
TOTAL = "loss"  # the term that is minimised
CONTEST = "contest"  # the stage of two networks against each other: what one gains the other loses, none is to fall
# of its size at the start: a stage whose total falls by less has not learned. On HER2ST, Patch SVDD's `fast` falls
# by 0.003 at most; of full settings the least is 0.012, the last stage of MEATRD's `reference`
LEAST_FALL = 0.005


def table(losses: list[dict], method: str):
    """The losses recorded by a model, as a table: stage, epoch, term, value.

    Parameters
    ----------
    losses : dicts of `stage` (text), `epoch` (from 1), `term` (the minimised total is "loss") and `value`, the mean
        over the steps of the epoch, finite or not; empty for a method that does not train by steps
    method : its name, for messages

    Raises
    ------
    ValueError
        if a loss lacks a key or has an extra one, an epoch is below 1, has a term twice or no total.
    """
    import pandas as pd

    for row in losses:
        if set(row) != set(COLUMNS):
            raise ValueError(f"method {method}: a loss has the keys {', '.join(row)}; give {', '.join(COLUMNS)}")
    frame = pd.DataFrame(losses, columns=COLUMNS)
    frame = frame.astype({"stage": str, "epoch": int, "term": str, "value": float})
    if (frame["epoch"] < 1).any():
        raise ValueError(f"method {method}: epochs of the losses count from 1, the lowest is {frame['epoch'].min()}")
    twice = frame[frame.duplicated(["stage", "epoch", "term"])]
    if len(twice):
        stage, epoch, term, _ = twice.iloc[0]
        raise ValueError(f"method {method}: loss `{term}` of stage {stage}, epoch {epoch} is there twice")
    for (stage, epoch), rows in frame.groupby(["stage", "epoch"], sort=False):
        if TOTAL not in set(rows["term"]):
            raise ValueError(f"method {method}: stage {stage}, epoch {epoch} has no term `{TOTAL}`, the total")
    return frame


def concerns(table) -> dict[str, str]:
    """Stage -> problem, for the stages of one training that have one.

    Either a term is not finite in the last epoch, or the mean total of the last tenth of the epochs (at least one) is
    above that of the first tenth, unless the stage is a `CONTEST`.
    """
    problems = {}
    for stage, rows in table.groupby("stage", sort=False):
        last = rows[rows["epoch"] == rows["epoch"].max()]
        lost = last["term"][~np.isfinite(last["value"])]
        start, end = _ends(rows)
        if len(lost):
            problems[stage] = f"not finite at the end ({', '.join(lost)})"
        elif end > start and stage != CONTEST:
            problems[stage] = "higher at the end than at the start"
    return problems


def unmoved(table) -> dict[str, tuple[float, float]]:
    """Stage -> mean total of the first and of the last tenth of its epochs, where training has not lowered it.

    That is, by less than `LEAST_FALL` of its size at the start (a total may be below zero), or not at all. One epoch
    cannot show it; two can, since the mean of the first contains what was learned within it. Nor can a `CONTEST`, nor
    a stage whose total is not finite (see `concerns`).
    """
    found = {}
    for stage, rows in table.groupby("stage", sort=False):
        start, end = _ends(rows)
        told = stage != CONTEST and rows["epoch"].nunique() > 1 and np.isfinite(start)
        if told and start - end <= LEAST_FALL * abs(start):
            found[stage] = (start, end)
    return found


def unmoved_text(table) -> str:
    """`unmoved` in words, as in "fit 4.16 to 4.158"; "" where every stage has lowered its total."""
    return ", ".join(f"{stage} {start:.4g} to {end:.4g}" for stage, (start, end) in unmoved(table).items())


def _ends(rows) -> tuple[float, float]:
    """The mean total of a stage over the first and over the last tenth of its epochs, at least one."""
    total = rows[rows["term"] == TOTAL].sort_values("epoch")["value"].to_numpy()
    few = max(len(total) // 10, 1)
    return float(total[:few].mean()), float(total[-few:].mean())
