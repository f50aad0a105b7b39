"""The papers' figures: that the numbers behind them are right, and that every study gets those it can have."""

import json
from io import BytesIO
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse, stats
from sklearn.metrics import f1_score, precision_score, recall_score

from ctrflow import figures, plots, storage
from ctrflow.errors import InputError
from ctrflow.figures import (
    around,
    calls,
    discordant,
    distance,
    distributions,
    edge,
    histograms,
    ks,
    layers,
    maps,
    page,
    sections,
    settings,
    severity,
)
from ctrflow.results import metrics
from ctrflow.results.verdict import Facts, Gate, Verdict
from ctrflow.rim.layers import LAYERS
from ctrflow.sections import labels

CONFIG = Path(__file__).parents[3] / "config"
WORDS = sections.read_severity(CONFIG / "severity_words.tsv")
GENES = ["ERBB2", "CCND1", "ACTB", "EPCAM"]
LONG = "separation_weight_0.1_with_a_name_that_nobody_would_like_to_read_in_a_small_panel"


def cohort(names=("a1", "a2", "b1"), labelled=True, seed=0):
    """Spots of sections 8 x 8, cancer in the left half: (AnnData, label table) by section."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for name in names:
        xy = np.array([(x, y) for y in range(8) for x in range(8)], dtype=float) * 100
        truth = xy[:, 0] < 350
        counts = rng.poisson(3 + 4 * truth[:, None], (64, len(GENES) + 1)).astype(np.float32)
        spots = ad.AnnData(
            sparse.csr_matrix(counts),
            obs=pd.DataFrame(index=[f"{name}_{i}" for i in range(64)]),
            var=pd.DataFrame(index=[*GENES, "OTHER"]),
        )
        spots.obsm["spatial"] = xy
        spots.uns["section"] = {"section": name, "cohort": "mine", "spot_um": 55.0, "um_per_px": 1.0}
        word = np.where(truth, "invasive cancer", "connective tissue").astype(object)
        word[:5] = "cancer in situ"
        table = pd.DataFrame({"spot": spots.obs_names, "label": truth.astype(float), "region": word})
        inputs[name] = spots, table if labelled else None
    return inputs


def runs_of(variants, seeds=(1, 2)):
    regimes = {"labelled": "labelled_source", "marker": "marker_prior", "random": "control"}
    return [
        {"task": "t", "fold": "f", "encoder": "e", "method": name, "variant": name, "run": name, "seed": seed}
        | {"regime": regimes.get(name, "labelled_source"), "reference": "", "threshold": "mixture"}
        for name in variants
        for seed in seeds
    ]


def score_tables(inputs, runs, seed=1):
    """Scores that know the label, the later the run the less."""
    rng = np.random.default_rng(seed)
    tables = []
    for place, run in enumerate(runs):
        parts = []
        for name, (spots, _) in inputs.items():
            truth = spots.obsm["spatial"][:, 0] < 350
            score = truth * (0 if run["variant"] == "random" else 2.5 / (1 + place)) + rng.normal(0, 1, 64)
            parts.append(pd.DataFrame({"section": name, "spot": spots.obs_names, "score": score}))
        table = pd.concat(parts)
        called = (table["score"] > 1).astype(int)
        tables.append(table.assign(probability=np.nan, call=called, call_mixture=called))
    return tables


def make(inputs, variants=("labelled", "marker", "random"), seeds=(1, 2), genes=GENES, thumbnail=True):
    """(setting, runs, tables) of a small study; controls beside methods are in the metrics alone, as planned."""
    runs = runs_of(variants, seeds)
    tables = score_tables(inputs, runs)
    known = {name: table for name, (_, table) in inputs.items() if table is not None}
    patients = {name: name[0] for name in inputs}
    said = [dict.fromkeys(inputs, Verdict().as_dict()) for _ in runs]
    measured = metrics.study_table("s", runs, tables, known, patients, said)
    shown = [place for place, run in enumerate(runs) if run["regime"] != "control"] or range(len(runs))
    picture = np.full((40, 40, 3), 150, np.uint8) if thumbnail else None
    scored = []
    for name, (spots, table) in inputs.items():
        facts = sections.section(spots, list(genes), WORDS, table, patients[name], picture, 0.05)
        leading = sections.expression(spots, ["OTHER", *genes[:1]])
        facts |= {"leading": leading, "widths_um": {"inner": 150, "outer": 150}}
        own, evidence = [tables[place] for place in shown], [{name: Facts().as_dict()} for _ in shown]
        scored.append(sections.scored(facts, [runs[place] for place in shown], own, evidence, spots))
    setting = settings.setting("t", "e", scored, measured, genes)
    return setting | {"around": around.around(setting, layer_genes(variants, genes))}, runs, tables


def layer_genes(variants, genes):
    """As tables/layer_genes.tsv: one gene is higher in the core, another one in the stroma, a third one lower."""
    rows = [("core", genes[0], 1.0), ("stroma", "OTHER", 0.5), ("stroma", genes[1], -1.0)] if len(genes) > 1 else []
    names = ["task", "encoder", "variant", "layer", "gene", "log2_fold_change"]
    return pd.DataFrame([["t", "e", variant, *row] for variant in variants for row in rows], columns=names)


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Half the pixels each way: quick, and laid out the same."""
    monkeypatch.setattr(page, "DPI", 80)


