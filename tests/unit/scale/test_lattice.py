"""The shape of spots on an array, worked by hand."""

import numpy as np
import pytest

from ctrflow.scale.lattice import tile_px
from spot_arrays import hexagonal, square


def area_px2(corners):
    x, y = corners.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_spots_that_fill_a_square_array_are_squares():
    corners = tile_px(square(4, 3, pitch_px=8), spot_px=8)
    assert sorted(map(tuple, corners.round(9))) == [(-4, -4), (-4, 4), (4, -4), (4, 4)]


@pytest.mark.parametrize("turn_rad", [0, 0.3, np.pi / 2])
def test_spots_that_fill_a_hexagonal_array_are_hexagons(turn_rad):
    turn = np.array([[np.cos(turn_rad), np.sin(turn_rad)], [-np.sin(turn_rad), np.cos(turn_rad)]])
    centres = hexagonal(6, 5, pitch_px=10) @ turn
    corners = tile_px(centres, spot_px=10)
    assert area_px2(corners) == pytest.approx(10**2 * np.sqrt(3) / 2)
    # the middle of a side lies halfway to a neighbour, and a corner is equally far from three centres
    halves = (corners + np.roll(corners, -1, axis=0)) / 2
    middle = centres[14]
    assert np.hypot(*(centres[:, None] - middle - 2 * halves).transpose(2, 0, 1)).min(axis=0).max() < 1e-9
    for corner in corners:
        np.testing.assert_allclose(np.sort(np.hypot(*(centres - middle - corner).T))[:3], 10 / np.sqrt(3))


@pytest.mark.parametrize(("centres", "spot_px"), [(hexagonal(6, 5), 55), (square(5, 5), 50), (square(5, 5), 160)])
def test_spots_with_gaps_or_overlaps_are_round(centres, spot_px):
    assert tile_px(centres, spot_px) is None
