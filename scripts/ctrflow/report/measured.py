"""The evaluation on labelled sections, as the report prints it."""

import numpy as np

from ctrflow import plots
from ctrflow.report import maps, words
from ctrflow.results import benchmark, marks
from ctrflow.results.metrics import BINS, METRICS, NOT_A_PROBABILITY, Metric

SHOWN = tuple(metric for metric in METRICS if metric.in_report)

REGIMES = {
    "labelled_source": ("labelled source", "learns from sections whose spots a pathologist labelled"),
    "normal_reference": ("normal reference", "learns from normal tissue only and scores the difference from it"),
    "drawn": ("drawn", "learns from what is drawn in the target itself"),
    "marker_prior": ("marker prior", "is fitted on the target itself, using known marker genes"),
    "control": ("control", "not a method: a score to beat, or what the true labels themselves would reach"),
}
# reference of a run -> what it says beside its regime
REFERENCES = {
    # a study without healthy sections can take normal spots from labelled source sections
    "source_negatives": ("normal reference: source spots", "learns from the spots labelled 0 in the source sections"),
    "drawn": (
        "drawn in the target",
        "is told a part of the target's own labels, and judged on the rest: not to be compared with those that are not",
    ),
}


def result(content, task, encoder, controls) -> dict:
    """The results of one task and encoder: one block of rows per group of comparable methods."""
    metrics, methods = content["metrics"], content["methods"]
    table = benchmark.summary_table(metrics, task, encoder)
    most = int(table["sections"].max()) if len(table) else 0
    known = references(metrics)
    tested = _of_pair(content.get("benchmark"), "methods", task, encoder)
    marked = {variant: found for (*where, variant), found in marks.texts(metrics).items() if where == [task, encoder]}
    rows = {
        variant: {
            "variant": variant,
            "regime": regime(methods, task, variant, known),
            "part": "" if row["sections"] == most else f"{int(row['sections'])} of {most} sections",
            "marks": marked.get(variant, []),
            "seeds": int(row["seeds"]),
            "cells": [words.mean_sd(row[metric.name], row[f"{metric.name}_sd"]) for metric in SHOWN],
            **_tested(tested, variant),
        }
        for variant, row in table.iterrows()
    }
    groups = _groups(methods, task, table.index, known)
    grouped = [variant for members in groups.values() for variant in members]
    order = [*grouped, *(variant for variant in table.index if variant not in grouped)]
    share = benchmark.prevalence(metrics, task, encoder)
    return {
        "id": f"result-{words.slug(task)}-{words.slug(encoder)}",
        "task": task,
        "encoder": encoder,
        "about": content["tasks"].get(task, ""),
        "sections": most,
        "patients": int(table["patients"].max()) if len(table) else 0,
        "headers": [metric.title for metric in SHOWN],
        "has_tests": tested is not None and not tested.empty,
        "groups": [
            {"name": name, "rows": [rows[variant] | {"best": best[variant]} for variant in members]}
            for name, members in groups.items()
            for best in [_best_cells(table.loc[members], most)]
        ],
        "controls": [rows[variant] for variant in table.index if variant in controls],
        "chance": [_chance(metric, share) for metric in SHOWN],
        "has_ece": bool(table["ece"].notna().any()),
        "reliability": _reliability(content.get("reliability"), task, encoder, order),
        "prevalence": words.number(share),
        "mark_notes": marks.notes([text for found in marked.values() for text in found]),
        "by_section": [_by_section(metrics, task, encoder, metric, order, groups) for metric in SHOWN],
        "pairs": _pairs(content.get("benchmark"), task, encoder, controls),
        "notes": _notes(metrics, task, encoder),
    }


def _groups(methods, task, variants, known) -> dict[str, list]:
    """Group -> its methods, without empty groups and controls."""
    members = {name: [] for name in benchmark.GROUPS}
    for variant in variants:
        reference = known.get((task, variant), "")
        name = benchmark.group(methods[variant]["regime"], reference) if variant in methods else benchmark.UNLABELLED
        if name in members:
            members[name].append(variant)
    return {name: variants for name, variants in members.items() if variants}


def _best_cells(table, most: int) -> dict[str, list[bool]]:
    """Variant -> for each metric whether it is the best of its group, among those evaluated on every section."""
    complete = table[table["sections"] == most]
    best = {metric.name: _best(metric, complete[metric.name]) for metric in SHOWN}
    return {
        variant: [variant in complete.index and round(row[name], 3) == value for name, value in best.items()]
        for variant, row in table.iterrows()
    }


