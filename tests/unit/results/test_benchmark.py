"""The benchmark's tables: worked by hand, and again from the raw scores by scikit-learn, scipy and plain loops."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, wilcoxon
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ctrflow import storage
from ctrflow.results import benchmark, metrics, weighted

NAMES = ["task", "fold", "encoder", "variant", "method", "regime", "reference", "seed"]
KINDS = {
    "deep": ("labelled_source", ""),
    "linear": ("labelled_source", ""),
    "wide": ("labelled_source", ""),
    "memory": ("normal_reference", "source_negatives"),
    "markers": ("marker_prior", ""),
    "random": ("control", ""),
}


def rows(variant, seed=1, metric="auc", task="loo", encoder="uni", note="", **values) -> list[tuple]:
    """One row per section; sections are named patient_number."""
    kind = KINDS.get(variant, ("labelled_source", ""))
    return [
        (
            "demo", task, section, encoder, section, section.split("_")[0], variant, variant, *kind, seed, metric,
            value, note,
        )
        for section, value in values.items()
    ]  # fmt: skip


def frame(*parts) -> pd.DataFrame:
    columns = ["study", "task", "fold", "encoder", "section", "patient", "method", "variant", "regime", "reference"]
    return pd.DataFrame([row for part in parts for row in part], columns=[*columns, "seed", "metric", "value", "note"])


def labelled(*parts) -> pd.DataFrame:
    """A frame whose sections all have a prevalence, as labelled ones do."""
    table = frame(*parts)
    shares = table.drop_duplicates(["task", "encoder", "variant", "section", "seed"])
    return pd.concat([table, shares.assign(metric="prevalence", value=0.5, note="")], ignore_index=True)


@pytest.fixture
def no_draws(monkeypatch):
    """Tables of made-up metrics, without scores behind them."""
    monkeypatch.setattr(benchmark, "BOOTSTRAPPED", ())


def tables_of(table) -> dict:
    return benchmark.tables(table, [], [], {})


def line(table, **wanted):
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


# ---- a small study, from raw scores

SECTIONS = {"A_1": 30, "A_2": 41, "B_1": 37, "C_1": 25, "C_2": 52, "D_1": 33, "D_2": 12, "E_1": 20}
UNLABELLED, ONE_CLASS = "E_1", "D_2"
EVALUATED = [name for name in SECTIONS if name not in (UNLABELLED, ONE_CLASS)]
SEEDS = {"deep": (1, 2), "linear": (1,), "memory": (1, 2), "markers": (1,), "random": (1, 2)}
FEW = 8


def without_verdict(calls) -> list[dict]:
    """Section -> an empty verdict, for each run."""
    return [dict.fromkeys(table["section"], {"verdict": ""}) for table in calls]


def spots_of(section) -> list[str]:
    return [f"{section}-{number}" for number in range(SECTIONS[section])]


@pytest.fixture(scope="module")
def study():
    """Runs, calls, labels and metrics; some spots are unlabelled, some scores shared, spots in any order."""
    rng = np.random.default_rng(7)
    labels = {}
    for section, spots in SECTIONS.items():
        label = (rng.random(spots) < 0.4).astype(float)
        label[:3] = 1, 0, np.nan
        if section == ONE_CLASS:
            label[:] = 1
        labels[section] = pd.DataFrame({"spot": spots_of(section), "label": label, "region": ""})
    runs, calls = [], []
    for variant, seeds in SEEDS.items():
        for section in SECTIONS:
            for seed in seeds:
                name = ("loo", section, "uni", variant, variant, *KINDS[variant], seed)
                runs.append(dict(zip(NAMES, name, strict=True)))
                truth = labels[section]["label"].fillna(0).to_numpy()
                scores = np.round(truth * rng.random() + rng.normal(size=len(truth)), 1 if variant == "markers" else 9)
                spots = spots_of(section)
                # the calls of the map are others, which intervals do not use
                table = {"section": section, "spot": spots, "score": scores, "probability": np.nan}
                table |= {"call": (scores > 0.8).astype(int), "call_mixture": (scores > 0.5).astype(int)}
                calls.append(pd.DataFrame(table).sample(frac=1, random_state=len(calls)))
    del labels[UNLABELLED]
    patients = {section: section[0] for section in SECTIONS}
    return runs, calls, labels, metrics.study_table("demo", runs, calls, labels, patients, without_verdict(calls))


@pytest.fixture(scope="module")
def found(study):
    runs, calls, labels, table = study
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "resample", partial(benchmark.resample, draws=FEW))
        return benchmark.tables(table, runs, iter(calls), labels)


def arrays(study, variant, section, seed):
    """Truth, scores and calls of the labelled spots, in the order of the label table."""
    runs, calls, labels, _ = study
    [table] = [
        table
        for run, table in zip(runs, calls, strict=True)
        if (run["variant"], run["fold"], run["seed"]) == (variant, section, seed)
    ]
    known = labels[section].dropna(subset=["label"])
    table = table.set_index("spot").loc[known["spot"]]
    return known["label"].to_numpy(dtype=int), table["score"].to_numpy(), table["call_mixture"].to_numpy()


def measure(metric, truth, scores, calls, weight=None) -> float:
    if metric == "f1_true_ratio":
        cut = np.percentile(scores, 100 * (1 - truth.mean()))
        return f1_score(truth, scores >= cut)
    if metric == "f1_gmm":
        weight = np.ones(len(truth)) if weight is None else weight
        return 2 * weight[(truth == 1) & (calls == 1)].sum() / (weight[truth == 1].sum() + weight[calls == 1].sum())
    of = {"auc": roc_auc_score, "ap": average_precision_score}[metric]
    return of(truth, scores, sample_weight=weight)


def by_patient(values: dict) -> float:
    """Sections of a patient, then patients."""
    patients = {}
    for section, value in values.items():
        patients.setdefault(section[0], []).append(value)
    return float(np.mean([np.mean(of) for of in patients.values()]))


@pytest.fixture(scope="module")
def plain(study):
    """(metric, variant, section) -> the metric of each seed, by scikit-learn."""
    names = ("auc", "ap", "f1_true_ratio", "f1_gmm")
    return {
        (metric, variant, section): [measure(metric, *arrays(study, variant, section, seed)) for seed in seeds]
        for metric in names
        for variant, seeds in SEEDS.items()
        for section in EVALUATED
    }


@pytest.fixture(scope="module")
def drawn(study):
    """(metric, variant, draw, section) -> the mean over seeds of a metric on resampled spots, by scikit-learn."""
    values = {}
    for section in EVALUATED:
        size = len(arrays(study, "deep", section, 1)[0])
        weights = np.concatenate(list(benchmark.spot_weights(section, size, FEW)), axis=1)
        for variant, seeds in SEEDS.items():
            scored = [arrays(study, variant, section, seed) for seed in seeds]
            for draw, weight in enumerate(weights.T):
                for metric in ("auc", "ap", "f1_gmm"):
                    of = [measure(metric, *columns, weight) for columns in scored]
                    values[metric, variant, draw, section] = np.mean(of)
    return values


def draws_of(metric, drawn, *variants) -> list[float]:
    """The resampled means of a variant, or the differences of two, by loops."""
    patients = sorted({section[0] for section in EVALUATED})
    taken = benchmark.patient_draws(len(patients), FEW)
    means = []
    for draw in range(FEW):
        parts = []
        for place, number in enumerate(taken[draw]):
            of = [section for section in EVALUATED if section[0] == patients[number]]
            other = (draw + place) % FEW
            values = [[drawn[metric, variant, other, section] for section in of] for variant in variants]
            parts.append(np.mean(values[0]) - (np.mean(values[1]) if len(variants) == 2 else 0))
        means.append(np.mean(parts))
    return means


def interval(values) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5, linear between neighbours."""
    values, ends = sorted(values), []
    for share in (0.025, 0.975):
        at = share * (len(values) - 1)
        low = math.floor(at)
        ends.append(values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low]))
    return tuple(ends)