@pytest.fixture(scope="module")
def study():
    inputs = cohort()
    return inputs, *make(inputs)


def mean_scores(tables, runs, variant, section):
    own = [
        table[table["section"] == section].set_index("spot")["score"]
        for table, run in zip(tables, runs, strict=True)
        if run["variant"] == variant
    ]
    return sum(own) / len(own)


# --- sections and settings --------------------------------------------------------------------------------------------


def test_expression_is_log_normalised_by_the_spot():
    spots = ad.AnnData(np.array([[1.0, 3.0], [0.0, 0.0]]), var=pd.DataFrame(index=["ERBB2", "x"]))
    values = sections.expression(spots, ["ERBB2", "ACTB", "ERBB2"])
    assert list(values) == ["ERBB2"]
    assert values["ERBB2"].tolist() == [pytest.approx(np.log(1 + 2500)), 0.0]


def test_severity_of_words_by_cohort(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text(
        "# words\nword\tgroup\tsource\tcohort\nDCIS/LCIS\tin_situ\tx\nedge\tedge\tx\nedge\tnormal\tx\tMine\n"
    )
    words = sections.read_severity(path)
    spots, table = cohort(["a1"])["a1"]
    table = table.assign(region=["dcis/lcis_3", "Edge", "nothing", None] * 16)
    own = sections.section(spots, [], words, table)
    assert own["severity"][:4].tolist() == ["in_situ", "normal", "", ""]
    spots.uns["section"]["cohort"] = "other"
    assert sections.section(spots, [], words, table)["severity"][:2].tolist() == ["in_situ", "edge"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\tbad\tx", "row 2, column group: 'bad'"),
        ("a\tedge\tx\na\tnormal\tx", "row 3, column word: 'a' is in two groups"),
    ],
)
def test_a_bad_row_of_severity_is_reported(tmp_path, row, message):
    path = tmp_path / "words.tsv"
    path.write_text(f"word\tgroup\tsource\n{row}\n")
    with pytest.raises(InputError, match=message):
        sections.read_severity(path)


def test_severity_agrees_with_the_labels():
    words = labels.read_words(CONFIG / "label_words.tsv")
    assert set(WORDS) == {""}
    for word, label in labels.meanings(WORDS[""], words).items():
        group = WORDS[""][word]
        if label is None or group == "edge":
            continue
        assert label == (group != "normal"), word


def test_unlike_methods_stand_apart_and_the_best_of_both_are_shown(study):
    _, setting, _, _ = study
    assert setting["variants"] == ["labelled", "marker"]
    assert setting["groups"] == {"labelled": "learned from labels", "marker": "saw no label", "random": "control"}
    many = setting | {
        "variants": ["l1", "l2", "l3", "n1", "n2"],
        "groups": dict.fromkeys(["l1", "l2", "l3"], "learned from labels")
        | dict.fromkeys(["n1", "n2"], "saw no label"),
        "auc": {"l1": 0.9, "l2": 0.8, "l3": np.nan, "n1": 0.95, "n2": 0.6},
    }
    assert settings.best(many, 4) == ["n1", "l1", "n2", "l2"]
    assert settings.best(many, 1) == ["n1"]
    assert settings.in_order(many["groups"], many["auc"]) == ["l1", "l2", "l3", "n1", "n2"]


# --- layout -----------------------------------------------------------------------------------------------------------


def test_pages_hold_full_rows():
    items = list(range(20))
    assert [len(part) for part in page.pages(items, 12, columns=3)] == [12, 8]
    assert [len(part) for part in page.pages(items, 8)] == [7, 7, 6]
    assert [item for part in page.pages(items, 8) for item in part] == items
    assert page.pages([], 8) == []
    assert page.pages([1], 8, columns=4) == [[1]]


