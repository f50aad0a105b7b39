"""Drawings of labelled areas: GeoJSON of QuPath, geopandas or shapely, and selections of Xenium Explorer."""

import json
import logging
import re
import zlib
from typing import NamedTuple

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers.tables import PARQUET, known_start, open_text, plain_name, require_file
from ctrflow.sections import map_regions

logger = logging.getLogger("ctrflow")

MISSING = {"", "na", "nan", "none", "null", "<na>"}
# QuPath objects that are not annotations, by `objectType` and by the ids of version 0.2
NOT_DRAWN = (
    "tile", "detection", "cell", "tma_core", "root",
    "PathTileObject", "PathDetectionObject", "PathCellObject", "TMACoreObject", "PathRootObject",
)  # fmt: skip
AREAS = ("Polygon", "MultiPolygon")
GEOMETRIES = (*AREAS, "GeometryCollection", "Point", "MultiPoint", "LineString", "MultiLineString")
ZERO_ONE = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
TRUTHS = ("is_cancer", "label")  # properties with 0 and 1
# QuPath's own among columns of geopandas' frames; `name` last, since in QuPath it is the annotation's, not its class's
CLASS_PROPERTIES = (
    "is_cancer", "classification", "classification_name", "class", "class_name", "label", "annotation", "annotations",
    "region", "pathologist_annotation", "pathologist_annotations", "pathology", "ground_truth", "cell_type", "celltype",
    "category", "name",
)  # fmt: skip
NO_CLASSES = {
    "id", "fid", "uuid", "index", "objectid", "object_id", "objecttype", "object_type", "color", "colour", "colorrgb",
    "fill", "stroke",
}  # fmt: skip
_NUMBER = re.compile(r"#[0-9a-f]{3,8}|[-+.\de]*", re.I)  # a colour too
IGNORED = "ignore"  # QuPath's class Ignore*, for areas to be left out
UNCLASSIFIED = "unclassified"  # of a selection in Xenium Explorer
# formats of areas that are no text, by how they begin
_AREAS_IN = {
    b"SQLite format 3": "a GeoPackage",
    PARQUET: "a parquet file",
    b"fgb\3": "a FlatGeobuf",
    b"\0\0\x27\x0a": "a shapefile",
}
AS_GEOJSON = "export areas as GeoJSON (geopandas: to_file(..., driver='GeoJSON'))"
_NO_POLYGON = (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError)
_QUOTED = r"""(['"])(.*?)\1"""
_BETWEEN = re.compile(r"[\s\x1e]*")  # values: lines, or the record separator of RFC 8142


class Drawing(NamedTuple):
    """Areas with a class: shapely Polygons, the class of each, and the number (from 1) of the object it is part of.

    `reference`: the coordinate system that the file names, "" for none. `zero_one`: the classes are 0 and 1.
    """

    polygons: list
    classes: list[str]
    numbers: list[int]
    reference: str = ""
    zero_one: bool = False


def is_json(path) -> bool:
    """Whether a file's text begins as JSON does.

    Raises
    ------
    InputError
        if it is not there, or is of a format of areas that is no text.
    """
    require_file(path)
    if kind := known_start(path, _AREAS_IN):
        raise InputError(f"{path}: {kind}; {AS_GEOJSON}, and tables as CSV")
    try:
        with open_text(path) as handle:
            return handle.read(4096).lstrip()[:1] in ("{", "[")  # a file of one line may be large
    except (OSError, EOFError, ValueError, zlib.error):
        return False  # not text: reported by the reader of tables


