"""Sum cells (of Xenium, of Visium HD) into spots on a hexagonal lattice: without gaps, or in the discs of Visium.

`hexagons`: the lattice's pitch is 55 µm, and each cell belongs to the nearest centre, so that none is left out. The
width is that of a Visium spot, whose counts a hexagon then resembles; measured against squares, other widths and a disc
around each cell (docs/measured.md).

`discs`: 55 µm wide and 100 µm apart, as in the papers' tables; most cells are between them. Source: SpaCRD's
supplement for the geometry; METHODS section 0 for assigning a cell to the disc that has its centre.
"""

import logging
import math

import numpy as np

from ctrflow.errors import InputError
from ctrflow.readers.counts import MIN_SPOTS
from ctrflow.readers.platform import POOLS
from ctrflow.scale.arrays import VISIUM

logger = logging.getLogger("ctrflow")

SPOT_UM = VISIUM.spot_um
PITCH_UM = {"hexagons": SPOT_UM, "discs": VISIUM.pitch_um}


def aggregate_cells(cells, pool: str = ""):
    """Sum the cells of each spot, and note the spot of each cell in `cells.obs["spot"]` (missing if in none).

    Parameters
    ----------
    cells
        AnnData as a reader of cells returns it: `obsm["spatial_um"]`, `uns["section"]` with `pixel_size` and, if the
        H&E image has pixels of its own (Xenium), `alignment`.
    pool
        Column pool of the sheet: one of `POOLS`, or "" for the first.

    Returns
    -------
    AnnData
        Spots with at least one cell, row by row: X summed counts (CSR), `obs_names` "r012c034" (row and column of the
        lattice), `obs["n_cells"]`, `obsm["spatial"]` centres (x, y) in full-resolution px (H&E px; Xenium px without
        image), `obsm["spatial_um"]` the same in µm on the slide, `uns["section"]` with `pool`.

    Raises
    ------
    InputError
        if fewer than 7 spots have a cell.
    """
    import pandas as pd
    from anndata import AnnData

    pool = pool or POOLS[0]
    centres_um, row, column = lattice(cells.obsm["spatial_um"], PITCH_UM[pool])
    place = places(cells.obsm["spatial_um"], centres_um, pool)
    kept = np.unique(place[place >= 0])
    section = dict(cells.uns["section"])
    if len(kept) < MIN_SPOTS:
        raise InputError(
            f"section {section['section']}: its {cells.n_obs:,} cells fill {len(kept)} spots of {SPOT_UM:.0f} µm, "
            f"at least {MIN_SPOTS} are needed; check that the cell table is complete and its centroids are in µm"
        )
    logger.info(
        "section %s: %s of %s cells lie in one of %s spots (%s)",
        section["section"], f"{int((place >= 0).sum()):,}", f"{cells.n_obs:,}", f"{len(kept):,}", pool,
    )  # fmt: skip
    names = [f"r{r:03d}c{c:03d}" for r, c in zip(row[kept], column[kept], strict=True)]
    spot = np.where(place >= 0, np.searchsorted(kept, place), -1)
    cells.obs["spot"] = pd.Categorical.from_codes(spot, names)
    belongs = _by_spot(spot, len(kept))
    described = {key: value for key, value in section.items() if key not in ("pixel_size", "alignment")}
    return AnnData(
        (belongs @ cells.X).astype(np.float32, copy=False),
        obs=pd.DataFrame({"n_cells": np.diff(belongs.indptr).astype(np.int64)}, index=names),
        var=cells.var[[]].copy(),
        obsm={"spatial": _full_res_px(centres_um[kept], section), "spatial_um": centres_um[kept]},
        uns={"section": described | {"pool": pool}},
    )


def lattice(positions_um: np.ndarray, pitch_um: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hexagonal lattice over the bounding box of `positions_um` (n x 2).

    Rows are pitch * sqrt(3) / 2 apart; every other row is shifted by half a pitch. The first centre is the box's lower
    corner. No centre that the box leaves out would be nearer to a point in it than those that are there.

    Returns
    -------
    centres in µm (m x 2), row and column index of each (m).
    """
    low, high = positions_um.min(axis=0), positions_um.max(axis=0)
    row_um = pitch_um * math.sqrt(3) / 2
    n_columns = math.ceil((high[0] - low[0]) / pitch_um) + 1
    n_rows = math.ceil((high[1] - low[1]) / row_um) + 1
    row, column = (index.ravel() for index in np.indices((n_rows, n_columns)))
    x = low[0] + column * pitch_um + (row % 2) * pitch_um / 2
    return np.column_stack([x, low[1] + row * row_um]), row, column


def places(cells_um: np.ndarray, centres_um: np.ndarray, pool: str) -> np.ndarray:
    """The centre that each cell belongs to, the nearest: (cells,) indices; a disc's rim is inside, beyond it -1."""
    from scipy.spatial import KDTree

    distance_um, nearest = KDTree(centres_um).query(cells_um)
    return np.where(distance_um <= SPOT_UM / 2, nearest, -1) if pool == "discs" else nearest


def spot_of_cells(cells, spots) -> np.ndarray:
    """The spot of each cell, as `aggregate_cells` noted it: (cells,) rows of `spots`, -1 for a cell in none of them."""
    return spots.obs_names.get_indexer(cells.obs["spot"].astype(object))


def membership(cells, spots):
    """The cells of each spot: CSR of ones (spots x cells)."""
    return _by_spot(spot_of_cells(cells, spots), spots.n_obs)


def _by_spot(spot: np.ndarray, n_spots: int):
    from scipy import sparse

    placed = np.flatnonzero(spot >= 0)
    ones = np.ones(len(placed), dtype=np.float32)
    return sparse.csr_matrix((ones, (spot[placed], placed)), shape=(n_spots, len(spot)))


def _full_res_px(um: np.ndarray, section: dict) -> np.ndarray:
    px = um / section["pixel_size"]
    if "alignment" not in section:
        return px
    back = np.linalg.inv(section["alignment"])
    return px @ back[:2, :2].T + back[:2, 2]