@pytest.mark.parametrize("text", ["a", LONG, "x" * 300, "ein Name mit Abstand", "_" * 50])
@pytest.mark.parametrize("lines", [1, 2])
def test_names_fit(text, lines):
    shown, size = page.fit(text, 1.1, lines=lines)
    assert page.LEAST <= size <= page.SMALL
    assert len(shown.split("\n")) <= lines
    assert all(page.length(line, size) <= 1.1 + 1e-9 for line in shown.split("\n"))
    assert shown.replace("\n", "") == text or "…" in shown
    assert shown[0] == text[0]
    assert shown[-1] == text[-1]


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_ks_by_section_and_patient(study):
    inputs, setting, runs, tables = study
    table = ks.draw(setting)["tables"][""]
    by_section = {}
    for variant in ("labelled", "marker", "random"):
        for name in inputs:
            truth = inputs[name][1]["label"].to_numpy() == 1
            values = [
                stats.ks_2samp(own["score"][truth], own["score"][~truth]).statistic
                for own, run in zip([t[t["section"] == name] for t in tables], runs, strict=True)
                if run["variant"] == variant
            ]
            by_section[variant, name] = np.mean(values)
            row = table[(table["variant"] == variant) & (table["section"] == name)]
            assert row["ks"].item() == pytest.approx(by_section[variant, name], abs=1e-9)
            assert row["seeds"].item() == 2
        patients = [np.mean([by_section[variant, "a1"], by_section[variant, "a2"]]), by_section[variant, "b1"]]
        row = table[(table["variant"] == variant) & table["section"].isna()]
        assert row["ks"].item() == pytest.approx(np.mean(patients), abs=1e-9)


def test_distributions_of_the_mean_over_seeds(study):
    inputs, setting, runs, tables = study
    table = distributions.draw(setting)["tables"][""]
    scores = np.concatenate(
        [mean_scores(tables, runs, "marker", name).loc[inputs[name][0].obs_names] for name in inputs]
    )
    truth = np.concatenate([inputs[name][1]["label"] for name in inputs]) == 1
    rows = table[table["variant"] == "marker"].set_index("class")
    assert rows.loc["cancer", "spots"] == truth.sum()
    assert rows.loc["other", "q50"] == pytest.approx(np.median(scores[~truth]), abs=1e-9)
    assert rows.loc["cancer", "q95"] == pytest.approx(np.percentile(scores[truth], 95), abs=1e-9)
    assert rows["ks"].tolist() == pytest.approx([stats.ks_2samp(scores[truth], scores[~truth]).statistic] * 2, abs=1e-9)


def test_histograms_count_every_labelled_spot_once():
    scores, label = np.array([-9.0, 0.0, 0.26, 0.5, 0.99, 1.0, 9.0, 0.5]), np.array([0, 1, 1, 0, 0, 1, 1, np.nan])
    edges, cancer, other = histograms.counts(scores, label, 0.0, 1.0)
    assert len(edges) == histograms.BINS + 1
    assert (edges[0], edges[-1]) == (0.0, 1.0)
    assert {int(bar): int(cancer[bar]) for bar in np.flatnonzero(cancer)} == {0: 1, 10: 1, 39: 2}
    assert {int(bar): int(other[bar]) for bar in np.flatnonzero(other)} == {0: 1, 20: 1, 39: 1}


def test_histograms_of_a_study(study):
    inputs, setting, runs, tables = study
    table = histograms.draw(setting)["tables"][""]
    own = table[table["variant"] == "labelled"]
    scores = np.concatenate(
        [mean_scores(tables, runs, "labelled", name).loc[inputs[name][0].obs_names] for name in inputs]
    )
    truth = np.concatenate([inputs[name][1]["label"] for name in inputs]) == 1
    low, high = np.percentile(scores, [1, 99])
    expected = np.zeros((2, histograms.BINS), int)
    for score, cancer in zip(scores, truth, strict=True):
        bar = int((min(max(score, low), high) - low) / (high - low) * histograms.BINS)
        expected[0 if cancer else 1, min(bar, histograms.BINS - 1)] += 1
    assert own["cancer"].tolist() == expected[0].tolist()
    assert own["other"].tolist() == expected[1].tolist()
    by_section = histograms.draw_sections(setting)["tables"][""]
    assert by_section[["cancer", "other"]].to_numpy().sum() == 3 * 64
    thresholds = by_section.drop_duplicates("section").set_index("section")["threshold"]
    for one in setting["sections"]:
        assert thresholds[one["section"]] == one["thresholds"]["labelled"].threshold


