"""Aggregate Xenium cells to spots of Visium geometry: discs of 55 µm on a hexagonal lattice, 100 µm apart.

Source: SpaCRD's supplement for the geometry; METHODS section 0 for assigning a cell to the disc that has its centre.
"""

import logging
import math

import numpy as np

from ctrflow.errors import InputError
from ctrflow.readers.counts import MIN_SPOTS
from ctrflow.readers.geometry import VISIUM_PITCH_UM as PITCH_UM
from ctrflow.readers.geometry import VISIUM_SPOT_UM as SPOT_UM

logger = logging.getLogger("ctrflow")


def aggregate_cells(cells):
    """Sum the cells of each disc.

    Parameters
    ----------
    cells
        AnnData as `ctrflow.readers.xenium.read` returns it: `obsm["spatial_um"]`, `uns["section"]` with `pixel_size`
        and, if there is an H&E image, `alignment`.

    Returns
    -------
    AnnData
        Spots with at least one cell, row by row: X summed counts (CSR), `obs_names` "r012c034" (row and column of the
        lattice), `obs["n_cells"]`, `obsm["spatial"]` centres (x, y) in full-resolution px (H&E px; Xenium px without
        image), `obsm["spatial_um"]` the same in µm on the slide, `uns["section"]`.

    Raises
    ------
    InputError
        if fewer than 7 spots have a cell.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    centres_um, row, column = lattice(cells.obsm["spatial_um"])
    belongs = membership(cells.obsm["spatial_um"], centres_um)
    n_cells = np.diff(belongs.indptr)
    kept = np.flatnonzero(n_cells)
    section = dict(cells.uns["section"])
    if len(kept) < MIN_SPOTS:
        raise InputError(
            f"section {section['section']}: its {cells.n_obs:,} cells fill {len(kept)} spots of {SPOT_UM:.0f} µm, "
            f"at least {MIN_SPOTS} are needed; check that the cell table is complete and its centroids are in µm"
        )
    logger.info(
        "section %s: %s of %s cells lie in one of %s spots",
        section["section"], f"{int(n_cells.sum()):,}", f"{cells.n_obs:,}", f"{len(kept):,}",
    )  # fmt: skip
    names = [f"r{r:03d}c{c:03d}" for r, c in zip(row[kept], column[kept], strict=True)]
    centres_um = centres_um[kept]
    return AnnData(
        sparse.csr_matrix(belongs[kept] @ cells.X, dtype=np.float32),
        obs=pd.DataFrame({"n_cells": n_cells[kept].astype(np.int64)}, index=names),
        var=cells.var[[]].copy(),
        obsm={"spatial": _full_res_px(centres_um, section), "spatial_um": centres_um},
        uns={"section": {key: value for key, value in section.items() if key not in ("pixel_size", "alignment")}},
    )


def lattice(positions_um: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hexagonal lattice over the bounding box of `positions_um` (n x 2).

    Rows are 100 * sqrt(3) / 2 µm apart; every other row is shifted by half a pitch. The first centre is the box's
    lower corner.

    Returns
    -------
    centres in µm (m x 2), row and column index of each (m).
    """
    low, high = positions_um.min(axis=0), positions_um.max(axis=0)
    row_um = PITCH_UM * math.sqrt(3) / 2
    n_columns = math.ceil((high[0] - low[0]) / PITCH_UM) + 1
    n_rows = math.ceil((high[1] - low[1]) / row_um) + 1
    row, column = (index.ravel() for index in np.indices((n_rows, n_columns)))
    x = low[0] + column * PITCH_UM + (row % 2) * PITCH_UM / 2
    return np.column_stack([x, low[1] + row * row_um]), row, column


def membership(cells_um: np.ndarray, spots_um: np.ndarray, spot_um: float = SPOT_UM):
    """The cells in each spot: CSR of ones (spots x cells); a cell on the rim is inside.

    Parameters
    ----------
    cells_um, spots_um
        Centres, n x 2, µm.
    spot_um
        Diameter of a spot, µm.
    """
    from scipy import sparse
    from scipy.spatial import KDTree

    pairs = KDTree(spots_um).sparse_distance_matrix(KDTree(cells_um), spot_um / 2, output_type="ndarray")
    ones = np.ones(len(pairs), dtype=np.float32)
    return sparse.csr_matrix((ones, (pairs["i"], pairs["j"])), shape=(len(spots_um), len(cells_um)))


def _full_res_px(um: np.ndarray, section: dict) -> np.ndarray:
    px = um / section["pixel_size"]
    if "alignment" not in section:
        return px
    back = np.linalg.inv(section["alignment"])
    return px @ back[:2, :2].T + back[:2, 2]
