"""The section sheet: a tab-separated file, one row a section."""

import csv
import io
import math
import re
from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.readers import PLATFORMS, files

REQUIRED = ("section", "platform", "path")
COLUMNS = (
    "section", "cohort", "patient", "tissue", "platform", "path", "image", "labels", "um_per_px", "spot_um", "normal",
    "note", "image_scale", "alignment",
)  # fmt: skip
IDS = ("section", "patient")
NUMBERS = ("um_per_px", "spot_um", "image_scale")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def read_sheet(paths: list[Path]):
    """Read section sheets and check every row; the files that rows name are not touched (see `missing_files`).

    A row may end after the last of the required columns; the cells it leaves out at the end are empty.

    Returns
    -------
    pandas.DataFrame
        one row a section in the order of the sheets, all columns of `COLUMNS` as text ("" where empty); an empty
        `patient` becomes the section's id.

    Raises
    ------
    InputError
        one message with every problem of every sheet: file, row (the header is row 1), column, cure.
    """
    import pandas as pd

    rows, problems, seen = [], [], {}
    for path in paths:
        for where, row in _rows(Path(path), problems):
            problems += [f"{where}, {problem}" for problem in _row_problems(row)]
            first = seen.setdefault(row["section"], where)
            if row["section"] and first != where:
                problems.append(
                    f"{where}, column section: '{row['section']}' is already at {first}; give each its own id"
                )
            rows.append(row | {"patient": row["patient"] or row["section"]})
    if not rows and not problems:
        problems.append(f"{', '.join(map(str, paths)) or 'section sheet'}: no section; add a row")
    if problems:
        heading = f"the section sheet has {len(problems)} problem{'s' if len(problems) > 1 else ''}:"
        raise InputError("\n  ".join([heading, *problems]))
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)


def missing_files(rows) -> list[str]:
    """One message for each file that the rows (a sheet or a list of dicts) name, or that lies behind a `path`, and that
    does not exist."""
    rows = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    return [
        f"section {row['section']}, column {column}: {path} does not exist; correct the path or fetch the file"
        for row in rows
        for column, path in _named_files(row)
        if not Path(path).exists()
    ]


def _named_files(row: dict) -> list[tuple[str, str]]:
    """(column, path)."""
    named = [(column, row[column]) for column in ("path", "image", "labels", "alignment") if row.get(column)]
    if not Path(row["path"]).exists():
        return named
    return named + [("path", path) for path in files(row) if path not in row.values()]


def _rows(path: Path, problems: list[str]) -> list[tuple[str, dict]]:
    """("file, row n", row) of the rows that have cells enough, and not too many; what is wrong goes to `problems`."""
    if not path.is_file():
        problems.append(f"{path}: no such file; correct the sheet's path in the configuration")
        return []
    try:
        # utf-8-sig: spreadsheets put a byte-order mark first
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8, tab-separated"
        )
        return []
    # strict: a quote that is never closed would swallow the rows after it
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        problems.append(f"{path}, row {reader.line_num}: {error}; close or delete the double quote in this row")
        return []
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    header_problems = _header_problems(header)
    if header_problems:
        problems += [f"{path}, row 1{problem}" for problem in header_problems]
        return []
    found = []
    fewest = 1 + max(header.index(name) for name in REQUIRED)
    for number, cells in lines[1:]:
        where = f"{path}, row {number}"
        if not any(cell.strip() for cell in cells):
            continue
        if not fewest <= len(cells) <= len(header):
            problems.append(
                f"{where}: {len(cells)} cell{'s' if len(cells) > 1 else ''}, the header has {len(header)}; "
                "separate cells by one tab each (not spaces); only empty cells at the end can be left out"
            )
            continue
        # zip ends with the shorter row
        row = dict.fromkeys(COLUMNS, "") | dict(zip(header, (cell.strip() for cell in cells), strict=False))
        found.append((where, row))
    return found


def _header_problems(header: list[str]) -> list[str]:
    if not any(header):
        return [": no header; the first row names the columns"]
    if len(header) == 1:
        return [f": one column, '{header[0][:40]}'; separate columns by tabs, not by commas or spaces"]
    problems = [
        f", column {name}: missing; add it ({', '.join(REQUIRED)} are required)"
        for name in REQUIRED
        if name not in header
    ]
    problems += [
        f", column '{name}': unknown; correct or delete it (valid: {', '.join(COLUMNS)})"
        for name in header
        if name not in COLUMNS
    ]
    problems += [f", column {name}: twice; delete one" for name in sorted(set(header)) if header.count(name) > 1]
    return problems


def _row_problems(row: dict) -> list[str]:
    problems = [
        f"column {name}: '{row[name]}' cannot be an id or a file name; use letters, digits, '_', '.', '-', "
        "beginning with a letter or digit"
        for name in IDS
        if (row[name] or name == "section") and not ID.fullmatch(row[name])
    ]
    if row["platform"] not in PLATFORMS:
        problems.append(f"column platform: '{row['platform']}' is unknown; use one of {', '.join(PLATFORMS)}")
    if not row["path"]:
        problems.append("column path: empty; give the counts file or the vendor's folder")
    problems += [
        f"column {name}: '{row[name]}' is not a positive number; write it with a decimal point or leave it empty"
        for name in NUMBERS
        if row[name] and not _is_positive(row[name])
    ]
    if row["platform"] == "xenium" and row["spot_um"] not in ("", "55"):
        problems.append("column spot_um: cells of a Xenium section are summed into 55 µm spots; leave it empty")
    if row["normal"] not in ("", "yes", "no"):
        problems.append(f"column normal: '{row['normal']}'; write yes, no or nothing")
    if row["alignment"] and not row["image"]:
        problems.append("column alignment: filled, but column image is empty; give the H&E image or clear it")
    if row["platform"] == "xenium" and row["image"] and not row["alignment"]:
        problems.append("column alignment: empty; a Xenium section with an image needs its 3 x 3 alignment CSV")
    return problems


def _is_positive(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and value > 0
