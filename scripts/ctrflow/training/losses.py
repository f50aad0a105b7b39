"""Losses of a training by stage, epoch and term."""

import numpy as np

COLUMNS = ["stage", "epoch", "term", "value"]
TOTAL = "loss"  # the term that is minimised


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
    above that of the first tenth.
    """
    problems = {}
    for stage, rows in table.groupby("stage", sort=False):
        rows = rows.sort_values("epoch")
        last = rows[rows["epoch"] == rows["epoch"].max()]
        lost = last["term"][~np.isfinite(last["value"])]
        total = rows["value"][rows["term"] == TOTAL].to_numpy()
        few = max(len(total) // 10, 1)
        if len(lost):
            problems[stage] = f"not finite at the end ({', '.join(lost)})"
        elif total[-few:].mean() > total[:few].mean():
            problems[stage] = "higher at the end than at the start"
    return problems
