"""What must hold of readers, labels, thresholds, metrics, folds and gene choice, whatever they are given.

Hypothesis looks for what breaks it: the same few examples in every run, many more in the long form.
"""

import gzip
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

import vendor_files as vendor
from ctrflow import readers
from ctrflow.errors import InputError
from ctrflow.folds import tables
from ctrflow.folds.fold import make_folds
from ctrflow.plan import sheet
from ctrflow.results import benchmark, calls, metrics, threshold, verdict, weighted
from ctrflow.sections.labels import read_labels

QUICK, LONG = 12, 240
PROPERTIES = []


def holds(examples: int = QUICK, **drawn):
    """Register a property: `check` must hold of all that is drawn; `examples` of it in the quick form."""

    def register(check):
        PROPERTIES.append(pytest.param(check, drawn, examples, id=check.__name__))
        return check

    return register


def seek(check, drawn: dict, examples: int) -> None:
    slow_to_draw = [HealthCheck.too_slow, HealthCheck.data_too_large]
    rules = settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=slow_to_draw
    )
    rules(given(**drawn)(check))()


# --- readers ----------------------------------------------------------------------------------------------------------

# names that other programmes take for numbers, dates or nothing
ODD = [
    "NA",
    "null",
    "nan",
    "1e5",
    "001",
    "TRUE",
    "-",
    "HLA-A",
    "1-Mar",
    "7SK",
    "H2-K1",
    "α-syn",
    "Gm 12",
    "a.1",
    "#N/A",
]
NAMES = st.lists(st.sampled_from(ODD) | st.text("ABCxyz019.-_/()", min_size=1), min_size=1, max_size=8, unique=True)


