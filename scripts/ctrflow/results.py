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


def cost_table(folder: str, study: str):
    """Seconds and peak memory of every finished job, from Snakemake's benchmark files: rule, variant, seconds, mb.

    Files of steps shared by studies lie in `folder`, those of the study in `folder`/`study`.
    """
    from pathlib import Path

    import pandas as pd

    rows = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        parts = path.relative_to(folder).with_suffix("").parts
        own = len(parts) > 1 and parts[0] == study
        rule = parts[1] if own else parts[0]
        # paths of train and infer end in task/fold/encoder/method/seed
        variant = parts[-2] if own and rule in ("train_method", "infer_scores") else ""
        table = pd.read_csv(path, sep="\t", na_values="-")
        if (own or _is_shared(rule)) and len(table):
            rows.append(
                {"rule": rule, "variant": variant, "seconds": table["s"].iloc[-1], "mb": table["max_rss"].iloc[-1]}
            )
    return pd.DataFrame(rows, columns=["rule", "variant", "seconds", "mb"])


def _is_shared(rule: str) -> bool:
    return rule in (
        "simulate_cohort",
        "ingest_section",
        "ingest_cells",
        "aggregate_cells",
        "label_section",
        "embed_section",
    )
