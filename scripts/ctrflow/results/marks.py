"""What stands beside a variant's figures in tables, because they mislead without it."""

KEY = ["task", "encoder", "variant"]
# how a mark begins -> what it means
MEANING = {
    "training did not lower": "the mean total loss of the last tenth of a stage's epochs is less than 0.5 % below "
    "that of the first tenth, so the scores are those of a network that has hardly learned",
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
        if marks := [text for text in (_unmoved(rows),) if text]:
            found[name] = marks
    return found


def joined(metrics) -> dict[tuple, str]:
    """(task, encoder, variant) -> its marks in one text."""
    return {name: "; ".join(marks) for name, marks in texts(metrics).items()}


def notes(found: list[str]) -> list[str]:
    """The explanation of each kind of mark that occurs, as a sentence."""
    return [f"“{kind} …”: {text}." for kind, text in MEANING.items() if any(mark.startswith(kind) for mark in found)]


def _unmoved(rows) -> str:
    """That training did not lower a loss: the stages of the first such run, and how many of the runs are such."""
    if "unmoved" not in rows:
        return ""
    # every run has an AUC, or says why it has none, but for those on crops, which are of other runs' models
    runs = rows[rows["metric"] == "auc"].drop_duplicates(["fold", "seed"])["unmoved"].fillna("").to_numpy(dtype=str)
    such = runs[runs != ""]
    if not len(such):
        return ""
    often = "" if len(runs) == 1 else f", {len(such)} of {len(runs)} runs"
    return f"training did not lower its loss ({such[0]}{often})"
