"""The machine: one GPU for each step, also where no scheduler hands them out, and the memory that is allowed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrflow import logs, machine
from ctrflow.errors import InputError

# takes a GPU, says which, and has it until its input ends
STEP = "import os, sys; from ctrflow import machine; machine.fix('auto'); print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
STAY = "; sys.stdout.flush(); sys.stdin.read()"


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine whose nvidia-smi tells of two GPUs, with locks of its own."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf 'GPU-one\\nGPU-two\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def started():
    """A step that holds its GPU, and which it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", STEP + STAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def test_two_steps_get_two_gpus_and_the_next_the_one_that_is_free_again(two_gpus):
    first, one = started()
    second, two = started()
    assert [one, two] == ["GPU-one", "GPU-two"]
    first.kill()
    first.wait()
    third, three = started()
    assert three == "GPU-one"
    fourth, shared = started()  # more steps than GPUs: they share, and it is said
    assert shared == "GPU-one"
    for process in (second, third, fourth):
        process.kill()
        process.wait()


def test_a_gpu_that_a_scheduler_gave_stays(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    process, got = started()
    process.kill()
    process.wait()
    assert got == "1"


def test_of_those_that_the_user_named_one_is_taken(two_gpus, monkeypatch):
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


def test_no_gpu_is_seen_by_a_step_on_the_cpu(two_gpus, monkeypatch):
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


def test_an_unknown_device_is_refused():
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
def test_limits_of_a_scheduler_lie_in_the_groups_above_a_process(cgroup, expected):
    found = list(machine._limits(cgroup))
    assert [path.parent for path in found] == [Path("/sys/fs/cgroup") / folder for folder in expected]
    assert {path.name for path in found} == {"memory.max" if cgroup.startswith("0:") else "memory.limit_in_bytes"}


def test_what_this_process_may_use_is_at_most_the_machine():
    assert 1e8 < machine.memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
