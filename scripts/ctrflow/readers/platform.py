"""What the sheet, the plan and the checks ask of a vendor's format without opening its files."""

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Platform:
    """One format; its id in column platform is the name of its reader's file.

    holds : what lies at a section's path, for messages
    marks : glob patterns; a folder with a match is of this format
    shared_marks : whether folders of other formats have these marks too: it is then looked for last
    in_stores : whether a SpatialData store may hold it
    image : the reduced image that the vendor adds, below a section's path; the reader has `own_image(row)` then
    spot_um : what column spot_um may say; () for any width
    spot_um_rule : why, and what to write
    alignment_rule : what an image needs in column alignment; "" for formats that have their positions in its pixels
    cells : whether it is read as cells, which are then summed into spots
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
    """Every platform by its id: technologies first, then files that can hold any."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    found = [(name, load(name).PLATFORM) for name in names if hasattr(load(name), "PLATFORM")]
    return dict(sorted(found, key=lambda item: (not item[1].in_stores, item[0])))


def load(platform: str):
    """The module that reads a platform."""
    return importlib.import_module(f"{__package__}.{platform}")
