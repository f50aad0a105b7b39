"""Vendor files to the section contract: one module a platform here, and the checks they share.

A platform is a file here, found by defining

- `PLATFORM`, what is known of it before a file is opened (see `platform.Platform`);
- `files(row)`, the paths that its `read(row)` opens, and `read(row)`, an AnnData; `row` is one row of the section
  sheet, all text, and `read_section` the way in;
- `own_image(row)`, where PLATFORM names an image: the path of the one that is there, or "";
- `recognises(path)`, where the names of files do not tell the format: whether this folder or file is of it.

Beside them lie what several of them read (tables, matrices, spaceranger, spatialdata_zarr) and what they measure and
check by (geometry, kinds, structure). Importing one imports NumPy only: planning imports all.
"""

import logging
import math
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers.counts import MAX_LOST, checked, require_unique
from ctrflow.readers.kinds import kind_of, require_kind
from ctrflow.readers.platform import load, platforms
from ctrflow.readers.structure import require_spatial_structure
from ctrflow.readers.tables import open_text, read_table, require_file

__all__ = [
    "files", "image_path", "kind_of", "open_text", "platforms", "read_section", "read_table", "require_file",
    "require_spatial_structure",
]  # fmt: skip

logger = logging.getLogger("ctrflow")

REDUCED_IMAGES = {"hires": "tissue_hires_image", "lowres": "tissue_lowres_image"}


def read_section(row: dict):
    """Read and check one section.

    Parameters
    ----------
    row
        A row of the section sheet: column -> text. `section`, `platform` and `path` are required.

    Returns
    -------
    AnnData
        spots (or cells, by PLATFORM, to be given to `aggregate.aggregate_cells`). X raw counts as float32 CSR,
        `obs_names` ids, `var_names` unique gene names, `obsm["spatial"]` centres (x, y) in full-resolution px (cells:
        `obsm["spatial_um"]`, µm), `uns["section"]` see `describe`.

    Raises
    ------
    InputError
        for anything a user can put right, naming the file and the cure.
    """
    module = _reader(row)
    require_kind(row)
    section = module.read(row)
    if module.PLATFORM.cells:
        # single cells vary too much; the check comes when they are summed into spots
        return checked(section, "spatial_um", row["path"])
    section = checked(section, "spatial", row["path"])
    require_spatial_structure(section, row["path"])
    return section


def files(row: dict) -> list[str]:
    """The paths that `read_section(row)` opens; where vendors have several layouts and none is there, the newest.

    A SpatialData store is one path, the folder.
    """
    return _reader(row).files(row)


def image_path(row: dict) -> str:
    """The image that `read_section(row)` names: the sheet's, else the one that the vendor adds, else ""."""
    module = _reader(row)
    return row.get("image") or (module.own_image(row) if module.PLATFORM.image else "")


def _reader(row: dict):
    if row["platform"] not in platforms():
        raise InputError(
            f"section {row['section']}: unknown platform '{row['platform']}'; "
            f"column platform must be one of {', '.join(platforms())}"
        )
    return load(row["platform"])


# --- counts, positions, scale -----------------------------------------------------------------------------------------


def join(counts, positions, counts_path, positions_path, key: str = "spatial", partial: bool = False):
    """Give counts their positions, in the order of the counts.

    A position without counts is left out. A spot without a position is refused, unless `partial`.

    Parameters
    ----------
    counts
        AnnData.
    positions
        Frame indexed by id with columns x and y.
    counts_path, positions_path
        What messages name.
    key
        Where in `obsm` the positions go (float64, n x 2).
    partial
        Whether the positions are of a part of the array alone, that of the tissue. Spots elsewhere are left out then,
        with a warning; but where more than 5 % of the positions have no counts either, the files are of two sections.
    """
    require_unique(counts.obs_names, str(counts_path))
    require_unique(positions.index, str(positions_path))
    placed = counts.obs_names.isin(positions.index)
    lost = counts.obs_names[~placed]
    if not placed.any():
        raise InputError(
            f"{counts_path} and {positions_path} have no spot in common: the first has "
            f"{first_few(counts.obs_names, 3)}, the second {first_few(positions.index, 3)}; "
            "check that both are of one section"
        )
    spare = len(positions) - int(placed.sum())
    of_two = len(lost) > MAX_LOST * counts.n_obs and spare > MAX_LOST * len(positions)
    if len(lost) and (of_two or not partial):
        raise InputError(
            f"{counts_path}: {len(lost):,} of {counts.n_obs:,} spots have no position in {positions_path}: "
            f"{first_few(lost)}; check that both files are whole and of one section"
        )
    if len(lost):
        logger.warning(
            "%s: %d of %d spots have no position in %s and are left out, as lying outside the tissue: %s",
            counts_path, len(lost), counts.n_obs, positions_path, first_few(lost),
        )  # fmt: skip
    if spare:
        logger.info("%s: %d positions without counts left out", positions_path, spare)
    joined = counts[placed].copy() if len(lost) else counts
    joined.obsm[key] = positions.loc[joined.obs_names, ["x", "y"]].to_numpy(np.float64)
    return joined


def settle_um_per_px(row: dict, measured: float | None, source: str) -> float:
    """µm per full-resolution px: the sheet's, else `measured` (its `source` goes to the log), else an error."""
    given = number(row, "um_per_px")
    if given is None and measured is None:
        raise InputError(
            f"{row['path']}: section {row['section']}: nothing in the files tells the size of a pixel; "
            "fill column um_per_px of the section sheet (µm per full-resolution pixel)"
        )
    if given is None:
        logger.info("section %s: %.4g µm per px, from %s", row["section"], measured, source)
        return measured
    if measured is not None and abs(given / measured - 1) > 0.15:
        logger.warning(
            "section %s: column um_per_px says %.4g, %s says %.4g; the column is used",
            row["section"], given, source, measured,
        )  # fmt: skip
    return given


def settle_image_scale(row: dict, image: str, scalefactors: dict) -> float:
    """Image px per full-resolution px: the sheet's, else the vendor's for its own reduced images, else 1."""
    given = number(row, "image_scale")
    if given is not None:
        return given
    for kind, name in REDUCED_IMAGES.items():
        if name in Path(image).name and f"tissue_{kind}_scalef" in scalefactors:
            return float(scalefactors[f"tissue_{kind}_scalef"])
    return 1.0


def number(row: dict, column: str) -> float | None:
    """A positive number of the sheet, or None where the cell is empty."""
    text = str(row.get(column) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            f"section {row['section']}: column {column} is '{text}'; give a positive number or leave it empty"
        )
    return value


def describe(row: dict, um_per_px: float, spot_um: float, image: str = "", image_scale: float = 1.0) -> dict:
    """The content of `uns["section"]`: section, platform, patient, cohort, tissue, um_per_px (µm per full-resolution
    px), spot_um (spot width, µm), image (path or "") and image_scale (image px per full-resolution px)."""
    text = {name: str(row.get(name) or "") for name in ("section", "platform", "patient", "cohort", "tissue")}
    text["patient"] = text["patient"] or text["section"]
    scales = {"um_per_px": float(um_per_px), "spot_um": float(spot_um), "image_scale": float(image_scale)}
    return text | scales | {"image": str(image)}
