"""Comparison with the papers' printed numbers: which runs correspond to a printed cell, and their results.

A printed number is compared if a study has its sections, its method and options, and its training sections. METHODS.md
section 4 lists the options of each row; config/published_names.yaml encodes them.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctrflow import methods, schema, storage
from ctrflow.errors import InputError, first_few
from ctrflow.results.metrics import FACTS, METRICS

COLUMNS = ("paper", "table", "dataset", "method", "metric", "mean", "sd", "note")
COMPARED = (
    "paper", "table", "dataset", "method", "metric", "task", "encoder", "variant", "published", "published_sd",
    "ours", "ours_sd", "seeds", "sections", "sections_printed", "difference", "settings", "uncertain", "note",
)  # fmt: skip
AS_PRINTED, OTHER = "as printed", "other"
COSTS = ("params", "pretrain_s", "train_s", "infer_s", "train_rss_mb", "infer_rss_mb", "gpu_mb")  # of efficiency.tsv
# our numbers that are not in metrics.tsv: from check.json, efficiency.tsv and the calls
CHECK_VALUES = ("spots", "cancer_share")
COST_VALUES = ("params_million", "train_seconds", "inference_seconds", "memory_mb")
CALL_VALUES = ("precision", "recall")
OURS = (*(metric.name for metric in METRICS), *FACTS, *CHECK_VALUES, *COST_VALUES, *CALL_VALUES)
LINES = {
    "datasets": {"sections", "over", "train", "normal", "note", "why_not"},
    "methods": {"method", "options", "encoder", "instead", "note", "why_not"},
    "metrics": {"ours", "words", "label", "why_not"},
}  # keys that an entry of the names may have
ONE_OF = {"datasets": {"sections", "why_not"}, "metrics": LINES["metrics"]}  # of which it must have exactly one
OVER = {"": np.mean, "mean": np.mean, "median": np.median}
# the published code unchanged: listed even if there are runs with the paper's settings
PUBLISHED_CODE = "preset reference"
# (paper, table) -> keys of its rows and of its columns; all other tables have `USUAL_LAYOUT`
LAYOUTS = {
    ("SpaCRD", "Table 1"): (("metric", "method"), ("dataset",)),
    ("SpaCRD", "Table 2"): (("metric", "method"), ("dataset",)),
    ("SpaCRD", "Table 5"): (("metric",), ("method",)),
    ("SpaCRD", "Table S1"): (("dataset",), ("metric",)),
    ("SpaCRD", "Table S2"): (("method",), ("metric",)),
    ("MEATRD", "Table 1"): (("dataset", "metric"), ("method",)),
    ("MEATRD", "Table 2"): (("metric",), ("method",)),
    ("MEATRD", "Table 3"): (("metric",), ("method",)),
}
USUAL_LAYOUT = (("method",), ("dataset", "metric"))
LEGEND = """The papers' tables with the numbers of this study, rows and columns as printed.

A cell is ours, mean ± population sd over seeds, and what is printed in brackets:
    0.954 ± 0.004 (printed 0.951 ± 0.010)
