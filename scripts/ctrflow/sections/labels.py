"""The pathologist's or annotator's labels of a section, kept separate from its data."""

import logging
import re
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers.tables import SHIFTED, plain_name, read_table, read_text
from ctrflow.sections import drawings, extents, identity
from ctrflow.sections.aggregate import membership
from ctrflow.sections.drawings import IGNORED, MISSING, ZERO_ONE

logger = logging.getLogger("ctrflow")

ID_COLUMNS = ("spot", "spot_id", "barcode", "cell_id", "cell", "id")
UNNAMED_ID_COLUMNS = ("index", "", "unnamed:_0")
SELECTION = "selection"  # of Xenium Explorer
WORD_COLUMNS = (
    "region", "label", "annotation", "annotations", "pathologist_annotation", "pathologist_annotations", "ground_truth",
    "fine_annot_type", "annot_type", SELECTION, "cell_type", "celltype", "classification", "cluster",
    "group",  # of Xenium Explorer, beside its color
)  # fmt: skip
WORD_LABELS = {"1": 1.0, "0": 0.0, "unknown": np.nan}
WORDS_HEADERS = (["word", "label"], ["word", "label", "cohort"])
OUTSIDE = "outside"  # the word for spots in no polygon
MAX_POSITION = 2**31  # array positions, far more than any array has
MOST_WORDS = 50  # listed in a message; a column of numbers has one for each spot
_WKT = r"\s*(SRID=\d+;)?\s*(MULTI)?POLYGON"
SAME_SIZE = 1e-9  # relative difference in area between copies of one outline


def read_words(path: str | Path, cohort: str = "") -> dict[str, float]:
    """Read `label_words.tsv`: columns word, label and, optionally, cohort; lines that begin with # are comments,
    unless they are rows such as "#2", a tab and 0.

    Returns word -> 1 (cancer), 0 (other) or nan (unknown). A row with a cohort applies only to that cohort, where it
    overrides the row without one; rows of other cohorts are ignored.

    In a word, case is ignored, and "_" and "-" equal a space; in a cohort, case is ignored.

    Raises
    ------
    InputError
        if a row is invalid, or contradicts another of the same cohort.
    """
    lines = [(number, line.split("\t")) for number, line in enumerate(read_text(path).split("\n"), start=1)]
    lines = [(number, cells) for number, cells in lines if "".join(cells).strip()]
    header = next((n for n, (_, cells) in enumerate(lines) if not cells[0].startswith("#")), len(lines))
    lines = [(number, cells) for number, cells in lines[header:] if not _is_comment(cells)]
    if not lines or lines[0][1] not in WORDS_HEADERS:
        raise InputError(
            f"{path}: the first row must be the columns word and label (and optionally cohort), separated by a tab"
        )
    width = len(lines[0][1])
    labels, rows = {}, {}
    for number, cells in lines[1:]:
        if not 2 <= len(cells) <= width or cells[1].strip() not in WORD_LABELS:
            wanted = "write a word, a tab, and 1 (cancer), 0 (other) or unknown"
            raise InputError(f"{path}: row {number}: {wanted}{', then optionally a tab and a cohort' * (width == 3)}")
        own = cells[2].strip().casefold() if len(cells) == 3 else ""
        key, label = (own, _key(cells[0])), WORD_LABELS[cells[1].strip()]
        if key in labels and not np.array_equal(labels[key], label, equal_nan=True):
            raise InputError(f"{path}: row {number}: '{cells[0]}' has another label in row {rows[key]}; keep one")
        labels[key], rows[key] = label, number
    # rows of the cohort last, to override the others
    return {word: label for own in ("", cohort.casefold()) for (of, word), label in labels.items() if of == own}


def _is_comment(cells: list[str]) -> bool:
    """Whether a line after the header is a comment; words may begin with # too."""
    word = cells[0][1:]
    return cells[0].startswith("#") and not (word[:1].strip() and len(cells) > 1 and cells[1].strip() in WORD_LABELS)


