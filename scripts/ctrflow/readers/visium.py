"""Visium: a Space Ranger `outs` folder (55 µm spots on a hexagonal array, 100 µm apart), of version 1, 2 or later.

Source: 10x Genomics, "Space Ranger: spatial outputs".
"""

import json
import logging
from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.readers import (
    describe,
    join,
    lattice_um_per_px,
    number,
    numeric,
    open_text,
    read_10x_h5,
    read_table,
    require_columns,
    require_file,
    require_genes,
    settle_image_scale,
    settle_um_per_px,
    visium_array_um,
)

logger = logging.getLogger("ctrflow")

SPOT_UM = 55.0
COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
POSITIONS = ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv")
SCALEFACTORS = "spatial/scalefactors_json.json"
HIRES_IMAGE = "spatial/tissue_hires_image.png"


def files(row: dict) -> list[str]:
    """The matrix (HDF5, else the mtx folder's files), the positions, and the scale factors where there are any."""
    folder = Path(row["path"])
    matrix = _matrix_path(folder)
    paths = sorted(path for path in matrix.iterdir() if path.is_file()) if matrix.is_dir() else [matrix]
    paths.append(_positions_path(folder))
    scalefactors = folder / SCALEFACTORS
    if scalefactors.is_file() or not folder.is_dir():
        paths.append(scalefactors)
    return [str(path) for path in paths]


def read(row: dict):
    """Spots in the tissue. See `ctrflow.readers.read_section`.

    The scale comes from the array's pitch, not from `spot_diameter_fullres`: that is the diameter in px of a nominal
    65 µm spot, and taking it for 55 µm would be 15 % off.
    """
    folder = Path(row["path"])
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; column path takes Space Ranger's outs folder")
    scalefactors = _read_scalefactors(folder / SCALEFACTORS)
    matrix_path, positions_path = _matrix_path(folder), _positions_path(folder)
    counts = read_10x_h5(matrix_path) if matrix_path.suffix == ".h5" else _read_mtx(matrix_path)
    positions = _read_positions(positions_path)
    array_um = visium_array_um(positions["array_row"].to_numpy(), positions["array_col"].to_numpy())
    um_per_px = settle_um_per_px(
        row, lattice_um_per_px(array_um, positions[["x", "y"]].to_numpy()), "the array's pitch of 100 µm"
    )
    counts = _in_tissue(counts, positions, positions_path)
    positions = positions[positions["in_tissue"] == 1]
    spots = join(counts, positions, matrix_path, positions_path)
    image = row.get("image") or _hires_image(row, folder, scalefactors, um_per_px)
    spots.uns["section"] = describe(
        row, um_per_px, number(row, "spot_um") or SPOT_UM, image, settle_image_scale(row, image, scalefactors)
    )
    return spots


def _matrix_path(folder: Path) -> Path:
    # downloads from 10x and GEO carry a sample name before the file's own
    found = sorted(folder.glob("*filtered_feature_bc_matrix.h5"))
    if len(found) > 1:
        raise InputError(f"{folder}: {len(found)} matrices, {found[0].name} and {found[1].name}; leave one")
    if found:
        return found[0]
    mtx = folder / "filtered_feature_bc_matrix"
    return mtx if mtx.is_dir() else folder / "filtered_feature_bc_matrix.h5"


def _positions_path(folder: Path) -> Path:
    candidates = [folder / "spatial" / name for name in POSITIONS]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _read_mtx(folder: Path):
    import scanpy as sc

    try:
        counts = sc.read_10x_mtx(folder, make_unique=False, gex_only=True)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder}: cannot be read as a 10x matrix folder ({error}); it needs matrix.mtx.gz, barcodes.tsv.gz "
            "and features.tsv.gz, or give filtered_feature_bc_matrix.h5"
        ) from error
    counts.obs_names = counts.obs_names.astype(str)
    counts.var_names = counts.var_names.astype(str)
    return require_genes(counts, folder)


def _read_positions(path: Path):
    """Frame by barcode: x, y (px), array_row, array_col, in_tissue. Version 1 wrote no header."""
    import pandas as pd

    require_file(path)
    first_row = 1
    if path.suffix == ".parquet":
        table = _read_parquet(path).astype(str)
    elif _has_header(path):
        first_row, table = 2, read_table(path)
    else:
        table = read_table(path, header=None)
        if table.shape[1] != len(COLUMNS):
            raise InputError(
                f"{path}: {table.shape[1]} columns where Space Ranger writes {', '.join(COLUMNS)}; give its own file"
            )
        table.columns = COLUMNS
    require_columns(table, COLUMNS, path)
    values = numeric(table, COLUMNS[1:], path, first_row)
    frame = pd.DataFrame(values, columns=["in_tissue", "array_row", "array_col", "y", "x"])
    return frame.set_index(pd.Index(table["barcode"].str.strip()))


def _has_header(path: Path) -> bool:
    try:
        with open_text(path) as handle:
            return handle.readline().lower().lstrip('"').startswith("barcode")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); download it again") from error


def _read_parquet(path: Path):
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a whole parquet file ({error}); download it again") from error


def _in_tissue(counts, positions, positions_path: Path):
    """`counts` without the spots that the vendor places outside the tissue."""
    outside = counts.obs_names.isin(positions.index[positions["in_tissue"] != 1])
    if not outside.any():
        return counts
    if outside.all():
        raise InputError(
            f"{positions_path}: no spot has in_tissue = 1; mark the tissue in Loupe and run Space Ranger again"
        )
    logger.info("%s: %d spots outside the tissue left out", positions_path, outside.sum())
    return counts[~outside].copy()


def _read_scalefactors(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        scalefactors = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); download it again") from error
    if "bin_size_um" in scalefactors:
        raise InputError(
            f"{path}: these are Visium HD bins, not Visium spots; write them to an .h5ad with obsm['spatial'] in px "
            "and use platform h5ad with um_per_px and spot_um filled in"
        )
    return scalefactors


def _hires_image(row: dict, folder: Path, scalefactors: dict, um_per_px: float) -> str:
    """The folder's reduced image, for a section whose sheet names none; "" where it has none."""
    scale = scalefactors.get("tissue_hires_scalef")
    path = folder / HIRES_IMAGE
    if scale is None or not path.is_file():
        return ""
    logger.warning(
        "section %s: column image is empty, so %s is used, at %.2g µm per px; the full-resolution image shows more",
        row["section"], path, um_per_px / scale,
    )  # fmt: skip
    return str(path)
