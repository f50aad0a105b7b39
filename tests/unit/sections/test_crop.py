"""The tumour-free crop of a section: which spots are left, and when there are too few."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from ctrflow import storage
from ctrflow.errors import InputError
from ctrflow.sections import crop


def section(labels: list) -> tuple:
    """Spots s0, s1, ... with their number as the only count, and their labels in the other order."""
    names = [f"s{i}" for i in range(len(labels))]
    counts = sparse.csr_matrix(np.arange(len(labels), dtype=np.float32)[:, None])
    spots = AnnData(counts, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=["gene"]))
    spots.obsm["spatial"] = np.column_stack([np.arange(len(labels)), np.zeros(len(labels))])
    spots.uns["section"] = {"section": "A", "patient": "P", "um_per_px": 0.5}
    table = pd.DataFrame({"spot": names, "label": labels, "region": [f"r{i}" for i in range(len(labels))]})
    return spots, table[::-1]


def made(labels: list) -> tuple:
    return crop.tumour_free(*section(labels), "A.tumour_free")


def test_the_spots_labelled_0_are_left_with_their_counts_places_and_regions():
    labels = [0, 1, np.nan] * 20
    spots, table, facts = made(labels)
    left = [f"s{i}" for i in range(0, 60, 3)]
    assert list(spots.obs_names) == list(table.spot) == left
    assert spots.X.toarray().ravel().tolist() == spots.obsm["spatial"][:, 0].tolist() == list(range(0, 60, 3))
    assert table.label.tolist() == [0] * 20
    assert table.region.tolist() == [f"r{i}" for i in range(0, 60, 3)]
    assert spots.uns["section"] == {"section": "A.tumour_free", "patient": "P", "um_per_px": 0.5}
    assert facts == {
        "section": "A.tumour_free", "crop_of": "A", "spots": 20, "share": 0.33333,
        "judged": False, "reason": "20 spots left, fewer than 100",
    }  # fmt: skip


def test_the_section_itself_is_not_changed():
    spots, table = section([0] * 30 + [1] * 10)
    crop.tumour_free(spots, table, "A.tumour_free")
    assert (spots.n_obs, spots.uns["section"]["section"]) == (40, "A")


def test_fewer_than_20_spots_are_refused_with_the_cure():
    text = "section A: 19 spots are labelled 0, but a tumour-free crop needs 20; leave the section out of `target`"
    with pytest.raises(InputError, match=text):
        made([0] * 19 + [1] * 200 + [np.nan] * 200)


@pytest.mark.parametrize(
    ("left", "of", "reason"),
    [
        (100, 333, ""),
        (99, 99, "99 spots left, fewer than 100"),
        (300, 1000, ""),
        (299, 1000, "299 of 1000 spots left, less than 30 %"),
    ],
)
def test_a_small_crop_or_a_small_share_is_not_judged(left, of, reason):
    assert crop.why_not_judged(left, of) == reason
    _, _, facts = made([0] * left + [1] * (of - left))
    assert (facts["judged"], facts["reason"]) == (not reason, reason)


def test_files_are_as_of_any_section(tmp_path):
    spots, table, facts = made([0, 1] * 120)
    storage.write_h5ad(spots, tmp_path / "spots.h5ad")
    storage.write_tsv(table, tmp_path / "labels.tsv")
    storage.write_json(facts, tmp_path / "crop.json")
    assert (tmp_path / "labels.tsv").read_text().splitlines()[:2] == ["spot\tlabel\tregion", "s0\t0\tr0"]
    assert storage.read_h5ad(tmp_path / "spots.h5ad").uns["section"]["section"] == "A.tumour_free"
    assert storage.read_json(tmp_path / "crop.json")["judged"] is True


def test_features_are_those_of_the_same_spots():
    spots, _, _ = made([1, 0] * 20)
    features = AnnData(np.arange(40.0)[::-1, None], obs=pd.DataFrame(index=[f"s{i}" for i in range(39, -1, -1)]))
    features.uns["encoder"] = {"digest": "abc"}
    own = crop.same_spots(features, spots)
    assert list(own.obs_names) == list(spots.obs_names)
    assert own.X.ravel().tolist() == list(range(1, 40, 2))
    assert own.uns["encoder"] == {"digest": "abc"}
    with pytest.raises(InputError, match=r"section A\.tumour_free: the embedding of its section lacks 1 of its spots"):
        crop.same_spots(features[features.obs_names != "s3"], spots)
