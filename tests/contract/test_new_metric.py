"""A metric is one entry: added to `METRICS`, it is in every table and in the report without another edit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import recipes

ROOT = Path(__file__).parents[2]
FUNCTION = """def specificity(truth, calls):
    return np.sum(~truth & ~calls) / np.sum(~truth)


def weighted_specificity(drawn):
    negatives = drawn.ranking.negatives
    return 1 - drawn.ranking.called[negatives] @ drawn.weights[negatives] / drawn.n


"""
LINE = """
    Metric(
        "specificity", "Specificity", specificity, needs="mixture", on_maps=True, paired=True,
        weighted=weighted_specificity,
    ),"""
STUDY = """
import json, sys
from pathlib import Path
import reports
from ctrflow import report
from ctrflow.results import benchmark, metrics, published
folder = Path(sys.argv[1])
content = reports.study()
content["metrics"].to_csv(folder / "metrics.tsv", sep="\\t", index=False)
for name, table in content["benchmark"].items():
    table.to_csv(folder / f"{name}.tsv", sep="\\t", index=False)
report.write_report(content, folder / "report.html")
spots = {
    entry["section"]: [entry["labels"].tolist(), run["calls"].tolist()]
    for entry in content["sections"] if entry["labels"] is not None
    for run in entry["runs"] if run["variant"] == "linear"
}
(folder / "spots.json").write_text(json.dumps({"spots": spots, "ours": published.OURS}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The results of the simulated study in a copy of the library with one more metric."""
    folder = tmp_path_factory.mktemp("metric")
    recipes.copy_library(folder)
    path = recipes.file(folder, "results", "metrics")
    before, table = path.read_text().split("METRICS = (", 1)
    lines, after = table.split("\n)\n", 1)
    path.write_text(f"{before}{FUNCTION}METRICS = ({lines}{LINE}\n)\n{after}")
    places = os.pathsep.join(map(str, (folder / "scripts", ROOT / "tests")))
    subprocess.run([sys.executable, "-c", STUDY, folder], check=True, env={**os.environ, "PYTHONPATH": places})
    return folder


@pytest.fixture(scope="module")
def by_hand(found):
    """Section -> the specificity of `linear`, which has one seed."""
    spots = json.loads((found / "spots.json").read_text())["spots"]
    pairs = {section: np.array(both, dtype=float) for section, both in spots.items()}
    return {section: np.mean(calls[labels == 0] == 0) for section, (labels, calls) in pairs.items()}


def test_it_is_measured(found, by_hand):
    rows = pd.read_csv(found / "metrics.tsv", sep="\t", keep_default_na=False)
    rows = rows[(rows["metric"] == "specificity") & (rows["variant"] == "linear")].set_index("section")
    assert {"st_one", "visium_two"} == set(by_hand)
    for section, value in by_hand.items():
        assert 0 < value < 1
        assert float(rows.loc[section, "value"]) == pytest.approx(value)
    assert rows.loc["mine", "note"] == "not labelled"


def test_it_has_a_mean_a_rank_an_interval_and_pairs(found, by_hand):
    methods = pd.read_csv(found / "methods.tsv", sep="\t")
    rows = methods[methods["metric"] == "specificity"].set_index("variant")
    assert rows.loc["linear", "mean"] == pytest.approx(np.mean(list(by_hand.values())))
    assert rows.loc[["deep", "linear"], "mean_rank"].sum() == 3  # 1 and 2 among those that learned from labels
    assert rows.loc["linear", "low"] < rows.loc["linear", "mean"] < rows.loc["linear", "high"]
    pairs = pd.read_csv(found / "pairs.tsv", sep="\t")
    assert len(pairs[pairs["metric"] == "specificity"]) == len(pairs[pairs["metric"] == "auc"]) == 3


def test_the_report_shows_it(found):
    page = (found / "report.html").read_text()
    assert '<th scope="col" class="n">Specificity</th>' in page
    assert "Specificity by section" in page
    assert '["Specificity",' in page  # next to the maps


def test_a_printed_name_can_stand_for_it(found):
    assert "specificity" in json.loads((found / "spots.json").read_text())["ours"]
