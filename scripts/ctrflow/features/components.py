"""Principal components of features, for methods that compare spots in few dimensions."""

import numpy as np

CLIP = 10.0  # sd, as scanpy and Seurat cut them: a gene seen in one spot of thousands must not be a component


def clipped(scaled: np.ndarray) -> np.ndarray:
    """z-scores cut to -`CLIP` to `CLIP`, in their type."""
    return np.clip(scaled, -CLIP, CLIP)


def principal_axes(features: np.ndarray, count: int) -> np.ndarray:
    """The directions in which rows vary most: (features x k) float64, orthonormal, the strongest first.

    k is `count`, or less where rows - 1 or the features are fewer. The same whatever the seed of the method.

    Parameters
    ----------
    features : (rows x features), on the scale on which they are to count; columns are centred here
    """
    from sklearn.utils.extmath import randomized_svd

    count = min(count, len(features) - 1, features.shape[1])
    if count < 1:
        return np.zeros((features.shape[1], 0))
    centred = features - features.mean(axis=0, dtype=np.float64).astype(features.dtype)
    axes = randomized_svd(centred, count, random_state=0)[2]
    return np.ascontiguousarray(axes.T, dtype=np.float64)


def averaged(values: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Mean over the rows that each row of `around` (n x tokens) names: (n x features), in the type of `values`.

    One token at a time: all at once would take as many times the memory.
    """
    return sum(values[near] for near in around.T) / values.dtype.type(around.shape[1])