def read_geojson(path, known) -> Drawing:
    """The annotations with an area and a class; what else there is, is counted in the log.

    Regions of a map that come back as they were are kept, with a warning: they are not the annotator's. Regions that
    ask to be drawn in (`map_regions.DRAW_HERE`) are skipped.

    Parameters
    ----------
    path
        The file.
    known
        Whether one of several words has a meaning.

    Raises
    ------
    InputError
        if the file is not GeoJSON, an outline cannot be read, or no annotation has an area and a class.
    """
    not_drawn = no_area = repaired = unchanged = 0
    features, reference = _features(path)
    shapes, numbers, ids, objects = [], [], [], []
    for number, feature in enumerate(features, start=1):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if (properties.get("objectType") or properties.get("object_type") or feature.get("id")) in NOT_DRAWN:
            not_drawn += 1
            continue
        if _word(properties.get("classification")) == map_regions.DRAW_HERE:
            continue
        shape = _shape(feature.get("geometry"), f"{path}: feature {number}")
        if shape is None:
            no_area += 1
            continue
        shapes.append(shape)
        numbers.append(number)
        ids.append(feature.get("id"))
        objects.append(properties)
    classes, zero_one = _classes(objects, known, path)
    drawing = Drawing([], [], [], reference, zero_one)
    for shape, name, number, own in zip(shapes, classes, numbers, ids, strict=True):
        repaired += bool(name) and _add(drawing, shape, name, number)
        unchanged += map_regions.is_unchanged(own, shape, name)
    unclassified = classes.count("")
    if not_drawn or no_area:
        logger.info("%s: skipped %d cells, detections or tiles and %d points or lines", path, not_drawn, no_area)
    if unclassified:
        logger.warning("%s: ignored %d polygons without a class; assign one in QuPath", path, unclassified)
    if unchanged:
        logger.warning(
            "%s: %d of %d areas are a map's own, unchanged; they teach what it already said: delete those that you did "
            "not check, and give those that you did a class of yours (Tumor)",
            path,
            unchanged,
            len(shapes) - unclassified,
        )
    if repaired:
        logger.info("%s: repaired %d outlines that cross themselves", path, repaired)
    if not drawing.polygons:
        found = first_few(dict.fromkeys(_plain(str(key)) for one in objects for key in one), 10)
        raise InputError(
            f"{path}: no annotation with an area and a class: {unclassified} polygons without a class"
            f"{f' (their properties are {found})' if found else ''}, {not_drawn} cells, detections or tiles, {no_area} "
            "points or lines; assign a class to the annotations in QuPath and export them as GeoJSON"
            f"{', or name one `classification`' if found else ''}"
        )
    return drawing


def of_selections(table, name: str, path) -> Drawing:
    """The selections of Xenium Explorer whose corners a table has, in µm on the slide.

    Parameters
    ----------
    table
        Frame of text: x, y and, optionally, selection and class, a row for each corner.
    name
        The selection's name where the table has no such column.

    Raises
    ------
    InputError
        if a corner has no position, or no selection has an area.
    """
    import pandas as pd
    import shapely

    given = table["selection"].str.strip() if "selection" in table else pd.Series(name, index=table.index)
    # version 3 has classes; the name counts where none was chosen
    classes = table["class"].str.strip() if "class" in table else pd.Series("", index=table.index)
    classes = classes.where(~classes.str.casefold().isin({UNCLASSIFIED, *MISSING}), given)
    corners = table[["x", "y"]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(corners).all(axis=1))
    if len(bad):
        raise InputError(f"{path}: corner {bad[0] + 1} of the selections has no x or y; export the selections again")
    drawing, repaired = Drawing([], [], []), 0
    for number, rows in enumerate(_rings(given.to_numpy(str), corners), start=1):
        if len(rows) >= 3:
            repaired += _add(drawing, shapely.Polygon(corners[rows]), _plain(classes.iloc[rows[0]]), number)
    if repaired:
        logger.info("%s: repaired %d outlines that cross themselves", path, repaired)
    if not drawing.polygons:
        raise InputError(f"{path}: no selection of Xenium Explorer with three corners; export the selections again")
    return drawing


