"""The pathologist's or annotator's labels of a section, kept separate from its data."""

import json
import logging
import re
import zlib
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers import open_text, read_table, require_file
from ctrflow.readers.tables import read_text
from ctrflow.sections.aggregate import membership

logger = logging.getLogger("ctrflow")

ID_COLUMNS = ("spot", "spot_id", "barcode", "cell_id", "cell", "id")
UNNAMED_ID_COLUMNS = ("index", "", "unnamed:_0")
WORD_COLUMNS = (
    "region", "label", "annotation", "annotations", "pathologist_annotation", "pathologist_annotations", "ground_truth",
    "fine_annot_type", "annot_type", "cell_type", "celltype", "classification", "cluster",
)  # fmt: skip
MISSING = {"", "na", "nan", "none", "null", "<na>"}
WORD_LABELS = {"1": 1.0, "0": 0.0, "unknown": np.nan}
WORDS_HEADERS = (["word", "label"], ["word", "label", "cohort"])
OUTSIDE = "outside"  # the word for spots in no polygon
# QuPath objects that are not annotations, by `objectType` and by the ids of version 0.2
NOT_DRAWN = (
    "tile", "detection", "cell", "tma_core", "root",
    "PathTileObject", "PathDetectionObject", "PathCellObject", "TMACoreObject", "PathRootObject",
)  # fmt: skip
MAX_UNMATCHED = 0.05  # share of ids, of table and section, that may lack a match without a warning
MAX_POSITION = 2**31  # array positions, far more than any array has
MOST_WORDS = 50  # listed in a message; a column of numbers has one for each spot
SAME_SIZE = 1e-9  # relative difference in area between copies of one outline
ZERO_ONE = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}


def read_words(path: str | Path, cohort: str = "") -> dict[str, float]:
    """Read `label_words.tsv`: columns word, label and, optionally, cohort; lines that begin with # are comments.

    Returns word -> 1 (cancer), 0 (other) or nan (unknown). A row with a cohort applies only to that cohort, where it
    overrides the row without one; rows of other cohorts are ignored.

    In a word, case is ignored, and "_" and "-" equal a space; in a cohort, case is ignored.

    Raises
    ------
    InputError
        if a row is invalid, or contradicts another of the same cohort.
    """
    lines = [(number, line.split("\t")) for number, line in enumerate(read_text(path).split("\n"), start=1)]
    lines = [(number, cells) for number, cells in lines if "".join(cells).strip() and not cells[0].startswith("#")]
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


def read_labels(path: str | Path, spots, words: dict, cells=None, words_path: str | Path = "config/label_words.tsv"):
    """Read the labels of the spots from a table or a drawing; the format is detected by content, gzipped or not.

    Tables have an id column (spot, barcode, cell_id ...) and a 0/1 column (`is_cancer`, or `label` with 0 and 1) or a
    word column (label, region, cluster, cell_type ...) or both, in which case 0/1 is the label and the word the region;
    or they are the pathologist's table of HER2ST (x, y, label), whose rounded x, y give the spot "XxY".
    A table of *cells* of a Xenium section is aggregated by spot: the majority of its labelled cells, 0 for a tie,
    unknown without labelled cells; the region is the most frequent word (METHODS section 0).

    Drawings are polygons in px of the section's image: GeoJSON as QuPath exports annotations (a FeatureCollection, a
    list of features or one feature). A spot gets the class of the polygon that contains its centre; of several, the
    smallest, that is, the island drawn inside a region; each part of a MultiPolygon counts separately. The class is
    the feature's classification, else its name. Spots in no polygon have the label of the word `outside`, else unknown.
    Cells, detections and tiles are not annotations and are skipped; unclassified polygons too, with a warning.

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
        if the file cannot be read, has no spot of the section, contradicts itself or uses unknown words.
    """
    if not path:
        return _frame(spots, np.full(spots.n_obs, np.nan), np.full(spots.n_obs, ""))
    read = _of_polygons if _is_json(path) else _of_table
    label, region = read(path, spots, words, cells, words_path)
    logger.info(
        "%s: %d cancer, %d other, %d unknown", path, (label == 1).sum(), (label == 0).sum(), np.isnan(label).sum()
    )
    return _frame(spots, label, region)


# --- tables -----------------------------------------------------------------------------------------------------------


def _of_table(path, spots, words: dict, cells, words_path) -> tuple[np.ndarray, np.ndarray]:
    """Label and region of each spot from a table by spot or by cell."""
    table, has_truth = _entries(path)
    if table.empty:
        raise InputError(f"{path}: no row with a spot of section {spots.uns['section']['section']}; export it again")
    of_cells = cells is not None and table.index.isin(cells.obs_names).any()
    names = cells.obs_names if of_cells else spots.obs_names
    known = table[table.index.isin(names)]
    if known.empty:
        raise InputError(
            f"{path}: no id matches section {spots.uns['section']['section']}: it has {first_few(table.index, 3)}, the "
            f"section {first_few(names, 3)}; check that both belong to the same section and write ids in the same form"
        )
    _warn_if_unmatched(path, table.index, names, spots.uns["section"]["section"])
    if not has_truth:
        known = known.assign(label=_labels_of_words(known["region"], words, path, words_path))
    aligned = known.reindex(names)
    label, region = aligned["label"].to_numpy(np.float64), aligned["region"].fillna("").to_numpy(str)
    if of_cells:
        return _by_spot(label, region, cells, spots)
    return label, region


