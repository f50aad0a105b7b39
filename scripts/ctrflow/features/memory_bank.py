"""A memory bank: representative spots of normal tissue, and the distance of other spots to them.

Roth et al., Towards Total Recall in Industrial Anomaly Detection (PatchCore), CVPR 2022; METHODS.md 3.9.
"""

import numpy as np

PROJECTION_ERROR = 0.9  # of the Johnson-Lindenstrauss bound, as in the published code of PatchCore and M3DM
REWEIGHTED_OVER = 3  # bank members near the nearest one, itself included (METHODS.md 3.9)
BLOCK = 512  # spots at a time: with a bank of 2,000 and 1,280 features their distances take some 10 MB


def coreset(features: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows that cover all others well: greedy k-centre in a sparse random projection.

    Starting with a random row, the row farthest from all chosen rows is chosen next. Distances are computed after a
    sparse random projection to the number of dimensions that preserves them within `PROJECTION_ERROR`, unless there are
    fewer features. Time is quadratic in the rows, memory linear.

    Parameters
    ----------
    features : (n x f)
    share : of the rows to choose, above 0 to 1; at least `REWEIGHTED_OVER` rows, if there are as many

    Returns
    -------
    (m,) distinct rows, in order.
    """
    n = len(features)
    count = min(n, max(round(share * n), REWEIGHTED_OVER))
    if count == n:
        return np.arange(n)
    places = _projected(features, seed)
    squares = np.einsum("ij,ij->i", places, places)
    chosen = np.empty(count, dtype=np.int64)
    chosen[0] = np.random.default_rng(seed).integers(n)
    gaps = np.full(n, np.inf, dtype=places.dtype)  # squared distance from each row to the nearest chosen row
    for i in range(count):
        if i:
            chosen[i] = np.argmax(gaps)
        row = chosen[i]
        gaps = np.minimum(gaps, squares - 2 * (places @ places[row]) + squares[row])
        gaps[chosen[: i + 1]] = -np.inf  # rounding must not choose a row twice
    return np.sort(chosen)


def nearest(features: np.ndarray, bank: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest members of a bank: Euclidean distances (n x k), ascending, and rows of the bank (n x k).

    Exact, `BLOCK` spots at a time: time is proportional to spots x bank, memory to spots.

    Parameters
    ----------
    features : (n x f)
    bank : (m x f), m at least k
    """
    features, bank = (np.asarray(matrix, dtype=np.float64) for matrix in (features, bank))
    distances, rows = np.empty((len(features), k)), np.empty((len(features), k), dtype=np.int64)
    half_squares = 0.5 * np.einsum("ij,ij->i", bank, bank)
    for start in range(0, len(features), BLOCK):
        block = slice(start, start + BLOCK)
        rank = half_squares - features[block] @ bank.T  # half the squared distance, up to a constant per spot
        members = np.argpartition(rank, k - 1, axis=1)[:, :k]
        # from differences: the expression above is inexact for small distances
        gaps = np.stack([np.linalg.norm(features[block] - bank[near], axis=1) for near in members.T], axis=1)
        order = np.argsort(gaps, axis=1, kind="stable")
        distances[block] = np.take_along_axis(gaps, order, axis=1)
        rows[block] = np.take_along_axis(members, order, axis=1)
    return distances, rows


def reweighted(features: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Distance to the nearest member of the bank, reduced if that member is far from the others (n,).

    With d the distance to the nearest member m and D the root of the number of features, the weight is
    1 - exp(d / D) / sum of exp(d_j / D), over the members next to m (equation 7 of PatchCore; D, and m itself left out
    of the sum, as in the published code of M3DM). All d_j are at least d, so with 2 of them it is 1/2 to 1. A bank
    with fewer than `REWEIGHTED_OVER` members gives plain distances.
    """
    features, bank = (np.asarray(matrix, dtype=np.float64) for matrix in (features, bank))
    distance, row = (columns[:, 0] for columns in nearest(features, bank))
    if len(bank) < REWEIGHTED_OVER:
        return distance
    around = _others(bank)[row]
    width = np.sqrt(features.shape[1])
    total = np.zeros(len(features))
    for near in around.T:
        for start in range(0, len(features), BLOCK):
            block = slice(start, start + BLOCK)
            away = np.linalg.norm(features[block] - bank[near[block]], axis=1)
            total[block] += np.exp((away - distance[block]) / width)  # as a ratio: exp of a large distance overflows
    return distance * (1 - 1 / total)


def _others(bank: np.ndarray) -> np.ndarray:
    """The members nearest to each member, without itself (m x `REWEIGHTED_OVER` - 1)."""
    rows = nearest(bank, bank, REWEIGHTED_OVER)[1]
    # a member with duplicates need not be first, or among its nearest at all
    own = rows == np.arange(len(bank))[:, None]
    own[~own.any(axis=1), -1] = True
    return rows[~own].reshape(len(bank), REWEIGHTED_OVER - 1)


def _projected(features: np.ndarray, seed: int) -> np.ndarray:
    """float32, in fewer dimensions if that keeps distances within `PROJECTION_ERROR`."""
    from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

    features = np.asarray(features, dtype=np.float32)
    # does not change distances, and avoids cancellation by a common mean
    features = features - features.mean(axis=0)
    width = int(johnson_lindenstrauss_min_dim(len(features), eps=PROJECTION_ERROR))
    if width >= features.shape[1]:
        return features
    projection = SparseRandomProjection(width, random_state=seed)
    return np.asarray(projection.fit_transform(features), dtype=np.float32)
