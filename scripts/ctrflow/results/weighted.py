"""Metrics with each spot weighted by how often a bootstrap draw took it, for all draws of a block at once.

Ties are handled as in scikit-learn: half a win in AUC, one threshold per distinct score in AP.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """A run on a section, sorted once for all draws.

    positives, negatives : the spots of each class by rising score
    below, up_to : for each positive the number of negatives below it, and up to its score
    first : for each positive the number of positives below it
    called : (spots,) the calls as 0 and 1

    `up_to` and `first` are None without ties.
    """

    positives: np.ndarray
    negatives: np.ndarray
    below: np.ndarray
    up_to: np.ndarray | None
    first: np.ndarray | None
    called: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """A ranking and `weights`, (spots, draws): how often each draw took each spot.

    hit : (positives, draws) the weights of the positives
    p, n : (draws,) positives and negatives
    p_below, n_below : (1 + spots of the class, draws) the sums over the first 0, 1, 2 ... spots
    n_lower : (positives, draws) the negatives below each positive
    """

    ranking: Ranking
    weights: np.ndarray

    @cached_property
    def hit(self) -> np.ndarray:
        return self.weights[self.ranking.positives]

    @cached_property
    def p_below(self) -> np.ndarray:
        return _cumulative(self.hit)

    @cached_property
    def n_below(self) -> np.ndarray:
        return _cumulative(self.weights[self.ranking.negatives])

    @cached_property
    def n_lower(self) -> np.ndarray:
        return self.n_below[self.ranking.below]

    @property
    def p(self) -> np.ndarray:
        return self.p_below[-1]

    @property
    def n(self) -> np.ndarray:
        return self.n_below[-1]


def rank_spots(truth: np.ndarray, scores: np.ndarray, calls: np.ndarray) -> Ranking:
    """The ranking of one run on a section.

    Parameters
    ----------
    truth : (spots,) bool, true = cancer
    scores : (spots,); NaN = not scored, left out
    calls : (spots,) 0/1
    """
    scored = np.isfinite(scores)
    positives, negatives = np.flatnonzero(scored & truth), np.flatnonzero(scored & ~truth)
    positives = positives[np.argsort(scores[positives], kind="stable")]
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    high, low = scores[positives], scores[negatives]
    below, up_to = (np.searchsorted(low, high, side) for side in ("left", "right"))
    first = np.searchsorted(high, high, "left")
    return Ranking(
        positives,
        negatives,
        below,
        None if np.array_equal(below, up_to) else up_to,
        None if np.array_equal(first, np.arange(len(high))) else first,
        np.where(scored, calls, 0).astype(float),
    )


def auc(drawn: Drawn) -> np.ndarray:
    """A positive wins over the negatives below it, and half over those tied with it: (draws,)."""
    up_to = drawn.ranking.up_to
    beaten = drawn.n_lower if up_to is None else (drawn.n_lower + drawn.n_below[up_to]) / 2
    return np.einsum("ij,ij->j", drawn.hit, beaten) / (drawn.p * drawn.n)


def ap(drawn: Drawn) -> np.ndarray:
    """The mean of the precision at each positive: (draws,)."""
    first = drawn.ranking.first
    reached = drawn.p - (drawn.p_below[:-1] if first is None else drawn.p_below[first])
    # counts are integers: a count below 1 is 0, and then the weight of the positive is 0 too
    precision = reached / np.maximum(reached + drawn.n - drawn.n_lower, 1.0)
    return np.einsum("ij,ij->j", drawn.hit, precision) / drawn.p


def f1(drawn: Drawn) -> np.ndarray:
    """F1 of the calls: (draws,)."""
    called = drawn.ranking.called
    hits, taken = called[drawn.ranking.positives] @ drawn.hit, called @ drawn.weights
    return 2 * hits / (drawn.p + taken)


def _cumulative(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, 2 ... rows."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums
