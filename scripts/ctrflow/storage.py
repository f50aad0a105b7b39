"""Files between stages: plain formats, written atomically and verified when read.

The functions here store a file's SHA-256 as an extended attribute (`getfattr -n user.ctrflow.sha256`), which is moved
and copied with the file and leaves its bytes alone; the reading functions raise if it does not match. A file without
it, such as a user's own or one where there are no extended attributes (NFS before 4.2; macOS, where Python lacks them),
is not verified; the log says so once.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np

from ctrflow.disk import FULL, writing
from ctrflow.errors import InputError

logger = logging.getLogger(__name__)

MOST_VALUES_32 = 2**31 - 2  # of a sparse matrix with 32-bit row pointers, as anndata counts
SEAL = "user.ctrflow.sha256"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Atomic write: a temporary path next to `path`, renamed to it if the block succeeds and removed if it raises.

    The suffix is kept, because writers (h5ad, png) look at it. Temporary files of killed processes are removed.

    Raises
    ------
    InputError
        if the disk is full, or the folder cannot be written to.
    """
    with _part(Path(path)) as part:
        yield part
        part.replace(path)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """As `atomic`, for a folder; an existing folder is replaced if the block succeeds."""
    with _part(Path(path)) as part:
        yield part
        _remove(Path(path))
        part.rename(path)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in _stale_parts(path):
            _remove(stale)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    _remove(part)  # of an earlier process with the same id
    try:
        yield part
    except OSError as error:
        if error.errno not in FULL and str(part) not in str(error):
            raise  # about another file
        with writing(path):
            raise OSError(error.errno, error.strerror or str(error)) from error
    finally:
        _remove(part)


def _stale_parts(path: Path) -> list[Path]:
    """The parts of `path` whose process has ended."""
    name = re.compile(rf"\.(\d+)\.{re.escape(path.name)}")
    matches = [(part, name.fullmatch(part.name)) for part in path.parent.iterdir()]
    return [part for part, match in matches if match and not _runs(int(match[1]))]


def _runs(process: int) -> bool:
    """Whether this machine has a process of that id."""
    try:
        os.kill(process, 0)  # signal 0 only asks; /proc is there on Linux alone
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


# --- checksums --------------------------------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    return sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def _seal(part: Path) -> None:
    """Store the checksum of a file, or of each file in a folder."""
    for file in _files(part):
        try:
            os.setxattr(file, SEAL, _sha256(file))
        except (OSError, AttributeError) as error:  # extended attributes are not supported here
            return _say_unverified(getattr(error, "strerror", None) or "this system's Python lacks them")
    return None


@cache
def _say_unverified(reason: str) -> None:
    logger.warning(
        "no extended attributes here (%s), so files are kept without checksums: a damaged or edited one is not noticed",
        reason,
    )


def require_as_written(path: str | Path) -> None:
    """Verify the checksums of a file or of all files in a folder.

    Raises
    ------
    InputError
        if the content has changed since this module wrote it: a damaged disk or copy, an edit by hand.
    """
    path = Path(path)
    for file in _files(path):
        try:
            sealed = os.getxattr(file, SEAL)
        except (OSError, AttributeError):  # no checksum, or no file: reported where it is read
            continue
        if _sha256(file) != sealed:
            raise InputError(
                f"{file}: changed since ctrflow wrote it (its SHA-256 differs): damaged, or edited by hand; delete "
                f"{path} and run the same command again"
            )


# --- writing and reading ----------------------------------------------------------------------------------------------


def write_text(text: str, path: str | Path) -> None:
    """Write `text` as UTF-8."""
    write_bytes(text.encode("utf-8"), path)


def write_bytes(content: bytes, path: str | Path) -> None:
    """Write bytes, such as an image."""
    with atomic(path) as part:
        part.write_bytes(content)
        _seal(part)


def write_json(content, path: str | Path) -> None:
    """Write `content` as indented JSON with sorted keys; raises ValueError for NaN, which JSON does not have."""
    write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", path)


def read_json(path: str | Path):
    """Read a JSON file."""
    require_as_written(path)
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_tsv(frame, path: str | Path) -> None:
    """Write a pandas frame without its index; floats in the shortest form that reads back to the same number."""
    with atomic(path) as part:
        frame.to_csv(part, sep="\t", index=False, lineterminator="\n")
        _seal(part)


