"""The normal reference that one-class methods learn from."""

import numpy as np


def capped(spots: int, most: int, seed: int) -> np.ndarray:
    """The rows of the reference that are learned from: all, or `most` of them drawn at random, in their order.

    `most` 0 means all. Spots that are left out stay in the graph of their section as neighbours.
    """
    if not most or spots <= most:
        return np.arange(spots)
    return np.sort(np.random.default_rng(seed).choice(spots, most, replace=False))
