"""Labels from every kind of table, and the published prevalences of HER2ST."""

import gzip
import json
import logging
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from ctrflow.errors import InputError
from ctrflow.export.qupath import qupath_geojson
from ctrflow.readers import read_section
from ctrflow.sections.labels import read_labels, read_words
from ctrflow.storage import read_tsv, write_tsv

DATA = Path(__file__).parents[4] / "shared" / "data"
WORDS = read_words(Path(__file__).parents[3] / "config" / "label_words.tsv")
SPOTS = ["10x13", "2x3", "4x5", "6x7"]


def section(ids=SPOTS, **obsm):
    table = anndata.AnnData(np.ones((len(ids), 1)), obs=pd.DataFrame(index=list(ids)), obsm=obsm)
    table.uns["section"] = {"section": "S1", "spot_um": 55.0, "um_per_px": 2.0, "image_scale": 1.0}
    return table


def labels(tmp_path, text, spots=None, cells=None, words=WORDS, name="labels.tsv"):
    """(labels with None for unknown, regions) of a table written here."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    spots = section() if spots is None else spots
    table = read_labels(path, spots, words, cells)
    assert list(table.columns) == ["spot", "label", "region"]
    assert list(table["spot"]) == list(spots.obs_names)
    return [None if pd.isna(value) else int(value) for value in table["label"]], list(table["region"])


def told(tmp_path, text, *fragments, **more):
    with pytest.raises(InputError) as caught:
        labels(tmp_path, text, **more)
    message = str(caught.value)
    assert [part for part in ("labels.tsv", *fragments) if part not in message] == [], message


def test_the_pathologists_table_of_her2st(tmp_path):
    text = (
        "Row.names\tx\ty\tpixel_x\tpixel_y\tlabel\n"
        "1x1\t4.021\t4.98\t1\t1\tinvasive cancer\n"
        "1x2\t9.6\t13.4\t1\t1\tcancer in situ\n"
        "1x3\t\t\t1\t1\tadipose tissue\n"  # annotated, but on no spot
        "1x4\tNaN\t3\t1\t1\tadipose tissue\n"
        "1x5\t2.4\t2.51\t1\t1\tundetermined\n"
        "1x6\t30.0\t30.0\t1\t1\tconnective tissue\n"  # a spot without counts
    )
    assert labels(tmp_path, text) == (
        [1, 0, 1, None],
        ["cancer in situ", "undetermined", "invasive cancer", ""],
    )


@pytest.mark.parametrize("name", ["spot", "Barcode", "CELL_ID", "", "index", "Unnamed: 0"])
def test_every_id_column_and_separator(tmp_path, name):
    for separator in "\t,;":
        text = f"{name}|Region\n6x7|Invasive_Tumor\n2x3|Stroma\n".replace("|", separator)
        assert labels(tmp_path, text) == ([None, 0, None, 1], ["", "Stroma", "", "Invasive_Tumor"])


def test_r_writes_no_header_for_the_ids(tmp_path):
    assert labels(tmp_path, "cluster\n2x3\ttumor\n4x5\tnormal\n")[0] == [None, 1, 0, None]


def test_zero_one_is_the_label_and_the_word_the_region(tmp_path):
    text = "spot\tlabel\tis_cancer\tlabel_dist_pitch\n10x13\tmade up\t1\t0\n2x3\tinvasive cancer\t0\t0\n4x5\tfat\t\t0\n"
    assert labels(tmp_path, text) == ([1, 0, None, None], ["made up", "invasive cancer", "fat", ""])


@pytest.mark.parametrize("text", ["spot,label\n2x3,1\n4x5,0\n6x7,\n", "spot,is_cancer\n2x3,1.0\n4x5,false\n6x7,NA\n"])
def test_only_zero_one(tmp_path, text):
    assert labels(tmp_path, text) == ([None, 1, 0, None], ["", "", "", ""])


def test_numbers_of_clusters_are_words_not_labels(tmp_path):
    told(tmp_path, "Barcode,Cluster\n2x3,1\n4x5,0\n", "unknown words: 0, 1", "config/label_words.tsv")


def test_the_file_of_words_is_named(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text("spot,region\n2x3,mystery\n")
    with pytest.raises(InputError) as caught:
        read_labels(path, section(), WORDS, words_path="lab/words.tsv")
    assert "unknown words: mystery; add each to lab/words.tsv with" in str(caught.value)
    assert "config/" not in str(caught.value)


def test_words_ignore_case_separators_and_numbers(tmp_path):
    words = {"DCIS": 1.0, "t cells": 0.0, "IDC": 1.0, "idc 4": 0.0, "odd": float("nan")}
    text = "spot\tcell_type\n10x13\tDCIS_2\n2x3\tT-Cells\n4x5\tIDC_4\n6x7\tODD\n"
    assert labels(tmp_path, text, words=words)[0] == [1, 0, 0, None]


def test_its_own_output_reads_back(tmp_path):
    (tmp_path / "a.csv").write_text("spot,region\n2x3,tumor\n4x5,stroma\n")
    first = read_labels(tmp_path / "a.csv", section(), WORDS)
    write_tsv(first, tmp_path / "labels.tsv")
    assert (tmp_path / "labels.tsv").read_text().splitlines()[1:4] == ["10x13\t\t", "2x3\t1\ttumor", "4x5\t0\tstroma"]
    pd.testing.assert_frame_equal(read_labels(tmp_path / "labels.tsv", section(), {}), first)
    assert read_tsv(tmp_path / "labels.tsv")["label"].sum() == 1


def test_a_section_without_labels():
    table = read_labels("", section(), WORDS)
    assert list(table["spot"]) == SPOTS
    assert table["label"].isna().all()
    assert list(table["region"]) == [""] * 4


def test_bad_tables_are_reported(tmp_path):
    told(tmp_path, "spot,region\n2x3,mystery\n4x5,Blob\n", "Blob, mystery", "config/label_words.tsv", "unknown")
    told(tmp_path, "spot,region\n2-3,tumor\n", "2-3", "10x13, 2x3, 4x5", "S1", "same form")
    told(tmp_path, "spot,is_cancer\n2x3,1\n4x5,2\n", "row 3", "is_cancer", "'2'", "1 (cancer), 0 (other)")
    told(tmp_path, "spot,label\n2x3,1\n2x3,0\n", "two different labels", "2x3", "one row")
    told(tmp_path, "spot,colour\n2x3,red\n", "column colour: unknown words: red", "config/label_words.tsv")
    told(tmp_path, "spot,colour,size\n2x3,red,4\n", "spot, colour, size", "is_cancer")
    told(tmp_path, "place,label\n2x3,1\n", "place, label", "barcode")
    told(tmp_path, "", "cannot be read")
    with pytest.raises(InputError, match=r"none.tsv: no such file"):
        read_labels(tmp_path / "none.tsv", section(), WORDS)


def test_words_of_rows_outside_the_section_do_not_matter(tmp_path):
    assert labels(tmp_path, "spot,region\n2x3,tumor\n99x99,mystery\n")[0] == [None, 1, None, None]


# cells of three spots, and one between them
CELL_SPOTS = ["r0", "r0", "r0", "r1", "r1", "r2", "r2", None]
CELL_WORDS = ["DCIS_1", "Invasive_Tumor", "Stromal", "DCIS_1", "Stromal", "Unlabeled", "Unlabeled", "Invasive_Tumor"]


@pytest.mark.parametrize(
    ("ids", "warned"),
    [
        (SPOTS[:2], False),  # a part of the section
        ([*SPOTS, "1x1", "1x2"], False),  # the whole slide
        ([*SPOTS[:2], "1x1"], True),  # some of its barcodes, which are the same on every slide
    ],
)
def test_a_table_of_another_section_gives_a_warning(tmp_path, caplog, ids, warned):
    labels(tmp_path, "spot,region\n" + "".join(f"{name},tumor\n" for name in ids))
    assert (
        "1 of its 3 ids are not in section S1, and 2 of the section's 4 are not in the table" in caplog.text
    ) == warned
    assert ("this section" in caplog.text) == warned


def test_a_spot_takes_the_majority_of_its_labelled_cells(tmp_path):
    cells = section([str(n) for n in range(1, 9)])
    cells.obs["spot"] = pd.Categorical(CELL_SPOTS)
    spots = section(["r0", "r1", "r2", "far"])
    text = "Barcode,Cluster\n" + "".join(f"{n},{word}\n" for n, word in enumerate(CELL_WORDS, start=1))
    # r0: two cancer, one other; every word once, so the first by name. r1: a tie. r2: no cell with a label.
    assert labels(tmp_path, text, spots, cells) == ([1, 0, None, None], ["DCIS_1", "DCIS_1", "Unlabeled", ""])
    # cells without a word do not outvote one with a word
    assert labels(tmp_path, "Barcode,Cluster\n1,DCIS\n2,\n", spots, cells) == (
        [1, None, None, None],
        ["DCIS", "", "", ""],
    )
    text = "cell_id\tlabel\n1\t1\n2\t0\n3\t0\n4\t1\n6\t0\n"  # cell 5 is not in the table
    assert labels(tmp_path, text, spots, cells) == ([0, 1, 0, None], ["", "", "", ""])
    # a table by spot is taken as it is
    assert labels(tmp_path, "spot,label\nr1,1\n", spots, cells)[0] == [None, 1, None, None]


def test_the_list_of_words(tmp_path):
    assert WORDS["invasive cancer"] == WORDS["cancer in situ"] == WORDS["invasive tumor"] == 1
    names = ("connective tissue", "adipose tissue", "breast glands", "immune infiltrate", "undetermined")
    assert [WORDS[name] for name in names] == [0] * 5
    assert np.isnan(WORDS["unlabeled"])
    path = tmp_path / "words.tsv"
    for text, fragment in [
        ("tumor\t1\n", "first row"),
        ("word\tlabel\ntumor\tyes\n", "row 2: write a word"),
        ("word\tlabel\ntumor 1\n", "row 2: write a word"),
        ("word\tlabel\n# note\nT_cell\t0\nt cell\t1\n", "row 4: 't cell' has another label in row 3"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=fragment):
            read_words(path)


def test_a_cohort_can_have_words_of_its_own(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text(
        "word\tlabel\tcohort\n"
        "# of MEATRD\n"
        "tumor edge\t1\tmeatrd_edge\n"
        "Tumor_Edge\tunknown\n"
        "tumor\t1\t\n"
        "tumor\t0\tmeatrd_edge\n"
        "fat\t0\tlab\n"
    )
    general = read_words(path)
    assert np.isnan(general.pop("tumor edge"))
    assert general == {"tumor": 1}
    # its own rows win, whether they come before or after the general ones; those of others are not seen
    assert read_words(path, "meatrd_edge") == {"tumor edge": 1, "tumor": 0}
    assert read_words(path, "Lab")["fat"] == 0
    for text, fragment in [
        ("word\tlabel\tcohort\ntumor\t1\tA\nTUMOR\t0\tA\n", "row 3: 'TUMOR' has another label in row 2"),
        ("word\tlabel\tcohort\ntumor\t1\tA\tB\n", "row 2: write a word.* optionally a tab and a cohort"),
        ("word\tlabel\ntumor\t1\tA\n", "row 2: write a word, a tab, and 1 .cancer., 0 .other. or unknown$"),
        ("word\tlabel\tsection\ntumor\t1\tA\n", "first row"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=fragment):
            read_words(path, "A")


@pytest.mark.parametrize(
    "header",
    ["Pathologist annotation", "Pathologist Annotation", "Pathologist Annotations", "Pathologist_KH"],
)
def test_every_header_of_the_colorectal_sections(tmp_path, header):
    text = f"Barcode,{header}\n2x3,tumor&stroma_IC low\n4x5,exclude\n6x7,stroma_fibroblastic_IC_med\n10x13,\n"
    assert labels(tmp_path, text) == (
        [None, 1, None, 0],
        ["", "tumor&stroma_IC low", "exclude", "stroma_fibroblastic_IC_med"],
    )


PUBLIC_WORDS = [
    *("DCIS/LCIS_4", "IDC_7", "Healthy_1", "CD4+_T_Cells", "Macrophages_2", "Prolif_Invasive_Tumor", "Mast_Cells"),
    *("Perivascular-Like", "Stromal_&_T_Cell_Hybrid", "Myoepi_KRT15+", "B_Cells", "DCIS", "Myoepi", "Ductal"),
    *("Adipocytes", "Stromal", "tumor&stroma_IC low", "tumor&stroma_IC med to high", "stroma_desmoplastic_IC low"),
    "IC aggregate_submucosa",
]


@pytest.mark.parametrize("word", PUBLIC_WORDS)
def test_words_of_public_annotations_are_known(tmp_path, word):
    expected = int(any(part in word for part in ("DCIS", "IDC", "Invasive", "tumor&")))
    assert labels(tmp_path, f"spot\tannotation\n2x3\t{word}\n")[0] == [None, expected, None, None]


# --- tables of other programs -----------------------------------------------------------------------------------------

EXPLORER = "#Selection name: tumor\n#Area (µm^2): 100.0\n"
CELLS = "Cell ID,Cluster,Transcripts,Area (µm^2)\n2x3,Cluster 1,5,9.1\n4x5,Cluster 7,8,9.1\n"
FOREIGN = {
    "cells of a selection": EXPLORER + CELLS,
    "its cells without a clustering": EXPLORER + "Cell ID,Transcripts,Area (µm^2)\n2x3,5,9.1\n4x5,8,9.1\n",
    "its cells saved by a spreadsheet": EXPLORER.replace("\n", ",,,\n").replace("#", '"#', 1).replace(",", '",', 1)
    + CELLS,
    "its cells with a byte-order mark and CRLF": "\ufeff" + (EXPLORER + CELLS).replace("\n", "\r\n"),
    "its cells after an empty line": "\n" + EXPLORER + "\n" + CELLS,
    "selections in a column": "#Selection names: tumor, stroma\n#Areas (µm^2): 1, 2\nCell ID,Selection,Cluster\n"
    "2x3,tumor,Cluster 1\n4x5,tumor,Cluster 2\n",
    "selections in the column Cluster": "#Selection names: tumor; stroma\nCell ID,Cluster\n2x3,tumor\n4x5,tumor\n",
    "the # lines left out": "Cell ID,Cluster,Transcripts,Area (µm^2)\n2x3,tumor,5,9.1\n4x5,tumor,8,9.1\n",
    "other comments": "# by A. B., 3 May\n#\nspot\tregion\n2x3\ttumor\n4x5\ttumor\n",
    "a header of numpy.savetxt": "# barcode,label\n2x3,tumor\n4x5,tumor\n",
    "a comment about the ids": "# spot, as on the array\nspot,region\n2x3,tumor\n4x5,tumor\n",
    "Loupe Browser": "Barcode,Pathology of R1\n2x3,tumor\n4x5,Tumor\n6x7,\n",
    "Loupe Browser, quoted": '"Barcode","Pathology, of R1"\r\n"2x3","tumor"\r\n"4x5","tumor"\r\n',
    "Loupe Browser, saved by a spreadsheet": "Barcode;Pathology of R1;\n2x3;tumor;\n4x5;tumor;\n",
    "obs.to_csv": ",x,y,label\n2x3,10.5,20,tumor\n4x5,1,7,tumor\n",
    "obs.to_csv of an index with a name": "index,array_row,x,y,label\n2x3,1,10.5,20,tumor\n4x5,2,1,7,tumor\n",
    "obs.to_csv beside numbers of cells": ",cell_id,label\n2x3,0,tumor\n4x5,1,tumor\n",
    "groups of Xenium Explorer": "cell_id,group,color\n2x3,tumor,#ff0000\n4x5,tumor,#ff0000\n",
    "R's row names": "Pathology\n2x3\ttumor\n4x5\ttumor\n",
    "R's row names beside numbers of cells": "cell_id\tPathology\n2x3\t1\ttumor\n4x5\t2\ttumor\n",
    "R's row names twice": "barcode\tPathology\n2x3\t2x3\ttumor\n4x5\t4x5\ttumor\n",
    "HER2ST, written by pandas": ",x,y,label\n0,2.1,3.02,tumor\n1,3.9,4.7,tumor\n2,,,tumor\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_tables_of_other_programs(tmp_path, name):
    assert labels(tmp_path, FOREIGN[name])[0] == [None, 1, 1, None]


@pytest.mark.parametrize("number", ["", "id", "index"])
def test_numbers_of_rows_are_no_ids_of_cells(tmp_path, number):
    cells = section(list("123456"))
    # R's write.csv of a filtered table: all four row numbers are ids of cells, but 99 of its cell_id is not
    text = f'"{number}","cell_id","cell_type"\n"1","4","tumor"\n"2","5","tumor"\n"3","6","stroma"\n"4","99","stroma"\n'
    assert labels(tmp_path, text, cells)[0] == [None, None, None, 1, 1, 0]
    # without a match of the named column, the unnamed numbers are the ids
    text = f"{number},cell_id,cell_type\n1,c7,tumor\n3,c8,stroma\n"
    assert labels(tmp_path, text, cells)[0] == [1, None, 0, None, None, None]


CONSTANT = {
    "SpatialData's region": ",cell_id,region,cell_type\n0,2x3,cell_circles,tumor\n1,4x5,cell_circles,stroma\n",
    "the name of the slide": "barcode,region,cluster,cell_type\n2x3,slide1,A,tumor\n4x5,slide1,A,stroma\n",
    "names of several slides": "barcode,region,cell_type\n2x3,s1,tumor\n4x5,s1,stroma\nGGT,s2,tumor\nGGC,s2,tumor\n",
    "a column of nothing": "barcode,region,cell_type\n2x3,,tumor\n4x5,NA,stroma\n",
}


@pytest.mark.parametrize("name", CONSTANT)
def test_an_unknown_word_that_is_the_same_in_all_rows_is_no_label(tmp_path, name):
    assert labels(tmp_path, CONSTANT[name]) == ([None, 1, 0, None], ["", "tumor", "stroma", ""])


def test_a_word_that_is_not_the_same_in_all_rows_is_a_label(tmp_path):
    # of one nest the rest is unknown, and a typing error is told
    told(tmp_path, "barcode,region,cluster\n2x3,tumr,1\n4x5,,2\n", "unknown words: tumr")
    told(tmp_path, "barcode,region,cell_type\n2x3,s1,tumor\n4x5,s2,stroma\n", "unknown words: s1, s2")
    assert labels(tmp_path, "barcode,region,cluster\n2x3,tumor,A\n4x5,tumor,B\n")[0] == [None, 1, 1, None]
    told(tmp_path, "barcode,region\n2x3,slide1\n4x5,slide1\n", "unknown words: slide1")


def test_a_hash_after_the_header_is_an_id(tmp_path):
    assert labels(tmp_path, "# a\nspot,region\n#1,tumor\n2x3,stroma\n", section(["#1", "2x3"]))[0] == [1, 0]


def test_the_selection_is_the_label_and_not_the_cluster(tmp_path, caplog):
    cells = section(["c1", "c2", "c3"])
    cells.obs["spot"] = pd.Categorical(["r0", "r0", "r1"])
    spots = section(["r0", "r1"])
    text = EXPLORER + "Cell ID,Cluster\nc1,stroma\nc2,stroma\n"
    with caplog.at_level(logging.INFO, logger="ctrflow"):
        assert labels(tmp_path, text, spots, cells) == ([1, None], ["tumor", ""])
    assert "labels are from the selection 'tumor', not from column Cluster" in caplog.text
    assert "2 of its 2 ids are of section S1, which has 3" in caplog.text


OF_NO_USE = {
    "selections without a column": (
        "#Selection names: tumor; stroma\nCell ID,Cluster\n2x3,Cluster 1\n",
        ["selections tumor, stroma of Xenium Explorer", "no column Selection", "add that column"],
    ),
    "measurements of QuPath": (
        "Image\tObject ID\tName\tClass\tCentroid X µm\tCentroid Y µm\tArea µm^2\nhe.tif\t1\t\ttumor\t10\t10\t100\n",
        ["measurements of QuPath", "Export objects as GeoJSON"],
    ),
    "measurements of QuPath 0.5": (
        "Image,Object ID,Object type,Name,Classification,Parent,ROI,Centroid X px,Centroid Y px\nh,1,A,,t,R,P,1,1\n",
        ["measurements of QuPath", "Export objects as GeoJSON"],
    ),
    "shapes of napari": (
        "index,shape-type,vertex-index,axis-0,axis-1\n0,polygon,0,5,5\n0,polygon,1,15,5\n0,polygon,2,15,15\n",
        ["corners of napari's shapes", "axis-1 and axis-0", "Export objects as GeoJSON"],
    ),
    "the only other column": ("Barcode,Graph-based\n2x3,Cluster 1\n", ["column graph_based: unknown words: Cluster 1"]),
    "a comma in the first row's word": (
        "Barcode,Anno\n2x3,tumor, stroma\n4x5,tumor\n6x7,stroma\n",
        ["rows have a cell more than the header", "put words with a comma in quotes, or separate by tabs"],
    ),
    "a comma in the first row's word, ids of another name": (
        "Barcodes,Anno\n2x3,tumor, stroma\n4x5,tumor\n6x7,stroma\n",
        ["rows have a cell more than the header", "in quotes"],
    ),
    "a comma in a later row's word": (
        "Barcode,Anno\n2x3,tumor\n4x5,tumor, stroma\n6x7,stroma\n",
        ["cannot be read as a table", "line 3, saw 3", "put words with a comma in quotes"],
    ),
    "a comma in every row's word": (
        "Barcode,Anno\n2x3,invasive,tumor\n4x5,invasive,tumor\n6x7,in situ,tumor\n",
        ["rows have a cell more than the header", "in quotes"],
    ),
    "a comma between numbers": (
        "Barcode,Cluster\n2x3,1,0\n4x5,1,0\n6x7,2,0\n",
        ["rows have a cell more than the header", "in quotes"],
    ),
    "a comma at the end of every row": (
        "Barcode,Anno\n2x3,tumor,\n4x5,stroma,\n6x7,tumor,\n",
        ["rows have a cell more than the header", "name every column"],
    ),
    "outlines in a table of geopandas": (
        ',label,geometry\n0,tumor,"POLYGON ((5 5, 9 5, 9 9, 5 5))"\n1,stroma,"POLYGON ((1 1, 2 1, 2 2, 1 1))"\n',
        ["areas as text in column geometry", "to_file(..., driver='GeoJSON')"],
    ),
    "rows of several sections": ("spot,label\n2x3,1\n2x3,0\n", ["of several sections, keep the rows of this one"]),
    "only comments": ("#Selection name: tumor\n", ["cannot be read as a table"]),
    "an error in a row after comments": ("# a\n# b\nspot,is_cancer\n2x3,1\n4x5,2\n", ["row 5, column is_cancer"]),
}


@pytest.mark.parametrize("name", OF_NO_USE)
def test_tables_of_no_use_are_named(tmp_path, name):
    text, words = OF_NO_USE[name]
    told(tmp_path, text, *words)


def test_outlines_in_a_table_are_told_for_numbered_cells_too(tmp_path):
    text = ',label,geometry\n0,tumor,"POLYGON ((5 5, 9 5, 9 9, 5 5))"\n1,stroma,"MULTIPOLYGON (((1 1, 2 1, 2 2)))"\n'
    told(tmp_path, text, "areas as text in column geometry", spots=section([str(n) for n in range(6)]))
    # a table of all cells may have their outlines
    assert labels(tmp_path, text, section(["0", "1"]))[0] == [1, 0]
    assert labels(tmp_path, text.replace("\n0,", "\n2x3,").replace("\n1,", "\n4x5,"))[0] == [None, 1, 0, None]


BINARY = {
    "a GeoPackage": b"SQLite format 3\0",
    "a parquet file": b"PAR1\x15\x04",
    "a FlatGeobuf": b"fgb\x03fgb\0",
    "a shapefile": b"\0\0\x27\x0a\0",
}


@pytest.mark.parametrize("kind", BINARY)
def test_areas_in_other_formats_are_named(tmp_path, kind):
    (tmp_path / "areas").write_bytes(BINARY[kind])
    with pytest.raises(InputError, match=rf"areas: {kind}; export areas as GeoJSON .*driver='GeoJSON'"):
        read_labels(tmp_path / "areas", section(), WORDS)


def test_letters_that_are_not_utf_8(tmp_path):
    (tmp_path / "labels.csv").write_bytes("spot,region\n2x3,Drüse\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"not UTF-8.*save it as UTF-8 text \(in Excel: CSV UTF-8\)"):
        read_labels(tmp_path / "labels.csv", section(), WORDS)


def test_a_word_may_begin_with_a_hash(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("# a\n#none\t1\nword\tlabel\n#\t0\n# a row\t1\n#of nothing\n#to do\tsoon\n#2\t0\n#1\t1\n")
    words = read_words(path)
    assert words == {"#2": 0, "#1": 1}
    assert labels(tmp_path, "spot\tregion\n2x3\t#1\n4x5\t#2\n", words=words)[0] == [None, 1, 0, None]


# --- polygons ---------------------------------------------------------------------------------------------------------

# nine spots, ten px apart: a0 b0 c0 at y = 10, a1 b1 c1 at y = 20, a2 b2 c2 at y = 30
GRID = {
    f"{letter}{row}": (10.0 * column, 10.0 * (row + 1)) for row in range(3) for column, letter in enumerate("abc", 1)
}
DRAWN = {"tumor": 1.0, "stroma": 0.0, "artefact": float("nan")}


def grid(**more):
    spots = section(list(GRID), spatial=np.array(list(GRID.values())))
    spots.uns["section"] |= more
    return spots


def box(x_min, y_min, x_max, y_max):
    return [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max], [x_min, y_min]]


def feature(rings, word="tumor", **more):
    """As QuPath 0.4 and later write an annotation."""
    properties = {"objectType": "annotation", "classification": {"name": word, "color": [200, 0, 0]}, "isLocked": False}
    shape = {"type": "Polygon", "coordinates": rings}
    return {"type": "Feature", "id": "5f0c", "geometry": shape, "properties": properties} | more


def drawn(tmp_path, features, spots=None, words=DRAWN, name="labels.tsv"):
    """Spot -> label, and spot -> region, of spots in a polygon; the file's name has no suffix."""
    text = json.dumps({"type": "FeatureCollection", "features": features})
    spots = grid() if spots is None else spots
    found, region = labels(tmp_path, text, spots, words=words, name=name)
    names = list(spots.obs_names)
    return (
        {one: label for one, label in zip(names, found, strict=True) if label is not None},
        {one: word for one, word in zip(names, region, strict=True) if word},
    )


