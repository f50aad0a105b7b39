"""The memory that a method needs for a view."""

from types import SimpleNamespace

import numpy as np
import pytest

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.training import memory


def view(spots=1_000_000, genes=3000, image=1000):
    return SimpleNamespace(n_obs=spots, n_vars=genes, obsm={"image": np.broadcast_to(0, (spots, image))})


def test_a_view_too_large_for_the_machine_is_rejected_before_training(monkeypatch):
    """Four copies of 1,000,000 spots x 4,000 features of 4 bytes: 64 GB."""
    monkeypatch.setattr(memory, "memory_bytes", lambda: 60e9)
    boosting, linear = (methods.load(name).SPEC for name in ("boosting", "linear"))
    with pytest.raises(InputError, match=r"needs 64\.0 GB \(4 copies of 1,000,000 spots x 4,000 .* has 60\.0 GB"):
        memory.require(boosting, view(), {})
    memory.require(linear, view(), {})
    memory.require(boosting, view(), {"max_reference_spots": 2000})
    monkeypatch.setattr(memory, "memory_bytes", lambda: 70e9)
    memory.require(boosting, view(), {"max_reference_spots": 0})


def test_patches_count(monkeypatch):
    """1,000,000 spots, 128 px wide, three bytes, twice: 98 GB."""
    monkeypatch.setattr(memory, "memory_bytes", lambda: 100e9)
    spec = methods.load("patch_svdd").SPEC
    with pytest.raises(InputError, match=r"patch_svdd: needs 98\.3 GB \(patches of 1,000,000 spots\).*has 100"):
        memory.require(spec, view(), {"patch_px": 128})
    memory.require(spec, view(), {"patch_px": 32})


def test_requested_memory_grows_with_the_file_and_the_copies():
    assert memory.asked_mb(0, 0) == 3000
    assert memory.asked_mb(0, 1e9) == 5000
    assert memory.asked_mb(4, 1e9) == 21000
    assert memory.fold_mb(5e8) == 5000


def test_requested_memory_includes_listed_patches(tmp_path):
    listed = tmp_path / "listed.tsv"
    assert memory.listed_bytes(listed) == 0
    listed.write_text("section\tpatches\tsha256\tbytes\nA\ta.zarr\tx\t1000000\nB\tb.zarr\ty\t500000000\n")
    assert memory.listed_bytes(listed) == 501_000_000
    assert memory.asked_mb(0, 0, memory.listed_bytes(listed)) == 3000 + 2 * 501


def test_features_that_a_method_does_not_read_do_not_count(monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 60e9)
    prem = methods.load("prem").SPEC
    memory.require(prem, view(genes=500, image=5000), {})  # 12 GB of genes, 132 GB with the image
    with pytest.raises(InputError, match="prem: needs"):
        memory.require(prem, view(genes=5000, image=500), {})
