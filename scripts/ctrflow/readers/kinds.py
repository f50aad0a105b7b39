"""Recognise formats by content: users confuse platforms, and files get renamed."""

from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.readers.platform import load, platforms
from ctrflow.readers.tables import HDF5, starts_with

# formats of no platform in particular
OTHERS = {"spatialdata": "a SpatialData store", "10x": "a 10x count matrix"}


def kind_of(path: str | Path) -> str:
    """The platform of the files at `path`.

    Returns
    -------
    str
        a platform, spatialdata (a store of any technology), 10x (a matrix without the rest), or "" if unknown or
        missing. If the files are of several platforms, the likeliest.
    """
    return next(iter(_kinds_of(Path(path))), "")


def require_kind(row: dict) -> None:
    """Refuse a row of the sheet whose platform does not match its path."""
    kinds, platform = _kinds_of(Path(row["path"])), row["platform"]
    known = platforms()
    if not kinds or platform in kinds or (kinds == ["spatialdata"] and known[platform].in_stores):
        return
    kind = kinds[0]
    cure = f"write {kind} in column platform"
    if kind == "spatialdata":
        stored = ", ".join(name for name, one in known.items() if one.in_stores)
        cure = f"write the technology it holds ({stored}) in column platform"
    cure += f", or give {known[platform].holds} in column path"
    if kind == "10x":
        cure = "give the vendor's folder that contains it and the positions in column path"
    holds = OTHERS.get(kind) or known[kind].holds
    raise InputError(
        f"{row['path']}: section {row['section']}: column platform says {platform}, but this is {holds}; {cure}"
    )


def is_store(path: str | Path) -> bool:
    """Whether `path` is a Zarr store, of version 2 or 3; a path that does not exist yet is judged by its name."""
    path = Path(path)
    if not path.exists():
        return path.suffix == ".zarr"
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zmetadata"))


def has(folder: Path, marks) -> bool:
    """Whether a folder contains a match of one of `marks` (glob patterns)."""
    return any(next(folder.glob(mark), None) for mark in marks)


def in_hdf5(path: Path, name: str) -> bool:
    """Whether a path is an HDF5 file that contains `name`."""
    if not (path.is_file() and starts_with(path, HDF5)):
        return False
    import h5py

    try:
        with h5py.File(path, "r") as handle:
            return name in handle
    except (OSError, RuntimeError):
        return False


def _kinds_of(path: Path) -> list[str]:
    if path.is_dir():
        return ["spatialdata"] if is_store(path) else _platforms_of(path, path / "outs")
    if not path.is_file():
        return []
    return ["10x"] if in_hdf5(path, "matrix/barcodes") else _platforms_of(path)


def _platforms_of(*places: Path) -> list[str]:
    """The platforms of the first of these paths that is of any, the likeliest first.

    A format's own marks count before content, and of two formats with marks in one folder the last by name. Marks that
    formats share count only if there is nothing else, and for one format.
    """
    known = dict(reversed(platforms().items()))
    for place in places:
        marked = [name for name, one in known.items() if has(place, one.marks)]
        found = [name for name in marked if not known[name].shared_marks]
        found += [name for name in known if name not in found and _recognised(name, place)]
        if found or marked:
            return found or marked[:1]
    return []


def _recognised(platform: str, path: Path) -> bool:
    test = getattr(load(platform), "recognises", None)
    return test is not None and test(path)