@st.composite
def places(draw, platform: str):
    """A small section of a turned, shifted, perhaps mirrored array, as `vendor_files` writes it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(4, 7)), draw(st.integers(4, 7))
    row, col = (index.ravel() for index in np.indices((rows, columns)))
    if platform == "visium":
        col = 2 * col + row % 2
        array_um = np.column_stack([col * 50.0, row * 50.0 * math.sqrt(3)])
    else:
        array_um = np.column_stack([col, row]) * {"st": 200.0, "visium_hd": 8.0, "xenium": 12.0}[platform]
    um_per_px = draw(st.floats(0.1, 5)) if platform != "xenium" else 1.0
    angle, mirror = draw(st.floats(-math.pi, math.pi)), draw(st.sampled_from([1, -1]))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-mirror * math.sin(angle), mirror * math.cos(angle)]])
    px = array_um / um_per_px @ turn + rng.uniform(2000, 9000, 2)
    inside = np.ones(len(px), bool)
    # six in seven under the tissue, and at least eight
    inside[rng.permutation(len(px))[: min(len(px) // 7, len(px) - 8)]] = False
    genes = draw(NAMES)
    counts = rng.poisson(rng.gamma(0.5, 20, len(genes)), (int(inside.sum()), len(genes)))
    counts[0, 0] = 1  # not every count is zero
    array = np.column_stack([row, col])
    ids = {"st": vendor.st_names, "visium_hd": vendor.bin_barcodes}.get(platform, _barcodes)(array[inside])
    outside = pd.DataFrame({"row": row, "col": col, "x": px[:, 0], "y": px[:, 1]})[~inside]
    spot_um = {"st": 100.0, "visium_hd": 8.0}.get(platform, 55.0)
    known = vendor.Truth(list(ids), genes, counts, px[inside], um_per_px, spot_um, array[inside], outside)
    return vendor.shuffled(known, draw(st.integers(0, 9)))


def _barcodes(array) -> list[str]:
    return [f"ACGT{row:02d}{col:03d}-1" for row, col in array]


def read_back(write, known, **cells) -> None:
    """What `write(folder)` wrote reads to the same ids, genes, counts, positions and scale."""
    with TemporaryDirectory() as folder:
        row = write(Path(folder)) | {key: str(value) for key, value in cells.items()}
        section = readers.read_section(row)
    at = {name: place for place, name in enumerate(known.ids)}
    assert set(section.obs_names) == set(known.ids)
    order = [at[name] for name in section.obs_names]
    assert list(section.var_names) == known.genes
    np.testing.assert_array_equal(section.X.toarray(), known.counts[order])
    key = "spatial_um" if row["platform"] == "xenium" else "spatial"
    np.testing.assert_allclose(section.obsm[key], known.positions[order], rtol=0, atol=1e-6)
    assert section.uns["section"]["spot_um"] == known.spot_um
    if row["platform"] != "xenium":
        assert section.uns["section"]["um_per_px"] == pytest.approx(known.um_per_px, rel=1e-6)


@holds(known=places("st"), packed=st.booleans(), corner=st.booleans(), ends=st.sampled_from(["\n", "\r\n"]))
def st_reads_back(known, packed, corner, ends):
    def write(root):
        table = pd.DataFrame(known.counts, index=known.ids, columns=known.genes).to_csv(sep="\t", lineterminator=ends)
        content = (table if corner else table[1:]).encode()
        path = root / "ST-cnts" / "A1.tsv"
        path.parent.mkdir()
        path.write_bytes(gzip.compress(content) if packed else content)
        lines = pd.DataFrame({"x": known.array[:, 1], "y": known.array[:, 0]})
        lines["pixel_x"], lines["pixel_y"], lines["selected"] = *known.positions.T, 1
        vendor.write(root / "ST-spotfiles" / "A1_selection.tsv", lines.to_csv(sep="\t", index=False))
        return {"section": "S1", "platform": "st", "path": str(path)}

    read_back(write, known)


@holds(
    known=places("visium"),
    matrix=st.sampled_from(["h5", "mtx 2", "mtx 3"]),
    table=st.sampled_from(["tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv"]),
    others=st.dictionaries(st.sampled_from(["CD3", "CD8"]), st.sampled_from(["Antibody Capture", "Deprecated"])),
)
def visium_reads_back(known, matrix, table, others):
    def write(root):
        if matrix == "h5":
            vendor.write_h5(root / "filtered_feature_bc_matrix.h5", _utf8(known), others)
        else:
            version = int(matrix[-1])
            vendor.write_mtx(root / "filtered_feature_bc_matrix", known, version, extra=others if version > 2 else {})
        positions, path = vendor.positions(known), root / "spatial" / table
        path.parent.mkdir()
        if path.suffix == ".parquet":
            positions.to_parquet(path, index=False)
        else:
            vendor.write(path, positions.to_csv(index=False, header=not table.endswith("list.csv")))
        vendor.write(root / "spatial" / "scalefactors_json.json", vendor.scalefactors(known))
        return {"section": "S1", "platform": "visium", "path": str(root)}

    read_back(write, known)


def _utf8(known):
    """HDF5 holds bytes."""
    return vendor.replace(known, genes=[name.encode() for name in known.genes])


@holds(known=places("visium_hd"), mtx=st.booleans())
def visium_hd_reads_back(known, mtx):
    def write(root):
        vendor._write_bins(root / "square_008um", known if mtx else _utf8(known), mtx)
        return {"section": "S1", "platform": "visium_hd", "path": str(root)}

    read_back(write, known)


@holds(known=places("xenium"), table=st.sampled_from(["cells.parquet", "cells.csv", "cells.csv.gz"]))
def xenium_reads_back(known, table):
    def write(root):
        vendor.write_h5(root / "cell_feature_matrix.h5", _utf8(known), vendor.CONTROLS)
        cells, path = vendor.cell_table(known), root / table
        if path.suffix == ".parquet":
            cells.to_parquet(path, index=False)
        else:
            (vendor.write_gz if path.suffix == ".gz" else vendor.write)(path, cells.to_csv(index=False))
        return {"section": "S1", "platform": "xenium", "path": str(root)}

    # few cells with few counts may go with their totals by chance only: these have the same numbers
    read_back(write, known)


@holds(known=places("visium"), where=st.sampled_from(["X", "layer", "raw"]), dense=st.booleans())
def h5ad_reads_back(known, where, dense):
    def write(root):
        adata = vendor._adata(known)
        values = adata.X.toarray() if dense else adata.X
        logs = np.log1p(adata.X.toarray()) + 0.25
        adata.X = values if where == "X" else logs
        if where == "layer":
            adata.layers["counts"] = values
        if where == "raw":
            adata.raw = anndata.AnnData(values, obs=adata.obs, var=adata.var)
        adata.write_h5ad(root / "a.h5ad")
        return {"section": "S1", "platform": "h5ad", "path": str(root / "a.h5ad")}

    read_back(write, known, um_per_px=known.um_per_px, spot_um=55)


# --- the sheet and labels ---------------------------------------------------------------------------------------------

IDS = st.builds("".join, st.tuples(st.sampled_from("Aaz09"), st.text("Aaz09_.-", max_size=8)))
CELL = st.text("aZ09 ,;'\"#\\/äµ中", max_size=8).map(str.strip)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "section": IDS,
            "cohort": CELL,
            "path": CELL.filter(bool),
            "note": CELL,
            "normal": st.sampled_from(["", "yes"]),
        }
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row["section"].casefold(),
)


@holds(rows=ROWS, order=st.permutations(["section", "cohort", "platform", "path", "note", "normal"]))
def a_sheet_reads_back(rows, order):
    lines = pd.DataFrame(rows).assign(platform="st")[order]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sections.tsv"
        lines.to_csv(path, sep="\t", index=False)
        # a first cell with # makes a comment of its row
        assume(not any(str(cell).startswith("#") for cell in lines.iloc[:, 0]))
        table = sheet.read_sheet([path])
    for name in rows[0]:
        assert list(table[name]) == [row[name] for row in rows]
    assert list(table["patient"]) == [row["section"] for row in rows]


WORDS = {"tumor": 1.0, "stroma": 0.0, "artefact": math.nan}
VALUE = {"tumor": 1.0, "stroma": 0.0}


def spots_at(centres) -> anndata.AnnData:
    names = pd.Index([f"S{n}-1" for n in range(len(centres))])
    spots = anndata.AnnData(
        np.ones((len(names), 1)), obs=pd.DataFrame(index=names), obsm={"spatial": np.array(centres)}
    )
    spots.uns["section"] = {"section": "S1", "um_per_px": 1.0, "spot_um": 55.0, "image_scale": 1.0}
    return spots


def labels_of(content: str, spots, packed: bool = False) -> np.ndarray:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "labels"
        path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
        labels = read_labels(path, spots, WORDS)
    assert list(labels["spot"]) == list(spots.obs_names)
    return labels["label"].astype(float).to_numpy()


@holds(
    words=st.lists(st.sampled_from(["tumor", "stroma", "artefact", "", "NA", None]), min_size=1, max_size=12),
    column=st.sampled_from(["barcode", "spot", "Spot ID", "cell_id", ""]),
    numbers=st.booleans(),
    separator=st.sampled_from("\t,;"),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def a_label_table_reads_back(words, column, numbers, separator, packed, seed):
    """None: the spot has no row."""
    spots = spots_at([[float(n), 0.0] for n in range(len(words))])
    given_rows = [(name, word) for name, word in zip(spots.obs_names, words, strict=True) if word is not None]
    assume(given_rows)
    if numbers:
        given_rows = [(name, {"tumor": "1", "stroma": "0"}.get(word, "")) for name, word in given_rows]
    order = np.random.default_rng(seed).permutation(len(given_rows))
    lines = [separator.join([column, "is_cancer" if numbers else "region"])]
    lines += [separator.join(given_rows[place]) for place in order]
    values = labels_of("\n".join(lines) + "\n", spots, packed)
    np.testing.assert_array_equal(values, [VALUE.get(word, math.nan) for word in words])


@holds(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(["tumor", "stroma", "artefact"]), min_size=1, max_size=6),
    corners=st.integers(3, 9),
)
def drawn_regions_are_those_of_a_walk(seed, kinds, corners):
    """Of the polygons around a centre the smallest, by crossing each edge and by the surveyor's formula."""
    rng = np.random.default_rng(seed)
    spots = spots_at(rng.uniform(0, 100, (30, 2)))
    rings = [_star(rng, corners) for _ in kinds]
    expected = []
    for x, y in spots.obsm["spatial"]:
        around = [(_area(ring), kind) for ring, kind in zip(rings, kinds, strict=True) if _holds_point(ring, x, y)]
        expected.append(VALUE.get(min(around)[1], math.nan) if around else math.nan)
    assume(any(_holds_point(ring, x, y) for ring in rings for x, y in spots.obsm["spatial"]))
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]},
            "properties": {"classification": {"name": kind}},
        }
        for ring, kind in zip(rings, kinds, strict=True)
    ]
    values = labels_of(json.dumps({"type": "FeatureCollection", "features": features}), spots)
    np.testing.assert_array_equal(values, expected)


