"""Spatial neighbourhoods of spots."""

import numpy as np

from ctrflow.features.blocks import in_blocks, section_rows


def nearest(coordinates_px: np.ndarray, k: int) -> np.ndarray:
    """The spot itself and its k nearest spots, (n x (k + 1)) indices (METHODS.md 1.4).

    Column 0 is the spot itself even if coordinates coincide. Equal distances, common on a grid, are ordered by index,
    so the result does not depend on the tree. With k or fewer spots, the spot itself fills the missing neighbours.
    """
    from scipy.spatial import cKDTree

    coordinates_px = np.asarray(coordinates_px, dtype=np.float64)
    n = len(coordinates_px)
    if n <= k:
        own = np.repeat(np.arange(n)[:, None], k + 1, axis=1)
        if n > 1:
            own[:, :n] = nearest(coordinates_px, n - 1)
        return own
    tree = cKDTree(coordinates_px)
    reach = tree.query(coordinates_px, k=[k + 1])[0][:, 0]
    result = np.empty((n, k + 1), dtype=np.int64)
    for block in in_blocks(np.arange(n)):
        # coordinates of a grid have rounding noise: distances within 0.01 % are ties
        candidates = tree.query_ball_point(coordinates_px[block], reach[block] * (1 + 1e-4) + 1e-9)
        for spot, ring in zip(block, candidates, strict=True):
            ring = np.array([other for other in ring if other != spot], dtype=np.int64)
            distance = np.linalg.norm(coordinates_px[ring] - coordinates_px[spot], axis=1)
            step = max(reach[spot], 1e-9) * 1e-4
            order = np.lexsort((ring, np.round(distance / step)))
            result[spot, 0] = spot
            result[spot, 1:] = ring[order[:k]]
    return result


def nearest_within(coordinates_px: np.ndarray, sections: np.ndarray, k: int) -> np.ndarray:
    """`nearest` within each section; indices are rows of the whole table."""
    result = np.empty((len(sections), k + 1), dtype=np.int64)
    for _, rows in section_rows(sections):
        result[rows] = rows[nearest(np.asarray(coordinates_px)[rows], k)]
    return result


def spot_graph(coordinates_px: np.ndarray, sections: np.ndarray, k: int):
    """The symmetrised graph of the k nearest spots within each section: CSR float32 (n x n) of ones, no self-loops.

    Two spots are connected if either is among the k nearest of the other; all sections form one graph without edges
    between them (METHODS.md 2.2).
    """
    from scipy import sparse

    around = nearest_within(coordinates_px, sections, k)
    n = len(around)
    near = sparse.csr_matrix((np.ones(n * k, np.float32), (np.repeat(np.arange(n), k), around[:, 1:].ravel())), (n, n))
    graph = near.maximum(near.T).tocsr()
    graph.setdiag(0)  # from spots that fill missing neighbours
    graph.eliminate_zeros()
    graph.data[:] = 1
    graph.sort_indices()
    return graph
