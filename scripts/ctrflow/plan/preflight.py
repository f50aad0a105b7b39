"""What would stop a run or make its results old for ever: folders that cannot be written to, files of a later time."""

import os
import shutil
import time
from pathlib import Path

from ctrflow import readers

LEAST_FREE_BYTES = 1_000_000  # for the engine's own records; a job tells itself when the disk fills up
# in whatever order files were made before: what is begun with these rules is all that a study has
ANEW = """where it is right, have all that was made before it was set back made anew:
    find config data results benchmarks -newermt now -exec touch {} +
and the same command with --forcerun ingest_section ingest_cells label_section"""


def unwritable(folders) -> list[str]:
    """One message for each folder that a run writes to and cannot: the engine tells its own trouble by a traceback."""
    problems = []
    for folder in map(Path, folders):
        there = folder if folder.exists() else Path()
        if not os.access(there, os.W_OK | os.X_OK):
            problems.append(
                f"{folder.absolute()}: cannot be written to; make it writable for you, or run in a copy of the workflow"
            )
        elif shutil.disk_usage(there).free < LEAST_FREE_BYTES:
            problems.append(f"{folder.absolute()}: the disk is full; free some space, then run the same command again")
    return problems


def sources_ahead(rows, *paths) -> list[str]:
    """One message for each own file of a later time than now: what is made of it would seem older than it for ever."""
    named = [
        path
        for line in rows.to_dict("records")
        if os.path.exists(line["path"])
        for path in [*readers.files(line), line["image"], line["labels"], line["alignment"]]
    ]
    return [
        f"{_dated(path)}give the file today's date: touch {path}"
        for path in filter(_ahead, dict.fromkeys(filter(None, [*named, *paths])))
    ]


def results_ahead(study: str) -> list[str]:
    """A message where results of a study are of a later time than now: they would never seem older than what changes.

    A file between stages needs no look: the engine tells of it when a job has read it.
    """
    folder = Path("results", study)
    found = [path for path in sorted([*folder.glob("*"), *folder.glob("*/*")]) if _ahead(path)]
    return [f"{_dated(found[0])}{ANEW}"] if found else []


def _ahead(path) -> bool:
    """Whether a file is there and of a later time than now; clocks of a cluster differ by less than a minute."""
    return os.path.isfile(path) and os.path.getmtime(path) > time.time() + 60


def _dated(path) -> str:
    return f"{path}: is dated {time.ctime(Path(path).stat().st_mtime)}, later than now; put the clock right, or "
