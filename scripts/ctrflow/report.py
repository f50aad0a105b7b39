"""The report of a study: one self-contained HTML page (images inside, nothing loaded from anywhere)."""

import base64
import json
import re
from pathlib import Path

import numpy as np

from ctrflow import export, losses, plots, storage
from ctrflow.errors import first_few
from ctrflow.metrics import BINS, NOT_A_PROBABILITY

METRICS = {
    "auc": "AUC",
    "ap": "AP",
    "f1_true_ratio": "F1, true ratio",
    "f1_gmm": "F1, GMM threshold",
    "ks": "KS",
    "ece": "ECE",
}
LOWER_IS_BETTER = ("ece",)
REGIMES = {
    "labelled_source": ("labelled source", "learns from sections whose spots a pathologist labelled"),
    "normal_reference": ("normal reference", "learns from normal tissue alone and finds what differs"),
    "marker_prior": ("marker prior", "is fitted on the target itself, led by known marker genes"),
    "control": ("control", "no method: shows what a score must beat, or what the truth itself would reach"),
}
# where no healthy section exists, and a pathologist's labels of the sources are used after all
FROM_NEGATIVES = ("normal reference: source spots", "its normal tissue are the spots labelled 0 of the source sections")
REFERENCES = (
    "SpaCRD. AAAI Conference on Artificial Intelligence, 2026.",
    "Xu K. et al. MEATRD: Multimodal anomalous tissue region detection enhanced with spatial transcriptomics. "
    "AAAI Conference on Artificial Intelligence, 2025.",
    "Naeini M. P., Cooper G. F., Hauskrecht M. Obtaining well calibrated probabilities using Bayesian binning. "
    "AAAI Conference on Artificial Intelligence, 2015.",
    "Wolf F. A., Angerer P., Theis F. J. SCANPY: large-scale single-cell gene expression data analysis. "
    "Genome Biology 19:15, 2018.",
    "Palla G. et al. Squidpy: a scalable framework for spatial omics analysis. Nature Methods 19:171-178, 2022.",
    "Pedregosa F. et al. Scikit-learn: machine learning in Python. JMLR 12:2825-2830, 2011.",
    "van der Walt S. et al. scikit-image: image processing in Python. PeerJ 2:e453, 2014.",
    "Paszke A. et al. PyTorch: an imperative style, high-performance deep learning library. NeurIPS, 2019.",
    "Wightman R. PyTorch Image Models (timm). github.com/huggingface/pytorch-image-models, 2019.",
    "Mölder F. et al. Sustainable data analysis with Snakemake. F1000Research 10:33, 2021.",
)
OPEN_RUNS = 3
OPEN_SECTIONS = 4
OPEN_TRAININGS = 2