def test_sections_from_raw_scores(plain, found):
    for metric in ("auc", "ap", "f1_true_ratio", "f1_gmm"):
        for variant, seeds in SEEDS.items():
            for section in EVALUATED:
                values = plain[metric, variant, section]
                of = line(found["sections"], variant=variant, section=section, metric=metric)
                assert of["mean"] == pytest.approx(np.mean(values), abs=1e-9)
                assert of["seeds"] == len(seeds)
                assert of["patient"] == section[0]
                if len(seeds) == 1:
                    assert np.isnan(of["sd"])
                else:
                    assert of["sd"] == pytest.approx(abs(values[0] - values[1]) / 2, abs=1e-9)


def test_sections_without_labels_are_left_out_and_one_class_has_a_note(found):
    assert UNLABELLED not in set(found["sections"]["section"])
    of = line(found["sections"], variant="deep", section=ONE_CLASS, metric="auc")
    assert np.isnan(of["mean"])
    assert of["note"] == "one class only (all spots cancer)"
    assert of["seeds"] == 0
    of = line(found["methods"], variant="deep", metric="auc")
    assert (of["sections"], of["patients"], of["seeds"]) == (6, 4, 2)
    assert of["note"] == "D_2: one class only (all spots cancer)"


def test_tables_are_in_the_order_of_the_study(found):
    assert found["methods"]["variant"].drop_duplicates().tolist() == list(SEEDS)
    assert found["methods"]["metric"].tolist() == [metric.name for metric in metrics.METRICS] * len(SEEDS)
    assert found["sections"]["section"].drop_duplicates().tolist() == [*EVALUATED, ONE_CLASS]
    keys = ["task", "encoder", "section", "variant", "metric"]
    assert not found["sections"].duplicated(keys).any()
    firsts = found["sections"].drop_duplicates(["section", "variant"])
    assert firsts["variant"].tolist()[: len(SEEDS)] == list(SEEDS)