def test_severity_means_and_tests(study):
    inputs, setting, runs, tables = study
    entry = severity.draw(setting)
    means, tests = entry["tables"][""], entry["tables"]["_tests"]
    for name in inputs:
        scores = mean_scores(tables, runs, "marker", name).loc[inputs[name][0].obs_names].to_numpy()
        region = inputs[name][1]["region"].to_numpy()
        of = {
            "invasive": scores[region == "invasive cancer"],
            "in_situ": scores[region == "cancer in situ"],
            "normal": scores[region == "connective tissue"],
        }
        rows = means[(means["variant"] == "marker") & (means["section"] == name)].set_index("group")
        for group, values in of.items():
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            expected = [len(values), values.mean(), low, high]
            assert rows.loc[group, ["spots", "mean", "low", "high"]].tolist() == pytest.approx(expected, abs=1e-9)
        # Kruskal and Wallis by hand: no ties
        ranks = stats.rankdata(np.concatenate(list(of.values())))
        n, start, total = len(ranks), 0, 0.0
        for values in of.values():
            total += ranks[start : start + len(values)].sum() ** 2 / len(values)
            start += len(values)
        h = 12 / (n * (n + 1)) * total - 3 * (n + 1)
        assert rows["kruskal_h"].tolist() == pytest.approx([h] * 3, abs=1e-9)
        assert rows["kruskal_p"].tolist() == pytest.approx([stats.chi2.sf(h, 2)] * 3, rel=1e-9)
        pairs = tests[(tests["variant"] == "marker") & (tests["section"] == name)]
        assert len(pairs) == 3
        for pair in pairs.itertuples():
            u = sum((one > other) + 0.5 * (one == other) for one in of[pair.one] for other in of[pair.other])
            assert pair.u == u
            p = stats.mannwhitneyu(of[pair.one], of[pair.other], alternative="two-sided").pvalue
            assert pair.p == pytest.approx(p, rel=1e-9)
        least, middle, most = sorted(pairs["p"])
        holm = [min(3 * least, 1), min(max(3 * least, 2 * middle), 1), min(max(3 * least, 2 * middle, most), 1)]
        assert sorted(pairs["p_holm"]) == pytest.approx(holm, rel=1e-9)


def test_a_single_spot_has_no_interval_and_equal_scores_no_difference():
    assert severity.interval([2.0])[0] == 2.0
    assert np.isnan(severity.interval([2.0])[1:]).all()
    assert np.isnan(severity.kruskal([np.ones(3), np.ones(2)])).all()
    assert severity.mann_whitney(np.ones(3), np.ones(2)) == (3.0, 1.0)


def test_the_edge_is_next_to_the_tumour_on_both_lattices():
    square = np.array([(x, y) for y in range(5) for x in range(5)], dtype=float)
    hexagonal = np.array([(x + 0.5 * (y % 2), y * np.sqrt(3) / 2) for y in range(5) for x in range(5)])
    for centres, neighbours in ((square, 8), (hexagonal, 6)):
        label = np.zeros(25)
        label[12] = 1
        label[0] = np.nan
        one = {"label": label, "severity": np.full(25, "", "<U8"), "centres_px": 37 * centres, "pitch_px": 37.0}
        groups, rule = edge.groups(one)
        assert rule == "neighbours"
        assert (groups == "edge").sum() == neighbours
        assert (groups == "healthy").sum() == 25 - 2 - neighbours
        assert groups[[12, 0]].tolist() == ["tumour", ""]
        expected = [i for i in range(25) if 0 < np.hypot(*(centres[i] - centres[12])) < 1.5]
        assert np.flatnonzero(groups == "edge").tolist() == expected


def test_the_annotators_edge_comes_first():
    words = np.array(["edge", "normal", "", "", "invasive", "in_situ", "", "edge"])
    label = np.array([0, 0, 0, 1, np.nan, np.nan, np.nan, 1])
    groups, rule = edge.groups({"label": label, "severity": words, "centres_px": np.zeros((8, 2)), "pitch_px": 1.0})
    assert rule == "word"
    assert groups.tolist() == ["edge", "healthy", "healthy", "tumour", "tumour", "tumour", "", "edge"]


