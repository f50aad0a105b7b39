"""The study `example`, the first look at a real section, from copies of its public files to its report."""

from pathlib import Path

import anndata
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import public_copies
from runs import SNAKEMAKES, copy_workflow, good, jobs

SECTION = "example_B4"

pytestmark = public_copies.needed


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> tuple[Path, str]:
    """The results of the study, and what the run said."""
    base = tmp_path_factory.mktemp("example")
    mirror = public_copies.data_root(base / "mirror")
    repo = copy_workflow(base / "repo")
    told = good(repo, *SNAKEMAKES, "--cores", "2", "--config", "study=example", f"data_root={mirror}")
    return repo / "results" / "example", told


def test_three_files_are_fetched_and_nothing_is_trained(example):
    counts = jobs(example[1])
    assert counts["fetch_file"] == 3
    assert not counts.keys() & {"unpack_member", "train_method", "label_section"}


def test_the_map_finds_the_tumour(example):
    exported = anndata.read_h5ad(example[0] / f"export/{SECTION}/{SECTION}.h5ad").obs
    # transferred from the section of this patient that the pathologist read; the model has seen neither
    labels = pd.read_csv(public_copies.HER2ST / "labels" / "B4.tsv", sep="\t", index_col=0)["is_cancer"].dropna()
    both = exported.index.intersection(labels.index)
    assert len(exported) == 283
    assert len(both) == 254
    assert roc_auc_score(labels[both], exported.loc[both, "score_breast_image"]) >= 0.98
    called = exported.loc[both, "call_breast_image"] == "cancer"
    assert (called == (labels[both] == 1)).mean() > 0.9


def test_the_report_says_what_it_is(example):
    page = (example[0] / "report.html").read_text()
    for words in (
        "trained on five other patients", "No section is labelled", "models/without_B/breast/image.safetensors",
        "HER2ST section B4 (Andersson et al. 2021)",
    ):  # fmt: skip
        assert words in page


def test_map_and_exports_are_there(example):
    results = example[0]
    assert (results / f"figures/{SECTION}.png").read_bytes()[:4] == b"\x89PNG"
    export = results / "export" / SECTION
    assert len(pd.read_csv(export / f"{SECTION}.loupe.csv")) == 283
    assert (export / f"{SECTION}.spatialdata.zarr").is_dir()
    assert list((export / "qupath").glob("*.geojson"))
    assert pd.read_csv(results / "export/summary.tsv", sep="\t").section.tolist() == [SECTION]
