"""Numbers and tables as the report prints them."""

import re

import numpy as np


def table(frame, numeric=frozenset()) -> dict:
    """A frame as text for the template: columns (name, numeric) and rows of cells."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    columns = []
    for name in frame.columns:
        column = frame[name]
        is_number = name in numeric or (is_numeric_dtype(column) and not is_bool_dtype(column))
        columns.append({"name": str(name).replace("_", " "), "numeric": is_number})
    rows = [[cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return {"columns": columns, "rows": rows}


def cell(value) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.0f}" if value == round(value) and abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(value)
    return str(value)


def percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f}\u00a0%"


def number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def whole(value: float) -> str:
    return "–" if value != value else f"{value:,.0f}"


def mean_sd(mean: float, sd: float) -> str:
    return number(mean) if sd != sd else f"{mean:.3f} ± {sd:.3f}"


def count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "x"