def read_labels(path: str | Path, spots, words: dict, cells=None, words_path: str | Path = "config/label_words.tsv"):
    """Read the labels of the spots from a table or a drawing; the format is detected by content, gzipped or not.

    Tables have an id column (spot, barcode, cell_id ..., or unnamed) and a 0/1 column (`is_cancer`, or `label` with 0
    and 1) or a word column (label, region, cluster, cell_type ..., or the only other column, whatever its name) or
    both, in which case 0/1 is the label and the word the region; or they are the pathologist's table of HER2ST
    (x, y, label), whose rounded x, y give the spot "XxY". Of several columns of ids, the one that matches the section
    counts. Lines before the header that begin with # are comments; in one, Xenium Explorer names the selection that
    the cells are of, which is then their word, and not the cluster.
    A table of *cells* of a Xenium section is aggregated by spot: the majority of its labelled cells, 0 for a tie,
    unknown without labelled cells; the region is the most frequent word (METHODS section 0).
    Ids are held against those of the section, see `identity.of_section`.

    Drawings are polygons in px of the section's image, as GeoJSON: as QuPath exports annotations, or geopandas and
    shapely write areas; or outlines of selections in µm, as Xenium Explorer exports them, for sections with
    `obsm["spatial_um"]`. A spot gets the class of the polygon that contains its centre; of several, the smallest, that
    is, the island drawn inside a region; each part of a MultiPolygon counts separately. The class is the feature's
    classification, else another property such as `label` (words, or 0 and 1), else its name. Spots in no polygon have
    the label of the word `outside`, else unknown. Cells, detections and tiles are not annotations and are skipped;
    unclassified polygons too, with a warning. A drawing that was made on another picture is refused, see
    `extents.require_fit`.

    Parameters
    ----------
    path
        The file; "" where the section has none (every label is unknown then).
    spots
        AnnData by the section contract.
    words
        As returned by `read_words`.
    cells
        AnnData of a Xenium section's cells, with `obs["spot"]`.
    words_path
        The file that `words` came from, for messages.

    Returns
    -------
    pandas.DataFrame
        spot, label (Int64: 1 cancer, 0 other, missing where unknown), region (text), in the order of `spots`.

    Raises
    ------
    InputError
        if the file cannot be read, has no spot of the section, is plainly of another section or picture, contradicts
        itself or uses unknown words.
    """
    if not path:
        return _frame(spots, np.full(spots.n_obs, np.nan), np.full(spots.n_obs, ""))
    if drawings.is_json(path):
        drawing = drawings.read_geojson(path, _known(words))
        label, region = _of_drawing(path, drawing, spots, extents.PX, words, words_path)
    else:
        table, selections = _table(path)
        if _is_outline(table, selections):
            drawing = _outlines(table, selections, spots, path)
            label, region = _of_drawing(path, drawing, spots, extents.UM, words, words_path)
        else:
            label, region = _of_table(path, table, selections, spots, words, cells, words_path)
    logger.info(
        "%s: %d cancer, %d other, %d unknown", path, (label == 1).sum(), (label == 0).sum(), np.isnan(label).sum()
    )
    return _frame(spots, label, region)


# --- tables -----------------------------------------------------------------------------------------------------------


