"""The linear baseline: what it adds to scikit-learn."""

import tracemalloc

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import logit

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features import blocks
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.refit import refit
from ctrflow.methods import linear


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


def test_a_view_too_large_to_be_dense_gives_the_same_model_and_scores(view, monkeypatch):
    """From a LinearOperator; two sections, one without a constant gene, and spots without a label."""
    view.obs["section"] = np.repeat(["a", "b"], [20, 29])
    view.obs.loc[["s3", "s30"], "label"] = np.nan
    genes = view.X.toarray()
    genes[:20, 4] = 0.5
    view.X = sparse.csr_matrix(genes)
    options = methods.resolve_options(linear.SPEC, {"C": 0.01, "refits": 2})
    dense = linear.Model.fit(view, options, 0)
    expected = dense.score(view)
    monkeypatch.setattr(linear, "fits", lambda shape: False)
    monkeypatch.setattr(blocks, "AT_ONCE", 8)
    found = linear.Model.fit(view, options, 0)
    assert found.weights == pytest.approx(dense.weights, abs=1e-9)
    assert found.intercept == pytest.approx(dense.intercept, abs=1e-9)
    assert found.score(view) == pytest.approx(expected, abs=1e-9)
    assert abs(dense.weights).max() > 1e-3


def test_what_a_large_view_takes_does_not_grow_with_its_dense_size():
    """1,000 more genes without stored values would take 8 kB per spot if dense."""

    def peak(n_spots):
        obs = pd.DataFrame({"section": "a", "label": np.arange(n_spots) % 2.0}, index=np.arange(n_spots).astype(str))
        genes = sparse.random(n_spots, 1000, 0.01, format="csr", random_state=0)
        image = np.random.default_rng(0).random((n_spots, 2), dtype=np.float32)
        table = anndata.AnnData(
            genes, obs=obs, obsm={"image": image, "spatial": np.random.default_rng(1).random((n_spots, 2))}
        )
        options = methods.resolve_options(linear.SPEC, {"neighbours": 0})
        tracemalloc.start()
        linear.Model.fit(table, options, 0).score(table)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "fits", lambda shape: False)
        patch.setattr(blocks, "AT_ONCE", 250)
        peak(500)  # imports
        small, large = peak(2000), peak(6000)
    assert (large - small) / 4000 < 0.1 * 8 * 1002


def by_hand(view, labels, modality: str) -> np.ndarray:
    """Weights of the regression on one modality, for the spots that have it."""
    from sklearn.linear_model import LogisticRegression

    scaled = linear.features(view, [modality])
    return LogisticRegression(C=1e-4, class_weight="balanced", max_iter=1000).fit(scaled, labels).coef_[0]


def test_late_fusion_adds_a_regression_for_each_modality(view):
    """Sections a and b have a picture, section c teaches the genes alone."""
    view.obs["section"] = np.repeat(["a", "b", "c"], [20, 15, 14])
    view.obsm["image"][35:] = np.nan
    options = {"fusion": "late", "neighbours": 0}
    model = linear.Model.fit(view, methods.resolve_options(linear.SPEC, options), 0)
    labels = view.obs["label"].to_numpy()
    image, genes = by_hand(view[:35], labels[:35], "image"), by_hand(view, labels, "gene")
    assert model.weights == pytest.approx(np.concatenate([image, genes]), abs=1e-8)
    target = view[:20]
    parts = [linear.features(target, ["image"]) @ image, linear.features(target, ["gene"]) @ genes]
    expected = sum((part - part.mean()) / part.std() for part in parts)
    assert logit(model.score(target)) == pytest.approx(expected, abs=1e-5)


def test_late_fusion_of_one_modality_has_the_order_of_that_regression(view):
    late = scored(view, fusion="late", modalities=["gene"])[1]
    joint = scored(view, modalities=["gene"])[1]
    assert np.corrcoef(late, joint)[0, 1] == pytest.approx(1)


def test_a_gene_that_is_not_measured_has_no_effect(view):
    model, _ = scored(view, modalities=["gene"], neighbours=0)
    lacking = view.copy()
    genes = view.X.toarray()
    genes[:, :7] = 0
    lacking.X = sparse.csr_matrix(genes)
    left = linear.features(view, ["gene"])[:, 7:] @ model.weights[7:] + model.intercept
    assert logit(model.score(lacking)) == pytest.approx(left)


def test_pictures_of_one_class_are_refused(view):
    view.obsm["image"][view.obs["label"] == 1] = np.nan
    with pytest.raises(InputError, match="method linear: the training sections a have no spot labelled as cancer"):
        scored(view, fusion="late")


def test_late_fusion_of_a_view_too_large_to_be_dense(view, monkeypatch):
    view.obs["section"] = np.repeat(["a", "b"], [20, 29])
    view.obsm["image"][20:] = np.nan
    options = methods.resolve_options(linear.SPEC, {"fusion": "late", "C": 0.01, "refits": 1})
    dense = linear.Model.fit(view, options, 0)
    expected = dense.score(view[:20])
    monkeypatch.setattr(linear, "fits", lambda shape: False)
    monkeypatch.setattr(blocks, "AT_ONCE", 8)
    blockwise = linear.Model.fit(view, options, 0)
    assert blockwise.weights == pytest.approx(dense.weights, abs=1e-9)
    assert blockwise.score(view[:20]) == pytest.approx(expected, abs=1e-9)
