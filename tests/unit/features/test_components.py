"""Principal components, random projections and neighbourhood means."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ctrflow.features.components import averaged, clipped, principal_axes, random_axes


def test_axes_are_those_of_pca():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(80, 6)) * [9, 7, 5, 3, 2, 1]) @ rng.normal(size=(6, 30)) + 4
    axes, expected = principal_axes(features, 4), PCA(4, svd_solver="full").fit(features).components_.T
    assert axes.shape == (30, 4)
    assert np.abs(np.sum(axes * expected, axis=0)) == pytest.approx(1)  # but for the sign
    assert axes.T @ axes == pytest.approx(np.eye(4), abs=1e-9)


@pytest.mark.parametrize(("shape", "count"), [((5, 30), 4), ((30, 3), 3), ((1, 30), 0)])
def test_the_number_of_axes_is_limited_by_rows_and_features(shape, count):
    assert principal_axes(np.random.default_rng(0).normal(size=shape), 10).shape == (shape[1], count)


def test_axes_are_the_same_twice():
    features = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    assert (principal_axes(features, 5) == principal_axes(features, 5)).all()


def test_a_random_projection_keeps_distances_that_principal_axes_lose():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(30, 4)) @ np.linalg.qr(rng.normal(size=(500, 4)))[0].T
    outside = np.linalg.qr(np.vstack([reference, rng.normal(size=(1, 500))]).T)[0][:, 30:] * 7
    axes = principal_axes(reference, 4)
    assert np.linalg.norm(outside.T @ axes) < 1e-6
    lengths = [np.linalg.norm(outside.T @ random_axes(500, 400, seed)) for seed in range(20)]
    assert np.square(lengths).mean() == pytest.approx(49, rel=0.05)  # sd of one square: 7 %
    assert np.square(lengths) == pytest.approx(49, rel=0.25)


def test_random_axes_depend_only_on_the_seed_and_are_no_more_than_the_features():
    assert (random_axes(50, 20, 3) == random_axes(50, 20, 3)).all()
    assert (random_axes(50, 20, 3) != random_axes(50, 20, 4)).any()
    assert (random_axes(20, 50, 3) == np.eye(20)).all()
    assert random_axes(50, 20, 3).dtype == np.float32


def test_a_single_outlier_is_cut():
    assert clipped(np.array([-55.0, -3, 0, 10, 54], dtype=np.float32)).tolist() == [-10, -3, 0, 10, 10]


def test_means_over_neighbourhoods():
    values = np.array([[0.0, 1], [3, 1], [6, 4]])
    found = averaged(values, np.array([[0, 1, 2], [1, 1, 1], [2, 1, 1]]))
    assert found.tolist() == [[3, 2], [3, 1], [4, 2]]
    assert averaged(values.astype(np.float32), np.array([[0, 1]])).dtype == np.float32