def test_a_spot_takes_the_class_of_the_polygon_around_its_centre(tmp_path):
    features = [
        feature([box(5, 5, 25, 15)]),
        feature([box(5, 25, 15, 35)], "Stroma"),
        feature([box(25, 25, 35, 35)], "artefact"),
    ]
    found, region = drawn(tmp_path, features)
    assert found == {"a0": 1, "b0": 1, "a2": 0}
    assert region == {"a0": "tumor", "b0": "tumor", "a2": "Stroma", "c2": "artefact"}


def test_the_smallest_polygon_wins_and_a_hole_is_outside(tmp_path):
    around = feature([box(0, 0, 40, 40), box(15, 25, 25, 35)], "stroma")  # a hole at b2
    islands = {
        "type": "MultiPolygon",
        "coordinates": [[box(5, 5, 15, 15)], [box(25, 5, 35, 15)]],
    }
    inner = feature([box(8, 8, 12, 12)], "artefact")
    for features in ([around, feature([], geometry=islands), inner], [inner, feature([], geometry=islands), around]):
        found, region = drawn(tmp_path, features)
        assert found == {"c0": 1} | dict.fromkeys(["b0", "a1", "b1", "c1", "a2", "c2"], 0)
        assert region["a0"] == "artefact"
        assert "b2" not in region