def _star(rng, corners: int) -> np.ndarray:
    """A polygon whose outline does not cross itself: corners in the order of their angles around its middle."""
    angles = np.arange(corners) * 2 * np.pi / corners + rng.uniform(0, 1, corners) / corners
    radii = rng.uniform(5, 60, corners)
    return rng.uniform(0, 100, 2) + np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]


def _holds_point(ring, x: float, y: float) -> bool:
    inside = False
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
    return inside


def _area(ring) -> float:
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    return abs(float((x * next_y - next_x * y).sum())) / 2


# --- thresholds -------------------------------------------------------------------------------------------------------

KINDS = st.sampled_from(["mixture", "map_em"])
SCORES = st.lists(
    st.floats(-1e6, 1e6) | st.integers(0, 4).map(float) | st.floats(0, 1, width=32) | st.floats(0, 1e-90),
    min_size=1,
    max_size=40,
).map(np.array)


@holds(30, scores=SCORES, kind=KINDS)
def calls_rise_with_the_score(scores, kind):
    fitted = threshold.fit(scores, kind)
    calls = fitted.call(scores)
    assert calls.shape == scores.shape
    assert set(calls) <= {0, 1}
    if fitted.threshold is None:
        assert not calls.any()
        return
    assert math.isfinite(fitted.threshold)
    assert np.isfinite([*fitted.means, *fitted.variances, *fitted.weights]).all()
    assert min(fitted.variances) > 0
    assert sum(fitted.weights) == pytest.approx(1)
    assert fitted.means[0] <= fitted.means[1]
    if calls.any() and not calls.all():
        assert scores[calls == 1].min() > scores[calls == 0].max()


