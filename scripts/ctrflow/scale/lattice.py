"""The array of a section's spots, and the area that one spot represents."""

from dataclasses import dataclass

import numpy as np

from ctrflow.errors import InputError

REACH = 1.25  # pitches to direct neighbours, at most; diagonal ones of a square array are at 1.41
_FILLED = 0.02  # difference of spot and pitch, as a share, up to which spots fill the array; 0.45 in Visium


@dataclass(frozen=True)
class Lattice:
    """An array of spots: pitch (px), 4 (square) or 6 (hexagonal) sides, angle of one axis (rad)."""

    pitch_px: float
    sides: int
    angle_rad: float

    @property
    def cell_px2(self) -> float:
        """The area that one spot represents, px²."""
        return self.pitch_px**2 * (1.0 if self.sides == 4 else np.sqrt(3) / 2)


def connected(pairs: np.ndarray, count: int) -> np.ndarray:
    """The number of the connected piece of each of `count` places, (count,); `pairs` (n x 2) are neighbours."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def fit_lattice(spatial_px) -> Lattice:
    """Fit an array to spot centres (n x 2, px): pitch = median distance between neighbours.

    The directions to close neighbours tell square from hexagonal arrays and give their rotation: in a square array they
    repeat every 90 degrees, in a hexagonal one every 60 degrees. An irregular section (cells) gets whichever fits
    better; its areas are then approximate.

    Raises
    ------
    InputError
        for fewer than two distinct positions.
    """
    from scipy.spatial import cKDTree

    spatial_px = np.unique(np.asarray(spatial_px, dtype=float), axis=0)
    if len(spatial_px) < 2:
        raise InputError(f"{len(spatial_px)} spot position: the area of a spot is unknown; give at least two spots")
    tree = cKDTree(spatial_px)
    nearest_px = float(np.median(tree.query(spatial_px, k=2)[0][:, 1]))
    pairs = tree.query_pairs(REACH * nearest_px, output_type="ndarray")
    step = spatial_px[pairs[:, 1]] - spatial_px[pairs[:, 0]]
    # with measured, not nominal, positions the nearest of several neighbours is nearer than the pitch
    pitch = float(np.median(np.hypot(step[:, 0], step[:, 1])))
    order = {sides: _order(step, sides) for sides in (4, 6)}
    # a single row of spots fits both: prefer square
    sides = 6 if abs(order[6]) > abs(order[4]) + 1e-9 else 4
    return Lattice(pitch, sides, float(np.angle(order[sides]) / sides))


def _order(step: np.ndarray, sides: int) -> complex:
    """The mean of the directions of steps (n x 2) to neighbours, as on a circle in which they repeat `sides` times."""
    return np.exp(1j * sides * np.arctan2(step[:, 1], step[:, 0])).mean()


def regular_lattice(spatial_px: np.ndarray) -> Lattice | None:
    """As `fit_lattice`, from the spots with all neighbours at one distance; None if they are under a quarter.

    A quarter is enough, because a ragged section is mostly border; cells and scattered spots have hardly any.
    """
    from scipy.spatial import cKDTree

    spatial_px = np.unique(np.asarray(spatial_px, dtype=float), axis=0)
    if len(spatial_px) < 7:
        return None
    distances, nearest = (found[:, 1:] for found in cKDTree(spatial_px).query(spatial_px, k=7))
    reach = REACH * distances[:, 0]
    full = {6: distances[:, 5] < reach, 4: (distances[:, 3] < reach) & (distances[:, 4] > reach)}
    sides = max(full, key=lambda count: full[count].mean())
    if full[sides].mean() <= 0.25:
        return None
    inner = full[sides]
    step = (spatial_px[nearest[inner, :sides]] - spatial_px[inner, None]).reshape(-1, 2)
    # of several jittered neighbours the nearest is nearer than the pitch: all count
    return Lattice(float(distances[inner, :sides].mean()), sides, float(np.angle(_order(step, sides)) / sides))


def tile_px(spatial_px, spot_px: float) -> np.ndarray | None:
    """The corners of a spot, (4 or 6 x 2) px from its centre, where spots as wide as the pitch fill the array.

    That is so for bins of Visium HD and for hexagons of cells; None for round spots with gaps.
    """
    grid = fit_lattice(spatial_px)
    if abs(spot_px / grid.pitch_px - 1) > _FILLED:
        return None
    turns = grid.angle_rad + np.pi / grid.sides * (2 * np.arange(grid.sides) + 1)
    reach_px = grid.pitch_px / 2 / np.cos(np.pi / grid.sides)
    return reach_px * np.column_stack([np.cos(turns), np.sin(turns)])


def spot_area_mm2(spatial_px, um_per_px: float) -> float:
    """The area that one spot of the array represents, mm²: 0.04 for ST (200 µm squares), 0.00866 for Visium."""
    return fit_lattice(spatial_px).cell_px2 * um_per_px**2 / 1e6
