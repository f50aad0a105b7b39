"""What drawings say about the maps that they teach, as one table."""

from ctrflow.within.estimate import SHARES

COLUMNS = (
    "task", "section", "encoder", "variant", "seed", "cancer_spots", "other_spots", "cancer_regions", "other_regions",
    "blocks", "auc", "balanced_accuracy", "found", "spared",
)  # fmt: skip


def table(runs: list[dict], estimates: list[dict]):
    """One row for each run of a task with the split `within`.

    Parameters
    ----------
    runs : task, fold (the section), encoder, variant, seed of each
    estimates : for each run the facts of `estimate.estimate`
    """
    import pandas as pd

    rows = []
    for run, facts in zip(runs, estimates, strict=True):
        row = {key: run[key] for key in ("task", "encoder", "variant", "seed")} | {"section": run["fold"]}
        for what in ("spots", "regions"):
            row |= {f"{word}_{what}": count for word, count in facts[what].items()}
        row |= {key: facts[key] for key in ("blocks", "auc", "balanced_accuracy", "found", "spared")}
        row |= {_at(point["share"]): point["balanced_accuracy"] for point in facts["curve"] if point["share"] < 1}
        rows.append(row | {"caveat": facts["caveat"]})
    return pd.DataFrame(rows, columns=[*COLUMNS, *map(_at, SHARES), "caveat"])


def _at(share: float) -> str:
    return f"at {share:.0%} drawn".replace("%", " %")
