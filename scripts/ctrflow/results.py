"""The results of a study on one section, seeds taken together: what maps, exports and the report show."""

from ctrflow import threshold


def on_section(runs: list[dict], tables: list, spots):
    """Mean scores over seeds and the calls on them.

    Parameters
    ----------
    runs : one dict a run, with `run`, the name under which its seeds go together
    tables : for each run its table (section, spot, score)
    spots : the section's AnnData

    Returns
    -------
    (scores, calls, thresholds): two frames with the spots as index, in the section's order, and the run names as
    columns; run name -> Threshold. A call is the label-free threshold of the mean score, as for a single seed.
    """
    import pandas as pd

    section = spots.uns["section"]["section"]
    columns: dict[str, list] = {}
    for run, table in zip(runs, tables, strict=True):
        rows = table[table["section"] == section]
        columns.setdefault(run["run"], []).append(rows.set_index("spot")["score"])
    scores = pd.DataFrame({name: pd.concat(seeds, axis=1).mean(axis=1) for name, seeds in columns.items()})
    scores = scores.loc[spots.obs_names]
    thresholds = {name: threshold.fit(scores[name].to_numpy()) for name in scores}
    calls = pd.DataFrame(
        {name: fitted.call(scores[name].to_numpy()) for name, fitted in thresholds.items()}, index=scores.index
    )
    return scores, calls, thresholds


def layers(scores, calls, labels=None) -> list[tuple]:
    """The panels of a section's map for `plots.section_panel`: the label first, then score and call per run."""
    panels = [] if labels is None else [("label", labels, "label")]
    for name in scores:
        panels += [
            (f"{name}: score", scores[name].to_numpy(), "score"),
            (f"{name}: call", calls[name].to_numpy(), "call"),
        ]
    return panels


def threshold_table(runs: list[dict], thresholds: list[dict]):
    """The threshold of every run and section and how it came about: task, encoder, section, variant, seed, ..."""
    import pandas as pd

    rows = [
        {key: run[key] for key in ("task", "encoder", "variant", "seed")}
        | {"section": section, "threshold": fitted["threshold"], "branch": fitted["branch"]}
        for run, by_section in zip(runs, thresholds, strict=True)
        for section, fitted in by_section.items()
    ]
    return pd.DataFrame(rows, columns=["task", "encoder", "section", "variant", "seed", "threshold", "branch"])


def cost_table(benchmarks: list[dict]):
    """Seconds and peak memory of the finished jobs: rule, variant, seconds, mb.

    `benchmarks` lists rule, variant and the path of Snakemake's benchmark file; one that is not there is left out.
    """
    from pathlib import Path

    import pandas as pd

    rows = []
    for line in benchmarks:
        if not Path(line["path"]).is_file():
            continue
        last = pd.read_csv(line["path"], sep="\t", na_values="-").iloc[-1]
        rows.append({"rule": line["rule"], "variant": line["variant"], "seconds": last["s"], "mb": last["max_rss"]})
    return pd.DataFrame(rows, columns=["rule", "variant", "seconds", "mb"])