def _table(path) -> tuple:
    """A table with plain column names, and the selections that Xenium Explorer names in the comments before it."""
    import pandas as pd

    lines = read_text(path).splitlines(keepends=True)
    header = next((n for n, line in enumerate(lines) if line.strip().lstrip('"')[:1] not in ("", "#")), len(lines))
    if header and _names_ids(lines[header - 1]) and not _names_ids("".join(lines[header : header + 1])):
        header -= 1  # numpy.savetxt writes the header as a comment
        lines[header] = lines[header].lstrip("# ")
    table = read_table(path, "".join(lines[header:]))
    if table.index.nlevels > 1:
        raise InputError(
            f"{path}: rows have {table.index.nlevels} cells more than the header; name every column, and export the "
            "table again"
        )
    row_names = not isinstance(table.index, pd.RangeIndex)  # R writes no header for them
    if row_names:
        table = table.reset_index(names="index")
    table.attrs |= {"header": first_few(table.columns, 10), "first_row": header + 2, "row_names": row_names}
    table.columns = [plain_name(name) for name in table.columns]
    return table.loc[:, ~table.columns.duplicated()], _selections(lines[:header])


def _names_ids(line: str) -> bool:
    return any(plain_name(cell) in ID_COLUMNS for cell in re.split("[\t,;]", line.strip('# "\r\n')))


def _selections(comments: list[str]) -> list[str]:
    """The names of selections in comments of Xenium Explorer."""
    for line in comments:
        # a spreadsheet program adds quotes, and separators for the other columns
        named = re.match(r"#\s*selection name(s?)\s*:(.*)", line.strip(" \"',;\t\r\n"), re.IGNORECASE)
        if named:
            names = re.split("[,;]", named[2]) if named[1] else [named[2]]
            return [name.strip() for name in names if name.strip()]
    return []


def _is_outline(table, selections: list[str]) -> bool:
    named = set(table.columns)
    return {"x", "y"} <= named and bool(selections or SELECTION in named) and not named & {*ID_COLUMNS, "label"}


def _outlines(table, selections: list[str], spots, path) -> drawings.Drawing:
    """The outlines of Xenium Explorer, in µm on the slide."""
    section = spots.uns["section"]["section"]
    if "spatial_um" not in spots.obsm:
        raise InputError(
            f"{path}: outlines of selections of Xenium Explorer, in µm on a Xenium slide, but section {section} is not "
            "of the platform xenium; draw on the section's image in QuPath and give its GeoJSON (File, Export objects)"
        )
    if SELECTION not in table and len(selections) > 1:
        raise InputError(_nameless(path, selections))
    return drawings.of_selections(table, selections[0] if selections else "", path)


def _of_table(path, table, selections, spots, words: dict, cells, words_path) -> tuple[np.ndarray, np.ndarray]:
    """Label and region of each spot from a table by spot or by cell."""
    section = spots.uns["section"]["section"]
    names = spots.obs_names if cells is None else spots.obs_names.append(cells.obs_names)
    entries, has_truth, where = _entries(path, table, selections, names, words)
    if entries.empty:
        raise InputError(f"{path}: no row with a spot of section {section}; export it again")
    of_cells = cells is not None and _found(entries, cells) >= _found(entries, spots)
    names = cells.obs_names if of_cells else spots.obs_names
    try:
        known = entries[identity.of_section(path, entries.index, names, section)]
    except InputError:
        _require_own(path, table)
        raise
    if not has_truth:
        known = known.assign(label=_labels_of_words(known["region"], words, where, words_path))
    aligned = known.reindex(names)
    label, region = aligned["label"].to_numpy(np.float64), aligned["region"].fillna("").to_numpy(str)
    if of_cells:
        return _by_spot(label, region, cells, spots)
    return label, region


def _found(entries, section) -> int:
    return entries.index.isin(section.obs_names).sum()


