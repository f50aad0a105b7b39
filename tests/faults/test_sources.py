"""A replaced source file is noticed, even if its date does not show it, and the results are the new ones."""

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interruptions import differing, numbers
from runs import add_section, copy, good

COUNTS = "data/mini/ST-cnts/{}.tsv.gz"
IMAGE = "data/mini/ST-imgs/{}.jpg"
LABELS = "data/mini/ST-pat/lbl/{}_labeled_coordinates.tsv"
A_DAY_S = 86_400


def put_older(path: Path, content: bytes) -> None:
    """Other content with an earlier date, as after `cp -p` or `git checkout`."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, (before.st_atime, before.st_mtime - A_DAY_S))


def put_same_size_and_date(path: Path, content: bytes) -> None:
    """Other content of the same size and date."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchanged(path: Path) -> bytes:
    """A label table with cancer and other exchanged."""
    table = pd.read_csv(path, sep="\t", dtype=str)
    cancer = table["label"].str.contains("cancer").to_numpy()
    assert 0 < cancer.sum() < len(table)
    table["label"] = np.where(cancer, table["label"][~cancer].iloc[0], table["label"][cancer].iloc[0])
    return table.to_csv(sep="\t", index=False).encode()


def doubled(path: Path) -> bytes:
    """A counts table with every number twice as large."""
    table = pd.read_csv(path, sep="\t", index_col=0)
    return gzip.compress((2 * table).to_csv(sep="\t").encode())


def with_another_pixel(path: Path) -> bytes:
    """An image of the same size with one bit of its pixels changed."""
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    return bytes(content)


def auc(folder: Path) -> np.ndarray:
    metrics = pd.read_csv(folder / "results/short/metrics.tsv", sep="\t")
    return metrics[metrics.metric == "auc"].set_index("method")["value"].sort_index().to_numpy()


def planned(output: str) -> set[tuple[str, str]]:
    """Rule and section of the section jobs in a dry run."""
    blocks = re.findall(r"rule (\w+):\n((?: +\w+: .*\n)+)", output)
    matches = [(rule, re.search(r"wildcards: (?:.*, )?section=(\w+)", block)) for rule, block in blocks]
    return {(rule, section[1]) for rule, section in matches if section}


def test_other_sources_of_the_same_or_an_older_date_are_noticed(finished_copy, command, recovered):
    folder = finished_copy
    put_older(folder / COUNTS.format("P1"), doubled(folder / COUNTS.format("P1")))
    put_same_size_and_date(folder / IMAGE.format("P2"), with_another_pixel(folder / IMAGE.format("P2")))
    put_older(folder / LABELS.format("P3"), exchanged(folder / LABELS.format("P3")))
    output = good(folder, "-n", "results/sections/P3/labels.tsv", *command[1:])
    assert planned(output) == {("label_section", "P3")}
    output = good(folder, "-n", *command)
    assert {section for rule, section in planned(output) if rule == "ingest_section"} == {"P1", "P2"}
    recovered(3)


def test_older_labels_give_the_new_results(finished_copy, undisturbed, command, recovered):
    """With the target's classes exchanged, every AUC becomes 1 - AUC and no score changes; the check counts classes."""
    folder = finished_copy
    put_older(folder / LABELS.format("P1"), exchanged(folder / LABELS.format("P1")))
    good(folder, *command)
    assert auc(folder) == pytest.approx(1 - auc(undisturbed), abs=1e-12)
    changed = {Path(path).name for path in differing(numbers(folder), numbers(undisturbed))}
    assert changed == {"labels.tsv", "check.json", "metrics.tsv"}
    recovered()


@pytest.mark.slow
def test_older_sources_give_the_results_of_a_fresh_run(
    finished_copy, untouched, undisturbed, tmp_path, command, recovered
):
    """Two sections replaced, with all their files dated before the old results."""
    fresh = copy(untouched, tmp_path / "fresh")
    for folder in (finished_copy, fresh):
        for name in ("P1", "P3"):
            add_section(folder, name, seed=4)
            for path in folder.glob(f"data/mini/**/{name}*"):
                os.utime(path, (path.stat().st_atime, path.stat().st_mtime - A_DAY_S))
        good(folder, *command)
    assert len(differing(numbers(fresh), numbers(undisturbed))) > 10
    assert differing(numbers(finished_copy), numbers(fresh)) == []
    recovered(2)
