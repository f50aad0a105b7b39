"""What stands beside a variant's figures in tables, because they mislead without it."""

from ctrflow.results.metrics import RHOS

KEY = ["task", "encoder", "variant"]
MOST = 0.8  # a mean rank correlation beyond this, either way, is marked
# how a mark begins -> what it means
MEANING = {
    "training did not lower": "the mean total loss of the last tenth of a stage's epochs is less than 0.5 % below "
    "that of the first tenth, so the scores are those of a network that has hardly learned",
    "follows": "the rank correlation (Spearman's rho) of the scores with library size, or with the darkness of the H&E, is "
    f"beyond {MOST:g} either way (within a section, mean over sections and seeds): this alone gives nearly the same order, "
    "or its inverse",
}


def texts(metrics) -> dict[tuple, list[str]]:
    """(task, encoder, variant) -> its marks, for the variants that have one; controls have none.

    Parameters
    ----------
    metrics : frame of `metrics.study_table`
    """
    if "regime" in metrics:
        metrics = metrics[metrics["regime"] != "control"]
    found = {}
    for name, rows in metrics.groupby(KEY, sort=False):
        if marks := [text for text in (*_followed(rows), _unmoved(rows)) if text]:
            found[name] = marks
    return found


def mean_rhos(metrics) -> dict[tuple, dict[str, float]]:
    """(task, encoder, variant) -> the mean of each of `RHOS` over sections, labelled or not, and seeds."""
    rows = metrics[metrics["metric"].isin(list(RHOS))].dropna(subset=["value"])
    means = rows.groupby([*KEY, "metric"])["value"].mean().unstack().reindex(columns=list(RHOS))
    return {name: row.to_dict() for name, row in means.iterrows()}


def joined(metrics) -> dict[tuple, str]:
    """(task, encoder, variant) -> its marks in one text."""
    return {name: "; ".join(marks) for name, marks in texts(metrics).items()}


def notes(found: list[str]) -> list[str]:
    """The explanation of each kind of mark that occurs, as a sentence."""
    return [f"“{kind} …”: {text}." for kind, text in MEANING.items() if any(mark.startswith(kind) for mark in found)]


def _followed(rows) -> list[str]:
    means = next(iter(mean_rhos(rows).values()), {})
    return [
        f"follows {RHOS[metric].replace('_', ' ')}, rho {mean:.2f}" for metric, mean in means.items() if abs(mean) > MOST
    ]


def _unmoved(rows) -> str:
    """That training did not lower a loss: the stages of the first such run, and how many of the runs are such."""
    if "unmoved" not in rows:
        return ""
    # every run has an AUC, or says why it has none, but for those on crops, which are of other runs' models
    runs = rows[rows["metric"] == "auc"].drop_duplicates(["fold", "seed"])["unmoved"].astype(object).fillna("")
    such = [text for text in runs if text]
    if not such:
        return ""
    often = "" if len(runs) == 1 else f", {len(such)} of {len(runs)} runs"
    return f"training did not lower its loss ({such[0]}{often})"
