"""The regions of a map through QuPath and back: what a pathologist corrects there is read as she left it."""

import gzip
import json
import logging
import uuid
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely import geometry

from ctrflow.export.qupath import CANCER_RGB, qupath_geojson
from ctrflow.sections.labels import read_labels, read_words
from ctrflow.sections.map_regions import region_id
from spot_arrays import hexagonal, section, series, square

WORDS = read_words(Path(__file__).parents[3] / "config" / "label_words.tsv")
IMAGE_SCALE = 0.37
# classes of QuPath's own: name -> colour (PathClass.StandardPathClasses of 0.6)
QUPATH = {"Tumor": [200, 0, 0], "Stroma": [150, 200, 150], "Other": [255, 200, 0], "Ignore*": [180, 180, 180]}


# --- QuPath, as far as it matters here -------------------------------------------------------------------------------


def number(value: float) -> str:
    """A coordinate: kept in single precision, written with up to two decimals (GeneralTools.formatNumber)."""
    return f"{np.float32(value):.2f}".rstrip("0").rstrip(".")


def ring_text(ring, turn: int) -> str:
    """A ring from another corner and the other way round, without the corners on horizontal lines.

    QuPath makes a `java.awt.geom.Area` of a polygon, which does not keep those, and since 0.6 normalises geometries.
    """
    points = np.array(ring)[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    points = points[~((before[:, 1] == 0) & (after[:, 1] == 0))]
    points = np.roll(points[::-1], turn, axis=0)
    return "[" + ", ".join(f"[{number(x)}, {number(y)}]" for x, y in [*points, points[0]]) + "]"


def geometry_text(one: dict) -> str:
    """A geometry as ROITypeAdapters writes it: type, coordinates, isEllipse or plane where they are needed."""
    if one["type"] == "MultiPolygon":
        parts = one["coordinates"][::-1]
        rings = "[" + ", ".join(f"[{', '.join(ring_text(ring, 2) for ring in part)}]" for part in parts) + "]"
    elif one["type"] == "Polygon":
        rings = "[" + ", ".join(ring_text(ring, 3) for ring in one["coordinates"]) + "]"
    else:
        rings = json.dumps(one["coordinates"])
    rest = {key: value for key, value in one.items() if key not in ("type", "coordinates")}
    return f'{{"type": "{one["type"]}", "coordinates": {rings}' + "".join(
        f', "{key}": {json.dumps(value)}' for key, value in rest.items()
    ) + "}"  # fmt: skip


def exported(features: list[dict], collection: bool = True, measurements: bool = True) -> str:
    """Objects as "File, Export objects as GeoJSON" of QuPath 0.4 to 0.6 writes them (QuPathTypeAdapters)."""
    written = []
    for one in features:
        given = one["properties"]
        kept = {"objectType": given.get("objectType", "annotation")}
        kept |= {key: given[key] for key in ("name", "color", "classification") if key in given}
        kept |= {"isLocked": True} if given.get("isLocked") else {}  # written only where it is true
        kept |= {"measurements": given["measurements"]} if measurements and given.get("measurements") else {}
        kept |= {"metadata": {"ANNOTATION_DESCRIPTION": "seen"}} if given.get("metadata") else {}
        own = one.get("id") or str(uuid.uuid4())
        written.append(
            f'{{"type": "Feature", "id": "{own}", "geometry": {geometry_text(one["geometry"])}, '
            f'"properties": {json.dumps(kept)}}}'
        )
    array = f"[{', '.join(written)}]"
    return f'{{"type": "FeatureCollection", "features": {array}}}' if collection else array


def hand_drawn(shape, name: str | None, **more) -> dict:
    """An annotation of QuPath's own, of one of its classes or of none."""
    properties = {"objectType": "annotation"}
    if name:
        parts = name.split(": ")
        colour = QUPATH.get(parts[0], [20, 40, 60])
        properties["classification"] = ({"name": name} if len(parts) == 1 else {"names": parts}) | {"color": colour}
    return {"geometry": geometry.mapping(shape) | more, "properties": properties}


# --- a section and its map -------------------------------------------------------------------------------------------


@pytest.fixture(params=[square, hexagonal])
def mapped(request):
    """A section whose image is smaller than its full-resolution px, its calls, and the regions of these."""
    spots = section(request.param(16, 15), um_per_px=0.5, image_scale=IMAGE_SCALE)
    call = (np.random.default_rng(5).random(240) < 0.5).astype(float)
    drawing = qupath_geojson(spots, series(spots, 0.1 + 0.8 * call), series(spots, call))
    return spots, call, drawing["features"]


def read(tmp_path, text, spots, words=WORDS, name="corrected.geojson"):
    """Label (NaN unknown) and region of each spot."""
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    table = read_labels(path, spots, words)
    return table["label"].to_numpy(float, na_value=np.nan), table["region"].to_numpy(str)


def own_regions(caplog) -> list[str]:
    """The warnings about regions of a map that nobody has changed."""
    return [record.getMessage() for record in caplog.records if "a map's own" in record.getMessage()]


def shape_of(feature: dict):
    return geometry.shape(feature["geometry"])


def of_class(feature: dict, name: str) -> dict:
    """The same object with another class, as "Set class" of QuPath leaves it."""
    properties = feature["properties"] | {"classification": {"name": name, "color": QUPATH[name]}}
    return feature | {"properties": properties}


def test_the_calls_come_back_as_they_went(mapped, tmp_path):
    spots, call, features = mapped
    holes = sum(len(polygon.interiors) for one in features for polygon in shapely.get_parts(shape_of(one)))
    assert holes >= 2
    texts = {
        "plain.geojson": exported(features),
        "pretty.geojson": json.dumps(json.loads(exported(features)), indent=2),
        "array.json": exported(features, collection=False),
        "short.geojson": exported(features, measurements=False),
        "gzip.geojson.gz": exported(features),
    }
    for name, text in texts.items():
        label, region = read(tmp_path, text, spots, name=name)
        assert np.array_equal(label == 1, call == 1)
        assert np.isnan(label[call == 0]).all()  # holes too: nobody has said what they are
        assert set(region[call == 1]) == {"Cancer region"}
        label, region = read(tmp_path, text, spots, WORDS | {"outside": 0.0}, name)
        assert np.array_equal(label, call)
        assert set(region[call == 0]) == {"outside"}


def test_names_colours_and_outlines_come_back(mapped):
    """QuPath writes what it has read, but `isLocked` only where it is true."""
    features = mapped[-1]
    for one, other in zip(features, json.loads(exported(features))["features"], strict=True):
        assert other["id"] == one["id"]
        assert other["properties"]["classification"] == {"name": "Cancer region", "color": CANCER_RGB}
        assert other["properties"] | {"isLocked": False} == one["properties"]
        assert other["geometry"]["type"] == one["geometry"]["type"]
        assert other["geometry"] != one["geometry"]  # rings start elsewhere
        assert shape_of(other).symmetric_difference(shape_of(one)).area < 1e-6


def test_what_she_changes_counts(mapped, tmp_path, caplog):
    """A region is reclassified, one deleted, one reshaped, others are drawn: each spot has the class she left there."""
    spots, _, features = mapped
    pitch = 100 * IMAGE_SCALE
    points = shapely.points(np.asarray(spots.obsm["spatial"]) * IMAGE_SCALE)
    x, y = np.asarray(spots.obsm["spatial"]).mean(axis=0) * IMAGE_SCALE
    most, _deleted, reshaped, *rest = sorted(features, key=lambda one: -shape_of(one).area)
    grown = shape_of(reshaped).union(geometry.Point(shape_of(reshaped).exterior.coords[0]).buffer(0.8 * pitch))
    islands = [
        geometry.box(x - 6.9 * pitch, y + i * pitch, x - 4.9 * pitch, y + (i + 1.5) * pitch) for i in (-5.1, 4.1)
    ]
    mine = [
        of_class(most, "Stroma"),
        reshaped | {"geometry": geometry.mapping(grown)},
        hand_drawn(geometry.Point(x, y).buffer(1.6 * pitch), "Tumor", isEllipse=True),
        hand_drawn(geometry.box(x + 4.1 * pitch, y - 0.4 * pitch, x + 6.1 * pitch, y + 3 * pitch), "Ignore*"),
        hand_drawn(shapely.MultiPolygon(islands), "Other", plane={"c": -1, "z": 0, "t": 0}),
        hand_drawn(points[40].buffer(0.3 * pitch), "Tumor: Positive"),
    ]
    not_areas = [
        hand_drawn(geometry.Point(x, y), "Tumor"),
        hand_drawn(geometry.box(x, y, x + 9 * pitch, y + 9 * pitch), None),
    ]
    words = WORDS | {"tumor: positive": 1.0}
    label, region = read(tmp_path, exported([*rest, *mine, *not_areas]), spots, words)
    areas = []
    for one in [*rest, *mine]:
        name = one["properties"]["classification"]
        areas += [(part, name.get("name") or ": ".join(name["names"])) for part in shapely.get_parts(shape_of(one))]
    meaning = {"Cancer region": 1, "Tumor": 1, "Tumor: Positive": 1, "Stroma": 0, "Other": 0, "Ignore*": np.nan}
    around = [min(((a.area, word) for a, word in areas if a.contains(point)), default=(0, "")) for point in points]
    assert region.tolist() == [word for _, word in around]
    np.testing.assert_array_equal(label, [meaning.get(word, np.nan) for _, word in around])
    assert set(meaning) <= set(region)
    [told] = own_regions(caplog)
    assert f"corrected.geojson: {len(rest)} of {len(rest) + 6} areas are a map's own, unchanged" in told


# --- whose words ------------------------------------------------------------------------------------------------------


def test_unchanged_regions_are_told_apart_from_hers(mapped, tmp_path, caplog):
    """Unchanged; a corner moved by a tenth of a px; another class on the same outline, which she has judged."""
    caplog.set_level(logging.INFO)
    spots, _, features = mapped
    n = len(features)
    read(tmp_path, exported(features), spots)
    assert f"{n} of {n} areas are a map's own, unchanged" in own_regions(caplog)[0]

    def told(changed) -> list[str]:
        caplog.clear()
        read(tmp_path, exported([changed, *features[1:]]), spots)
        return own_regions(caplog)

    rings = shapely.get_parts(shape_of(features[0]))[0]
    moved = np.array(rings.exterior.coords)
    moved[3] += 0.1
    outline = geometry.mapping(geometry.Polygon(moved, rings.interiors))
    for changed in (
        features[0] | {"geometry": outline},
        of_class(features[0], "Tumor"),
        of_class(features[0], "Other"),
    ):
        assert f"{n - 1} of {n} areas" in told(changed)[0]
    assert f"{n} of {n} areas" in told(features[0] | {"properties": features[0]["properties"] | {"isLocked": True}})[0]
    caplog.clear()
    copied = [one | {"id": str(uuid.uuid4())} for one in features]  # duplicated in QuPath, or drawn
    read(tmp_path, exported(copied), spots)
    assert own_regions(caplog) == []


def test_regions_of_any_shape_are_recognised():
    """Of two parts; far from the corner of a large image, where single precision is coarser than 0.01 px."""
    apart = np.vstack([square(6, 6), [[3000, 1000], [3120, 1000], [3060, 1005]]])
    for place in (0.0, 20_000.3, 150_000.7, 600_000.1):
        spots = section(apart + place)
        call = series(spots, np.isin(np.arange(39), range(30, 38)))
        features = qupath_geojson(spots, call, call)["features"]
        assert {one["geometry"]["type"] for one in features} == {"Polygon", "MultiPolygon"}
        back = json.loads(exported(features))["features"]
        assert [region_id(shape_of(one)) for one in back] == [one["id"] for one in features]
        assert len({one["id"] for one in features}) == len(features)
