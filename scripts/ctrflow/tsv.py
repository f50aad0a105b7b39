"""Strict reading of the tab-separated sheets that people edit: every mistake is reported with its place and cure."""

import csv
import io
import re
from pathlib import Path

from ctrflow.errors import InputError, first_few

MOST = 50  # problems listed
MOST_UNKNOWN = 8  # unknown columns listed one by one: a counts table given as a sheet has one for each gene


def read_rows(
    path: Path, columns: tuple[str, ...], required: tuple[str, ...], problems: list[str]
) -> list[tuple[str, dict]]:
    """("file, row n", column -> text) of each row with a valid number of cells; errors are appended to `problems`.

    The first non-empty row is the header. Empty rows and lines that begin with # are skipped, but counted. A row may
    end after the last of the `required` columns; its missing cells are empty, as are `columns` missing in the header.
    """
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
    # strict: an unclosed quote would swallow the rows after it
    reader = csv.reader(io.StringIO(re.sub(r"(?m)^#.*$", "", text), newline=""), delimiter="\t", strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        problems.append(f"{path}, row {reader.line_num}: {error}; close or delete the double quote in this row")
        return []
    lines = [(number, [cell.strip() for cell in cells]) for number, cells in lines if any(map(str.strip, cells))]
    header_row, header = lines[0] if lines else (1, [])
    header_problems = _header_problems(header, columns, required)
    if header_problems:
        problems += [f"{path}, row {header_row}{problem}" for problem in header_problems]
        return []
    rows = []
    fewest = 1 + max(header.index(name) for name in required)
    for number, cells in lines[1:]:
        where = f"{path}, row {number}"
        if not fewest <= len(cells) <= len(header):
            problems.append(
                f"{where}: {len(cells)} cell{'s' if len(cells) > 1 else ''}, the header has {len(header)}; "
                "separate cells by exactly one tab (not spaces); only empty cells at the end can be left out"
            )
            continue
        # a row may be shorter than the header
        rows.append((where, dict.fromkeys(columns, "") | dict(zip(header, cells, strict=False))))
    return rows


def require_none(problems: list[str], what: str) -> None:
    """Raise one InputError that lists the `problems` of `what` (the first 50 of them), if there are any."""
    if problems:
        heading = f"{what} has {len(problems)} problem{'s' if len(problems) > 1 else ''}:"
        more = [f"and {len(problems) - MOST} more"] * (len(problems) > MOST)
        raise InputError("\n  ".join([heading, *problems[:MOST], *more]))


def _header_problems(header: list[str], columns: tuple[str, ...], required: tuple[str, ...]) -> list[str]:
    if not header:
        return [": no header; the first row names the columns"]
    if len(header) == 1:
        return [f": only one column, '{header[0][:40]}'; separate columns by tabs, not by commas or spaces"]
    problems = [
        f", column {name}: missing; add it ({', '.join(required)} are required)"
        for name in required
        if name not in header
    ]
    unknown = [name for name in dict.fromkeys(header) if name not in columns]
    if len(unknown) > MOST_UNKNOWN:
        return [
            *problems,
            f": {len(unknown)} unknown columns: {first_few([name[:40] for name in unknown])}; give a table with the "
            f"columns {', '.join(columns)}",
        ]
    problems += [f", column '{name}': unknown; correct or delete it (valid: {', '.join(columns)})" for name in unknown]
    problems += [
        f", column {name}: appears more than once; delete one" for name in sorted(set(header)) if header.count(name) > 1
    ]
    return problems
