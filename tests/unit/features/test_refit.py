"""Refitting scores to a section's own features."""

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from ctrflow.features import blocks
from ctrflow.features import refit as refits
from ctrflow.features.blocks import Features
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.refit import COMPONENTS, RIDGE, refit


def grid(side):
    return np.array([(x, y) for y in range(side) for x in range(side)], dtype=float)


def two_tissues(side=12, seed=0):
    """Features of a section whose left half is one tissue, and scores that know it poorly."""
    rng = np.random.default_rng(seed)
    xy = grid(side)
    truth = (xy[:, 0] < side / 2).astype(float)
    features = rng.normal(size=(len(xy), 40)) + truth[:, None] * rng.normal(size=40)
    logits = 0.5 * truth + rng.normal(size=len(xy)) - 3
    around = nearest_within(xy, np.repeat("s", len(xy)), 6)
    return truth, features, logits, around


def auc(truth, values):
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(truth, values)


def test_zero_rounds_change_nothing():
    _, features, logits, around = two_tissues()
    assert refit(logits, features, np.repeat("s", len(logits)), around, 0) is logits


def test_one_round_is_a_ridge_regression_of_the_averaged_logits():
    """Against the normal equations, with fewer features than components: no component is dropped."""
    _, features, logits, around = two_tissues()
    features = features[:, :10]
    n, p = features.shape
    averaged = logits[around].mean(axis=1)
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    weights = np.linalg.solve(x.T @ x + RIDGE * n * p / min(n, p) * np.eye(p), x.T @ (averaged - averaged.mean()))
    expected = (x @ weights)[around].mean(axis=1)
    expected = averaged.mean() + averaged.std() * (expected - expected.mean()) / expected.std()
    assert refit(logits, features, np.repeat("s", n), around, 1) == pytest.approx(expected, abs=1e-9)


def test_it_keeps_what_the_section_supports():
    truth, features, logits, around = two_tissues()
    sections = np.repeat("s", len(logits))
    found = refit(logits, features, sections, around, 4)
    assert auc(truth, logits[around].mean(axis=1)) < 0.95 < auc(truth, found)
    assert auc(truth, refit(-logits, features, sections, around, 4)) < 0.05  # the direction is the model's


def test_mean_and_spread_are_kept():
    _, features, logits, around = two_tissues()
    averaged = logits[around].mean(axis=1)
    found = refit(logits, features, np.repeat("s", len(logits)), around, 3)
    assert (found.mean(), found.std()) == pytest.approx((averaged.mean(), averaged.std()))


def test_sections_are_fitted_separately():
    first, second = two_tissues(seed=1), two_tissues(side=9, seed=2)
    n = len(first[0])
    order = np.random.default_rng(0).permutation(n + len(second[0]))  # rows of both, mixed
    features = np.vstack([first[1], second[1]])[order]
    logits = np.concatenate([first[2], second[2]])[order]
    place = np.argsort(order)
    around = place[np.vstack([first[3], second[3] + n])][order]
    sections = np.repeat(["a", "b"], [n, len(second[0])])[order]
    found = refit(logits, features, sections, around, 2)[place]
    for part, (_, features, logits, around) in ((found[:n], first), (found[n:], second)):
        alone = refit(logits, features, np.repeat("s", len(logits)), around, 2)
        assert part == pytest.approx(alone, abs=1e-8)


@pytest.mark.parametrize("spots", [1, 2, 3])
def test_tiny_sections(spots):
    xy = grid(2)[:spots]
    sections = np.repeat("s", spots)
    around = nearest_within(xy, sections, 6)
    logits = np.arange(spots, dtype=float)
    found = refit(logits, np.random.default_rng(0).random((spots, 5)), sections, around, 4)
    assert found.shape == (spots,)
    assert np.isfinite(found).all()


def test_constant_features_or_logits_give_the_average():
    _, features, logits, around = two_tissues()
    sections = np.repeat("s", len(logits))
    averaged = logits[around].mean(axis=1)
    assert refit(logits, np.ones_like(features), sections, around, 4) == pytest.approx(averaged)
    assert refit(np.full(len(logits), -2.0), features, sections, around, 4) == pytest.approx(-2.0)


def test_more_features_than_components():
    rng = np.random.default_rng(0)
    xy = grid(10)
    sections = np.repeat("s", 100)
    found = refit(
        rng.normal(size=100), rng.normal(size=(100, 3 * COMPONENTS)), sections, nearest_within(xy, sections, 6), 2
    )
    assert np.isfinite(found).all()


def test_a_large_section_is_refitted_by_products_only(monkeypatch):
    """The same to rounding where components tell tissue from noise; 10 varying features, all of them kept."""
    _, features, logits, around = two_tissues()
    genes = sparse.csr_matrix(np.where(features[:, :9] > 0, features[:, :9], 0))
    view = AnnData(genes, obsm={"image": np.column_stack([features[:, 9], np.ones(len(features))])})
    sections = np.repeat(["s", "t"], [100, 44])
    around = nearest_within(grid(12), sections, 6)
    whole = Features(view, ["gene", "image"])
    expected = refit(logits, whole[np.arange(144)], sections, around, 3)
    monkeypatch.setattr(refits, "fits", lambda shape: False)
    monkeypatch.setattr(blocks, "AT_ONCE", 30)
    assert refit(logits, whole, sections, around, 3) == pytest.approx(expected, abs=1e-9)
    assert abs(expected - logits).max() > 0.1
