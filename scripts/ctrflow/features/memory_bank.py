"""A memory bank: representative spots of normal tissue, and the distance of other spots to them.

Roth et al., Towards Total Recall in Industrial Anomaly Detection (PatchCore), CVPR 2022; METHODS.md 3.9.
"""

import numpy as np

PROJECTION_ERROR = 0.9  # of the Johnson-Lindenstrauss bound, as in the published code of M3DM
# Members of the smallest bank published with PatchCore: 1 % of the 784 patches of each of 60 images (MVTec AD, class
# toothbrush; amazon-science/patchcore-inspection, models/IM224_Ensemble_L2-3_P001_D1024-384_PS-3_AN-1).
LEAST = 470
REWEIGHTED_OVER = 3  # bank members near the nearest one, itself included (METHODS.md 3.9)
BLOCK = 512  # spots at a time: with 4,000 features, 16 MB in float64


def coreset(features: np.ndarray, share: float, least: int, seed: int) -> np.ndarray:
    """Rows that cover all others well: greedy k-centre in a sparse random projection.

    Starting with a random row, the row farthest from all chosen rows is chosen next. Distances are computed after a
    sparse random projection to the number of dimensions that preserves them within `PROJECTION_ERROR`, unless there are
    fewer features. Time is quadratic in the rows, memory linear.

    Parameters
    ----------
    features : (n x f)
    share : of the rows to choose, above 0 to 1
    least : rows to choose at least, if there are as many: a share of few rows would not cover them

    Returns
    -------
    (m,) distinct rows, in order.
    """
    n = len(features)
    count = min(n, max(round(share * n), least))
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
    bank = np.asarray(bank, dtype=np.float64)
    distances, rows = np.empty((len(features), k)), np.empty((len(features), k), dtype=np.int64)
    half_squares = 0.5 * np.einsum("ij,ij->i", bank, bank)
    for start in range(0, len(features), BLOCK):
        block = np.asarray(features[start : start + BLOCK], dtype=np.float64)
        rank = half_squares - block @ bank.T  # half the squared distance, up to a constant per spot
        members = np.argpartition(rank, k - 1, axis=1)[:, :k]
        gaps = apart(block, bank, members)  # the expression above is inexact for small distances
        order = np.argsort(gaps, axis=1, kind="stable")
        distances[start : start + BLOCK] = np.take_along_axis(gaps, order, axis=1)
        rows[start : start + BLOCK] = np.take_along_axis(members, order, axis=1)
    return distances, rows


def apart(features: np.ndarray, bank: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Euclidean distances from each spot to the members in its row of `rows` (n x k), from differences in float64."""
    result = np.empty(rows.shape)
    for start in range(0, len(features), BLOCK):
        block = np.asarray(features[start : start + BLOCK], dtype=np.float64)
        for column, near in enumerate(rows[start : start + BLOCK].T):
            result[start : start + BLOCK, column] = np.linalg.norm(block - bank[near], axis=1)
    return result


def reweighted(features: np.ndarray, bank: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Distance to the nearest member of the bank, reduced if that member is far from the others (n,).

    With d the distance to the nearest member m and D the root of the number of features, the weight is
    1 - exp(d / D) / sum of exp(d_j / D), over the members next to m (equation 7 of PatchCore; D, and m itself left out
    of the sum, as in the published code of M3DM). All d_j are at least d, so with 2 of them it is 1/2 to 1.

    Parameters
    ----------
    features : (n x f)
    bank : (m x f); with no more than `REWEIGHTED_OVER` members, distances are plain
    own : (n,) the row of the bank that is the spot itself, -1 for none; the spot is measured against the others
    """
    own = np.full(len(features), -1) if own is None else own
    row = _without(nearest(features, bank, 2)[1], own)
    distance = apart(features, bank, row)[:, 0]
    if len(bank) <= REWEIGHTED_OVER:
        return distance
    others = _without(nearest(bank, bank, REWEIGHTED_OVER + 1)[1], np.arange(len(bank)))
    away = apart(features, bank, _without(others[row[:, 0]], own))
    # as a ratio: exp of a large distance overflows
    return distance * (1 - 1 / np.exp((away - distance[:, None]) / np.sqrt(bank.shape[1])).sum(axis=1))


def _without(rows: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Each row of indices without the one in `own`, or without its last if that is not among them (n x k - 1).

    Among duplicates a member is not always its own nearest.
    """
    left_out = rows == own[:, None]
    left_out[~left_out.any(axis=1), -1] = True
    return rows[~left_out].reshape(len(rows), -1)


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
