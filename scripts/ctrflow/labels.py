"""The pathologist's or annotator's labels of a section, read apart from its data."""

import logging
import re
from pathlib import Path

import numpy as np

from ctrflow.aggregate import membership
from ctrflow.errors import InputError, first_few
from ctrflow.readers import open_text, read_table, require_file

logger = logging.getLogger("ctrflow")

ID_COLUMNS = ("spot", "spot_id", "barcode", "cell_id", "cell", "id")
UNNAMED_ID_COLUMNS = ("index", "", "unnamed:_0")
WORD_COLUMNS = (
    "region", "label", "annotation", "annotations", "pathologist_annotation", "pathologist_annotations", "ground_truth",
    "cell_type", "celltype", "classification", "cluster",
)  # fmt: skip
MISSING = {"", "na", "nan", "none", "null", "<na>"}
WORD_LABELS = {"1": 1.0, "0": 0.0, "unknown": np.nan}
ZERO_ONE = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}


def read_words(path: str | Path) -> dict[str, float]:
    """Read `label_words.tsv` (columns word, label; lines that begin with # are comments).

    Gives word -> 1 (cancer), 0 (other) or nan (unknown).

    Case, and space against "_" or "-", do not matter in a word.
    """
    words, rows = {}, {}
    require_file(path)
    with open_text(path) as handle:
        lines = [(number, line.rstrip("\r\n").split("\t")) for number, line in enumerate(handle, start=1)]
    lines = [(number, cells) for number, cells in lines if "".join(cells).strip() and not cells[0].startswith("#")]
    if not lines or lines[0][1] != ["word", "label"]:
        raise InputError(f"{path}: its first row must be the columns word and label, separated by a tab")
    for number, cells in lines[1:]:
        if len(cells) != 2 or cells[1].strip() not in WORD_LABELS:
            raise InputError(f"{path}: row {number}: write a word, a tab, and 1 (cancer), 0 (other) or unknown")
        word, label = _key(cells[0]), WORD_LABELS[cells[1].strip()]
        if word in words and not np.array_equal(words[word], label, equal_nan=True):
            raise InputError(f"{path}: row {number}: '{cells[0]}' has another label in row {rows[word]}; keep one")
        words[word], rows[word] = label, number
    return words


def read_labels(path: str | Path, spots, words: dict, cells=None, words_path: str | Path = "config/label_words.tsv"):
    """Labels of the spots, whatever table they come in.

    Told by content: a table with an id column (spot, barcode, cell_id ...) and a 0/1 column (`is_cancer`, or `label`
    when it holds 0 and 1) or a word column (label, region, cluster, cell_type ...) or both, when 0/1 decides and the
    word is the region; or the pathologist's table of HER2ST (x, y, label), whose rounded x, y give the spot "XxY".
    A table of *cells* of a Xenium section is summed up by spot: a spot takes the majority of its labelled cells, a
    tie is 0, no labelled cell is unknown; its region is the most frequent word (METHODS section 0).

    Parameters
    ----------
    path
        The table; "" where the section has none (every label is unknown then).
    spots
        AnnData; of a Xenium section also with `obsm["spatial_um"]`.
    words
        What `read_words` gives.
    cells
        AnnData of a Xenium section's cells, with `obsm["spatial_um"]`.
    words_path
        The file that `words` came from, for messages.

    Returns
    -------
    pandas.DataFrame
        spot, label (Int64: 1 cancer, 0 other, missing where unknown), region (text), in the order of `spots`.

    Raises
    ------
    InputError
        if the table cannot be understood, names no spot of the section, contradicts itself or uses unknown words.
    """
    if not path:
        return _frame(spots, np.full(spots.n_obs, np.nan), np.full(spots.n_obs, ""))
    table, has_truth = _entries(path)
    of_cells = cells is not None and table.index.isin(cells.obs_names).any()
    names = cells.obs_names if of_cells else spots.obs_names
    known = table[table.index.isin(names)]
    if known.empty:
        raise InputError(
            f"{path}: none of its ids is of section {spots.uns['section']['section']}: it has "
            f"{first_few(table.index, 3)}, the section {first_few(names, 3)}; check that both are of one section and "
            "written alike"
        )
    if not has_truth:
        known = known.assign(label=_labels_of_words(known["region"], words, path, words_path))
    aligned = known.reindex(names)
    label, region = aligned["label"].to_numpy(np.float64), aligned["region"].fillna("").to_numpy(str)
    if of_cells:
        label, region = _by_spot(label, region, cells, spots)
    logger.info(
        "%s: %d cancer, %d other, %d unknown", path, (label == 1).sum(), (label == 0).sum(), np.isnan(label).sum()
    )
    return _frame(spots, label, region)


