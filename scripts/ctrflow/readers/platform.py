"""What is known of a vendor's format without opening its files."""

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BIN_ID = r"s_(\d+)um_(\d+)_(\d+)-\d+"  # of Visium HD: width, row, column
ST_ID = r"\d+x\d+"  # of an ST spot: column x row
POOLS = ("hexagons", "discs")  # how cells are summed into spots, column pool of the sheet; empty = the first


@dataclass(frozen=True)
class Platform:
    """One format; its id in column platform is the name of its reader's file.

    holds : what is at a section's path, for messages
    marks : glob patterns; a folder with a match is of this format
    shared_marks : whether other formats have these marks too; such a format is tried last
    in_stores : whether it may be stored as a SpatialData store
    image : the vendor's reduced image, relative to a section's path; the reader then has `own_image(row)`
    spot_um : allowed values of column spot_um; () for any width
    spot_um_rule : why, and what to write, for messages
    alignment_rule : what an image needs in column alignment; "" if positions are in pixels of the image
    cells : whether it is read as cells, to be summed into spots
    """

    holds: str
    marks: tuple[str, ...] = ()
    shared_marks: bool = False
    in_stores: bool = False
    image: str = ""
    spot_um: tuple[float, ...] = ()
    spot_um_rule: str = ""
    alignment_rule: str = ""
    cells: bool = False


@cache
def platforms() -> dict[str, Platform]:
    """Every platform by its id: technologies first, then general file formats."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    found = [(name, load(name).PLATFORM) for name in names if hasattr(load(name), "PLATFORM")]
    return dict(sorted(found, key=lambda item: (not (item[1].in_stores or item[1].spot_um), item[0])))


def load(platform: str):
    """The module that reads a platform."""
    return importlib.import_module(f"{__package__}.{platform}")
