"""The regions of a map in a drawing that comes back: their class, and an id that tells an unchanged one.

A region that nobody has changed says what the model said. QuPath keeps the id of an object whatever is done to it, so
the id is made of the outline: it fits as long as the outline is that of the map.
"""

import uuid

import numpy as np

CLASS = "Cancer region"
DRAW_HERE = "Draw here"  # the class of regions in which a stroke would tell most: they are no drawing themselves
DECIMALS = 2  # of coordinates, image px, in the files that ctrflow and QuPath write
_MADE_OF_CONTENT = "5"  # version of a UUID; the objects that QuPath makes have 4, random


def region_id(shape) -> str:
    """The UUID of a region with this outline, the same before QuPath and after it.

    QuPath 0.4 to 0.7 keeps the corners of a polygon in single precision and writes them with two decimals; it may start
    a ring at another corner, turn it round, reorder parts, and leave out points on a straight line. None of it counts.

    Parameters
    ----------
    shape
        shapely Polygon or MultiPolygon, image px.
    """
    import shapely

    points, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(shape)), return_index=True)
    with np.errstate(over="ignore", invalid="ignore"):  # a file may hold any number
        kept = np.round(points.astype(np.float32).astype(np.float64), DECIMALS)
        points = np.round(kept * 10**DECIMALS).astype(np.int64)
    rings = np.split(points, np.flatnonzero(np.diff(ring)) + 1)
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"ctrflow region {sorted(map(_from_its_first_corner, rings))}"))


def is_unchanged(given_id, shape, word: str) -> bool:
    """Whether an area of a drawing, by its id, outline and class, is a map's own and as the map drew it.

    One that was given another class is not: someone has judged it.
    """
    made = isinstance(given_id, str) and given_id[14:15] == _MADE_OF_CONTENT
    return made and word.casefold() == CLASS.casefold() and given_id == region_id(shape)


def _from_its_first_corner(ring: np.ndarray) -> list:
    """The corners of a closed ring from the lowest one, in the direction that sorts first."""
    ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]  # the last point repeats the first
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    corners = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    if not len(corners):
        return []
    forth = np.roll(corners, -np.lexsort(corners.T[::-1])[0], axis=0)
    back = np.roll(forth[::-1], 1, axis=0)
    return min(forth.tolist(), back.tolist())