def _rings(names, corners):
    """The rows of each outline: it ends where its first corner comes again, or another name."""
    rows = []
    for row, (name, corner) in enumerate(zip(names, corners, strict=True)):
        closed = len(rows) > 2 and (corner == corners[rows[0]]).all() and name == names[rows[0]]
        if closed or (rows and name != names[rows[0]]):
            yield rows
            rows = []
        if not closed:
            rows.append(row)
    if rows:
        yield rows


def _add(drawing: Drawing, shape, name: str, number: int) -> bool:
    """Add the parts of a shape that have an area; whether its outline had to be repaired."""
    import shapely

    repaired = not shape.is_valid
    if repaired:
        # "structure": if a freehand outline crosses itself, doubly enclosed areas stay inside
        shape = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    parts = [part for part in shapely.get_parts(shape) if part.area > 0]
    drawing.polygons.extend(parts)
    drawing.classes.extend([name] * len(parts))
    drawing.numbers.extend([number] * len(parts))
    return repaired


def telling(columns: dict, known) -> str | None:
    """Which column has the classes: the first that has more than one unknown word in all rows, the name of a slide.

    Parameters
    ----------
    columns
        Name -> words ("" where one is missing), the likeliest column first.
    known
        Whether one of several words has a meaning.

    Returns
    -------
    str or None
        The first column if none tells more; None without columns.
    """
    for name, words in columns.items():
        different = set(words)
        # names of areas differ and are no classes
        if (len(different) > 1 and name != "name") or known(different - {""}):
            return name
    return next(iter(columns), None)


# --- GeoJSON ----------------------------------------------------------------------------------------------------------


def _features(path) -> tuple[list[dict], str]:
    """The features of a GeoJSON file, and the coordinate system that it names ("" for none)."""
    features, reference = [], ""
    for content in _values(path):
        if isinstance(content, dict) and content.get("type") == "FeatureCollection":
            reference = reference or _reference(content.get("crs"))
            content = content.get("features")
        found = content if isinstance(content, list) else [content]
        features += [_feature(one) for one in found] if content is not None else [None]
    if None in features:
        raise InputError(
            f"{path}: JSON, but not GeoJSON features; in QuPath choose File, Export objects as GeoJSON, or give a "
            "table of labels"
        )
    return features, reference


def _values(path) -> list:
    """The JSON values of a file: one, or several in sequence (a feature a line; RFC 8142)."""
    decoder, values, place = json.JSONDecoder(), [], 0
    try:
        with open_text(path) as handle:
            text = handle.read().strip()  # of record separators, too
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            values.append(value)
            place = _BETWEEN.match(text, place).end()
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise InputError(f"{path}: not valid JSON ({error}); export it again") from error
    return values


def _feature(value) -> dict | None:
    """A feature, or a bare geometry as one; None for anything else."""
    if not isinstance(value, dict):
        return None
    if value.get("type") == "Feature":
        return value
    return {"geometry": value} if value.get("type") in GEOMETRIES else None


