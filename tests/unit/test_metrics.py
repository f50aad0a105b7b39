"""Metrics and threshold, on numbers worked by hand and on the authors' published scores."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctrflow import metrics, threshold

VIHBC = Path(__file__).parents[3] / "shared" / "data" / "vihbc"


@pytest.fixture(scope="module")
def vihbc():
    if not VIHBC.is_dir():
        pytest.skip("the published ViHBC scores are not here (../shared/data/vihbc)")
    return np.loadtxt(VIHBC / "labels.txt"), np.loadtxt(VIHBC / "published_scores.txt")


def test_published_scores_give_the_published_metrics(vihbc):
    truth, scores = vihbc
    fitted = threshold.fit(scores)
    found = {name: value for name, (value, _) in metrics.evaluate(truth, scores, fitted.call(scores)).items()}
    assert found["auc"] == pytest.approx(0.9021, abs=5e-5)
    assert found["ap"] == pytest.approx(0.9288, abs=5e-5)
    assert found["f1_true_ratio"] == pytest.approx(0.8607, abs=5e-5)
    assert found["ks"] == pytest.approx(0.6384, abs=5e-5)
    assert found["prevalence"] == pytest.approx(2351 / 3798)
    assert fitted.threshold == pytest.approx(0.8675, abs=5e-5)
    assert fitted.branch == "crossing"
    assert found["f1_gmm"] == pytest.approx(0.8727, abs=5e-5)


def test_small_section_by_hand():
    # sorted by score: 1 1 0 1 0 0; 9 pairs, the 0 at 0.7 beats one 1: AUC 8/9
    truth = [1, 1, 0, 1, 0, 0, np.nan]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.0]
    found = {name: value for name, (value, _) in metrics.evaluate(truth, scores, [1, 1, 1, 1, 0, 0, 1]).items()}
    assert found["n_spots"] == 6
    assert found["prevalence"] == 0.5
    assert found["auc"] == pytest.approx(8 / 9)
    assert found["ap"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    # the median is 0.65: three called, two of them right
    assert found["f1_true_ratio"] == pytest.approx(2 / 3)
    assert found["f1_gmm"] == pytest.approx(2 * 3 / (3 + 4))
    # after the two best scores 2/3 of the positives and none of the negatives are passed
    assert found["ks"] == pytest.approx(2 / 3)


def test_constant_scores_call_everything():
    truth = np.array([True, False, False, False])
    assert metrics.f1_true_ratio(truth, np.full(4, 0.3)) == pytest.approx(2 * 0.25 / 1.25)


@pytest.mark.parametrize(("truth", "word"), [([1, 1], "all"), ([0, 0], "no spots"), ([np.nan, np.nan], "no labelled")])
def test_what_cannot_be_computed_says_why(truth, word):
    found = metrics.evaluate(truth, [0.1, 0.2], [0, 1])
    assert math.isnan(found["auc"][0])
    assert word in found["auc"][1]


@pytest.mark.parametrize(
    "mixture",
    [
        ((0.2, 0.8), (0.01, 0.04), (0.5, 0.5)),
        ((0.70, 0.95), (0.032, 0.001), (0.29, 0.71)),
        ((0, 5), (1, 1), (0.9, 0.1)),
    ],
)
def test_densities_are_equal_at_the_crossing(mixture):
    means, variances, weights = mixture
    x, branch = threshold.crossing(means, variances, weights)
    assert branch != "midpoint"
    assert means[0] < x < means[1]
    density = [
        w * math.exp(-((x - m) ** 2) / 2 / v) / math.sqrt(v) for m, v, w in zip(means, variances, weights, strict=True)
    ]
    assert density[0] == pytest.approx(density[1], rel=1e-9)


def test_equal_variances_cross_where_algebra_says():
    # (x - m1)^2 - (x - m2)^2 = 2 v ln(w1 / w2): with m = 0, 1, v = 1/4 the crossing is 1/2 + v ln(w1/w2)
    x, branch = threshold.crossing((0.0, 1.0), (0.25, 0.25), (0.6, 0.4))
    assert branch == "linear"
    assert x == pytest.approx(0.5 + 0.25 * math.log(1.5))


def test_no_crossing_between_the_means_falls_back_to_the_midpoint():
    assert threshold.crossing((0.0, 0.1), (1.0, 1.0), (0.99, 0.01)) == (pytest.approx(0.05), "midpoint")


def test_constant_scores_have_no_threshold():
    fitted = threshold.fit(np.full(10, 0.4))
    assert (fitted.threshold, fitted.branch) == (None, "constant")
    assert fitted.call(np.full(10, 0.4)).sum() == 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_threshold_follows_the_scale_of_the_scores(scale):
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(0.2, 0.05, 300), rng.normal(0.8, 0.1, 200)])
    assert threshold.fit(scores * scale).threshold == pytest.approx(threshold.fit(scores).threshold * scale, rel=1e-2)


def test_study_table_lists_unlabelled_sections_too():
    run = {
        "task": "t",
        "fold": "f",
        "encoder": "none",
        "method": "random",
        "variant": "random",
        "regime": "control",
        "seed": 1,
    }
    calls = pd.DataFrame(
        {"section": ["a", "a", "b"], "spot": ["1", "2", "1"], "score": [0.1, 0.9, 0.5], "call": [0, 1, 0]}
    )
    labels = {"a": pd.DataFrame({"spot": ["2", "1"], "label": [1, 0], "region": ["x", "y"]})}
    table = metrics.study_table("s", [run], [calls], labels, {"a": "p", "b": "q"}).set_index(["section", "metric"])
    assert table.loc[("a", "auc"), "value"] == 1.0
    assert table.loc[("b", "auc"), "note"] == "not labelled"
    assert table.loc[("b", "n_spots"), "value"] == 1


def test_each_section_has_its_own_threshold():
    rng = np.random.default_rng(0)
    low = np.concatenate([rng.normal(0.1, 0.02, 50), rng.normal(0.3, 0.02, 50)])
    scores = pd.DataFrame({"section": ["a"] * 100 + ["b"] * 100, "spot": "x", "score": np.concatenate([low, low + 1])})
    table, fits = threshold.call_sections(scores.sample(frac=1, random_state=0))
    assert fits["b"].threshold == pytest.approx(fits["a"].threshold + 1, abs=1e-3)
    assert table.groupby("section")["call"].sum().to_dict() == {"a": 50, "b": 50}
