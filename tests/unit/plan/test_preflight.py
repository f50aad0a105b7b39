"""Checks before a run: folders that cannot be written to, full disks, files dated in the future.

tests/faults puts a whole run before a read-only folder, a full disk and a clock that was set back.
"""

import os
import shutil
import time

import pytest

from ctrflow.plan import preflight
from ctrflow.plan.sheet import COLUMNS
from ctrflow.readers import files


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(path, later_s: float = 0):
    """A file that was changed so much later than now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (0, time.time() + later_s))
    return path


def test_a_folder_that_is_not_there_yet_is_made_in_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: bool(asked.append((str(path), mode))))
    first, second = preflight.unwritable(["results", "logs"])
    assert asked == [(".", os.W_OK | os.X_OK), ("logs", os.W_OK | os.X_OK)]
    assert first == (
        f"{tmp_path}/results: cannot be written to; make it writable for you, or run in a copy of the workflow"
    )
    assert second.startswith(f"{tmp_path}/logs: cannot be written to")


@pytest.mark.parametrize(("free_bytes", "full"), [(999_999, True), (1_000_000, False)])
def test_a_disk_needs_a_megabyte(tmp_path, monkeypatch, free_bytes, full):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - free_bytes, free_bytes)
    )
    message = f"{tmp_path}/results: the disk is full; free some space, then run the same command again"
    assert preflight.unwritable(["results"]) == [message] * full


def row(tmp_path, name: str, **cells) -> dict:
    return (
        dict.fromkeys(COLUMNS, "")
        | {"section": name, "platform": "st", "path": str(tmp_path / f"c/{name}.tsv")}
        | cells
    )


def test_every_file_of_a_section_is_looked_at_and_named_once(tmp_path):
    import pandas as pd

    shared, words = str(made(tmp_path / "he.tif", 3600)), str(made(tmp_path / "words.tsv", 3600))
    one, other = (row(tmp_path, name, image=shared) for name in ("A", "B"))
    labels = str(made(tmp_path / "A.csv", 3600))
    counts, selection = (made(tmp_path / name, 3600) for name in files(one))
    made(tmp_path / "c/B.tsv")
    rows = pd.DataFrame([one | {"labels": labels}, other])
    found = preflight.future_sources(rows, words)
    assert [message.split(": ")[0] for message in found] == [str(counts), str(selection), shared, labels, words]
    assert found[2].startswith(f"{shared}: is dated ")
    assert found[2].endswith(f"set the date of the file to now: touch {shared}")


def test_clocks_that_differ_by_less_than_a_minute_are_the_same(tmp_path):
    import pandas as pd

    rows = pd.DataFrame([row(tmp_path, "A")])
    made(tmp_path / "c/A.tsv", 30)
    assert preflight.future_sources(rows) == []
    made(tmp_path / "c/A.tsv", 90)
    assert len(preflight.future_sources(rows)) == 1


def test_a_section_whose_files_are_to_come_has_no_date(tmp_path):
    import pandas as pd

    made(tmp_path / "A.jpg", 3600)
    assert preflight.future_sources(pd.DataFrame([row(tmp_path, "A", image=str(tmp_path / "A.jpg"))])) == []


def test_results_are_named_by_their_first_file_and_not_searched_to_the_bottom(tmp_path):
    made(tmp_path / "results/s/t/A/uni/linear/seed1/scores.tsv", 3600)  # Snakemake reports it when a job has read it
    made(tmp_path / "results/other/metrics.tsv", 3600)
    assert preflight.future_results("s") == []
    made(tmp_path / "results/s/tables/methods.tsv", 3600)
    made(tmp_path / "results/s/metrics.tsv", 3600)
    (found,) = preflight.future_results("s")
    assert found.startswith("results/s/metrics.tsv: is dated ")
    assert found.endswith("--forcerun ingest_section ingest_cells label_section")
