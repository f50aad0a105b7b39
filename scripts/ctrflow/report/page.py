"""The report of a study: one self-contained HTML page with all images embedded."""

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import numpy as np

from ctrflow import plots, storage
from ctrflow.errors import first_few
from ctrflow.report import maps, measured, training, words
from ctrflow.results import benchmark, marks, verdict
from ctrflow.scale import lattice

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
    "Bokeh Development Team. Bokeh: Python library for interactive visualization. bokeh.org.",
    "Paszke A. et al. PyTorch: an imperative style, high-performance deep learning library. NeurIPS, 2019.",
    "Wightman R. PyTorch Image Models (timm). github.com/huggingface/pytorch-image-models, 2019.",
    "Mölder F. et al. Sustainable data analysis with Snakemake. F1000Research 10:33, 2021.",
)
COLOURS = {"cancer": plots.CANCER, "other": plots.OTHER, "unknown": plots.UNKNOWN}
PICTURE_PX = 1400  # longer side of a section's picture: about 300 kB, and sharp on a full screen
KINDS = {verdict.FOUND: "found", verdict.NONE: "none", verdict.OPEN: "open"}  # classes of the page's style
OPEN_SECTIONS = 1  # sections open from the start; the others are drawn when opened


def write_report(content: dict, path: str | Path) -> None:
    """Render the report of a study.

    Parameters
    ----------
    content : plain dict of
        study : str, the title
        note : str, what the study asks, or "" (optional)
        simulated : bool; a study that scores simulated sections is flagged wherever its numbers could be mistaken for
            results
        cautions : dict section -> what its maps must warn of, list of str (optional)
        metrics : frame (study, task, fold, encoder, section, patient, method, variant, seed, metric, value, note), one
            value per row, NaN with a note where it cannot be computed; metric one of `metrics.METRICS` and
            `metrics.FACTS` (others are not shown); no rows if no target section is labelled
        benchmark : dict of frames sections, methods, pairs from `benchmark.tables` (optional)
        published : frame of `published.tsv`: our means beside the published ones (optional)
        efficiency : frame of `efficiency.table` (optional)
        within : frame of `within.tabulate.table`: what drawings say about the maps that they teach (optional)
        figures : list of dict(task, encoder, title, caption, picture (image bytes, or None if it cannot be drawn),
            reason) (optional)
        reliability : frame (task, encoder, variant, bin, mean_score, share, spots) from
            `metrics.reliability_table` (optional)
        methods : dict variant -> dict(regime, reference); regime labelled_source, normal_reference, marker_prior or
            control; reference a citation or ""
        tasks : dict task -> one sentence on its sources, targets and split
        given : the tasks that score with a given model; their sentence stands at each of their maps (optional)
        sections : list, one per target section, task and encoder, of dict(section, task, encoder, patient, cohort,
            platform, note, concerns (warnings of the section's check, list of str; optional), spatial_px
            (n x 2, full-resolution px), um_per_px, spot_um, thumbnail (uint8 h x w x 3, or None without H&E),
            thumbnail_scale (thumbnail px per full-resolution px), labels ((n,) 1, 0, NaN; or None), judged (the
            labels without those of spots that taught a run, or lie beside them; optional), spots ((n,) ids) and regions
            ((n,) the pathologist's regions), both optional,
            runs: list of dict(variant, scores ((n,) mean over seeds), sd ((n,) over seeds; None or absent with one
            seed), probability ((n,); None or absent without one), calls ((n,) 1, 0, NaN), threshold (the content of
            threshold.json, or None), verdict (that of verdict.json; optional)))
        not_applicable : frame (task, encoder, variant, reason)
        thresholds : frame (task, encoder, section, variant, seed, threshold, branch)
        losses : frame (task, fold, encoder, variant, seed, stage, epoch, term, value) of the runs that train in
            epochs (optional)
        sheet : frame of all sections used, sources too, with the results of their check (section, patient, spots ...)
        seeds : list of int
        versions : dict name -> version
        config : dict, shown unchanged
        costs : frame (rule, variant or "", seconds, mb), one benchmark file per row
    path : the html file
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = "".join((here / name).read_text(encoding="utf-8") for name in ("page_marks.js", "page_script.js"))
    scripts = [*maps.scripts(), own]
    environment.filters["json"] = _json
    page = environment.get_template("page_template.html").render(
        **_page(content),
        style=Markup((here / "page_style.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        script_digests=" ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts),
        plots={"items": maps.plot_items(), "palettes": maps.palettes(), "colours": COLOURS},
    )
    storage.write_text(page, path)


def _json(value):
    """JSON for a script element, escaped so that no text in it can end the element."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _page(content: dict) -> dict:
    """Everything the template shows, as text, lists and dicts."""
    metrics, methods = content["metrics"], content["methods"]
    controls = {variant for variant, spec in methods.items() if spec["regime"] == "control"}
    pairs = list(metrics[["task", "encoder"]].drop_duplicates().itertuples(index=False, name=None))
    auc = {}
    for task, encoder in pairs:
        table = benchmark.summary_table(metrics, task, encoder)
        auc |= {(task, encoder, variant): value for variant, value in table["auc"].dropna().items()}
    known = measured.references(metrics)
    sections = _sections(content, controls, auc, known)
    links = _links(sections)
    glanced = content["sections"], controls, auc, links
    seen = {spec["regime"] for spec in methods.values()}
    regimes = [text for regime, text in measured.REGIMES.items() if regime in seen - {"drawn"}]
    return {
        "study": content["study"],
        "note": content.get("note") or "",
        "simulated": content["simulated"],
        "cautions": _cautions(content),
        "lead": _lead(content, controls),
        "verdicts": [line for pair in pairs for line in measured.verdicts(metrics, *pair, methods)],
        "glance": (glance := _glance(*glanced, _corrected(content.get("within")))),
        "has_verdict": any(row["verdict"] for row in glance),
        "sections": sections,
        "links": list(links.items()),
        "has_sd": any(run.get("sd") is not None for entry in content["sections"] for run in entry["runs"]),
        "results": [measured.result(content, task, encoder, controls) for task, encoder in pairs],
        "figures": _figures(content.get("figures", ())),
        "published": _optional(content.get("published")),
        "efficiency": _efficiency(content.get("efficiency")),
        "within": _drawings(content.get("within")),
        "regimes": [*regimes, *(text for one, text in measured.REFERENCES.items() if one in known.values())],
        "not_applicable": words.table(content["not_applicable"]),
        "thresholds": words.table(content["thresholds"], numeric={"threshold", "seed"}),
        "trainings": training.trainings(content.get("losses")),
        "sheet": words.table(content["sheet"]),
        "seeds": ", ".join(map(str, content["seeds"])),
        "versions": content["versions"],
        "config": json.dumps(content["config"], indent=2, ensure_ascii=False, default=str),
        "costs": _costs(content["costs"]),
        "references": [*REFERENCES, *_method_references(methods)],
    }