def test_edge_numbers(study):
    inputs, setting, runs, tables = study
    table = edge.draw(setting)["tables"][""]
    pooled = []
    for name in inputs:
        scores = mean_scores(tables, runs, "labelled", name).loc[inputs[name][0].obs_names].to_numpy()
        column = inputs[name][0].obsm["spatial"][:, 0] / 100  # cancer in columns 0 to 3
        own = scores[column == 4]
        pooled.append(own)
        row = table[(table["variant"] == "labelled") & (table["section"] == name) & (table["group"] == "edge")]
        assert row["spots"].item() == 8
        assert row["mean"].item() == pytest.approx(own.mean(), abs=1e-9)
        assert row["median"].item() == pytest.approx(np.median(own), abs=1e-9)
    row = table[(table["variant"] == "labelled") & table["section"].isna() & (table["group"] == "edge")]
    assert row["spots"].item() == 24
    assert row["q75"].item() == pytest.approx(np.percentile(np.concatenate(pooled), 75), abs=1e-9)
    assert set(table["rule"]) == {"neighbours"}


def test_violins_have_the_shape_of_the_density():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    y, density = edge.violin(values)
    expected = stats.gaussian_kde(values, "scott")(y)
    assert density == pytest.approx(expected / expected.max(), abs=0.05)
    assert edge.violin(np.ones(5))[0].tolist() == [1.0]


def test_discordant_spots_of_one_section_by_hand():
    # called and other: spots 0, 1; normal: 2, 3; cancer: 4
    values = np.log1p([30.0, 10.0, 5.0, 5.0, 40.0])
    one = {
        "section": "s",
        "expression": pd.DataFrame({"ERBB2": values, "CCND1": [1.0, 2.0, 0.0, 0.0, 3.0]}),
        "groups": (
            np.array([False, False, True, True, False]),
            np.array([True, True, False, False, False]),
            np.array([False, False, False, False, True]),
        ),
    }
    table = discordant._table({"m": [one]}, ["ERBB2", "CCND1", "ACTB"]).set_index("gene")
    assert table["section"].unique().tolist() == ["s"]
    assert table.loc["ERBB2", ["normal", "discordant", "cancer"]].tolist() == [2, 2, 1]
    assert table.loc["ERBB2", "fold_change"] == pytest.approx(20 / 5)
    assert table.loc["ERBB2", "mean_normal"] == pytest.approx(np.log(6))
    assert table.loc["ERBB2", "mean_cancer"] == pytest.approx(np.log(41))
    # all four pairs are won: U = 4
    assert table.loc["ERBB2", "u"] == 4
    assert table.loc["CCND1", "note"] == "no count in normal spots"
    assert np.isnan(table.loc["CCND1", "fold_change"])
    assert table.loc["ACTB", "note"] == "not measured"
    p = stats.mannwhitneyu(values[:2], values[2:4], alternative="two-sided").pvalue
    assert table.loc["ERBB2", "p"] == p
    assert table.loc["ERBB2", "p_holm"] >= p


def test_discordant_spots_of_a_study(study):
    inputs, setting, _, _ = study
    entry = discordant.draw(setting)
    table = entry["tables"][""]
    variant = "marker"
    together, expected, seen, means = {"d": [], "n": []}, 0.0, 0.0, 0
    for one in setting["sections"]:
        spots, truth = inputs[one["section"]]
        counts = spots.X.toarray()
        rate = counts[:, 0] / counts.sum(axis=1) * 10_000
        called = one["calls"][variant].to_numpy() == 1
        normal, middle = (truth["label"] == 0) & ~called, (truth["label"] == 0) & called
        row = table[(table["variant"] == variant) & (table["section"] == one["section"]) & (table["gene"] == "ERBB2")]
        assert row["discordant"].item() == middle.sum()
        assert row["fold_change"].item() == pytest.approx(rate[middle].mean() / rate[normal].mean(), rel=1e-5)
        log = np.log1p(rate)
        together["d"].append(log[middle] - log[normal].mean())
        together["n"].append(log[normal] - log[normal].mean())
        expected += middle.sum() * rate[normal].mean()
        seen += rate[middle].sum()
        means += middle.sum()
    row = table[(table["variant"] == variant) & table["section"].isna() & (table["gene"] == "ERBB2")]
    d, n = np.concatenate(together["d"]), np.concatenate(together["n"])
    assert row["discordant"].item() == means
    assert row["mean_discordant"].item() == pytest.approx(d.mean(), abs=1e-6)
    assert row["mean_normal"].item() == pytest.approx(0, abs=1e-9)
    assert row["fold_change"].item() == pytest.approx(seen / expected, rel=1e-5)
    assert row["p"].item() == pytest.approx(stats.mannwhitneyu(d, n, alternative="two-sided").pvalue, rel=1e-4)
    assert discordant.genes(["EPCAM", "ERBB2"]) == ["ERBB2", "CCND1", "ACTB", "EPCAM"]


