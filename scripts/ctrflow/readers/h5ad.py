"""Any platform, as an AnnData file with raw counts and `obsm["spatial"]` in full-resolution px."""

import logging
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers import describe, number, settle_image_scale, settle_um_per_px
from ctrflow.readers.counts import require_counts, require_finite, require_own_places, stored_values
from ctrflow.readers.geometry import (
    VISIUM_DIAMETER_UM,
    VISIUM_PITCH_UM,
    VISIUM_SPOT_UM,
    lattice_um_per_px,
    visium_array_um,
)
from ctrflow.readers.kinds import in_hdf5
from ctrflow.readers.platform import Platform

logger = logging.getLogger("ctrflow")

PLATFORM = Platform("an AnnData file")
SYMBOL_COLUMNS = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "symbol", "SYMBOL")


def recognises(path: Path) -> bool:
    """Whether an HDF5 file has a table of spots."""
    return in_hdf5(path, "obs")


def files(row: dict) -> list[str]:
    """The file."""
    return [row["path"]]


def read(row: dict):
    """Spots. See `ctrflow.readers.read_section`.

    Counts are the first of X, `layers["counts"]` and `.raw` that holds integers. Spots that `obs["in_tissue"]` places
    outside the tissue are left out. µm per px is taken from the sheet, from `uns["section"]`, from the Visium array
    (`array_row`, `array_col`), from `microns_per_pixel` (Visium HD), from `spot_diameter_fullres`, or from a
    hexagonal layout, in this order. Column image may name the file itself: CELLxGENE files contain images.
    """
    from ctrflow.storage import read_h5ad, require_hdf5

    path = row["path"]
    require_hdf5(path)
    _require_names(path)
    try:
        source = read_h5ad(path, own=True)
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise InputError(
            f"{path}: an HDF5 file, but not an AnnData file ({error}); write it with anndata again"
        ) from error
    spots = in_tissue(raw_counts(source, path), path)
    spots.obsm["spatial"] = _positions(spots, path)
    if {"array_row", "array_col"} <= set(spots.obs.columns):
        require_own_places(spots.obs[["array_row", "array_col"]].to_numpy(), spots.obs_names, path)
    scalefactors = _scalefactors(spots)
    measured, origin = _measured_scale(spots, scalefactors)
    um_per_px = settle_um_per_px(row, measured, origin)
    image = row.get("image") or ""
    spot_um = _spot_um(row, spots, scalefactors, origin)
    own = describe(row, um_per_px, spot_um, image, _image_scale(row, image, spots, scalefactors))
    return _bare(spots, own)


def _require_names(path: str) -> None:
    """Refuse a file without names of spots or genes: anndata would number them silently."""
    import h5py

    try:
        with h5py.File(path, "r") as handle:
            axes = ["obs", "var", *(["raw/var"] if "raw" in handle else [])]
            missing = [axis for axis in axes if not _has_names(handle.get(axis))]
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path}: HDF5 file is damaged ({error}); download it again") from error
    if missing:
        raise InputError(f"{path}: no names in {' and '.join(missing)}; write it with anndata again")


def _has_names(frame) -> bool:
    """Whether a data frame on disk has an index; old files store a record array that includes it."""
    import h5py

    return frame is not None and (not isinstance(frame, h5py.Group) or frame.attrs.get("_index", "_index") in frame)


def raw_counts(source, path: str):
    """AnnData of the first matrix of raw counts, with the genes and spots that belong to it."""
    from anndata import AnnData

    candidates = [("X", source.X, source.var)]
    candidates += [("layers['counts']", source.layers["counts"], source.var)] if "counts" in source.layers else []
    candidates += [(".raw", source.raw.X, source.raw.var)] if source.raw is not None else []
    candidates = [candidate for candidate in candidates if candidate[1] is not None]
    if not candidates:
        raise InputError(f"{path}: contains no matrix; put the raw counts into X")
    for name, matrix, var in candidates:
        if _is_counts(matrix):
            logger.info("%s: counts from %s", path, name)
            names = _symbols(var, path)
            return AnnData(matrix, obs=source.obs, var=names, obsm=dict(source.obsm), uns=dict(source.uns))
    _, matrix, var = candidates[0]
    require_counts(AnnData(matrix, obs=source.obs[[]], var=var[[]]), path)  # raises with the cause
    raise InputError(f"{path}: no raw counts in X, layers['counts'] or .raw; put them into X")


