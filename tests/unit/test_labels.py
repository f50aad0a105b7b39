"""Labels from every kind of table, and the published prevalences of HER2ST."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from ctrflow.errors import InputError
from ctrflow.labels import read_labels, read_words
from ctrflow.readers import read_section
from ctrflow.storage import read_tsv, write_tsv

DATA = Path(__file__).parents[3] / "shared" / "data"
WORDS = read_words(Path(__file__).parents[2] / "config" / "label_words.tsv")
SPOTS = ["10x13", "2x3", "4x5", "6x7"]


def section(ids=SPOTS, **obsm):
    table = anndata.AnnData(np.ones((len(ids), 1)), obs=pd.DataFrame(index=list(ids)), obsm=obsm)
    table.uns["section"] = {"section": "S1", "spot_um": 55.0}
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


def test_r_leaves_the_header_of_the_ids_out(tmp_path):
    assert labels(tmp_path, "cluster\n2x3\ttumor\n4x5\tnormal\n")[0] == [None, 1, 0, None]


def test_zero_one_decides_and_the_word_is_the_region(tmp_path):
    text = "spot\tlabel\tis_cancer\tlabel_dist_pitch\n10x13\tmade up\t1\t0\n2x3\tinvasive cancer\t0\t0\n4x5\tfat\t\t0\n"
    assert labels(tmp_path, text) == ([1, 0, None, None], ["made up", "invasive cancer", "fat", ""])


@pytest.mark.parametrize("text", ["spot,label\n2x3,1\n4x5,0\n6x7,\n", "spot,is_cancer\n2x3,1.0\n4x5,false\n6x7,NA\n"])
def test_zero_one_alone(tmp_path, text):
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


def test_bad_tables_are_told(tmp_path):
    told(tmp_path, "spot,region\n2x3,mystery\n4x5,Blob\n", "Blob, mystery", "config/label_words.tsv", "unknown")
    told(tmp_path, "spot,region\n2-3,tumor\n", "2-3", "10x13, 2x3, 4x5", "S1", "written alike")
    told(tmp_path, "spot,is_cancer\n2x3,1\n4x5,2\n", "row 3", "is_cancer", "'2'", "1 (cancer), 0 (other)")
    told(tmp_path, "spot,label\n2x3,1\n2x3,0\n", "two different labels", "2x3", "one row")
    told(tmp_path, "spot,colour\n2x3,red\n", "spot, colour", "is_cancer")
    told(tmp_path, "place,label\n2x3,1\n", "place, label", "barcode")
    told(tmp_path, "", "cannot be read")
    with pytest.raises(InputError, match=r"none.tsv: no such file"):
        read_labels(tmp_path / "none.tsv", section(), WORDS)


def test_words_of_rows_outside_the_section_do_not_matter(tmp_path):
    assert labels(tmp_path, "spot,region\n2x3,tumor\n99x99,mystery\n")[0] == [None, 1, None, None]


# three spots 100 µm apart, and cells around them
CELL_PLACES = [(0, 0), (5, 0), (0, 5), (100, 0), (105, 0), (200, 0), (205, 0), (50, 0)]
CELL_WORDS = ["DCIS_1", "Invasive_Tumor", "Stromal", "DCIS_1", "Stromal", "Unlabeled", "Unlabeled", "Invasive_Tumor"]


def test_a_spot_takes_the_majority_of_its_labelled_cells(tmp_path):
    places = np.array(CELL_PLACES, dtype=float)
    cells = section([str(n) for n in range(1, 9)], spatial_um=places)
    spots = section(["r0", "r1", "r2", "far"], spatial_um=np.array([[0.0, 0], [100, 0], [200, 0], [900, 0]]))
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