def test_genes_that_a_section_lacks_are_named(study):
    inputs, _, _, _ = study
    setting, _, _ = make(inputs, genes=[*GENES, "MUC5AC"])
    entry = discordant.draw(setting)
    assert entry["caption"].endswith("Not measured in a1: MUC5AC; a2: MUC5AC; b1: MUC5AC.")
    assert set(entry["tables"][""].query("gene == 'MUC5AC'")["note"]) == {"not measured"}


def test_figures_have_the_calls_of_the_verdict():
    inputs = cohort(["a1"])
    spots, table = inputs["a1"]
    runs = runs_of(["labelled"], [1])
    tables = [one.assign(probability=0.9) for one in score_tables(inputs, runs)]
    gate = Gate(1.0, 0.0, (0.5, 5.0), (-4.0, -0.5), (24, 15), 0.2, 5)
    called = {}
    for peak in (2.0, -2.0):
        evidence = [{"a1": Facts(peak, gate).as_dict()}]
        found = sections.scored(sections.section(spots, [], WORDS, table), runs, tables, evidence, spots)
        called[peak] = found["calls"]["labelled"]
        assert found["scores"]["labelled"].tolist() == tables[0]["score"].tolist()
    assert (called[2.0] == (found["scores"]["labelled"] >= found["thresholds"]["labelled"].threshold)).all()
    assert called[2.0].any()
    assert not called[-2.0].any()


def test_calls_against_scikit_learn(study):
    inputs, setting, _, _ = study
    table = calls.draw(setting)["tables"][""]
    for one in setting["sections"]:
        truth = inputs[one["section"]][1]["label"]
        for variant in setting["variants"]:
            called = one["calls"][variant]
            row = table[(table["variant"] == variant) & (table["section"] == one["section"])].iloc[0]
            assert row["precision"] == pytest.approx(precision_score(truth, called), abs=1e-9)
            assert row["recall"] == pytest.approx(recall_score(truth, called), abs=1e-9)
            assert row["f1"] == pytest.approx(f1_score(truth, called), abs=1e-9)
            assert (row["called"], row["labelled"]) == (called.sum(), 32)


# --- the pictures -----------------------------------------------------------------------------------------------------


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)).convert("RGB")).astype(int)


def share_of(pixels, colour: str) -> float:
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return float((np.abs(pixels - wanted).max(axis=2) < 24).mean())


def test_a_map_shows_each_spot_in_its_place():
    centres = np.array([(10.0, 10.0), (30.0, 10.0), (10.0, 30.0)])
    shown = maps.raster(centres, 20.0, (0, 40, 0, 40), 40)
    assert shown.shape == (40, 40)
    # pixel (row, column) has its middle at (column + 0.5, row + 0.5)
    for row in range(40):
        for column in range(40):
            far = np.hypot(*(centres - (column + 0.5, row + 0.5)).T)
            assert shown[row, column] == (far.argmin() if far.min() < 10 else -1)


def test_maps_show_label_scores_and_auc(study):
    _, setting, runs, tables = study
    entry = maps.draw(setting)
    assert len(entry["pictures"]) == 1
    pixels = opened(entry["pictures"][0])
    assert share_of(pixels, plots.CANCER) > 0.02
    assert share_of(pixels, plots.OTHER) > 0.02
    table = entry["tables"][""].set_index(["section", "variant"])
    scores = mean_scores(tables, runs, "marker", "a2")
    assert table.loc[("a2", "marker"), "low"] == pytest.approx(np.percentile(scores, 1), abs=1e-9)
    own = setting["metrics"].query("metric == 'auc' and section == 'a2' and variant == 'marker'")["value"]
    assert table.loc[("a2", "marker"), "auc"] == pytest.approx(own.mean(), abs=1e-9)


