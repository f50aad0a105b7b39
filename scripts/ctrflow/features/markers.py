"""Marker genes of a tissue, each with its source publication."""

from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features.scaling import section_scaled
from ctrflow.tsv import read_rows, require_none

COLUMNS = ("gene", "set", "source")
SETS = ("epithelial", "tumour")


def tissues(folder: str | Path) -> list[str]:
    """The tissues that have a marker list, in lower case."""
    return sorted(path.stem for path in Path(folder).glob("*.tsv"))


def path_of(tissue: str, folder: str | Path) -> Path:
    """The marker list of a tissue, named as in the section sheet; case is ignored.

    Raises
    ------
    InputError
        if there is none.
    """
    name = tissue.strip().casefold()
    path = Path(folder) / f"{name or 'TISSUE'}.tsv"
    if name in tissues(folder):
        return path
    problem = f"'{tissue}' has no marker list" if name else "empty, so there is no marker list"
    raise InputError(
        f"section sheet, column tissue: {problem} (available: {', '.join(tissues(folder)) or 'none'}); correct the "
        f"column, add the list {path} with the columns {', '.join(COLUMNS)}, or leave out the methods that need markers"
    )


def read_markers(path: str | Path, sets=SETS):
    """Read a marker list: tab-separated columns gene, set and source; lines with # are comments.

    `sets` are the valid sets; without any, every word is valid.

    Returns
    -------
    pandas.DataFrame
        gene, set, source, one row per gene

    Raises
    ------
    InputError
        listing all problems with file, row and cure.
    """
    import pandas as pd

    problems: list[str] = []
    rows, seen = [], {}
    for where, row in read_rows(Path(path), COLUMNS, COLUMNS, problems):
        problems += [f"{where}, column {name}: empty; fill it" for name in COLUMNS if not row[name]]
        if sets and row["set"] and row["set"] not in sets:
            problems.append(f"{where}, column set: '{row['set']}'; valid: {', '.join(sets)}")
        first = seen.setdefault(row["gene"], where)
        if row["gene"] and first != where:
            problems.append(f"{where}, column gene: {row['gene']} is already at {first}; keep one row")
        rows.append(row)
    if not rows and not problems:
        problems.append(f"{path}: no marker; add a row")
    require_none(problems, "the marker list")
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)


def mean_zscore(table, columns: np.ndarray) -> np.ndarray:
    """The mean over markers of their z-scores in a section, so that none outweighs the others: (spots,) float64.

    `table` is the expression of the section (spots x genes, sparse), `columns` those of its markers.
    """
    values = table[:, columns].toarray().astype(np.float64)
    return section_scaled(values, np.zeros(len(values)), "zscore").mean(axis=1)


def columns_of(view, section: str, sets: list[str]) -> np.ndarray:
    """The columns of a view with markers of `sets` that have counts in a section, in the order of the list.

    Raises
    ------
    InputError
        if there are none.
    """
    table = view.uns["markers"][section]
    wanted = table["gene"][table["set"].isin(sets)].to_numpy()
    columns = view.var_names.get_indexer(wanted)
    columns = columns[columns >= 0]
    rows = (view.obs["section"] == section).to_numpy()
    counted = columns[np.asarray(view.X[rows][:, columns].sum(axis=0)).ravel() > 0]
    if len(counted):
        return counted
    raise InputError(
        f"section {section}: no counts of any {' or '.join(sets)} marker in its tissue's list ({first_few(wanted)}); "
        f"its genes have names like {first_few(view.var_names, 3)}: add markers that it measures, with such names, to "
        "the marker list of its tissue (config/markers), or set other `sets` for the method"
    )
