"""Drawings in every form that QuPath, geopandas, shapely and Xenium Explorer write, and in forms that nobody should."""

import itertools
import json
import logging

import anndata
import numpy as np
import pandas as pd
import pytest

from ctrflow.errors import InputError
from ctrflow.sections.labels import read_labels

# nine spots, ten px apart: a0 b0 c0 at y = 10, a1 b1 c1 at y = 20, a2 b2 c2 at y = 30
NAMES = [f"{letter}{row}" for row in range(3) for letter in "abc"]
CENTRES = np.array([(10.0 * column, 10.0 * row) for row in (1, 2, 3) for column in (1, 2, 3)])
WORDS = {"tumor": 1.0, "stroma": 0.0, "Tumor: Positive": 1.0}
A0 = [[5, 5], [15, 5], [15, 15], [5, 15], [5, 5]]
B0 = [[15, 5], [25, 5], [25, 15], [15, 15], [15, 5]]
ALL = [[5, 5], [35, 5], [35, 35], [5, 35], [5, 5]]


def spots(**obsm):
    table = anndata.AnnData(np.ones((9, 1)), obs=pd.DataFrame(index=NAMES), obsm={"spatial": CENTRES} | obsm)
    table.uns["section"] = {"section": "S1", "spot_um": 55.0, "um_per_px": 1.0, "image_scale": 1.0}
    return table


def read(tmp_path, text: str, **obsm) -> dict:
    """Spot -> label of the labelled ones."""
    path = tmp_path / "drawing"
    path.write_text(text, encoding="utf-8")
    labels = read_labels(path, spots(**obsm), WORDS).set_index("spot")["label"].dropna()
    return {name: int(label) for name, label in labels.items()}


def told(tmp_path, text: str, *fragments, **obsm) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text, **obsm)
    assert [part for part in ("drawing: ", *fragments) if part not in str(caught.value)] == [], str(caught.value)


def polygon(*rings) -> dict:
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry, word="tumor", **properties) -> dict:
    properties = {"objectType": "annotation", "classification": {"name": word}} | properties
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features, **more) -> dict:
    return {"type": "FeatureCollection", "features": list(features)} | more