–    this study has no such number; in brackets: the print cannot be read there
*    ours is not with the paper's settings: ../published.tsv says what differs, as it does for labels that differ
†    a mean that lacks sections which are not public
?    the printed number is uncertain: ../published.tsv says why
"""


@dataclass(frozen=True)
class Candidate:
    """Runs of one variant that a printed number can be compared with: target section -> (task, encoder) of the run."""

    variant: str
    differences: tuple[str, ...]
    runs: dict[str, tuple[str, str]]


def read_published(path: str | Path):
    """The printed numbers, as text exactly as printed ("NA" if the print is illegible)."""
    import pandas as pd

    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} is missing; restore the file")
    return frame


def read_names(path: str | Path) -> dict:
    """The meaning of the printed names (config/published_names.yaml), with the options of every method resolved.

    Returns
    -------
    dict of encoder, n_genes, groups, not_public, datasets, methods and metrics as in the file; each method that
    ctrflow has also gets `settings`: preset -> all its options under that preset, the paper's first.

    Raises
    ------
    InputError
        for a missing part, an unknown key, group, method, option or metric; all at once.
    """
    names = schema.read_yaml(path)
    parts = {"encoder", "n_genes", "groups", "not_public", *LINES}
    if set(names) != parts:
        raise InputError(f"{path}: must have the parts {', '.join(sorted(parts))}; correct {sorted(set(names) ^ parts)}")
    problems = [
        f"{part}: {printed}: {problem}"
        for part in LINES
        for printed, line in names[part].items()
        for problem in _line_problems(part, line)
    ]
    groups = {printed: {line.get("train"), line.get("normal")} - {None} for printed, line in names["datasets"].items()}
    groups |= {printed: set(line.get("instead", {})) for printed, line in names["methods"].items()}
    problems += [
        f"{printed}: unknown group {group}; known: {', '.join(names['groups'])}"
        for printed, used in groups.items()
        for group in sorted(used - set(names["groups"]))
    ]
    for printed, line in names["methods"].items():
        if "method" not in line:
            continue
        try:
            line["settings"] = _settings(line)
        except InputError as error:
            problems.append(f"methods: {printed}: {error}")
    if problems:
        raise InputError(f"{path}:\n  " + "\n  ".join(problems))
    return names


def unmapped(published, names: dict) -> list[str]:
    """The printed names without an entry in `names`, as "dataset X"; [] if the files are consistent."""
    return [
        f"{column} {printed}"
        for column in ("dataset", "method", "metric")
        for printed in dict.fromkeys(published[column])
        if printed not in names[f"{column}s"]
    ]


def plan(study, sheet, encoders: dict[str, dict], n_genes: int) -> dict:
    """Which runs a study has and what they train on, as plain data: what decides if a printed number can be compared.

    Parameters
    ----------
    study : study.Study
    sheet : the section sheet
    encoders : configured encoders, id -> options
    n_genes : genes a method sees at most

    Returns
    -------
    dict of runs (task, fold, section, encoder, variant, sources, normals, negatives, ranking: how genes are
    ranked, "" for the default; one entry for all seeds; models trained elsewhere are left out), variants
    (method, options), patients (section -> patient), encoders, n_genes.
    """
    found = {}
    for run in study.runs:
        task, fold = run.task, run.fold
        if run.given_model:
            continue
        for section in fold.targets:
            found[task["name"], fold.name, section, run.encoder, run.variant.name] = {
                "sources": list(fold.sources),
                "normals": list(fold.normals),
                "negatives": fold.negatives,
                "ranking": _ranking(task),
            }
    keys = ("task", "fold", "section", "encoder", "variant")
    return {
        "runs": [dict(zip(keys, key, strict=True)) | facts for key, facts in found.items()],
        "variants": {
            name: {"method": variant.spec.name, "options": variant.options} for name, variant in study.variants.items()
        },
        "patients": dict(zip(sheet.section, sheet.patient, strict=True)),
        "encoders": encoders,
        "n_genes": n_genes,
    }


def compare(published, names: dict, planned: dict, values):
    """Compare the printed numbers with those of a study.

    Ours is the mean over seeds, with the population sd (ddof = 0, METHODS.md section 0); a printed mean or median over
    sections is computed per seed first (4.1).

    Parameters
    ----------
    published : from `read_published`
    names : from `read_names`
    planned : from `plan`
    values : frame task, encoder, section, variant, seed, metric, value, note; see `section_values`, `cost_values`,
        `call_values` for those not in metrics.tsv

    Returns
    -------
    frame of `COMPARED`, in the order of `published`. A cell has several rows if several variants match it: those with
    the paper's settings, and the published code; without any of the former, those with similar settings (another
    preset, encoder, normal reference, number of genes), with `settings` "other" and the differences in `note`.
    `difference` is ours - published; `uncertain` is "yes" if the printed number has a note or is illegible.

    Raises
    ------
    InputError
        for a printed name that `names` lacks.
    """
    import pandas as pd

    unknown = unmapped(published, names)
    if unknown:
        raise InputError(f"config/published_names.yaml has no entry for {first_few(unknown)}; add one for each")
    measured = _by_run(values)
    offers: dict[tuple, list[Candidate]] = {}
    rows = []
    for cell in published.to_dict("records"):
        dataset, method, metric = (names[f"{key}s"][cell[key]] for key in ("dataset", "method", "metric"))
        if any("why_not" in line for line in (dataset, method, metric)):
            continue
        key = cell["dataset"], cell["method"]
        if key not in offers:
            offers[key] = _candidates(dataset, method, names, planned)
        name = metric.get("ours", cell["metric"])
        found = [
            (candidate, ours)
            for candidate in offers[key]
            if (ours := _ours(candidate, dataset, name, names["not_public"], measured))
        ]
        rows += [
            _row(cell, candidate, ours, dataset, method)
            for candidate, ours in _nearest(found, lambda pair: pair[0].differences)
        ]
    return pd.DataFrame(rows, columns=list(COMPARED)).astype({"seeds": "Int64"})


def paper_tables(published, compared) -> dict:
    """The papers' tables with our numbers, in the papers' layout.

    Returns
    -------
    dict "SpaCRD_Table_1" -> frame of text, for tables with at least one number of this study; see `LEGEND`.
    """
    best = {}
    for row in compared.sort_values("settings", kind="stable").to_dict("records"):  # "as printed" comes first
        best.setdefault(tuple(row[key] for key in COLUMNS[:5]), row)
    tables = {}
    for (paper, table), cells in published.groupby(["paper", "table"], sort=False):
        keys = cells[list(COLUMNS[:5])].itertuples(index=False, name=None)
        if any(key in best for key in keys):
            tables[re.sub(r"[^A-Za-z0-9.]+", "_", f"{paper} {table}").strip("_")] = _laid_out(paper, table, cells, best)
    return tables


def write_tables(tables: dict, folder: str | Path) -> None:
    """Write each table as a .tsv into a folder, with a README; the folder is renamed to its final name when complete."""
    folder = Path(folder)
    part = folder.with_name(f".part.{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name, table in tables.items():
            storage.write_tsv(table, part / f"{name}.tsv")
        storage.write_text(
            LEGEND if tables else "No printed table holds a number of this study.\n", part / "README.txt"
        )
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


# --- our numbers that are not in metrics.tsv --------------------------------------------------------------------------


def section_values(checks: list[dict]):
    """Spots and share of cancer of each section (SpaCRD's Table S1) from its check.json, as rows of `values`."""
    return _values(
        {"section": check["section"], "metric": metric, "value": check[metric]}
        for check in checks
        for metric in CHECK_VALUES
        if check[metric] is not None
    )


def cost_values(costs, planned: dict):
    """Size, time and memory of each run (SpaCRD's Table S2) from efficiency.tsv, as rows of `values`.

    Training includes pretraining that other runs share. Memory is that of the GPU if there is one, else the larger
    resident memory of training and scoring (METHODS.md section 5).
    """
    targets: dict[tuple, dict] = {}
    for run in planned["runs"]:
        targets.setdefault((run["task"], run["fold"]), {})[run["section"]] = None
    rows = []
    for run in costs.astype(dict.fromkeys(COSTS, float)).to_dict("records"):
        params, pretrain_s, train_s, infer_s, train_mb, infer_mb, gpu_mb = (run[name] for name in COSTS)
        on_gpu = gpu_mb > 0
        where = f"on {run['device']}, {run['threads']:g} thread{'s' * (run['threads'] != 1)}; printed: one RTX 3090"
        costs_of_run = (
            (params / 1e6, ""),
            (train_s + (0.0 if np.isnan(pretrain_s) else pretrain_s), where),
            (infer_s, where),
            (
                gpu_mb if on_gpu else float(np.fmax(train_mb, infer_mb)),
                where if on_gpu else f"{where}; resident memory, the paper's is that of the GPU",
            ),
        )
        rows += [
            {key: run[key] for key in ("task", "encoder", "variant", "seed")}
            | {"section": section, "metric": metric, "value": value, "note": note}
            for section in targets.get((run["task"], run["fold"]), ())
            for metric, (value, note) in zip(COST_VALUES, costs_of_run, strict=True)
        ]
    return _values(rows)


def call_values(runs: list[dict], calls: list, labels: dict, names: dict, sections):
    """Numbers in the papers' texts that need scores and calls, as rows of `values`: mean scores by region, precision, recall.

    Parameters
    ----------
    runs : task, encoder, variant, seed of each run
    calls : for each run its table (section, spot, score, call_mixture)
    labels : section id -> label table (spot, label, region)
    names : from `read_names`
    sections : the sections to compute them for
    """
    asked = {printed: line for printed, line in names["metrics"].items() if "words" in line or "label" in line}
    rows = []
    for run, table in zip(runs, calls, strict=True):
        for section, group in table.groupby("section", sort=False):
            if section not in labels or section not in sections:
                continue
            found = _region_means(group, labels[section], asked) | _precision_recall(group, labels[section])
            rows += [
                {key: run[key] for key in ("task", "encoder", "variant", "seed")}
                | {"section": section, "metric": metric, "value": value}
                for metric, value in found.items()
            ]
    return _values(rows)


def call_sections(published, names: dict) -> set[str]:
    """The sections for which the papers print numbers that need calls and scores."""
    own = {printed for printed, line in names["metrics"].items() if {"words", "label"} & set(line)}
    own |= {printed for printed, line in names["metrics"].items() if line.get("ours") in CALL_VALUES}
    datasets = published["dataset"][published["metric"].isin(own)].unique()
    return {section for dataset in datasets for section in names["datasets"][dataset].get("sections", ())}


# --- which runs -------------------------------------------------------------------------------------------------------


def _line_problems(part: str, line: dict) -> list[str]:
    """What is wrong with the keys of one entry of the names."""
    unknown = sorted(set(line) - LINES[part])
    problems = [f"unknown key {', '.join(unknown)}; known: {', '.join(sorted(LINES[part]))}"] * bool(unknown)
    if part in ONE_OF and len(set(line) & ONE_OF[part]) != 1:
        problems.append(f"needs exactly one of {', '.join(sorted(ONE_OF[part]))}")
    if "ours" in line and line["ours"] not in OURS:
        problems.append(f"unknown metric {line['ours']}; known: {', '.join(OURS)}")
    if ("over" in line) != (len(line.get("sections", ())) > 1) or line.get("over", "") not in OVER:
        problems.append("several sections need `over` (mean or median), one section must not have it")
    return problems


def _settings(line: dict) -> dict[str, dict]:
    """Preset -> all options of a printed method under it; the paper's settings first, under ""."""
    spec = methods.load(line["method"]).SPEC
    switches = line.get("options", {})
    others = list(spec.presets)[1:]
    return {"": methods.resolve_options(spec, switches)} | {
        preset: methods.resolve_options(spec, {"preset": preset, **switches}) for preset in others
    }


def _ranking(task: dict) -> str:
    """How a task ranks its genes, "" for the default."""
    words = {"log": "on log values", "first": "on the first section alone"}
    found = [words[task[key]] for key in ("hvg_input", "hvg_scope") if task.get(key) in words]
    return f"genes ranked {' and '.join(found)}" if found else ""


def _candidates(dataset: dict, method: dict, names: dict, planned: dict) -> list[Candidate]:
    """The variants of a study that correspond to a printed method on a printed dataset, each with its runs."""
    if "method" not in method:
        return [Candidate("", (), dict.fromkeys(dataset["sections"], ("", "")))]
    groups = names["groups"] | method.get("instead", {})
    found: dict[tuple, dict] = {}
    for run in planned["runs"]:
        if run["section"] not in dataset["sections"]:
            continue
        variant = planned["variants"][run["variant"]]
        if variant["method"] != method["method"]:
            continue
        preset = next((name for name, all_ in method["settings"].items() if all_ == variant["options"]), None)
        if preset is None:
            continue
        differences = [f"preset {preset}"] if preset else []
        spec = methods.load(method["method"]).SPEC
        reads_features = "image" in methods.modalities_of(spec, variant["options"]) and not (
            {"patches", "superpixels"} & set(spec.needs)
        )
        for part in (
            _of_encoder(run, method, names, planned) if reads_features else [],
            _of_training(run, dataset, groups, planned["patients"], spec),
            _of_genes(run, names, planned),
        ):
            if part is None:
                break
            differences += part
        else:
            key = run["variant"], run["encoder"] if reads_features else "", tuple(differences)
            # a section that two tasks train for in the same way counts once
            found.setdefault(key, {}).setdefault(run["section"], (run["task"], run["encoder"]))
    return [Candidate(variant, differences, runs) for (variant, _, differences), runs in found.items()]


def _of_encoder(run: dict, method: dict, names: dict, planned: dict) -> list[str] | None:
    """Differences in the image encoder; None if the printed row is for another encoder."""
    wanted, options = method.get("encoder", names["encoder"]), planned["encoders"].get(run["encoder"], {})
    model = options.get("model", run["encoder"])
    if model != wanted:
        return None if "encoder" in method else [f"encoder {run['encoder']}, not {wanted}"]
    changed = {key: value for key, value in options.items() if key not in ("model", "weights", "precision")}
    if options.get("weights") == "random":
        changed["weights"] = "random"
    return [f"encoder {wanted} with {key} {value}" for key, value in changed.items()]


def _of_training(run: dict, dataset: dict, groups: dict, patients: dict, spec) -> list[str] | None:
    """Differences in the training sections; None if they make it another experiment."""
    own = patients.get(run["section"])
    train, normal = (
        [name for name in groups.get(dataset.get(key), ()) if patients.get(name, name) != own]
        for key in ("train", "normal")
    )
    if spec.regime == "labelled_source":
        added = [name for name in run["sources"] if name not in train]
        if set(run["sources"]) - set(added) != set(train) or not set(added) <= set(normal):
            return None
        return [f"also trained on {first_few(added)}"] if added else []
    if spec.regime != "normal_reference":
        return []
    if run["negatives"]:
        return [f"normal tissue: the source sections' spots labelled 0, not {first_few(normal, 3)}"]
    if set(run["normals"]) != set(normal):
        return [f"normal tissue: {first_few(run['normals'], 8)}, not {first_few(normal, 8)}"]
    return []


def _of_genes(run: dict, names: dict, planned: dict) -> list[str]:
    """Differences in the choice of genes."""
    fewer = planned["n_genes"] != names["n_genes"]
    return [f"{planned['n_genes']:,} genes, not {names['n_genes']:,}"] * fewer + [run["ranking"]] * bool(run["ranking"])


def _nearest(found: list, differences_of) -> list:
    """The candidates with the paper's settings, and the published code; all candidates if none has those settings."""
    if all(differences_of(one) for one in found):
        return found
    return [one for one in found if not differences_of(one) or PUBLISHED_CODE in differences_of(one)]


# --- their results ----------------------------------------------------------------------------------------------------


def _by_run(values) -> dict[tuple, dict]:
    """(task, encoder, variant, section, metric) -> seed -> (value, note), without missing values."""
    found: dict[tuple, dict] = {}
    columns = ["task", "encoder", "variant", "section", "metric", "seed", "value", "note"]
    kept = values[values["value"].notna()][columns].fillna({"note": ""})
    for *key, seed, value, note in kept.itertuples(index=False, name=None):
        found.setdefault(tuple(key), {})[seed] = (value, note)
    return found


def _ours(candidate: Candidate, dataset: dict, metric: str, not_public: dict, measured: dict) -> dict | None:
    """Mean and sd over seeds of a candidate's values; None if it lacks a section that is public."""
    found = {
        section: measured.get((task, encoder, candidate.variant, section, metric), {})
        for section, (task, encoder) in candidate.runs.items()
    }
    found = {section: found[section] for section in dataset["sections"] if found.get(section)}
    without = [section for section in dataset["sections"] if section not in found]
    if not found or not set(without) <= set(not_public):
        return None
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in found.values())))
    if not seeds:
        return None
    over = OVER[dataset.get("over", "")]
    per_seed = [float(over([by_seed[seed][0] for by_seed in found.values()])) for seed in seeds]
    notes = [by_seed[seed][1] for by_seed in found.values() for seed in seeds]
    if without:
        missing = "; ".join(f"{section}: {not_public[section]}" for section in without)
        notes.append(f"{dataset['over']} of {len(found)} of {len(dataset['sections'])} sections ({missing})")
    return {
        "task": ", ".join(dict.fromkeys(candidate.runs[section][0] for section in found)),
        "encoder": ", ".join(dict.fromkeys(candidate.runs[section][1] for section in found)),
        "mean": float(np.mean(per_seed)),
        "sd": float(np.std(per_seed)) if len(seeds) > 1 else np.nan,
        "seeds": len(seeds) if candidate.variant else None,
        "sections": len(found),
        "sections_printed": len(dataset["sections"]),
        "notes": list(dict.fromkeys(filter(None, notes))),
    }


