"""What a path really is, told by content: users mistake platforms, and files lose their names on the way."""

import json
import re
import zlib
from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.readers.tables import HDF5, open_text, starts_with

NAMES = {
    "st": "a counts table of the ST platform",
    "visium": "a Space Ranger folder of Visium spots",
    "visium_hd": "a Space Ranger folder of Visium HD bins",
    "xenium": "a Xenium bundle",
    "h5ad": "an AnnData file",
    "spatialdata": "a SpatialData store",
    "10x": "a 10x count matrix",
}
IN_STORES = ("st", "visium", "visium_hd", "xenium")
# the marks of a folder, first match first: an HD folder has Visium's too
MARKS = {
    "xenium": ["*experiment.xenium", "*cell_feature_matrix", "*cell_feature_matrix.h5"],
    "visium_hd": ["binned_outputs", "square_[0-9][0-9][0-9]um", "segmented_outputs", "*feature_slice.h5"],
    "visium": ["spatial", "*filtered_feature_bc_matrix", "*filtered_feature_bc_matrix.h5", "*tissue_positions*"],
}


def kind_of(path: str | Path) -> str:
    """Which technology's files lie at `path`.

    Returns
    -------
    str
        st, visium, visium_hd, xenium, h5ad, spatialdata (a store of any technology), 10x (a matrix without the rest),
        or "" where the content does not tell (or nothing is there).
    """
    path = Path(path)
    if path.is_dir():
        return _kind_of_folder(path)
    return _kind_of_file(path) if path.is_file() else ""


def require_kind(row: dict) -> None:
    """Refuse a row of the sheet whose platform is not what its path holds."""
    kind, platform = kind_of(row["path"]), row["platform"]
    if kind in ("", platform) or (kind == "spatialdata" and platform in IN_STORES):
        return
    cure = f"write {kind} in column platform"
    if kind == "spatialdata":
        cure = f"write the technology it holds ({', '.join(IN_STORES)}) in column platform"
    if kind == "10x":
        cure = "give the vendor's folder that it lies in, with the positions, in column path"
    raise InputError(
        f"{row['path']}: section {row['section']}: column platform says {platform}, but this is {NAMES[kind]}; {cure}"
    )


def is_store(path: str | Path) -> bool:
    """Whether `path` is a Zarr store, of version 2 or 3; where nothing is there yet, its name tells."""
    path = Path(path)
    if not path.exists():
        return path.suffix == ".zarr"
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zmetadata"))


def _kind_of_folder(folder: Path) -> str:
    if is_store(folder):
        return "spatialdata"
    for inside in (folder, folder / "outs"):
        for kind, marks in MARKS.items():
            if any(next(inside.glob(mark), None) for mark in marks):
                return "visium_hd" if kind == "visium" and _has_bins(inside) else kind
    return ""


def _has_bins(folder: Path) -> bool:
    """Whether the name or the scale factors are those of bins: the folder is one bin size of an HD run."""
    if re.fullmatch(r"square_\d{3}um", folder.name):
        return True
    for path in sorted(folder.glob("spatial/*scalefactors_json.json")):
        try:
            return "bin_size_um" in json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            return False  # the reader tells what is wrong with it
    return False


def _kind_of_file(path: Path) -> str:
    if starts_with(path, HDF5):
        return _kind_of_hdf5(path)
    try:
        with open_text(path) as handle:
            handle.readline(10_000_000)
            second = handle.readline(100)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error):
        return ""
    return "st" if re.match(r'"?\d+x\d+"?\t', second) else ""


def _kind_of_hdf5(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as handle:
            if "matrix/barcodes" in handle:
                return "10x"
            return "h5ad" if "obs" in handle else ""
    except (OSError, RuntimeError):
        return ""
