"""Small vendor tables: delimited text and parquet, distinguished by content."""

import re
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few

GZIP, PARQUET, HDF5 = b"\x1f\x8b", b"PAR1", b"\x89HDF\r\n\x1a\n"
# formats that spreadsheets write instead of plain text
NO_TEXT = {b"PK\x03\x04": "an Excel workbook or another zip archive", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

SHIFTED = (
    "rows have a cell more than the header; put words with a comma in quotes, or separate by tabs, and name every "
    "column"
)


def starts_with(path: str | Path, signature: bytes) -> bool:
    """Whether a file begins with `signature`: content is reliable where suffixes are not."""
    with open(path, "rb") as handle:
        return handle.read(len(signature)) == signature


def known_start(path: str | Path, kinds: dict[bytes, str]) -> str:
    """What a file is, by how it begins; "" if it begins as none of `kinds` does."""
    return next((kind for signature, kind in kinds.items() if starts_with(path, signature)), "")


def plain_name(name) -> str:
    """The name of a column without case, and with _ for what people write in its place."""
    return re.sub(r"[ .\-]+", "_", str(name).strip().casefold())


def open_text(path: str | Path):
    """Open a text file, gzipped or not, as detected from its content (suffixes of downloads are unreliable)."""
    import gzip

    gzipped = starts_with(path, GZIP)
    return gzip.open(path, "rt", encoding="utf-8-sig") if gzipped else open(path, encoding="utf-8-sig")


def read_text(path: str | Path) -> str:
    """The content of a small text file, gzipped or not."""
    import zlib

    require_file(path)
    if kind := known_start(path, NO_TEXT):
        raise InputError(f"{path}: cannot be read as text ({kind}); export it as UTF-8 text, separated by tabs")
    try:
        with open_text(path) as handle:
            return handle.read()
    except UnicodeDecodeError as error:
        cure = "save it as UTF-8 text (in Excel: CSV UTF-8), or export it again"
        raise InputError(f"{path}: cannot be read as text (not UTF-8: {error}); {cure}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); export or download it again") from error


def read_table(path: str | Path, text: str | None = None, **kwargs):
    """Read a small delimited table, or its `text`, every cell as text; the first line tells the separator.

    Raises
    ------
    InputError
        if the file is missing, empty, cut short, not text, or a row has too many cells.
    """
    import csv
    import io

    import pandas as pd

    text = read_text(path) if text is None else text
    first, last = text.partition("\n")[0], text.rstrip("\r\n").rpartition("\n")[2]
    # "1,5;2,5": the commas are decimal
    header = re.sub(r"(?<=\d),(?=\d)", "", first) if ";" in first else first
    separator = max("\t,;", key=header.count)
    if '"' not in last and last.count(separator) < first.count(separator):
        raise InputError(
            f"{path}: the last row has too few cells, so the file was cut short; export or download it again"
        )
    try:
        table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, **kwargs)
        # a comma in the first row's word makes row names of its first cell, and of those of all other rows
        rows = csv.reader(io.StringIO(text), delimiter=separator)
        widths = (
            [] if isinstance(table.index, pd.RangeIndex) else [len(row) for row in rows if any(map(str.strip, row))]
        )
        shifted = any(width <= len(table.columns) for width in widths[1:])
    except (ValueError, csv.Error) as error:
        cure = "put words with a comma in quotes, or " * ("saw" in str(error)) + "export or download it again"
        raise InputError(f"{path}: cannot be read as a table ({error}); {cure}") from error
    if shifted:
        raise InputError(f"{path}: {SHIFTED}")
    return table.fillna("")


def read_parquet(path: str | Path, columns: list[str], in_tissue: bool = False):
    """The named columns of a parquet file, with their types; `in_tissue`: only rows where that column is 1.

    Raises
    ------
    InputError
        if the file is incomplete or lacks a column.
    """
    import pyarrow as pa
    from pyarrow import compute, parquet

    try:
        require_columns(parquet.read_schema(path).names, columns, path)
        table = parquet.ParquetFile(path).read(columns=columns, use_threads=False)
        if in_tissue:
            table = table.filter(compute.equal(table["in_tissue"].cast(pa.int64()), 1))
        return table.to_pandas(ignore_metadata=True)
    except InputError:
        raise
    except (OSError, ValueError, NotImplementedError, MemoryError) as error:
        raise InputError(f"{path}: not a complete parquet file ({error}); download it again") from error


def as_ids(column):
    """A column of ids as text: by version, vendors write text, bytes or integers."""
    return column.map(lambda value: value.decode() if isinstance(value, bytes) else str(value).strip())


def require_file(path: str | Path) -> None:
    """Refuse a path that is not a file."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check columns path, labels and alignment of the section sheet")


def require_columns(table, columns: list[str], path: str | Path) -> None:
    """Refuse a table (or a list of column names) that lacks one of `columns`."""
    names = list(getattr(table, "columns", table))
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; it has {first_few(names, 10)}; give the vendor's original file"
        )


def numeric(table, columns: list[str], path: str | Path, first_row: int = 2) -> np.ndarray:
    """Columns of a table as float64 (rows x columns); `first_row` is the file's row of the first entry."""
    import pandas as pd

    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{path}: row {row + first_row}, column {columns[column]}: '{table[columns].iat[row, column]}' is not a "
            f"number ({len(bad)} such cells); fill it in or delete the row"
        )
    return values