def _cautions(content: dict) -> list[str]:
    """Each caution, with the sections it concerns."""
    sections: dict[str, list[str]] = {}
    for section, texts in content.get("cautions", {}).items():
        for text in texts:
            sections.setdefault(text, []).append(section)
    return [f"{first_few(names, 12)}: {text}" for text, names in sections.items()]


def _lead(content: dict, controls) -> str:
    sections = content["sections"]
    names = {entry["section"] for entry in sections}
    patients = {entry["patient"] or entry["section"] for entry in sections}
    labelled = {entry["section"] for entry in sections if _has_labels(entry["labels"])}
    variants = {run["variant"] for entry in sections for run in entry["runs"]} - set(controls)
    spots = {entry["section"]: len(entry["spatial_px"]) for entry in sections}
    text = (
        f"{words.count(len(names), 'section')} of {words.count(len(patients), 'patient')} "
        f"({sum(spots.values()):,} spots) "
        f"scored by {words.count(len(variants), 'method')}. "
    )
    if not labelled:
        return text + "No section is labelled, so the maps below could not be evaluated."
    if len(labelled) == len(names):
        return text + ("The section is labelled." if len(names) == 1 else "All sections are labelled.")
    return text + f"{len(labelled)} of {len(names)} sections are labelled; only these could be evaluated."


def _corrected(within) -> set[tuple]:
    """The (task, section) of maps that a person has corrected by a drawing."""
    return set() if within is None else set(zip(within["task"], within["section"], strict=True))


def _glance(sections, controls, auc, links, corrected=frozenset()) -> list[dict]:
    """One row per target section: the calls of the best method, and the range over all methods."""
    rows = []
    for name in dict.fromkeys(entry["section"] for entry in sections):
        entries = [entry for entry in sections if entry["section"] == name]
        said = next((_verdict(run) for entry in entries for run in entry["runs"] if _verdict(run)), "")
        # tasks differ in sections and in training data, so their AUCs cannot be compared: take that of a map which was
        # corrected by hand, else the first
        hers = [entry for entry in entries if (entry["task"], name) in corrected]
        entries = hers or [entry for entry in entries if entry["task"] == entries[0]["task"]]
        runs = [(entry, run) for entry in entries for run in entry["runs"] if run["variant"] not in controls]
        if not runs:
            continue
        entry, run = max(runs, key=lambda pair: _standing(*pair, auc))
        shares = [_share(other["calls"]) for _, other in runs]
        called, scored = _called(run["calls"])
        rows.append(
            {
                "id": links[name],
                "section": name,
                "patient": entry["patient"],
                "labelled": _has_labels(entry["labels"]),
                "variant": run["variant"],
                "encoder": entry["encoder"],
                "task": entry["task"],
                "verdict": _verdict(run) or (said if hers else ""),
                "called": f"{called:,} of {scored:,}",
                "share": words.percent(_share(run["calls"])),
                "width": round(100 * _share(run["calls"]), 1) if scored else 0,
                "area": f"{called * lattice.spot_area_mm2(entry['spatial_px'], entry['um_per_px']):.2f}",
                "picture": _gallery_picture(entry, run),
                "others": f"{words.percent(min(shares))} to {words.percent(max(shares))}" if len(shares) > 1 else "–",
                "truth": words.percent(float(np.nanmean(entry["labels"])))
                if _has_labels(entry["labels"])
                else "not labelled",
            }
        )
    return rows


