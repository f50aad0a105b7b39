"""Training loss curves."""

import numpy as np

from ctrflow import plots
from ctrflow.errors import first_few
from ctrflow.report import maps, words
from ctrflow.training import losses

OPEN_TRAININGS = 2


def last_losses(rows):
    """The losses of one method in the first and last epoch of each stage, one row per stage and term.

    Parameters
    ----------
    rows : frame (fold, seed, stage, epoch, term, value); a run is a fold and a seed

    Returns
    -------
    frame (stage, term, runs, epochs, first, last, sd, lost): `epochs` "50", or "31 to 50" if runs differ; means over
    runs of the first and the last epoch of each, and the population sd of the last (NaN for a single run). A run whose
    last value is not finite is left out of `first`, `last` and `sd`, and counted in `lost`.
    """
    import pandas as pd

    rows = rows.reset_index(drop=True)
    ends = []
    for (stage, term), of in rows.groupby(["stage", "term"], sort=False):
        epoch = of.groupby(["fold", "seed"], sort=False)["epoch"]
        first, last = (of.loc[index, "value"].to_numpy(dtype=float) for index in (epoch.idxmin(), epoch.idxmax()))
        finite = np.isfinite(last)
        epochs = sorted({int(epoch.max().min()), int(epoch.max().max())})
        ends.append(
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
    return pd.DataFrame(ends)


def trainings(kept) -> list[dict]:
    """One entry per task, encoder and variant that trains in epochs; `kept` are the losses of all runs, or None."""
    if kept is None or kept.empty:
        return []
    shown = []
    for (task, encoder, variant), rows in kept.groupby(["task", "encoder", "variant"], sort=False):
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
    """One warning per stage and kind of problem, naming the runs."""
    concerned: dict[tuple, list[str]] = {}
    runs = rows.groupby(["fold", "seed"], sort=False)
    for (fold, seed), of in runs:
        for concern in losses.concerns(of).items():
            concerned.setdefault(concern, []).append(f"fold {fold} seed {seed}")
    return [
        f"{stage}: the loss is {text} in {len(names)} of {words.count(len(runs), 'run')} ({first_few(names)}): "
        "lower the learning rate."
        for (stage, text), names in concerned.items()
    ]


def _last_loss(end) -> str:
    """The mean and sd over runs of the last loss, and how many runs are not finite."""
    if end.lost == end.runs:
        return "not finite"
    text = words.cell(end.last) if end.sd != end.sd else f"{end.last:.4g} ± {end.sd:.2g}"
    return f"{text} (not finite: {words.count(end.lost, 'run')})" if end.lost else text
