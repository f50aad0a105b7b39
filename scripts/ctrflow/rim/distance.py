"""The distance of spots to the rim of the called tumour: negative inside, positive outside.

The *rim* is where tumour and other tissue meet: of the outlines of the regions called cancer, the part that borders
spots which were scored and not called. Where a section ends, or spots are missing or not scored, nobody knows what
follows: that part of an outline is no rim, so that a spot deep in a tumour that the section cuts through stays deep.
Which part it is follows from the place of the array that is nearest to it, called spots left aside: a spot, or an empty
place beside the section.
"""

import numpy as np

from ctrflow.scale.lattice import fit_lattice
from ctrflow.scale.surroundings import empty_around

_STEP = 0.125  # pitches: outlines are looked at in pieces of at most that length


def of_section(spots, calls, regions: dict):
    """The signed distance of every spot's centre to the rim, by run.

    Parameters
    ----------
    spots : AnnData, see the section contract
    calls : frame by run, spot ids as index in any order; 1 called cancer, 0 other, NaN not scored
    regions : run -> the regions of its called spots, see `export.regions.section_regions`

    Returns
    -------
    frame (spots x runs) in µm, negative for called spots, positive for others; NaN where a spot is not scored, and
    everywhere if a run has no rim: nothing called, or nothing else beside it.
    """
    import pandas as pd

    section, calls = spots.uns["section"], calls.reindex(spots.obs_names)
    found = signed_um(spots.obsm["spatial"], section["um_per_px"], {run: calls[run] for run in calls}, regions)
    return pd.DataFrame(found, index=spots.obs_names, columns=calls.columns)


def signed_um(spatial_px, um_per_px: float, calls: dict, regions: dict) -> dict:
    """The same from positions (n x 2, px) and calls (run -> (n,)): run -> (n,) µm."""
    spatial_px = np.asarray(spatial_px, dtype=float)
    grid = fit_lattice(spatial_px)
    empty_px = empty_around(np.unique(spatial_px, axis=0), grid)
    found = {}
    for run, call in calls.items():
        call = np.asarray(call, dtype=float)
        far_um = um_per_px * _to_pieces(spatial_px, rim(spatial_px, call, regions[run], empty_px, grid.pitch_px))
        found[run] = np.where(np.isnan(call), np.nan, np.where(call == 1, -far_um, far_um))
    return found


def rim(spatial_px, call, regions: list[tuple], empty_px, pitch_px: float) -> np.ndarray:
    """The rim as straight pieces, (pieces x 2 ends x 2) px.

    Parameters
    ----------
    spatial_px : (n x 2) centres of the spots
    call : (n,) 1, 0, or NaN
    regions : (polygon in px, indices of its spots), those of the called spots
    empty_px : (m x 2) the empty places around, see `empty_around`
    pitch_px : of the array
    """
    import shapely
    from scipy.spatial import cKDTree

    places, place = np.unique(spatial_px, axis=0, return_inverse=True)
    inside, beside = (np.bincount(place.ravel(), call == value, len(places)) > 0 for value in (1, 0))
    beside = beside[~inside]
    if not regions or not beside.any():
        return np.empty((0, 2, 2))
    outside_px = np.vstack([places[~inside], empty_px])
    is_tissue = np.append(beside, np.zeros(len(empty_px), dtype=bool))
    rings = shapely.get_rings(shapely.get_parts(np.array([shape for shape, _ in regions], dtype=object)))
    points, ring = shapely.get_coordinates(shapely.segmentize(rings, _STEP * pitch_px), return_index=True)
    owner = cKDTree(outside_px).query(points)[1]
    pieces = np.flatnonzero(ring[1:] == ring[:-1])
    ends, owners = (np.stack([of[pieces], of[pieces + 1]], axis=1) for of in (points, owner))
    tissue = is_tissue[owners]
    crossing = tissue[:, 0] != tissue[:, 1]
    ends[crossing] = _part(ends[crossing], outside_px[owners[crossing]], tissue[crossing, 0])
    return ends[tissue.any(axis=1)]


def _part(ends: np.ndarray, owners: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Of pieces (n x 2 x 2) the part that is nearer to the owner of one end: of the first end where `first` is true."""
    start, step = ends[:, 0], ends[:, 1] - ends[:, 0]
    to_first, to_second = (((start - owners[:, number]) ** 2).sum(axis=1) for number in (0, 1))
    towards = 2 * (step * (owners[:, 1] - owners[:, 0])).sum(axis=1)
    share = np.clip((to_second - to_first) / np.where(towards == 0, 1, towards), 0, 1)
    middle = start + share[:, None] * step
    return np.stack([np.where(first[:, None], start, middle), np.where(first[:, None], middle, ends[:, 1])], axis=1)


def _to_pieces(points: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """The distance of points (n x 2) to the nearest of straight pieces (m x 2 x 2); NaN without pieces."""
    import shapely

    if not len(pieces):
        return np.full(len(points), np.nan)
    tree = shapely.STRtree(shapely.linestrings(pieces))
    (number, _), far = tree.query_nearest(shapely.points(points), return_distance=True, all_matches=False)
    return far[np.argsort(number)]
