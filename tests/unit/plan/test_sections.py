"""What ingest and the embeddings read of a section, and what tells one source from another."""

from pathlib import Path

import pytest

from ctrflow.errors import InputError
from ctrflow.plan import load, sections
from runs import ROOT

# the targets: a Visium folder, a Xenium bundle and an ST section
TASK = {"name": "t", "split": "transfer", "source": 'section == "A"', "target": 'section in ["B", "V", "X"]'}
IN_V = [
    "data/V/filtered_feature_bc_matrix.h5",
    "data/V/spatial/tissue_positions.csv",
    "data/V/spatial/scalefactors_json.json",
]
PICTURE = "data/V/spatial/tissue_hires_image.png"


@pytest.fixture
def plan(plan_of, tmp_path, monkeypatch):
    """A plan without an image encoder, in an empty folder; `sources` are files to be fetched."""
    monkeypatch.chdir(tmp_path)

    def make(*fetched, **more):
        sources = [{"file": name, "url": "u"} for name in fetched]
        return plan_of([TASK], ["random"], sources=sources, **more)

    return make


def test_a_section_is_read_from_what_the_reader_names(plan):
    assert sections.raw_files(plan(), "A") == ["data/A.tsv", "ST-spotfiles/A_selection.tsv"]


def test_a_section_is_read_from_what_is_fetched_into_its_folder(plan):
    fetched = plan(*IN_V, "data/Vother/matrix.h5", "data/X/cells.csv.gz")
    assert sections.raw_files(fetched, "V") == IN_V
    assert sections.raw_files(fetched, "X") == ["data/X/cells.csv.gz", "data/X.csv"]  # the alignment lies outside


def test_the_image_is_that_of_the_sheet_or_of_the_vendor(plan):
    assert sections.image(plan(), "A") == ["data/A.jpg"]
    # to be fetched, though it is not there yet
    assert sections.image(plan(*IN_V, PICTURE), "V") == sections.vendor_image(plan(PICTURE), "V") == [PICTURE]
    assert sections.vendor_image(plan(), "X") == []  # a Xenium bundle has none


def test_a_vendors_image_that_is_not_fetched_is_looked_for(plan):
    assert sections.image(plan(), "V") == []  # no folder: the reader reports it
    path = Path(PICTURE)
    path.parent.mkdir(parents=True)
    path.touch()
    assert sections.image(plan(), "V") == []  # of no known scale
    path.with_name("scalefactors_json.json").write_text('{"tissue_hires_scalef": 0.1}')
    assert sections.image(plan(), "V") == [PICTURE]


def test_a_reader_does_not_see_labels_and_notes(plan):
    row = sections.reader_row(plan(), "A")
    assert row["path"] == "data/A.tsv"
    assert not {"labels", "normal", "note"} & set(row)


def test_the_files_of_the_demo_are_all_that_its_sections_name(shipped, repository, monkeypatch):
    monkeypatch.chdir(repository)
    plan = shipped("demo")
    found = sections.demo_files(plan)
    assert found == sorted(set(found))
    assert all(path.startswith("data/demo/") for path in found)
    demo = plan.sheet[plan.sheet.cohort.str.startswith("demo_")]
    named = {path for column in ("image", "labels", "alignment") for path in demo[column]} - {""}
    assert named <= set(found)
    assert {"data/demo/st/ST-spotfiles/C1_selection.tsv", "data/demo/xenium/X1/cells.parquet"} <= set(found)
    assert "data/demo/visium/N1/spatial/tissue_hires_image.png" in found  # of the vendor


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"weights": "data/uni.bin"}, "data/uni.bin"),
        ({"weights": "hub"}, []),
        ({"weights": "random"}, []),
        ({"weights": ""}, []),
        ({}, []),
    ],
)
def test_local_weights_are_an_input_of_the_embedding(options, expected, plan):
    assert sections.weights(plan(settings={"encoders": {"uni": {"model": "uni"} | options}}), "uni") == expected


def test_sources_are_told_apart_where_no_rule_makes_them(plan):
    Path("own.tsv").write_text("a")
    found = plan("data/public/fetched.tsv")
    paths = ["own.tsv", "data/demo/simulated.tsv", "data/public/fetched.tsv", "", "gone.tsv"]
    assert sections.own_sources(found, *paths) == {"own.tsv": "ca978112ca1bbdca", "gone.tsv": "missing"}
    assert sections.own_sources(found, sections.weights(found, "hed")) == {}
    assert sections.own_sources(found, next(iter(found.study.folds.values())).model) == {}  # there is none


def test_marker_lists_go_by_the_tissue_of_the_sheet(plan, monkeypatch):
    found = plan()
    monkeypatch.chdir(ROOT)
    assert sections.marker_lists(found, ["B", "V"]) == [
        Path("config/markers/breast.tsv"),
        Path("config/markers/liver.tsv"),
    ]
    with pytest.raises(InputError, match="column tissue: 'moon' has no marker list"):
        sections.marker_lists(found, ["X"])
    # the figures take those of the targets that there are
    assert sections.known_marker_lists(found) == [Path("config/markers/breast.tsv"), Path("config/markers/liver.tsv")]


def test_only_given_models_and_sections_with_places_get_the_table_of_genes():
    assert (ROOT / sections.gene_table("m.safetensors")).is_file()
    assert sections.gene_table("") == []
    assert sections.gene_table(("A",)) == load.GENES
    assert sections.gene_table(()) == []