def test_layers_and_distances_by_hand(study):
    """The best method, its first page of genes; spots are 100 µm apart, and what is called is worked out again."""
    _, setting, _, _ = study
    found = setting["around"]
    assert found["variant"] == settings.best(setting, 1)[0]
    assert found["genes"].to_dict() == {"ERBB2": "core", "OTHER": "stroma"}
    assert found["markers"] == ["CCND1", "ACTB", "EPCAM"]
    table = layers.draw(setting)["tables"][""]
    assert list(table["layer"][:4]) == list(LAYERS)
    values, called = [], []
    for one, own in zip(setting["sections"], found["sections"], strict=True):
        call = one["calls"][found["variant"]].to_numpy() == 1
        assert ((own["rim_um"] < 0) == call).all()
        assert (np.isin(own["layer"], LAYERS[:2]) == call).all()
        values.append(one["leading"]["OTHER"].to_numpy() - one["leading"]["OTHER"].mean())
        called.append(own["layer"])
    values, called = np.concatenate(values), np.concatenate(called)
    means = [values[called == name].mean() for name in LAYERS]
    own = table[table["gene"] == "OTHER"]
    assert own["mean"].tolist() == pytest.approx(means)
    assert own["z"].tolist() == pytest.approx((means - np.mean(means)) / np.std(means))
    assert own["spots"].sum() == 3 * 64
    steps = distance.draw(setting)["tables"][""]
    assert list(dict.fromkeys(steps["gene"])) == ["ERBB2", "OTHER", "CCND1", "ACTB", "EPCAM"]
    of = steps[steps["gene"] == "OTHER"].set_index("low_um").loc[0]
    rim_um = np.concatenate([one["rim_um"] for one in found["sections"]])
    near = (rim_um >= 0) & (rim_um < of["high_um"])
    assert of["spots"] == near.sum()
    assert of["mean"] == pytest.approx(values[near].mean())
    half = stats.t.ppf(0.975, near.sum() - 1) * stats.sem(values[near])
    assert of["high"] - of["mean"] == pytest.approx(half)


def test_a_layer_of_few_spots_has_no_colour(study):
    _, setting, _, _ = study
    of = [
        one | {"layer": np.where(one["layer"] == "core", "stroma", one["layer"])}
        for one in setting["around"]["sections"]
    ]
    of[0]["layer"][:9] = "core"
    table = layers.draw(setting | {"around": setting["around"] | {"sections": of}})["tables"][""]
    core = table[table["layer"] == "core"]
    assert core["spots"].tolist() == [9, 9]
    assert core[["mean", "z"]].isna().all(axis=None)
    assert table[table["layer"] != "core"]["z"].notna().all()


def test_without_a_rim_there_are_no_layers(study):
    _, setting, _, _ = study
    table = layer_genes(setting["variants"], GENES)
    bare = setting | {"sections": [one | {"calls": one["calls"] * 0} for one in setting["sections"]]}
    reasons = [around.around(bare, table)["reason"], around.around(setting, table[:0])["reason"]]
    assert reasons[0].startswith("No section has a rim between tumour and other tissue")
    assert reasons[1].startswith("No gene is higher in a layer")
    assert around.around(setting | {"variants": []}, table)["reason"] == around.NO_SCORES
    for reason in reasons:
        for draw in (layers.draw, distance.draw):
            assert draw(setting | {"around": {"reason": reason}})["reason"] == reason


def test_many_sections_and_methods_go_on_several_pages(monkeypatch):
    monkeypatch.setattr(maps, "SECTIONS", 2)
    monkeypatch.setattr(maps, "METHODS", 1)
    inputs = cohort(["s1", "s2", "s3"], labelled=False)
    setting, _, _ = make(inputs, ["m1", "m2"], seeds=(1,), thumbnail=False)
    pictures = maps.draw(setting)["pictures"]
    assert len(pictures) == 4  # 2 + 1 sections, 1 + 1 methods
    assert all(share_of(opened(one), "#ffffff") < 0.95 for one in pictures)


def test_a_study_and_its_list(study, tmp_path):
    _, setting, _, _ = study
    figures.draw_study([setting], tmp_path)
    listed = figures.index(tmp_path)
    assert [line["kind"] for line in listed] == [
        "maps", "ks", "distributions", "histograms", "histograms_sections", "severity", "edge", "edge_sections",
        "discordant", "calls", "layers", "distance",
    ]  # fmt: skip
    files = {path.name for path in (tmp_path).iterdir()}
    assert files == {"figures.json"} | {line["file"] for line in listed} | {
        n for line in listed for n in line["tables"]
    }
    for line in listed:
        assert line["name"] == line["kind"]
        assert line["caption"].endswith(".")
        assert line["reason"] == ""
        pixels = opened((tmp_path / line["file"]).read_bytes())
        assert (pixels[[0, -1]] == 255).all()  # nothing runs over the upper or lower border
        assert (pixels[:, [0, -1]] == 255).all()
        assert 0.02 < (pixels < 250).any(axis=2).mean() < 0.9
        for name in line["tables"]:
            assert len(storage.read_tsv(tmp_path / name))


