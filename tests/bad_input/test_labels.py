"""Labels: tables and drawings as pathologists and software deliver them."""

import gzip
import json

import anndata
import numpy as np
import pandas as pd
import pytest

from ctrflow.sections.labels import read_labels

IDS = [f"AAAC{n:02d}-1" for n in range(9)]
CENTRES = np.array([(10.0 * x, 10.0 * y) for y in (1, 2, 3) for x in (1, 2, 3)])
WORDS = {"tumor": 1.0, "stroma": 0.0, "artefact": float("nan")}
NAME = "labels.tsv"


def section(**about):
    spots = anndata.AnnData(np.ones((9, 1)), obs=pd.DataFrame(index=IDS), obsm={"spatial": CENTRES})
    spots.uns["section"] = {"section": "S1", "spot_um": 55.0, "um_per_px": 1.0, "image_scale": 1.0} | about
    return spots


def labelled(content: str | bytes, encoding: str = "utf-8", **about):
    """A fault: a label file of this content."""

    def fault(folder):
        path = folder / NAME
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return lambda: read_labels(path, section(**about), WORDS)

    return fault


def table(header: str, *cells, separator: str = "\t") -> str:
    """A table with these cells for the first ids."""
    lines = [header, *(separator.join([name, *map(str, [cell])]) for name, cell in zip(IDS, cells, strict=False))]
    return "\n".join(lines) + "\n"


def ring(x_min, y_min, x_max, y_max):
    return [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max], [x_min, y_min]]


def feature(rings, word="tumor", kind="Polygon", **properties):
    shape = {"type": kind, "coordinates": rings}
    return {"type": "Feature", "geometry": shape, "properties": {"classification": {"name": word}} | properties}


def drawn(*features, **about):
    """A fault: a drawing of these features."""
    return labelled(json.dumps({"type": "FeatureCollection", "features": list(features)}), **about)