def _row(cell: dict, candidate: Candidate, ours: dict, dataset: dict, method: dict) -> dict:
    printed = _number(cell["mean"])
    differing = [f"not the paper's settings: {', '.join(candidate.differences)}"] if candidate.differences else []
    notes = [*differing, *ours["notes"], dataset.get("note", ""), method.get("note", "")]
    printed_note = f"print: {cell['note']}" if cell["note"] else ""
    return {key: cell[key] for key in COLUMNS[:5]} | {
        "task": ours["task"],
        "encoder": ours["encoder"],
        "variant": candidate.variant,
        "published": printed,
        "published_sd": _number(cell["sd"]),
        "ours": ours["mean"],
        "ours_sd": ours["sd"],
        **{key: ours[key] for key in ("seeds", "sections", "sections_printed")},
        "difference": round(ours["mean"] - printed, 12),
        "settings": OTHER if candidate.differences else AS_PRINTED,
        "uncertain": "yes" if cell["note"] or np.isnan(printed) else "no",
        "note": "; ".join(filter(None, [printed_note, *notes])),
    }


def _number(text: str) -> float:
    return float(text) if text not in ("", "NA") else np.nan


def _values(rows):
    import pandas as pd

    blank = {"task": "", "encoder": "", "variant": "", "seed": 0, "note": ""}
    columns = ["task", "encoder", "section", "variant", "seed", "metric", "value", "note"]
    return pd.DataFrame([blank | row for row in rows], columns=columns).astype({"value": float})


