"""Checks before a run: folders that cannot be written to, and files dated in the future, which never look outdated."""

import os
import shutil
import time
from pathlib import Path

from ctrflow import readers
from ctrflow.errors import InputError
from ctrflow.plan import sheet

LEAST_FREE_BYTES = 1_000_000  # for Snakemake's own records; jobs report a full disk themselves
# dates no longer tell what is outdated, and everything depends on these rules
REBUILD = """rebuild from ingestion:
    find config data results benchmarks -newermt now -exec touch {} +
then run the same command with --forcerun ingest_section ingest_cells label_section"""


def unwritable(folders) -> list[str]:
    """One message for each folder that cannot be written to; Snakemake itself would fail with a traceback."""
    problems = []
    for folder in map(Path, folders):
        existing = folder if folder.exists() else Path()
        if not os.access(existing, os.W_OK | os.X_OK):
            problems.append(
                f"{folder.absolute()}: cannot be written to; make it writable for you, or run in a copy of the workflow"
            )
        elif shutil.disk_usage(existing).free < LEAST_FREE_BYTES:
            problems.append(f"{folder.absolute()}: the disk is full; free some space, then run the same command again")
    return problems


def remove(*paths: str) -> None:
    """Remove files of an earlier run, so that none is taken for one of this run.

    Raises
    ------
    InputError
        if a file stays.
    """
    for path in paths:
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{path}: the file of an earlier run cannot be removed ({error.strerror}); remove it"
            ) from error


def future_sources(rows, *paths) -> list[str]:
    """One message for each source file dated in the future: what is made of it would always look outdated."""
    named = [
        path
        for line in rows.to_dict("records")
        if os.path.exists(line["path"])
        for path in [*sheet.vendor_files(line)[0], readers.given_image(line), line["labels"], line["alignment"]]
    ]
    return [
        f"{_message(path)}set the date of the file to now: touch {path}"
        for path in filter(_in_future, dict.fromkeys(filter(None, [*named, *paths])))
    ]


def future_results(study: str) -> list[str]:
    """A message if results of a study are dated in the future: they would never look outdated.

    Intermediate files are not checked: Snakemake reports them when a job has read them.
    """
    folder = Path("results", study)
    paths = [path for path in sorted([*folder.glob("*"), *folder.glob("*/*")]) if _in_future(path)]
    return [f"{_message(paths[0])}{REBUILD}"] if paths else []


def _in_future(path) -> bool:
    """Whether a file exists and is dated more than a minute, the clock differences of a cluster, in the future."""
    return os.path.isfile(path) and os.path.getmtime(path) > time.time() + 60


def _message(path) -> str:
    dated = time.ctime(Path(path).stat().st_mtime)
    return f"{path}: is dated {dated}, in the future; correct the clock. If the clock is correct now, "