def read_tsv(path: str | Path, **kwargs):
    """Read a tab-separated table; text columns stay text (`spot`, `section` and the like never become numbers)."""
    import pandas as pd

    require_as_written(path)
    names = {"section", "spot", "patient", "region", "fold", "task", "method", "variant", "study", "note", "encoder"}
    return pd.read_csv(
        path,
        sep="\t",
        dtype=dict.fromkeys(names, str),
        keep_default_na=False,
        na_values=[""],
        float_precision="round_trip",
        **kwargs,
    )


def write_h5ad(adata, path: str | Path) -> None:
    """Write an AnnData, compressed lightly."""
    with atomic(path) as part, _without_echo():
        adata.write_h5ad(part, compression="lzf")
        _seal(part)


def write_h5ad_pieces(pieces: Iterable, path: str | Path) -> None:
    """Write an AnnData given in pieces, stacked by spots: the result is that of `write_h5ad` on all of them together.

    Matrices (CSR) are appended to the file piece by piece; only obs is held in memory. var and uns are those of the
    first piece.
    """
    import h5py
    import pandas as pd
    from anndata import AnnData
    from anndata.io import sparse_dataset, write_elem

    obs: list = []
    with atomic(path) as part, _without_echo():
        for piece in pieces:
            obs.append(piece.obs)
            matrices = {"X": piece.X} | {f"layers/{name}": layer for name, layer in piece.layers.items()}
            if len(obs) == 1:
                AnnData(piece.X, var=piece.var, layers=piece.layers, uns=piece.uns).write_h5ad(part, compression="lzf")
            with h5py.File(part, "r+") as file:
                for name, matrix in matrices.items() if len(obs) > 1 else ():
                    _widen_pointers(file[name], matrix.nnz)
                    sparse_dataset(file[name]).append(matrix)
                for name, rows in piece.obsm.items():
                    _append_rows(file["obsm"], name, rows)
        with h5py.File(part, "r+") as file:
            all_obs = AnnData(obs=pd.concat(obs))
            all_obs.strings_to_categoricals()
            write_elem(file, "obs", all_obs.obs, dataset_kwargs={"compression": "lzf"})
        _seal(part)


def _widen_pointers(group, more: int) -> None:
    """Convert the row pointers of a matrix in a file to 64 bits before they overflow 32."""
    if group["indptr"].dtype == np.int32 and len(group["data"]) + more > MOST_VALUES_32:
        pointers = group["indptr"][:].astype(np.int64)
        del group["indptr"]
        group.create_dataset("indptr", data=pointers, maxshape=(None,), compression="lzf")


def _append_rows(group, name: str, rows: np.ndarray) -> None:
    if name not in group:
        dataset = group.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]), compression="lzf")
        dataset.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})  # as anndata names them
        return
    before = len(group[name])
    group[name].resize(before + len(rows), axis=0)
    group[name][before:] = rows


@contextmanager
def _without_echo() -> Iterator[None]:
    """Silence h5py, which on a full disk prints pages of messages about closing objects before it raises."""
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = sys.unraisablehook = lambda *_: None
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = hooks


def read_h5ad(path: str | Path, with_x: bool = True, with_layers: bool = True, own: bool = False):
    """Read an AnnData file.

    `with_x=False` leaves X in the file, for steps that need names and positions only or read X in parts;
    `with_layers=False` skips the layers; `own`: a user's file, which may be one of ours that was edited, so its
    checksum is not verified.

    Raises
    ------
    InputError
        if the file is missing, is not HDF5 (a text file named .h5ad, an incomplete download), or changed since it was
        written.
    """
    import anndata

    if not own:
        require_as_written(path)
    require_hdf5(path)
    if with_layers:
        return anndata.read_h5ad(path, backed=None if with_x else "r")
    import h5py
    from anndata.io import read_elem

    with h5py.File(path) as file:
        return anndata.AnnData(**{name: read_elem(file[name]) for name in file if name != "layers"})


