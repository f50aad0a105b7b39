"""What stands beside a variant's figures: of metrics worked by hand."""

import numpy as np
import pandas as pd
import pytest

from ctrflow.results import benchmark, marks, metrics

REGIMES = {"deep": "normal_reference", "linear": "labelled_source", "oracle": "control"}
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


SIZES = [10.0, 20.0, 30.0, 40.0]
INVERTED = [0.4, 0.3, 0.2, 0.1]
YARDSTICKS = {
    "a": pd.DataFrame({"spot": [f"a{i}" for i in (3, 1, 2, 0)], "library_size": np.array(SIZES)[[3, 1, 2, 0]]}),
    "b": pd.DataFrame({"spot": [f"b{i}" for i in range(4)], "library_size": SIZES}),
}
YARDSTICKS["a"]["darkness"] = np.nan  # no image
YARDSTICKS["b"]["darkness"] = [2.0, 1.0, 3.0, 4.0]


def test_rank_correlations_with_library_size_and_darkness_need_no_label():
    runs = [run_of("deep", fold) for fold in "ab"]
    # one exchange of neighbours among four: 1 - 6 * 2 / (4 * 15) = 0.8; of the four ends: 1 - 6 * 20 / 60 = -1
    tables = [called("a", [0.1, 0.3, 0.2, 0.4]), called("b", INVERTED)]
    table = measured(runs, tables, yardsticks=YARDSTICKS).set_index(["section", "metric"])
    assert table.loc[("a", "rho_library_size"), "value"] == pytest.approx(0.8)
    assert table.loc[("b", "rho_library_size"), "value"] == pytest.approx(-1)
    assert table.loc[("b", "rho_darkness"), "value"] == pytest.approx(-0.8)
    assert np.isnan(table.loc[("a", "rho_darkness"), "value"])
    assert table.loc[("a", "rho_darkness"), "note"] == "no image"
    assert marks.mean_rhos(table.reset_index()) == {
        ("t", "e", "deep"): {"rho_library_size": pytest.approx(-0.1), "rho_darkness": pytest.approx(-0.8)}
    }
    same = measured(runs[:1], [called("a", [0.5] * 4)], yardsticks=YARDSTICKS).set_index("metric")
    assert same.loc["rho_library_size", "note"] == "all spots alike"


@pytest.mark.parametrize(
    ("scores", "marked"),
    [
        # 0.8 and 1: their mean is beyond 0.8
        (([0.1, 0.3, 0.2, 0.4], [0.1, 0.2, 0.3, 0.4]), ["follows library size, rho 0.90"]),
        (([0.1, 0.3, 0.2, 0.4], [0.1, 0.3, 0.2, 0.4]), []),  # 0.8 is not beyond it; darkness of b: 0.4
        ((INVERTED, [0.4, 0.3, 0.2, 0.1]), ["follows library size, rho -1.00"]),
        ((INVERTED, [0.2, 0.1, 0.3, 0.4]), ["follows darkness, rho 1.00"]),
        ((INVERTED, [0.4, 0.1, 0.2, 0.3]), []),  # -1 and -0.2, of darkness 0
    ],
)
def test_scores_that_follow_library_size_or_darkness_are_marked(scores, marked):
    runs = [run_of(variant, fold) for variant in ("deep", "oracle") for fold in "ab"]
    tables = [called(section, of) for section, of in zip("ab", scores, strict=True)] * 2
    found = marks.texts(measured(runs, tables, yardsticks=YARDSTICKS))
    assert found == ({("t", "e", "deep"): marked} if marked else {})  # a control is not marked


def test_a_mean_is_over_sections_and_seeds_and_stands_in_the_table_of_methods():
    labels = {"a": pd.DataFrame({"spot": [f"a{i}" for i in range(4)], "label": [0, 0, 1, 1], "region": ""})}
    runs = [run_of("deep", "a", 1), run_of("deep", "a", 2), run_of("deep", "b", 1), run_of("deep", "b", 2)]
    tables = [called("a", SIZES), called("a", [0.1, 0.3, 0.2, 0.4]), called("b", SIZES), called("b", SIZES)]
    table = measured(runs, tables, labels, yardsticks=YARDSTICKS)
    found = benchmark.tables(table, runs, tables, labels)["methods"]
    assert found["rho_library_size"].to_numpy() == pytest.approx(np.full(len(metrics.METRICS), 0.95))
    assert found["rho_darkness"].to_numpy() == pytest.approx(np.full(len(metrics.METRICS), 0.8))
    assert set(found["marks"]) == {"follows library size, rho 0.95"}


def test_a_crop_is_held_against_nothing():
    labels = {"a": pd.DataFrame({"spot": [f"a{i}" for i in range(4)], "label": 0, "region": ""})}
    table = measured([run_of("deep", "a")], [called("a", SIZES)], labels, yardsticks=YARDSTICKS, crops={"a": ""})
    assert not set(table["metric"]) & set(metrics.RHOS)


def test_a_table_without_a_mark_is_read_back_as_one(tmp_path):
    from ctrflow import storage

    table = measured([run_of("deep", "a")], [called("a", [0.1, 0.3, 0.2, 0.4])], yardsticks=YARDSTICKS)
    storage.write_tsv(table, tmp_path / "metrics.tsv")
    assert marks.texts(storage.read_tsv(tmp_path / "metrics.tsv")) == {}


def test_each_kind_of_mark_is_explained_once():
    (note,) = marks.notes([f"training did not lower its loss ({TEXT})"] * 2)
    assert note.startswith("“training did not lower …”: the mean total loss")
    (note,) = marks.notes(["follows darkness, rho 0.90", "follows library size, rho -0.85"])
    assert note.startswith("“follows …”: the rank correlation")
    assert marks.notes([]) == []