def write_report(content: dict, path: str | Path) -> None:
    """Render the report of a study.

    Parameters
    ----------
    content : plain dict of
        study : str, the title
        note : str, what the study asks, or "" (may be left out)
        simulated : bool; a simulated study is flagged wherever its numbers could be taken for results
        metrics : frame (study, task, fold, encoder, section, patient, method, variant, seed, metric, value, note), one
            value a row, NaN with a note where it cannot be computed; metric one of auc, ap, f1_true_ratio, f1_gmm, ks,
            ece, prevalence, n_spots (others are not shown); no rows where no target section is labelled
        reliability : frame (task, encoder, variant, bin, mean_score, share, spots), as `metrics.reliability_table`
            gives it (may be left out)
        methods : dict variant -> dict(regime, reference); regime labelled_source, normal_reference, marker_prior or
            control; reference a citation or ""
        tasks : dict task -> one sentence on its sources, targets and split
        sections : list, one per target section, task and encoder, of dict(section, task, encoder, patient, cohort,
            platform, note, concerns (what the section's check warns of, list of str; may be left out), spatial_px
            (n x 2, full-resolution px), um_per_px, spot_um, thumbnail (uint8 h x w x 3, or None without H&E),
            thumbnail_scale (thumbnail px per full-resolution px), labels ((n,) 1, 0, NaN; or None),
            runs: list of dict(variant, scores ((n,) mean over seeds), sd ((n,) over seeds; None or left out with one
            seed), calls ((n,) 1, 0, NaN), threshold (the content of threshold.json, or None)))
        not_applicable : frame (task, encoder, variant, reason)
        thresholds : frame (task, encoder, section, variant, seed, threshold, branch)
        losses : frame (task, fold, encoder, variant, seed, stage, epoch, term, value) of the runs that train by steps
            (may be left out)
        sheet : frame of all sections used, sources too (section, role, cohort, patient, platform, spots, note ...)
        seeds : list of int
        versions : dict name -> version
        config : dict, shown as it is
        costs : frame (rule, variant or "", seconds, mb), one benchmark file a row
    path : the html file
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report_template.html").render(**_page(content))
    storage.write_text(page, path)


def summary_table(metrics, task: str, encoder: str):
    """The overall results of one task and encoder, one row per variant, best AUC first.

    For each seed a metric is averaged over folds, then over the sections of a patient, then over patients; the table
    gives the mean of that over seeds and its population sd (ddof = 0, as in the papers; NaN for a single seed).
    Values that could not be computed (NaN) are left out.

    Returns
    -------
    frame, index variant, columns sections, patients, seeds (that have an AUC) and for each metric its mean
    (`auc`) and sd (`auc_sd`).
    """
    import pandas as pd

    rows = _rows(metrics, task, encoder).dropna(subset=["value"])
    keys = ["variant", "metric", "seed", "patient", "section"]
    values = rows.groupby(keys, sort=False)["value"].mean()
    while keys[-1] != "seed":
        keys.pop()
        values = values.groupby(keys, sort=False).mean()
    seeds = values.groupby(["variant", "metric"], sort=False)
    mean, sd = seeds.mean(), seeds.std(ddof=0).where(seeds.size() > 1)
    with_auc = rows[rows["metric"] == "auc"].groupby("variant", sort=False)
    table = pd.DataFrame(index=pd.Index(rows["variant"].unique(), name="variant"))
    for column, key in (("sections", "section"), ("patients", "patient"), ("seeds", "seed")):
        table[column] = with_auc[key].nunique().reindex(table.index, fill_value=0)
    for metric in METRICS:
        for column, of in ((metric, mean), (f"{metric}_sd", sd)):
            found = {variant: of.get((variant, metric), np.nan) for variant in table.index}
            table[column] = pd.Series(found, dtype=float)
    return table.sort_values("auc", ascending=False, kind="stable")


def section_table(metrics, task: str, encoder: str, metric: str):
    """One metric by section: frame with sections as rows and (variant, "mean" or "sd") as columns, over seeds."""
    import pandas as pd

    rows = _rows(metrics, task, encoder)
    rows = rows[rows["metric"] == metric]
    seeds = rows.groupby(["section", "variant", "seed"], sort=False)["value"].mean().groupby(["section", "variant"])
    sections, variants = rows["section"].unique(), rows["variant"].unique()
    mean, sd = seeds.mean().unstack(), seeds.std(ddof=0).where(seeds.count() > 1).unstack()
    parts = {(variant, what): of[variant] for variant in variants for what, of in (("mean", mean), ("sd", sd))}
    return pd.DataFrame(parts).reindex(sections)


def prevalence(metrics, task: str, encoder: str) -> float:
    """The share of cancer spots of the sections that have an AUC, averaged as metrics are: the chance level of AP."""
    rows = _rows(metrics, task, encoder)
    evaluated = rows[(rows["metric"] == "auc") & rows["value"].notna()]["section"].unique()
    rows = rows[(rows["metric"] == "prevalence") & rows["section"].isin(evaluated)]
    return float(rows.groupby(["patient", "section"])["value"].mean().groupby("patient").mean().mean())


def comparison(metrics, task: str, encoder: str, controls=()) -> dict | None:
    """The best method by mean AUC and the next one; controls and methods that lack a section are left out.

    Returns
    -------
    dict(best, auc, second, second_auc, difference, sd, better, patients): `sd` is the larger sd over seeds of the two
    (NaN with one seed each), `better` counts the patients on whom the best has the higher AUC; second and all that
    rests on it are None for a lone method. None where nothing was measured.
    """
    table = summary_table(metrics, task, encoder).dropna(subset=["auc"])
    table = table[~table.index.isin(list(controls))]
    table = table[table["sections"] == table["sections"].max()]
    if table.empty:
        return None
    best = table.index[0]
    result = {"best": best, "auc": float(table["auc"].iloc[0]), "patients": int(table["patients"].iloc[0])}
    if len(table) == 1:
        return result | {"second": None, "second_auc": None, "difference": None, "sd": None, "better": None}
    second = table.index[1]
    rows = _rows(metrics, task, encoder)
    rows = rows[rows["metric"] == "auc"].groupby(["variant", "patient", "section"])["value"].mean()
    patients = rows.groupby(["variant", "patient"]).mean()
    return result | {
        "second": second,
        "second_auc": float(table["auc"].iloc[1]),
        "difference": float(table["auc"].iloc[0] - table["auc"].iloc[1]),
        "sd": float(table["auc_sd"].iloc[:2].max()),
        "better": int((patients[best] > patients[second]).sum()),
    }


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


def _rows(metrics, task, encoder):
    """The rows of one task and encoder; a section without a patient is a patient of its own."""
    rows = metrics[(metrics["task"] == task) & (metrics["encoder"] == encoder)]
    return rows.assign(
        patient=rows["patient"].where(rows["patient"].notna() & (rows["patient"] != ""), rows["section"]),
        variant=rows["variant"].where(rows["variant"].notna() & (rows["variant"] != ""), rows["method"]),
        value=rows["value"].astype(float),
    )


def _page(content: dict) -> dict:
    """All that the template shows, as text, lists and dicts."""
    metrics, methods = content["metrics"], content["methods"]
    controls = {variant for variant, spec in methods.items() if spec["regime"] == "control"}
    pairs = list(metrics[["task", "encoder"]].drop_duplicates().itertuples(index=False, name=None))
    auc = {}
    for task, encoder in pairs:
        table = summary_table(metrics, task, encoder)
        auc |= {(task, encoder, variant): value for variant, value in table["auc"].dropna().items()}
    negatives = _from_negatives(metrics)
    regimes = [words for regime, words in REGIMES.items() if regime in {spec["regime"] for spec in methods.values()}]
    return {
        "study": content["study"],
        "note": content.get("note") or "",
        "simulated": content["simulated"],
        "lead": _lead(content, controls),
        "verdicts": [_verdict(metrics, task, encoder, controls) for task, encoder in pairs],
        "glance": _glance(content["sections"], controls, auc),
        "sections": (sections := _sections(content["sections"], methods, controls, auc, negatives)),
        "links": _links(sections),
        "has_sd": any(run.get("sd") is not None for entry in content["sections"] for run in entry["runs"]),
        "results": [_result(content, task, encoder, controls) for task, encoder in pairs],
        "regimes": [*regimes, *([FROM_NEGATIVES] if negatives else [])],
        "not_applicable": _table(content["not_applicable"]),
        "thresholds": _table(content["thresholds"], numeric={"threshold", "seed"}),
        "trainings": _trainings(content.get("losses")),
        "sheet": _table(content["sheet"]),
        "seeds": ", ".join(map(str, content["seeds"])),
        "versions": content["versions"],
        "config": json.dumps(content["config"], indent=2, ensure_ascii=False, default=str),
        "costs": _costs(content["costs"]),
        "references": [*REFERENCES, *_method_references(methods)],
    }


def _lead(content: dict, controls) -> str:
    sections = content["sections"]
    names = {entry["section"] for entry in sections}
    patients = {entry["patient"] or entry["section"] for entry in sections}
    labelled = {entry["section"] for entry in sections if _has_labels(entry["labels"])}
    variants = {run["variant"] for entry in sections for run in entry["runs"]} - set(controls)
    spots = {entry["section"]: len(entry["spatial_px"]) for entry in sections}
    text = (
        f"{_count(len(names), 'section')} of {_count(len(patients), 'patient')} ({sum(spots.values()):,} spots) "
        f"scored by {_count(len(variants), 'method')}. "
    )
    if not labelled:
        return text + "No section is labelled: the maps below were not checked against a pathologist."
    if len(labelled) == len(names):
        return text + ("The section is labelled." if len(names) == 1 else "All sections are labelled.")
    return text + f"{len(labelled)} of {len(names)} sections are labelled; only those could be evaluated."


def _verdict(metrics, task, encoder, controls) -> dict:
    """What the labelled sections say, in plain words."""
    found = comparison(metrics, task, encoder, controls)
    verdict = {
        "task": task,
        "encoder": encoder,
        "best": None,
        "text": "could not be evaluated: no section has both classes.",
    }
    if found is None:
        return verdict
    verdict["best"] = found["best"]
    if found["second"] is None:
        return verdict | {"text": f"reaches a mean AUC of {found['auc']:.3f} ({_count(found['patients'], 'patient')})."}
    values = f"{found['auc']:.3f} against {found['second_auc']:.3f}"
    if round(found["difference"], 3) == 0:
        return verdict | {"text": f"and {found['second']} are level: mean AUC {values}."}
    doubt = ", less than the sd over seeds" if found["difference"] < found["sd"] else ""
    return verdict | {
        "text": f"beats {found['second']} by {found['difference']:.3f} mean AUC{doubt} ({values}; "
        f"better on {found['better']} of {_count(found['patients'], 'patient')})."
    }


def _glance(sections, controls, auc) -> list[dict]:
    """One row per target section: what the best method found there, and how far the others differ."""
    rows = []
    for name in dict.fromkeys(entry["section"] for entry in sections):
        entries = [entry for entry in sections if entry["section"] == name]
        runs = [(entry, run) for entry in entries for run in entry["runs"] if run["variant"] not in controls]
        if not runs:
            continue
        entry, run = max(runs, key=lambda pair: _standing(*pair, auc))
        shares = [_share(other["calls"]) for _, other in runs]
        called, scored = _called(run["calls"])
        rows.append(
            {
                "section": name,
                "patient": entry["patient"],
                "labelled": _has_labels(entry["labels"]),
                "variant": run["variant"],
                "encoder": entry["encoder"],
                "task": entry["task"],
                "called": f"{called:,} of {scored:,}",
                "share": _percent(_share(run["calls"])),
                "width": round(100 * _share(run["calls"]), 1) if scored else 0,
                "area": f"{called * export.spot_area_mm2(entry['spatial_px'], entry['um_per_px']):.2f}",
                "others": f"{_percent(min(shares))} to {_percent(max(shares))}" if len(shares) > 1 else "–",
                "truth": _percent(float(np.nanmean(entry["labels"])))
                if _has_labels(entry["labels"])
                else "not labelled",
            }
        )
    return rows


def _standing(entry, run, auc) -> float:
    """The mean AUC of a run's method in its own task, else with the same encoder in another task, else none (-1)."""
    own = auc.get((entry["task"], entry["encoder"], run["variant"]))
    if own is not None:
        return own
    elsewhere = [
        value
        for (_, encoder, variant), value in auc.items()
        if (encoder, variant) == (entry["encoder"], run["variant"])
    ]
    return max(elsewhere, default=-1.0)


