"""A section given on the command line: its row, what is derived from `path`, and what its user is told."""

import os
from pathlib import Path

import h5py
import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.utils import update_config

from ctrflow import schema
from ctrflow.errors import InputError
from ctrflow.plan import load, one_section, paths
from ctrflow.plan.sheet import COLUMNS
from runs import ROOT

SCHEMAS = ROOT / "workflow" / "schemas"
COUNTS, IMAGE = "data/lab/ST-cnts/Q4.tsv.gz", "data/lab/ST-imgs/Q4.jpg"
GIVEN = (f"path={COUNTS}", f"image={IMAGE}", "tissue=breast")


@pytest.fixture(autouse=True)
def _here(repository, tmp_path, monkeypatch):
    """The current folder: the shipped configuration, and a section of the ST platform that is in no sheet."""
    for name in ("config", "models"):
        (tmp_path / name).symlink_to(repository / name)
    for name in (COUNTS, IMAGE, "data/lab/ST-spotfiles/Q4_selection.tsv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("\tERBB2\n10x12\t3\n")
    monkeypatch.chdir(tmp_path)


def plan_of(*arguments: str, file: str = "") -> load.Plan:
    """The plan for these arguments of --config as Snakemake parses them, and a text as a file of --configfile."""
    settings = schema.read_yaml("config/config.yaml")
    update_config(settings, yaml.safe_load(file) or {})
    update_config(settings, parse_config(arguments))
    return load.load(settings, "config/config.yaml", SCHEMAS, typed=arguments)


def told(*arguments: str, file: str = "") -> list[str]:
    """The lines of the error that these arguments give."""
    with pytest.raises(InputError) as caught:
        plan_of(*arguments, file=file)
    return str(caught.value).splitlines()


# --- the row ----------------------------------------------------------------------------------------------------------


def test_a_path_is_one_row_more_and_alone_is_scored():
    plan = plan_of(*GIVEN)
    row = {"section": "Q4", "cohort": "mine", "patient": "Q4", "platform": "st", "path": COUNTS, "image": IMAGE}
    row |= {"tissue": "breast"}
    assert plan.row("Q4") == dict.fromkeys(COLUMNS, "") | row
    assert plan.mapped == plan.sheet.index[-1] == "Q4"
    assert plan.study.targets == ["Q4"]  # the sheet has another section of the cohort `mine`
    assert plan.study.name == plan.content["study"] == "Q4"  # its results are in results/Q4
    assert plan.problems == []


def test_without_a_path_nothing_is_added():
    plan = plan_of("study=my_section")
    assert (plan.mapped, plan.study.name, plan.study.targets) == ("", "my_section", ["mine1"])


def test_every_column_can_be_given():
    cells = {
        "section": "12_03", "cohort": "lab", "patient": "007", "tissue": "Breast", "platform": "st", "path": COUNTS,
        "image": IMAGE, "labels": COUNTS, "um_per_px": "0.50", "spot_um": "100", "normal": "yes",
        "note": "left: breast, 'O'Neil'; [x", "image_scale": "1", "alignment": IMAGE, "pool": "",
        "library": "", "drawn": COUNTS,
    }  # fmt: skip
    assert set(cells) == set(COLUMNS)
    plan = plan_of(*(f"{name}={text}" for name, text in cells.items()))
    assert plan.row("12_03") == cells  # to the letter: Snakemake has made numbers and mappings of some
    assert plan.study.targets == ["12_03"]  # whatever its cohort


def test_quotes_around_a_value_and_empty_values_are_as_for_snakemake():
    row = plan_of(*GIVEN, "patient='7'", 'note=" x "', "labels=", "section=").row("Q4")
    assert (row["patient"], row["note"], row["labels"]) == ("7", "x", "")


def test_a_file_of_the_configuration_can_give_it_too():
    file = (
        f"path: {COUNTS}\nimage: {IMAGE}\ntissue: breast\npatient: '007'\n"
        "um_per_px: 0.5\nspot_um: 100.0\nimage_scale: 1\nnormal: yes\n"
    )
    row = plan_of(file=file).row("Q4")
    names = ("patient", "um_per_px", "spot_um", "image_scale", "normal")
    assert [row[name] for name in names] == ["007", "0.5", "100", "1", "yes"]
    assert told(file=file.replace("yes", "x"))[1].startswith("  config/config.yaml, column normal: 'x'; write yes, no")
    _, line = told(file=file.replace("'007'", "007"))  # YAML has lost what stood there
    assert line.startswith("  patient: 7 is not of type 'string'")
    assert "in quotes" in line


def test_paths_are_as_in_the_sheet(monkeypatch):
    monkeypatch.setenv("HOME", os.getcwd())
    row = plan_of(f"path=./{COUNTS}", f"image=~/{IMAGE}", "tissue=breast").row("Q4")
    assert (row["path"], row["image"]) == (COUNTS, f"{os.getcwd()}/{IMAGE}")


def test_the_columns_of_the_sheet_are_keys_of_the_configuration():
    assert set(COLUMNS) <= set(schema.read_yaml(SCHEMAS / "config.schema.yaml")["properties"])


# --- what is derived --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/biopsy7", "biopsy7"),
        ("/data/biopsy7/outs", "biopsy7"),
        ("/data/biopsy7/outs/", "biopsy7"),
        ("/data/biopsy7/outs/binned_outputs/square_008um", "biopsy7"),
        ("/data/biopsy7/outs/segmented_outputs", "biopsy7"),
        ("/data/her2st/ST-cnts/B4.tsv.gz", "B4"),
        ("/data/her2st/ST-cnts", "her2st"),
        ("/data/P1.2024.h5ad", "P1.2024"),
        ("/data/Block A.zarr", "Block_A"),
        ("/data/output-XETG00__0003__A (1)", "output-XETG00__0003__A_1"),
        ("/data/_x.TSV", "x"),
        ("/outs", ""),
    ],
)
def test_the_section_is_named_after_its_path(path, name):
    assert one_section.name_of(path) == name