@holds(
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0.2, 0.8),
    apart=st.floats(2, 8),
    scale=st.integers(-20, 6),
    shift=st.integers(-50, 50),
)
def calls_do_not_know_the_unit_of_scores(seed, share, apart, scale, shift):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=80) + apart * (rng.random(80) < share)
    moved = (scores + shift) * 2.0**scale
    np.testing.assert_array_equal(threshold.fit(scores).call(scores), threshold.fit(moved).call(moved))


GATE = verdict.Gate(1.0, 0.0, (0.5, 5.0), (-4.0, -0.5), (24, 15), 0.2, 5)
FACTS = st.builds(
    verdict.Facts,
    peak=st.none() | st.sampled_from([-3.0, -0.1, 2.0]),
    gate=st.none() | st.just(GATE),
    unlike=st.sampled_from([(), ("x",)]),
    elsewhere=st.sampled_from([(), ("y",)]),
    copy_numbers=st.none() | st.floats(-5, 40),
)


def row_of_spots(n: int) -> anndata.AnnData:
    obs = pd.DataFrame(index=[f"spot{i}" for i in range(n)])
    return anndata.AnnData(obs=obs, obsm={"spatial": np.column_stack([np.arange(n), np.zeros(n)]) * 10.0})


@holds(
    sections=st.lists(st.tuples(SCORES, FACTS, st.booleans()), min_size=1, max_size=3),
    kind=KINDS,
    seed=st.integers(0, 99),
)
def sections_do_not_know_of_each_other(sections, kind, seed):
    rng = np.random.default_rng(seed)
    facts = {f"s{n}": known for n, (_, known, _) in enumerate(sections)}
    spots = {f"s{n}": row_of_spots(len(scores)) for n, (scores, _, _) in enumerate(sections)}
    parts = [
        pd.DataFrame({"section": f"s{n}", "spot": spots[f"s{n}"].obs_names, "score": scores}).assign(
            probability=rng.random(len(scores)) if likely else np.nan
        )
        for n, (scores, _, likely) in enumerate(sections)
    ]
    called, fits, said = calls.call_sections(pd.concat(parts, ignore_index=True), facts, spots, kind)
    for part in parts:
        name = part["section"].iloc[0]
        alone, fit, verdicts = calls.call_sections(part, {name: facts[name]}, {name: spots[name]}, kind)
        own = called[called["section"] == name]
        for column in ("call", "call_mixture"):
            assert list(own[column]) == list(alone[column])
        assert fits[name] == fit[name]
        assert said[name] == verdicts[name]
        # what is called is above the threshold; nothing where no tumour was found
        assert (own["call"] <= own["call_mixture"]).all()
        assert said[name].verdict == facts[name].verdict
        assert not (facts[name].verdict == verdict.NONE and own["call"].any())


def test_scores_closer_than_double_precision_tells_are_constant():
    """Found by `calls_rise_with_the_score`: their variance is 0, and no mixture can be fitted."""
    for scores in ([0.0, 9.9e-166], [0.0, 1e-300, 2e-300]):
        fitted = threshold.fit(np.array(scores))
        assert (fitted.threshold, fitted.branch) == (None, "constant")
    assert threshold.fit(np.array([0.0, 1e-90, 1e-90, 0.0])).threshold is not None


