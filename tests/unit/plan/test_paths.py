"""Paths: no study and no task may take the name of a folder that the workflow itself writes."""

import re
from pathlib import Path

import pytest

from ctrflow import schema
from ctrflow.errors import InputError
from ctrflow.plan import load, paths

ROOT = Path(__file__).parents[3]
SCHEMA = load.study_schema(ROOT / "workflow" / "schemas")
TASK = {"name": "t", "split": "transfer", "target": "q"}


def first_folders(below: str) -> set[str]:
    """The fixed names below a folder, in every text that could name one: rules, library, scripts, Makefile.

    Not those of modules of the library's own package `results`, which comments name.
    """
    files = [ROOT / "Snakefile", *ROOT.glob("workflow/rules/*.smk"), *ROOT.glob("scripts/**/*.py")]
    text = "\n".join(path.read_text() for path in files)
    modules = {path.name for path in (ROOT / "scripts" / "ctrflow" / "results").glob("*.py")}
    return set(re.findall(rf"{re.escape(below)}/([A-Za-z][\w.]*)", text)) - modules


def test_every_folder_of_results_is_refused_as_a_study():
    found = first_folders("results")
    assert {"sections", "embeddings", "patches", "superpixels"} <= found
    for name in found:
        with pytest.raises(InputError, match=rf"study: '{re.escape(name)}' is a reserved name"):
            schema.check({"study": name, "tasks": [TASK]}, SCHEMA, "s.yaml")


def test_every_folder_of_a_study_is_refused_as_a_task():
    found = first_folders("results/{study}")
    assert {"export", "figures", "model", "pretrained", "tables"} <= found
    for name in found:
        with pytest.raises(InputError, match=rf"tasks.0.name: '{re.escape(name)}' is a reserved name"):
            schema.check({"study": "s", "tasks": [TASK | {"name": name}]}, SCHEMA, "s.yaml")


def test_no_rule_spells_a_folder_of_results():
    """What a rule reads and writes is built from plan/paths.py alone."""
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        code = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
        assert not re.findall(r"results/[^\"\s]*", code), path.name


def test_paths_are_built_from_one_place():
    assert paths.of_sections("labels.tsv", ["A", "B"]) == [
        "results/sections/A/labels.tsv",
        "results/sections/B/labels.tsv",
    ]
    assert paths.embeddings("uni", ["A"]) == ["results/embeddings/uni/A.h5ad"]
    assert paths.embeddings("none", ["A"]) == []
    assert paths.patches(112.0, 224, ["A"]) == ["results/patches/112um-224px/A.zarr"]
    assert paths.patches(37.5, 32, ["x"], "tsv") == ["results/patches/37.5um-32px/x.tsv"]
    assert (
        paths.benchmark("cut_patches", "results/patches/112um-224px/A.zarr")
        == "benchmarks/cut_patches/112um-224px/A.tsv"
    )
