"""Files are whole or not there."""

import json

import numpy as np
import pandas as pd
import pytest

from ctrflow import storage
from ctrflow.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "x.json"
    storage.write_json({"a": 1}, path)

    def fail():
        with storage.whole(path) as part:
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


def test_what_is_no_model_is_refused(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(InputError, match="no such model"):
        storage.read_safetensors(tmp_path / "absent")
    (tmp_path / "text.safetensors").write_text("hello, this is not a model at all")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        storage.read_safetensors(tmp_path / "text.safetensors")
    save_file({"w": np.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not a model that ctrflow trained"):
        storage.read_safetensors(tmp_path / "other.safetensors")


def test_hdf5_in_name_only_is_refused(tmp_path):
    (tmp_path / "x.h5ad").write_text("barcode,gene\n")
    with pytest.raises(InputError, match="not an HDF5 file"):
        storage.read_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match="no such file"):
        storage.read_h5ad(tmp_path / "y.h5ad")


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json({"x": float("nan")}, tmp_path / "x.json")


def test_patches_come_back_with_their_spots(tmp_path):
    patches = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), dtype=np.uint8)
    names = [f"s{i}" for i in range(300)]
    for _ in range(2):  # written over what is there
        storage.write_patches(patches, names, 55.0, tmp_path / "a.zarr")
    spots, found = storage.read_patches(tmp_path / "a.zarr")
    assert spots == names
    assert found.dtype == np.uint8
    assert (found == patches).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