# --- metrics ----------------------------------------------------------------------------------------------------------


@st.composite
def judged(draw, known: bool = True):
    """Truth and scores of spots of both classes, many of them tied."""
    n = draw(st.integers(2, 30))
    truth = draw(st.lists(st.sampled_from([0.0, 1.0] if known else [0.0, 1.0, math.nan]), min_size=n, max_size=n))
    values = st.integers(-3, 3).map(float) | st.floats(-1e3, 1e3, width=32)
    scores = draw(st.lists(values, min_size=n, max_size=n))
    assume(0.0 in truth and 1.0 in truth)
    return np.array(truth), np.array(scores)


def value_of(results: dict, name: str) -> float:
    return results[name][0]


@holds(30, spots=judged())
def metrics_are_those_of_counting(spots):
    truth, scores = spots
    results = metrics.evaluate(truth, scores)
    high, low = scores[truth == 1], scores[truth == 0]
    wins = sum((a > b) + (a == b) / 2 for a in high for b in low)
    assert value_of(results, "auc") == pytest.approx(wins / (len(high) * len(low)))
    precision, recall, area, before = 0.0, 0.0, 0.0, 0.0
    for cut in sorted(set(scores), reverse=True):
        taken = scores >= cut
        precision, recall = truth[taken].mean(), truth[taken].sum() / len(high)
        area, before = area + precision * (recall - before), recall
    assert value_of(results, "ap") == pytest.approx(area)
    gaps = [abs((high <= cut).mean() - (low <= cut).mean()) for cut in scores]
    assert value_of(results, "ks") == pytest.approx(max(gaps))


@holds(30, spots=judged())
def metrics_see_the_order_alone(spots):
    truth, scores = spots
    ranks = np.unique(scores, return_inverse=True)[1].astype(float)
    results = metrics.evaluate(truth, scores)
    for rising in (ranks, np.exp(ranks), -1 / (ranks + 1)):
        other = metrics.evaluate(truth, rising)
        for name in ("auc", "ap", "ks", "f1_true_ratio"):
            assert value_of(other, name) == pytest.approx(value_of(results, name)), name
    turned = metrics.evaluate(truth, -scores)
    assert value_of(turned, "auc") == pytest.approx(1 - value_of(results, "auc"))
    assert value_of(turned, "ks") == pytest.approx(value_of(results, "ks"))
    assert value_of(metrics.evaluate(1 - truth, scores), "auc") == pytest.approx(1 - value_of(results, "auc"))


@holds(spots=judged(known=False), seed=st.integers(0, 99), shares=st.booleans())
def metrics_know_no_order_of_spots_and_no_unknown_one(spots, seed, shares):
    """`shares`: of scores that may be probabilities."""
    truth, scores = spots
    calls = scores > 0
    scores = (scores + 1000) / 2000 if shares else scores
    rng = np.random.default_rng(seed)
    of_map, likely = rng.random(len(truth)) < 0.5, rng.random(len(truth)) if seed % 2 else None
    words = rng.choice(["Normal gland", "fat", None, math.nan], len(truth))

    def of(rows):
        more = {"calls": of_map[rows], "likely": None if likely is None else likely[rows], "words": words[rows]}
        return metrics.evaluate(truth[rows], scores[rows], calls[rows], **more, said=verdict.FOUND)

    results = of(np.arange(len(truth)))
    other = of(rng.permutation(np.flatnonzero(~np.isnan(truth))))
    for name, (value, note) in results.items():
        assert other[name][0] == pytest.approx(value, nan_ok=True), name
        assert other[name][1] == note
    for metric in metrics.METRICS:
        value = value_of(results, metric.name)
        assert math.isnan(value) or metric.low <= value <= metric.high + 1e-12, metric.name


@holds(spots=judged(), seed=st.integers(0, 2**32 - 1))
def a_weighted_spot_counts_as_so_many(spots, seed):
    truth, scores = spots
    rng = np.random.default_rng(seed)
    calls = scores >= np.median(scores)
    weights = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=4).T.astype(float)
    results = benchmark.weighted_metrics(weighted.rank_spots(truth == 1, scores, calls), weights)
    assert results.shape == (3, 4)
    for draw, times in enumerate(weights.T.astype(int)):
        repeated = metrics.evaluate(*(np.repeat(values, times) for values in (truth, scores, calls)))
        expected = [value_of(repeated, name) for name in ("auc", "ap", "f1_gmm")]
        assert results[:, draw] == pytest.approx(np.array(expected), nan_ok=True)