def test_each_part_of_a_multipolygon_counts_by_its_own_size(tmp_path):
    # together the islands (200 px²) are larger than the region around one of them (196 px²)
    parts = {"type": "MultiPolygon", "coordinates": [[box(5, 5, 15, 15)], [box(25, 25, 35, 35)]]}
    found, _ = drawn(tmp_path, [feature([], geometry=parts), feature([box(3, 3, 17, 17)], "stroma")])
    assert found == {"a0": 1, "c2": 1}


def test_a_class_of_two_lines_is_one_word(tmp_path):
    # a carriage return would end the row of labels.tsv for those that read it
    words = {"in situ": 1.0}
    assert drawn(tmp_path, [feature([box(5, 5, 15, 15)], "in\rsitu\0")], words=words)[1] == {"a0": "in situ"}


def test_every_form_of_a_class_and_of_a_file(tmp_path):
    properties = [
        {"objectType": "annotation", "classification": {"name": "tumor"}},
        {"object_type": "annotation", "classification": {"name": "Tumor", "colorRGB": -1}},  # QuPath 0.3
        {"classification": "tumor"},
        {"classification": None, "name": "tumor"},
        {"objectType": "annotation", "classification": {"names": ["Tumor", "Positive"]}},
        {"name": "tumor"},
    ]
    words = DRAWN | {"Tumor: Positive": 1.0}
    for one in properties:
        alone = feature([box(5, 5, 15, 15)], properties=one)
        for content in (alone, [alone], {"type": "FeatureCollection", "features": [alone]}):
            for text in (json.dumps(content), "\ufeff \n" + json.dumps(content, indent=1)):
                assert labels(tmp_path, text, grid(), words=words)[0] == [1] + [None] * 8
    legacy = feature([box(5, 5, 15, 15)], id="PathAnnotationObject", properties={"classification": {"name": "tumor"}})
    assert drawn(tmp_path, [legacy])[0] == {"a0": 1}
    path = tmp_path / "labels.geojson"
    path.write_bytes(gzip.compress(json.dumps(legacy).encode()))
    assert read_labels(path, grid(), DRAWN)["label"].sum() == 1


