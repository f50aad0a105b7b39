"""What stands beside a variant's figures: of metrics worked by hand."""

import numpy as np
import pandas as pd
import pytest

from ctrflow.results import benchmark, marks, metrics

REGIMES = {"deep": "normal_reference", "linear": "labelled_source", "oracle": "control"}
DARK = np.array([3.0, 1.0, 2.0, 4.0])
TEXT = "fit 4.16 to 4.158"


def run_of(variant: str, fold: str, seed: int = 1) -> dict:
    names = {"method": variant, "variant": variant, "regime": REGIMES[variant], "reference": ""}
    return {"task": "t", "fold": fold, "encoder": "e", "seed": seed} | names


def called(section: str, scores) -> pd.DataFrame:
    table = pd.DataFrame({"section": section, "spot": [f"{section}{i}" for i in range(len(scores))], "score": scores})
    return table.assign(probability=np.nan, call=0, call_mixture=0)


def measured(runs, tables, labels=None, **more) -> pd.DataFrame:
    said = [{table["section"][0]: {"verdict": ""}} for table in tables]
    return metrics.study_table("s", runs, tables, labels or {}, {"a": "p", "b": "q"}, said, **more)


def test_a_variant_says_in_how_many_runs_training_did_not_lower_its_loss():
    runs = [run_of("deep", fold, seed) for fold in "ab" for seed in (1, 2)] + [run_of("linear", "a")]
    tables = [called(run["fold"], [0.1, 0.2, 0.3, 0.4]) for run in runs]
    trainings = {("t", "a", "e", "deep", 2): TEXT, ("t", "b", "e", "deep", 1): "", ("t", "a", "e", "linear", 1): TEXT}
    table = measured(runs, tables, trainings=trainings)
    assert set(table[table["unmoved"] != ""].groupby(["variant", "fold", "seed"]).groups) == {
        ("deep", "a", 2), ("linear", "a", 1),
    }  # fmt: skip
    assert marks.texts(table) == {
        ("t", "e", "deep"): [f"training did not lower its loss ({TEXT}, 1 of 4 runs)"],
        ("t", "e", "linear"): [f"training did not lower its loss ({TEXT})"],
    }
    assert marks.texts(measured(runs, tables)) == {}


def test_marks_are_read_back_from_the_table_and_stand_in_the_table_of_methods(tmp_path):
    from ctrflow import storage

    labels = {"a": pd.DataFrame({"spot": [f"a{i}" for i in range(4)], "label": [0, 0, 1, 1], "region": ""})}
    runs = [run_of("deep", "a"), run_of("linear", "a")]
    tables = [called("a", [0.1, 0.2, 0.3, 0.4])] * 2
    table = measured(runs, tables, labels, trainings={("t", "a", "e", "deep", 1): TEXT})
    storage.write_tsv(table, tmp_path / "metrics.tsv")
    table = storage.read_tsv(tmp_path / "metrics.tsv")
    found = benchmark.tables(table, runs, tables, labels)["methods"]
    assert found.groupby("variant")["marks"].unique().map(list).to_dict() == {
        "deep": [f"training did not lower its loss ({TEXT})"], "linear": [""],
    }  # fmt: skip


def test_each_kind_of_mark_is_explained_once():
    (note,) = marks.notes([f"training did not lower its loss ({TEXT})"] * 2)
    assert note.startswith("“training did not lower …”: the mean total loss")
    assert marks.notes([]) == []
