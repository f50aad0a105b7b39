"""The linear baseline: what it adds to scikit-learn."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import logit

from ctrflow import methods
from ctrflow.methods import linear
from ctrflow.neighbours import nearest_within
from ctrflow.refit import refit


@pytest.fixture
def view():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"section": "a", "label": np.arange(49) % 2.0}, index=[f"s{i}" for i in range(49)])
    xy = np.column_stack([np.arange(49) % 7, np.arange(49) // 7]).astype(float)
    genes = sparse.csr_matrix(rng.random((49, 20)))
    return anndata.AnnData(genes, obs=obs, obsm={"spatial": xy, "image": rng.random((49, 5))})


def scored(view, **given):
    model = linear.Model.fit(view, methods.resolve_options(linear.SPEC, given), 0)
    return model, logit(model.score(view))


def test_logits_are_averaged_over_the_neighbourhood(view):
    model, plain = scored(view, neighbours=0)
    matrix = linear.features(view, ["image", "gene"])
    assert plain == pytest.approx(matrix @ model.weights + model.intercept)
    around = nearest_within(view.obsm["spatial"], np.repeat("a", 49), 6)
    assert scored(view)[1] == pytest.approx([plain[rows].mean() for rows in around])


def test_refits_are_of_its_logits_and_features(view):
    plain = scored(view, neighbours=0)[1]
    sections = np.repeat("a", 49)
    around = nearest_within(view.obsm["spatial"], sections, 6)
    expected = refit(plain, linear.features(view, ["image", "gene"]), sections, around, 3)
    assert scored(view, refits=3)[1] == pytest.approx(expected)