def test_a_relative_path_is_named_by_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "biopsy7" / "outs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "biopsy7" / "outs")
    assert one_section.name_of(".") == "biopsy7"


def test_the_platform_is_what_the_files_are():
    Path("B7/outs/spatial").mkdir(parents=True)
    Path("B7/outs/spatial/tissue_positions.csv").touch()
    assert plan_of("path=B7/outs", "tissue=breast").row("B7")["platform"] == "visium"
    Path("B7/outs/binned_outputs").mkdir()
    assert plan_of("path=B7", "tissue=breast").row("B7")["platform"] == "visium_hd"
    with h5py.File("C1.h5ad", "w") as file:
        file.create_group("obs")
    assert plan_of("path=C1.h5ad", *GIVEN[1:]).row("C1")["platform"] == "h5ad"


def test_a_study_that_is_asked_for_is_run():
    plan = plan_of(*GIVEN, "study=mini", "note=simulated")
    assert (plan.study.name, set(plan.study.tasks), plan.study.targets) == ("Q4", {"patients"}, ["Q4"])
    assert {run.fold.sources for run in plan.study.runs} == {("P1", "P2", "P3")}


# --- what is told -----------------------------------------------------------------------------------------------------


def test_all_problems_come_at_once():
    given = ("um_per_px=0,5", "spot_um=nan", "normal=True", "patient=a b", "platform=visum", "image=", "alignment=x")
    heading, *lines = told(*GIVEN[:1], *given)
    assert heading == "the section has 6 problems:"
    places = [line.partition(":")[0].strip() for line in lines]
    columns = ("patient", "platform", "um_per_px", "spot_um", "normal", "alignment")
    assert places == [f"command line, column {name}" for name in columns]
    assert lines[4].endswith("'True'; write yes, no or nothing")


def test_problems_of_the_sheet_come_with_them():
    path = Path("sheet.tsv")
    path.write_text("section\tplatform\tpath\nA1\tvisum\ta\n")
    heading, sheets, own = told(*GIVEN, "normal=x", "sections=[sheet.tsv]")
    assert heading == "the section sheet has 2 problems:"
    assert sheets.startswith("  sheet.tsv, row 2, column platform: 'visum' is unknown")
    assert own.startswith("  command line, column normal: 'x'")