WHOLE = ring(5, 5, 35, 35)
GOOD = table("spot\tregion", "tumor", "stroma", "tumor")
FAULTS = {
    "saved as Unicode text by Excel": (labelled(GOOD, "utf-16"), [f"{NAME}: cannot be read as text (UTF-16)", "UTF-8"]),
    "an Excel workbook": (
        labelled(b"PK\x03\x04\x14\0"),
        [f"{NAME}: cannot be read as text (an Excel work", "export it"],
    ),
    "an old Excel workbook": (
        labelled(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        [f"{NAME}: cannot be read as text", "export"],
    ),
    "a QuPath data file": (labelled(b"\xac\xed\x00\x05sr\x00"), [f"{NAME}: cannot be read as text", "export"]),
    "gzipped and cut short": (labelled(gzip.compress(GOOD.encode())[:20]), [f"{NAME}: cannot be read", "download it"]),
    "an empty file": (labelled(""), [f"{NAME}: cannot be read as a table", "again"]),
    "only a header": (labelled("spot\tregion\n"), [f"{NAME}: no row", "of section S1", "export it again"]),
    "only ids": (labelled("\n".join(["spot", *IDS]) + "\n"), [f"{NAME}: columns spot", "a label (column is_cancer"]),
    "a title above the header": (labelled("Slide S1\t\n" + GOOD), [f"{NAME}: columns Slide S1", "a label table needs"]),
    "two header lines": (labelled("Slide\tPathology\n" + GOOD), [f"{NAME}: columns Slide, Pathology", "a label table"]),
    "a login page": (
        labelled("<!DOCTYPE html>\n<html>\n</html>\n"),
        [f"{NAME}: columns <!DOCTYPE", "a label table needs"],
    ),
    "annotations of ImageScope": (
        labelled("<?xml version='1.0'?>\n<Annotations/>\n"),
        [f"{NAME}: columns", "a label tab"],
    ),
    "barcodes without their suffix": (
        labelled(GOOD.replace("-1", "")),
        [f"{NAME}: no id matches section S1", "AAAC00, ", "AAAC00-1", "same form"],
    ),
    "barcodes with the sample before them": (
        labelled(GOOD.replace("AAAC", "S1_AAAC")),
        [f"{NAME}: no id matches section S1", "S1_AAAC00-1", "same form"],
    ),
    "barcodes in small letters": (
        labelled(GOOD.replace("AAAC", "aaac")),
        [f"{NAME}: no id matches section S1", "aaac00-1", "same form"],
    ),
    "labels of another section": (
        labelled(GOOD.replace("AAAC", "GGGT")),
        [f"{NAME}: no id matches section S1", "GGGT00-1", "check that both belong to the same section"],
    ),
    "barcodes of an aggregate": (
        labelled(GOOD + GOOD.replace("-1", "-2").split("\n", 1)[1]),
        [
            f"{NAME}: its ids have suffix -1 (3 rows), suffix -2 (3 rows): it is of an aggregate",
            "the rows of this section",
        ],
    ),
    "barcodes of another slide": (
        labelled(table("spot\tregion", "tumor") + "".join(f"CC{n}-1\ttumor\n" for n in range(4))),
        [
            f"{NAME}: 4 of its 5 ids are not in section S1, and 8 of the section's 9 are not",
            "give the table of this sec",
        ],
    ),
    "measurements of QuPath": (
        labelled("Image\tClass\tCentroid X µm\nhe.tif\ttumor\t1.5\n"),
        [f"{NAME}: measurements of QuPath", "Export objects as GeoJSON"],
    ),
    "shapes of napari": (
        labelled("index,shape-type,vertex-index,axis-0,axis-1\n0,polygon,0,5,5\n"),
        [f"{NAME}: corners of napari's shapes", "Export objects as GeoJSON"],
    ),
    "outlines of Xenium Explorer for a Visium section": (
        labelled("#Selection name: tumor\nX,Y\n5,5\n15,5\n15,15\n"),
        [f"{NAME}: outlines of selections of Xenium Explorer, in µm", "S1 is not of the platform xenium", "GeoJSON"],
    ),
    "rows numbered": (
        labelled("spot\tregion\n0\ttumor\n1\tstroma\n"),
        [f"{NAME}: no id matches section S1", "it has 0, 1", "same form"],
    ),
    "words with a typing error": (
        labelled(table("spot\tregion", "tumour bed", "strома", "tumor")),
        [f"{NAME}: unknown words: strома, tumour bed", "add each to config/label_words.tsv"],
    ),
    "words of another language": (
        labelled(table("spot\tregion", "Tumorgewebe", "Bindegewebe")),
        [f"{NAME}: unknown words: Bindegewebe, Tumorgewebe", "1 (cancer), 0 (other) or unknown"],
    ),
    "1 and 2 for classes": (
        labelled(table("spot\tlabel", 1, 2, 2)),
        [f"{NAME}: unknown words: 1, 2", "add each to config/label_words.tsv"],
    ),
    "a share of tumour cells": (
        labelled(table("spot\tlabel", 0.8, 0.05)),
        [f"{NAME}: unknown words: 0.05, 0.8", "1 (cancer), 0 (other) or unknown"],
    ),
    "yes and no": (
        labelled(table("spot\tis_cancer", "yes", "no")),
        [f"{NAME}: row 2, column is_cancer: 'yes'", "write 1 (cancer), 0 (other)"],
    ),
    "-1 for unknown": (
        labelled(table("spot\tis_cancer", 1, 0, -1)),
        [f"{NAME}: row 4, column is_cancer: '-1'", "nothing (unknown)"],
    ),
    "a decimal comma": (
        labelled(table("spot;is_cancer", "1,0", "0,0", separator=";")),
        [f"{NAME}: row 2, column is_cancer: '1,0'", "write 1"],
    ),
    "two pathologists who disagree": (
        labelled(GOOD + f"{IDS[0]}\tstroma\n"),
        [f"{NAME}: two different labels for {IDS[0]}", "keep one row each"],
    ),
    "a row with a cell too many": (labelled(GOOD + f"{IDS[5]}\ttumor\tsure\n"), [f"{NAME}: cannot be read", "again"]),
    "rows with two cells too many": (
        labelled("spot\tregion\n" + "".join(f"{name}\ttumor\tsure\tyes\n" for name in IDS)),
        [f"{NAME}: rows have 2 cells more than the header", "name every column"],
    ),
    "a number for each spot": (
        labelled(table("spot\tcluster", *range(9)) + "".join(f"s{n}\t{n}\n" for n in range(9, 99))),
        [f"{NAME}: unknown words: 0, 1, 2", "add each"],
    ),
    "infinite positions": (
        labelled("x\ty\tlabel\ninf\t1\ttumor\n1e300\t2\tstroma\n"),
        [f"{NAME}: no row with a spot of section S1", "export it again"],
    ),
    "the last row cut short": (labelled(GOOD + IDS[5]), [f"{NAME}: the last row has too few cells", "again"]),
    "a quote left open": (labelled(GOOD + f'{IDS[5]}\t"tumor\n'), [f"{NAME}: cannot be read as a table", "again"]),
    "a class of half a character": (
        drawn(feature([WHOLE], word="tu\ud800mor")),
        [f"{NAME}: unknown words: tu mor", "add each to config/label_words.tsv"],
    ),
    "a number where the names of a class are": (
        drawn(feature([WHOLE], classification={"names": 5})),
        [f"{NAME}: unknown words: 5", "add each to config/label_words.tsv"],
    ),
    "a drawing cut short": (
        labelled(json.dumps(feature([WHOLE]))[:-30]),
        [f"{NAME}: not valid JSON", "export it again"],
    ),
    "a drawing in µm": (
        drawn(feature([ring(5005, 5005, 5035, 5035)]), image_scale=2.0),
        [f"{NAME}: no polygon contains a spot of section S1", "the spots x 20 to 60", "image_scale"],
    ),
    "a drawing on a picture of half the size": (
        drawn(feature([ring(2.5, 2.5, 12, 17.5)]), feature([ring(12, 2.5, 17.5, 17.5)], "stroma")),
        [f"{NAME}: the polygons contain 11% of the spots of section S1", "multiplied by 2, they would contain 100%"],
    ),
    "a drawing on a picture of 0.2 of the size": (
        drawn(feature([ring(1, 1, 3, 7)]), feature([ring(3, 1, 7, 7)], "stroma")),
        [
            f"{NAME}: no polygon contains a spot of section S1",
            "multiplied by 5, they would contain 100%",
            "image_scale",
        ],
    ),
    "a drawing on a picture twice as large": (
        drawn(feature([ring(10, 10, 34, 70)]), feature([ring(34, 10, 70, 70)], "stroma")),
        [f"{NAME}: the polygons contain 44% of the spots of section S1", "multiplied by 0.5, they would contain 100%"],
    ),
    "a drawing in degrees": (
        labelled(
            json.dumps(
                {
                    "type": "FeatureCollection",
                    "features": [feature([ring(48.1, 11.2, 48.2, 11.3)])],
                    "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
                }
            )
        ),
        [f"{NAME}: no polygon contains a spot of section S1", "CRS84, but px are needed"],
    ),
    "a drawing counted upwards": (
        drawn(feature([ring(5, -35, 35, -5)])),
        [
            f"{NAME}: no polygon contains a spot of section S1",
            "y -35 to -5",
            "from the image in the section sheet",
        ],
    ),
    "a drawing of points": (
        drawn({"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}),
        [f"{NAME}: no annotation with an area and a class", "1 points or lines"],
    ),
    "a drawing of one line": (
        drawn(feature([[5, 5], [35, 35]], kind="LineString")),
        [f"{NAME}: no annotation with an area and a class", "assign a class to the annotations in QuPath"],
    ),
    "a drawing without classes": (
        drawn(feature([WHOLE], "")),
        [f"{NAME}: no annotation with an area and a class: 1 polygons without a class", "in QuPath"],
    ),
    "a drawing of cells": (
        drawn(feature([WHOLE], objectType="cell")),
        [f"{NAME}: no annotation with an area and a class", "1 cells, detections or tiles"],
    ),
    "a class with a typing error": (
        drawn(feature([WHOLE], "Tumorr")),
        [f"{NAME}: unknown words: Tumorr", "add each to config/label_words.tsv"],
    ),
    "one outline in two classes": (
        drawn(feature([WHOLE]), feature([WHOLE], "stroma")),
        [f"{NAME}: annotations 1 ('tumor') and 2 ('stroma')", "delete one of them"],
    ),
    "a polygon without its rings": (
        drawn(feature(WHOLE)),
        [f"{NAME}: feature 1: its coordinates are not a valid polygon", "export it again"],
    ),
    "a polygon with a coordinate in words": (
        drawn(feature([[["1,5", 5], [35, 5], [35, 35], ["1,5", 5]]])),
        [f"{NAME}: feature 1: its coordinates are not a valid polygon", "export it again"],
    ),
    "a polygon that reaches to infinity": (
        labelled(json.dumps(feature([WHOLE])).replace("35", "1e999")),
        [f"{NAME}: feature 1: a coordinate is not a finite number", "export it again"],
    ),
    "JSON of another kind": (
        labelled('{"tissue_hires_scalef": 0.2}'),
        [f"{NAME}: JSON, but not GeoJSON features", "Export objects as GeoJSON"],
    ),
    "features in a feature": (
        labelled(json.dumps({"type": "FeatureCollection", "features": {"0": feature([WHOLE])}})),
        [f"{NAME}: JSON, but not GeoJSON features", "or give a table of labels"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_reported(name, tmp_path, assert_error):
    fault, words = FAULTS[name]
    assert_error(fault(tmp_path), words)


ISLAND = ring(5, 5, 15, 15)  # around the first spot
BOW_TIE = [[5, 5], [15, 15], [15, 5], [5, 15], [5, 5]]  # its middle is the first spot's centre
HARMLESS = {
    "a byte-order mark and CRLF": (labelled("\ufeff" + GOOD.replace("\n", "\r\n")), [1, 0, 1]),
    "gzip without its suffix": (labelled(gzip.compress(GOOD.encode())), [1, 0, 1]),
    "semicolons and quotes": (labelled(GOOD.replace("\t", ";").replace("tumor", '"tumor"')), [1, 0, 1]),
    "capitals and a number": (labelled(GOOD.replace("tumor", "TUMOR_2")), [1, 0, 1]),
    "spaces around all": (labelled(GOOD.replace("\t", " \t ")), [1, 0, 1]),
    "no last line end": (labelled(GOOD.rstrip("\n")), [1, 0, 1]),
    "the same row twice": (labelled(GOOD + GOOD.splitlines()[1] + "\n"), [1, 0, 1]),
    "rows of other sections too": (labelled(GOOD + "ZZZ-1\tmystery\n"), [1, 0, 1]),
    "1.0 and 0.0 and NA": (labelled(table("barcode\tlabel", "1.0", "0.0", "NA", 1)), [1, 0, None, 1]),
    "the number sign of a comment": (labelled("# by A. B.\n" + GOOD), [1, 0, 1]),
    "the category of Loupe Browser": (labelled(GOOD.replace("spot\tregion", "Barcode\tPathology")), [1, 0, 1]),
    "cells of a selection of Xenium Explorer": (
        labelled("#Selection name: tumor\n" + table("Cell ID\tCluster", "Cluster 1", "Cluster 9")),
        [1, 1],
    ),
    "unnamed barcodes beside x, y and label": (labelled(table("\tx\ty\tlabel", "1\t2\ttumor", "2\t2\tstroma")), [1, 0]),
    "a feature a line": (labelled(json.dumps(feature([ISLAND])) + "\n" + json.dumps(feature([ISLAND])) + "\n"), [1]),
    "a class as JSON in a text": (drawn(feature([ISLAND], classification='{"name": "tumor"}')), [1]),
    "a class to be ignored": (drawn(feature([WHOLE]), feature([ring(7, 7, 13, 13)], "Ignore*")), [None, *[1] * 8]),
    "a drawing with heights": (drawn(feature([[[*point, 7.0] for point in ISLAND]])), [1]),
    "a drawing with reversed orientation": (drawn(feature([ISLAND[::-1]])), [1]),
    "a drawing that is not closed": (drawn(feature([ISLAND[:-1]])), [1]),
    "a drawing with a corner twice": (drawn(feature([[ISLAND[0], *ISLAND]])), [1]),
    "a drawing whose outline crosses itself": (drawn(feature([[*ISLAND[:3], [20, 3], [5, 15], [5, 5]]])), [1]),
    "a drawing of a line without width": (drawn(feature([[[5, 5], [9, 5], [5, 5]]]), feature([ISLAND])), [1]),
    "a drawing with a byte-order mark": (labelled("\ufeff" + json.dumps(feature([ISLAND]))), [1]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_it_is_read_correctly(name, tmp_path):
    fault, first = HARMLESS[name]
    labels = [None if pd.isna(label) else int(label) for label in fault(tmp_path)()["label"]]
    assert labels == first + [None] * (len(IDS) - len(first))


WARNINGS = {
    "labels of another slide with the same barcodes": (
        labelled(table("spot\tregion", "tumor", "tumor") + "CCCC-1\ttumor\nTTTT-1\ttumor\n"),
        [f"{NAME}: 2 of its 4 ids are not in section S1", "check that the table belongs to this section"],
    ),
    "an annotation without a class among others": (
        drawn(feature([ISLAND]), feature([ring(15, 5, 25, 15)], "")),
        [f"{NAME}: ignored 1 polygons without a class", "assign one in QuPath"],
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_it_gives_a_warning(name, tmp_path, assert_warning):
    fault, words = WARNINGS[name]
    assert_warning(fault(tmp_path), words)