def _reference(crs) -> str:
    properties = crs.get("properties") if isinstance(crs, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    return _plain(name) if isinstance(name, str) else ""


def _shape(geometry, where: str):
    """The areas of a geometry in 2D; None if it has none."""
    import shapely
    import shapely.geometry

    outlines = _outlines(geometry)
    try:
        with np.errstate(invalid="ignore"):
            shapes = [
                shapely.geometry.shape({"type": one["type"], "coordinates": _flat(one.get("coordinates"))})
                for one in outlines
            ]
    except (*_NO_POLYGON, shapely.errors.ShapelyError) as error:
        raise InputError(f"{where}: its coordinates are not a valid polygon ({error}); export it again") from error
    if not all(np.isfinite(shapely.get_coordinates(shape)).all() for shape in shapes):
        raise InputError(f"{where}: a coordinate is not a finite number; export it again")
    polygons = [part for shape in shapes for part in shapely.get_parts(shape) if not part.is_empty]
    return shapely.MultiPolygon(polygons) if polygons else None


def _outlines(geometry) -> list[dict]:
    """The polygons of a geometry, those inside of collections too."""
    found, rest = [], [geometry]
    while rest:
        one = rest.pop()
        kind = one.get("type") if isinstance(one, dict) else None
        if kind in AREAS:
            found.append(one)
        inside = one.get("geometries") if kind == "GeometryCollection" else None
        rest += inside[::-1] if isinstance(inside, list) else []
    return found


def _flat(coordinates):
    """Coordinates without heights."""
    if not coordinates or not isinstance(coordinates, list):
        return coordinates
    if isinstance(coordinates[0], list):
        return [_flat(part) for part in coordinates]
    return coordinates[:2]


def _classes(objects: list[dict], known, path) -> tuple[list[str], bool]:
    """The class of each object by its properties ("" for none), and whether these are 0 and 1."""
    named = [{plain_name(key): value for key, value in one.items()} for one in objects]
    columns = {key: [_word(one.get(key), key in TRUTHS) for one in named] for key in CLASS_PROPERTIES}
    columns = {key: words for key, words in columns.items() if any(words)}
    if set(columns) <= {"name"} and not known(set(columns.get("name", []))):
        columns = _only_other(named, known, bool(columns)) | columns
    first = telling(columns, known)
    zero_one = first in TRUTHS and {word.casefold() for word in columns[first]} - {""} <= set(ZERO_ONE)
    used = [first] if zero_one else list(columns)[list(columns).index(first) :] if first else []
    if first != next(iter(columns), None):
        logger.info("%s: classes are from %s, not from %s", path, first, next(iter(columns)))
    return [next((columns[key][n] for key in used if columns[key][n]), "") for n in range(len(objects))], zero_one


def _only_other(named: list[dict], known, has_names: bool) -> dict:
    """The words of the only other property that has known ones; without names, of the only one that has any."""
    keys = dict.fromkeys(key for one in named for key, value in one.items() if isinstance(value, str))
    keys = [key for key in keys if key not in (*NO_CLASSES, *CLASS_PROPERTIES)]
    columns = {key: [_word(one.get(key)) for one in named] for key in keys}
    columns = {key: words for key, words in columns.items() if not all(map(_NUMBER.fullmatch, words))}
    likely = [key for key, words in columns.items() if known(set(words) - {""})]
    likely = likely or ([] if has_names else list(columns))
    return {likely[0]: columns[likely[0]]} if len(likely) == 1 else {}


def _word(given, of_truth: bool = False) -> str:
    """A class in a property, "" for none."""
    text = _plain(_class_name(str(given) if of_truth and isinstance(given, bool) else given))
    return "" if text.casefold() in MISSING else text


def _class_name(given) -> str:
    """The name in a class: a dictionary of QuPath, also written as text (JSON by geopandas, or as Python shows it)."""
    if isinstance(given, str):
        given = _parsed(given.strip())
    if isinstance(given, dict):
        # `names`: the parts of a class such as "Tumor: Positive"
        given = given.get("name") or given.get("names")
    parts = given if isinstance(given, list) else [given]
    # True and False are no names
    return ": ".join(str(part) for part in parts if isinstance(part, str | int | float) and not isinstance(part, bool))


def _parsed(text: str):
    """The dictionary or list that a text shows, else the text."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # perhaps as Python shows it: values such as np.int32(200) cannot be parsed, but the name can be found
        name = re.search(rf"""(?<=['"]name['"]:)\s*{_QUOTED}""", text)
        names = re.search(r"""(?<=['"]names['"]:)\s*\[([^\]]*)\]""", text)
    if name:
        return name[2]
    return [found[1] for found in re.findall(_QUOTED, names[1])] if names else text


def _plain(text: str) -> str:
    """Without what a table must not have: control characters and lone surrogates."""
    return re.sub(r"[\x00-\x1f\ud800-\udfff]+", " ", text).strip()
