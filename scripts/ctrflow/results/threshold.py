"""The label-free threshold of a section's scores.

`mixture`: the crossing of the two components of a Gaussian mixture (METHODS.md 1.9). `map_em`: the quantile given by
the weight of the anomalous component of a mixture with priors from the normal reference (METHODS.md 2.6). `zero`: 0, for
scores that have their threshold there.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

# METHODS.md 2.6
BETA = (1, 10)
PRIOR_COUNT = 0.01
PRIOR_DEGREES = 3
EM_ROUNDS = 100
EM_TOLERANCE = 1e-5
LEAST_SPREAD = 1e-100  # below it fourth powers of differences underflow in double precision and no fit is possible


@dataclass(frozen=True)
class Threshold:
    """A threshold and its mixture; `branch` is the rule that gave it.

    branch: "crossing" (the root between the means), "linear" (equal variances), "midpoint" (no root between the
    means), "map_em", "zero", or "constant" (all scores equal within double precision: nothing is called).
    """

    threshold: float | None
    branch: str
    means: tuple[float, ...] = ()
    variances: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()

    def call(self, scores: np.ndarray) -> np.ndarray:
        """1 if the score reaches the threshold, else 0."""
        if self.threshold is None:
            return np.zeros(len(scores), dtype=int)
        return (np.asarray(scores) >= self.threshold).astype(int)

    def as_dict(self) -> dict:
        """Plain numbers for JSON."""
        return asdict(self)


def crossing(means, variances, weights) -> tuple[float, str]:
    """Where w1 N(x|m1,v1) = w2 N(x|m2,v2) between the means, and the branch taken.

    The correct closed form; the coefficients printed as eq. S8 of the SpaCRD supplement have sign errors.
    """
    (m1, m2), (v1, v2), (w1, w2) = means, variances, weights
    a = 1 / (2 * v2) - 1 / (2 * v1)
    b = m1 / v1 - m2 / v2
    c = m2**2 / (2 * v2) - m1**2 / (2 * v1) + math.log(math.sqrt(v2) * w1 / (math.sqrt(v1) * w2))
    if abs(a) < 1e-12 * max(1 / v1, 1 / v2):
        roots, branch = ([-c / b] if b else []), "linear"
    else:
        discriminant = b * b - 4 * a * c
        spread = math.sqrt(discriminant) if discriminant >= 0 else math.nan
        roots, branch = [(-b - spread) / (2 * a), (-b + spread) / (2 * a)], "crossing"
    inside = [root for root in roots if m1 < root < m2]
    return (inside[0], branch) if inside else ((m1 + m2) / 2, "midpoint")


def fit(scores: np.ndarray, kind: str = "mixture") -> Threshold:
    """Fit two components to the scores of one section and find the threshold; `kind` is that of a method's SPEC."""
    scores = np.asarray(scores, dtype=float)
    if len(np.unique(scores)) < 2 or np.ptp(scores) < LEAST_SPREAD:
        return Threshold(None, "constant")
    if kind == "zero":
        return Threshold(0.0, "zero")
    return map_em(scores) if kind == "map_em" else _mixture(scores)


def map_em(scores: np.ndarray) -> Threshold:
    """Two Gaussians by maximum a posteriori; the weight of the one with the larger mean is the share of called spots.

    Scores are in units of the normal reference: its mean is 0 and its sd 1. Priors: Beta(1, 10) on the weight of the
    anomalous component, and for each component a normal with scaled inverse chi-squared around mean 0 and sd 1
    (METHODS.md 2.6, the textbook updates). Starts from the median split.
    """
    n, order = len(scores), np.argsort(scores, kind="stable")
    anomalous = np.zeros(n)
    anomalous[order[n // 2 :]] = 1.0
    before = -np.inf
    for _ in range(EM_ROUNDS):
        weight = (BETA[0] - 1 + anomalous.sum()) / (sum(BETA) - 2 + n)
        means, variances = np.transpose([_component(scores, share) for share in (1 - anomalous, anomalous)])
        weights = np.array([1 - weight, weight])
        with np.errstate(divide="ignore"):
            logs = np.log(weights) - 0.5 * (np.log(variances) + (scores[:, None] - means) ** 2 / variances)
        total = np.logaddexp(*logs.T)
        anomalous = np.exp(logs[:, 1] - total)
        if abs(total.mean() - before) < EM_TOLERANCE:
            break
        before = total.mean()
    first, last = np.argsort(means, kind="stable")
    called = round(float(weights[last]) * n)
    threshold = float(scores[order[n - called]]) if called else None
    pick = [first, last]
    return Threshold(threshold, "map_em", *(tuple(map(float, found[pick])) for found in (means, variances, weights)))


def _component(scores: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """Mean and variance of one component at the mode of its posterior; `share` is its responsibility for each score."""
    count = share.sum()
    kappa, degrees = PRIOR_COUNT + count, PRIOR_DEGREES + count
    mean = share @ scores / kappa  # the prior's mean is 0
    scale = PRIOR_DEGREES + share @ scores**2 - kappa * mean**2  # and its variance 1
    return mean, scale / (degrees + 3)


def _mixture(scores: np.ndarray) -> Threshold:
    """Two Gaussians by maximum likelihood; the threshold is where their weighted densities cross.

    Components are sorted by mean together with their variances and weights (S-16).
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    # scikit-learn's floor on variances, lowered for scores of a small scale
    floor = min(1e-6, 1e-4 * scores.var())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # two distinct values: one component may stay empty
        mixture = GaussianMixture(2, random_state=0, reg_covar=floor).fit(scores[:, None])
    order = np.argsort(mixture.means_.ravel())
    means, variances = mixture.means_.ravel()[order], mixture.covariances_.ravel()[order]
    weights = mixture.weights_[order]
    threshold, branch = crossing(means, variances, weights)
    return Threshold(
        float(threshold), branch, tuple(map(float, means)), tuple(map(float, variances)), tuple(map(float, weights))
    )