def test_methods_from_raw_scores(plain, found, drawn):
    for metric in ("auc", "ap", "f1_true_ratio", "f1_gmm"):
        for variant, seeds in SEEDS.items():
            means = [
                by_patient({section: plain[metric, variant, section][place] for section in EVALUATED})
                for place in range(len(seeds))
            ]
            of = line(found["methods"], variant=variant, metric=metric)
            assert of["mean"] == pytest.approx(np.mean(means), abs=1e-9)
            if len(seeds) > 1:
                assert of["sd"] == pytest.approx(np.std(means), abs=1e-9)
            if metric == "f1_true_ratio":
                assert np.isnan([of["low"], of["high"]]).all()
            else:
                wanted = interval(draws_of(metric, drawn, variant))
                assert (of["low"], of["high"]) == pytest.approx(wanted, abs=1e-9)


def test_ranks_from_raw_scores(plain, found):
    learned = ("deep", "linear")
    for metric in ("auc", "f1_gmm"):
        ranks = {variant: [] for variant in learned}
        for section in EVALUATED:
            values = {variant: np.mean(plain[metric, variant, section]) for variant in learned}
            for variant, value in values.items():
                above = sum(other > value + 1e-12 for other in values.values())
                beside = sum(abs(other - value) <= 1e-12 for other in values.values())
                ranks[variant].append(above + (beside + 1) / 2)
        for variant in learned:
            of = line(found["methods"], variant=variant, metric=metric)
            assert of["mean_rank"] == pytest.approx(np.mean(ranks[variant]), abs=1e-9)
            assert (of["group"], of["group_size"]) == ("learned from labels", 2)
        for variant, group in (("markers", "saw no label"), ("memory", "knew normal spots by their labels")):
            alone = line(found["methods"], variant=variant, metric=metric)
            assert (alone["mean_rank"], alone["group"], alone["group_size"]) == (1.0, group, 1)
        control = line(found["methods"], variant="random", metric=metric)
        assert np.isnan(control["mean_rank"])
        assert control["group"] == "control"


