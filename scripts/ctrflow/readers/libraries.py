"""Several sections in one AnnData file: found by what the file says, and the one that a row names."""

import logging
import os
import re

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers.counts import MAX_LOST

logger = logging.getLogger("ctrflow")

NAMED = ("library_id", "library", "library_ids", "spatial_library", "in_library")  # squidpy's and others' columns
# columns that may also tell patients, replicates or pieces of tissue on one array: believed if their spots overlap
PERHAPS = (
    "sample", "sample_id", "sample_name", "samples", "batch", "slide", "slide_id", "section", "section_id", "dataset",
    "capture_area", "orig.ident", "slice", "slice_id", "donor", "donor_id", "patient", "specimen",
)  # fmt: skip
OF_ARRAY = ("in_tissue", "array_row", "array_col")
PARTS = {"scalefactors", "images"}  # of a library
BARCODE = re.compile(r"(.*?)([ACGT]{14,})(.*)")  # 10x: the same on every array, so one that occurs twice is of two


def of_row(row: dict) -> dict:
    """A row whose path names its library, as `cohort.h5ad#left`, with the two apart."""
    found = re.fullmatch(r"(.+\.h5ad)#(.+)", row["path"], re.IGNORECASE)
    if found is None or os.path.exists(os.path.expanduser(row["path"])):
        return row  # a # in a name
    if row.get("library") not in (None, "", found[2]):
        raise InputError(
            f"section {row['section']}: column path names the library '{found[2]}', column library '{row['library']}'; "
            "keep one"
        )
    image = {"image": found[1]} if row.get("image") == row["path"] else {}
    return row | {"path": found[1], "library": found[2]} | image


def in_uns(uns) -> dict[str, dict]:
    """The libraries of scanpy's `uns["spatial"]`, by name."""
    spatial = uns.get("spatial")
    libraries = spatial.items() if isinstance(spatial, dict) else ()
    return {str(name): one for name, one in libraries if isinstance(one, dict) and one.keys() & PARTS}


def chosen(source, row: dict):
    """The spots of one section, all or those of the library that the row names, with its part of `uns["spatial"]`.

    Returns
    -------
    AnnData, and which library of several `uns["spatial"]` had, "" of one

    Raises
    ------
    InputError
        if the file holds several sections and the row names none, or one that is not there.
    """
    libraries, wanted = in_uns(source.uns), row.get("library") or ""
    told, of_spot = _of_spots(source, list(libraries)) or ("uns['spatial']", None)
    names = sorted(set(of_spot)) if of_spot is not None else sorted(libraries)
    several = len(names) > 1
    where = f"{row['path']}: section {row['section']}: "
    if wanted and wanted not in (names if several else {*names, *libraries}):
        has = f"the file has {first_few(names, 20)}" if names else "the file does not tell libraries apart"
        raise InputError(f"{where}no library '{wanted}': {has}; correct column library")
    if several and not wanted:
        raise InputError(
            f"{where}{len(names)} sections in one file, {first_few(names, 20)}, by {told}; give each a row of its own "
            f"with one of these in column library, or in column path as {row['path']}#{names[0]}"
        )
    spatial = source.uns.get("spatial")
    if not several and isinstance(spatial, dict) and _is_false(spatial.get("is_single")):
        raise InputError(f"{where}uns['spatial'] says is_single: False, so this is no single section; give one a file")
    name = wanted or next(iter(names), "")
    if several and of_spot is None:
        logger.warning("%s: nothing in obs tells its %d libraries apart: all spots are read", row["path"], len(names))
    elif several:
        inside = of_spot == wanted
        logger.info("%s: %d of %d spots are of library %s, by %s", row["path"], inside.sum(), len(inside), name, told)
        source = source[inside].copy()
    own = name if name in libraries else next(iter(libraries), "") if len(libraries) == 1 and not several else ""
    source.uns["spatial"] = {own: libraries[own]} if own else {}
    return source, own if len(libraries) > 1 else ""


def _of_spots(source, libraries: list[str]):
    """What tells the libraries of spots, for messages, and the library of each; None if nothing does."""
    obs = source.obs
    texts = {
        str(name): np.asarray(obs[name].astype(str)) for name in obs.columns if _may_name(name, obs[name], libraries)
    }
    for name, values in texts.items():
        found = set(values)
        # a column of one library is believed over the other libraries that a subset of a file keeps in uns
        if (libraries and found <= set(libraries)) or (name.casefold() in NAMED and len(found) > 1):
            return f"obs['{name}']", values
    ids = [BARCODE.fullmatch(name) for name in source.obs_names.astype(str)]
    if all(ids):
        barcodes, rest = np.array([one[2] for one in ids]), np.array([one[1] + one[3] for one in ids])
        if len(set(rest)) > 1 and len(set(barcodes)) < (1 - MAX_LOST) * len(barcodes):
            same = len(set(rest))
            alike = (name for name, values in texts.items() if len(set(values)) == same
                     and len(set(zip(values, rest, strict=True))) == same)  # fmt: skip
            name = next(alike, "")
            return (f"obs['{name}']", texts[name]) if name else ("what follows the barcodes of its spots", rest)
    for name, values in texts.items():
        if name.casefold() in PERHAPS and len(set(values)) > 1 and _overlap(source, values):
            return f"obs['{name}'], whose spots lie on each other's places", values
    return None


def _is_false(value) -> bool:
    """Whether metadata say no, alone or in an array of one."""
    words = {str(one).casefold() for one in np.asarray(value, dtype=object).ravel()}
    return bool(words) and words <= {"false", "0", "no"}


def _may_name(name, column, libraries: list[str]) -> bool:
    """Whether a column may tell libraries: one of text, or of numbers that is named so or has all their names.

    Not one of an array: libraries may be named 0 and 1 as in_tissue is.
    """
    if name in OF_ARRAY:
        return False
    if column.dtype.kind not in "iufb" or str(name).casefold() in (*NAMED, *PERHAPS):
        return True
    return len(libraries) > 1 and set(column.astype(str)) == set(libraries)


def _overlap(source, values: np.ndarray) -> bool:
    """Whether the spots of one value lie among those of another, nearer than its own ever do."""
    from scipy.spatial import cKDTree

    places = np.asarray(source.obsm.get("spatial", np.empty((0, 2))))
    if places.ndim != 2 or places.shape[1] < 2 or places.dtype.kind not in "iuf" or not np.isfinite(places).all():
        return False
    groups = [cKDTree(places[values == one][:, :2]) for one in sorted(set(values)) if (values == one).sum() > 1]
    for one in groups:
        own = np.median(one.query(one.data, k=2)[0][:, 1])
        if any((other.query(one.data)[0] < own / 2).mean() > MAX_LOST for other in groups if other is not one):
            return True
    return False
