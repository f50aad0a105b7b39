"""A clock that was set back: files dated in the future."""

import os
import subprocess

import pytest

from faults.test_sources import LABELS, auc, exchanged
from runs import good, run

AN_HOUR_S = 3600
CURE = "find config data results benchmarks -newermt now -exec touch {} +"
REBUILD = ("--forcerun", "ingest_section", "ingest_cells", "label_section")


def set_ahead(*paths) -> None:
    """Date files an hour later, as if written when the clock was ahead."""
    for path in paths:
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + AN_HOUR_S))


def test_a_source_dated_in_the_future_is_reported(
    finished_copy, assert_error, assert_undisturbed, command, reported, recovered
):
    folder = finished_copy
    image = "data/mini/ST-imgs/P2.jpg"
    set_ahead(folder / image)
    assert_error(folder, command, [f"{image}: is dated ", "in the future", f"touch {image}"])
    reported()
    os.utime(folder / image)
    good(folder, *command)
    assert_undisturbed(folder)
    recovered()


def changed_and_ahead(folder, kind: str) -> None:
    """Inverted labels of the target, and files of a kind dated after them."""
    labels = folder / LABELS.format("P1")
    labels.write_bytes(exchanged(labels))
    set_ahead(*(path for path in (folder / "results").glob(kind) if path.is_file()))


def apply_cure(folder, command) -> None:
    """Do what the message says."""
    subprocess.run(CURE, shell=True, cwd=folder, check=True)
    good(folder, *command, *REBUILD)


def test_results_dated_in_the_future_are_reported(
    finished_copy, undisturbed, assert_error, command, reported, recovered
):
    """Before anything runs: dates no longer tell whether they are up to date."""
    folder = finished_copy
    changed_and_ahead(folder, "**/*")
    assert_error(folder, command, ["results/short/metrics.tsv: is dated ", "in the future", CURE, " ".join(REBUILD)])
    reported()
    apply_cure(folder, command)
    assert auc(folder) == pytest.approx(1 - auc(undisturbed), abs=1e-12)
    recovered()


def test_an_intermediate_file_dated_in_the_future_is_reported(finished_copy, undisturbed, command, reported, recovered):
    """By the job that reads the file."""
    folder = finished_copy
    changed_and_ahead(folder, "short/one/**/calls.tsv")
    done = run(folder, *command)
    assert done.returncode == 1
    assert done.stdout.count(CURE) == 1, done.stdout
    reported()
    apply_cure(folder, command)
    assert auc(folder) == pytest.approx(1 - auc(undisturbed), abs=1e-12)
    recovered()