def test_pairs_from_raw_scores(plain, found, drawn):
    assert len(found["pairs"]) == 4 * 10
    for metric in ("auc", "ap", "f1_true_ratio", "f1_gmm"):
        pairs = found["pairs"][found["pairs"]["metric"] == metric]
        raw = {}
        for _, of in pairs.iterrows():
            one, two = of["better"], of["other"]
            differences = {
                section: np.mean(plain[metric, one, section]) - np.mean(plain[metric, two, section])
                for section in EVALUATED
            }
            assert of["mean_difference"] == pytest.approx(by_patient(differences), abs=1e-9)
            assert of["mean_difference"] >= 0
            assert of["sections_better"] == sum(value > 1e-12 for value in differences.values())
            assert (of["sections"], of["patients"]) == (6, 4)
            tested = wilcoxon(np.round(list(differences.values()), 12))
            assert of["statistic"] == pytest.approx(tested.statistic, abs=1e-9)
            assert of["p"] == pytest.approx(tested.pvalue, abs=1e-9)
            if "random" not in (one, two):
                raw[one, two] = of["p"]
            if metric != "f1_true_ratio":
                wanted = interval(draws_of(metric, drawn, one, two))
                assert (of["low"], of["high"]) == pytest.approx(wanted, abs=1e-9)
        smallest, before = sorted(raw.items(), key=lambda item: item[1]), 0.0
        for place, (pair, p) in enumerate(smallest):
            before = max(before, min(1.0, p * (len(smallest) - place)))
            of = line(pairs, better=pair[0], other=pair[1])
            assert of["p_holm"] == pytest.approx(before, abs=1e-9)
        assert len(smallest) == 6
        assert pairs[(pairs["better"] == "random") | (pairs["other"] == "random")]["p_holm"].isna().all()


def test_pairs_note_what_they_compare(found):
    pairs = found["pairs"][found["pairs"]["metric"] == "auc"]
    for _, of in pairs.iterrows():
        groups = {of["better_group"], of["other_group"]}
        assert {of["better_group"]} == {benchmark.group(*KINDS[of["better"]])}
        assert ("a control" in of["note"]) == ("control" in groups)
        assert ("not alike" in of["note"]) == (len(groups) > 1 and "control" not in groups)
        assert "not independent" in of["note"]


# ---- the bootstrap


def test_weights_sum_to_the_number_of_spots():
    blocks = list(benchmark.spot_weights("A_1", 7000, 50))
    weights = np.concatenate(blocks, axis=1)
    assert len(blocks) == 3
    assert weights.shape == (7000, 50)
    assert (weights.sum(axis=0) == 7000).all()
    assert np.array_equal(weights, np.concatenate(list(benchmark.spot_weights("A_1", 7000, 50)), axis=1))
    assert not np.array_equal(blocks[0][:, :16], next(benchmark.spot_weights("A_2", 7000, 50))[:, :16])
    # a spot is left out of a draw with probability (1 - 1/n)^n, 1/e
    assert (weights == 0).mean() == pytest.approx(math.exp(-1), abs=0.005)


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_weighted_metrics_are_those_of_scikit_learn(decimals):
    """With few decimals most scores are shared, within a class and between the two."""
    rng = np.random.default_rng(decimals)
    truth = rng.random(60) < 0.3
    scores = np.round(rng.normal(size=60) + truth, decimals)
    calls = scores > 0.6
    weights = next(benchmark.spot_weights("A_1", 60, 30))
    auc, ap, f1 = benchmark.weighted_metrics(weighted.rank_spots(truth, scores, calls), weights)
    for draw, weight in enumerate(weights.T):
        assert auc[draw] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight), abs=1e-9)
        assert ap[draw] == pytest.approx(average_precision_score(truth, scores, sample_weight=weight), abs=1e-9)
        assert f1[draw] == pytest.approx(f1_score(truth, calls, sample_weight=weight), abs=1e-9)


def test_constant_scores_are_at_chance():
    truth = np.array([True, False, False, True])
    ranking = weighted.rank_spots(truth, np.ones(4), np.ones(4))
    auc, ap, f1 = benchmark.weighted_metrics(ranking, np.array([[1.0], [1], [2], [0]]))
    assert (auc[0], ap[0], f1[0]) == pytest.approx((0.5, 0.25, 0.4))  # f1: 2 * 1 / (1 cancer + 4 called)


