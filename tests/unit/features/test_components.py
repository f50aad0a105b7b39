"""Principal components and neighbourhood means."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ctrflow.features.components import averaged, clipped, principal_axes


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


def test_a_single_outlier_is_cut():
    assert clipped(np.array([-55.0, -3, 0, 10, 54], dtype=np.float32)).tolist() == [-10, -3, 0, 10, 10]


def test_means_over_neighbourhoods():
    values = np.array([[0.0, 1], [3, 1], [6, 4]])
    found = averaged(values, np.array([[0, 1, 2], [1, 1, 1], [2, 1, 1]]))
    assert found.tolist() == [[3, 2], [3, 1], [4, 2]]
    assert averaged(values.astype(np.float32), np.array([[0, 1]])).dtype == np.float32
