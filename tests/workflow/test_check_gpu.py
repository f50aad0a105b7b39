"""`make check-gpu` on the CPU: every part runs and is ok, and what is wrong is said."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[1] / "bench"
EMBEDDED = ["uni fp32", "uni fp16", "uni bf16", "embed_section, precision auto"]
MEMORY = ["memory for few patches", "memory for no patch", "memory for no network"]
LEARNED = [
    "spacrd paper", "spacrd reference", "spacrd enhanced", "spacrd fast", "meatrd paper", "meatrd reference",
    "stands paper",
]  # fmt: skip
LOCKED = ["two steps, a GPU each", "a third shares, is warned", "a released one is taken"]
CHECKS = [
    "device",
    "inputs",
    *EMBEDDED,
    *MEMORY,
    *(f"{case}, {step}" for case in LEARNED for step in ("fit", "score")),
    *LOCKED,
]


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(BENCH)
    import check_gpu

    return check_gpu


def results(output: str) -> dict[str, str]:
    """Check -> result, from the table."""
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")][2:]
    return {row[0].strip(): row[-1].strip() for row in rows}


def test_every_part_is_ok_on_the_cpu():
    command = [sys.executable, BENCH / "check_gpu.py", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert results(done.stdout) == dict.fromkeys(CHECKS, "ok"), done.stdout + done.stderr
    assert done.returncode == 0
    assert done.stdout.startswith("CPU in place of a GPU, torch ")
    assert re.search(r"^\d+ s in all, of 480 at most$", done.stdout, flags=re.MULTILINE)


def test_without_a_gpu_there_is_one_line_and_status_2(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "has_gpu", lambda: False)
    assert script.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"check_gpu.py: torch sees no GPU; .*--device cpu\n", said.err)


def test_what_there_is_no_time_for_is_not_run(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "BUDGET_S", 0)
    assert script.main(["--device", "cpu"]) == 1
    assert results(capsys.readouterr().out) == dict.fromkeys(CHECKS, script.NO_TIME)


def test_one_wrong_line_fails_the_check(script, capsys):
    assert script.report([script.line("this", "2 s", "3 s", 1234.5, "none"), script.line("that", wrong="a | b")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "| check | device | CPU | GPU memory | deviation | result |",
        "| ----- | ------ | --- | ---------- | --------- | ------ |",
        "| this  | 2 s    | 3 s | 1,234 MiB  | none      | ok     |",
        "| that  |        |     |            |           | a / b  |",
        "",
        "1 of 2 ok",
    ]


def test_features_that_differ_are_wrong(script, tmp_path):
    features = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    np.save(tmp_path / "embed_sample fp32.npy", features)
    found = {"patches": 4, "seconds": 1.0, "batch": 4, "precision": "fp32", "patch_mib": 0, "gpu_mb": None}

    def result(values, **changed):
        np.save(tmp_path / "embed fp32.npy", values)
        return script.embedding_line(tmp_path, "fp32", found | changed, found)["result"]

    assert result(features + np.float32(1e-6)) == "ok"
    assert result(features + np.float32(1e-3)) == (
        "deviation 1.1e-03 of features from the CPU's in fp32, at most 0.0001 expected"
    )
    assert result(features[:, ::-1]).startswith("deviation ")
    assert result(np.full_like(features, np.nan)).startswith("deviation nan ")
    assert result(features, patch_mib=33) == "a patch takes 33 MiB, more than estimated"


def test_scores_and_models_that_differ_are_wrong(script, tmp_path):
    scores = np.linspace(0, 1, 50)
    np.save(tmp_path / "cpu m.npy", scores)
    cost = {"seconds": 1.0, "gpu_mb": 10.0}
    found = {"fit": cost, "score": cost, "sha256": "one"}

    def result(values, again="one"):
        np.save(tmp_path / "device m.npy", values)
        return [line["result"] for line in script.method_lines(tmp_path, "m", found, {"sha256": again}, found)]

    assert result(scores + 1e-5) == ["ok", "ok"]
    assert result(scores, again="two") == ["a second fit with the same seed gives other bytes", "ok"]
    assert result(scores + 0.1)[1].startswith("deviation 3.4e-01 of scores from the CPU's, in their sd")
    assert result(scores[::-1] * 1e-6 + scores.mean())[1].startswith("deviation ")


def test_a_case_that_crashes_leaves_the_others(script, tmp_path, capfd):
    (tmp_path / "sizes.json").write_text(json.dumps(script.SIZES["cpu"]))
    cases = ["spacrd paper", "spacrd fast"]
    found = script.in_children(script.fit, cases, "cpu", tmp_path, time.monotonic() + 300)
    assert [list(found), [list(one) for one in found.values()]] == [cases, [["wrong"]] * 2]
    assert all("labelled train.h5ad" in one["wrong"] for one in found.values())
    assert capfd.readouterr().err.count("Traceback") >= 2
    assert script.why("", -9) == "exit status -9"