def require_hdf5(path: str | Path) -> None:
    """Raise an InputError if a file is missing, is not HDF5 or is truncated."""
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path in the section sheet")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: not an HDF5 file, despite its name; export or download it again")
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        raise InputError(
            f"{path}: HDF5 file cannot be opened, it may be truncated ({error}); export or download it again"
        ) from error


def write_patches(patches: np.ndarray, spots, um: float, path: str | Path) -> None:
    """Write the image patches of a section's spots, uint8 (spots x px x px x 3), and the spot ids as a Zarr group.

    The write is atomic; the group's attributes include a SHA-256 of ids and patches.
    """
    import zarr

    names = list(map(str, spots))
    facts = {"spots": names, "um": um, "sha256": _patches_sha256(names, patches)}
    with atomic_folder(path) as part:
        group = zarr.open_group(part, mode="w", attributes=facts)
        chunks = (min(len(patches), 256), *patches.shape[1:])
        group.create_array("patches", data=patches, chunks=chunks)
        _seal(part)


def read_patches(path: str | Path) -> tuple[list[str], np.ndarray]:
    """The spot ids and the patches that `write_patches` wrote."""
    import zarr

    require_as_written(path)
    group = zarr.open_group(path, mode="r")
    names, patches = list(group.attrs["spots"]), group["patches"][:]
    if _patches_sha256(names, patches) != group.attrs["sha256"]:  # Zarr reads a missing chunk as black
        raise InputError(f"{path}: changed since ctrflow wrote it; delete it and run the same command again")
    return names, patches


def _patches_sha256(names: list[str], patches: np.ndarray) -> str:
    content = hashlib.sha256("\n".join(names).encode())
    content.update(np.ascontiguousarray(patches))
    return content.hexdigest()


def read_patches_facts(path: str | Path) -> dict:
    """The SHA-256 of a section's spot ids and patches, as `write_patches` stored it, and the size of the patches."""
    import zarr

    group = zarr.open_group(path, mode="r")
    return {"sha256": group.attrs["sha256"], "bytes": group["patches"].nbytes}


def read_listed_patches(path: str | Path) -> dict:
    """Section -> spot ids and patches, for all rows of a list (columns section and patches, a path).

    Raises
    ------
    InputError
        if patches are missing or have changed. Snakemake tracks only the list, so the message says to delete it too.
    """
    patches = {}
    for section, folder in read_tsv(path)[["section", "patches"]].itertuples(index=False):
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: does not exist; delete {path} and run the same command again")
        try:
            patches[section] = read_patches(folder)
        except InputError as error:
            raise InputError(f"{error}; delete {path} too") from error
    return patches


def write_safetensors(tensors: dict, metadata: dict, path: str | Path) -> None:
    """Write NumPy arrays with JSON metadata (`metadata` is stored as one JSON text under the key "ctrflow")."""
    from safetensors.numpy import save

    # not save_file, whose files only their owner can read
    write_bytes(save(tensors, metadata={"ctrflow": json.dumps(metadata, sort_keys=True)}), path)


def read_safetensors(path: str | Path) -> tuple[dict, dict]:
    """The arrays and the metadata of a model file.

    Raises
    ------
    InputError
        if the file is missing, is not a safetensors file, or was not written by ctrflow.
    """
    return _open_safetensors(path, with_tensors=True)


def read_safetensors_metadata(path: str | Path) -> dict:
    """The metadata of a model file, without its tensors."""
    return _open_safetensors(path, with_tensors=False)[1]


def _open_safetensors(path, with_tensors: bool) -> tuple[dict, dict]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path}: no such model file; check `model` in the study file")
    require_as_written(path)
    try:
        with safe_open(path, framework="numpy") as handle:
            text = (handle.metadata() or {}).get("ctrflow")
            tensors = {key: handle.get_tensor(key) for key in handle.keys()} if with_tensors else {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not a complete safetensors file ({error}); train or copy it again") from error
    except (TypeError, AttributeError) as error:  # such as bfloat16
        raise InputError(f"{path}: has a number type that NumPy lacks ({error}); train it again") from error
    if text is None:
        raise InputError(f"{path}: a safetensors file, but not a model that ctrflow trained")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its metadata is not valid JSON ({error}); train or copy it again") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: its metadata is not a JSON object; train or copy it again")
    return tensors, metadata
