"""Refit a section's scores to the section's own features (docs/enhanced.md), without labels.

A model trained on other sections gets the direction right but the details wrong: stain, depth and subtype differ. What
varies most within a section, and slowly in space, is its tissue. So scores are averaged over neighbourhoods and
regressed on the section's leading principal components, for some rounds: what the section itself supports is kept.
"""

import numpy as np

from ctrflow.features.blocks import Features, section_rows
from ctrflow.features.scaling import Scaled, fits

COMPONENTS = 50  # with 20 to 200 the results are the same
OVERSAMPLES, POWERS = 10, 7  # as scikit-learn's
RIDGE = 10.0  # times the mean variance of all components: weaker ones are suppressed


def refit(
    logits: np.ndarray, features: np.ndarray | Features, sections: np.ndarray, around: np.ndarray, rounds: int
) -> np.ndarray:
    """Logits after `rounds` of averaging and regression; 0 leaves them as they are.

    Parameters
    ----------
    logits : (spots,)
    features : (spots x features); `Features` of a view if they do not fit into memory dense
    sections : (spots,) section ids; each is fitted separately
    around : (spots x tokens) rows of the spot itself and its neighbours in its section

    Returns
    -------
    (spots,) with the mean and spread of the section's averaged logits. For a section with fewer than 3 spots, constant
    features or constant logits, the averaged logits.
    """
    if not rounds:
        return logits
    result = logits[around].mean(axis=1)
    for _, rows in section_rows(sections):
        local = np.searchsorted(rows, around[rows])
        result[rows] = _refit_section(result[rows], _components(features, rows), local, rounds)
    return result


def held(
    start: np.ndarray,
    features: np.ndarray | Features,
    around: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    rounds: int,
) -> np.ndarray:
    """Known values of some spots spread over their section: rounds of the refit, each of which sets them anew.

    Parameters
    ----------
    start : (spots,) values of all spots of one section to begin with
    features, around : as for `refit`
    rows, values : the spots whose values are known, and the values

    Returns
    -------
    (spots,) with mean 0 and sd 1; 0 for a section that has nothing to spread over: fewer than 3 spots, or all alike
    """
    basis, kept = _components(features, np.arange(len(start)))
    spread = np.array(start, dtype=float)
    for _ in range(rounds):
        spread[rows] = values
        spread = _round(spread, basis, kept, around)
        size = spread.std()
        if size < 1e-12:
            return np.zeros(len(start))
        spread = (spread - spread.mean()) / size
    return spread


def _round(values: np.ndarray, basis: np.ndarray, kept: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Values regressed on the components, and averaged over neighbourhoods."""
    values = basis @ (kept * (basis.T @ (values - values.mean())))
    return values[around].mean(axis=1)


def _refit_section(averaged: np.ndarray, components: tuple, around: np.ndarray, rounds: int) -> np.ndarray:
    mean, spread = averaged.mean(), averaged.std()
    basis, kept = components
    if not len(kept) or spread < 1e-12:
        return averaged
    values = averaged
    for _ in range(rounds):
        values = _round(values, basis, kept, around)
        size = values.std()
        if size < 1e-12:
            return averaged
        values = values / size  # a round shrinks them
    return mean + spread * (values - values.mean()) / values.std()


def _components(features: np.ndarray | Features, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal scores of the leading components of z-scored features, and the ridge shrinkage of each."""
    n = len(rows)
    if isinstance(features, Features) and not fits((n, features.shape[1])):
        basis, singular, varying = _leading_of_view(features, rows)
    else:
        basis, singular, varying = _leading(np.asarray(features[rows], dtype=np.float64))
    variance = singular**2
    total = n * varying  # of z-scored features
    return basis, variance / (variance + RIDGE * total / max(min(n, varying), 1))


def _leading(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Leading left singular vectors and values of z-scored features; how many features vary."""
    from sklearn.utils.extmath import randomized_svd

    sd = features.std(axis=0)
    varying = sd > 1e-9
    n = len(features)
    count = min(COMPONENTS, n - 1, int(varying.sum()))
    if n < 3 or count < 1:
        return np.empty((n, 0)), np.empty(0), 0
    scaled = (features[:, varying] - features[:, varying].mean(axis=0)) / sd[varying]
    basis, singular, _ = randomized_svd(scaled, count, random_state=0)
    return basis, singular, varying.sum()


def _leading_of_view(features: Features, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The same for a large section, by matrix products only: the algorithm of `randomized_svd` (Halko et al. 2011)."""
    scaled = Scaled(features.of(rows), np.zeros(len(rows)), "zscore")
    varying = int((scaled.scale[0] != 1.0).sum())  # a constant feature is divided by 1
    count = min(COMPONENTS, varying)
    if count < 1:
        return np.empty((len(rows), 0)), np.empty(0), 0
    product = scaled.operator()
    basis = np.random.default_rng(0).normal(size=(scaled.shape[1], count + OVERSAMPLES))
    for _ in range(POWERS):
        basis = np.linalg.qr(product @ basis)[0]
        basis = np.linalg.qr(product.T @ basis)[0]
    basis = np.linalg.qr(product @ basis)[0]
    turned, singular, _ = np.linalg.svd((product.T @ basis).T, full_matrices=False)
    return basis @ turned[:, :count], singular[:count], varying
