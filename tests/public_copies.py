"""Copies of the public files of the study `example`, from beside the checkout; where they are not, tests skip."""

import shutil
from pathlib import Path

import pytest

from runs import SHARED

HER2ST = SHARED / "data" / "her2st"
FILES = ("ST-cnts/B4.tsv.gz", "ST-spotfiles/B4_selection.tsv", "ST-imgs/B4.jpg")

needed = pytest.mark.skipif(
    not all((HER2ST / name).is_file() for name in FILES),
    reason="the files of HER2ST section B4 are not here (../shared/data/her2st)",
)


def data_root(folder: Path) -> Path:
    """A new folder that can be given as `data_root`: the files under their names below data/public."""
    for name in FILES:
        (folder / "her2st" / name).parent.mkdir(parents=True)
        shutil.copyfile(HER2ST / name, folder / "her2st" / name)
    return folder
