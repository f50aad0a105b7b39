"""Results combined over seeds."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from ctrflow.results import seeds


def spots(names):
    section = ad.AnnData(np.zeros((len(names), 1), dtype=np.float32), obs=pd.DataFrame(index=names))
    section.uns["section"] = {"section": "s"}
    return section


def test_scores_are_the_mean_over_seeds_in_the_order_of_the_section():
    names = [f"p{i}" for i in range(8)]
    first = pd.DataFrame({"section": "s", "spot": names[::-1], "score": np.linspace(0, 0.7, 8)})
    second = pd.DataFrame({"section": "s", "spot": names, "score": np.linspace(1, 0.3, 8)})
    other = pd.DataFrame({"section": "t", "spot": names, "score": 9.0})
    runs = [{"run": "m", "seed": 1, "threshold": "mixture"}, {"run": "m", "seed": 2, "threshold": "mixture"}]
    scores, sd, calls, thresholds = seeds.on_section(runs, [pd.concat([other, first]), second], spots(names))
    assert list(scores.index) == names
    # p0: 0.7 and 1.0; p7: 0.0 and 0.3
    assert scores["m"].iloc[[0, 7]].tolist() == [0.85, 0.15]
    assert (calls["m"] == (scores["m"] >= thresholds["m"].threshold)).all()
    assert set(calls["m"]) == {0, 1}
    assert list(sd.index) == names


def test_sd_over_seeds_where_there_are_several():
    tables = [
        pd.DataFrame({"section": "s", "spot": names, "score": values})
        for names, values in [
            (["a", "b", "c"], [0.1, 0.3, 0.5]),
            (["c", "b", "a"], [0.5, 0.1, 0.3]),  # a and b swap ranks
            (["a", "b", "c"], [1.0, 2.0, 3.0]),
        ]
    ]
    runs = [{"run": name, "seed": seed, "threshold": "mixture"} for name, seed in [("m", 1), ("m", 2), ("alone", 1)]]
    scores, sd, calls, _ = seeds.on_section(runs, tables, spots(["c", "a", "b"]))
    assert list(sd) == ["m"]
    assert list(scores) == list(calls) == ["m", "alone"]
    # both seeds have the same mean and spread; a and b lie 0.2 apart
    assert sd["m"].to_dict() == pytest.approx({"c": 0.0, "a": 0.1, "b": 0.1}, abs=1e-12)


def test_seeds_that_differ_by_shift_and_spread_alone_agree():
    score = pd.Series([0.1, 0.2, 0.6], index=list("abc"))
    tables = [
        pd.DataFrame({"section": "s", "spot": list("abc"), "score": values.to_numpy()})
        for values in (score, score + 0.3, 0.5 * score, 0 * score + 0.4)
    ]
    runs = [{"run": "m", "seed": seed, "threshold": "mixture"} for seed in range(3)]
    _, sd, _, _ = seeds.on_section(runs, tables[:3], spots(list("abc")))
    assert sd["m"].to_numpy() == pytest.approx([0, 0, 0], abs=1e-12)
    # a seed that tells no spots apart disagrees with one that does: half the spread of a seed is half of theirs
    _, sd, _, _ = seeds.on_section(runs[:2], [tables[0], tables[3]], spots(list("abc")))
    away = (score - score.mean()).abs().to_numpy()
    assert sd["m"].to_numpy() == pytest.approx(away / 4)


def test_calls_follow_the_threshold_of_the_method():
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(100)]
    values = np.concatenate([rng.normal(0, 1, 80), rng.normal(12, 1, 20)])
    table = pd.DataFrame({"section": "s", "spot": names, "score": values})
    runs = [{"run": kind, "seed": 1, "threshold": kind} for kind in ("mixture", "map_em")]
    _, _, calls, thresholds = seeds.on_section(runs, [table, table], spots(names))
    assert {name: fitted.branch for name, fitted in thresholds.items()} == {"mixture": "crossing", "map_em": "map_em"}
    # the prior on the weight of the anomalous component: 20 of 109, of 100 spots
    assert calls.sum().tolist() == [20, 18]


def test_one_seed_has_no_sd():
    table = pd.DataFrame({"section": "s", "spot": ["a", "b"], "score": [0.1, 0.9]})
    _, sd, _, _ = seeds.on_section([{"run": "m", "seed": 1, "threshold": "mixture"}], [table], spots(["a", "b"]))
    assert list(sd) == []
    assert list(sd.index) == ["a", "b"]


def test_the_layers_of_a_map_start_with_the_label():
    frame = pd.DataFrame({"m": [0.1, 0.9]})
    titles = [title for title, _, _ in seeds.layers(frame, frame.round().astype(int), np.array([0, 1]))]
    assert titles == ["label", "m: score", "m: call"]


def test_the_sd_of_a_run_comes_after_its_call():
    frame = pd.DataFrame({"m": [0.1, 0.9], "alone": [0.2, 0.8]})
    sd = pd.DataFrame({"m": [0.01, 0.02]})
    panels = seeds.layers(frame, frame.round().astype(int), sd=sd)
    assert [(title, kind) for title, _, kind in panels] == [
        ("m: score", "score"),
        ("m: call", "call"),
        ("m: sd over seeds", "sd"),
        ("alone: score", "score"),
        ("alone: call", "call"),
    ]
    assert panels[2][1].tolist() == [0.01, 0.02]


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