def _entries(path):
    """Frame by id: label (1, 0, nan) and region; and whether a 0/1 column gave the label."""
    import pandas as pd

    table = read_table(path)
    if not isinstance(table.index, pd.RangeIndex):  # R leaves the header of the row names out
        table = table.reset_index(names="index")
    found = list(table.columns)
    table.columns = [re.sub(r"[ .\-]+", "_", str(name).strip().casefold()) for name in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    ids = _ids(table)
    truth, word = _columns(table)
    if ids is None or (truth is None and word is None):
        raise InputError(
            f"{path}: columns {first_few(found, 10)}; a label table needs an id (column spot, barcode or cell_id; "
            "or x and y) and a label (column is_cancer with 0 and 1, or label, region, cluster or cell_type with words)"
        )
    region = table[word].str.strip() if word else pd.Series("", index=table.index)
    region = region.where(~region.str.casefold().isin(MISSING), "")
    label = _zero_one(table, truth, path) if truth else pd.Series(np.nan, index=table.index)
    entries = pd.DataFrame({"id": ids, "label": label, "region": region})
    entries = entries[entries["id"] != ""].drop_duplicates()
    twice = entries["id"][entries["id"].duplicated()].unique()
    if len(twice):
        raise InputError(f"{path}: two different labels for {first_few(twice)}; keep one row each")
    return entries.set_index("id"), truth is not None


def _ids(table):
    """The id of each row, "" where it has none; None where the table has no id."""
    named = next((name for name in ID_COLUMNS if name in table), None)
    if named is not None:
        return table[named].str.strip()
    if {"x", "y", "label"} <= set(table.columns):
        return _ids_of_positions(table)
    unnamed = next((name for name in UNNAMED_ID_COLUMNS if name in table), None)
    return None if unnamed is None else table[unnamed].str.strip()


def _ids_of_positions(table):
    import pandas as pd

    x, y = (pd.to_numeric(table[name], errors="coerce").round() for name in ("x", "y"))
    placed = x.notna() & y.notna()
    if not placed.all():
        logger.info("%d annotated positions without x or y left out", (~placed).sum())
    ids = x.fillna(0).astype(int).astype(str) + "x" + y.fillna(0).astype(int).astype(str)
    return ids.where(placed, "")


def _columns(table) -> tuple[str | None, str | None]:
    """Names of the 0/1 column and of the word column."""
    truth = "is_cancer" if "is_cancer" in table else None
    if truth is None and "label" in table:
        values = set(table["label"].str.strip().str.casefold()) - MISSING
        truth = "label" if values and values <= set(ZERO_ONE) else None
    word = next((name for name in WORD_COLUMNS if name in table and name != truth), None)
    return truth, word


def _zero_one(table, column: str, path):
    text = table[column].str.strip().str.casefold()
    bad = np.flatnonzero(~text.isin([*ZERO_ONE, *MISSING]))
    if len(bad):
        raise InputError(
            f"{path}: row {bad[0] + 2}, column {column}: '{table[column].iat[bad[0]]}'; write 1 (cancer), 0 (other) or "
            "nothing (unknown)"
        )
    return text.map(ZERO_ONE).astype(float)


def _labels_of_words(region, words: dict, path, words_path) -> np.ndarray:
    words = {_key(word): label for word, label in words.items()} | {"": np.nan}
    label_of = {word: words.get(_key(word), words.get(_without_number(word))) for word in region.unique()}
    unknown = sorted(word for word, label in label_of.items() if label is None)
    if unknown:
        raise InputError(
            f"{path}: unknown words: {', '.join(unknown)}; add each to {words_path} with "
            "1 (cancer), 0 (other) or unknown"
        )
    return region.map(label_of).astype(float)


def _key(word: str) -> str:
    return re.sub(r"[\s_\-]+", " ", word).strip().casefold()


def _without_number(word: str) -> str:
    """ "DCIS_2" -> "dcis": clusters of one kind are numbered."""
    return re.sub(r" \d+$", "", _key(word))


def _by_spot(label: np.ndarray, region: np.ndarray, cells, spots) -> tuple[np.ndarray, np.ndarray]:
    """Majority label and most frequent word of each spot's cells."""
    from scipy import sparse

    belongs = membership(cells.obsm["spatial_um"], spots.obsm["spatial_um"], spots.uns["section"]["spot_um"])
    cancer, other = belongs @ (label == 1).astype(float), belongs @ (label == 0).astype(float)
    majority = np.where(cancer + other > 0, cancer > other, np.nan)

    vocabulary, word = np.unique(region, return_inverse=True)
    one_hot = sparse.csr_matrix((np.ones(len(word)), (np.arange(len(word)), word)), shape=(len(word), len(vocabulary)))
    frequency = (belongs @ one_hot).toarray()
    frequency[:, vocabulary == ""] = 0
    most = vocabulary[frequency.argmax(axis=1)]
    return majority, np.where(frequency.max(axis=1) > 0, most, "")


def _frame(spots, label: np.ndarray, region: np.ndarray):
    import pandas as pd

    return pd.DataFrame(
        {"spot": spots.obs_names.to_numpy(str), "label": pd.array(label, dtype="Int64"), "region": region.astype(str)}
    )
