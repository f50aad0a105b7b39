"""Called spots joined to regions with smooth outlines.

Every spot has a cell: the part of the plane that is closer to it than to any other position of the array. On a regular
array that is a square or hexagon as wide as the pitch, so neighbouring cells meet without a gap, and a hole is a spot
that was not called. A region is the union of the cells of called spots connected through direct neighbours (4 on a
square array, 6 on a hexagonal one), not across corners.

The outline of a union of cells is a staircase. Each ring is smoothed: first to the midpoints of the cells' sides (which
makes a row of hexagons straight), then by corner cutting (Chaikin 1974, Computer Graphics and Image Processing 3), and
is finally offset outwards so that it encloses the same area as before (Steiner's formula, area + perimeter x distance +
pi x distance²). The result is checked: a smooth region is valid, contains the positions of its own spots and no others,
and has the area of its cells within 2 %. If not, which can happen only on irregular arrays, the union of the cells is
kept.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from ctrflow.scale.lattice import REACH, Lattice, connected, fit_lattice
from ctrflow.scale.surroundings import empty_around

AREA_TOLERANCE = 0.02
_CUTS = 2
_PLAIN = 5e-3  # share of the pitch: vertices closer than this to the simplified outline are dropped


@dataclass(frozen=True)
class Cells:
    """The cells of a section. Spots at the same position share a *place* and its cell."""

    lattice: Lattice
    place: np.ndarray  # (spots,) the place of each spot
    centres_px: np.ndarray  # (places x 2)
    polygons: np.ndarray  # (places,) of shapely
    neighbours: np.ndarray  # (pairs x 2) of places


def tessellate(spatial_px) -> Cells:
    """The cells of all spots of a section (n x 2, centres in px), bounded by the empty places around it.

    Raises
    ------
    InputError
        with fewer than two distinct positions.
    """
    from scipy.spatial import Voronoi, cKDTree

    spatial_px = np.asarray(spatial_px, dtype=float)
    grid = fit_lattice(spatial_px)
    places, place = np.unique(spatial_px, axis=0, return_inverse=True)
    far = 1e3 * np.ptp(places, axis=0).max() * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    middle = places.mean(axis=0)
    # centred coordinates keep the tessellation accurate
    voronoi = Voronoi(np.vstack([places, empty_around(places, grid), middle + far]) - middle)
    corners = [voronoi.regions[number] for number in voronoi.point_region[: len(places)]]
    polygons = _polygons(places, corners, voronoi.vertices + middle, 1e-6 * grid.pitch_px)
    neighbours = cKDTree(places).query_pairs(REACH * grid.pitch_px, output_type="ndarray")
    return Cells(grid, place.ravel(), places, polygons, neighbours)


def find_regions(cells: Cells, called) -> list[tuple]:
    """Called spots joined to regions: a list of (polygon in px, indices of its spots), largest first.

    On an irregular array a region may be a MultiPolygon: the cells of neighbours can meet in a point, or not at all.

    Parameters
    ----------
    cells : those of the section, see `tessellate`
    called : (n,) true = called cancer
    """
    import shapely

    spots = np.flatnonzero(np.asarray(called, dtype=bool))
    if not len(spots):
        return []
    component = _components(cells, np.unique(cells.place[spots]))
    members = _grouped(np.flatnonzero(component >= 0), component[component >= 0])
    own = _grouped(spots, component[cells.place[spots]])
    blocky = np.array([shapely.coverage_union_all(cells.polygons[places]) for places in members])
    smooth = shapely.simplify(_smoothed(blocky), _PLAIN * cells.lattice.pitch_px)
    faithful = _faithful(smooth, blocky, component, members, cells.centres_px)
    shapes = np.where(faithful, smooth, shapely.simplify(blocky, 1e-4 * cells.lattice.pitch_px))
    return sorted(zip(shapes, own, strict=True), key=lambda region: (-len(region[1]), region[1][0]))


def section_regions(spots, calls) -> dict[str, list[tuple]]:
    """The regions of each run of a section: `find_regions` by column of `calls` (1 cancer; rows in any order)."""
    cells = tessellate(spots.obsm["spatial"])
    calls = calls.reindex(spots.obs_names)
    return {run: find_regions(cells, calls[run].to_numpy() == 1) for run in calls}


def _polygons(places: np.ndarray, corners: list[list[int]], vertices: np.ndarray, least_px: float) -> np.ndarray:
    """Convex polygons from the indices of their corners; vertices closer than `least_px` are merged.

    Four cells that meet in a point may get two vertices there, a rounding error apart, whose order around a cell would
    be undefined.
    """
    import shapely
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    same = cKDTree(vertices).query_pairs(least_px, output_type="ndarray")
    graph = coo_matrix((np.ones(len(same)), same.T), shape=(len(vertices),) * 2)
    group = connected_components(graph, directed=False)[1]
    vertices = vertices[np.unique(group, return_index=True)[1]]
    cell = np.repeat(np.arange(len(corners)), [len(numbers) for numbers in corners])
    vertex = group[np.fromiter(chain.from_iterable(corners), dtype=np.int64, count=len(cell))]
    cell, vertex = np.divmod(np.unique(cell * len(vertices) + vertex), len(vertices))
    offset = vertices[vertex] - places[cell]
    order = np.lexsort((np.arctan2(offset[:, 1], offset[:, 0]), cell))
    return shapely.polygons(shapely.linearrings(vertices[vertex[order]], indices=cell[order]))


def _components(cells: Cells, chosen: np.ndarray) -> np.ndarray:
    """The region number of each place, -1 if not chosen."""
    number = np.full(len(cells.centres_px), -1)
    number[chosen] = np.arange(len(chosen))
    pairs = number[cells.neighbours]
    pairs = pairs[(pairs >= 0).all(axis=1)]
    number[chosen] = connected(pairs, len(chosen))
    return number


def _grouped(items: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    """The items of group 0, group 1, ..., each in the given order."""
    order = np.argsort(group, kind="stable")
    return np.split(items[order], np.flatnonzero(np.diff(group[order])) + 1)


def _smoothed(shapes: np.ndarray) -> np.ndarray:
    """Polygons or MultiPolygons with smoothed rings of unchanged area."""
    import shapely

    parts, shape_of = shapely.get_parts(shapes, return_index=True)
    rings, part_of = shapely.get_rings(parts, return_index=True)
    # the first ring of a part is its outline, the others are its holes
    smooth = shapely.polygons(_smoothed_rings(rings), indices=part_of)
    return np.array([shapely.union_all(own) if len(own) > 1 else own[0] for own in _grouped(smooth, shape_of)])


def _smoothed_rings(rings: np.ndarray) -> np.ndarray:
    import shapely

    points, ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.append(ring[1:] != ring[:-1], True)  # the last point of a ring repeats the first
    points, ring = points[~closing], ring[~closing]
    points = (points + points[_following(ring)]) / 2
    for _ in range(_CUTS):
        after = points[_following(ring)]
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
        ring = np.repeat(ring, 2)
    cut = shapely.polygons(shapely.linearrings(points, indices=ring))
    length, lost = shapely.length(cut), shapely.area(shapely.polygons(rings)) - shapely.area(cut)
    distance = (np.sqrt(np.maximum(length**2 + 4 * np.pi * lost, 0)) - length) / (2 * np.pi)
    grown = shapely.buffer(cut, distance, quad_segs=4)
    # if the offset splits a ring, keep the ring without offset; the check of its area rejects it later
    return shapely.get_exterior_ring(np.where(shapely.get_type_id(grown) == shapely.GeometryType.POLYGON, grown, cut))


def _following(ring: np.ndarray) -> np.ndarray:
    """The index of each point's successor, in concatenated rings."""
    after = np.arange(1, len(ring) + 1)
    last = np.append(ring[1:] != ring[:-1], True)
    after[last] = np.flatnonzero(np.append(True, ring[1:] != ring[:-1]))
    return after


def _faithful(smooth, blocky, component, members, centres_px) -> np.ndarray:
    """Whether each smooth region is valid, contains exactly its own places, and has the area of its cells."""
    import shapely

    good = shapely.is_valid(smooth)
    good &= np.abs(shapely.area(smooth) / shapely.area(blocky) - 1) < AREA_TOLERANCE
    candidates = np.flatnonzero(good)
    region, place = shapely.STRtree(shapely.points(centres_px)).query(smooth[candidates], predicate="contains")
    region = candidates[region]
    is_own = component[place] == region
    count = np.bincount(region[is_own], minlength=len(smooth))
    others = np.bincount(region[~is_own], minlength=len(smooth))
    return good & (others == 0) & (count == [len(places) for places in members])
