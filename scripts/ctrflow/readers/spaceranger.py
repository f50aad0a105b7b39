"""Space Ranger's `spatial` folder, of version 1 to 4: positions, scale factors, images.

Source: 10x Genomics, "Space Ranger: spatial outputs".
"""

import json
import logging
from pathlib import Path

from ctrflow.errors import InputError, first_few
from ctrflow.image import facts_of
from ctrflow.readers import describe
from ctrflow.readers.counts import MAX_LOST, require_unique
from ctrflow.readers.folders import find
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
from ctrflow.scale.settle import Claim, number, settle, settle_image_scale

logger = logging.getLogger("ctrflow")

COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
MATRIX = "filtered_feature_bc_matrix"
POSITIONS = ["tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv"]
MARKS = ("spatial", f"*{MATRIX}", f"*{MATRIX}.h5", "*tissue_positions*")  # of Visium and of Visium HD
SCALEFACTORS = "scalefactors_json.json"
HIRES = "tissue_hires_image.png"
# images of the CytAssist: not in the coordinates of the microscope image
CYTASSIST = ("cytassist_image", "aligned_tissue_image")


def matrix_path(folder: Path) -> Path:
    """The filtered matrix: the HDF5 file, the folder of mtx files, or `folder` itself if it contains these."""
    path = find([folder], [f"{MATRIX}.h5", MATRIX], "matrices")
    if path is None and find([folder], ["matrix.mtx"], "matrices"):
        return folder
    return path or folder / f"{MATRIX}.h5"


def positions_path(folder: Path, newest: str = POSITIONS[0]) -> Path:
    """The table of positions; files from GEO are next to the matrix, without a `spatial` folder."""
    return find([folder / "spatial", folder], POSITIONS, "tables of positions") or folder / "spatial" / newest


def scalefactors_path(folder: Path) -> Path:
    """The scale factors, which may be missing."""
    path = find([folder / "spatial", folder], [SCALEFACTORS], "files of scale factors")
    return path or folder / "spatial" / SCALEFACTORS


def read_scalefactors(path: Path) -> dict[str, float]:
    """Scale factors by name; {} without a file."""
    if not path.is_file():
        return {}
    text = read_text(path)
    try:
        factors = {name: float(value) for name, value in json.loads(text).items() if value is not None}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON of scale factors ({error}); download it again") from error
    bad = [f"{name} = {value}" for name, value in factors.items() if not 0 < value < float("inf")]
    if bad:
        raise InputError(f"{path}: {first_few(bad)}; scale factors must be positive numbers; download it again")
    return factors


def read_positions(path: Path, in_tissue: bool = False):
    """Frame by barcode: x, y (px), array_row, array_col, in_tissue. Version 1 wrote no header, HD writes parquet.

    `in_tissue`: drop rows outside the tissue early (Visium HD has many).
    """
    import pandas as pd

    require_file(path)
    first_row = 1
    if starts_with(path, PARQUET):
        table = read_parquet(path, COLUMNS, in_tissue)
    elif _has_header(path):
        first_row, table = 2, read_table(path)
    else:
        table = read_table(path, header=None)
        if table.shape[1] != len(COLUMNS):
            raise InputError(
                f"{path}: {table.shape[1]} columns, but Space Ranger writes {', '.join(COLUMNS)}; "
                "give the original file"
            )
        table.columns = COLUMNS
    require_columns(table, COLUMNS, path)
    values = numeric(table, COLUMNS[1:], path, first_row)
    frame = pd.DataFrame(values, columns=["in_tissue", "array_row", "array_col", "y", "x"])
    frame = frame.set_index(pd.Index(as_ids(table["barcode"])))
    require_unique(frame.index, str(path))
    return frame[frame["in_tissue"] == 1] if in_tissue else frame


def _has_header(path: Path) -> bool:
    return read_text(path)[:9].lower().lstrip('"').startswith("barcode")


def leave_out_others(counts, positions, counts_path: Path, positions_path: Path):
    """`counts` without the spots that the vendor places outside the tissue.

    The filtered matrix contains only spots in the tissue. If a user has since marked less tissue, some of them are
    outside. If some are outside *and* some spots in the tissue have no counts, the files are from two sections
    (barcodes are the same on every slide, so the files join nevertheless).
    """
    inside = positions.index[positions["in_tissue"] == 1]
    outside = counts.obs_names.isin(positions.index.difference(inside))
    if not outside.any():
        return counts
    if inside.empty:
        raise InputError(
            f"{positions_path}: no spot has in_tissue = 1; mark the tissue in Loupe and run Space Ranger again"
        )
    empty = ~inside.isin(counts.obs_names)
    if outside.mean() > MAX_LOST and empty.mean() > MAX_LOST:
        raise InputError(
            f"{positions_path}: {int(outside.sum()):,} of {counts.n_obs:,} spots of {counts_path} lie outside the "
            f"tissue, and {int(empty.sum()):,} of {len(inside):,} spots in the tissue have no counts; "
            "check that both files are complete and from one section"
        )
    logger.info("%s: %d spots outside the tissue left out", positions_path, outside.sum())
    return counts[~outside].copy()


# --- images -----------------------------------------------------------------------------------------------------------


def hires_image(folders: list[Path]) -> str:
    """The reduced image of a Space Ranger folder, or ""."""
    path = find([inside for folder in folders for inside in (folder / "spatial", folder)], [HIRES], "reduced images")
    return "" if path is None or path.suffix == ".gz" else str(path)


def described(
    row: dict, hires: str, scalefactors: dict, claims: list[Claim], spot_um: float, binding: bool = False
) -> dict:
    """`uns["section"]` of a Space Ranger folder, see `readers.describe`: with its reduced image if the sheet has none.

    `claims` and `binding` are as for `scale.settle`.
    """
    require_microscope_image(row, hires, scalefactors)
    own = hires if row.get("own_image", True) and "tissue_hires_scalef" in scalefactors else ""
    image = row.get("image") or own
    image_scale = settle_image_scale(row, image, scalefactors)
    scale = settle(row, claims, image, image_scale, binding=binding)
    if image and not row.get("image"):
        logger.warning(
            "section %s: column image is empty, so %s is used, at %.2g µm per px; the full-resolution image shows more",
            row["section"], image, scale.um_per_px / image_scale,
        )  # fmt: skip
    return describe(row, scale, spot_um, image, image_scale)


def require_microscope_image(row: dict, hires: str, scalefactors: dict) -> None:
    """Refuse a CytAssist image as a section's image, unless the run had no other.

    Positions are in px of the microscope image, if there was one; its size follows from the reduced image. The name is
    not enough: users also name microscope images after the instrument.
    """
    image = row.get("image") or ""
    if not any(name in Path(image).name.lower() for name in CYTASSIST) or number(row, "image_scale"):
        return
    facts, scale = [facts_of(path) for path in (image, hires)], scalefactors.get("tissue_hires_scalef")
    sizes = zip(*(size for size, _ in facts), strict=True) if all(facts) else ()
    if all(facts) and scale and all(abs(given * scale / reduced - 1) < 0.01 for given, reduced in sizes):
        logger.warning(
            "section %s: %s is the image whose pixels the positions refer to, but it is named like a CytAssist image; "
            "this is correct if Space Ranger was run without a microscope image",
            row["section"], image,
        )  # fmt: skip
        return
    raise InputError(
        f"{image}: section {row['section']}: a CytAssist image, not the image whose pixels the positions refer to; "
        "give the microscope image that Space Ranger was run with in column image"
    )