def _region_means(group, table, asked: dict) -> dict[str, float]:
    """The mean score of each requested kind of spots; kinds that the section lacks are left out."""
    from ctrflow.sections import labels

    table = table.set_index("spot").loc[group["spot"]]
    region, scores = table["region"].fillna("").to_numpy(str), group["score"].to_numpy(float)
    found = {}
    for printed, line in asked.items():
        if "label" in line:
            chosen = (table["label"] == line["label"]).fillna(False).to_numpy(bool)
        else:
            means = labels.meanings(set(region), dict.fromkeys(line["words"], 1))
            chosen = np.array([means[word] is not None for word in region], bool)
        if chosen.any():
            found[printed] = float(scores[chosen].mean())
    return found


def _precision_recall(group, table) -> dict[str, float]:
    """Precision and recall of the calls among the spots with a known label; a value without a denominator is left out."""
    truth = table.set_index("spot")["label"].astype(float).loc[group["spot"]].to_numpy()
    called = group["call_mixture"].to_numpy(float) == 1
    cancer = truth == 1
    hits = float((called & cancer).sum())
    totals = (called & ~np.isnan(truth)).sum(), cancer.sum()
    return {name: hits / float(total) for name, total in zip(CALL_VALUES, totals, strict=True) if total}


# --- the papers' layout -----------------------------------------------------------------------------------------------