def _sections(sections, methods, controls, auc, negatives) -> list[dict]:
    shown, taken = [], set()
    for number, entry in enumerate(sections):
        labels = entry["labels"] if _has_labels(entry["labels"]) else None
        order = sorted(entry["runs"], key=lambda run: (run["variant"] in controls, -_standing(entry, run, auc)))
        runs = [_run(entry, run, labels, methods, auc, negatives) for run in order]
        shown.append(
            {
                "id": _anchor(entry["section"], taken),
                "section": entry["section"],
                "task": entry["task"],
                "encoder": entry["encoder"],
                "facts": _facts(entry, labels),
                "note": entry["note"],
                "concerns": entry.get("concerns", ()),
                "labelled": labels is not None,
                "has_image": entry["thumbnail"] is not None,
                "open": number < OPEN_SECTIONS,
                "runs": runs[:OPEN_RUNS],
                "more": runs[OPEN_RUNS:],
            }
        )
    return shown


def _links(sections) -> list[tuple[str, str]]:
    """The first map of each section: (name, id)."""
    links = {}
    for section in sections:
        links.setdefault(section["section"], section["id"])
    return list(links.items())


def _run(entry, run, labels, methods, auc, negatives) -> dict:
    variant = run["variant"]
    layers = [] if labels is None else [("label", labels, "label")]
    layers += [("score", run["scores"], "score"), ("call", run["calls"], "call")]
    if run.get("sd") is not None:
        layers.append(("sd over seeds", run["sd"], "sd"))
    picture = plots.section_panel(
        entry["thumbnail"], entry["thumbnail_scale"], entry["spatial_px"], entry["spot_um"], entry["um_per_px"], layers
    )
    called, scored = _called(run["calls"])
    share = _percent(_share(run["calls"]))
    panels = ", ".join([*([] if entry["thumbnail"] is None else ["H&E"]), *(title for title, _, _ in layers)])
    mixture = run["threshold"] or {}
    threshold = mixture.get("threshold")
    measured = auc.get((entry["task"], entry["encoder"], variant))
    return {
        "variant": variant,
        "regime": _regime(methods, entry["task"], variant, negatives),
        "picture": _data_uri(picture),
        "panels": len(layers) + (entry["thumbnail"] is not None),
        "alt": f"Section {entry['section']}, {variant}: {panels} side by side. "
        f"{called} of {scored} scored spots ({share}) called cancer.",
        "called": f"{called:,} of {scored:,} spots called cancer ({share})",
        "mean_auc": "" if measured is None else f"{measured:.3f}",
        "histogram": _data_uri(plots.score_histogram(run["scores"], threshold, mixture)) if run["threshold"] else "",
        "branch": mixture.get("branch", ""),
        "threshold": "none" if threshold is None else f"{threshold:.4g}",
    }


