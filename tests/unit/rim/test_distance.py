"""Distances to the rim: hand-worked ones, and all of them against shapely used in another way."""

import numpy as np
import pandas as pd
import pytest
import shapely
from scipy.spatial.distance import cdist
from shapely.ops import unary_union

from ctrflow.export.regions import section_regions
from ctrflow.rim import distance
from spot_arrays import hexagonal, section, square

UM_PER_PX = 2.0


def distances(spatial_px, call):
    """The signed distances of a section of 2 µm a px, and the regions."""
    spots = section(spatial_px, um_per_px=UM_PER_PX)
    calls = pd.DataFrame({"m": np.asarray(call, dtype=float)}, index=spots.obs_names)
    regions = section_regions(spots, calls)
    return distance.of_section(spots, calls[::-1], regions)["m"].to_numpy(), regions["m"]


def by_points(spatial_px, call, regions, grid_px):
    """The same from a point every 0.2 µm of the outlines: those nearer to an uncalled spot than to any other place.

    `grid_px` are the places of the whole array, far beyond the section.
    """
    call = np.asarray(call, dtype=float)
    empty = grid_px[cdist(grid_px, spatial_px).min(axis=1) > 1]
    tumour = unary_union([shape for shape, _ in regions])
    rings = [ring for part in getattr(tumour, "geoms", [tumour]) for ring in (part.exterior, *part.interiors)]
    drawn = [ring.interpolate(np.arange(0, ring.length, 0.1)) for ring in rings]
    points = shapely.get_coordinates(np.concatenate(drawn))
    to_tissue, to_others = (
        cdist(points, of).min(axis=1) for of in (spatial_px[call == 0], np.vstack([spatial_px[np.isnan(call)], empty]))
    )
    rim = shapely.MultiPoint(points[to_tissue < to_others])
    result = []
    for place, value in zip(spatial_px, call, strict=True):
        point = shapely.Point(place)
        far = point.distance(rim) * UM_PER_PX
        assert tumour.contains(point) == (value == 1)
        result.append(np.nan if np.isnan(value) else -far if value == 1 else far)
    return np.array(result)


def arrays():
    """A square and a hexagonal section, each with the places of the array far around it."""
    wide = np.array([(x, y) for y in range(-6, 20) for x in range(-6, 20)], dtype=float) * 100 + 1000
    # an even number of rows below, so that the rows keep their offset
    across = np.array([(x + 0.5 * (y % 2), y * np.sqrt(3) / 2) for y in range(-6, 20) for x in range(-6, 20)]) * 100
    return {"square": (square(12, 12), wide), "hexagonal": (hexagonal(12, 12), across)}


def shapes(spatial_px):
    """Name -> calls."""
    x, y = (spatial_px - spatial_px.min(axis=0)).T / 100
    blob = np.hypot(x - 5.6, y - 5.2) < 3.3
    ring = blob & (np.hypot(x - 5.6, y - 5.2) > 1.2)
    foci = (np.hypot(x - 2.2, y - 2.4) < 1.8) | (np.hypot(x - 8.6, y - 7.7) < 2.3)
    cut = x < 4.4
    gap = blob.astype(float)
    gap[np.hypot(x - 8.2, y - 5.2) < 1.6] = np.nan
    one = np.zeros(len(x))
    one[np.argmin(np.hypot(x - 5, y - 5))] = 1
    return {
        "blob": blob,
        "hole": ring,
        "two foci": foci,
        "cut by the edge of the tissue": cut,
        "corner": (x < 3.4) & (y < 2.8),
        "beside spots that are not scored": gap,
        "one spot": one,
        "scattered": np.random.default_rng(3).random(len(x)) < 0.4,
    }


@pytest.mark.parametrize("array", arrays())
@pytest.mark.parametrize("shape", shapes(square(12, 12)))
def test_every_distance_is_that_of_shapely_to_a_micrometre(array, shape):
    spatial_px, grid_px = arrays()[array]
    call = shapes(spatial_px)[shape]
    found, regions = distances(spatial_px, call)
    expected = by_points(spatial_px, call, regions, grid_px)
    np.testing.assert_allclose(found, expected, atol=1.0)
    assert np.isfinite(found).sum() > 100


def test_a_straight_rim_by_hand():
    """Five columns of 200 µm are called: the rim is halfway to the next one."""
    spatial_px = square(10, 10)
    found, _ = distances(spatial_px, spatial_px[:, 0] < 1450)
    across = found.reshape(10, 10)[4:6]
    expected = [-900, -700, -500, -300, -100, 100, 300, 500, 700, 900]
    # the outline encloses the area of the called spots: where its corners are cut, its sides move out a little
    np.testing.assert_allclose(across, [expected, expected], atol=5)


def test_the_edge_of_the_tissue_is_no_rim():
    """Of the outermost spots of the section, those far from the other tissue are deep in the tumour."""
    spatial_px = square(10, 10)
    found, _ = distances(spatial_px, spatial_px[:, 0] < 1450)
    assert (found.reshape(10, 10)[:, 0] < -850).all()
    assert (found.reshape(10, 10)[[0, -1], 1] < -650).all()


def test_spots_missing_in_the_tumour_make_no_rim():
    spatial_px = square(11, 11)
    x, y = (spatial_px - 1000).T / 100
    kept = ~((x == 3) & (y == 5))
    call = (x < 7)[kept]
    found, _ = distances(spatial_px[kept], call)
    beside = (x[kept] == 2) & (y[kept] == 5)
    assert found[beside] == pytest.approx(-900, abs=5)


@pytest.mark.parametrize("value", [0, 1])
def test_without_a_rim_there_is_no_distance(value):
    found, _ = distances(square(5, 5), np.full(25, value))
    assert np.isnan(found).all()


def test_two_pieces_of_tissue_that_do_not_meet_have_no_rim():
    spatial_px = np.vstack([square(4, 4), square(4, 4) + np.array([3000, 0])])
    found, _ = distances(spatial_px, np.arange(32) < 16)
    assert np.isnan(found).all()


def test_a_spot_that_is_not_scored_has_no_distance():
    call = (square(8, 8)[:, 0] < 1350).astype(float)
    call[[0, 63]] = np.nan
    found, _ = distances(square(8, 8), call)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(call))
    assert (np.sign(found[~np.isnan(call)]) == np.where(call[~np.isnan(call)] == 1, -1, 1)).all()


def test_a_region_of_two_parts_and_spots_at_one_position():
    spatial_px = np.vstack([square(6, 6), [[3000, 1000], [3120, 1000], [3060, 1005]], [[1000, 1000]]])
    call = np.isin(np.arange(40), [0, 36, 37])
    found, _ = distances(spatial_px, call)
    assert np.isfinite(found).all()
    assert found[38] > 0  # between the two parts
    assert found[36] < 0 > found[0]
