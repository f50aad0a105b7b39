"""Xenium: a bundle folder, read as cells. `aggregate.aggregate_cells` makes spots of them.

Source: 10x Genomics, "Xenium Onboard Analysis outputs".
"""

import json
import logging
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError
from ctrflow.readers import (
    describe,
    join,
    number,
    numeric,
    read_10x_h5,
    read_table,
    require_columns,
    require_file,
)

logger = logging.getLogger("ctrflow")

PIXEL_SIZE_UM = 0.2125  # of every Xenium instrument so far
SPOT_UM = 55.0  # what cells are aggregated to


def files(row: dict) -> list[str]:
    """The matrix, the cell table, the run's metadata where there is any, and the alignment where there is an image."""
    folder = Path(row["path"])
    paths = [folder / "cell_feature_matrix.h5", _cells_path(folder)]
    experiment = folder / "experiment.xenium"
    if experiment.is_file() or not folder.is_dir():
        paths.append(experiment)
    alignment = [row["alignment"]] if row.get("image") and row.get("alignment") else []
    return [str(path) for path in paths] + alignment


def read(row: dict):
    """Cells: X counts of the gene-expression features, `obsm["spatial_um"]` centroids (x, y) in µm.

    `uns["section"]` holds, besides what `ctrflow.readers.describe` says, `pixel_size` (µm per Xenium px) and, where the
    section has an H&E image, `alignment`: the 3 x 3 affine that takes H&E px to Xenium px. Full-resolution px are
    H&E px, or Xenium px where there is no image.
    """
    folder = Path(row["path"])
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; column path takes the Xenium bundle")
    matrix_path, cells_path = folder / "cell_feature_matrix.h5", _cells_path(folder)
    counts = read_10x_h5(matrix_path)
    cells = join(counts, _read_cells(cells_path), matrix_path, cells_path, key="spatial_um")
    pixel_size = _pixel_size(folder / "experiment.xenium")
    image = row.get("image") or ""
    alignment = _read_alignment(row) if image else None
    um_per_px = pixel_size if alignment is None else pixel_size * np.sqrt(abs(np.linalg.det(alignment[:2, :2])))
    _require_agreement(row, um_per_px)
    cells.uns["section"] = describe(row, um_per_px, SPOT_UM, image, number(row, "image_scale") or 1.0)
    cells.uns["section"]["pixel_size"] = pixel_size
    if alignment is not None:
        cells.uns["section"]["alignment"] = alignment
    return cells


def _cells_path(folder: Path) -> Path:
    candidates = [folder / name for name in ("cells.parquet", "cells.csv.gz")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _read_cells(path: Path):
    """Frame by cell id (text): x, y (µm). Ids are text, bytes or integers, by version of the bundle."""
    import pandas as pd

    require_file(path)
    columns = ["cell_id", "x_centroid", "y_centroid"]
    if path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a whole parquet file ({error}); download it again") from error
    else:
        table = read_table(path)
    require_columns(table, columns, path)
    ids = [value.decode() if isinstance(value, bytes) else str(value) for value in table["cell_id"]]
    values = numeric(table, columns[1:], path)
    return pd.DataFrame(values, columns=["x", "y"], index=ids)


def _pixel_size(path: Path) -> float:
    if not path.is_file():
        logger.info("%s: not there, so a pixel is taken to be %.4f µm", path, PIXEL_SIZE_UM)
        return PIXEL_SIZE_UM
    try:
        value = float(json.loads(path.read_text(encoding="utf-8")).get("pixel_size", PIXEL_SIZE_UM))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from error
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{path}: pixel_size is {value}; it must be a positive number of µm; download the file again")
    return value


def _read_alignment(row: dict) -> np.ndarray:
    """The 3 x 3 affine of `<name>_he_imagealignment.csv` (no header): H&E px -> Xenium px."""
    path = row.get("alignment") or ""
    if not path:
        raise InputError(
            f"{row['path']}: section {row['section']}: an image without an alignment; fill column alignment with the "
            "3 x 3 CSV (H&E px to Xenium px), or leave column image empty"
        )
    table = read_table(path, header=None)
    cure = "give the 3 x 3 matrix that Xenium Explorer writes (H&E px to Xenium px, no header)"
    if table.shape != (3, 3):
        raise InputError(f"{path}: {table.shape[0]} rows x {table.shape[1]} columns; {cure}")
    matrix = numeric(table, list(table.columns), path, first_row=1)
    if not np.allclose(matrix[2], [0, 0, 1]):
        raise InputError(f"{path}: row 3 is {', '.join(table.iloc[2])} where an affine has 0, 0, 1; {cure}")
    if np.linalg.matrix_rank(matrix[:2, :2]) < 2:
        raise InputError(f"{path}: the matrix cannot be inverted; {cure}")
    return matrix


def _require_agreement(row: dict, um_per_px: float) -> None:
    """Refuse a sheet that contradicts the alignment: one of them would place every spot wrongly."""
    given = number(row, "um_per_px")
    if given is not None and abs(given / um_per_px - 1) > 0.05:
        raise InputError(
            f"{row.get('alignment') or row['path']}: section {row['section']}: column um_per_px says {given:.4g}, the "
            f"files say {um_per_px:.4g}; leave the column empty, or give the alignment from H&E px to Xenium px"
        )
