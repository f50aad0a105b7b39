"""Threads and errors of a step."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(code: str, tmp_path) -> subprocess.CompletedProcess:
    """A process of its own: threads and the hook for errors are those of a process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SCRIPTS)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("first", ["", "import numba; numba.set_num_threads(1); "])
def test_threads_are_limited_also_where_numba_runs_already(first, tmp_path):
    code = f"{first}from ctrflow import logs; logs.limit_threads(1); import numba; from numba.core import config; "
    done = run(code + "config.reload_config(); print(numba.get_num_threads())", tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr[-500:]


def test_a_users_error_is_one_line_in_log_and_terminal(tmp_path):
    code = "from ctrflow import logs, errors; logs.setup('step.log'); raise errors.InputError('sheet.tsv, row 3: cure')"
    done = run(code, tmp_path)
    assert done.returncode == 1
    for text in (done.stderr, (tmp_path / "step.log").read_text()):
        assert text.count("sheet.tsv, row 3: cure") == 1
        assert "Traceback" not in text


def test_our_own_errors_keep_their_traceback(tmp_path):
    run("from ctrflow import logs; logs.setup('step.log'); raise ValueError('ours')", tmp_path)
    assert "Traceback" in (tmp_path / "step.log").read_text()


def test_cpu_hides_gpus(tmp_path):
    code = "import os; from ctrflow import logs; logs.setup('step.log', device='cpu'); "
    code += "print([os.environ['CUDA_VISIBLE_DEVICES']])"
    done = run(code, tmp_path)
    assert done.stdout.strip() == "['']"
