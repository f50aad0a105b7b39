"""Coverage-guided fuzzing of the readers of files written by people and other programs (see targets.py)."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fuzz import targets
from fuzz.changes import change

HERE = Path(__file__).parent
# some 3 s of one core each; a fixed number of inputs is reproducible
INPUTS = {"sheet": 2000, "words": 2000, "labels": 600, "drawing": 600, "alignment": 1000, "study": 400, "model": 300}
LONG_S = 300
LIMITS = ("-timeout=60", "-rss_limit_mb=1000", "-max_len=4096")  # s and MB of one input, bytes
CRASHED, HUNG, FULL = 77, 70, 71  # exit statuses of libFuzzer
PLANTED = """
import sys
import time
sys.path.insert(0, {here!r})
import fuzz

def read(path):
    if b"\\0" in path.read_bytes():
        {fault}

fuzz.targets.TARGETS["words"] = read
fuzz.main("words", {folder!r}, {options!r})
"""


def kept(kind: str) -> list:
    """(target, file) of the inputs in a folder."""
    return [
        pytest.param(path.parent.name, path, id=f"{path.parent.name}-{path.name}")
        for path in sorted((HERE / kind).glob("*/*"))
    ]


def run(command: list) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    # via a shell, since the peak memory of a direct child would include that of this process
    started = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, *map(str, command)]
    return subprocess.run(started, env=environment, capture_output=True, text=True, errors="replace")


def fuzz(target: str, folder: Path, record_property, *options: str) -> None:
    """No input may fail; the number of inputs and the coverage are reported at the end."""
    done = run([HERE / "fuzz.py", target, folder, "-seed=1", *LIMITS, *options])
    assert done.returncode == 0, done.stderr[-5000:]
    inputs = int(re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)[1])
    edges = [int(number) for number in re.findall(r"cov: (\d+)", done.stderr)]
    assert inputs > len(list((HERE / "seeds" / target).iterdir()))
    assert edges[-1] > edges[0], "the changed inputs reach no more than the seeds"
    record_property("fuzzed", (target, inputs, edges[-1]))


@pytest.mark.parametrize("target", targets.TARGETS)
def test_any_bytes(target, tmp_path, record_property):
    fuzz(target, tmp_path, record_property, f"-runs={INPUTS[target]}")


@pytest.mark.slow
@pytest.mark.parametrize("target", targets.TARGETS)
def test_any_bytes_for_long(target, tmp_path, record_property):
    fuzz(target, tmp_path, record_property, f"-max_total_time={LONG_S}")


@pytest.mark.parametrize(("target", "path"), kept("found"))
def test_inputs_that_once_failed(target, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copied = tmp_path / "input"
    copied.write_bytes(path.read_bytes())
    targets.read(target, copied)


@pytest.mark.parametrize(("target", "path"), kept("seeds"))
def test_seeds_are_read(target, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copied = tmp_path / "input"
    copied.write_bytes(path.read_bytes())
    assert targets.read(target, copied)


@pytest.mark.parametrize(
    ("fault", "status", "written"),
    [
        ("raise KeyError", CRASHED, "crash-*"),
        pytest.param("time.sleep(30)", HUNG, "timeout-*", marks=pytest.mark.slow),
        pytest.param("kept = b'x' * 2**31; time.sleep(5)", FULL, "oom-*", marks=pytest.mark.slow),
    ],
)
def test_a_planted_fault_is_found(fault, status, written, tmp_path):
    options = ["-seed=1", "-timeout=10", "-rss_limit_mb=1000", "-runs=100000"]
    done = run(["-c", PLANTED.format(here=str(HERE), fault=fault, folder=str(tmp_path), options=options)])
    assert done.returncode == status, done.stderr[-2000:]
    (culprit,) = tmp_path.glob(written)
    assert b"\0" in culprit.read_bytes()


def test_mutations_keep_files_parseable():
    table, tree = b"word\tlabel\ntumor\t1\nstroma\t0\n", {"a": [1, {"b": "c"}], "d": None}
    assert change(table, random.Random(3)) == change(table, random.Random(3))
    changed = [change(json.dumps(tree).encode(), random.Random(seed)) for seed in range(200)]
    assert len({json.dumps(json.loads(content)) for content in changed}) > 100
    plain = [change(yaml.safe_dump(tree).encode(), random.Random(seed)) for seed in range(200)]
    assert len({str(yaml.safe_load(content)) for content in plain}) > 100
    assert sum(b"\t" in change(table, random.Random(seed)) for seed in range(200)) > 150