def test_coordinates_are_pixels_of_the_image(tmp_path):
    reduced = feature([box(2, 2, 4, 4)])  # a0 lies at (3, 3) of an image reduced to 0.3
    assert drawn(tmp_path, [reduced], grid(image_scale=0.3))[0] == {"a0": 1}
    told(
        tmp_path, json.dumps(feature([box(2, 2, 4, 4)])), "S1", "polygons span x 2 to 4, y 2 to 4", "spots x 10 to 30",
        "image_scale", spots=grid(),
    )  # fmt: skip


def test_the_word_outside(tmp_path):
    assert drawn(tmp_path, [feature([box(5, 5, 15, 15)])])[0] == {"a0": 1}
    found, region = drawn(tmp_path, [feature([box(5, 5, 15, 15)])], words=DRAWN | {"Outside": 0.0})
    assert found == {"a0": 1} | dict.fromkeys(list(GRID)[1:], 0)
    assert region == {"a0": "tumor"} | dict.fromkeys(list(GRID)[1:], "outside")


def test_polygons_of_the_same_size_that_contradict_each_other(tmp_path):
    twice = [feature([box(5, 5, 25, 15)]), feature([box(5, 5, 25, 15)], "stroma")]
    with pytest.raises(InputError, match=r"annotations 1 \('tumor'\) and 2 \('stroma'\).*same spots \(2 in all\)"):
        drawn(tmp_path, twice)
    with pytest.raises(InputError, match="1 in all"):  # b0 alone is in both
        drawn(tmp_path, [twice[0], feature([box(15, 5, 35, 15)], "artefact")])
    # words of one label do not contradict each other, and a smaller polygon settles it
    assert drawn(tmp_path, [twice[0], feature([box(5, 5, 25, 15)], "TUMOR")])[0] == {"a0": 1, "b0": 1}
    small = [feature([box(8, 8, 12, 12)], "stroma"), feature([box(18, 8, 22, 12)])]
    assert drawn(tmp_path, twice + small)[0] == {"a0": 0, "b0": 1}
    # a third of that size does not hide it
    with pytest.raises(InputError, match="2 in all"):
        drawn(tmp_path, [*twice, feature([box(5, 5, 25, 15)], "stroma")])