def test_draws_of_one_class_are_left_out():
    truth, scores = np.array([True, False, False]), np.array([0.9, 0.5, 0.1])
    weights = np.array([[0.0, 3, 1], [2, 0, 1], [1, 0, 1]])
    values = benchmark.weighted_metrics(weighted.rank_spots(truth, scores, scores > 0.4), weights)
    assert np.isnan(values[:, :2]).all()
    assert values[:, 2] == pytest.approx([1, 1, 2 / 3])
    # the other section of the patient is used; a draw without any is skipped
    assert benchmark.patient_means(np.array([[np.nan, 0.4], [0.8, 0.6]]), ["A", "A"]) == pytest.approx([0.4, 0.7])
    assert np.isnan(benchmark.patient_means(np.array([[np.nan], [0.5]]), ["A"])[0])


def test_spots_that_a_run_did_not_score_are_left_out():
    truth, scores = np.array([True, True, False, False]), np.array([0.2, np.nan, 0.5, 0.1])
    ranking = weighted.rank_spots(truth, scores, np.array([0, 1, 1, 0]))
    auc, ap, f1 = benchmark.weighted_metrics(ranking, np.ones((4, 1)))
    assert (auc[0], ap[0], f1[0]) == (0.5, 0.5, 0.0)


def test_a_patient_drawn_twice_has_its_spots_resampled(monkeypatch):
    monkeypatch.setattr(benchmark, "patient_draws", lambda patients, draws: np.zeros((draws, patients), dtype=int))
    values = np.array([[0.0, 9], [1, 9], [2, 9]])
    assert benchmark.patient_means(values, ["A", "B"]) == pytest.approx([0.5, 1.5, 1.0])


def test_intervals_have_their_nominal_coverage():
    """15 patients of unlike difficulty: cancer spots score N(m, 1), m of a patient N(1, 0.5), the others N(0, 1).

    The mean AUC of such patients is Phi(1 / sqrt(2 + 0.25)). 95 % intervals of 15 values by percentiles are a little
    short, and drawing spots too makes up for it.
    """
    rng = np.random.default_rng(3)
    truth, held, repeats = np.arange(80) < 30, 0, 120
    wanted = norm.cdf(1 / math.sqrt(2.25))
    for repeat in range(repeats):
        values = []
        for patient in range(15):
            scores = rng.normal(size=80) + truth * rng.normal(1, 0.5)
            weights = next(benchmark.spot_weights(f"{repeat}-{patient}", 80, 200))
            values.append(benchmark.weighted_metrics(weighted.rank_spots(truth, scores, truth), weights)[0])
        low, high = interval(benchmark.patient_means(np.column_stack(values), list(range(15))))
        held += low <= wanted <= high
    # of 120 intervals of 95 %, 3 sd are 6 %
    assert 0.89 <= held / repeats < 1


# ---- ranks and tests by hand


def test_holm_by_hand():
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 may not fall below 0.06
    assert benchmark.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benchmark.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert benchmark.holm([]).size == 0


def test_ranks_by_hand(no_draws):
    table = labelled(
        rows("deep", A_1=0.9, A_2=0.8, B_1=0.7),
        rows("linear", A_1=0.9, A_2=0.7, B_1=0.8),
        rows("wide", A_1=0.1 + 0.2, A_2=0.9, B_1=0.9),
        rows("markers", A_1=0.99, A_2=0.99, B_1=0.99),
        rows("deep", metric="ece", A_1=0.1, A_2=0.1, B_1=0.1),
        rows("linear", metric="ece", A_1=0.3, A_2=0.3, B_1=0.3),
        rows("wide", metric="ece", note="not a probability", A_1=np.nan, A_2=np.nan, B_1=np.nan),
    )
    methods = tables_of(table)["methods"]
    ranks = {v: line(methods, variant=v, metric="auc")["mean_rank"] for v in ("deep", "linear", "wide", "markers")}
    assert ranks == pytest.approx({"deep": 6.5 / 3, "linear": 6.5 / 3, "wide": 5 / 3, "markers": 1})
    best = line(methods, variant="deep", metric="ece")
    assert (best["mean_rank"], best["group_size"]) == (1.0, 2)
    without = line(methods, variant="wide", metric="ece")
    assert (without["sections"], without["note"]) == (0, "not a probability")
    assert np.isnan(without["mean_rank"])


