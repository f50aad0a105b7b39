"""No drawn spot, nor one beside it, is counted in a metric of what the drawing taught."""

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ctrflow.results import benchmark, calls, metrics, scores
from ctrflow.results.verdict import Facts

RUN = {
    "task": "w", "fold": "A", "encoder": "none", "variant": "m", "method": "strokes", "regime": "drawn",
    "reference": "drawn", "seed": 1, "threshold": "zero",
}  # fmt: skip
SPOTS = [f"s{n}" for n in range(40)]
NEAR = np.arange(40) % 4 == 0


@pytest.fixture
def study():
    """Scores that are right where something was drawn and random elsewhere."""
    rng = np.random.default_rng(0)
    truth = (np.arange(40) % 8 < 4).astype(float)
    values = np.where(NEAR, 10 * truth - 5, rng.normal(size=40))
    table = pd.DataFrame({"section": "A", "spot": SPOTS, "score": values, "probability": np.nan, "near": NEAR.astype(int)})
    table = table.assign(call=(values > 0).astype(int), call_mixture=(values > 0).astype(int))
    return table, {"A": pd.DataFrame({"spot": SPOTS, "label": truth, "region": "x"})}, truth, values


def found_in(table, labels):
    verdicts = [{"A": {"verdict": ""}}]
    rows = metrics.study_table("s", [RUN], [table], labels, {"A": "p"}, verdicts)
    return rows.set_index("metric")["value"]


def test_metrics_are_of_the_other_spots(study):
    table, labels, truth, values = study
    found, rest = found_in(table, labels), ~NEAR
    assert found["n_spots"] == rest.sum() == 30
    assert found["auc"] == roc_auc_score(truth[rest], values[rest]) != roc_auc_score(truth, values)
    called = values > 0
    expected = (called[rest & (truth == 1)].mean() + 1 - called[rest & (truth == 0)].mean()) / 2
    assert found["balanced_accuracy"] == pytest.approx(expected)
    # whatever is scored where something was drawn
    other = table.assign(score=np.where(NEAR, -table["score"], table["score"]))
    other["call"] = np.where(NEAR, 1 - other["call"], other["call"])
    other["call_mixture"] = np.where(NEAR, 1 - other["call_mixture"], other["call_mixture"])
    names = [metric.name for metric in metrics.METRICS]
    pd.testing.assert_series_equal(found_in(other, labels)[names], found[names])


def test_intervals_are_of_the_other_spots(study):
    table, labels, truth, values = study
    drawn = benchmark.resample([RUN], [table], labels, draws=200)[("w", "none", "m", "A")]
    rest = table[~NEAR].drop(columns="near")
    alone = {"A": labels["A"][~NEAR]}
    assert np.array_equal(drawn, benchmark.resample([RUN], [rest], alone, draws=200)[("w", "none", "m", "A")])
    everywhere = benchmark.resample([RUN], [table.drop(columns="near")], labels, draws=200)
    assert drawn[0].mean() < everywhere[("w", "none", "m", "A")][0].mean() - 0.05


def test_the_report_and_figures_hide_the_labels_there(study):
    table, labels, truth, _ = study
    hidden = scores.judged(truth, SPOTS, [table])
    assert np.isnan(hidden[NEAR]).all() and np.array_equal(hidden[~NEAR], truth[~NEAR])
    # another draw hides others too
    more = scores.judged(truth, SPOTS, [table, table.assign(near=np.roll(table["near"], 1))])
    assert np.isnan(more).sum() == 20
    assert scores.judged(truth, SPOTS, [table.drop(columns="near")]) is not None
    assert not np.isnan(scores.judged(truth, SPOTS, [table.drop(columns="near")])).any()


def test_such_methods_are_a_group_of_their_own():
    assert benchmark.group("labelled_source", "drawn") == benchmark.group("drawn", "drawn") == benchmark.TAUGHT
    assert benchmark.group("control", "drawn") == benchmark.CONTROL


def test_calls_are_as_they_were_drawn(study):
    """Whatever the scores say; those of the threshold alone, and of a table without a drawing, stay."""
    table = study[0].drop(columns=["call", "call_mixture"])
    drawn = np.where(NEAR, table["score"] < 0, np.nan)
    where = anndata.AnnData(np.zeros((40, 1), dtype=np.float32), obs=pd.DataFrame(index=SPOTS))
    where.obsm["spatial"] = np.column_stack([np.arange(40), np.zeros(40)])
    given = {"A": Facts()}, {"A": where}, "zero"
    found = calls.call_sections(table.assign(drawn=drawn), *given)[0]
    above = (table["score"] >= 0).to_numpy()
    assert np.array_equal(found["call"], np.where(NEAR, ~above, above))
    assert np.array_equal(found["call_mixture"], above)
    assert np.array_equal(calls.call_sections(table, *given)[0]["call"], above)