def _gallery_picture(entry, run) -> str:
    """A thumbnail of the called spots on the H&E."""
    spots = entry["spatial_px"], entry["spot_um"], entry["um_per_px"]
    tile_px = lattice.tile_px(entry["spatial_px"], entry["spot_um"] / entry["um_per_px"])
    return maps.data_uri(
        plots.call_picture(entry["thumbnail"], entry["thumbnail_scale"], *spots, run["calls"], tile_px)
    )


def _standing(entry, run, auc) -> float:
    """The mean AUC of a run's method in its own task, else the best with this encoder in another task, else -1."""
    own = auc.get((entry["task"], entry["encoder"], run["variant"]))
    if own is not None:
        return own
    elsewhere = [
        value
        for (_, encoder, variant), value in auc.items()
        if (encoder, variant) == (entry["encoder"], run["variant"])
    ]
    return max(elsewhere, default=-1.0)


def _sections(content, controls, auc, known) -> list[dict]:
    """One entry per target section, task and encoder: its texts and the data of its map."""
    shown, taken, drawn, marked = [], set(), {}, marks.texts(content["metrics"])
    for number, entry in enumerate(content["sections"]):
        labels = entry["labels"] if _has_labels(entry["labels"]) else None
        entry = entry | {"labels": labels}
        order = sorted(entry["runs"], key=lambda run: (run["variant"] in controls, -_standing(entry, run, auc)))
        identity = _anchor(entry["section"], taken)
        # embed the geometry of a section once, even if several tasks score it
        geometry = drawn.setdefault(entry["section"], identity)
        shown.append(
            {
                "id": identity,
                "section": entry["section"],
                "task": entry["task"],
                "encoder": entry["encoder"],
                "facts": _facts(entry, labels),
                "note": entry["note"],
                "about": content["tasks"][entry["task"]] if entry["task"] in content.get("given", ()) else "",
                "cautions": content.get("cautions", {}).get(entry["section"], ()),
                "concerns": entry.get("concerns", ()),
                "labelled": labels is not None,
                "has_image": entry["thumbnail"] is not None,
                "has_sd": any(run.get("sd") is not None for run in order),
                "has_probability": any(run.get("probability") is not None for run in order),
                "verdicts": (said := _verdicts(order)),
                "one_verdict": len(said) == 1 and len(order) == 1,
                "open": number < OPEN_SECTIONS,
                "runs": [_run(entry, run, content["methods"], auc, known, marked) for run in order],
                "geometry_id": geometry,
                "geometry": maps.geometry(entry) if geometry == identity else None,
                "data": [maps.run_data(entry, run, _of_section(content["metrics"], entry)) for run in order],
            }
        )
    return shown


def _of_section(metrics, entry):
    """Mean and sd over seeds of each variant and metric on one section."""
    rows = metrics[(metrics["task"] == entry["task"]) & (metrics["encoder"] == entry["encoder"])]
    values = rows[rows["section"] == entry["section"]].groupby(["variant", "metric"])["value"]
    table = values.agg(["mean", "count"])
    table["sd"] = values.std(ddof=0).where(table["count"] > 1)
    return table.reset_index()


def _links(sections) -> dict[str, str]:
    """Section -> the id of its first map."""
    links = {}
    for section in sections:
        links.setdefault(section["section"], section["id"])
    return links


def _verdict(run) -> str:
    return run["verdict"]["verdict"] if run.get("verdict") else ""


def _verdicts(runs) -> list[dict]:
    """The distinct verdicts on a section, each with the runs that give it and the evidence of the first of them."""
    found: dict[str, dict] = {}
    for run in runs:
        if _verdict(run):
            one = found.setdefault(_verdict(run), run["verdict"] | {"kind": KINDS[_verdict(run)], "of": []})
            one["of"].append(run["variant"])
    return [one | {"runs": ", ".join(one["of"])} for one in found.values()]


