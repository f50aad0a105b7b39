"""A clock that was set back: files dated later than now."""

import os
import subprocess

import pytest

from faults.test_sources import LABELS, auc, exchanged
from runs import good, run

AN_HOUR_S = 3600
CURE = "find config data results benchmarks -newermt now -exec touch {} +"
ANEW = ("--forcerun", "ingest_section", "ingest_cells", "label_section")


def set_ahead(*paths) -> None:
    """As files look whose clock was an hour ahead of the one we have now."""
    for path in paths:
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + AN_HOUR_S))


def test_a_source_of_tomorrow_is_reported(finished_copy, is_told, is_as_undisturbed, command, told, survived):
    folder = finished_copy
    image = "data/mini/ST-imgs/P2.jpg"
    set_ahead(folder / image)
    is_told(folder, command, [f"{image}: is dated ", "later than now", f"touch {image}"])
    told()
    os.utime(folder / image)
    good(folder, *command)
    is_as_undisturbed(folder)
    survived()


def changed_and_ahead(folder, kind: str) -> None:
    """Labels of the target that say the contrary, and files of a kind dated ahead of them."""
    labels = folder / LABELS.format("P1")
    labels.write_bytes(exchanged(labels))
    set_ahead(*(path for path in (folder / "results").glob(kind) if path.is_file()))


def cured(folder, command) -> None:
    """As the message says."""
    subprocess.run(CURE, shell=True, cwd=folder, check=True)
    good(folder, *command, *ANEW)


def test_results_of_tomorrow_are_reported(finished_copy, undisturbed, is_told, command, told, survived):
    """Before anything runs: whether they are of what is there now, no date tells any more."""
    folder = finished_copy
    changed_and_ahead(folder, "**/*")
    is_told(folder, command, ["results/short/metrics.tsv: is dated ", "later than now", CURE, " ".join(ANEW)])
    told()
    cured(folder, command)
    assert auc(folder) == pytest.approx(1 - auc(undisturbed), abs=1e-12)
    survived()


def test_a_file_between_stages_of_tomorrow_is_reported(finished_copy, undisturbed, command, told, survived):
    """By the job that reads it."""
    folder = finished_copy
    changed_and_ahead(folder, "short/one/**/calls.tsv")
    done = run(folder, *command)
    assert done.returncode == 1
    assert done.stdout.count(CURE) == 1, done.stdout
    told()
    cured(folder, command)
    assert auc(folder) == pytest.approx(1 - auc(undisturbed), abs=1e-12)
    survived()