LINE = {"type": "LineString", "coordinates": [[5, 5], [35, 35]]}
POINT = {"type": "Point", "coordinates": [10, 10]}
TWO = {"type": "MultiPolygon", "coordinates": [[A0], [B0]]}
GEOMETRIES = {
    "a polygon": (polygon(A0), {"a0": 1}),
    "polygons": (TWO, {"a0": 1, "b0": 1}),
    "a hole": (polygon(ALL, B0), dict.fromkeys([name for name in NAMES if name != "b0"], 1)),
    "a hole that is not closed": (polygon(ALL, B0[:-1]), dict.fromkeys([name for name in NAMES if name != "b0"], 1)),
    "a collection": ({"type": "GeometryCollection", "geometries": [polygon(A0), LINE, POINT]}, {"a0": 1}),
    "a collection in a collection": (
        {"type": "GeometryCollection", "geometries": [{"type": "GeometryCollection", "geometries": [TWO]}, LINE]},
        {"a0": 1, "b0": 1},
    ),
    "heights": (polygon([[*corner, 3.5] for corner in A0]), {"a0": 1}),
    "heights of some corners": (polygon([[*A0[0], 1], *A0[1:-1], [*A0[0], 1]]), {"a0": 1}),
    "heights and measures": (polygon([[*corner, 3.5, 1] for corner in A0]), {"a0": 1}),
    "a plane of a stack": (polygon(A0) | {"plane": {"c": -1, "z": 0, "t": 0}}, {"a0": 1}),
    "an ellipse": (polygon(A0) | {"isEllipse": True}, {"a0": 1}),
    "an outline that is not closed": (polygon(A0[:-1]), {"a0": 1}),
    "an outline the other way round": (polygon(A0[::-1]), {"a0": 1}),
    "an outline that crosses itself": (polygon([[5, 5], [25, 15], [25, 5], [5, 15], [5, 5]]), {"a0": 1, "b0": 1}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry_with_an_area(tmp_path, name):
    geometry, expected = GEOMETRIES[name]
    if "crosses" in name:  # at (15, 10), so that both spots are inside of a wing
        geometry = polygon([[5, 4], [25, 16], [25, 4], [5, 16], [5, 4]])
    assert read(tmp_path, json.dumps(collection(feature(geometry)))) == expected


@pytest.mark.parametrize(
    "geometry", [LINE, POINT, {"type": "MultiLineString", "coordinates": [[[5, 5], [9, 9]]]}, None]
)
def test_geometries_without_an_area_are_counted(tmp_path, caplog, geometry):
    with caplog.at_level(logging.INFO, logger="ctrflow"):
        found = read(tmp_path, json.dumps(collection(feature(geometry, "stroma"), feature(polygon(A0)))))
    assert found == {"a0": 1}
    assert "skipped 0 cells, detections or tiles and 1 points or lines" in caplog.text
    told(tmp_path, json.dumps(collection(feature(geometry))), "no annotation with an area and a class", "1 points or l")


ONE, OTHER = feature(polygon(A0)), feature(polygon(B0), "stroma")
FILES = {
    "a collection": json.dumps(collection(ONE, OTHER)),
    "a list": json.dumps([ONE, OTHER]),
    "a feature a line": f"{json.dumps(ONE)}\n{json.dumps(OTHER)}\n",
    "a feature a line, with empty lines": f"\n{json.dumps(ONE)}\r\n\r\n{json.dumps(OTHER)}\r\n",
    "features one after the other": json.dumps(ONE, indent=1) + json.dumps(OTHER, indent=1),
    "record separators": f"\x1e{json.dumps(ONE)}\n\x1e{json.dumps(OTHER, indent=2)}\n",
    "two collections": f"{json.dumps(collection(ONE))}\n{json.dumps(collection(OTHER))}\n",
    "geopandas' crs": json.dumps(
        collection(ONE, OTHER, crs={"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}})
    ),
    "another crs": json.dumps(collection(ONE, OTHER, crs={"type": "EPSG", "properties": {"code": 3857}})),
    "names and boxes": json.dumps(
        collection(ONE | {"bbox": [5, 5, 15, 15]}, OTHER | {"id": 7}, name="a", bbox=[0] * 4)
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_a_file(tmp_path, name):
    assert read(tmp_path, FILES[name]) == {"a0": 1, "b0": 0}


def test_degrees_are_told(tmp_path):
    degrees = [[x / 1000 + 12, y / 1000 + 48] for x, y in A0]
    crs = {"type": "name", "properties": {"name": "EPSG:4326"}}
    text = json.dumps(collection(feature(polygon(degrees)), crs=crs))
    told(tmp_path, text, "no polygon contains a spot", "the file's crs is EPSG:4326, but px are needed, no degrees")


CLASSES = {
    "QuPath": {"classification": {"name": "tumor", "color": [200, 0, 0]}},
    "QuPath, two parts": {"classification": {"names": ["Tumor", "Positive"]}},
    "a list": {"classification": ["Tumor", "Positive"]},
    "JSON in a text": {"classification": '{"name": "tumor", "color": [200, 0, 0]}'},
    "JSON of two parts in a text": {"classification": '{ "names": [ "Tumor", "Positive" ] }'},
    "a list in a text": {"classification": '["Tumor", "Positive"]'},
    "Python in a text": {"classification": "{'name': 'tumor', 'color': [200, 0, 0]}"},
    "NumPy in a text": {"classification": "{'color': [np.int32(200), 0, 0], 'name': 'tumor'}"},
    "Python of two parts in a text": {"classification": "{'names': ['Tumor', 'Positive'], 'colorRGB': np.int32(1)}"},
    "a word": {"classification": "tumor"},
    "spaces": {"classification": {"name": " Tumor "}},
    "QuPath's star": {"classification": {"name": "Tumor* "}},
    "its name": {"classification": None, "name": "tumor"},
    "its name, since the class is none": {"classification": {"name": "None"}, "name": "tumor"},
    **{
        f"column {key}": {key: "tumor"} for key in ("Classification", "class", "Class", "label", "annotation", "Region")
    },
    "a column before the name": {"class": "tumor", "name": "ROI 7"},
    "a column of nothing": {"class": None, "label": float("nan"), "region": "tumor"},
}


@pytest.mark.parametrize("name", CLASSES)
def test_every_form_of_a_class(tmp_path, name):
    one = {"type": "Feature", "geometry": polygon(A0), "properties": CLASSES[name]}
    assert read(tmp_path, json.dumps(collection(one))) == {"a0": 1}


def two(one: dict, other: dict) -> str:
    """A drawing of a0 and b0 with these properties."""
    pairs = ((A0, one), (B0, other))
    return json.dumps(
        collection(*({"type": "Feature", "geometry": polygon(ring), "properties": row} for ring, row in pairs))
    )


NAMED = (
    "annotations", "ground_truth", "pathologist_annotation", "Pathologist annotation", "cell_type", "celltype",
    "class_name", "category", "pathology", "classification.name", "histology", "my types",
)  # fmt: skip
# (of a0, of b0), which are tumour and stroma
PROPERTIES = {
    **{key: ({key: "tumor"}, {key: "stroma"}) for key in NAMED},
    "1 and 0": ({"label": 1}, {"label": 0}),
    "1.0 and 0.0": ({"label": 1.0}, {"label": 0.0}),
    "true and false": ({"label": True}, {"label": False}),
    "True and False in a text": ({"Label": "True"}, {"Label": "False"}),
    "is_cancer": ({"is_cancer": 1, "class": "a"}, {"is_cancer": 0, "class": "b"}),
    "the slide's name before": ({"region": "slide1", "name": "tumor"}, {"region": "slide1", "name": "stroma"}),
    "the run before": ({"class": "run 1", "category": "tumor"}, {"class": "run 1", "category": "stroma"}),
    "what else geopandas has": (
        {"id": "a", "color": "#ff0000", "objectType": "annotation", "n": 1, "area": "12.5", "type": "tumor"},
        {"id": "b", "color": "#00ff00", "objectType": "annotation", "n": 2, "area": "7", "type": "stroma"},
    ),
    "names beside": ({"name": "ROI 1", "type": "tumor"}, {"name": "ROI 2", "type": "stroma"}),
    "an author beside": ({"author": "A. B.", "type": "tumor"}, {"author": "A. B.", "type": "stroma"}),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_property_with_classes(tmp_path, name):
    assert read(tmp_path, two(*PROPERTIES[name])) == {"a0": 1, "b0": 0}


def test_numbers_have_no_region(tmp_path):
    read(tmp_path, two({"label": 1}, {"label": 0}))
    assert set(read_labels(tmp_path / "drawing", spots(), WORDS)["region"]) == {""}


NOT_CLASSES = {
    "numbers of a class": (({"class": 1}, {"class": 0}), ["unknown words: 0, 1"]),
    "labels of three kinds": (({"label": 1}, {"label": 2}), ["unknown words: 1, 2"]),
    "an unknown class, and names": (
        ({"classification": "blob", "name": "ROI 1"}, {"classification": "blob", "name": "ROI 2"}),
        ["unknown words: blob"],
    ),
    "an unknown name, and another text": (({"name": "blob", "by": "A"}, {"name": "blub", "by": "A"}), ["blob, blub"]),
    "the only other text": (({"n": 3, "kind": "Krebs"}, {"n": 5, "kind": "Fett"}), ["unknown words: Fett, Krebs"]),
    "two other texts": (
        ({"kind": "Krebs", "by": "A", "area": 3}, {"kind": "Fett", "by": "A"}),
        ["2 polygons without a class (their properties are kind, by, area)", "or name one `classification`"],
    ),
    "no text": (({"area": 3}, {"area": 5}), ["their properties are area", "or name one `classification`"]),
}


@pytest.mark.parametrize("name", NOT_CLASSES)
def test_what_cannot_be_a_class_is_told(tmp_path, name):
    properties, words = NOT_CLASSES[name]
    told(tmp_path, two(*properties), *words)


def test_what_is_to_be_ignored_is_unknown(tmp_path):
    # the smaller area inside of the tumour is left out
    inner = feature(polygon([[7, 7], [13, 7], [13, 13], [7, 13], [7, 7]]), "Ignore*")
    both = json.dumps(collection(feature({"type": "MultiPolygon", "coordinates": [[A0], [B0]]}), inner))
    assert read(tmp_path, both) == {"b0": 1}
    WORDS_OF_ITS_OWN = {"tumor": 1.0, "ignore*": 0.0}
    labels = read_labels(tmp_path / "drawing", spots(), WORDS_OF_ITS_OWN)["label"]
    assert list(labels[:2]) == [0, 1]


ODD = [None, True, 0, 7, -1.5, 1e400, "", "x", "{", "[]", "{'name': 3}", [], [None], [[]], {}, {"name": {"name": 1}}]
PLACES = [
    ("type",), ("id",), ("geometry",), ("geometry", "type"), ("geometry", "coordinates"),
    ("geometry", "coordinates", 0), ("geometry", "coordinates", 0, 1), ("geometry", "coordinates", 0, 1, 0),
    ("geometry", "geometries"), ("properties",), ("properties", "objectType"), ("properties", "classification"),
    ("properties", "classification", "name"), ("properties", "classification", "names"), ("properties", "name"),
    ("properties", "class"), ("properties", "label"),
]  # fmt: skip


def read_or_told(tmp_path, text: str) -> dict | None:
    """As `read`; None if it was refused by the file's name."""
    try:
        return read(tmp_path, text)
    except InputError as error:
        if "drawing: " not in str(error):
            raise
        return None


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_nothing_in_a_field_ends_in_a_traceback(tmp_path, place):
    """Beside a good feature, any value is read past or told."""
    for odd, kind in itertools.product(ODD, ("Polygon", "GeometryCollection")):
        spoilt = json.loads(json.dumps(OTHER))
        spoilt["geometry"]["geometries"] = [polygon(B0)]
        spoilt["geometry"]["type"] = kind
        part = spoilt
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = odd
        found = read_or_told(tmp_path, json.dumps(collection(ONE, spoilt)))
        assert found in (None, {"a0": 1}, {"a0": 1, "b0": 0}), (odd, kind)


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("key", ["features", "crs", "type"])
def test_nothing_in_a_collection_ends_in_a_traceback(tmp_path, key, odd):
    found = read_or_told(tmp_path, json.dumps(collection(ONE) | {key: odd}))
    assert found in ((None, {"a0": 1}) if key == "features" else ({"a0": 1},) if key == "crs" else (None,))


# --- Xenium Explorer --------------------------------------------------------------------------------------------------

UM = {"spatial_um": CENTRES * 10}
CORNERS = {
    "one selection": "#Selection name: tumor\n#Area (µm^2): 10000.0\nX,Y\n50,50\n150,50\n150,150\n50,150\n50,50\n",
    "not closed": "#Selection name: tumor\nX,Y\n50,50\n150,50\n150,150\n50,150\n",
    "two in a spreadsheet": '"#Selection names: tumor, tumor",,\n"#Areas (µm^2): 1, 1",,\nSelection,X,Y\n'
    "tumor,50,50\ntumor,150,50\ntumor,150,150\ntumor,50,150\ntumor,50,50\n"
    "tumor,1000,1000\ntumor,1100,1000\ntumor,1100,1100\ntumor,1000,1000\n",
    "classes": "#Selection names: Selection 1\nSelection,X,Y,Class,Color\n"
    + "".join(f"Selection 1,{10 * x},{10 * y},Tumor,#c2c2c2\n" for x, y in A0),
    "no class chosen": "Selection,X,Y,Class,Color\n"
    + "".join(f"tumor,{10 * x},{10 * y},Unclassified,#c2c2c2\n" for x, y in A0),
}


@pytest.mark.parametrize("name", CORNERS)
def test_outlines_of_selections_are_in_micrometres(tmp_path, name):
    assert read(tmp_path, CORNERS[name], **UM) == {"a0": 1}


def test_outlines_of_several_selections(tmp_path):
    corners = [("tumor", A0), ("stroma", B0)]
    rows = [f"{word},{10 * x},{10 * y}" for word, ring in corners for x, y in ring]
    text = "\n".join(["#Selection names: tumor; stroma", "#Areas (µm^2): 100; 100", "Selection,X,Y", *rows])
    assert read(tmp_path, text, **UM) == {"a0": 1, "b0": 0}
    told(tmp_path, text, "outlines of selections of Xenium Explorer, in µm", "section S1 is not of the platform xenium")
    nameless = "\n".join(["#Selection names: tumor; stroma", "X,Y", *(row.partition(",")[2] for row in rows)])
    told(tmp_path, nameless, "selections tumor, stroma of Xenium Explorer", "no column Selection", **UM)
    told(tmp_path, text.replace("50,50", "50,far"), "corner 1 of the selections has no x or y", **UM)
    pixels = "\n".join(["Selection,X,Y", *(f"tumor,{50 * x},{50 * y}" for x, y in ALL)])
    told(tmp_path, pixels, "in µm on the slide, the polygons span", "multiplied by 0.2", **UM)
