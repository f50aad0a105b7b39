"""The section sheet: a tab-separated file with one row per section."""

import os
import re
from collections.abc import Collection
from itertools import chain
from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.fetch import sources
from ctrflow.image.slide import PLAUSIBLE_UM_PER_PX
from ctrflow.plan.given_paths import file_problem, name_problem
from ctrflow.readers import NO_IMAGE, files, given_image, image_path, kind_of, libraries, platforms, why_missing
from ctrflow.readers.platform import POOLS, Platform
from ctrflow.scale.settle import positive
from ctrflow.sections.crop import CROP
from ctrflow.tsv import read_rows, require_none

REQUIRED = ("section", "platform", "path")
COLUMNS = (
    "section", "cohort", "patient", "tissue", "platform", "path", "image", "labels", "um_per_px", "spot_um", "normal",
    "note", "image_scale", "alignment", "pool", "library", "drawn",
)  # fmt: skip
IDS = ("section", "patient")
FILES = ("path", "image", "labels", "alignment", "drawn")
NUMBERS = ("um_per_px", "spot_um", "image_scale")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def read_sheet(paths: list[Path], more=(), wrong=()):
    """Read section sheets and check every row; the files that rows name are not opened (see `missing_files`).

    A row may end after the last required column; missing cells are empty. Lines beginning with # are comments. `more`
    are rows that are in no sheet, each (where it is from, column -> text) and given like `section=A1`; `wrong` is what
    is already known to be wrong with them, an unknown platform included, which is then None.

    Returns
    -------
    pandas.DataFrame
        one row per section in the order of the sheets, all columns of `COLUMNS` as text ("" where empty); an empty
        `patient` becomes the section's id.

    Raises
    ------
    InputError
        one message with every problem of every sheet: file, row (the header is row 1), column, cure.
    """
    import pandas as pd

    rows, problems, seen = [], [*wrong], {}
    of_sheets = chain.from_iterable(read_rows(Path(path), COLUMNS, REQUIRED, problems) for path in paths)
    for where, row in chain(of_sheets, more):
        try:
            row = libraries.of_row(row)
        except InputError as error:
            problems.append(f"{where}: {error}")
        row |= {name: os.path.expanduser(row[name]) for name in FILES}
        problems += [f"{where}, {problem}" for problem in _row_problems(row)]
        # on macOS, "a1" and "A1" are the same folder
        other, first = seen.setdefault(row["section"].casefold(), (row["section"], where))
        if row["section"] and first != where:
            alike = "" if other == row["section"] else f", as '{other}'"
            cure = "give section=<another name>" if (where, row) in more else "give each its own id"
            problems.append(f"{where}, column section: '{row['section']}' is already at {first}{alike}; {cure}")
        rows.append(row | {"patient": row["patient"] or row["section"]})
    if not rows and not problems:
        problems.append(f"{', '.join(map(str, paths)) or 'section sheet'}: no section; add a row")
    elsewhere = tuple(f"{where}, " for where, _ in more)
    only_there = all(problem.startswith(elsewhere) for problem in problems)
    require_none(problems, "the section" if only_there else "the section sheet")
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)


def pictured(rows) -> list[str]:
    """The sections that have an image, or may have one in the vendor's folder; the step reports it if there is none."""
    own = [name for name, platform in platforms().items() if platform.image]
    return list(rows.section[(rows.image != NO_IMAGE) & ((rows.image != "") | rows.platform.isin(own))])


def missing_files(rows, fetched: Collection[str] = ()) -> list[str]:
    """One message per file that the rows (a sheet or a list of dicts) name or that their reader needs, and that is
    missing or cannot be read; `fetched` are the files that will be downloaded."""
    rows = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    folders = {folder for name in fetched for folder in Path(name).parents}
    # `.` and `data` are above the public files and are no sections
    coming = {str(folder) for folder in folders if not Path(sources.FILES).is_relative_to(folder)} | set(fetched)
    return [
        f"section {row['section']}, column {problem}"
        for row in rows
        for problem in dict.fromkeys(_file_problems(row, coming))
    ]


