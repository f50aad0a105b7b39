"""How the methods that learn step by step went down their loss."""

import numpy as np

from ctrflow import plots
from ctrflow.errors import first_few
from ctrflow.report import maps, words
from ctrflow.training import losses

OPEN_TRAININGS = 2


def last_losses(rows):
    """The losses of one method at both ends of each stage, one row per stage and term.

    Parameters
    ----------
    rows : frame (fold, seed, stage, epoch, term, value); a run is a fold and a seed

    Returns
    -------
    frame (stage, term, runs, epochs, first, last, sd, lost): `epochs` "50", or "31 to 50" where runs differ; means over
    runs of the first and the last epoch of each, and the population sd of the last (NaN for a single run). A run whose
    last value is not finite is left out of `first`, `last` and `sd`, and counted in `lost`.
    """
    import pandas as pd

    rows = rows.reset_index(drop=True)
    found = []
    for (stage, term), of in rows.groupby(["stage", "term"], sort=False):
        epoch = of.groupby(["fold", "seed"], sort=False)["epoch"]
        first, last = (of.loc[ends, "value"].to_numpy(dtype=float) for ends in (epoch.idxmin(), epoch.idxmax()))
        finite = np.isfinite(last)
        epochs = sorted({int(epoch.max().min()), int(epoch.max().max())})
        found.append(
            {
                "stage": stage,
                "term": term,
                "runs": len(last),
                "epochs": " to ".join(map(str, epochs)),
                "first": first[finite].mean() if finite.any() else np.nan,
                "last": last[finite].mean() if finite.any() else np.nan,
                "sd": last[finite].std() if finite.sum() > 1 else np.nan,
                "lost": int((~finite).sum()),
            }
        )
    return pd.DataFrame(found)


def trainings(found) -> list[dict]:
    """One entry per task, encoder and variant that trains by steps."""
    if found is None or found.empty:
        return []
    shown = []
    for (task, encoder, variant), rows in found.groupby(["task", "encoder", "variant"], sort=False):
        ends = last_losses(rows)
        concerns = _training_concerns(rows)
        totals = ends[ends["term"] == losses.TOTAL]
        runs = len(rows[["fold", "seed"]].drop_duplicates())
        shown.append(
            {
                "task": task,
                "encoder": encoder,
                "variant": variant,
                "runs": words.count(runs, "run"),
                "concerns": concerns,
                "open": len(shown) < OPEN_TRAININGS or bool(concerns),
                "panels": min(len(totals), 3),
                "picture": maps.data_uri(plots.loss_curves(rows)),
                "alt": f"Loss curves of {variant}, {task}, {encoder}, mean of {words.count(runs, 'run')}: "
                + "; ".join(
                    f"{end.stage} from {words.cell(end.first)} to {words.cell(end.last)}" for end in totals.itertuples()
                )
                + ".",
                "ends": words.table(
                    ends.assign(last=[_last_loss(end) for end in ends.itertuples()])[
                        ["stage", "term", "runs", "epochs", "first", "last"]
                    ].rename(columns={"first": "first epoch", "last": "last epoch"}),
                    numeric={"epochs", "last epoch"},
                ),
            }
        )
    return shown


def _training_concerns(rows) -> list[str]:
    """What is wrong with the losses of some runs, once per stage and kind."""
    found: dict[tuple, list[str]] = {}
    runs = rows.groupby(["fold", "seed"], sort=False)
    for (fold, seed), of in runs:
        for what in losses.concerns(of).items():
            found.setdefault(what, []).append(f"fold {fold} seed {seed}")
    return [
        f"{stage}: the loss is {text} in {len(names)} of {words.count(len(runs), 'run')} ({first_few(names)}): "
        "lower the learning rate."
        for (stage, text), names in found.items()
    ]


def _last_loss(end) -> str:
    """The mean and sd over runs of a last loss, and how many of them are not finite."""
    if end.lost == end.runs:
        return "not finite"
    text = words.cell(end.last) if end.sd != end.sd else f"{end.last:.4g} ± {end.sd:.2g}"
    return f"{text} (not finite: {words.count(end.lost, 'run')})" if end.lost else text