def test_values_that_differ_in_the_last_digit_share_a_rank(no_draws):
    table = labelled(rows("deep", A_1=0.1 + 0.2), rows("linear", A_1=0.3))
    assert tables_of(table)["methods"]["mean_rank"].dropna().tolist() == [1.5, 1.5]


def test_wilcoxon_by_hand(no_draws):
    # the smallest of six differences has the opposite sign: rank sum 1, p = 2 x 2 / 64
    deep = {"A_1": 0.81, "B_1": 0.92, "C_1": 0.73, "D_1": 0.84, "E_1": 0.95, "F_1": 0.5}
    linear = {"A_1": 0.71, "B_1": 0.72, "C_1": 0.43, "D_1": 0.44, "E_1": 0.45, "F_1": 0.51}
    of = line(tables_of(labelled(rows("linear", **linear), rows("deep", **deep)))["pairs"], metric="auc")
    assert (of["better"], of["other"], of["sections_better"]) == ("deep", "linear", 5)
    assert (of["statistic"], of["p"], of["p_holm"]) == pytest.approx((1.0, 0.0625, 0.0625))
    assert of["mean_difference"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 - 0.01) / 6)
    assert of["note"] == ""


def test_few_sections_have_no_p(no_draws):
    values = {f"{name}_1": 0.5 for name in "ABCDE"}
    table = labelled(rows("deep", **values), rows("linear", **dict.fromkeys(values, 0.4)))
    of = line(tables_of(table)["pairs"], metric="auc")
    assert np.isnan([of["statistic"], of["p"], of["p_holm"]]).all()
    assert "fewer than 6 sections" in of["note"]
    assert of["sections_better"] == 5


def test_equal_methods_have_no_difference(no_draws):
    values = {f"{name}_1": 0.5 for name in "ABCDEF"}
    of = line(tables_of(labelled(rows("deep", **values), rows("linear", **values)))["pairs"], metric="auc")
    assert (of["p"], of["mean_difference"], of["sections_better"]) == (1.0, 0.0, 0)
    assert "no difference on any section" in of["note"]


def test_a_pair_is_compared_on_common_sections(no_draws):
    table = labelled(rows("deep", A_1=0.9, A_2=0.1), rows("linear", A_1=0.5, A_2=np.nan))
    of = line(tables_of(table)["pairs"], metric="auc")
    assert (of["better"], of["sections"], of["mean_difference"]) == ("deep", 1, pytest.approx(0.4))


def test_lower_is_better_for_an_error(no_draws, monkeypatch):
    paired = [replace(metric, paired=metric.name == "ece") for metric in metrics.METRICS]
    monkeypatch.setattr(benchmark, "METRICS", paired)
    table = labelled(rows("deep", metric="ece", A_1=0.1, B_1=0.4), rows("linear", metric="ece", A_1=0.5, B_1=0.3))
    of = line(tables_of(table)["pairs"], metric="ece")
    assert (of["better"], of["sections_better"], of["mean_difference"]) == ("deep", 1, pytest.approx(0.15))


def test_tasks_and_encoders_do_not_mix(no_draws):
    table = labelled(
        rows("deep", A_1=0.9), rows("linear", A_1=0.8), rows("linear", encoder="none", A_1=0.7), rows("deep", task="t2")
    )
    found = tables_of(table)
    assert len(found["pairs"]) == 1
    assert line(found["methods"], encoder="none", metric="auc", variant="linear")["group_size"] == 1


def test_groups():
    assert benchmark.group("labelled_source", "") == "learned from labels"
    assert benchmark.group("normal_reference", "source_negatives") == "knew normal spots by their labels"
    assert benchmark.group("normal_reference", "normal_sections") == "saw no label"
    assert benchmark.group("marker_prior", "") == "saw no label"
    assert benchmark.group("control", "") == "control"


# ---- small studies