def vendor_files(row: dict) -> tuple[list[str], str]:
    """The files that a reader opens for a row, and the image in the vendor's folder; and why they cannot be told."""
    try:
        found = files(row)
    except (InputError, OSError) as error:
        return [], str(error)
    try:
        own = image_path(row | {"image": ""}) if row.get("image") != NO_IMAGE else ""
    except InputError:
        own = ""  # the reader will report what is wrong with the folder
    return [*found, *([own] if own else [])], ""


def _file_problems(row: dict, coming: set[str]) -> list[str]:
    """Each with its column."""
    named = {name: row[name] for name in FILES if row.get(name)} | {"image": given_image(row)}
    named = {name: path for name, path in named.items() if path and path not in coming}
    problems = {name: file_problem(path, folder=name == "path") for name, path in named.items()}
    found = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    if row["path"] in coming or problems["path"]:
        return found
    inside, unknown = vendor_files(row)
    if unknown:
        return [*found, f"path: {unknown}"]
    if not all(map(os.path.lexists, inside)) and (why := why_missing(row)):
        return [*found, f"path: {why}"]
    others = [path for path in inside if path not in named.values()]
    found += [f"path: {problem}" for path in others if (problem := name_problem(path) or file_problem(path, True))]
    if row["path"] in inside and not _may_be_folder(row):
        found += [f"path: {problem}" for problem in [file_problem(row["path"])] if problem]
    return found


def _may_be_folder(row: dict) -> bool:
    """Whether a platform may read a folder as a whole, as it does SpatialData stores."""
    platform = platforms()[row["platform"]]
    return bool(platform.marks) or kind_of(row["path"]) in (row["platform"], "spatialdata")


def _row_problems(row: dict) -> list[str]:
    problems = [
        f"column {name}: '{row[name]}' cannot be an id or a file name; use letters, digits, '_', '.', '-', "
        "beginning with a letter or digit"
        for name in IDS
        if (row[name] or name == "section") and not ID.fullmatch(row[name])
    ]
    problems += [
        f"column {name}: '{row[name]}' ends with {CROP}, as the crops that the workflow makes do; choose another id"
        for name in IDS
        if row[name].casefold().endswith(CROP)
    ]
    platform = platforms().get(row["platform"])
    if platform is None and row["platform"] is not None:
        problems.append(f"column platform: '{row['platform']}' is unknown; use one of {', '.join(platforms())}")
    if not row["path"]:
        problems.append("column path: empty; give the counts file or the vendor's folder")
    problems += [
        f"column {name}: '{row[name]}' is not a positive number; write it with a decimal point or leave it empty"
        for name in NUMBERS
        if row[name] and positive(row[name]) is None
    ]
    low, high = PLAUSIBLE_UM_PER_PX
    um_per_px = positive(row["um_per_px"])
    if um_per_px and not low <= um_per_px <= high:
        problems.append(
            f"column um_per_px: {row['um_per_px']} µm per px, which no microscope's image has ({low:g} to {high:g}); "
            "give that of the full-resolution image"
        )
    if row["library"] and row["platform"] not in ("h5ad", None):
        problems.append(f"column library: '{row['library']}', but {row['path']} is no .h5ad of several; leave it empty")
    if platform and platform.spot_um and row["spot_um"] not in ("", *(f"{um:g}" for um in platform.spot_um)):
        problems.append(f"column spot_um: {platform.spot_um_rule}")
    problems += [f"column {name}: {problem}" for name in FILES if (problem := name_problem(row[name]))]
    if row["normal"] not in ("", "yes", "no"):
        problems.append(f"column normal: '{row['normal']}'; write yes, no or nothing")
    if row["alignment"] and not given_image(row):
        problems.append("column alignment: filled, but column image is empty; give the H&E image or clear it")
    if platform and platform.alignment_rule and given_image(row) and not row["alignment"]:
        problems.append(f"column alignment: empty; {platform.alignment_rule}")
    if platform and row["pool"]:
        problems += _pool_problems(row, platform)
    return problems


def _pool_problems(row: dict, platform: Platform) -> list[str]:
    if not platform.cells:
        return [f"column pool: '{row['pool']}', but {row['platform']} is read as spots, not as cells; leave it empty"]
    if row["pool"] not in POOLS:
        return [f"column pool: '{row['pool']}' is unknown; write {' or '.join(POOLS)}, or nothing for {POOLS[0]}"]
    return []