def _entries(path, table, selections: list[str], names, words: dict) -> tuple:
    """Frame by id: label (1, 0, nan) and region; whether the label is from a 0/1 column; the place of the words."""
    import pandas as pd

    ids, of_ids = _ids(table, names)
    if 2 * len(table) < len(names) and list(ids if ids is not None else []) == [str(n) for n in range(len(table))]:
        _require_no_areas(path, table)  # numbers of rows, which may be ids of the section too
    if table.attrs["row_names"] and ids.name == "index" and _holds_words(table, of_ids, names):
        raise InputError(f"{path}: {SHIFTED}")
    truth, worded = _columns(table)
    own = table if ids is None else table[ids.isin(names)]
    word = drawings.telling({name: _texts(own[name]) for name in worded}, _known(words))
    if word and word != worded[0]:
        logger.info("%s: words are from column %s, not from %s", path, word, worded[0])
    if ids is not None and selections and truth is None:
        table, word = _with_selection(table, selections, path), SELECTION
    rest = [name for name in table if name not in of_ids and (table[name] != "").any()]
    where = path
    if ids is not None and truth is None and word is None and len(rest) == 1:
        word = rest[0]  # Loupe Browser names the column after the category
        where = f"{path}: column {word}"
    if ids is None or (truth is None and word is None):
        _require_own(path, table)
        raise InputError(
            f"{path}: columns {table.attrs['header']}; a label table needs an id (column spot, barcode or cell_id; or "
            "x and y) and a label (column is_cancer with 0 and 1; label, region, cluster or cell_type with words; or "
            "one column of words beside the ids)"
        )
    region = _texts(table[word]) if word else pd.Series("", index=table.index)
    label = _zero_one(table, truth, path) if truth else pd.Series(np.nan, index=table.index)
    entries = pd.DataFrame({"id": ids, "label": label, "region": region})
    entries = entries[entries["id"] != ""].drop_duplicates()
    twice = entries["id"][entries["id"].duplicated()].unique()
    if len(twice):
        raise InputError(
            f"{path}: two different labels for {first_few(twice)}; keep one row each; if the table is "
            "of several sections, keep the rows of this one"
        )
    return entries.set_index("id"), truth is not None, where


def _texts(column):
    """The words of a column, "" where one is missing."""
    words = column.str.strip()
    return words.where(~words.str.casefold().isin(MISSING), "")


def _with_selection(table, selections: list[str], path):
    """A table of cells with a column for the selection that each is in."""
    if SELECTION in table:
        return table
    cluster = table["cluster"].str.strip() if "cluster" in table else None
    if len(selections) == 1:
        if cluster is not None and set(cluster) != {selections[0]}:
            logger.info("%s: labels are from the selection '%s', not from column Cluster", path, selections[0])
        return table.assign(**{SELECTION: selections[0]})
    if cluster is None or not set(cluster) <= set(selections):
        raise InputError(_nameless(path, selections))
    return table.assign(**{SELECTION: cluster})


def _nameless(path, selections: list[str]) -> str:
    return (
        f"{path}: selections {first_few(selections)} of Xenium Explorer, but no column Selection says which rows are "
        "of which; export them together, or add that column"
    )


def _require_own(path, table) -> None:
    """Refuse by name the tables of other programs that have neither ids nor outlines to use."""
    names = set(table.columns)
    if {"shape_type", "vertex_index"} <= names:
        raise InputError(
            f"{path}: corners of napari's shapes, without classes; write each as a GeoJSON Polygon of (x, y), which "
            "are axis-1 and axis-0, with its class in properties.classification, or draw in QuPath and choose File, "
            "Export objects as GeoJSON"
        )
    _require_no_areas(path, table)
    if any(name.startswith("centroid_x") for name in names) and names & {"class", "classification", "roi", "object_id"}:
        raise InputError(
            f"{path}: measurements of QuPath, which have no outlines and no ids of spots; in QuPath choose File, "
            "Export objects as GeoJSON, and give that file"
        )


def _require_no_areas(path, table) -> None:
    """Refuse tables of geopandas with outlines as text."""
    wkt = [name for name in table if name in ("geometry", "wkt") and table[name].str.match(_WKT, case=False).any()]
    if wkt:
        raise InputError(f"{path}: areas as text in column {wkt[0]}; {drawings.AS_GEOJSON}")


