"""What a method needs for a view."""

from types import SimpleNamespace

import numpy as np
import pytest

from ctrflow import methods, room
from ctrflow.errors import InputError


def view(spots=1_000_000, genes=3000, image=1000):
    return SimpleNamespace(n_obs=spots, n_vars=genes, obsm={"image": np.broadcast_to(0, (spots, image))})


def test_a_view_too_large_for_the_machine_is_refused_before_anything_is_learned(monkeypatch):
    """Four copies of 1,000,000 spots x 4,000 features of 4 bytes: 64 GB."""
    monkeypatch.setattr(room, "memory_bytes", lambda: 60e9)
    boosting, linear = (methods.load(name).SPEC for name in ("boosting", "linear"))
    with pytest.raises(InputError, match=r"boosting: would hold 1,000,000 spots x 4,000 .* 64\.0 GB, and 60\.0 GB"):
        room.require(boosting, view(), {})
    room.require(linear, view(), {})
    room.require(boosting, view(), {"max_reference_spots": 2000})
    monkeypatch.setattr(room, "memory_bytes", lambda: 70e9)
    room.require(boosting, view(), {"max_reference_spots": 0})


def test_pictures_count(monkeypatch):
    """Of 1,000,000 spots, 128 px wide in three bytes, twice: 98 GB."""
    monkeypatch.setattr(room, "memory_bytes", lambda: 100e9)
    spec = methods.load("patch_svdd").SPEC
    with pytest.raises(InputError, match=r"patch_svdd: would hold the pictures of 1,000,000 spots, 98\.3 GB, and 100"):
        room.require(spec, view(), {"patch_px": 128})
    room.require(spec, view(), {"patch_px": 32})


def test_more_is_asked_for_the_larger_the_file_and_the_more_copies():
    assert room.asked_mb(0, 0) == 3000
    assert room.asked_mb(0, 1e9) == 5000
    assert room.asked_mb(4, 1e9) == 21000
    assert room.fold_mb(5e8) == 5000


def test_what_this_process_may_use_is_at_most_the_machine():
    import os

    assert 1e8 < room.memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