def _chance(metric: Metric, prevalence: float) -> str:
    """The chance level of a metric."""
    if metric.chance is None:
        return "–"
    return words.number(prevalence if metric.chance == "prevalence" else metric.chance)


def _of_pair(tables, name: str, task, encoder):
    """The rows of one task and encoder in a benchmark table; None without a benchmark."""
    if tables is None:
        return None
    table = tables[name]
    return table[(table["task"] == task) & (table["encoder"] == encoder)]


def _tested(tested, variant: str) -> dict[str, str]:
    """The bootstrap interval of a variant's mean AUC, and its mean rank."""
    nothing = {"interval": "", "rank": "–"}
    if tested is None:
        return nothing
    rows = tested[(tested["variant"] == variant) & (tested["metric"] == "auc")]
    if rows.empty:
        return nothing
    row = rows.iloc[0]
    return {"interval": _interval(row["low"], row["high"]), "rank": words.cell(row["mean_rank"])}


def _interval(low: float, high: float) -> str:
    return "" if low != low else f"{low:.3f} to {high:.3f}"


def _pairs(tables, task, encoder, controls) -> dict | None:
    """Pairwise differences in AUC; None without pairs."""
    pairs = _of_pair(tables, "pairs", task, encoder)
    if pairs is None:
        return None
    pairs = pairs[(pairs["metric"] == "auc") & ~pairs["better"].isin(controls) & ~pairs["other"].isin(controls)]
    if pairs.empty:
        return None
    shown = {
        "better": pairs["better"],
        "other": pairs["other"],
        "difference": pairs["mean_difference"].map(words.number),
        "95 % interval": [_interval(*ends) or "–" for ends in zip(pairs["low"], pairs["high"], strict=True)],
        "better on": [f"{int(of.sections_better)} of {int(of.sections)} sections" for of in pairs.itertuples()],
        "p": pairs["p"].map(words.cell),
        "p, Holm": pairs["p_holm"].map(words.cell),
        "note": pairs["note"].fillna(""),
    }
    import pandas as pd

    return words.table(pd.DataFrame(shown), numeric={"difference", "p", "p, Holm"})


def _best(metric: Metric, values) -> float:
    """The best mean, rounded as shown; NaN if all are missing."""
    values = np.round(np.asarray(values, dtype=float), 3)
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan
    return float(values.max() if metric.higher_is_better else values.min())


def _reliability(table, task, encoder, order) -> dict | None:
    """The reliability curves of one task and encoder, in the order of the summary; None without any."""
    import pandas as pd

    if table is None:
        return None
    rows = table[(table["task"] == task) & (table["encoder"] == encoder)]
    names = [variant for variant in order if variant in set(rows["variant"])]
    if not names:
        return None
    curves = {variant: rows[rows["variant"] == variant] for variant in names}
    picture = plots.reliability_panels(
        [(name, *of[["mean_score", "share", "spots"]].to_numpy().T) for name, of in curves.items()]
    )
    shown = [
        {
            "variant": name,
            "score": f"{(row.bin - 1) / BINS:g} to {row.bin / BINS:g}",
            "mean score": words.number(row.mean_score),
            "share of cancer": words.number(row.share),
            "spots": words.whole(row.spots),
        }
        for name, of in curves.items()
        for row in of[of["spots"] > 0].itertuples()
    ]
    return {
        "picture": maps.data_uri(picture),
        "panels": min(len(names), plots.RELIABILITY_COLUMNS),
        "alt": f"Reliability curves of {', '.join(names)}: share of cancer against score, with the spots of each bin.",
        "table": words.table(pd.DataFrame(shown), numeric={"mean score", "share of cancer", "spots"}),
    }


