"""Readers of vendor files: one module per platform, and the checks they share.

Every module of this package that defines `PLATFORM` is a platform. It has

- `PLATFORM`, what is known before a file is opened (see `platform.Platform`);
- `files(row)`, the paths that `read(row)` opens, and `read(row)`, which returns an AnnData; `row` is one row of the
  section sheet, all text; callers use `read_section`;
- `own_image(row)`, if PLATFORM names an image: its path, or "" if it is missing;
- `recognises(path)`, if file names do not identify the format: whether a folder or file has it.

The other modules read what several platforms share (tables, matrices, spaceranger, spatialdata_zarr, libraries), or
check (counts, kinds, structure); `ctrflow.scale` decides what a section's scale is. Importing a reader imports little,
because planning imports all of them.
"""

import logging

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers import libraries
from ctrflow.readers.counts import MAX_LOST, checked, require_unique
from ctrflow.readers.kinds import kind_of, require_kind
from ctrflow.readers.platform import load, platforms
from ctrflow.readers.structure import require_spatial_structure
from ctrflow.readers.tables import open_text, read_table, require_file
from ctrflow.scale.settle import Claim, Scale, settle

__all__ = [
    "files", "image_path", "kind_of", "open_text", "platforms", "read_section", "read_table", "require_file",
    "require_spatial_structure",
]  # fmt: skip

logger = logging.getLogger("ctrflow")


NO_IMAGE = "none"  # in the column image: not even the one in the vendor's folder


def read_section(row: dict):
    """Read and check one section.

    Parameters
    ----------
    row
        A row of the section sheet: column -> text. `section`, `platform` and `path` are required.

    Returns
    -------
    AnnData
        spots (or, if PLATFORM says so, cells, for `aggregate.aggregate_cells`). X raw counts as float32 CSR,
        `obs_names` ids, `var_names` unique gene names, `obsm["spatial"]` centres (x, y) in full-resolution px (cells:
        `obsm["spatial_um"]`, µm), `uns["section"]` see `describe`.

    Raises
    ------
    InputError
        for anything a user can fix, naming the file and the cure.
    """
    row = libraries.of_row(row)
    module = _reader(row)
    require_kind(row)
    section = module.read(row | {"image": given_image(row), "own_image": row.get("image") != NO_IMAGE})
    if row.get("image") == NO_IMAGE:
        section.uns["section"] |= {"image": "", "image_scale": 1.0}
    if module.PLATFORM.cells:
        # single cells vary too much: the structure is checked after they are summed into spots
        return checked(section, "spatial_um", row["path"])
    section = checked(section, "spatial", row["path"])
    require_spatial_structure(section, row["path"])
    return section


def files(row: dict) -> list[str]:
    """The paths that `read_section(row)` opens; if none exists, those of the vendor's newest layout.

    A SpatialData store is one path, its folder.
    """
    return _reader(row).files(libraries.of_row(row))


def why_missing(row: dict) -> str:
    """Why files of `files(row)` are missing, if the rest tells: it is of another platform, or a part of a run."""
    try:
        require_kind(row)
        getattr(_reader(row), "require_parts", lambda _: None)(row)
    except InputError as error:
        return str(error)
    return ""


def image_path(row: dict) -> str:
    """The image that `read_section(row)` uses: the sheet's, else the vendor's own, else ""."""
    module = _reader(row)
    if row.get("image") == NO_IMAGE:
        return ""
    return row.get("image") or (module.own_image(row) if module.PLATFORM.image else "")


def given_image(row: dict) -> str:
    """The image that the sheet names, else ""."""
    return "" if row.get("image") == NO_IMAGE else row.get("image") or ""


def _reader(row: dict):
    if row["platform"] not in platforms():
        raise InputError(
            f"section {row['section']}: unknown platform '{row['platform']}'; "
            f"column platform must be one of {', '.join(platforms())}"
        )
    return load(row["platform"])


# --- counts, positions, scale -----------------------------------------------------------------------------------------


def join(counts, positions, counts_path, positions_path, key: str = "spatial", partial: bool = False):
    """Add positions to counts, in the order of the counts.

    Positions without counts are left out. Spots without a position are an error, unless `partial`.

    Parameters
    ----------
    counts
        AnnData.
    positions
        Frame indexed by id with columns x and y.
    counts_path, positions_path
        For messages.
    key
        Key of the positions in `obsm` (float64, n x 2).
    partial
        Whether the positions cover only the tissue. Spots elsewhere are then left out with a warning; but if more than
        5 % of the positions have no counts either, the files are from two sections.
    """
    require_unique(counts.obs_names, str(counts_path))
    require_unique(positions.index, str(positions_path))
    placed = counts.obs_names.isin(positions.index)
    lost = counts.obs_names[~placed]
    if not placed.any():
        raise InputError(
            f"{counts_path} and {positions_path} have no spot in common: the first has "
            f"{first_few(counts.obs_names, 3)}, the second {first_few(positions.index, 3)}; "
            "check that both are from one section"
        )
    spare = len(positions) - int(placed.sum())
    two_sections = len(lost) > MAX_LOST * counts.n_obs and spare > MAX_LOST * len(positions)
    if len(lost) and (two_sections or not partial):
        raise InputError(
            f"{counts_path}: {len(lost):,} of {counts.n_obs:,} spots have no position in {positions_path}: "
            f"{first_few(lost)}; check that both files are complete and from one section"
        )
    if len(lost):
        logger.warning(
            "%s: %d of %d spots have no position in %s and are left out as outside the tissue: %s",
            counts_path, len(lost), counts.n_obs, positions_path, first_few(lost),
        )  # fmt: skip
    if spare:
        logger.info("%s: %d positions without counts left out", positions_path, spare)
    joined = counts[placed].copy() if len(lost) else counts
    joined.obsm[key] = positions.loc[joined.obs_names, ["x", "y"]].to_numpy(np.float64)
    return joined


def describe(row: dict, um_per_px: Scale | float, spot_um: float, image: str = "", image_scale: float = 1.0) -> dict:
    """The content of `uns["section"]`: section, platform, patient, cohort, tissue, um_per_px (µm per full-resolution
    px), um_per_px_from (what it was decided from), spot_um (spot width, µm), image (path or "") and image_scale (image
    px per full-resolution px).

    `um_per_px` is what `scale.settle` decided; a plain number, such as a platform's constant, is settled here.
    """
    if not isinstance(um_per_px, Scale):
        stated = Claim(um_per_px, f"platform {row['platform']}", sure=True)
        um_per_px = settle(row, [stated], image, image_scale)
    text = {name: str(row.get(name) or "") for name in ("section", "platform", "patient", "cohort", "tissue")}
    text["patient"] = text["patient"] or text["section"]
    scales = {"um_per_px": float(um_per_px.um_per_px), "um_per_px_from": um_per_px.why, "spot_um": float(spot_um)}
    return text | scales | {"image_scale": float(image_scale), "image": str(image)}


def bare(spots, key: str, section: dict):
    """Only counts, ids, positions (`obsm[key]`) and `uns["section"]`: no label or cluster must reach a method."""
    import pandas as pd
    from anndata import AnnData

    obs, var = (pd.DataFrame(index=names.astype(str).to_numpy(object)) for names in (spots.obs_names, spots.var_names))
    return AnnData(spots.X, obs=obs, var=var, obsm={key: spots.obsm[key]}, uns={"section": section})
