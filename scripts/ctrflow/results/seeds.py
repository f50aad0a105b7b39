"""The results of a study on one section, combined over seeds for maps, exports and the report."""

from ctrflow.results import threshold


def on_section(runs: list[dict], tables: list, spots):
    """Mean scores over seeds, their sd, and the calls on the means.

    Parameters
    ----------
    runs : one dict per run, with `run`, the name that its seeds share, and `threshold`, the kind of threshold
    tables : for each run its table (section, spot, score)
    spots : the section's AnnData

    Returns
    -------
    (scores, sd, calls, thresholds): three frames with the spots as index, in the section's order, and the run names as
    columns; run name -> Threshold. `sd` is the disagreement of seeds on a spot, see `_disagreement`, only for runs
    with two or more seeds. Calls apply the label-free threshold to the mean score, as for a single seed.
    """
    import pandas as pd

    section = spots.uns["section"]["section"]
    columns: dict[str, list] = {}
    for run, table in zip(runs, tables, strict=True):
        rows = table[table["section"] == section]
        columns.setdefault(run["run"], []).append(rows.set_index("spot")["score"])
    by_seed = {name: pd.concat(seeds, axis=1).loc[spots.obs_names] for name, seeds in columns.items()}
    scores = pd.DataFrame({name: seeds.mean(axis=1) for name, seeds in by_seed.items()})
    several = {name: _disagreement(seeds) for name, seeds in by_seed.items() if seeds.shape[1] > 1}
    sd = pd.DataFrame(several, index=scores.index)
    kinds = {run["run"]: run["threshold"] for run in runs}
    thresholds = {name: threshold.fit(scores[name].to_numpy(), kinds[name]) for name in scores}
    calls = pd.DataFrame(
        {name: fitted.call(scores[name].to_numpy()) for name, fitted in thresholds.items()}, index=scores.index
    )
    return scores, sd, calls, thresholds


def _disagreement(seeds):
    """The sd over seeds (population, ddof = 0) of each spot's score, in units of the score.

    Each seed's scores are first standardised within the section: a shift or scaling of the whole section does not
    change the calls, because the threshold moves with it.
    """
    spread = seeds.std(ddof=0)
    standard = (seeds - seeds.mean()) / spread.where(spread > 1e-12, 1.0)
    return spread.mean() * standard.std(axis=1, ddof=0)


def layers(scores, calls, labels=None, sd=()) -> list[tuple]:
    """The panels of a section's map for `plots.section_panel`: the label first, then score, call and sd per run.

    A run without a column in `sd` (one seed) has no sd panel.
    """
    panels = [] if labels is None else [("label", labels, "label")]
    for name in scores:
        panels += [
            (f"{name}: score", scores[name].to_numpy(), "score"),
            (f"{name}: call", calls[name].to_numpy(), "call"),
        ]
        if name in sd:
            panels.append((f"{name}: sd over seeds", sd[name].to_numpy(), "sd"))
    return panels


def threshold_table(runs: list[dict], thresholds: list[dict]):
    """The threshold of every run and section and its branch, with task, encoder, section, variant and seed."""
    import pandas as pd

    rows = [
        {key: run[key] for key in ("task", "encoder", "variant", "seed")}
        | {"section": section, "threshold": fitted["threshold"], "branch": fitted["branch"]}
        for run, by_section in zip(runs, thresholds, strict=True)
        for section, fitted in by_section.items()
    ]
    return pd.DataFrame(rows, columns=["task", "encoder", "section", "variant", "seed", "threshold", "branch"])


def loss_table(runs: list[dict], tables: list):
    """The losses of every run that trains in epochs, concatenated.

    Parameters
    ----------
    runs : task, fold, encoder, variant and seed of each run
    tables : for each run its table (stage, epoch, term, value), without rows if a method has no losses

    Returns
    -------
    frame (task, fold, encoder, variant, seed, stage, epoch, term, value)
    """
    import pandas as pd

    names = ["task", "fold", "encoder", "variant", "seed"]
    found = [
        table.assign(**{name: run[name] for name in names})
        for run, table in zip(runs, tables, strict=True)
        if len(table)
    ]
    columns = [*names, "stage", "epoch", "term", "value"]
    # a stage named 1 was read as a number
    return pd.concat(found)[columns].astype({"stage": str, "term": str}) if found else pd.DataFrame(columns=columns)