def _laid_out(paper: str, table: str, cells, best: dict):
    """One table with rows and columns as printed, all cells text."""
    import pandas as pd

    row_keys, column_keys = LAYOUTS.get((paper, table), USUAL_LAYOUT)
    rows: dict[tuple, dict] = {}
    for cell in cells.to_dict("records"):
        name = " ".join(_shown(cell, key) for key in column_keys)
        row = rows.setdefault(tuple(_shown(cell, key) for key in row_keys), {})
        row[name] = _cell(cell, best.get(tuple(cell[key] for key in COLUMNS[:5])))
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [dict(zip(row_keys, key, strict=True)) | row for key, row in rows.items()]
    return pd.DataFrame(lines, columns=[*row_keys, *columns]).fillna("")


def _shown(cell: dict, key: str) -> str:
    """A name as the table prints it: "w/o BCA" of "SpaCRD[w/o BCA]"."""
    inside = re.search(r"\[(.*)\]", cell[key]) if key == "method" else None
    return inside[1] if inside else cell[key]


def _cell(cell: dict, row: dict | None) -> str:
    """ "0.954 ± 0.004 (printed 0.951 ± 0.010)", with as many digits as are printed."""
    printed = " ± ".join(filter(None, (cell["mean"], cell["sd"]))) if cell["mean"] not in ("", "NA") else "–"
    sure = "" if not cell["note"] and printed != "–" else " ?"
    ours = "–"
    if row:
        digits = len(cell["mean"].partition(".")[2]) if printed != "–" else 3
        spread = "" if np.isnan(row["ours_sd"]) else f" ± {row['ours_sd']:.{digits}f}"
        marks = " *" * (row["settings"] == OTHER) + " †" * (row["sections"] < row["sections_printed"])
        ours = f"{row['ours']:.{digits}f}{spread}{marks}"
    return f"{ours} (printed {printed}{sure})"
