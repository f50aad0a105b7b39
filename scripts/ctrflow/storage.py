"""Files between stages: plain formats, written to a temporary name and renamed when whole."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    The suffix is kept, because writers (h5ad, png) look at it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """As `whole`, for a folder: what was there before makes way when the block ends well."""
    import shutil

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(text: str, path: str | Path) -> None:
    """Write `text` as UTF-8."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(content: bytes, path: str | Path) -> None:
    """Write bytes, such as a picture."""
    with whole(path) as part:
        part.write_bytes(content)


def write_json(content, path: str | Path) -> None:
    """Write `content` as indented JSON with sorted keys; NaN is refused, since JSON has none."""
    write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", path)


def read_json(path: str | Path):
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_tsv(frame, path: str | Path) -> None:
    """Write a pandas frame without its index; floats in the shortest form that reads back to the same number."""
    with whole(path) as part:
        frame.to_csv(part, sep="\t", index=False, lineterminator="\n")


def read_tsv(path: str | Path, **kwargs):
    """Read a tab-separated table; text columns stay text (`spot`, `section` and the like never become numbers)."""
    import pandas as pd

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
    with whole(path) as part:
        adata.write_h5ad(part, compression="lzf")


def read_h5ad(path: str | Path, with_x: bool = True):
    """Read an AnnData file; `with_x=False` leaves X in the file, for a step that needs names and positions alone.

    Raises
    ------
    InputError
        if the file is missing or is not HDF5 (a text file named .h5ad, a download cut short).
    """
    import anndata

    require_hdf5(path)
    return anndata.read_h5ad(path, backed=None if with_x else "r")


def require_hdf5(path: str | Path) -> None:
    """Refuse a file that is missing, is not HDF5 or was cut short, in words a user can act on."""
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path in the section sheet")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: not an HDF5 file, whatever its name says; export or download it again")
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        raise InputError(f"{path}: HDF5 file cannot be opened, it may be cut short ({error}); get it again") from error


def write_patches(patches: np.ndarray, spots, um: float, path: str | Path) -> None:
    """Write the pictures of a section's spots, uint8 (spots x px x px x 3), as a Zarr group that names the spots.

    The folder takes its name when it is whole.
    """
    import zarr

    with whole_folder(path) as part:
        group = zarr.open_group(part, mode="w", attributes={"spots": list(map(str, spots)), "um": um})
        chunks = (min(len(patches), 256), *patches.shape[1:])
        group.create_array("patches", data=patches, chunks=chunks)


def read_patches(path: str | Path) -> tuple[list[str], np.ndarray]:
    """The spot ids and the pictures that `write_patches` wrote."""
    import zarr

    group = zarr.open_group(path, mode="r")
    return list(group.attrs["spots"]), group["patches"][:]


def write_safetensors(tensors: dict, metadata: dict, path: str | Path) -> None:
    """Write NumPy arrays with JSON metadata (`metadata` is stored as one JSON text under the key "ctrflow")."""
    from safetensors.numpy import save

    # save_file would make a file that only its owner can read, and a model is there to be passed on
    write_bytes(save(tensors, metadata={"ctrflow": json.dumps(metadata, sort_keys=True)}), path)


def read_safetensors(path: str | Path) -> tuple[dict, dict]:
    """The arrays and the metadata of a model file.

    Raises
    ------
    InputError
        if the file is missing, is no safetensors file, or was not written by ctrflow.
    """
    return _open_safetensors(path, with_tensors=True)


def read_safetensors_metadata(path: str | Path) -> dict:
    """The metadata of a model file alone."""
    return _open_safetensors(path, with_tensors=False)[1]


def _open_safetensors(path, with_tensors: bool) -> tuple[dict, dict]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path}: no such model file; check `model` in the study file")
    try:
        with safe_open(path, framework="numpy") as handle:
            text = (handle.metadata() or {}).get("ctrflow")
            tensors = {key: handle.get_tensor(key) for key in handle.keys()} if with_tensors else {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); train or copy it again") from error
    except (TypeError, AttributeError) as error:  # bfloat16 and the like
        raise InputError(f"{path}: holds numbers that NumPy has no type for ({error}); train it again") from error
    if text is None:
        raise InputError(f"{path}: a safetensors file, but not a model that ctrflow trained")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its metadata are not JSON ({error}); train or copy it again") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: its metadata are no JSON object; train or copy it again")
    return tensors, metadata
