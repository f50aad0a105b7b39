"""Metrics and threshold, on numbers worked by hand and on the authors' published scores."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctrflow.results import calls, metrics, threshold
from ctrflow.results.verdict import FOUND, NONE, OPEN, Facts
from spot_arrays import section, square

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


MADE = ["balanced_accuracy", "false_call_share", "glands_called", "verdict_right"]


def test_calls_of_a_map_by_hand():
    truth = [1, 1, 1, 0, 0, 0, 0, 0, np.nan, np.nan]
    called = [1, 1, 0, 1, 1, 0, 1, 0, 1, 1]
    words = ["Gland, cancer", "x", "x", "normal glands", "Breast glands", "a gland_", "fat", "glandular", "glands", None]
    found = metrics.evaluate(truth, np.linspace(1, 0, 10), calls=called, words=words, said=FOUND)
    # two of three cancer spots are called, two of five others are not
    assert found["balanced_accuracy"] == (pytest.approx((2 / 3 + 2 / 5) / 2), "")
    # of normal spots with the word gland, not as a part of another: both called
    assert found["glands_called"] == (1.0, "")
    assert found["verdict_right"] == (1.0, "")
    assert math.isnan(found["false_call_share"][0])
    assert found["false_call_share"][1] == "has cancer"
    # the calls of the threshold alone are others
    assert found["f1_gmm"][1] == "no calls"
    both = metrics.evaluate(truth, np.linspace(1, 0, 10), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0], calls=called)
    assert (both["f1_gmm"][0], both["balanced_accuracy"][0]) == (1.0, found["balanced_accuracy"][0])
    assert both["glands_called"][1] == "no spot labelled as normal glands"
    assert both["verdict_right"][1] == "no verdict"


def test_a_section_without_cancer_has_what_is_called_there_and_a_verdict():
    words = ["glands", "GLAND", "fat", "fat", "glands"]
    found = metrics.evaluate([0, 0, 0, 0, np.nan], [0.1] * 5, calls=[1, 0, 0, 0, 1], words=words, said=NONE)
    assert {name: found[name] for name in MADE[1:]} == {
        "false_call_share": (0.25, ""),  # one of four: the fifth is unknown
        "glands_called": (0.5, ""),
        "verdict_right": (1.0, ""),
    }
    for metric in metrics.METRICS:
        if metric.name not in MADE[1:]:
            assert math.isnan(found[metric.name][0])
            one_class = metric.needs != "mixture"
            assert found[metric.name][1] == ("one class only (no spots cancer)" if one_class else "no calls")


@pytest.mark.parametrize(
    ("truth", "said", "right"),
    [([1, 1], FOUND, 1), ([1, 0], NONE, 0), ([0, 0], FOUND, 0), ([0, 0], NONE, 1), ([1, 0], OPEN, 0), ([0, 0], OPEN, 0)],
)
def test_a_verdict_is_right_or_not(truth, said, right):
    assert metrics.evaluate(truth, [0.1, 0.2], said=said)["verdict_right"] == (right, "")


def test_without_calls_or_labels_the_metrics_of_calls_have_a_reason():
    found = metrics.evaluate([0, 0], [0.1, 0.2], words=["glands", "glands"])
    assert [found[name][1] for name in MADE] == ["no calls"] * 3 + ["no verdict"]
    found = metrics.evaluate([np.nan], [0.1], calls=[1], words=["glands"], said=FOUND, likely=[0.5])
    assert [found[name][1] for name in MADE] == ["no labelled spot"] * 4


def test_the_probability_is_measured_where_there_is_one():
    truth, likely = [1, 0, np.nan], [0.75, 0.35, 0.0]
    for scores, probability in (([3.2, 2.9, 3.0], False), ([0.9, 0.1, 0.5], True)):
        found = metrics.evaluate(truth, scores, probability=probability, likely=likely)
        assert found["ece"] == (pytest.approx((0.25 + 0.35) / 2), "")
        assert found["brier"] == (pytest.approx((0.25**2 + 0.35**2) / 2), "")
        assert found["auc"] == (1.0, "")


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
    called = pd.DataFrame(
        {"section": ["a", "a", "b"], "spot": ["1", "2", "1"], "score": [0.1, 0.9, 0.5], "probability": np.nan}
        | {"call": [1, 1, 0], "call_mixture": [0, 1, 0]}
    )
    labels = {"a": pd.DataFrame({"spot": ["2", "1"], "label": [1, 0], "region": ["x", "glands"]})}
    said = [{"a": {"verdict": FOUND}, "b": {"verdict": FOUND}}]
    table = metrics.study_table("s", [run], [called], labels, {"a": "p", "b": "q"}, said)
    table = table.set_index(["section", "metric"])
    assert table.loc[("a", "auc"), "value"] == 1.0
    assert table.loc[("a", "f1_gmm"), "value"] == 1.0
    assert table.loc[("a", "balanced_accuracy"), "value"] == 0.5
    # words, too, are those of the spot
    assert table.loc[("a", "glands_called"), "value"] == 1.0
    assert table.loc[("a", "verdict_right"), "value"] == 1.0
    assert table.loc[("b", "verdict_right"), "note"] == "not labelled"
    assert table.loc[("b", "auc"), "note"] == "not labelled"
    assert table.loc[("b", "n_spots"), "value"] == 1


def test_each_section_has_its_own_threshold():
    rng = np.random.default_rng(0)
    low = np.concatenate([rng.normal(0.1, 0.02, 50), rng.normal(0.3, 0.02, 50)])
    spots = {name: section(square(10, 10), name) for name in "ab"}
    names = [*spots["a"].obs_names, *spots["b"].obs_names]
    scores = pd.DataFrame({"section": ["a"] * 100 + ["b"] * 100, "spot": names, "score": np.concatenate([low, low + 1])})
    scores = scores.assign(probability=np.nan).sample(frac=1, random_state=0)
    table, fits, _ = calls.call_sections(scores, dict.fromkeys(spots, Facts()), spots)
    assert fits["b"].threshold == pytest.approx(fits["a"].threshold + 1, abs=1e-3)
    for column in ("call", "call_mixture"):
        assert table.groupby("section")[column].sum().to_dict() == {"a": 50, "b": 50}


def run_of(method, regime="labelled_source", seed=1, fold="f", encoder="none") -> dict:
    names = {"method": method, "variant": method, "regime": regime, "reference": ""}
    return {"task": "t", "fold": fold, "encoder": encoder, "seed": seed} | names


def scored(section, *scores, probability=np.nan) -> pd.DataFrame:
    spots = [str(number) for number in range(len(scores))]
    table = pd.DataFrame({"section": section, "spot": spots, "score": scores, "probability": probability})
    return table.assign(call=0, call_mixture=0)


def labelled(*labels) -> pd.DataFrame:
    return pd.DataFrame({"spot": [str(number) for number in range(len(labels))], "label": labels, "region": ""})


def test_only_methods_that_learn_from_labels_and_controls_claim_probabilities():
    regimes = {"linear": "labelled_source", "meatrd": "normal_reference", "istar": "marker_prior", "random": "control"}
    runs = [run_of(method, regime) for method, regime in regimes.items()]
    said, tables = [{"a": {"verdict": ""}}] * 4, [scored("a", 0.25, 0.75)] * 4
    table = metrics.study_table("s", runs, tables, {"a": labelled(0, 1)}, {"a": "p"}, said)
    table = table.set_index(["method", "metric"])
    assert table["value"].unstack()["auc"].eq(1).all()
    assert table.loc[("linear", "ece"), "value"] == table.loc[("random", "ece"), "value"] == pytest.approx(0.25)
    assert table.loc[("meatrd", "ece"), "note"] == table.loc[("istar", "brier"), "note"] == "not a probability"


def test_a_probability_takes_the_place_of_scores():
    table = scored("a", -3.0, 5.0, probability=[0.1, 0.6])
    found = metrics.study_table("s", [run_of("m")], [table], {"a": labelled(0, 1)}, {"a": "p"}, [{"a": {"verdict": ""}}])
    assert found.set_index("metric").loc["ece", "value"] == pytest.approx((0.1 + 0.4) / 2)
    curve = metrics.reliability_table([run_of("m")], [table], {"a": labelled(0, 1)}).set_index("bin")
    assert curve.loc[[1, 6], "mean_score"].tolist() == pytest.approx([0.1, 0.6])
    assert curve.loc[[1, 6], "share"].tolist() == [0, 1]
    assert curve["spots"].sum() == 2


def test_reliability_pools_sections_folds_and_seeds():
    runs = [run_of("m", seed=1, fold="a"), run_of("m", seed=2, fold="a"), run_of("m", seed=1, fold="b")]
    tables = [scored("a", 0.85, 0.15, 0.5), scored("a", 0.82, 0.4, 0.5), scored("b", 0.89, 0.11)]
    labels = {"a": labelled(1, 0, np.nan), "b": labelled(0, 0)}
    table = metrics.reliability_table(runs, tables, labels)
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
    tables = [scored("a", 0.2, 0.7) for _ in runs]
    tables[2] = scored("a", 0.2, 1.7)
    table = metrics.reliability_table(runs, tables, {"a": labelled(0, 1)})
    found = table[["task", "encoder", "variant"]].drop_duplicates().to_numpy().tolist()
    assert found == [["t", "none", "m"], ["t", "uni", "m"], ["t", "none", "random"]]


@pytest.mark.parametrize("labels", [{}, {"a": labelled(np.nan, np.nan)}])
def test_without_labels_there_is_no_reliability(labels):
    table = metrics.reliability_table([run_of("m")], [scored("a", 0.2, 0.7)], labels)
    assert table.empty
    assert list(table) == ["task", "encoder", "variant", "bin", "mean_score", "share", "spots"]


@pytest.mark.parametrize("kind", ["mixture", "map_em", "zero"])
def test_equal_scores_call_nothing_whatever_the_threshold(kind):
    """A model that says nothing has a contrast of 0 everywhere, which reaches a threshold of 0."""
    fitted = threshold.fit(np.zeros(6), kind)
    assert (fitted.branch, fitted.call(np.zeros(6)).sum()) == ("constant", 0)


def test_scores_with_their_threshold_at_zero_are_called_from_there():
    fitted = threshold.fit([-1.0, -0.1, 0.0, 2.0], "zero")
    assert (fitted.threshold, fitted.branch, fitted.call([-1.0, -0.1, 0.0, 2.0]).tolist()) == (0.0, "zero", [0, 0, 1, 1])