def test_objects_that_are_not_classified_annotations_are_skipped(tmp_path, caplog):
    kinds = [{"objectType": kind, "classification": {"name": "tumor"}} for kind in ("tile", "detection", "cell")]
    others = [feature([box(15, 5, 25, 15)], properties=one) for one in kinds]
    others.append(
        feature([box(15, 5, 25, 15)], id="PathDetectionObject", properties={"classification": {"name": "tumor"}})
    )
    others.append(feature([], geometry={"type": "Point", "coordinates": [20, 10]}))
    others.append(feature([], geometry=None))
    nameless = [
        feature([box(15, 5, 25, 15)], properties=one) for one in (None, {}, {"classification": {"name": "None"}})
    ]
    with caplog.at_level(logging.INFO, logger="ctrflow"):
        assert drawn(tmp_path, [*others, *nameless, feature([box(5, 5, 15, 15)])])[0] == {"a0": 1}
    assert "skipped 4 cells, detections or tiles and 2 points or lines" in caplog.text
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "ignored 3 polygons without a class" in warnings[0]
    told(
        tmp_path,
        json.dumps([*others, *nameless]),
        "no annotation with an area and a class: 3 polygons without",
        "4 cells",
    )


def test_an_outline_that_crosses_itself(tmp_path, caplog):
    # a bow tie around a0 and c0 that crosses at b0's left and right neighbours' middle
    bow_tie = [[5, 2], [35, 18], [35, 2], [5, 18], [5, 2]]
    with caplog.at_level(logging.INFO, logger="ctrflow"):
        assert drawn(tmp_path, [feature([bow_tie])])[0] == {"a0": 1, "c0": 1}
    assert "repaired 1 outlines that cross themselves" in caplog.text
    # what a freehand outline goes round twice is inside: a star drawn in five strokes, and a0 in its middle
    star = [[10, 1], [15.3, 17.3], [1.4, 7.2], [18.6, 7.2], [4.7, 17.3], [10, 1]]
    assert drawn(tmp_path, [feature([star])])[0] == {"a0": 1}