def _by_section(metrics, task, encoder, metric: Metric, order, groups) -> dict:
    """One metric by section, with the best of each group marked."""
    rows = benchmark.rows_of(metrics, task, encoder)
    table = benchmark.section_table(metrics, task, encoder, metric.name)
    order = [variant for variant in order if variant in table]
    facts = rows.groupby(["section", "metric"])["value"].mean()
    patients = rows.drop_duplicates("section").set_index("section")["patient"]
    shown = []
    for section, values in table.dropna(how="all").iterrows():
        means = {
            name: [values[variant, "mean"] for variant in members if variant in order]
            for name, members in groups.items()
        }
        best = {variant: _best(metric, means[name]) for name, members in groups.items() for variant in members}
        shown.append(
            {
                "section": section,
                "patient": patients[section],
                "spots": words.whole(facts.get((section, "n_spots"), np.nan)),
                "prevalence": words.number(facts.get((section, "prevalence"), np.nan)),
                "cells": [
                    {
                        "text": words.mean_sd(values[variant, "mean"], values[variant, "sd"]),
                        "best": round(values[variant, "mean"], 3) == best.get(variant),
                    }
                    for variant in order
                ],
            }
        )
    marks = dict.fromkeys(groups.get(benchmark.UNLABELLED, ()), benchmark.UNLABELLED) if len(groups) > 1 else {}
    marks |= dict.fromkeys(groups.get(benchmark.NORMAL_BY_LABEL, ()), "source spots")
    return {"metric": metric.title, "variants": order, "marks": marks, "rows": shown}


def _notes(metrics, task, encoder) -> list[str]:
    """Why values are missing: one note per section and reason."""
    rows = benchmark.rows_of(metrics, task, encoder)
    shown = rows["metric"].isin([metric.name for metric in SHOWN])
    rows = rows[shown & rows["value"].isna() & rows["note"].notna() & (rows["note"] != "")]
    # this reason belongs to a method, whatever the section
    unfit = rows["note"] == NOT_A_PROBABILITY
    variants = rows["variant"][unfit].unique()
    notes = [f"{_titles(rows[unfit])} of {', '.join(variants)}: {NOT_A_PROBABILITY}"] if len(variants) else []
    notes += [
        f"{section}, {_titles(of)}: {note}"
        for (section, note), of in rows[~unfit].groupby(["section", "note"], sort=False)
    ]
    return notes


def _titles(rows) -> str:
    """The titles of the metrics in some rows."""
    titles = [metric.title for metric in SHOWN if metric.name in set(rows["metric"])]
    return "all metrics" if len(titles) == len(SHOWN) else ", ".join(titles)


def regime(methods, task, variant, known) -> str:
    """What a variant learns from in a task, in two or three words; `known` are its `references`."""
    if variant not in methods:
        return ""
    own = methods[variant]["regime"]
    reference = known.get((task, variant), "") if own != "control" else ""
    return REFERENCES[reference][0] if reference in REFERENCES else REGIMES[own][0]


def references(metrics) -> dict[tuple, str]:
    """(task, variant) -> its normal reference, or `drawn`; without those that have none."""
    rows = metrics[metrics["reference"].notna() & (metrics["reference"] != "")]
    pairs = rows[["task", "variant", "reference"]].drop_duplicates().itertuples(index=False, name=None)
    return {(task, variant): reference for task, variant, reference in pairs}


def verdicts(metrics, task, encoder, methods) -> list[dict]:
    """One sentence per group of comparable methods: the best on the labelled sections, and its lead."""
    table = benchmark.summary_table(metrics, task, encoder)
    variants = table.index
    groups = _groups(methods, task, variants, references(metrics))
    where = {"task": task, "encoder": encoder}
    found = []
    for name, members in groups.items():
        best = benchmark.comparison(metrics, task, encoder, set(variants) - set(members))
        if best is not None:
            found.append(where | {"group": name, "best": best["best"], "text": _verdict(best)})
    return found or [where | {"group": "", "best": None, "text": _without_cancer(table["false_call_share"].dropna())}]


def _without_cancer(shares) -> str:
    """What methods call where there is no cancer."""
    if shares.empty:
        return "not evaluated: no section has both cancer and other spots."
    called = ", ".join(f"{words.percent(share)} by {variant}" for variant, share in shares.items())
    return f"no section has cancer; of the spots are called {called}."


def _verdict(found: dict) -> str:
    if found["second"] is None:
        return f"reaches a mean AUC of {found['auc']:.3f} ({words.count(found['patients'], 'patient')})."
    values = f"{found['auc']:.3f} against {found['second_auc']:.3f}"
    if round(found["difference"], 3) == 0:
        return f"and {found['second']} have the same mean AUC: {values}."
    doubt = ", less than the sd over seeds" if found["difference"] < found["sd"] else ""
    return (
        f"beats {found['second']} by {found['difference']:.3f} mean AUC{doubt} ({values}; "
        f"better on {found['better']} of {words.count(found['patients'], 'patient')})."
    )
