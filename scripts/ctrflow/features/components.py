"""Fewer dimensions: principal components, random combinations, means over a neighbourhood."""

import numpy as np

CLIP = 10.0  # sd, as in scanpy and Seurat: a gene seen in one spot of thousands must not be a component


def clipped(scaled: np.ndarray) -> np.ndarray:
    """z-scores clipped to -`CLIP` to `CLIP`, in their dtype."""
    return np.clip(scaled, -CLIP, CLIP)


def principal_axes(features: np.ndarray, count: int) -> np.ndarray:
    """The leading principal axes of rows: (features x k) float64, orthonormal, the strongest first.

    k is at most `count`, rows - 1 and the number of features. Independent of the method's seed.

    Parameters
    ----------
    features : (rows x features), scaled as desired; columns are centred here
    """
    from sklearn.utils.extmath import randomized_svd

    count = min(count, len(features) - 1, features.shape[1])
    if count < 1:
        return np.zeros((features.shape[1], 0))
    centred = features - features.mean(axis=0, dtype=np.float64).astype(features.dtype)
    axes = randomized_svd(centred, count, random_state=0)[2]
    return np.ascontiguousarray(axes.T, dtype=np.float64)


def random_axes(features: int, count: int, seed: int) -> np.ndarray:
    """A Gaussian random projection (features x count) float32: lengths and distances are kept but for an error.

    The error of a squared length is about the root of 2 / count, whatever the data (Johnson and Lindenstrauss, 1984).
    Principal axes keep only the differences within the rows that they were computed from. With no more features than
    `count` it is the identity.
    """
    if features <= count:
        return np.eye(features, dtype=np.float32)
    axes = np.random.default_rng(seed).standard_normal((features, count))
    return (axes / np.sqrt(count)).astype(np.float32)


def averaged(values: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Mean over the rows in each row of `around` (n x tokens): (n x features), in the dtype of `values`.

    One token at a time, to save memory.
    """
    return sum(values[near] for near in around.T) / values.dtype.type(around.shape[1])
