"""Files are written atomically and verified when read."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import storage
from ctrflow.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "x.json"
    storage.write_json({"a": 1}, path)

    def fail():
        with storage.atomic(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_scores_read_back_to_the_same_numbers(tmp_path):
    values = np.random.default_rng(0).random(100) ** 9
    frame = pd.DataFrame({"section": "01", "spot": [f"{i}x1" for i in range(100)], "score": values})
    storage.write_tsv(frame, tmp_path / "scores.tsv")
    back = storage.read_tsv(tmp_path / "scores.tsv")
    assert (back.score.to_numpy() == values).all()
    assert back.section[0] == "01"


def test_model_files_hold_metadata_beside_tensors(tmp_path):
    path = tmp_path / "model.safetensors"
    storage.write_safetensors({"w": np.arange(3.0)}, {"genes": ["A", "B"]}, path)
    tensors, metadata = storage.read_safetensors(path)
    assert tensors["w"].tolist() == [0, 1, 2]
    assert metadata == storage.read_safetensors_metadata(path) == {"genes": ["A", "B"]}
    storage.write_text("", tmp_path / "text")
    assert path.stat().st_mode == (tmp_path / "text").stat().st_mode  # who may read a text may read a model


def test_files_that_are_not_models_are_rejected(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(InputError, match="no such model"):
        storage.read_safetensors(tmp_path / "absent")
    (tmp_path / "text.safetensors").write_text("hello, this is not a model at all")
    with pytest.raises(InputError, match="not a complete safetensors file"):
        storage.read_safetensors(tmp_path / "text.safetensors")
    save_file({"w": np.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not a model that ctrflow trained"):
        storage.read_safetensors(tmp_path / "other.safetensors")


def test_hdf5_in_name_only_is_rejected(tmp_path):
    (tmp_path / "x.h5ad").write_text("barcode,gene\n")
    with pytest.raises(InputError, match="not an HDF5 file"):
        storage.read_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match="no such file"):
        storage.read_h5ad(tmp_path / "y.h5ad")


def test_json_rejects_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json({"x": float("nan")}, tmp_path / "x.json")


def test_patches_come_back_with_their_spots(tmp_path):
    patches = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), dtype=np.uint8)
    names = [f"s{i}" for i in range(300)]
    for _ in range(2):  # the second replaces the first
        storage.write_patches(patches, names, 55.0, tmp_path / "a.zarr")
    spots, read = storage.read_patches(tmp_path / "a.zarr")
    assert spots == names
    assert read.dtype == np.uint8
    assert (read == patches).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


# --- checksums --------------------------------------------------------------------------------------------------------

PATCHES = np.arange(2 * 5 * 5 * 3, dtype=np.uint8).reshape(2, 5, 5, 3)
KINDS = {
    "x.tsv": (lambda path: storage.write_tsv(pd.DataFrame({"spot": ["a"], "score": [0.25]}), path), storage.read_tsv),
    "x.json": (lambda path: storage.write_json({"a": 1}, path), storage.read_json),
    "x.h5ad": (lambda path: storage.write_h5ad(anndata.AnnData(np.eye(3)), path), storage.read_h5ad),
    "x.safetensors": (lambda path: storage.write_safetensors({"w": np.eye(3)}, {}, path), storage.read_safetensors),
    "x.zarr": (lambda path: storage.write_patches(PATCHES, ["a", "b"], 55.0, path), storage.read_patches),
}


@pytest.fixture
def sealing(tmp_path):
    """Skip where the file system has no extended attributes."""
    try:
        os.setxattr(tmp_path, storage.SEAL, b"x")
    except OSError as error:
        pytest.skip(f"no extended attributes here ({error.strerror})")


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit_is_reported(name, sealing, tmp_path):
    write, read = KINDS[name]
    path = tmp_path / name
    write(path)
    read(path)
    for file in sorted(file for file in path.rglob("*") if file.is_file()) or [path]:
        intact = file.read_bytes()
        for place in {0, len(intact) // 3, len(intact) // 2, len(intact) - 1}:
            broken = bytearray(intact)
            broken[place] ^= 1
            file.write_bytes(broken)
            with pytest.raises(InputError, match=re.escape(f"{file}: changed since ctrflow wrote it")) as caught:
                read(path)
            assert f"delete {path} and run" in str(caught.value)
        file.write_bytes(intact)
        read(path)


def test_a_checksum_moves_with_its_file_and_leaves_its_bytes_alone(sealing, tmp_path):
    storage.write_text("spot\tscore\na\t0.5\n", tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == b"spot\tscore\na\t0.5\n"
    # of this text, by sha256sum
    expected = hashlib.sha256(b"spot\tscore\na\t0.5\n").hexdigest().encode()
    assert os.getxattr(tmp_path / "a.tsv", "user.ctrflow.sha256") == expected
    moved = shutil.copy2(tmp_path / "a.tsv", tmp_path / "b.tsv")
    storage.require_as_written(moved)
    Path(moved).write_text("spot\tscore\na\t0.6\n")
    with pytest.raises(InputError, match="changed since ctrflow wrote it"):
        storage.read_tsv(moved)
    storage.write_text("other", moved)  # with a new checksum
    storage.require_as_written(moved)


def test_a_missing_chunk_of_patches_is_reported(tmp_path):
    """Zarr would read it as black."""
    cut = tmp_path / "S1.zarr"
    storage.write_patches(np.full((300, 4, 4, 3), 7, np.uint8), range(300), 50.0, cut)
    parts = sorted((cut / "patches" / "c").rglob("*"))
    next(path for path in parts if path.is_file()).unlink()
    with pytest.raises(InputError, match=r"S1\.zarr: changed since ctrflow wrote it; delete it and run"):
        storage.read_patches(cut)


def test_missing_or_damaged_patches_of_a_list_are_reported_with_the_list(tmp_path):
    cut, listed = tmp_path / "S1.zarr", tmp_path / "listed.tsv"
    storage.write_patches(np.full((3, 4, 4, 3), 7, np.uint8), "abc", 50.0, cut)
    storage.write_tsv(pd.DataFrame({"section": ["S1"], "patches": [str(cut)]}), listed)
    names, pictures = storage.read_listed_patches(listed)["S1"]
    assert names == list("abc")
    assert pictures.shape == (3, 4, 4, 3)
    assert storage.read_patches_facts(cut)["bytes"] == 3 * 4 * 4 * 3
    part = next(path for path in (cut / "patches" / "c").rglob("*") if path.is_file())
    part.write_bytes(part.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"changed since ctrflow wrote it .*; delete .*listed\.tsv too"):
        storage.read_listed_patches(listed)
    shutil.rmtree(cut)
    with pytest.raises(InputError, match=r"S1\.zarr: does not exist; delete .*listed\.tsv and run"):
        storage.read_listed_patches(listed)


def test_a_users_own_file_may_have_been_ours(tmp_path):
    """Written by us and edited in place since: the old checksum is still attached."""
    path = tmp_path / "x.h5ad"
    storage.write_h5ad(anndata.AnnData(np.eye(3)), path)
    anndata.AnnData(np.eye(4)).write_h5ad(path)
    with pytest.raises(InputError, match="changed since ctrflow wrote it"):
        storage.read_h5ad(path)
    assert storage.read_h5ad(path, own=True).n_obs == 4


@pytest.mark.parametrize("system", ["Linux", "macOS"])
def test_a_file_without_a_checksum_is_not_verified(system, tmp_path, monkeypatch, caplog):
    """As on NFS before 4.2, and in a Python without the calls; the loss is said once."""

    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    for name in ("setxattr", "getxattr", "listxattr", "removexattr"):
        if system == "Linux":
            monkeypatch.setattr(os, name, unsupported)
        else:
            monkeypatch.delattr(os, name, raising=False)
    storage._say_unverified.cache_clear()
    for name, (write, read) in KINDS.items():
        write(tmp_path / name)
        read(tmp_path / name)
    storage.write_json({"a": 1}, tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": 2}')
    assert storage.read_json(tmp_path / "x.json") == {"a": 2}
    reason = {"Linux": "Operation not supported", "macOS": "this system's Python lacks them"}[system]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith(f"no extended attributes here ({reason}), so files are kept without checksums")
    patches = tmp_path / "x.zarr"  # hold one of their own
    next(path for path in (patches / "patches" / "c").rglob("*") if path.is_file()).unlink()
    with pytest.raises(InputError, match="changed since ctrflow wrote it"):
        storage.read_patches(patches)


# --- failures while writing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "the disk is full .*free some space"), (errno.EROFS, "cannot be written .*folder writable")],
)
@pytest.mark.parametrize("folder", [False, True])
def test_a_full_or_read_only_disk_is_reported(number, text, folder, tmp_path):
    def fail():
        with (storage.atomic_folder if folder else storage.atomic)(tmp_path / "x") as part:
            raise OSError(number, "a library's message", str(part))

    with pytest.raises(InputError, match=f"x: {text}"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_is_passed_on(tmp_path):
    def fail():
        with storage.atomic(tmp_path / "x"):
            (tmp_path / "absent").read_text()

    with pytest.raises(FileNotFoundError):
        fail()


@pytest.mark.parametrize("proc", [True, False])
def test_temporary_files_of_killed_processes_are_removed(proc, tmp_path, monkeypatch):
    if not proc:  # as on macOS
        exists = Path.exists
        monkeypatch.setattr(Path, "exists", lambda path: path.parts[:2] != ("/", "proc") and exists(path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = (os.getppid(), 1)  # process 1 may be another user's
    stale = [tmp_path / f".{process}.x.tsv" for process in (dead.pid, 2**70)]
    kept = [tmp_path / name for name in (*(f".{process}.x.tsv" for process in alive), f".{dead.pid}.y.tsv")]
    for path in (*stale, *kept):
        path.write_text("half")
    storage.write_text("", tmp_path / "x.tsv")
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in kept)


def test_a_process_of_another_user_runs(monkeypatch):
    def denied(process, signal):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", denied)
    assert storage._runs(1)


def piece(first, count, kind):
    """Some rows of one table; rows of one `kind` repeat the same text, as in a section."""
    rng, rows = np.random.default_rng(first), np.arange(first, first + count)
    counts = sparse.csr_matrix(rng.poisson(0.5, (count, 6)).astype(np.float32))
    obs = pd.DataFrame({"section": "AB"[kind], "n": rows / 3}, index=[f"s{i}" for i in rows])
    var, features = pd.DataFrame(index=list("uvwxyz")), rng.random((count, 4), dtype=np.float32)
    return anndata.AnnData(
        counts, obs=obs, var=var, obsm={"image": features}, layers={"counts": counts * 2}, uns={"k": kind}
    )


@pytest.mark.parametrize("most", [storage.MOST_VALUES_32, 20])
def test_a_table_in_pieces_is_the_table(tmp_path, monkeypatch, most):
    """Also where the row pointers of its matrices outgrow 32 bits."""
    monkeypatch.setattr(storage, "MOST_VALUES_32", most)
    parts = [piece(0, 5, 0), piece(5, 1, 0), piece(6, 7, 1)]
    storage.write_h5ad_pieces(iter(parts), tmp_path / "x.h5ad")
    table, expected = storage.read_h5ad(tmp_path / "x.h5ad"), anndata.concat(parts)
    assert table.obs["section"].dtype == "category"
    assert table.obs.astype({"section": str}).equals(expected.obs.astype({"section": str}))
    assert (table.X != expected.X).nnz == 0
    assert (table.layers["counts"] != expected.layers["counts"]).nnz == 0
    assert (table.obsm["image"] == expected.obsm["image"]).all()
    assert list(table.var_names) == list("uvwxyz")
    assert table.uns == {"k": 0}
    assert table.X.sum() > 20


def test_layers_can_be_skipped(tmp_path):
    storage.write_h5ad(piece(0, 5, 0), tmp_path / "x.h5ad")
    without, full = (storage.read_h5ad(tmp_path / "x.h5ad", with_layers=layers) for layers in (False, True))
    assert list(without.layers) == []
    assert list(full.layers) == ["counts"]
    assert (without.X != full.X).nnz == 0
    assert without.obs.equals(full.obs)
    assert (without.obsm["image"] == full.obsm["image"]).all()
    assert without.uns == full.uns
