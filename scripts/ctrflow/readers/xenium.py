"""Xenium: a bundle folder of version 1 to 4, read as cells; `aggregate.aggregate_cells` sums them into spots.

Source: 10x Genomics, "Xenium Onboard Analysis outputs".
"""

import json
import logging
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError
from ctrflow.readers import describe, join, spatialdata_zarr
from ctrflow.readers.folders import find, outs
from ctrflow.readers.kinds import is_store
from ctrflow.readers.matrices import files_10x, read_10x
from ctrflow.readers.platform import Platform
from ctrflow.readers.tables import (
    PARQUET,
    as_ids,
    numeric,
    read_parquet,
    read_table,
    read_text,
    require_columns,
    require_file,
    starts_with,
)
from ctrflow.scale.arrays import VISIUM, XENIUM_PX_UM
from ctrflow.scale.settle import Claim, number, settle

logger = logging.getLogger("ctrflow")

SPOT_RULE = f"cells of a Xenium section are summed into {VISIUM.spot_um:.0f} µm spots; leave it empty"
PLATFORM = Platform(
    "a Xenium bundle",
    marks=("*experiment.xenium", "*cell_feature_matrix", "*cell_feature_matrix.h5"),
    in_stores=True,
    cells=True,
    spot_um=(VISIUM.spot_um,),
    spot_um_rule=SPOT_RULE,
    alignment_rule="a Xenium section with an image needs its 3 x 3 alignment CSV",
)
MARKS = ("*experiment.xenium", "*cell_feature_matrix*", "*cells.parquet")
MATRIX = "cell_feature_matrix"
CELLS = ["cells.parquet", "cells.csv"]
COLUMNS = ["cell_id", "x_centroid", "y_centroid"]
SAME_PX = 0.01  # of pixel sizes
TOTALS = "transcript_counts"  # transcripts of genes per cell, the row sums of the matrix
MIN_AGREEMENT = 0.5  # correlation of the two; 0 for shuffled ids, nearly 1 if some genes of the panel were left out


def files(row: dict) -> list[str]:
    """The matrix, the cell table, the run's metadata if present, and the alignment if there is an image."""
    alignment = [row["alignment"]] if row.get("image") and row.get("alignment") else []
    if is_store(row["path"]):
        return [row["path"], *alignment]
    folder = outs(row["path"], *MARKS)
    paths = [*files_10x(_matrix_path(folder)), _cells_path(folder)]
    experiment = _experiment_path(folder)
    if experiment.is_file() or not folder.is_dir():
        paths.append(experiment)
    return [str(path) for path in paths] + alignment


def read(row: dict):
    """Cells: X counts of the gene-expression features, `obsm["spatial_um"]` centroids (x, y) in µm.

    `uns["section"]` holds, besides the content of `ctrflow.readers.describe`, `pixel_size` (µm per Xenium px) and, with
    an H&E image, `alignment`: the 3 x 3 affine from H&E px to Xenium px. Full-resolution px are H&E px, or Xenium px
    without an image.
    """
    _require_spot(row)
    if is_store(row["path"]):
        cells, pixel_size = spatialdata_zarr.read_cells(row)
    else:
        cells, pixel_size = _read_bundle(row)
    image = row.get("image") or ""
    alignment = _read_alignment(row) if image else None
    um_per_px, source = pixel_size, "Xenium's pixel_size"
    if alignment is not None:
        um_per_px *= np.sqrt(abs(np.linalg.det(alignment[:2, :2])))
        source = f"{Path(row['alignment']).name} from H&E px to Xenium px"
    image_scale = number(row, "image_scale") or 1.0
    scale = settle(row, [Claim(um_per_px, source, sure=True)], image, image_scale, binding=True)
    cells.uns["section"] = describe(row, scale, VISIUM.spot_um, image, image_scale)
    cells.uns["section"]["pixel_size"] = pixel_size
    if alignment is not None:
        cells.uns["section"]["alignment"] = alignment
    return cells


def _read_bundle(row: dict):
    """Cells and µm per px of a bundle folder."""
    folder = outs(row["path"], *MARKS)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the Xenium bundle in column path")
    matrix_path, cells_path = _matrix_path(folder), _cells_path(folder)
    pixel_size = _pixel_size(_experiment_path(folder))
    table = _read_cells(cells_path)
    cells = join(read_10x(matrix_path), table, matrix_path, cells_path, key="spatial_um")
    if TOTALS in table:
        _require_totals(cells, table[TOTALS].loc[cells.obs_names].to_numpy(), matrix_path, cells_path)
    return cells, pixel_size