def test_a_study_without_labels_has_tables_without_rows(study, tmp_path):
    runs, calls, _, _ = study
    patients, said = {section: section[0] for section in SECTIONS}, without_verdict(calls)
    table = metrics.study_table("demo", runs, calls, {}, patients, said)
    found = benchmark.tables(table, runs, calls, {})
    assert {name: len(of) for name, of in found.items()} == {"sections": 0, "methods": 0, "pairs": 0}
    for name, of in found.items():
        storage.write_tsv(of, tmp_path / f"{name}.tsv")
    back = benchmark.read_tables(tmp_path)
    assert [list(back[name].columns) for name in ("sections", "methods", "pairs")] == [
        benchmark.SECTION_COLUMNS,
        benchmark.METHOD_COLUMNS,
        benchmark.PAIR_COLUMNS,
    ]
    unknown = {
        section: pd.DataFrame({"spot": spots_of(section), "label": np.nan, "region": ""}) for section in SECTIONS
    }
    table = metrics.study_table("demo", runs, calls, unknown, patients, said)
    assert all(of.empty for of in benchmark.tables(table, runs, calls, unknown).values())


def test_one_method_one_seed_one_section(study, tmp_path):
    runs, calls, labels, table = study
    [place] = [number for number, run in enumerate(runs) if (run["variant"], run["fold"]) == ("linear", "A_1")]
    table = table[(table["variant"] == "linear") & (table["section"] == "A_1")]
    storage.write_tsv(table, tmp_path / "metrics.tsv")
    table = storage.read_tsv(tmp_path / "metrics.tsv")
    found = benchmark.tables(table, [runs[place]], [calls[place]], {"A_1": labels["A_1"]})
    of = line(found["methods"], metric="auc")
    truth, scores, called = arrays(study, "linear", "A_1", 1)
    assert of["mean"] == roc_auc_score(truth, scores)
    assert np.isnan(of["sd"])
    assert (of["mean_rank"], of["group_size"]) == (1.0, 1)
    assert of["note"] == "one patient: low and high come of its spots alone"
    weights = np.concatenate(list(benchmark.spot_weights("A_1", len(truth))), axis=1)
    assert weights.shape == (len(truth), 1000)
    f1 = [measure("f1_gmm", truth, scores, called, weight) for weight in weights.T]
    of = line(found["methods"], metric="f1_gmm")
    assert (of["low"], of["high"]) == pytest.approx(interval(f1), abs=1e-9)
    assert found["pairs"].empty
    assert len(found["sections"]) == len(metrics.FACTS) + len(metrics.METRICS)


def test_a_method_against_its_copy_differs_by_nothing(study):
    runs, calls, labels, table = study
    there = [number for number, run in enumerate(runs) if run["variant"] == "linear"]
    twice = [*(runs[place] for place in there), *(runs[place] | {"variant": "007"} for place in there)]
    own = table[table["variant"] == "linear"]
    found = benchmark.tables(
        pd.concat([own, own.assign(variant="007")]), twice, [calls[place] for place in there] * 2, labels
    )
    pairs = found["pairs"].dropna(subset=["low"])
    assert len(pairs) == 3
    assert (pairs[["low", "high", "mean_difference"]] == 0).all(axis=None)


def test_tables_are_unchanged_by_writing_and_reading(found, tmp_path):
    named = {name: of.replace({"linear": "007"}) for name, of in found.items()}
    for name, of in named.items():
        storage.write_tsv(of, tmp_path / f"{name}.tsv")
    for name, of in benchmark.read_tables(tmp_path).items():
        pd.testing.assert_frame_equal(of.replace({np.nan: ""}), named[name].replace({np.nan: ""}), check_dtype=False)


# ---- overall results


