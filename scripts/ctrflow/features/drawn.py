"""Drawn regions: connected spots of one class, and the spots beside them."""

import numpy as np

from ctrflow.features.neighbours import spot_graph

RING = 8  # the spots around one on a square array; on a hexagonal one the six and two of the next ring


def adjacency(spatial_px):
    """Which spots lie beside each other, (n x n) CSR of ones: the symmetrised graph of the `RING` nearest."""
    return spot_graph(np.asarray(spatial_px), np.zeros(len(spatial_px)), RING)


def numbered(labels: np.ndarray, beside) -> np.ndarray:
    """The number of the region of each spot, -1 for spots that are not drawn.

    Parameters
    ----------
    labels : (spots,) 1, 0, NaN = not drawn
    beside : of `adjacency`
    """
    from scipy.sparse.csgraph import connected_components

    found, first = np.full(len(labels), -1), 0
    for value in (0, 1):
        rows = np.flatnonzero(labels == value)
        if len(rows):
            count, number = connected_components(beside[rows][:, rows], directed=False)
            found[rows] = first + number
            first += count
    return found


def near(labels: np.ndarray, beside) -> np.ndarray:
    """Whether each spot is drawn or beside a drawn one: it says nothing about what was not drawn."""
    drawn = ~np.isnan(labels)
    return drawn | (beside @ drawn.astype(float) > 0)