def _matrix_path(folder: Path) -> Path:
    return find([folder], [f"{MATRIX}.h5", MATRIX], "matrices") or folder / f"{MATRIX}.h5"


def _cells_path(folder: Path) -> Path:
    return find([folder], CELLS, "cell tables") or folder / CELLS[0]


def _experiment_path(folder: Path) -> Path:
    return find([folder], ["experiment.xenium"], "files of metadata") or folder / "experiment.xenium"


def _read_cells(path: Path):
    """Frame by cell id (text): x, y (µm), and transcripts of genes if the version has them.

    Ids are text, bytes or integers, by version of the bundle.
    """
    import pandas as pd
    from pyarrow import ArrowInvalid, parquet

    require_file(path)
    if starts_with(path, PARQUET):
        try:
            counted = TOTALS in parquet.read_schema(path).names
        except (ArrowInvalid, OSError):
            counted = False  # reading it raises the error
        table = read_parquet(path, [*COLUMNS, TOTALS] if counted else COLUMNS)
    else:
        table = read_table(path)
        require_columns(table, COLUMNS, path)
    columns = [*COLUMNS[1:], *([TOTALS] if TOTALS in table else [])]
    values = numeric(table, columns, path)
    return pd.DataFrame(values, columns=["x", "y", *columns[2:]], index=pd.Index(as_ids(table["cell_id"])))


def _require_totals(cells, stated: np.ndarray, matrix_path: Path, cells_path: Path) -> None:
    """Refuse a matrix whose sums contradict the cell table: one of them has shuffled ids."""
    counted = np.asarray(cells.X.sum(axis=1)).ravel()
    both = np.log1p(np.maximum(np.column_stack([stated, counted]), 0))  # negative counts are refused later
    if (both.std(axis=0) == 0).any():
        return
    agreement = np.corrcoef(both, rowvar=False)[0, 1]
    if agreement < MIN_AGREEMENT:
        raise InputError(
            f"{matrix_path}: the transcripts of its cells do not match column {TOTALS} of {cells_path} (correlation "
            f"{agreement:.2f}): ids are shuffled or the files are from two sections; get both again"
        )


def _pixel_size(path: Path) -> float:
    if not path.is_file():
        logger.info("%s: missing; assuming %.4f µm per px", path, XENIUM_PX_UM)
        return XENIUM_PX_UM
    text = read_text(path)
    try:
        about = json.loads(text)
        value = float(about.get("pixel_size", XENIUM_PX_UM))
        version = str(about.get("analysis_sw_version", "of unknown version"))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from error
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{path}: pixel_size is {value}; it must be a positive number of µm; download the file again")
    if abs(value / XENIUM_PX_UM - 1) > SAME_PX:
        text = "%s: pixel_size is %.4g, but every Xenium so far has %.4g µm: check that it is not in another unit"
        logger.warning(text, path, value, XENIUM_PX_UM)
    logger.info("%s: %s, %.4f µm per px", path, version, value)
    return value


def _require_spot(row: dict) -> None:
    given = number(row, "spot_um")
    if given not in (None, VISIUM.spot_um):
        raise InputError(f"section {row['section']}: column spot_um is {given:g}; {SPOT_RULE}")


def _read_alignment(row: dict) -> np.ndarray:
    """The 3 x 3 affine of `<name>_he_imagealignment.csv` (no header): H&E px -> Xenium px."""
    path = row.get("alignment") or ""
    if not path:
        raise InputError(
            f"{row['path']}: section {row['section']}: the image has no alignment; fill column alignment with the "
            "3 x 3 CSV (H&E px to Xenium px), or leave column image empty"
        )
    table = read_table(path, header=None)
    cure = "give the 3 x 3 matrix that Xenium Explorer writes (H&E px to Xenium px, no header)"
    if table.shape != (3, 3):
        raise InputError(f"{path}: {table.shape[0]} rows x {table.shape[1]} columns; {cure}")
    matrix = numeric(table, list(table.columns), path, first_row=1)
    if not np.allclose(matrix[2], [0, 0, 1]):
        raise InputError(f"{path}: row 3 is {', '.join(table.iloc[2])} but must be 0, 0, 1; {cure}")
    with np.errstate(over="ignore", under="ignore"):
        scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    if np.linalg.matrix_rank(matrix[:2, :2]) < 2 or not 0 < scale < np.inf:
        raise InputError(f"{path}: the matrix cannot be inverted; {cure}")
    return matrix