def test_a_spot_on_the_outline_is_outside(tmp_path):
    assert drawn(tmp_path, [feature([box(10, 5, 25, 15)])])[0] == {"b0": 1}


def test_all_unknown_classes_are_reported_at_once(tmp_path):
    features = [feature([box(5, 5, 15, 15)], "Region*"), feature([box(15, 5, 25, 15)], "blob")]
    features.append(feature([box(80, 80, 90, 90)], "elsewhere"))  # on no spot
    text = json.dumps(features)
    told(tmp_path, text, "unknown words: Region*, blob; add each to config/label_words.tsv", spots=grid(), words=DRAWN)


def test_bad_drawings_are_reported(tmp_path):
    good = json.dumps(feature([box(5, 5, 15, 15)]))
    told(tmp_path, good[:-40], "not valid JSON", "export it again")
    told(tmp_path, json.dumps({"tissue_hires_scalef": 0.1}), "not GeoJSON features")
    told(tmp_path, "[1, 2]", "not GeoJSON features")
    told(tmp_path, json.dumps({"type": "FeatureCollection"}), "not GeoJSON features")
    told(tmp_path, json.dumps({"type": "Polygon", "coordinates": [box(5, 5, 15, 15)]}), "1 polygons without a class")
    told(tmp_path, "[]", "no annotation with an area and a class")
    for rings in ([[[5, 5], [6, 6]]], [[["a", 5], [6, 6], [7, 7]]], 3, [[5, 5]], [[[5, 5], [6], [7, 7], [5, 5]]]):
        features = [feature([box(5, 5, 15, 15)]), feature(rings)]
        told(tmp_path, json.dumps(features), "feature 2: its coordinates are not a valid polygon")
    told(tmp_path, good.replace("15", "NaN"), "feature 1: a coordinate is not a finite number")