def _facts(entry, labels) -> str:
    facts = [entry["platform"], f"{len(entry['spatial_px']):,} spots of {entry['spot_um']:g} µm"]
    if entry["cohort"]:
        facts.append(f"cohort {entry['cohort']}")
    if entry["patient"] and entry["patient"] != entry["section"]:
        facts.append(f"patient {entry['patient']}")
    if labels is not None:
        facts.append(f"{_percent(float(np.nanmean(labels)))} of labelled spots are cancer")
    return " · ".join(facts)


def _result(content, task, encoder, controls) -> dict:
    metrics, methods = content["metrics"], content["methods"]
    table = summary_table(metrics, task, encoder)
    most = int(table["sections"].max()) if len(table) else 0
    fair = table[~table.index.isin(list(controls)) & (table["sections"] == most)]
    best = {metric: _best(metric, fair[metric]) for metric in METRICS}
    negatives = _from_negatives(metrics)
    rows = [
        {
            "variant": variant,
            "regime": _regime(methods, task, variant, negatives),
            "control": variant in controls,
            "part": "" if row["sections"] == most else f"{int(row['sections'])} of {most} sections",
            "seeds": int(row["seeds"]),
            "cells": [
                {
                    "text": _mean_sd(row[metric], row[f"{metric}_sd"]),
                    "best": variant in fair.index and round(row[metric], 3) == best[metric],
                }
                for metric in METRICS
            ],
        }
        for variant, row in table.iterrows()
    ]
    order = sorted(table.index, key=lambda variant: variant in controls)
    share = prevalence(metrics, task, encoder)
    return {
        "id": f"result-{_slug(task)}-{_slug(encoder)}",
        "task": task,
        "encoder": encoder,
        "about": content["tasks"].get(task, ""),
        "sections": most,
        "patients": int(table["patients"].max()) if len(table) else 0,
        "headers": list(METRICS.values()),
        "methods": [row for row in rows if not row["control"]],
        "controls": [row for row in rows if row["control"]],
        # scores that are all the prevalence have no calibration error and no use: chance has no ECE
        "chance": ["0.500", _number(share), _number(share), "–", "0.000", "–"],
        "has_ece": bool(table["ece"].notna().any()),
        "reliability": _reliability(content.get("reliability"), task, encoder, order),
        "prevalence": _number(share),
        "by_section": [_by_section(metrics, task, encoder, metric, order, controls) for metric in METRICS],
        "notes": _notes(metrics, task, encoder),
    }


