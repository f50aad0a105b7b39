"""A clock that was set back: files dated later than now."""

import os
import subprocess

import pytest

from faults.test_sources import LABELS, auc, exchanged, planned
from runs import good, run

AN_HOUR_S = 3600
CURE = "find results benchmarks -newermt now -exec touch {} +"


def set_ahead(*paths) -> None:
    """As files look whose clock was an hour ahead of the one we have now."""
    for path in paths:
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + AN_HOUR_S))


def test_a_source_of_tomorrow_is_told(finished_copy, is_told, is_as_undisturbed, command, told, survived):
    folder = finished_copy
    image = "data/mini/ST-imgs/P2.jpg"
    set_ahead(folder / image)
    is_told(folder, command, [f"{image}: is dated ", "later than now", f"touch {image}"])
    told()
    os.utime(folder / image)
    good(folder, *command)
    is_as_undisturbed(folder)
    survived()


def test_results_of_tomorrow(finished_copy, undisturbed, command, told, survived):
    """Nothing is done where nothing changed; what changed now is noticed although its results are dated later."""
    folder = finished_copy
    made = [path for place in ("results", "benchmarks") for path in (folder / place).rglob("*") if path.is_file()]
    set_ahead(*made)
    assert "Nothing to be done" in good(folder, "-n", *command)
    survived()
    labels = folder / LABELS.format("P1")
    labels.write_bytes(exchanged(labels))
    assert ("label_section", "P1") in planned(good(folder, "-n", *command))
    survived()
    done = run(folder, *command)
    assert done.returncode == 1
    assert done.stdout.count(CURE) == 1, done.stdout
    told()
    subprocess.run(CURE, shell=True, cwd=folder, check=True)
    good(folder, *command)
    assert auc(folder) == pytest.approx(1 - auc(undisturbed), abs=1e-12)
    survived()
