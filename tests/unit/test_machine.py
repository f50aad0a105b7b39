"""The machine: one GPU for each step, also without a scheduler that assigns them, and memory limits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctrflow import logs, machine
from ctrflow.errors import InputError
from ctrflow.nets import training

ROOT = Path(__file__).parents[2]
# locks a GPU, prints which, and holds it until stdin closes
STEP = "import os, sys; from ctrflow import machine; machine.fix('auto'); print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
STAY = "; sys.stdout.flush(); sys.stdin.read()"


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine whose nvidia-smi lists two GPUs, with its own lock folder."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf 'GPU-one\\nGPU-two\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def started():
    """A process that holds a GPU, and the name of that GPU."""
    process = subprocess.Popen(
        [sys.executable, "-c", STEP + STAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def test_two_steps_get_two_gpus_and_the_next_gets_a_released_one(two_gpus):
    first, one = started()
    second, two = started()
    assert [one, two] == ["GPU-one", "GPU-two"]
    first.kill()
    first.wait()
    third, three = started()
    assert three == "GPU-one"
    fourth, shared = started()  # more steps than GPUs: shared, with a warning
    assert shared == "GPU-one"
    for process in (second, third, fourth):
        process.kill()
        process.wait()


def test_a_gpu_assigned_by_a_scheduler_is_kept(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    process, got = started()
    process.kill()
    process.wait()
    assert got == "1"


def test_a_step_takes_one_of_the_gpus_the_user_named(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    process, got = started()
    other, next_one = started()
    for one in (process, other):
        one.kill()
        one.wait()
    assert [got, next_one] == ["2", "5"]


def test_a_machine_without_gpus_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine.fix("auto")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_step_on_the_cpu_sees_no_gpu(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    machine.fix("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_step_without_networks_takes_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "fix_device", lambda device: pytest.fail("took a GPU"))
    monkeypatch.setattr(logs.logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(logs.logging, "captureWarnings", lambda capture: None)
    monkeypatch.setattr(logs, "limit_threads", lambda threads: None)
    monkeypatch.setattr(logs.sys, "excepthook", logs.sys.excepthook)
    logs.setup()


def test_an_unknown_device_is_rejected():
    with pytest.raises(InputError, match="auto, cpu, cuda or mps"):
        machine.fix("gpu")


@pytest.mark.parametrize(
    ("asked", "cuda", "mps", "expected"),
    [
        ("auto", False, True, "mps"), ("auto", True, True, "cuda"), ("auto", False, False, "cpu"),
        ("mps", False, True, "mps"), ("mps", True, True, "mps"), ("cpu", False, True, "cpu"),
    ],
)  # fmt: skip
def test_the_gpu_of_a_mac_is_chosen(asked, cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert machine.choose(asked) == expected


def test_a_required_gpu_that_the_mac_or_pc_has_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for mps in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        with pytest.raises(InputError, match="device is cuda, but torch sees no GPU"):
            machine.choose("cuda")
    with pytest.raises(InputError, match=r"device is mps, but torch sees no GPU of a Mac .*; set `device: auto`"):
        machine.fix("mps")


def test_what_methods_train_stays_on_the_cpu_of_a_mac(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for asked in ("auto", "mps"):
        machine.fix(asked)
        assert training.start(0) == torch.device("cpu")


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
def test_memory_limits_are_read_from_the_control_group_and_its_ancestors(cgroup, expected):
    paths = list(machine._limits(cgroup))
    assert [path.parent for path in paths] == [Path("/sys/fs/cgroup") / folder for folder in expected]
    assert {path.name for path in paths} == {"memory.max" if cgroup.startswith("0:") else "memory.limit_in_bytes"}


def test_allowed_memory_is_at_most_that_of_the_machine():
    assert 1e8 < machine.memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_memory_where_the_system_does_not_count_pages(tmp_path, monkeypatch):
    def unknown(name):
        raise ValueError("unrecognized configuration name")

    sysctl = tmp_path / "sysctl"
    sysctl.write_text('#!/bin/sh\n[ "$*" = "-n hw.memsize" ] && echo 17179869184\n')
    sysctl.chmod(0o755)
    monkeypatch.setattr(os, "sysconf", unknown)
    monkeypatch.setattr(machine, "_limits", lambda cgroup: [])
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine.memory_bytes() == 16 * 2**30
    monkeypatch.setenv("PATH", "")
    assert machine.memory_bytes() == float("inf")


# hides what Linux has and macOS lacks; psutil, which has a module of its own for each system, still sees /proc
WITHOUT_LINUX = """
import builtins, io, os, sys

for name in ("setxattr", "getxattr", "listxattr", "removexattr", "sched_getaffinity", "sched_setaffinity",
             "memfd_create", "copy_file_range", "posix_fallocate", "posix_fadvise", "O_TMPFILE", "O_DIRECT"):
    if hasattr(os, name):
        delattr(os, name)

def hidden(original):
    def call(path, *args, **kwargs):
        asks = sys._getframe(1).f_globals.get("__name__", "")
        if isinstance(path, (str, os.PathLike)) and not asks.startswith("psutil"):
            if os.fspath(path).startswith(("/proc", "/sys/")):
                raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
        return original(path, *args, **kwargs)
    return call

for module, names in ((os, ("stat", "lstat", "open", "listdir", "scandir", "access", "readlink")), (io, ("open",))):
    for name in names:
        setattr(module, name, hidden(getattr(module, name)))
builtins.open = io.open
"""
WORK = """
import logging, os, sys
from pathlib import Path

import numpy as np

from ctrflow import doctor, encoders, logs, machine, readers, simulate, storage
from ctrflow.simulate.vendors import write_st
from ctrflow.training import costs

assert not hasattr(os, "sched_getaffinity") and not hasattr(os, "setxattr") and not Path("/proc/self").exists()
logs.setup("step.log", 1, "auto")
write_st(simulate.simulate_section("st", spots=60, genes=60, seed=4), Path("raw"), "S1")
row = {"section": "S1", "platform": "st", "path": "raw/ST-cnts/S1.tsv.gz", "image": "raw/ST-imgs/S1.jpg"}
section = readers.read_section(row)
for _ in range(2):
    with costs.measured() as cost:
        embedded = encoders.embed_section(section, "x", {"model": "timm:test_vit", "weights": "random"})
    storage.write_h5ad(embedded, "a.h5ad")
assert (storage.read_h5ad("a.h5ad").X == embedded.X).all() and embedded.shape == (60, 64)
assert cost["seconds"] > 0 and cost["rss_mb"] >= 0 and cost["gpu_mb"] is None
assert 1e8 < machine.memory_bytes() < 1e15
plan = {"study": "mine", "rows": [], "encoders": {"x": {"model": "hed_texture"}}, "lock": sys.argv[1]}
assert {one.check for one in doctor.examine(plan)} >= {"versions", "gpu", "disk"}
"""


def test_everything_goes_on_without_what_only_linux_has(tmp_path):
    """And what is lost is said once: files without checksums, the memory of a step."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LINUX)
    folders = [str(tmp_path), str(ROOT / "scripts")]
    environment = {"PATH": "", "PYTHONPATH": os.pathsep.join(folders), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WORK, ROOT / "requirements.txt"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    log = (tmp_path / "step.log").read_text()
    lost = [line.split(" WARNING ")[1] for line in log.splitlines() if " WARNING " in line]
    assert len([line for line in lost if "files are kept without checksums" in line]) == 1
    assert len([line for line in lost if "cannot reset the peak of memory" in line]) == 1