def _ids(table, names) -> tuple:
    """The id of each row, "" if it has none, and the columns of ids; None if the table has no ids.

    Of several columns the one that matches the section: ids of cells stand beside numbers of rows.
    """
    columns = [name for name in (*ID_COLUMNS, *UNNAMED_ID_COLUMNS) if name in table]
    candidates = [table[name].str.strip() for name in columns]
    if {"x", "y", "label"} <= set(table.columns):
        candidates.append(_ids_of_positions(table))
    if not candidates:
        return None, columns

    def matches(ids) -> tuple:
        found, words = ids.isin(names), not ids.str.fullmatch(r"\d*").all()
        numbered = ids.name in ("id", *UNNAMED_ID_COLUMNS) and not words
        # of cells with numbers for ids, numbers of rows match too; in a message these say nothing
        return found.any() and not numbered, found.sum(), words

    return max(candidates, key=matches), columns


def _holds_words(table, of_ids, names) -> bool:
    """Whether a column that is named as one of ids holds others: words, and no numbers of cells either."""
    named = [table[name].str.strip() for name in of_ids if name in ID_COLUMNS]
    numbered = [ids.is_unique and ids.str.fullmatch(r"\d+").all() for ids in named]
    return any(not number and not ids.isin(names).any() for ids, number in zip(named, numbered, strict=True))


def _ids_of_positions(table):
    import pandas as pd

    x, y = (pd.to_numeric(table[name], errors="coerce").round() for name in ("x", "y"))
    placed = (x.abs() <= MAX_POSITION) & (y.abs() <= MAX_POSITION)  # neither missing nor infinite
    if not placed.all():
        logger.info("%d annotated positions without x or y are left out", (~placed).sum())
    ids = x.where(placed, 0).astype(int).astype(str) + "x" + y.where(placed, 0).astype(int).astype(str)
    return ids.where(placed, "")


def _columns(table) -> tuple[str | None, list[str]]:
    """Names of the 0/1 column and of the word columns, the likeliest first."""
    truth = "is_cancer" if "is_cancer" in table else None
    if truth is None and "label" in table:
        values = set(table["label"].str.strip().str.casefold()) - MISSING
        truth = "label" if values and values <= set(ZERO_ONE) else None
    # some tables of Valdeolivas et al. (Zenodo 7760264) name the column after the pathologist
    named = [*WORD_COLUMNS, *(name for name in table if name.startswith("pathologist"))]
    return truth, [name for name in dict.fromkeys(named) if name in table and name != truth]


def _zero_one(table, column: str, path):
    text = table[column].str.strip().str.casefold()
    bad = np.flatnonzero(~text.isin([*ZERO_ONE, *MISSING]))
    if len(bad):
        raise InputError(
            f"{path}: row {bad[0] + table.attrs['first_row']}, column {column}: '{table[column].iat[bad[0]]}'; write 1 "
            "(cancer), 0 (other) or nothing (unknown)"
        )
    return text.map(ZERO_ONE).astype(float)


def _labels_of_words(region, words: dict, where, words_path) -> np.ndarray:
    label_of = meanings(region.unique(), words | {"": np.nan})
    unknown = sorted(word for word, label in label_of.items() if label is None)
    if unknown:
        raise InputError(
            f"{where}: unknown words: {first_few(unknown, MOST_WORDS)}; add each to {words_path} with "
            "1 (cancer), 0 (other) or unknown"
        )
    return region.map(label_of).astype(float)


# --- drawings ---------------------------------------------------------------------------------------------------------