@holds(30, p=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def holm_steps_down(p):
    adjusted = benchmark.holm(p)
    expected, worst = {}, 0.0
    for step, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        worst = max(worst, min(1.0, (len(p) - step) * p[place]))
        expected[place] = worst
    assert adjusted == pytest.approx([expected[place] for place in range(len(p))])
    assert (adjusted >= np.array(p)).all()
    assert adjusted.min() == pytest.approx(min(1.0, len(p) * min(p)))  # the smallest as Bonferroni has it


# --- folds and genes --------------------------------------------------------------------------------------------------

SHEETS = st.lists(
    st.fixed_dictionaries(
        {
            "patient": st.sampled_from("PQRST"),
            "cohort": st.sampled_from(["lab", "lab", "other"]),
            "labels": st.sampled_from(["x", "x", "x", ""]),
            "normal": st.sampled_from(["", "yes"]),
        }
    ),
    min_size=1,
    max_size=10,
).map(lambda rows: pd.DataFrame(rows).assign(section=[f"s{n}" for n in range(len(rows))], platform="st"))
QUERY = st.sampled_from(
    [
        'cohort == "lab"',
        'cohort == "other"',
        'labels != ""',
        'normal == "yes"',
        'patient in ["P", "Q"]',
        'labels == "x"',
    ]
)


@holds(
    60,
    table=SHEETS,
    split=st.sampled_from(["leave_one_section_out", "leave_one_patient_out", "transfer"]),
    source=QUERY,
    target=QUERY | st.none(),
    normal=QUERY | st.none() | st.just("source_negatives"),
)
def no_patient_is_on_both_sides(table, split, source, target, normal):
    task = {"name": "t", "split": split, "source": source, "target": target, "normal": normal}
    try:
        made = make_folds(task, table, "study.yaml")
    except InputError:  # nothing to train on or to score, which test_folds.py looks at
        return
    patient = dict(zip(table["section"], table["patient"], strict=True))
    asked = set(table.query(target or source)["section"])
    sources = set(table.query(source)["section"])
    for fold in made:
        held_out = {patient[name] for name in fold.targets}
        for learned in (fold.sources, fold.normals):
            assert not held_out & {patient[name] for name in learned}
        # and nobody else is left out
        assert set(fold.sources) == {name for name in sources if patient[name] not in held_out}
        assert len(held_out) == 1
    scored = [name for fold in made for name in fold.targets]
    assert sorted(scored) == sorted(asked)
    assert len({fold.name for fold in made}) == len(made)


def view_of(counts, genes, name: str):
    obs = pd.DataFrame({"section": name}, index=[f"{name}/{n}" for n in range(len(counts))])
    table = anndata.AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, var=pd.DataFrame(index=genes))
    table.obsm["spatial"] = np.zeros((len(counts), 2))
    return table


@holds(
    3,
    seed=st.integers(0, 2**32 - 1),
    n_genes=st.integers(5, 60),
    hvg_input=st.sampled_from(["counts", "log"]),
    factor=st.sampled_from([0, 1, 1000]),
)
def the_target_chooses_no_gene(seed, n_genes, hvg_input, factor):
    """Any counts of the target give the same training table; its genes alone decide which can be chosen."""
    rng = np.random.default_rng(seed)
    genes = [f"g{n:02d}" for n in range(50)]
    train = tables.train_view({"a": view_of(rng.poisson(rng.gamma(2, 4, 50), (60, 50)), genes, "a")}, {}, {})
    target = view_of(rng.poisson(3, (20, 45)), genes[:45], "b")
    other = view_of(rng.permuted(target.X.toarray(), axis=1) * factor, genes[:45], "b")
    first, second = (
        [*map(tables.together, tables.build_views(train, one, n_genes, hvg_input=hvg_input))] for one in (target, other)
    )
    assert list(first[0].var_names) == list(second[0].var_names) == list(second[1].var_names)
    assert (first[0].X != second[0].X).nnz == 0
    assert (first[0].layers["counts"] != second[0].layers["counts"]).nnz == 0


# --- and all of it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("check", "drawn", "examples"), PROPERTIES)
def test_it_holds(check, drawn, examples):
    seek(check, drawn, examples)


@pytest.mark.slow
@pytest.mark.parametrize(("check", "drawn", "examples"), PROPERTIES)
def test_it_holds_of_many(check, drawn, examples):
    seek(check, drawn, examples * LONG // QUICK)