def _run(entry, run, methods, auc, known, marked) -> dict:
    called, scored = _called(run["calls"])
    measured_auc = auc.get((entry["task"], entry["encoder"], run["variant"]))
    return {
        "variant": run["variant"],
        "regime": measured.regime(methods, entry["task"], run["variant"], known),
        "marks": marked.get((entry["task"], entry["encoder"], run["variant"]), []),
        "verdict": _verdict(run),
        "called": f"{called:,} of {scored:,} ({words.percent(_share(run['calls']))})",
        "mean_auc": "" if measured_auc is None else f"{measured_auc:.3f}",
    }


def _facts(entry, labels) -> str:
    facts = [entry["platform"], f"{len(entry['spatial_px']):,} spots of {entry['spot_um']:g} µm"]
    if entry["cohort"]:
        facts.append(f"cohort {entry['cohort']}")
    if entry["patient"] and entry["patient"] != entry["section"]:
        facts.append(f"patient {entry['patient']}")
    if labels is not None:
        facts.append(f"{words.percent(float(np.nanmean(labels)))} of labelled spots are cancer")
    return " · ".join(facts)


def _costs(costs) -> dict:
    """Benchmark rows summed by rule and variant, the most expensive first."""
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
        table[column] = table[column].map(words.duration)
    table["peak MB"] = table["peak MB"].map(words.whole)
    return words.table(table.reset_index(), numeric={"jobs", "total", "longest job", "peak MB"})


def _figures(entries) -> list[dict]:
    """The figures of each task and encoder: those drawn, and those not drawn with the reason."""
    groups: dict[tuple, dict] = {}
    for entry in entries:
        names = entry["task"], entry["encoder"]
        group = groups.setdefault(names, {"task": names[0], "encoder": names[1], "drawn": [], "missing": []})
        if entry["picture"] is None:
            group["missing"].append(entry)
        else:
            group["drawn"].append(entry | {"picture": maps.data_uri(entry["picture"])})
    return list(groups.values())


def _optional(frame) -> dict | None:
    """A table as text; None if absent or empty."""
    return None if frame is None or frame.empty else words.table(frame)


def _drawings(frame) -> dict | None:
    """What each drawing says about the map that it teaches, a row each."""
    import pandas as pd

    if frame is None or frame.empty:
        return None
    shares = [name for name in frame if name.startswith("at ")]
    rows = [
        {
            "section": row["section"],
            "method": row["variant"] if frame["task"].nunique() == 1 else f"{row['task']}, {row['variant']}",
            "drawn": ", ".join(
                f"{row[f'{word}_spots']:,} {word} in {words.count(row[f'{word}_regions'], 'region')}"
                for word in ("cancer", "other")
            ),
            **{title: words.cell(row[name]) for name, title in OF_DRAWING.items()},
            "with a part of it": ", ".join(f"{row[at]:.2f} {at}" for at in shares if pd.notna(row[at])) or "–",
            "caveat": row["caveat"] if pd.notna(row["caveat"]) else "",
        }
        for row in frame.to_dict("records")
    ]
    return words.table(pd.DataFrame(rows))


# column of `within.tabulate.table` -> its heading on the page
OF_DRAWING = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "found": "cancer found",
    "spared": "other spared",
}


# column of `efficiency.table` -> its heading on the page
EFFICIENCY = {
    "params": "parameters",
    "kept_numbers": "kept numbers",
    "pretrain_s": "pretraining, s",
    "train_s": "training, s",
    "infer_s": "scoring, s",
    "train_rss_mb": "training, MB",
    "infer_rss_mb": "scoring, MB",
}


def _efficiency(frame) -> dict | None:
    """Means over folds and seeds."""
    if frame is None or frame.empty:
        return None
    means = frame.groupby(["task", "encoder", "variant"], sort=False)[list(EFFICIENCY)].mean()
    return words.table(means.rename(columns=EFFICIENCY).reset_index())


def _method_references(methods) -> list[str]:
    found = {spec.get("reference", "") for spec in methods.values() if spec["regime"] != "control"}
    return sorted(text for text in found if text and text not in REFERENCES)


def _has_labels(labels) -> bool:
    return labels is not None and bool(np.isfinite(np.asarray(labels, dtype=float)).any())


def _called(calls) -> tuple[int, int]:
    calls = np.asarray(calls, dtype=float)
    return int((calls == 1).sum()), int(np.isfinite(calls).sum())


def _share(calls) -> float:
    called, scored = _called(calls)
    return called / scored if scored else float("nan")


def _anchor(name: str, taken: set) -> str:
    """A unique id for links within the page."""
    base = anchor = f"section-{words.slug(name)}"
    number = 1
    while anchor in taken:
        number += 1
        anchor = f"{base}-{number}"
    taken.add(anchor)
    return anchor
