"""Results combined over seeds."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from ctrflow.results import seeds
from ctrflow.results.verdict import FOUND, NONE, Facts, Gate, Verdict

GATE = Gate(1.0, 0.0, (0.5, 5.0), (-4.0, -0.5), (24, 15), 0.2, 5)


def spots(names):
    """A row of spots."""
    section = ad.AnnData(np.zeros((len(names), 1), dtype=np.float32), obs=pd.DataFrame(index=names))
    section.obsm["spatial"] = np.column_stack([np.arange(len(names)), np.zeros(len(names))]) * 100.0
    section.uns["section"] = {"section": "s"}
    return section


def table_of(names, scores, section="s", probability=np.nan):
    return pd.DataFrame({"section": section, "spot": names, "score": scores, "probability": probability})


def runs_of(*names_and_seeds, threshold="mixture"):
    return [{"run": name, "seed": seed, "threshold": threshold} for name, seed in names_and_seeds]


def known(runs, facts=None):
    """The same facts of every section for each run, none by default."""
    return [{name: (facts or Facts()).as_dict() for name in "st"} for _ in runs]


def test_scores_are_the_mean_over_seeds_in_the_order_of_the_section():
    names = [f"p{i}" for i in range(8)]
    first, second = table_of(names[::-1], np.linspace(0, 0.7, 8)), table_of(names, np.linspace(1, 0.3, 8))
    other = table_of(names, 9.0, "t")
    runs = runs_of(("m", 1), ("m", 2))
    found = seeds.on_section(runs, [pd.concat([other, first]), second], known(runs), spots(names))
    assert list(found.scores.index) == names
    # p0: 0.7 and 1.0; p7: 0.0 and 0.3
    assert found.scores["m"].iloc[[0, 7]].tolist() == [0.85, 0.15]
    assert (found.calls["m"] == (found.scores["m"] >= found.thresholds["m"].threshold)).all()
    assert set(found.calls["m"]) == {0, 1}
    assert list(found.sd.index) == names
    # without facts there is neither probability nor verdict
    assert list(found.probability) == []
    assert list(found.probability.index) == names
    assert found.verdicts == {"m": Verdict()}


def test_probability_is_the_mean_over_seeds_and_calls_follow_the_verdict():
    names = [f"p{i}" for i in range(10)]
    score = np.r_[np.linspace(0, 0.1, 5), np.linspace(0.8, 0.9, 5)]
    tables = [
        table_of(names, score, probability=np.r_[np.full(5, 0.1), 0.2, np.full(4, 0.7)]),
        table_of(names[::-1], score[::-1], probability=np.r_[np.full(4, 0.9), 0.2, np.full(5, 0.3)]),
        table_of(names, score),
    ]
    runs = runs_of(("m", 1), ("m", 2), ("alone", 1))
    facts = [*known(runs[:2], Facts(2.0, GATE, copy_numbers=7.0)), *known(runs[2:])]
    found = seeds.on_section(runs, tables, facts, spots(names))
    assert list(found.probability) == ["m"]
    assert found.probability["m"].tolist() == pytest.approx([0.2] * 6 + [0.8] * 4)
    # p5 is above the threshold, but unlikely to be cancer
    assert found.calls["m"].tolist() == [0] * 6 + [1] * 4
    assert found.calls["alone"].tolist() == [0] * 5 + [1] * 5
    assert found.verdicts["m"].verdict == FOUND
    text = " ".join(found.verdicts["m"].evidence)
    assert "4 of 10 spots are called, the largest connected piece has 4" in text
    assert "40% of the spots have a probability of 0.5 or more; it is 0.44 on average" in text
    assert found.verdicts["alone"] == Verdict()
    found = seeds.on_section(runs, tables, known(runs, Facts(-2.0, GATE)), spots(names))
    assert (found.calls == 0).all(axis=None)
    assert {one.verdict for one in found.verdicts.values()} == {NONE}


def test_sd_over_seeds_where_there_are_several():
    tables = [
        table_of(["a", "b", "c"], [0.1, 0.3, 0.5]),
        table_of(["c", "b", "a"], [0.5, 0.1, 0.3]),  # a and b swap ranks
        table_of(["a", "b", "c"], [1.0, 2.0, 3.0]),
    ]
    runs = runs_of(("m", 1), ("m", 2), ("alone", 1))
    found = seeds.on_section(runs, tables, known(runs), spots(["c", "a", "b"]))
    assert list(found.sd) == ["m"]
    assert list(found.scores) == list(found.calls) == ["m", "alone"]
    # both seeds have the same mean and spread; a and b lie 0.2 apart
    assert found.sd["m"].to_dict() == pytest.approx({"c": 0.0, "a": 0.1, "b": 0.1}, abs=1e-12)


def test_seeds_that_differ_by_shift_and_spread_alone_agree():
    score = pd.Series([0.1, 0.2, 0.6], index=list("abc"))
    tables = [
        table_of(list("abc"), values.to_numpy()) for values in (score, score + 0.3, 0.5 * score, 0 * score + 0.4)
    ]
    runs = runs_of(*(("m", seed) for seed in range(3)))
    sd = seeds.on_section(runs, tables[:3], known(runs), spots(list("abc"))).sd
    assert sd["m"].to_numpy() == pytest.approx([0, 0, 0], abs=1e-12)
    # a seed that tells no spots apart disagrees with one that does: half the spread of a seed is half of theirs
    sd = seeds.on_section(runs[:2], [tables[0], tables[3]], known(runs[:2]), spots(list("abc"))).sd
    away = (score - score.mean()).abs().to_numpy()
    assert sd["m"].to_numpy() == pytest.approx(away / 4)


def test_calls_follow_the_threshold_of_the_method():
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(100)]
    values = np.concatenate([rng.normal(0, 1, 80), rng.normal(12, 1, 20)])
    table = table_of(names, values)
    runs = [{"run": kind, "seed": 1, "threshold": kind} for kind in ("mixture", "map_em")]
    found = seeds.on_section(runs, [table, table], known(runs), spots(names))
    branches = {name: fitted.branch for name, fitted in found.thresholds.items()}
    assert branches == {"mixture": "crossing", "map_em": "map_em"}
    # the prior on the weight of the anomalous component: 20 of 109, of 100 spots
    assert found.calls.sum().tolist() == [20, 18]


def test_one_seed_has_no_sd():
    runs = runs_of(("m", 1))
    sd = seeds.on_section(runs, [table_of(["a", "b"], [0.1, 0.9])], known(runs), spots(["a", "b"])).sd
    assert list(sd) == []
    assert list(sd.index) == ["a", "b"]


def results(scores, probability=None, sd=None):
    none = scores[[]]
    probability, sd = (none if frame is None else frame for frame in (probability, sd))
    return seeds.Results(scores, probability, scores.round().astype(int), sd, {}, {})


def test_the_layers_of_a_map_start_with_the_label():
    frame = pd.DataFrame({"m": [0.1, 0.9]})
    titles = [title for title, _, _ in seeds.panels(results(frame), np.array([0, 1]))]
    assert titles == ["label", "m: score", "m: call"]


def test_the_sd_of_a_run_comes_after_its_call_and_its_probability_before():
    frame = pd.DataFrame({"m": [0.1, 0.9], "alone": [0.2, 0.8]})
    sd, likely = pd.DataFrame({"m": [0.01, 0.02]}), pd.DataFrame({"alone": [0.3, 0.7]})
    panels = seeds.panels(results(frame, likely, sd))
    assert [(title, kind) for title, _, kind in panels] == [
        ("m: score", "score"),
        ("m: call", "call"),
        ("m: sd over seeds", "sd"),
        ("alone: score", "score"),
        ("alone: probability", "probability"),
        ("alone: call", "call"),
    ]
    assert panels[2][1].tolist() == [0.01, 0.02]
    assert panels[4][1].tolist() == [0.3, 0.7]


def test_losses_of_all_runs_are_in_one_table():
    runs = [
        {"task": "t", "fold": fold, "encoder": "e", "variant": variant, "seed": 1, "method": "m", "regime": "r"}
        for fold, variant in (("A", "deep"), ("A", "linear"), ("B", "deep"))
    ]
    # as read from files: a stage named 1, and a method without losses
    one = pd.DataFrame({"stage": [1, 1], "epoch": [1, 2], "term": "loss", "value": [0.5, 0.25]})
    found = seeds.loss_table(runs, [one, one.iloc[:0], one.assign(value=[4.0, np.nan])])
    assert found.columns.tolist() == ["task", "fold", "encoder", "variant", "seed", "stage", "epoch", "term", "value"]
    assert found[["fold", "variant", "stage", "epoch"]].to_numpy().tolist() == [
        ["A", "deep", "1", 1],
        ["A", "deep", "1", 2],
        ["B", "deep", "1", 1],
        ["B", "deep", "1", 2],
    ]
    assert np.array_equal(found["value"], [0.5, 0.25, 4.0, np.nan], equal_nan=True)
    assert seeds.loss_table(runs[1:2], [one.iloc[:0]]).empty


def test_a_spot_drawn_for_every_seed_is_called_as_it_was_drawn():
    names, runs = [f"p{i}" for i in range(8)], runs_of(("s", 1), ("s", 2), threshold="zero")
    scores, nan = np.linspace(-4, 3, 8), np.nan  # p4 is 0, and called
    both = [[1, nan, 0, nan, 0, nan, nan, 0], [1, nan, nan, nan, 0, nan, nan, nan]]
    tables = [table_of(names, scores).assign(drawn=drawn) for drawn in both]
    found = seeds.on_section(runs, tables, known(runs), spots(names))
    assert found.calls["s"].tolist() == [1, 0, 0, 0, 0, 1, 1, 1]
    assert found.scores["s"].tolist() == scores.tolist()