def test_a_misspelt_column_is_told_with_the_right_one():
    heading, line = told(*GIVEN, "tisue=breast")
    assert heading == "command line: 1 problem:"
    assert line.startswith("  tisue: unknown key; did you mean `tissue`?")


@pytest.mark.parametrize("given", [("tissue=breast", "normal=yes"), ("path=", "tissue=breast")])
def test_columns_without_a_path_are_told(given):
    line, command = told(*given)
    assert "tissue" in line
    assert "but no path; add" in line
    assert command.strip() == one_section.COMMAND


@pytest.mark.parametrize("name", ["P1", "p1"])
def test_a_name_of_the_sheet_is_told(name):
    _, line = told(*GIVEN, f"section={name}")
    assert f"command line, column section: '{name}' is already at config/sections.tsv, row " in line
    assert line.endswith("give section=<another name>")


@pytest.mark.parametrize(
    ("name", "what"), [*((name, "reserved") for name in paths.RESERVED_STUDIES), ("CRC", "study"), ("demo", "study")]
)
def test_a_name_whose_results_would_mix_with_others_is_told(name, what):
    Path(name).mkdir()
    _, line, _ = told(f"path={name}")
    assert line.startswith(f"  command line, column section: '{name}' is ")
    assert what in line
    assert line.endswith("give section=<another name>")


def test_files_of_no_known_platform_are_told():
    Path("other").mkdir()
    _, line = told("path=other")
    assert line.startswith("  command line, column platform: other is not recognised as one of st, visium, visium_hd, ")
    assert line.endswith("h5ad; give platform=<one of them>")
    Path("B7.zarr").mkdir()
    Path("B7.zarr/zarr.json").touch()
    _, line = told("path=B7.zarr")
    assert "B7.zarr is a SpatialData store, which may hold one of st, visium, visium_hd, xenium; give platform=" in line
    with h5py.File("matrix.h5", "w") as file:
        file.create_dataset("matrix/barcodes", data=[1])
    _, line = told("path=matrix.h5")
    assert line.startswith("  command line, column path: matrix.h5 is a 10x count matrix; give the vendor's folder")


def test_missing_files_are_told():
    _, line = told("path=gone/outs")
    assert line == "  command line, column path: gone/outs does not exist; correct the path or fetch the file"
    # known by its platform, it is a problem that the doctor lists with the others
    (problem,) = plan_of("path=gone/A1.tsv", "platform=st", "image=no.jpg", "tissue=breast").problems
    heading, *lines = problem.splitlines()
    assert heading == "command line: 2 missing files:"
    assert lines[1] == "  section A1, column image: no.jpg does not exist; correct the path or fetch the file"


def test_the_command_in_messages_can_be_typed():
    words = one_section.COMMAND.split()
    arguments = words[words.index("--config") + 1 :]
    assert {argument.partition("=")[0] for argument in arguments} == {"path", "image", "tissue"}
    assert one_section.name_of(arguments[0].partition("=")[2]) == "biopsy7"
    assert one_section.COMMAND in one_section.NEEDED
    assert schema.read_yaml("config/config.yaml")["study"] == one_section.CONFIGURED_STUDY


# --- a drawing --------------------------------------------------------------------------------------------------------


def test_a_drawing_teaches_the_map_of_the_model():
    study = plan_of(*GIVEN, f"drawn={COUNTS}").study
    given, taught = study.runs
    assert (given.task["name"], taught.task["name"], taught.spec.name) == ("map", "drawn", "strokes")
    assert taught.prior == (given,)
    assert taught.encoder == given.encoder == "lite0_fast"


def test_a_drawing_is_enough_for_a_tissue_without_a_model():
    (run,) = plan_of(f"path={COUNTS}", f"image={IMAGE}", "tissue=moon", f"drawn={COUNTS}").study.runs
    assert (run.task["name"], run.prior, run.encoder) == ("drawn", (), "hed_texture")
    (run,) = plan_of(f"path={COUNTS}", "image=none", f"drawn={COUNTS}").study.runs
    assert (run.prior, run.encoder) == ((), "none")