@pytest.fixture
def measured() -> pd.DataFrame:
    return frame(
        # patients of two and of one section: seed 1 (0.8 + 0.6) / 2 = 0.7 and 0.9 -> 0.80; seed 2 0.8 and 1.0 -> 0.90
        rows("deep", 1, A_1=0.8, A_2=0.6, B_1=0.9),
        rows("deep", 2, A_1=0.9, A_2=0.7, B_1=1.0),
        rows("deep", 1, "ap", A_1=0.5, A_2=0.3, B_1=0.6),
        # one seed: (0.95 + 0.93) / 2 = 0.94 and 0.84 -> 0.89
        rows("linear", 1, A_1=0.95, A_2=0.93, B_1=0.84),
        # lacks a section: not compared although its mean is the highest
        rows("partial", 1, A_1=0.99),
        rows("oracle", 1, A_1=1.0, A_2=1.0, B_1=1.0),
        *(rows(v, 1, "prevalence", A_1=0.2, A_2=0.4, B_1=0.6) for v in ("deep", "linear")),
        # another task and encoder do not mix in
        rows("deep", 1, task="other", A_1=0.1),
        rows("deep", 1, encoder="none", A_1=0.1),
    )


def test_summary_is_mean_over_patients_and_population_sd_over_seeds(measured):
    table = benchmark.summary_table(measured, "loo", "uni")
    assert table.loc["deep", "auc"] == pytest.approx(0.85)
    assert table.loc["deep", "auc_sd"] == pytest.approx(0.05)  # of 0.80 and 0.90 with ddof = 0
    assert table.loc["deep", "ap"] == pytest.approx(0.5)  # (0.4 + 0.6) / 2
    assert table.loc["linear", "auc"] == pytest.approx(0.89)
    assert np.isnan(table.loc["linear", "auc_sd"])
    assert np.isnan(table.loc["deep", "ap_sd"])
    assert np.isnan(table.loc["linear", "ks"])
    assert table.loc["deep", ["sections", "patients", "seeds"]].tolist() == [3, 2, 2]
    assert table.index.tolist() == ["oracle", "partial", "linear", "deep"]


def test_folds_of_a_section_count_once():
    twice = frame(rows("m", 1, A_1=0.4), rows("m", 1, A_1=0.6), rows("m", 1, A_2=0.9))
    assert benchmark.summary_table(twice, "loo", "uni").loc["m", "auc"] == pytest.approx(0.7)  # (0.5 + 0.9) / 2


def test_values_that_cannot_be_computed_are_left_out():
    holed = frame(rows("m", 1, A_1=0.8, B_1=np.nan), rows("m", 2, A_1=0.6, B_1=np.nan))
    table = benchmark.summary_table(holed, "loo", "uni")
    assert table.loc["m", "auc"] == pytest.approx(0.7)
    assert table.loc["m", "sections"] == 1


def test_a_section_without_patient_is_its_own():
    lone = frame(rows("m", 1, A_1=0.8, A_2=0.6)).assign(patient="")
    assert benchmark.summary_table(lone, "loo", "uni").loc["m", "patients"] == 2


def test_summary_of_nothing_is_empty():
    assert benchmark.summary_table(frame(), "loo", "uni").empty
    assert benchmark.comparison(frame(), "loo", "uni") is None


def test_prevalence_is_averaged_like_the_metrics(measured):
    assert benchmark.prevalence(measured, "loo", "uni") == pytest.approx((0.3 + 0.6) / 2)


def test_comparison_leaves_out_controls_and_partial_methods(measured):
    found = benchmark.comparison(measured, "loo", "uni", controls={"oracle"})
    assert (found["best"], found["second"]) == ("linear", "deep")
    assert found["difference"] == pytest.approx(0.04)
    assert found["sd"] == pytest.approx(0.05)
    assert found["better"] == 1  # 0.94 against 0.75 on A; 0.84 against 0.95 on B
    assert found["patients"] == 2


def test_comparison_of_one_method():
    found = benchmark.comparison(frame(rows("m", 1, A_1=0.8)), "loo", "uni")
    assert (found["best"], found["second"]) == ("m", None)


def test_section_table_is_over_seeds(measured):
    table = benchmark.section_table(measured, "loo", "uni", "auc")
    assert table.index.tolist() == ["A_1", "A_2", "B_1"]
    assert table.loc["A_1", ("deep", "mean")] == pytest.approx(0.85)
    assert table.loc["A_1", ("deep", "sd")] == pytest.approx(0.05)
    assert np.isnan(table.loc["A_1", ("linear", "sd")])
    assert np.isnan(table.loc["B_1", ("partial", "mean")])