def _of_drawing(path, drawing: drawings.Drawing, spots, unit: str, words: dict, words_path) -> tuple:
    """Label and class of the smallest polygon around each spot."""
    import pandas as pd
    import shapely

    section = spots.uns["section"]
    if unit == extents.UM:
        centres = np.asarray(spots.obsm["spatial_um"], np.float64)
    else:
        centres = np.asarray(spots.obsm["spatial"], np.float64) * float(section.get("image_scale") or 1.0)
    polygons, classes = drawing.polygons, np.array(drawing.classes)
    tree = shapely.STRtree(shapely.points(centres))
    held = [tree.query(polygon, predicate="contains") for polygon in polygons]
    used = np.array([len(inside) > 0 for inside in held])
    extents.require_fit(path, drawing, used, centres, section, unit)
    if not used.all():
        logger.info("%s: %d of %d polygons contain no spot", path, (~used).sum(), len(used))
    # unknown words are allowed in polygons without a spot
    label_of = np.full(len(polygons), np.nan)
    if drawing.zero_one:
        label_of[used] = pd.Series(classes[used]).str.casefold().map(ZERO_ONE)
    else:
        label_of[used] = _labels_of_words(pd.Series(classes[used]), words, path, words_path)
    owner = _owners(held, shapely.area(polygons), label_of, spots.n_obs, path, classes, drawing.numbers)
    classes = np.full(len(polygons), "") if drawing.zero_one else classes
    outside = {_key(word): label for word, label in words.items()}.get(OUTSIDE)
    label = np.where(owner >= 0, label_of[owner], np.nan if outside is None else outside)
    region = np.where(owner >= 0, classes[owner], "" if outside is None else OUTSIDE)
    logger.info("%s: %d polygons contain %d of %d spots", path, used.sum(), (owner >= 0).sum(), spots.n_obs)
    return label, region


def _owners(held: list, area_px2, label_of, n_spots: int, path, classes, numbers) -> np.ndarray:
    """The smallest polygon around each spot, -1 for none.

    Larger polygons are painted first and smaller ones over them. `held`: the spots in each polygon.
    """
    owner, rival = np.full(n_spots, -1), np.full(n_spots, -1)
    for number in np.argsort(-area_px2, kind="stable"):
        inside = held[number]
        under = owner[inside]
        same_size = (under >= 0) & (area_px2[under] <= area_px2[number] * (1 + SAME_SIZE))
        same_label = (label_of[under] == label_of[number]) | (np.isnan(label_of[under]) & np.isnan(label_of[number]))
        rival[inside] = np.where(same_size, np.where(same_label, rival[inside], under), -1)
        owner[inside] = number
    contested = np.flatnonzero(rival >= 0)
    if len(contested):
        one, other = sorted((rival[contested[0]], owner[contested[0]]), key=lambda number: numbers[number])
        raise InputError(
            f"{path}: annotations {numbers[one]} ('{classes[one]}') and {numbers[other]} ('{classes[other]}') have the "
            f"same size and contradict each other on the same spots ({len(contested)} in all); delete one of them"
        )
    return owner


# --- words and spots --------------------------------------------------------------------------------------------------


def meanings(labels, words: dict) -> dict:
    """Look up labels in a table (word -> meaning), ignoring spelling variants, a final number and QuPath's final star;
    None if unknown. QuPath's Ignore* is unknown tissue, unless the table has another meaning for it."""
    words = {IGNORED: np.nan} | {_key(word): meaning for word, meaning in words.items()}
    return {label: words.get(_key(label), words.get(_stem(label))) for label in labels}


def _known(words: dict):
    """Whether one of several words is in the table."""
    return lambda found: any(meaning is not None for meaning in meanings(found, words).values())


def _key(word: str) -> str:
    return re.sub(r"[\s_\-]+", " ", word).strip().casefold()


def _stem(word: str) -> str:
    """ "DCIS_2" -> "dcis": clusters of one kind are numbered; "Tumor*" -> "tumor": QuPath does not measure there."""
    return re.sub(r"( \d+| ?\*)+$", "", _key(word))


def _by_spot(label: np.ndarray, region: np.ndarray, cells, spots) -> tuple[np.ndarray, np.ndarray]:
    """Majority label and most frequent word of each spot's cells."""
    from scipy import sparse

    belongs = membership(cells, spots)
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
