"""Artificial contents of a report: small sections with known scores, calls and labels."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from ctrflow.results import benchmark, calls, metrics, seeds
from ctrflow.results.verdict import Facts, Gate

METRIC_COLUMNS = [
    "study", "task", "fold", "encoder", "section", "patient", "method", "variant", "reference", "seed", "metric",
    "value", "note",
]  # fmt: skip
REGIMES = {"linear": "labelled_source", "deep": "normal_reference", "partial": "marker_prior", "oracle": "control"}
UM_PER_PX = 2.0
PINK, TISSUE = (244, 236, 240), (198, 130, 178)  # of the glass and of the tissue of `stained`


def metric_rows(variant, seed, metric="auc", task="loo", encoder="uni", **values) -> list[tuple]:
    """One row per section; sections are named patient_number."""
    return [
        ("demo", task, section, encoder, section, section.split("_")[0], variant, variant, "", seed, metric, value, "")
        for section, value in values.items()
    ]


def metric_frame(*parts) -> pd.DataFrame:
    """Rows of `metric_rows` as metrics.tsv."""
    return pd.DataFrame([row for part in parts for row in part], columns=METRIC_COLUMNS)


def square_array(columns: int, rows: int, pitch_um: float = 200.0) -> np.ndarray:
    """Spot centres of an ST section, px."""
    return np.array([(x, y) for y in range(rows) for x in range(columns)]) * pitch_um / UM_PER_PX + 100.0


def hexagonal_array(columns: int, rows: int, pitch_um: float = 100.0) -> np.ndarray:
    """Spot centres of a Visium section, px."""
    centres = [(x + y % 2 / 2, y * np.sqrt(3) / 2) for y in range(rows) for x in range(columns)]
    return np.array(centres) * pitch_um / UM_PER_PX + 100.0


def stained(spatial_px, scale: float = 0.2) -> np.ndarray:
    """An image of a section: tissue around its spots, glass elsewhere; `scale` px per full-resolution px."""
    far = (spatial_px.max(axis=0) + 100) * scale
    x, y = np.meshgrid(np.arange(int(far[0])), np.arange(int(far[1])))
    middle, half = spatial_px.mean(axis=0) * scale, (np.ptp(spatial_px, axis=0) / 2 + 85) * scale
    inside = ((x - middle[0]) / half[0]) ** 12 + ((y - middle[1]) / half[1]) ** 12 < 1
    return np.where(inside[..., None], TISSUE, PINK).astype(np.uint8)


def target(section: str, variants=("linear", "deep"), labels=None, image: bool = True, **changes) -> dict:
    """A section of `report.write_report` with 30 spots 200 µm apart; the first twelve score 0.8 and are called."""
    calls = np.r_[np.ones(12), np.zeros(18)]
    fitted = {"threshold": 0.5, "branch": "crossing"}
    runs = [{"variant": v, "scores": calls * 0.6 + 0.2, "calls": calls, "threshold": fitted} for v in variants]
    return {
        "section": section, "task": "loo", "encoder": "uni", "patient": section.split("_")[0], "cohort": "HER2ST",
        "platform": "st", "note": "", "spatial_px": square_array(6, 5), "um_per_px": UM_PER_PX, "spot_um": 100.0,
        "thumbnail": np.full((70, 80, 3), 220, dtype=np.uint8) if image else None,
        "thumbnail_scale": 0.1 if image else None, "labels": labels, "runs": runs,
    } | changes  # fmt: skip


def content(table, sections, **changes) -> dict:
    """The required content of a study for `report.write_report`."""
    return {
        "study": "demo",
        "simulated": False,
        "metrics": table,
        "methods": {name: {"regime": regime, "reference": ""} for name, regime in REGIMES.items()},
        "tasks": {"loo": "leave one patient out"},
        "sections": sections,
        "not_applicable": pd.DataFrame(
            [("loo", "uni", "stands", "no normal reference")], columns=["task", "encoder", "variant", "reason"]
        ),
        "thresholds": pd.DataFrame(
            [
                ("loo", "uni", "A_1", "deep", 1, 0.8675, "crossing"),
                ("loo", "uni", "A_1", "deep", 2, np.nan, "constant"),
            ],
            columns=["task", "encoder", "section", "variant", "seed", "threshold", "branch"],
        ),
        "sheet": pd.DataFrame([("A_1", "target", "labels transferred")], columns=["section", "role", "note"]),
        "seeds": [1, 2],
        "versions": {"torch": "2.15.0"},
        "config": {"study": "demo", "threads": 1},
        "costs": pd.DataFrame(
            [("train", "deep", 30.0, 900.0), ("train", "deep", 45.5, 1200.0), ("ingest", np.nan, 4.0, np.nan)],
            columns=["rule", "variant", "seconds", "mb"],
        ),
    } | changes


# --- a complete study ------------------------------------------------------------------------------------------------

SECTIONS = {
    "st_one": {"platform": "st", "spot_um": 100.0, "spatial_px": square_array(12, 10)},
    "visium_two": {"platform": "visium", "spot_um": 55.0, "spatial_px": hexagonal_array(16, 14)},
    "mine": {"platform": "st", "spot_um": 100.0, "spatial_px": square_array(9, 8)},
}
LABELLED = ("st_one", "visium_two")
# difference of cancer from other scores, in sds of the noise: the first method is the best
METHODS = {"deep": ("labelled_source", (1, 2), 1.3), "linear": ("labelled_source", (1,), 0.9)}
METHODS |= {"memory": ("normal_reference", (1,), 0.4)}
# one has a probability and a verdict on every section: a tumour where it is labelled, none in the last one
JUDGES = "linear"
GATE = Gate(1.0, 0.0, (0.5, 5.0), (-4.0, -0.5), (24, 15), 0.2, 5)
FACTS = {
    "st_one": Facts(2.0, GATE, copy_numbers=7.5),
    "visium_two": Facts(1.0, GATE, elsewhere=("it is visium, the model learned from st",)),
    "mine": Facts(-2.0, GATE, copy_numbers=0.5),
}
PLANTED = "<img src=x onerror=\"document.title='planted'\">"


def study() -> dict:
    """Three sections, three methods, one of them with two seeds; the metrics are those of `metrics.study_table`.

    `JUDGES` has a probability, which is its score, and a verdict on each section (`FACTS`).

    Returns
    -------
    the content of a report; its `sections` are in the order of `SECTIONS`, their scores have three decimals. The first
    spot of `st_one` is named `PLANTED`, and every ninth of `visium_two` has no label.
    """
    rng = np.random.default_rng(7)
    spots, truth, labels = {}, {}, {}
    for name, facts in SECTIONS.items():
        n = len(facts["spatial_px"])
        ids = [f"{number % 12}x{number // 12}" for number in range(n)]
        if name == "st_one":
            ids[0] = PLANTED
        spots[name] = ids
        x, y = (facts["spatial_px"] - facts["spatial_px"].mean(axis=0)).T / np.ptp(facts["spatial_px"], axis=0).max()
        truth[name] = ((x + 0.15) ** 2 + y**2 < 0.08).astype(float)
        label = truth[name].copy()
        if name == "visium_two":
            label[::9] = np.nan
        words = np.where(np.isnan(label), "", np.where(label == 1, "invasive, cancer", 'so-called "fat"'))
        if name in LABELLED:
            labels[name] = pd.DataFrame({"spot": ids, "label": label, "region": words})
    data = {name: _data(name, ids) for name, ids in spots.items()}
    runs, tables, facts, verdicts = [], [], [], []
    for variant, (regime, used, effect) in METHODS.items():
        for seed in used:
            runs.append(
                {
                    "task": "all", "fold": "all", "encoder": "uni", "method": variant, "variant": variant,
                    "regime": regime, "reference": "", "seed": seed,
                }
            )  # fmt: skip
            parts = [_scored(name, spots[name], truth[name], effect, rng) for name in SECTIONS]
            scores = pd.concat(parts, ignore_index=True)
            scores["probability"] = scores["score"] if variant == JUDGES else np.nan
            known = FACTS if variant == JUDGES else dict.fromkeys(SECTIONS, Facts())
            called, _, said = calls.call_sections(scores, known, data)
            tables.append(called)
            facts.append({name: one.as_dict() for name, one in known.items()})
            verdicts.append({name: one.as_dict() for name, one in said.items()})
    patients = {name: f"P_{name}" for name in SECTIONS}
    table = metrics.study_table("made_up", runs, tables, labels, patients, verdicts)
    named = [run | {"run": run["variant"], "threshold": "mixture"} for run in runs]
    return content(
        table,
        [_target(name, data[name], labels.get(name), named, tables, facts) for name in SECTIONS],
        study="made_up",
        methods={name: {"regime": regime, "reference": ""} for name, (regime, *_) in METHODS.items()},
        tasks={"all": "every section by a model of the others"},
        benchmark=benchmark.tables(table, runs, tables, labels),
        reliability=metrics.reliability_table(runs, tables, labels),
    )


def _scored(section, spots, truth, effect, rng) -> pd.DataFrame:
    """The scores of a run on a section."""
    score = (1 / (1 + np.exp(-(effect * (2 * truth - 1) + rng.normal(size=len(truth)))))).round(3)
    return pd.DataFrame({"section": section, "spot": spots, "score": score})


def _data(name, spots) -> SimpleNamespace:
    """What results read of a section's AnnData."""
    place = {"spatial": SECTIONS[name]["spatial_px"]}
    return SimpleNamespace(uns={"section": {"section": name}}, obs_names=pd.Index(spots), obsm=place)


def _target(name, data, labels, runs, tables, facts) -> dict:
    section, found = SECTIONS[name], seeds.on_section(runs, tables, facts, data)
    return target(
        name,
        **section,
        task="all",
        patient=f"P_{name}",
        spots=list(data.obs_names),
        labels=None if labels is None else labels["label"].to_numpy(),
        regions=None if labels is None else labels["region"].tolist(),
        thumbnail=stained(section["spatial_px"]),
        thumbnail_scale=0.2,
        runs=found.of_runs(),
    )