def _warn_if_unmatched(path, ids, names, section: str) -> None:
    """Warn if ids and section differ both ways: Visium's barcodes are the same on every slide, so some always match."""
    unknown, unlabelled = int((~ids.isin(names)).sum()), int((~names.isin(ids)).sum())
    if unknown > MAX_UNMATCHED * len(ids) and unlabelled > MAX_UNMATCHED * len(names):
        logger.warning(
            "%s: %d of its %d ids are not in section %s, and %d of the section's %d are not in the table; "
            "check that the table belongs to this section",
            path, unknown, len(ids), section, unlabelled, len(names),
        )  # fmt: skip


def _entries(path):
    """Frame by id: label (1, 0, nan) and region; and whether the label is from a 0/1 column."""
    import pandas as pd

    table = read_table(path)
    if table.index.nlevels > 1:
        raise InputError(
            f"{path}: rows have {table.index.nlevels} cells more than the header; name every column, and export the "
            "table again"
        )
    if not isinstance(table.index, pd.RangeIndex):  # R writes no header for the row names
        table = table.reset_index(names="index")
    columns = list(table.columns)
    table.columns = [re.sub(r"[ .\-]+", "_", str(name).strip().casefold()) for name in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    ids = _ids(table)
    truth, word = _columns(table)
    if ids is None or (truth is None and word is None):
        raise InputError(
            f"{path}: columns {first_few(columns, 10)}; a label table needs an id (column spot, barcode or cell_id; "
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
    """The id of each row, "" if it has none; None if the table has no ids."""
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
    placed = (x.abs() <= MAX_POSITION) & (y.abs() <= MAX_POSITION)  # neither missing nor infinite
    if not placed.all():
        logger.info("%d annotated positions without x or y are left out", (~placed).sum())
    ids = x.where(placed, 0).astype(int).astype(str) + "x" + y.where(placed, 0).astype(int).astype(str)
    return ids.where(placed, "")


def _columns(table) -> tuple[str | None, str | None]:
    """Names of the 0/1 column and of the word column."""
    truth = "is_cancer" if "is_cancer" in table else None
    if truth is None and "label" in table:
        values = set(table["label"].str.strip().str.casefold()) - MISSING
        truth = "label" if values and values <= set(ZERO_ONE) else None
    # some tables of Valdeolivas et al. (Zenodo 7760264) name the column after the pathologist
    named = [*WORD_COLUMNS, *(name for name in table if name.startswith("pathologist"))]
    word = next((name for name in named if name in table and name != truth), None)
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
    label_of = meanings(region.unique(), words | {"": np.nan})
    unknown = sorted(word for word, label in label_of.items() if label is None)
    if unknown:
        raise InputError(
            f"{path}: unknown words: {first_few(unknown, MOST_WORDS)}; add each to {words_path} with "
            "1 (cancer), 0 (other) or unknown"
        )
    return region.map(label_of).astype(float)


# --- polygons ---------------------------------------------------------------------------------------------------------


def _is_json(path) -> bool:
    require_file(path)
    try:
        with open_text(path) as handle:
            return handle.read(4096).lstrip()[:1] in ("{", "[")  # a file of one line may be large
    except (OSError, EOFError, ValueError, zlib.error):
        return False  # not text: reported by the reader of tables


def _of_polygons(path, spots, words: dict, cells, words_path) -> tuple[np.ndarray, np.ndarray]:
    """Label and class of the smallest polygon around each spot."""
    import pandas as pd
    import shapely

    polygons, classes, numbers = _polygons(path)
    centres_px = np.asarray(spots.obsm["spatial"], np.float64) * float(spots.uns["section"].get("image_scale") or 1.0)
    tree = shapely.STRtree(shapely.points(centres_px))
    held = [tree.query(polygon, predicate="contains") for polygon in polygons]
    used = np.array([len(inside) > 0 for inside in held])
    if not used.any():
        raise InputError(
            f"{path}: no polygon contains a spot of section {spots.uns['section']['section']}: in px of the image, the "
            f"polygons span {_span(shapely.get_coordinates(polygons))}, the spots {_span(centres_px)}; export them "
            "from the image in the section sheet, and check its column image_scale"
        )
    if not used.all():
        logger.info("%s: %d of %d polygons contain no spot", path, (~used).sum(), len(used))
    # unknown words are allowed in polygons without a spot
    label_of = np.full(len(polygons), np.nan)
    label_of[used] = _labels_of_words(pd.Series(np.array(classes)[used]), words, path, words_path)
    owner = _owners(held, shapely.area(polygons), label_of, spots.n_obs, path, classes, numbers)
    outside = {_key(word): label for word, label in words.items()}.get(OUTSIDE)
    label = np.where(owner >= 0, label_of[owner], np.nan if outside is None else outside)
    region = np.where(owner >= 0, np.array(classes)[owner], "" if outside is None else OUTSIDE)
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


def _polygons(path) -> tuple[list, list[str], list[int]]:
    """Classified polygons of a file's annotations, their classes, and the number of their feature (from 1)."""
    import shapely

    polygons, classes, numbers = [], [], []
    not_drawn = no_area = unclassified = repaired = 0
    for number, feature in enumerate(_features(path), start=1):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if (properties.get("objectType") or properties.get("object_type") or feature.get("id")) in NOT_DRAWN:
            not_drawn += 1
            continue
        shape = _shape(feature, f"{path}: feature {number}")
        if shape is None:
            no_area += 1
            continue
        name = _class_of(properties)
        if not name:
            unclassified += 1
            continue
        if not shape.is_valid:
            # "structure": if a freehand outline crosses itself, doubly enclosed areas stay inside
            shape = shapely.make_valid(shape, method="structure", keep_collapsed=False)
            repaired += 1
        parts = [part for part in shapely.get_parts(shape) if part.area > 0]
        polygons += parts
        classes += [name] * len(parts)
        numbers += [number] * len(parts)
    if not_drawn or no_area:
        logger.info("%s: skipped %d cells, detections or tiles and %d points or lines", path, not_drawn, no_area)
    if unclassified:
        logger.warning("%s: ignored %d polygons without a class; assign one in QuPath", path, unclassified)
    if repaired:
        logger.info("%s: repaired %d outlines that cross themselves", path, repaired)
    if not polygons:
        raise InputError(
            f"{path}: no annotation with an area and a class: {unclassified} polygons without a class, {not_drawn} "
            f"cells, detections or tiles, {no_area} points or lines; assign a class to the annotations in QuPath and "
            "export them as GeoJSON"
        )
    return polygons, classes, numbers


def _features(path) -> list[dict]:
    """The features of a GeoJSON file."""
    try:
        with open_text(path) as handle:
            content = json.load(handle)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise InputError(f"{path}: not valid JSON ({error}); export it again") from error
    if isinstance(content, dict):
        content = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(content, list) or not all(
        isinstance(one, dict) and one.get("type") == "Feature" for one in content
    ):
        raise InputError(
            f"{path}: JSON, but not GeoJSON features; in QuPath choose File, Export objects as GeoJSON, or give a "
            "table of labels"
        )
    return content


def _shape(feature: dict, where: str):
    """The polygon or polygons of a feature, in 2D; None for other or empty geometries."""
    import shapely
    import shapely.geometry

    geometry = feature.get("geometry") or {}
    if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return None
    try:
        with np.errstate(invalid="ignore"):
            shape = shapely.force_2d(shapely.geometry.shape(geometry))
    except (
        AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError, shapely.errors.ShapelyError
    ) as error:  # fmt: skip
        raise InputError(f"{where}: its coordinates are not a valid polygon ({error}); export it again") from error
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise InputError(f"{where}: a coordinate is not a finite number; export it again")
    return None if shape.is_empty else shape


def _class_of(properties: dict) -> str:
    """The class of an annotation, else its name, else "". `names`: the parts of a class such as "Tumor: Positive"."""
    given = properties.get("classification")
    if isinstance(given, dict):
        names = given.get("names") or []
        given = given.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else names)
    for text in (given, properties.get("name")):
        # not allowed in a table: control characters and lone surrogates
        text = re.sub(r"[\x00-\x1f\ud800-\udfff]+", " ", str(text or "")).strip()
        if text.casefold() not in MISSING:
            return text
    return ""


def _span(px: np.ndarray) -> str:
    (x_min, y_min), (x_max, y_max) = px.min(axis=0), px.max(axis=0)
    return f"x {x_min:.0f} to {x_max:.0f}, y {y_min:.0f} to {y_max:.0f}"


# --- words and spots --------------------------------------------------------------------------------------------------


def meanings(labels, words: dict) -> dict:
    """Look up labels in a table (word -> meaning), ignoring spelling variants and a final number; None if unknown."""
    words = {_key(word): meaning for word, meaning in words.items()}
    return {label: words.get(_key(label), words.get(_without_number(label))) for label in labels}


def _key(word: str) -> str:
    return re.sub(r"[\s_\-]+", " ", word).strip().casefold()


def _without_number(word: str) -> str:
    """ "DCIS_2" -> "dcis": clusters of one kind are numbered."""
    return re.sub(r" \d+$", "", _key(word))


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
