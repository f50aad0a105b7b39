"""What a method needs for a view."""

from pathlib import Path
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


def test_pictures_of_a_list_are_asked_for(tmp_path):
    listed = tmp_path / "listed.tsv"
    assert room.listed_bytes(listed) == 0
    listed.write_text("section\tpatches\tsha256\tbytes\nA\ta.zarr\tx\t1000000\nB\tb.zarr\ty\t500000000\n")
    assert room.listed_bytes(listed) == 501_000_000
    assert room.asked_mb(0, 0, room.listed_bytes(listed)) == 3000 + 2 * 501


def test_features_that_a_method_does_not_read_do_not_count(monkeypatch):
    monkeypatch.setattr(room, "memory_bytes", lambda: 60e9)
    prem = methods.load("prem").SPEC
    room.require(prem, view(genes=500, image=5000), {})  # 12 GB of genes, 132 GB with the image
    with pytest.raises(InputError, match="prem: would hold"):
        room.require(prem, view(genes=5000, image=500), {})


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        (
            "0::/system.slice/slurmstepd.scope/job_7/step_0\n",
            ["system.slice/slurmstepd.scope/job_7/step_0", "system.slice/slurmstepd.scope/job_7",
             "system.slice/slurmstepd.scope", "system.slice", "."],
        ),
        ("9:name=systemd:/\n4:cpu,memory:/slurm/job_7\n", ["memory/slurm/job_7", "memory/slurm", "memory"]),
    ],
)  # fmt: skip
def test_limits_of_a_scheduler_lie_in_the_groups_above_a_process(cgroup, expected):
    found = list(room._limits(cgroup))
    assert [path.parent for path in found] == [Path("/sys/fs/cgroup") / folder for folder in expected]
    assert {path.name for path in found} == {"memory.max" if cgroup.startswith("0:") else "memory.limit_in_bytes"}


def test_what_this_process_may_use_is_at_most_the_machine():
    import os

    assert 1e8 < room.memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