def _is_counts(matrix) -> bool:
    values = stored_values(matrix)
    return bool(values.any() and np.isfinite(values).all() and values.min() >= 0 and (values == np.rint(values)).all())


def _symbols(var, path: str):
    """An empty frame indexed by gene symbol; CELLxGENE files are indexed by Ensembl id, with the symbol in a column."""
    import pandas as pd

    names = var.index.astype(str)
    column = next((name for name in SYMBOL_COLUMNS if name in var.columns), None)
    if column is None or names.str.match(r"ENS[A-Z]*G\d{6,}").mean() < 0.9:
        return pd.DataFrame(index=names)
    logger.info("%s: gene symbols from var['%s']", path, column)
    symbols = var[column].astype("string").fillna("").astype(str).to_numpy()
    return pd.DataFrame(index=pd.Index(np.where(symbols == "", names, symbols)))


def in_tissue(spots, path: str):
    """`spots` without those that `obs["in_tissue"]` places outside the tissue."""
    if "in_tissue" not in spots.obs:
        return spots
    inside = spots.obs["in_tissue"].astype(str).isin(["1", "1.0", "True"]).to_numpy()
    if inside.all():
        return spots
    if not inside.any():
        raise InputError(f"{path}: no spot has obs['in_tissue'] = 1; correct or delete that column")
    logger.info("%s: %d spots outside the tissue left out", path, (~inside).sum())
    return spots[inside].copy()


