"""The array of the spots, and called spots joined to smooth regions: areas worked by hand, centres by brute force."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from shapely import geometry

from ctrflow.errors import InputError
from ctrflow.export import regions
from ctrflow.export.regions import find_regions, section_regions, tessellate
from ctrflow.scale.lattice import fit_lattice, spot_area_mm2
from spot_arrays import hexagonal, section, square

HEXAGON = 100**2 * 3**0.5 / 2  # px², of an array with 100 px between centres


def found_in(points, called):
    return find_regions(tessellate(points), called)


def turned(points, radians):
    """Points about the origin, far from it."""
    cos, sin = np.cos(radians), np.sin(radians)
    return points @ np.array([[cos, -sin], [sin, cos]]) + 50_000


@pytest.mark.parametrize("turn", [0.0, 0.2, -0.4])
@pytest.mark.parametrize(("points", "sides", "cell"), [(square(6, 5), 4, 1e4), (hexagonal(6, 5), 6, 1e4 * 3**0.5 / 2)])
def test_lattice_is_recognised_at_any_angle(points, sides, cell, turn):
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = fit_lattice(points @ rotation.T)
    assert found.sides == sides
    assert found.pitch_px == pytest.approx(100)
    assert found.cell_px2 == pytest.approx(cell)
    # the angle is one of the axes of the array
    assert np.sin(sides / 2 * (found.angle_rad - turn)) == pytest.approx(0, abs=1e-6)


def test_pitch_is_not_shortened_by_measured_positions():
    rng = np.random.default_rng(0)
    found = fit_lattice(square(20, 20) + rng.normal(0, 4, (400, 2)))
    assert found.sides == 4
    assert found.pitch_px == pytest.approx(100, rel=0.01)


def test_area_of_one_spot():
    assert spot_area_mm2(square(4, 4), um_per_px=2.0) == pytest.approx(0.2**2)  # 200 µm squares
    assert spot_area_mm2(hexagonal(4, 4), um_per_px=1.0) == pytest.approx(0.1**2 * 3**0.5 / 2)


def test_one_position_has_no_area():
    with pytest.raises(InputError, match="1 spot position"):
        fit_lattice([[3, 4], [3, 4]])


def test_cells_are_squares_and_hexagons_at_the_border_too():
    assert shapely.area(tessellate(square(4, 3)).polygons) == pytest.approx(np.full(12, 1e4))
    assert shapely.area(tessellate(hexagonal(4, 3)).polygons) == pytest.approx(np.full(12, HEXAGON))
    box = tessellate(square(4, 3)).polygons[0]
    assert box.bounds == pytest.approx((950, 950, 1050, 1050))


@pytest.mark.parametrize(("points", "cell"), [(square(3, 3), 1e4), (hexagonal(3, 3), HEXAGON)])
def test_one_spot_becomes_a_disc_of_its_area(points, cell):
    called = np.arange(9) == 4
    [(shape, own)] = found_in(points, called)
    assert list(own) == [4]
    assert shape.area == pytest.approx(cell, rel=0.01)
    # of all shapes a disc has the shortest outline: 4 pi area / length² is 1, 0.79 of a square, 0.91 of a hexagon
    assert 4 * np.pi * shape.area / shape.length**2 > 0.98
    assert shape.centroid.distance(geometry.Point(points[4])) < 0.1


def test_ring_of_squares_has_a_hole():
    called = np.ones(25, dtype=bool)
    called[12] = False
    [(shape, own)] = found_in(square(5, 5), called)
    assert shape.area == pytest.approx(24 * 100**2, rel=0.01)
    # 500 px wide, moved outwards by a few px for the area of its rounded corners
    assert shape.bounds == pytest.approx((950, 950, 1450, 1450), abs=5)
    assert not shape.contains(geometry.Point(955, 955))  # a corner of the outermost cell
    [hole] = shape.interiors
    assert geometry.Polygon(hole).area == pytest.approx(1e4, rel=0.01)
    assert geometry.Polygon(hole).contains(geometry.Point(1200, 1200))
    assert sorted(own) == [i for i in range(25) if i != 12]


def test_the_edge_of_a_row_of_hexagons_is_straight():
    points = hexagonal(12, 8)
    called = points[:, 1] > 3.5 * 100 * 3**0.5 / 2  # the rows 4 to 7
    [(shape, _)] = found_in(points, called)
    edge = [shape.intersection(geometry.LineString([(x, 0), (x, 500)])).bounds[1] for x in range(300, 900, 7)]
    assert np.ptp(edge) < 1.5
    # the middles of the slanted sides lie at 3/4 of the side of a hexagon, 100 / sqrt(3) px, from its centre
    assert np.mean(edge) == pytest.approx(4 * 100 * 3**0.5 / 2 - 0.75 * 100 / 3**0.5, abs=5)


def test_hexagons_join_without_gaps():
    called = np.ones(49, dtype=bool)
    called[24] = False
    [(shape, own)] = found_in(hexagonal(7, 7), called)
    assert shape.area == pytest.approx(48 * HEXAGON, rel=0.01)
    assert len(shape.interiors) == 1
    assert geometry.Polygon(shape.interiors[0]).area == pytest.approx(HEXAGON, rel=0.01)
    assert len(own) == 48


def test_regions_are_ordered_by_size_and_not_joined_across_corners():
    called = np.zeros(15, dtype=bool)
    called[[0, 1, 7, 4]] = True  # two neighbours, one diagonal to them, one apart
    found = found_in(square(5, 3), called)
    assert [list(own) for _, own in found] == [[0, 1], [4], [7]]
    assert [shape.area for shape, _ in found] == pytest.approx([2e4, 1e4, 1e4], rel=0.01)
    assert found[0][0].distance(found[2][0]) > 0


def brute_force(points, called):
    """The regions as sets of spots, by graph traversal."""
    near = np.linalg.norm(points[:, None] - points[None], axis=2) < 1.25 * fit_lattice(points).pitch_px
    left, found = set(np.flatnonzero(called)), []
    while left:
        stack, region = [left.pop()], set()
        while stack:
            spot = stack.pop()
            region.add(spot)
            more = set(np.flatnonzero(near[spot])) & left
            left -= more
            stack += more
        found.append(region)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.1, 0.45, 0.6, 0.9])
@pytest.mark.parametrize(("array", "cell"), [(square, 1e4), (hexagonal, HEXAGON)])
def test_any_calls_keep_their_area_and_their_spots(array, cell, share, seed):
    rng = np.random.default_rng(seed)
    points = turned(array(14, 14), 0.3 * seed)
    called = rng.random(196) < share
    found = found_in(points, called)
    assert {frozenset(own) for _, own in found} == {frozenset(region) for region in brute_force(points, called)}
    for shape, own in found:
        assert shape.is_valid
        assert shape.geom_type == "Polygon"
        assert shape.area == pytest.approx(len(own) * cell, rel=0.01)
        inside = [i for i, point in enumerate(points) if shape.contains(geometry.Point(point))]
        assert inside == sorted(own)
    shapes = [shape for shape, _ in found]
    assert shapely.union_all(shapes).area == pytest.approx(sum(shapely.area(shapes)), rel=1e-9)  # none on another


@pytest.mark.parametrize("seed", range(4))
def test_an_irregular_array_keeps_its_spots_too(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 3000, (500, 2)) if seed % 2 else square(20, 25) + rng.normal(0, 12, (500, 2))
    called = rng.random(500) < 0.5
    cells = tessellate(points)
    for shape, own in find_regions(cells, called):
        assert shape.is_valid
        assert shape.area == pytest.approx(shapely.area(cells.polygons[cells.place[own]]).sum(), rel=0.02)
        assert sorted(np.flatnonzero(shapely.contains_xy(shape, points))) == sorted(own)


@pytest.mark.parametrize(
    "spoil", [lambda shape: shape.buffer(60), lambda shape: shape.buffer(-45), lambda s: s.envelope]
)
def test_an_outline_with_other_spots_or_another_area_is_replaced_by_the_cells(spoil, monkeypatch):
    monkeypatch.setattr(regions, "_smoothed", lambda shapes: np.array([spoil(shape) for shape in shapes]))
    called = np.zeros(25, dtype=bool)
    called[[0, 5, 6]] = True
    [(shape, _)] = found_in(square(5, 5), called)
    corners = [(950, 950), (1050, 950), (1050, 1050), (1150, 1050), (1150, 1150), (950, 1150)]
    assert shape.symmetric_difference(geometry.Polygon(corners)).area < 1e-3


def test_neighbours_with_another_spot_between_are_one_region_of_two_parts():
    points = np.vstack([square(6, 6), [[3000, 1000], [3120, 1000], [3060, 1005]]])
    called = np.isin(np.arange(39), [36, 37])
    [(shape, own)] = found_in(points, called)
    assert shape.geom_type == "MultiPolygon"
    assert list(own) == [36, 37]
    assert [shape.contains(geometry.Point(point)) for point in points[36:]] == [True, True, False]


def test_measured_positions_still_join():
    rng = np.random.default_rng(1)
    points = square(12, 12) + rng.normal(0, 4, (144, 2))
    [(shape, own)] = found_in(points, np.ones(144, dtype=bool))
    assert len(own) == 144
    assert not shape.interiors
    assert shape.area == pytest.approx(144e4, rel=0.03)


def test_nothing_called_is_no_region():
    assert found_in(square(3, 3), np.zeros(9)) == []


def test_two_spots_at_one_place():
    points = np.vstack([square(3, 3), [[1000.0, 1000.0]]])
    called = np.zeros(10)
    called[[0, 9]] = 1
    [(shape, own)] = found_in(points, called)
    assert shape.area == pytest.approx(1e4, rel=0.01)
    assert sorted(own) == [0, 9]


def test_the_regions_of_a_section_are_those_of_each_run():
    spots = section(square(3, 3))
    calls = pd.DataFrame({"a": [1.0] * 3 + [0.0] * 6, "b": [np.nan, 0.0] * 4 + [1.0]}, index=spots.obs_names)
    found = section_regions(spots, calls[::-1])  # rows in any order
    assert [list(own) for _, own in found["a"]] == [[0, 1, 2]]
    assert [list(own) for _, own in found["b"]] == [[8]]


def test_real_positions_join_to_whole_cells():
    path = Path(__file__).parents[4] / "shared" / "data" / "her2st" / "ST-spotfiles" / "B4_selection.tsv"
    if not path.is_file():
        pytest.skip("shared/data/her2st is not here")
    points = pd.read_csv(path, sep="\t")[["pixel_x", "pixel_y"]].to_numpy()
    found = found_in(points, np.ones(len(points)))
    area = sum(shape.area for shape, _ in found)
    assert sum(len(own) for _, own in found) == len(points)
    assert fit_lattice(points).sides == 4
    assert area == pytest.approx(len(points) * fit_lattice(points).cell_px2, rel=0.03)