def _trainings(found) -> list[dict]:
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
                "runs": _count(runs, "run"),
                "concerns": concerns,
                "open": len(shown) < OPEN_TRAININGS or bool(concerns),
                "panels": min(len(totals), 3),
                "picture": _data_uri(plots.loss_curves(rows)),
                "alt": f"Loss curves of {variant}, {task}, {encoder}, mean of {_count(runs, 'run')}: "
                + "; ".join(f"{end.stage} from {_cell(end.first)} to {_cell(end.last)}" for end in totals.itertuples())
                + ".",
                "ends": _table(
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
        f"{stage}: the loss is {text} in {len(names)} of {_count(len(runs), 'run')} ({first_few(names)}): "
        "lower the learning rate."
        for (stage, text), names in found.items()
    ]


def _last_loss(end) -> str:
    """The mean and sd over runs of a last loss, and how many of them are not finite."""
    if end.lost == end.runs:
        return "not finite"
    text = _cell(end.last) if end.sd != end.sd else f"{end.last:.4g} ± {end.sd:.2g}"
    return f"{text} (not finite: {_count(end.lost, 'run')})" if end.lost else text


def _best(metric, values) -> float:
    """The best of some means, as it is shown; NaN without any."""
    values = np.round(np.asarray(values, dtype=float), 3)
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan
    return float(values.min() if metric in LOWER_IS_BETTER else values.max())