def test_our_own_export_reads_back(tmp_path):
    spots = grid(image_scale=0.5)
    score = pd.Series(np.linspace(0.1, 0.9, 9), index=spots.obs_names)
    call = pd.Series([1.0, 0, 0, 1, 1, 0, 0, 0, 1], index=spots.obs_names)
    drawing = qupath_geojson(spots, score, call)
    found, region = drawn(tmp_path, drawing["features"], spots, {"cancer region": 1.0, "outside": 0.0})
    assert list(found.values()) == list(call)
    assert set(region.values()) == {"Cancer region", "outside"}


def test_many_polygons_agree_with_one_by_one(tmp_path):
    rng = np.random.default_rng(3)
    spots = section([f"s{i}" for i in range(400)], spatial=rng.uniform(0, 100, (400, 2)))
    boxes = [(x, y, x + w, y + h) for x, y, w, h in rng.uniform(0, 60, (80, 4))]
    features = [feature([box(*edges)], ("tumor", "stroma")[i % 2]) for i, edges in enumerate(boxes)]
    found, _ = drawn(tmp_path, features, spots)
    expected = {}
    for name, (x, y) in zip(spots.obs_names, spots.obsm["spatial"], strict=True):
        around = [i for i, (x0, y0, x1, y1) in enumerate(boxes) if x0 < x < x1 and y0 < y < y1]
        if around:
            area = [(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]) for i in around]
            expected[name] = (around[int(np.argmin(area))] + 1) % 2
    assert len(expected) > 200
    assert found == expected


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "positive", "total"), [("A1", 303, 346), ("B1", 63, 295), ("C1", 127, 176), ("D1", 139, 306)]
)
def test_published_prevalences_of_her2st(name, positive, total):
    root = DATA / "her2st"
    if not root.exists():
        pytest.skip(f"the real sections are not here ({root})")
    ids = pd.read_csv(root / "ST-cnts" / f"{name}.tsv.gz", sep="\t", usecols=[0], index_col=0).index
    table = read_labels(root / "ST-pat" / "lbl" / f"{name}_labeled_coordinates.tsv", section(ids), WORDS)
    assert (len(table), table["label"].notna().sum(), table["label"].sum()) == (total, total, positive)


