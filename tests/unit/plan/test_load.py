"""Configuration, sheet, sources and study put into one plan; every problem of theirs in one message.

A fault spoils a copy of the configuration and returns what the message must hold; the first words name the place.
"""

import os
import shutil
import time
from pathlib import Path

import pytest

from ctrflow.errors import InputError
from runs import MINI, add_rows, st_row, write_study

STUDY = "config/studies/mini.yaml"


@pytest.fixture
def here(repository, tmp_path, monkeypatch) -> Path:
    """The current folder: a copy of the configuration to spoil."""
    folder = Path(shutil.copytree(repository, tmp_path / "repo"))
    monkeypatch.chdir(folder)
    return folder


def rewrite(path: Path, old: str, new: str) -> None:
    """Replace a text that must be in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_plan_is_settings_sheet_study_and_sources(here, load_plan):
    plan = load_plan("mini", n_genes=50)
    assert plan.problems == []
    assert (plan.study.name, len(plan.study.runs)) == ("mini", 3 * (2 + 1 + 1 + 2))  # linear and oracle run once
    assert plan.used == plan.study.targets == ["P1", "P2", "P3"]
    assert plan.row("P1")["labels"] == st_row("P1")["labels"]
    assert plan.encoders == {"hed_texture": {"model": "hed_texture"}}
    assert plan.settings["n_genes"] == 50
    assert plan.settings["gpu_request"] == "gpu"  # a default of the schema
    assert "data/public/her2st/ST-cnts/A1.tsv.gz" in plan.sources.index
    assert plan.of_cells == ["demo_xenium", "XeHBC"]


def test_the_genes_of_a_study_are_those_it_names(here, load_plan):
    write_study(here, MINI | {"n_genes": 7})
    assert load_plan("mini").settings["n_genes"] == 7


def test_a_study_can_lie_anywhere(here, load_plan):
    (here / STUDY).rename(here / "own.yaml")
    assert load_plan("own.yaml").study.name == "mini"


def test_paths_of_the_configuration_may_be_in_the_home_folder(here, load_plan, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "home").mkdir()
    for name in ("config/label_words.tsv", "config/sections.tsv", "config/sources.tsv", STUDY):
        (here / name).rename(here / "home" / Path(name).name)
    files = {"label_words": "~/label_words.tsv", "sources": "~/sources.tsv", "sections": ["~/sections.tsv"]}
    plan = load_plan("~/mini.yaml", **files, data_root="~/copies", models="~/models")
    assert plan.problems == []
    home = str(here / "home")
    assert plan.settings["label_words"] == f"{home}/label_words.tsv"
    assert (plan.settings["data_root"], plan.settings["models"]) == (f"{home}/copies", f"{home}/models")
    assert plan.study.targets == ["P1", "P2", "P3"]


# --- faults that stop every command -----------------------------------------------------------------------------------


def unknown_keys_and_a_wrong_value_in_the_configuration(folder):
    rewrite(folder / "config/config.yaml", "demo_seed: 7", "demo_sede: 7\nthread: 4")
    rewrite(folder / "config/config.yaml", "n_genes: 3000", "n_genes: many")
    return [
        "config/config.yaml: 3 problems", "demo_sede: unknown key; did you mean `demo_seed`?",
        "thread: unknown key; did you mean `threads`?", "n_genes: 'many' is not of type 'integer' (maximum number of",
    ]  # fmt: skip


def bad_rows_of_the_sheet(folder):
    path = folder / "config/sections.tsv"
    row = len(path.read_text().splitlines()) + 1
    add_rows(
        folder, [st_row("P1") | {"um_per_px": "0,5"}, st_row("biopsy 7") | {"platform": "visum", "normal": "maybe"}]
    )
    with path.open("a") as file:
        file.write("S9 st counts.tsv\n")
    sheet = "config/sections.tsv, row"
    return [
        "the section sheet has 7 problems", f"{sheet} {row}, column section: 'P1' is already at {sheet} {row - 4}",
        f"{sheet} {row}, column um_per_px: '0,5'", f"{sheet} {row + 1}, column section: 'biopsy 7'",
        f"{sheet} {row + 1}, column patient: 'biopsy 7'", f"{sheet} {row + 1}, column platform: 'visum'",
        f"{sheet} {row + 1}, column normal: 'maybe'", f"{sheet} {row + 2}: 1 cell, the header has", "exactly one tab",
    ]  # fmt: skip


def unknown_keys_in_the_study(folder):
    write_study(folder, MINI | {"sede": 3, "methods": [{"method": "linear", "option": {}}, 3]})
    return [
        f"{STUDY}: 3 problems", "methods.1: 3 is not a method's name, or a mapping of method",
        "sede: unknown key; did you mean `seeds`?", "methods.0.option: unknown key", "`options`",
    ]  # fmt: skip


def unknown_encoder(folder):
    write_study(folder, MINI | {"encoders": ["hed_textures"]})
    valid = "efficientnet_lite0, hed_texture, hipt, lite0_fast, none"
    return [f"{STUDY}: task patients: unknown encoder `hed_textures`; valid: {valid}"]


def no_such_study(folder):
    (folder / STUDY).unlink()
    return ["config/config.yaml: study: unknown study `mini`; valid: ablation, breast_transfer, crc, demo, "]


def a_missing_model(folder):
    task = {"name": "given", "split": "pretrained", "target": 'section == "P1"', "model": "absent.safetensors"}
    write_study(folder, MINI | {"tasks": [task]})
    return ["absent.safetensors: no such model file"]


def a_study_named_like_a_folder_of_results(folder):
    (folder / write_study(folder, MINI | {"study": "superpixels"})).rename(folder / STUDY)
    return [f"{STUDY}: 1 problem", "study: 'superpixels' is a reserved name"]


@pytest.mark.parametrize(
    "fault",
    [
        unknown_keys_and_a_wrong_value_in_the_configuration,
        bad_rows_of_the_sheet,
        unknown_keys_in_the_study,
        unknown_encoder,
        no_such_study,
        a_missing_model,
        a_study_named_like_a_folder_of_results,
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_is_reported(fault, here, load_plan):
    words = fault(here)
    with pytest.raises(InputError) as caught:
        load_plan("mini")
    message = str(caught.value)
    assert message.startswith(words[0])
    assert [word for word in words if word not in message] == [], message


# --- faults that the doctor lists -------------------------------------------------------------------------------------


def test_all_faults_of_encoders_and_files_are_reported_at_once(here, load_plan):
    config = here / "config/config.yaml"
    rewrite(config, "    model: hed_texture\n", "    model: hed_texture\n    patch_um: 90\n")
    rewrite(config, "model: uni\n    weights: hub", "model: uni\n    weights: models/uni.safetensors")
    rewrite(config, "model: resnet50", "model: resnet5O")
    write_study(here, MINI | {"encoders": ["hed_texture", "uni", "resnet50"]})
    gone = ["ST-imgs/P1.jpg", "ST-pat/lbl/P2_labeled_coordinates.tsv", "ST-spotfiles/P3_selection.tsv"]
    for name in gone:
        (here / "data/mini" / name).unlink()
    (here / "config/label_words.tsv").unlink()
    hed, resnet, uni, words, files = load_plan("mini").problems
    assert hed == "config/config.yaml: encoder hed_texture: unknown option patch_um; valid for hed_texture: none"
    assert resnet.startswith("config/config.yaml: encoder resnet50: unknown encoder 'resnet5O'")
    assert "one of: efficientnet_lite0, hed_texture, hipt, resnet50, swin_tiny, timm:<model name>, uni, " in resnet
    assert uni.startswith(
        "config/config.yaml: encoder uni: no weights file models/uni.safetensors; correct the path, or"
    )
    assert words == (
        "config/config.yaml: label_words: config/label_words.tsv does not exist; correct the path or fetch the file"
    )
    columns = ("image", "labels", "path")
    assert files.splitlines() == ["config/sections.tsv: 3 missing files:"] + [
        f"  section P{n}, column {column}: data/mini/{name} does not exist; correct the path or fetch the file"
        for n, (column, name) in enumerate(zip(columns, gone, strict=True), 1)
    ]


def test_files_of_sections_that_the_study_does_not_use_are_not_missed(here, load_plan):
    shutil.rmtree(here / "data/own")
    assert load_plan("mini").problems == []
    assert load_plan("sthbc").problems == []  # these are downloaded
    assert load_plan("demo").problems == []  # and these simulated
    (problem,) = load_plan("meatrd_breast").problems
    assert problem.startswith("config/sections.tsv: 16 missing files:\n  section HHB_v03, column path: ")


def test_an_encoder_that_no_run_looks_with_is_not_asked(here, load_plan):
    rewrite(here / "config/config.yaml", "model: resnet50", "model: resnet5O")
    assert load_plan("mini").problems == []


def test_dates_and_folders_are_checked_by_the_run_and_not_by_its_jobs(here, load_plan):
    (here / "results/mini").mkdir(parents=True)
    (here / "results/mini/metrics.tsv").touch()
    for name in ("data/mini/ST-imgs/P2.jpg", "results/mini/metrics.tsv"):
        os.utime(here / name, (0, time.time() + 3600))
    assert load_plan("mini").problems == []
    problems = load_plan("mini", written=["results"]).problems
    assert [problem.split(":")[0] for problem in problems] == ["data/mini/ST-imgs/P2.jpg", "results/mini/metrics.tsv"]