def _reliability(table, task, encoder, order) -> dict | None:
    """The reliability curves of one task and encoder, in the order of the summary; None where there are none."""
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
            "mean score": _number(row.mean_score),
            "share of cancer": _number(row.share),
            "spots": _whole(row.spots),
        }
        for name, of in curves.items()
        for row in of[of["spots"] > 0].itertuples()
    ]
    return {
        "picture": _data_uri(picture),
        "panels": min(len(names), plots.RELIABILITY_COLUMNS),
        "alt": f"Reliability curves of {', '.join(names)}: share of cancer against score, with the spots of each bin.",
        "table": _table(pd.DataFrame(shown), numeric={"mean score", "share of cancer", "spots"}),
    }


def _by_section(metrics, task, encoder, metric, order, controls) -> dict:
    rows = _rows(metrics, task, encoder)
    table = section_table(metrics, task, encoder, metric)
    order = [variant for variant in order if variant in table]
    facts = rows.groupby(["section", "metric"])["value"].mean()
    patients = rows.drop_duplicates("section").set_index("section")["patient"]
    shown = []
    for section, values in table.dropna(how="all").iterrows():
        means = {variant: values[variant, "mean"] for variant in order if variant not in controls}
        best = _best(metric, np.array(list(means.values())))
        shown.append(
            {
                "section": section,
                "patient": patients[section],
                "spots": _whole(facts.get((section, "n_spots"), np.nan)),
                "prevalence": _number(facts.get((section, "prevalence"), np.nan)),
                "cells": [
                    {
                        "text": _mean_sd(values[variant, "mean"], values[variant, "sd"]),
                        "best": variant in means and round(values[variant, "mean"], 3) == best,
                    }
                    for variant in order
                ],
            }
        )
    negatives = _from_negatives(metrics)
    marks = {variant: "source spots" for variant in order if (task, variant) in negatives}
    return {"metric": METRICS[metric], "variants": order, "marks": marks, "rows": shown}


