"""The threshold of a mixture with priors from the normal reference."""

import numpy as np
import pytest
from scipy import stats

from ctrflow.results import threshold


def log_posterior(scores, weight, means, variances):
    """The log posterior that MAP-EM maximises, up to a constant."""
    found = np.log(
        (1 - weight) * stats.norm.pdf(scores, means[0], np.sqrt(variances[0]))
        + weight * stats.norm.pdf(scores, means[1], np.sqrt(variances[1]))
    ).sum()
    found += stats.beta.logpdf(weight, 1, 10)
    for mean, variance in zip(means, variances, strict=True):
        found += stats.norm.logpdf(mean, 0, np.sqrt(variance / 0.01))
        found += stats.invgamma.logpdf(variance, 3 / 2, scale=3 / 2)
    return found


def test_it_ends_at_a_mode_of_the_posterior():
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(0.5, 1, 300), rng.normal(6, 1.5, 100)])
    fitted = threshold.map_em(scores)
    weight, means, variances = fitted.weights[1], np.array(fitted.means), np.array(fitted.variances)
    best = log_posterior(scores, weight, means, variances)
    for step in (-0.02, 0.02):
        assert log_posterior(scores, weight + step, means, variances) < best
        for i in range(2):
            moved = np.where(np.arange(2) == i, step * 5, 0)
            assert log_posterior(scores, weight, means + moved, variances) < best
            assert log_posterior(scores, weight, means, variances * np.exp(moved)) < best


def test_as_many_spots_are_called_as_the_anomalous_component_weighs():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [150, 50])
    scores = np.where(truth, rng.normal(10, 1, 200), rng.normal(0, 1, 200))
    fitted = threshold.map_em(scores)
    # (a - 1 + R) / (a + b - 2 + n) = 50 / 209; 50 / 209 * 200 = 47.8
    assert fitted.weights[1] == pytest.approx(50 / 209, abs=1e-3)
    calls = fitted.call(scores)
    assert calls.sum() == 48
    assert set(truth[calls == 1]) == {1}
    assert fitted.branch == "map_em"
    assert fitted.means[0] < fitted.means[1]


def test_the_components_update_as_worked_by_hand():
    # two scores 1 and 3, both of this component: k = 2.01, mean = 4 / 2.01, v s2 = 3 + 10 - 2.01 mean^2, over v + 3 = 8
    mean, variance = threshold._component(np.array([1.0, 3.0]), np.ones(2))
    assert mean == pytest.approx(4 / 2.01)
    assert variance == pytest.approx((13 - 2.01 * (4 / 2.01) ** 2) / 8)


def test_equal_scores_have_no_threshold():
    assert threshold.fit(np.ones(9), "map_em").threshold is None
