"""Metrics and threshold, on numbers worked by hand and on the authors' published scores."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctrflow.results import metrics, threshold

VIHBC = Path(__file__).parents[4] / "shared" / "data" / "vihbc"


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
    # the two best scores are 2/3 of the positives and none of the negatives
    assert found["ks"] == pytest.approx(2 / 3)


def test_constant_scores_call_everything():
    truth = np.array([True, False, False, False])
    assert metrics.f1_true_ratio(truth, np.full(4, 0.3)) == pytest.approx(2 * 0.25 / 1.25)


@pytest.mark.parametrize(("truth", "word"), [([1, 1], "all"), ([0, 0], "no spots"), ([np.nan, np.nan], "no labelled")])
def test_a_value_that_cannot_be_computed_has_a_reason(truth, word):
    found = metrics.evaluate(truth, [0.1, 0.2], [0, 1])
    assert math.isnan(found["auc"][0])
    assert word in found["auc"][1]


def test_calibrated_scores_have_no_error():
    # of ten spots scored 0.2 two are cancer, of ten scored 0.8 eight
    scores = np.repeat([0.2, 0.8], 10)
    truth = np.r_[np.ones(2), np.zeros(8), np.ones(8), np.zeros(2)].astype(bool)
    mean_score, share, spots = metrics.reliability(truth, scores)
    assert spots.tolist() == [0, 10, 0, 0, 0, 0, 0, 10, 0, 0]
    assert mean_score[[1, 7]] == pytest.approx([0.2, 0.8])
    assert share[[1, 7]] == pytest.approx([0.2, 0.8])
    empty = spots == 0
    assert np.isnan(mean_score[empty]).all()
    assert np.isnan(share[empty]).all()
    assert metrics.ece(truth, scores) == pytest.approx(0, abs=1e-12)
    # 2 x 0.8^2 + 8 x 0.2^2 in either half, over 20
    assert metrics.brier(truth, scores) == pytest.approx(2 * 1.6 / 20)


def test_overconfident_scores():
    # 0.95 where 2 of 4 are cancer, 0.25 where 0 of 1 is: (4 x 0.45 + 1 x 0.25) / 5
    truth, scores = [1, 1, 0, 0, 0], [0.95, 0.95, 0.95, 0.95, 0.25]
    found = metrics.evaluate(truth, scores)
    assert found["ece"] == (pytest.approx(0.41), "")
    assert found["brier"] == (pytest.approx((2 * 0.05**2 + 2 * 0.95**2 + 0.25**2) / 5), "")


def test_mean_score_and_share_are_over_the_spots_of_a_bin():
    # one bin: scores 0.61, 0.63, 0.68 have the mean 0.64, one of three is cancer
    mean_score, share, spots = metrics.reliability(np.array([True, False, False]), [0.61, 0.68, 0.63])
    assert (mean_score[6], share[6], spots[6]) == (pytest.approx(0.64), pytest.approx(1 / 3), 3)
    assert metrics.ece(np.array([True, False, False]), [0.61, 0.68, 0.63]) == pytest.approx(0.64 - 1 / 3)


def test_zero_and_one_have_a_bin():
    mean_score, share, spots = metrics.reliability(np.array([False, True]), [0.0, 1.0])
    assert spots.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert (mean_score[0], share[0], mean_score[9], share[9]) == (0, 0, 1, 1)
    assert metrics.ece(np.array([False, True]), [0.0, 1.0]) == 0
    assert metrics.ece(np.array([True, False]), [0.0, 1.0]) == 1


def test_an_edge_belongs_to_the_bin_below():
    borders = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    truth = np.zeros(9, dtype=bool)
    assert metrics.reliability(truth, borders)[2].tolist() == [1] * 9 + [0]
    assert metrics.reliability(truth, np.nextafter(borders, 1))[2].tolist() == [0] + [1] * 9


def test_calibration_error_against_loops():
    rng = np.random.default_rng(4)
    scores = rng.random(500) ** 3
    truth = rng.random(500) < 0.3
    expected = 0.0
    for low in range(10):
        members = [i for i in range(500) if low / 10 < scores[i] <= (low + 1) / 10]
        if members:
            promised = sum(scores[i] for i in members) / len(members)
            there = sum(int(truth[i]) for i in members) / len(members)
            expected += len(members) / 500 * abs(promised - there)
    assert metrics.ece(truth, scores) == pytest.approx(expected)
    assert expected > 0.05


def test_scores_that_are_no_probabilities_have_no_calibration_error():
    truth = [1, 0, np.nan]
    for found in (
        metrics.evaluate(truth, [3.2, 2.9, 3.0]),
        metrics.evaluate(truth, [0.4, -0.1, 0.3]),
        metrics.evaluate(truth, [0.4, 0.1, 0.3], probability=False),
    ):
        assert found["auc"] == (1.0, "")
        for metric in ("ece", "brier"):
            assert math.isnan(found[metric][0])
            assert found[metric][1] == "not a probability"


def test_unknown_spots_do_not_count_in_the_calibration_error():
    found = metrics.evaluate([1, 0, np.nan, np.nan], [0.75, 0.35, 0.0, 1.0])
    assert found["ece"][0] == pytest.approx((0.25 + 0.35) / 2)
    assert found["brier"][0] == pytest.approx((0.25**2 + 0.35**2) / 2)


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
        "reference": "",
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


def run_of(method, regime="labelled_source", seed=1, fold="f", encoder="none") -> dict:
    names = {"method": method, "variant": method, "regime": regime, "reference": ""}
    return {"task": "t", "fold": fold, "encoder": encoder, "seed": seed} | names


def scored(section, *scores) -> pd.DataFrame:
    spots = [str(number) for number in range(len(scores))]
    return pd.DataFrame({"section": section, "spot": spots, "score": scores, "call": 0})


def labelled(*labels) -> pd.DataFrame:
    return pd.DataFrame({"spot": [str(number) for number in range(len(labels))], "label": labels, "region": ""})


def test_only_methods_that_learn_from_labels_and_controls_claim_probabilities():
    regimes = {"linear": "labelled_source", "meatrd": "normal_reference", "istar": "marker_prior", "random": "control"}
    runs = [run_of(method, regime) for method, regime in regimes.items()]
    table = metrics.study_table("s", runs, [scored("a", 0.25, 0.75)] * 4, {"a": labelled(0, 1)}, {"a": "p"}).set_index(
        ["method", "metric"]
    )
    assert table["value"].unstack()["auc"].eq(1).all()
    assert table.loc[("linear", "ece"), "value"] == table.loc[("random", "ece"), "value"] == pytest.approx(0.25)
    assert table.loc[("meatrd", "ece"), "note"] == table.loc[("istar", "brier"), "note"] == "not a probability"


def test_reliability_pools_sections_folds_and_seeds():
    runs = [run_of("m", seed=1, fold="a"), run_of("m", seed=2, fold="a"), run_of("m", seed=1, fold="b")]
    calls = [scored("a", 0.85, 0.15, 0.5), scored("a", 0.82, 0.4, 0.5), scored("b", 0.89, 0.11)]
    labels = {"a": labelled(1, 0, np.nan), "b": labelled(0, 0)}
    table = metrics.reliability_table(runs, calls, labels)
    assert table["bin"].tolist() == list(range(1, 11))
    assert set(table["variant"]) == {"m"}
    table = table.set_index("bin")
    assert table["spots"].to_dict() == {1: 0, 2: 2, 3: 0, 4: 1, 5: 0, 6: 0, 7: 0, 8: 0, 9: 3, 10: 0}
    # 0.8 to 0.9: two seeds on a cancer spot of a, one on another spot of b
    assert table.loc[9, "share"] == pytest.approx(2 / 3)
    assert table.loc[9, "mean_score"] == pytest.approx((0.85 + 0.82 + 0.89) / 3)
    assert table.loc[2, "mean_score"] == pytest.approx((0.15 + 0.11) / 2)
    assert table.loc[2, "share"] == 0
    assert np.isnan(table.loc[1, "share"])


def test_reliability_is_of_probabilities_by_task_and_encoder():
    runs = [
        run_of("m"), run_of("m", encoder="uni"), run_of("scaled"), run_of("anomaly", "normal_reference"),
        run_of("random", "control"), run_of("oracle", "control"), run_of("total_counts", "control"),
    ]  # fmt: skip
    calls = [scored("a", 0.2, 0.7) for _ in runs]
    calls[2] = scored("a", 0.2, 1.7)
    table = metrics.reliability_table(runs, calls, {"a": labelled(0, 1)})
    found = table[["task", "encoder", "variant"]].drop_duplicates().to_numpy().tolist()
    assert found == [["t", "none", "m"], ["t", "uni", "m"], ["t", "none", "random"]]


@pytest.mark.parametrize("labels", [{}, {"a": labelled(np.nan, np.nan)}])
def test_without_labels_there_is_no_reliability(labels):
    table = metrics.reliability_table([run_of("m")], [scored("a", 0.2, 0.7)], labels)
    assert table.empty
    assert list(table) == ["task", "encoder", "variant", "bin", "mean_score", "share", "spots"]
