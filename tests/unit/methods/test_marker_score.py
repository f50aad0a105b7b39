"""The marker score against a loop over spots."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import methods
from ctrflow.features.neighbours import nearest
from ctrflow.methods import marker_score

GENES = ["ACTB", "EPCAM", "MUC1", "FLAT"]


@pytest.fixture
def view():
    rng = np.random.default_rng(0)
    n = 49
    values = rng.random((n, 4)).astype(np.float32)
    values[:, 3] = 2  # the same everywhere
    values[:20, 1:3] += 3  # cancer
    found = anndata.AnnData(
        sparse.csr_matrix(values),
        obs=pd.DataFrame({"section": "a"}, index=[f"s{i}" for i in range(n)]),
        var=pd.DataFrame(index=GENES),
        obsm={"spatial": np.column_stack([np.arange(n) % 7, np.arange(n) // 7]).astype(float)},
    )
    sets = ["epithelial", "tumour", "tumour", "tumour"]
    table = pd.DataFrame({"gene": ["EPCAM", "MUC1", "FLAT", "ABSENT"], "set": sets, "source": "x"})
    found.uns["markers"] = {"a": table}
    return found


def scored(view, **given):
    options = methods.resolve_options(marker_score.SPEC, given)
    return marker_score.Model.from_tensors({}, options, 0).score(view)


def test_mean_z_score_over_the_neighbourhood(view):
    values = view.X.toarray().astype(float)
    own = sum((values[:, i] - values[:, i].mean()) / values[:, i].std() for i in (1, 2)) / 3  # FLAT adds 0
    assert scored(view, neighbours=0) == pytest.approx(own)
    around = nearest(view.obsm["spatial"], 6)
    assert scored(view) == pytest.approx([own[rows].mean() for rows in around])


def test_sets_choose_the_markers(view):
    values = view.X[:, 1].toarray().ravel().astype(float)
    assert scored(view, sets=["epithelial"], neighbours=0) == pytest.approx((values - values.mean()) / values.std())


def test_spots_rich_in_markers_score_higher(view):
    found = scored(view)
    assert found[:14].min() > found[28:].max()


def test_each_section_by_itself(view):
    other = view.copy()
    other.X = other.X * 3 + sparse.csr_matrix(np.ones(other.shape, np.float32))
    other.obs["section"] = "b"
    both = anndata.concat([view, other], index_unique="-")
    both.uns["markers"] = {"a": view.uns["markers"]["a"], "b": view.uns["markers"]["a"]}
    found = scored(both)
    assert found[:49] == pytest.approx(scored(view))
    assert found[49:] == pytest.approx(scored(view), abs=1e-5)  # z-scores do not see scale and offset
