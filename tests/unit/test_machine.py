"""The machine: one GPU for each step, also without a scheduler that assigns them, and memory limits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrflow import logs, machine
from ctrflow.errors import InputError

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
    with pytest.raises(InputError, match="auto, cpu or cuda"):
        machine.fix("gpu")


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