def _notes(metrics, task, encoder) -> list[str]:
    """Why values are missing, once per section, reason and set of methods."""
    rows = _rows(metrics, task, encoder)
    rows = rows[rows["metric"].isin(list(METRICS)) & rows["value"].isna() & rows["note"].notna() & (rows["note"] != "")]
    # of a method, not of a section
    unfit = rows["note"] == NOT_A_PROBABILITY
    variants = rows["variant"][unfit].unique()
    notes = [f"ECE of {', '.join(variants)}: {NOT_A_PROBABILITY}"] if len(variants) else []
    for (section, note), of in rows[~unfit].groupby(["section", "note"], sort=False):
        names = [METRICS[metric] for metric in METRICS if metric in set(of["metric"])]
        which = "all metrics" if len(names) == len(METRICS) else ", ".join(names)
        notes.append(f"{section}, {which}: {note}")
    return notes


def _costs(costs) -> dict:
    """Benchmark rows summed by rule and variant, the dearest first."""
    import pandas as pd

    keys = ["rule", "variant"]
    groups = costs.assign(variant=costs["variant"].fillna("")).groupby(keys, sort=False)
    table = pd.DataFrame(
        {
            "jobs": groups.size(),
            "total": groups["seconds"].sum(),
            "longest job": groups["seconds"].max(),
            "peak MB": groups["mb"].max(),
        }
    ).sort_values("total", ascending=False)
    for column in ("total", "longest job"):
        table[column] = table[column].map(_duration)
    table["peak MB"] = table["peak MB"].map(_whole)
    return _table(table.reset_index(), numeric={"jobs", "total", "longest job", "peak MB"})


def _table(frame, numeric=frozenset()) -> dict:
    """A frame as text for the template: columns (name, numeric) and rows of cells."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    columns = []
    for name in frame.columns:
        column = frame[name]
        is_number = name in numeric or (is_numeric_dtype(column) and not is_bool_dtype(column))
        columns.append({"name": str(name).replace("_", " "), "numeric": is_number})
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return {"columns": columns, "rows": rows}


def _cell(value) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.0f}" if value == round(value) and abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(value)
    return str(value)


def _method_references(methods) -> list[str]:
    found = {spec.get("reference", "") for spec in methods.values() if spec["regime"] != "control"}
    return sorted(text for text in found if text and text not in REFERENCES)


def _regime(methods, task, variant, negatives) -> str:
    if (task, variant) in negatives:
        return FROM_NEGATIVES[0]
    return REGIMES[methods[variant]["regime"]][0] if variant in methods else ""


def _from_negatives(metrics) -> set[tuple]:
    """Tasks and variants whose normal reference are spots of the source sections."""
    rows = metrics[metrics["reference"] == "source_negatives"]
    return set(rows[["task", "variant"]].drop_duplicates().itertuples(index=False, name=None))


def _has_labels(labels) -> bool:
    return labels is not None and bool(np.isfinite(np.asarray(labels, dtype=float)).any())


def _called(calls) -> tuple[int, int]:
    calls = np.asarray(calls, dtype=float)
    return int((calls == 1).sum()), int(np.isfinite(calls).sum())


def _share(calls) -> float:
    called, scored = _called(calls)
    return called / scored if scored else float("nan")


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f}\u00a0%"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _whole(value: float) -> str:
    return "–" if value != value else f"{value:,.0f}"


def _mean_sd(mean: float, sd: float) -> str:
    return _number(mean) if sd != sd else f"{mean:.3f} ± {sd:.3f}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "x"


def _anchor(name: str, taken: set) -> str:
    """An id for a link within the page, used once."""
    base = anchor = f"section-{_slug(name)}"
    number = 1
    while anchor in taken:
        number += 1
        anchor = f"{base}-{number}"
    taken.add(anchor)
    return anchor


def _data_uri(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
