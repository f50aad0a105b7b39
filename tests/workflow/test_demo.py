"""The demo, from nothing to the report."""

import re

import pandas as pd
import pytest

from runs import copy_workflow, good


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A fresh copy in which the default command has run, and what it said."""
    folder = copy_workflow(tmp_path_factory.mktemp("demo") / "repo")
    return folder, good(folder, "--cores", "2")


@pytest.fixture(scope="module")
def auc(demo):
    """AUC by task, section and method, mean over seeds."""
    metrics = pd.read_csv(demo[0] / "results/demo/metrics.tsv", sep="\t")
    return metrics[metrics.metric == "auc"].groupby(["task", "section", "method"])["value"].mean().unstack()


def test_it_says_where_the_report_is_and_does_nothing_twice(demo):
    folder, output = demo
    assert "results/demo/report.html" in output
    assert "Nothing to be done" in good(folder, "--cores", "2")


def test_the_oracle_is_perfect(auc):
    labelled = auc.dropna(subset=["oracle"])
    assert len(labelled) == 6
    assert (labelled["oracle"] == 1.0).all()


@pytest.mark.parametrize("method", ["linear", "spacrd"])
def test_methods_beat_random_clearly(auc, method):
    labelled = auc.dropna(subset=["oracle"])
    assert (labelled[method] > labelled["random"] + 0.1).all()
    assert labelled[method].mean() > 0.8
    assert abs(labelled["random"].mean() - 0.5) < 0.1


def test_the_report_stands_alone_and_shows_every_target(demo, auc):
    page = (demo[0] / "results/demo/report.html").read_text()
    for section in auc.index.get_level_values("section"):
        assert section in page
    assert "imulated" in page
    assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=[\"']https?:", page)


def test_all_platforms_went_the_whole_way(demo):
    folder = demo[0]
    summary = pd.read_csv(folder / "results/demo/export/summary.tsv", sep="\t")
    assert {"demo_A1", "demo_B1", "demo_C1", "demo_D1", "demo_visium", "demo_xenium"} <= set(summary.section)
    assert (summary.spots >= 250).all()
    for name in set(summary.section):
        assert (folder / f"results/demo/figures/{name}.png").is_file()
