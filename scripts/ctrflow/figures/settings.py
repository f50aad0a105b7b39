"""One task and encoder of a study: its sections, and its methods in display order."""

import numpy as np

from ctrflow import plots
from ctrflow.results import benchmark

GROUPS = (*benchmark.GROUPS, benchmark.CONTROL)
COLOURS = dict(
    zip(GROUPS, ("#0072b2", "#cc79a7", "#009e73", "#e69f00", "#9a9a9a"), strict=True)
)  # Okabe & Ito (2008), and grey
CLASSES = (("cancer", 1, plots.CANCER), ("other", 0, plots.OTHER))


def setting(task: str, encoder: str, sections: list[dict], metrics, genes=()) -> dict:
    """The data of the figures of one task and encoder.

    Methods are in the order of `GROUPS` (those that learned from labels first, controls last), then by falling mean
    AUC, then in the order of the study.

    Parameters
    ----------
    sections : as returned by `sections.scored`
    metrics : frame of `metrics.study_table`
    genes : whose expression to show

    Returns
    -------
    dict(task, encoder, sections, metrics (its rows), groups (variant -> one of `GROUPS`, including controls), auc and
    ks (variant -> mean, NaN if missing), variants (those with scores on a section, in order), genes)
    """
    rows = metrics[(metrics["task"] == task) & (metrics["encoder"] == encoder)]
    kinds = rows.drop_duplicates("variant")[["variant", "regime", "reference"]].itertuples(index=False)
    groups = {variant: benchmark.group(regime, reference) for variant, regime, reference in kinds}
    means = benchmark.summary_table(metrics, task, encoder).reindex(list(groups))
    auc = means["auc"].to_dict()
    shown = {variant for one in sections for variant in one["scores"]}
    return {
        "task": task,
        "encoder": encoder,
        "sections": sections,
        "metrics": rows,
        "groups": groups,
        "auc": auc,
        "ks": means["ks"].to_dict(),
        "variants": [variant for variant in in_order(groups, auc) if variant in shown],
        "genes": list(genes),
    }


def in_order(groups: dict, values: dict) -> list[str]:
    """Variants by group, then by falling value."""
    rank = {variant: np.inf if np.isnan(values[variant]) else -values[variant] for variant in groups}
    return sorted(groups, key=lambda variant: (GROUPS.index(groups[variant]), rank[variant]))


def best(setting: dict, most: int) -> list[str]:
    """The `most` methods with the highest mean AUC, alternating between groups so that each is represented."""
    measured = [name for name in setting["variants"] if np.isfinite(setting["auc"][name])]
    by_group = [[name for name in measured if setting["groups"][name] == group] for group in benchmark.GROUPS]
    by_group.sort(key=lambda names: -setting["auc"][names[0]] if names else np.inf)
    rounds = max(map(len, by_group))
    return [names[place] for place in range(rounds) for names in by_group if place < len(names)][:most]


def labelled(setting: dict) -> list[dict]:
    """The sections with at least one labelled spot."""
    return [one for one in setting["sections"] if one["label"] is not None and np.isfinite(one["label"]).any()]


def two_classes(setting: dict) -> list[dict]:
    """The sections with labelled spots of both classes."""
    return [one for one in labelled(setting) if {0.0, 1.0} <= set(one["label"])]


def pooled(sections: list[dict], variant: str, values) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a method on all spots of the sections that have it, and `values(section)` of the same spots."""
    own = [one for one in sections if variant in one["scores"]]
    scores = [one["scores"][variant].to_numpy(dtype=float) for one in own]
    return (np.concatenate(scores), np.concatenate([values(one) for one in own])) if own else (np.empty(0),) * 2


def heading(setting: dict, what: str) -> str:
    """The line above a figure."""
    return f"{what}   ·   {setting['task']}, {setting['encoder']}"
