"""Threads, device and errors of a step."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctrflow import machine
from ctrflow.errors import InputError

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(code: str, tmp_path) -> subprocess.CompletedProcess:
    """In a process of its own, as threads and the hook for errors are global."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SCRIPTS)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("first", ["", "import numba; numba.set_num_threads(1); "])
def test_threads_are_limited_also_if_numba_is_loaded(first, tmp_path):
    code = f"{first}from ctrflow import logs; logs.limit_threads(1); import numba; from numba.core import config; "
    done = run(code + "config.reload_config(); print(numba.get_num_threads())", tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr[-500:]


def test_a_user_error_is_one_line_in_log_and_terminal(tmp_path):
    code = "from ctrflow import logs, errors; logs.setup('step.log'); raise errors.InputError('sheet.tsv, row 3: cure')"
    done = run(code, tmp_path)
    assert done.returncode == 1
    for text in (done.stderr, (tmp_path / "step.log").read_text()):
        assert text.count("sheet.tsv, row 3: cure") == 1
        assert "Traceback" not in text


def test_who_follows_the_log_file_gets_nothing_else(tmp_path):
    """Without a log file, stderr has it all the same; what anndata tells stderr of itself is in neither."""
    said = "; import anndata; logging.getLogger('anndata._core').info('... storing'); logs.logger.warning('rotated')"
    for path, on_stderr in (("'step.log'", False), ("", True)):
        code = "import logging, os; os.environ['CTRFLOW_LOG_ONLY'] = '1'; from ctrflow import logs; "
        done = run(f"{code}logs.setup({path}){said}", tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("WARNING rotated" in done.stderr) is on_stderr
        assert "storing" not in done.stderr
    assert "WARNING rotated" in (tmp_path / "step.log").read_text()


def test_our_own_errors_keep_their_traceback(tmp_path):
    run("from ctrflow import logs; logs.setup('step.log'); raise ValueError('ours')", tmp_path)
    assert "Traceback" in (tmp_path / "step.log").read_text()


def test_cpu_hides_gpus(tmp_path):
    code = "import os; from ctrflow import logs; logs.setup('step.log', device='cpu'); "
    code += "print([os.environ['CUDA_VISIBLE_DEVICES']])"
    done = run(code, tmp_path)
    assert done.stdout.strip() == "['']"


def test_without_a_device_nothing_is_set_and_torch_is_not_loaded(tmp_path):
    code = "import os, sys; from ctrflow import logs; logs.setup('step.log'); "
    code += "print('CUDA_VISIBLE_DEVICES' in os.environ, 'torch' in sys.modules)"
    done = run(code, tmp_path)
    assert done.stdout.strip() == "False False", done.stderr[-500:]


def test_an_unknown_device_is_rejected(tmp_path):
    done = run("from ctrflow import logs; logs.setup('step.log', device='tpu')", tmp_path)
    assert done.returncode == 1
    assert "unknown device 'tpu'; set it to auto, cpu, cuda or mps" in (tmp_path / "step.log").read_text()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("asked", "gpu", "expected"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_chosen_device(monkeypatch, asked, gpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert machine.choose(asked) == expected


def test_a_required_gpu_that_is_missing_is_reported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(InputError, match="device is cuda, but torch sees no GPU; set `device: auto`, or run on a GPU"):
        machine.choose("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match=r"torch sees no GPU \(CUDA_VISIBLE_DEVICES is ''\)"):
        machine.fix("cuda")


def test_the_schedulers_choice_of_a_gpu_is_kept(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for asked in ("auto", "cuda"):
        machine.fix(asked)
        assert machine.os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_a_step_collects_garbage_as_ever_but_not_at_its_end(tmp_path):
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000)); "
    code += "from ctrflow import logs; logs.setup(); print(gc.get_threshold())"
    assert run(code, tmp_path).stdout.split("\n")[:2] == ["(700, 10, 10)", "True"]