def _positions(spots, path: str) -> np.ndarray:
    if "spatial" not in spots.obsm:
        raise InputError(
            f"{path}: no obsm['spatial'] (it has {first_few(spots.obsm) or 'no obsm'}); "
            "put the spot centres there as (x, y) in full-resolution px"
        )
    try:
        positions = np.asarray(spots.obsm["spatial"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: obsm['spatial'] is not numeric ({error}); put (x, y) in px there") from error
    if positions.ndim != 2 or positions.shape[1] < 2:
        raise InputError(f"{path}: obsm['spatial'] has shape {positions.shape}; expected (spots, 2): x and y in px")
    require_finite(positions[:, :2], spots.obs_names, path)
    return positions[:, :2].copy()


def _libraries(spots) -> list[dict]:
    """The libraries in scanpy's `uns["spatial"]`."""
    libraries = spots.uns.get("spatial", {})
    libraries = libraries.values() if isinstance(libraries, dict) else []
    return [
        library for library in libraries if isinstance(library, dict) and library.keys() & {"scalefactors", "images"}
    ]


def _scalefactors(spots) -> dict:
    """Space Ranger's scale factors; {} if there are none, or several libraries."""
    found = [library["scalefactors"] for library in _libraries(spots) if "scalefactors" in library]
    return dict(found[0]) if len(found) == 1 else {}


def _image_scale(row: dict, image: str, spots, scalefactors: dict) -> float:
    """As `settle_image_scale`; for an image inside the file, the scale of the one that `image.open_image` reads."""
    inside = bool(image) and Path(image).resolve() == Path(row["path"]).resolve()
    if not inside or number(row, "image_scale"):
        return settle_image_scale(row, image, scalefactors)
    pictures = [library["images"] for library in _libraries(spots) if isinstance(library.get("images"), dict)]
    if len(pictures) != 1:
        raise InputError(
            f"{image}: section {row['section']}: column image names the section's own file, but that holds images of "
            f"{len(pictures)} libraries in uns['spatial'], not of one; give an image file or leave the column empty"
        )
    if "fullres" in pictures[0]:
        return 1.0
    if "hires" in pictures[0] and "tissue_hires_scalef" in scalefactors:
        return float(scalefactors["tissue_hires_scalef"])
    raise InputError(
        f"{image}: section {row['section']}: column image names the section's own file, but that holds no image of "
        f"known scale in uns['spatial'] (it has {first_few(pictures[0]) or 'none'}; it needs fullres, or hires with "
        "tissue_hires_scalef); give an image file or leave the column empty"
    )


def _measured_scale(spots, scalefactors: dict) -> tuple[float | None, str]:
    """µm per px and its source, "uns['section']" or a text that names Visium; (None, "") if unknown."""
    positions = spots.obsm["spatial"]
    if "um_per_px" in _own(spots):
        return float(_own(spots)["um_per_px"]), "uns['section']"
    array_um = _visium_array(spots)
    if array_um is not None and (measured := lattice_um_per_px(array_um, positions)):
        return measured, "the Visium array's pitch of 100 µm"
    if "microns_per_pixel" in scalefactors:  # Visium HD: its `spot_diameter_fullres` is the size of a bin
        return float(scalefactors["microns_per_pixel"]), "Space Ranger's microns_per_pixel"
    if "spot_diameter_fullres" in scalefactors:
        return VISIUM_DIAMETER_UM / float(scalefactors["spot_diameter_fullres"]), "Visium's spot_diameter_fullres"
    if pitch_px := _hexagonal_pitch_px(positions):
        return VISIUM_PITCH_UM / pitch_px, "a hexagonal layout, assumed to be Visium's with a pitch of 100 µm"
    return None, ""


def _own(spots) -> dict:
    """`uns["section"]`, if the file was written by this workflow; else {}."""
    own = spots.uns.get("section")
    return own if isinstance(own, dict) else {}


def _visium_array(spots) -> np.ndarray | None:
    if not {"array_row", "array_col"} <= set(spots.obs.columns):
        return None
    array_row, array_col = (spots.obs[name].to_numpy(np.float64) for name in ("array_row", "array_col"))
    # on Visium's hexagonal array row + column is even; on a square one (HD, DBiT) half of them are odd
    if not ((array_row + array_col) % 2 == 0).all():
        return None
    return visium_array_um(array_row, array_col)


def _hexagonal_pitch_px(positions: np.ndarray) -> float | None:
    """The pitch of a hexagonal layout: many spots have six equidistant neighbours; None for any other layout.

    A quarter of the spots is enough, because a ragged section is mostly border; a square lattice has none.
    """
    from scipy.spatial import KDTree

    if len(positions) < 7:
        return None
    distances = KDTree(positions).query(positions, k=7)[0][:, 1:]
    surrounded = distances[:, 5] < 1.1 * distances[:, 0]
    return float(distances[surrounded].mean()) if surrounded.mean() > 0.25 else None


def _spot_um(row: dict, spots, scalefactors: dict, origin: str) -> float:
    given = number(row, "spot_um")
    if given is not None:
        return given
    if "spot_um" in _own(spots):
        return float(_own(spots)["spot_um"])
    if "bin_size_um" in scalefactors:
        return float(scalefactors["bin_size_um"])
    if "Visium" in origin:
        return VISIUM_SPOT_UM
    raise InputError(
        f"{row['path']}: section {row['section']}: the file does not give the width of a spot; "
        "fill column spot_um of the section sheet (µm)"
    )


def _bare(spots, section: dict):
    """Only counts, ids, positions and `uns["section"]`: no label or cluster must reach a method."""
    import pandas as pd
    from anndata import AnnData

    obs = pd.DataFrame(index=spots.obs_names.astype(str))
    return AnnData(spots.X, obs=obs, var=spots.var, obsm={"spatial": spots.obsm["spatial"]}, uns={"section": section})