def test_colours_keep_their_meaning(study):
    # a palette of few colours must not turn the legend grey
    _, setting, _, _ = study
    bare = [one | {"label": None} for one in setting["sections"]]
    pixels = opened(maps.draw(setting | {"sections": bare})["pictures"][0])
    for colour in (plots.CANCER, plots.OTHER):
        wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
        assert np.abs(pixels - wanted).max(axis=2).min() < 12


def test_figures_are_drawn_alike_again(study):
    _, setting, _, _ = study
    for draw in (maps.draw, distributions.draw):
        one, other = draw(setting), draw(setting)
        assert one["pictures"] == other["pictures"]
        pd.testing.assert_frame_equal(one["tables"][""], other["tables"][""])


def test_a_study_without_labels_has_maps_and_reasons(tmp_path):
    setting, _, _ = make(cohort(labelled=False))
    figures.draw_study([setting], tmp_path)
    listed = figures.index(tmp_path)
    assert {line["kind"] for line in listed if line["file"]} == {"maps", "layers", "distance"}
    for line in listed[1:-2]:
        assert line["reason"].startswith("No ")
        assert line["reason"].endswith(".")
        assert line["tables"] == []
    assert {path.name for path in tmp_path.iterdir()} == {"figures.json"} | {
        f"{name}.{kind}" for name in ("maps", "layers", "distance") for kind in ("png", "tsv")
    }


def test_a_control_alone_is_drawn_like_a_method(tmp_path):
    setting, _, _ = make(cohort(["a1"]), ["random"], seeds=(1,))
    figures.draw_study([setting], tmp_path)
    listed = figures.index(tmp_path)
    assert {line["kind"] for line in listed if line["file"]} >= {"maps", "ks", "calls"}
    assert [line["kind"] for line in listed if not (line["file"] or line["reason"])] == []
    assert storage.read_tsv(tmp_path / "calls.tsv")["variant"].tolist() == ["random"]


def test_one_method_one_section_one_seed(tmp_path):
    setting, _, _ = make(cohort(["a1"]), ["labelled"], seeds=(1,))
    figures.draw_study([setting], tmp_path)
    assert all(line["file"] for line in figures.index(tmp_path))
    assert len(storage.read_tsv(tmp_path / "calls.tsv")) == 1
    # a single section is not listed twice
    assert storage.read_tsv(tmp_path / "discordant.tsv")["section"].unique().tolist() == ["a1"]


def test_healthy_tissue_alone_and_words_that_say_nothing(tmp_path):
    inputs = cohort(["a1"])
    spots, table = inputs["a1"]
    inputs["a1"] = spots, table.assign(label=0.0, region="undetermined")
    setting, _, _ = make(inputs, ["labelled"])
    figures.draw_study([setting], tmp_path)
    drawn = {line["kind"] for line in figures.index(tmp_path) if line["file"]}
    assert drawn == {"maps", "histograms", "layers", "distance"}


def test_equal_scores_and_nothing_called(tmp_path):
    inputs = cohort(["a1"])
    setting, _, _ = make(inputs, ["labelled"])
    one = setting["sections"][0]
    one["scores"][:] = 0.5
    one["calls"][:] = 0
    figures.draw_study([setting], tmp_path)
    reasons = {line["kind"]: line["reason"] for line in figures.index(tmp_path) if not line["file"]}
    assert list(reasons) == ["discordant"]
    row = storage.read_tsv(tmp_path / "calls.tsv").iloc[0]
    assert np.isnan(row["precision"])
    assert (row["recall"], row["f1"]) == (0, 0)


def test_long_names_stay_on_the_page(tmp_path):
    inputs = cohort(["a_section_whose_name_is_longer_than_anything_it_could_be_printed_beside", "b1"])
    setting, _, _ = make(inputs, [LONG, "marker"], seeds=(1,))
    figures.draw_study([setting], tmp_path)
    for line in figures.index(tmp_path):
        pixels = opened((tmp_path / line["file"]).read_bytes())
        assert (pixels[[0, -1]] == 255).all(), line["name"]
        assert (pixels[:, [0, -1]] == 255).all(), line["name"]


def test_several_tasks_have_names_of_their_own(study, tmp_path, monkeypatch):
    _, setting, _, _ = study
    monkeypatch.setattr("ctrflow.figures.study.KINDS", {"ks": ks.draw, "calls": calls.draw})
    figures.draw_study([setting, setting | {"task": "u"}], tmp_path)
    names = [line["name"] for line in figures.index(tmp_path)]
    assert len(names) == len(set(names)) == 4
    assert names[0] == "t.e.ks"
    assert names[-1] == "u.e.calls"
    assert json.loads((tmp_path / "figures.json").read_text())[-1]["task"] == "u"