def test_transferred_labels_of_her2st():
    root = DATA / "her2st"
    if not root.exists():
        pytest.skip(f"the real sections are not here ({root})")
    path = root / "labels" / "B4.tsv"
    spots = read_section({"section": "B4", "platform": "st", "path": str(root / "ST-cnts" / "B4.tsv.gz")})
    table = read_labels(path, spots, WORDS).set_index("spot")
    wanted = pd.read_csv(path, sep="\t", index_col="spot").loc[table.index]
    pd.testing.assert_series_equal(table["label"].astype(float), wanted["is_cancer"], check_names=False)
    assert (table["region"] == wanted["label"].fillna("")).all()


def test_the_regions_of_the_sedr_table_are_words(tmp_path):
    spots = section(["AAAC-1", "AAAG-1", "AAAT-1"])
    path = tmp_path / "metadata.tsv"
    path.write_text(
        "ID\torig.ident\tfine_annot_type\tannot_type\nAAAC-1\tb\tIDC_2\tInvasive\n"
        "AAAG-1\tb\tTumor_edge_1\tSurrounding tumor\nAAAT-1\tb\tHealthy_1\tHealthy\n"
    )
    words = Path(__file__).parents[3] / "config" / "label_words.tsv"
    labels = [read_labels(path, spots, read_words(words, cohort))["label"].tolist() for cohort in ("vihbc", "hbc_i1")]
    assert labels == [[1, 0, 0], [pd.NA, 1, 0]]
