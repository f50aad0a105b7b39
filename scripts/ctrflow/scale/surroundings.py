"""The empty places of an array around a section's spots."""

import numpy as np

from ctrflow.scale.lattice import Lattice


def empty_around(spatial_px: np.ndarray, grid: Lattice) -> np.ndarray:
    """The empty places of an array next to occupied ones, (n x 2) px; `spatial_px` are distinct positions."""
    from scipy.spatial import cKDTree

    turns = grid.angle_rad + 2 * np.pi / grid.sides * np.arange(grid.sides)
    steps = grid.pitch_px * np.column_stack([np.cos(turns), np.sin(turns)])
    around = (spatial_px[:, None, :] + steps).reshape(-1, 2)
    around = around[cKDTree(spatial_px).query(around)[0] > 0.5 * grid.pitch_px]
    # several spots have the same empty neighbour
    close = cKDTree(around).query_pairs(0.3 * grid.pitch_px, output_type="ndarray") if len(around) else np.empty((0, 2))
    return np.delete(around, np.unique(close[:, 1]).astype(int), axis=0)
