"""Small plans made by hand, and the shipped studies, each loaded once."""

import shutil
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from ctrflow import schema
from ctrflow.features import markers
from ctrflow.plan import crops, load, study
from ctrflow.plan.sheet import COLUMNS
from runs import MINI, ROOT, add_rows, st_row, write_study

SCHEMAS = ROOT / "workflow" / "schemas"
ENCODERS = {"uni": {"model": "uni", "weights": "data/uni.bin"}, "hed": {"model": "hed_texture"}}
SETTINGS = {
    "encoders": ENCODERS, "device": "cpu", "n_genes": 3000, "threads": {"train": 1}, "label_words": "words.tsv",
    "sources": "config/sources.tsv", "data_root": "",
}  # fmt: skip


def line(section: str, **cells) -> dict:
    """A row of the sheet; each section is a patient of its own."""
    named = {"section": section, "patient": section, "cohort": "lab", "tissue": "breast", "platform": "st"}
    return dict.fromkeys(COLUMNS, "") | named | {"path": f"data/{section}.tsv", "image": f"data/{section}.jpg"} | cells


# three labelled sections, a healthy one, and two targets that nobody has labelled
SHEET = [
    *(line(name, labels=f"data/{name}.csv") for name in "ABC"),
    line("N", cohort="healthy", normal="yes"),
    line("V", cohort="new", platform="visium", path="data/V", image="", tissue="Liver "),
    line("X", cohort="new", platform="xenium", path="data/X", alignment="data/X.csv", tissue="moon"),
]


@pytest.fixture(scope="session")
def plan_of():
    """A plan of tasks over the small sheet, or other rows; nothing is read but the schema and the names of tissues."""

    def make(tasks, methods=("linear",), *, sheet=SHEET, sources=(), read_model=None, settings=None, **content):
        settings = SETTINGS | (settings or {})
        content = {"study": "s", "seeds": [1, 2], "encoders": ["uni"], "methods": [*methods], "tasks": tasks} | content
        content = schema.check(content, load.study_schema(SCHEMAS), "s.yaml")
        rows = pd.DataFrame(sheet, columns=list(COLUMNS), dtype=str)
        marked = markers.tissues(ROOT / "config" / "markers")
        found = study.expand(content, rows, settings["encoders"], [1], "s.yaml", read_model, marked)
        public = pd.DataFrame(sources, columns=["file", "url", "sha256", "member", "password"], dtype=str)
        rows = crops.with_crops(rows.set_index("section", drop=False), found.crops)
        return load.Plan(settings, rows, found, content, public.set_index("file"), [])

    return make


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """A folder with the shipped configuration and models, the study `mini`, and empty raw files that only users bring.

    Do not write into it.
    """
    folder = tmp_path_factory.mktemp("shipped") / "repo"
    for part in ("config", "models"):
        shutil.copytree(ROOT / part, folder / part)
    add_rows(folder, [st_row(name) for name in ("P1", "P2", "P3")])
    own = {"section": "mine1", "patient": "mine1", "tissue": "breast", "note": ""}
    add_rows(folder, [st_row("P1", cohort="mine", labelled=False) | own])
    write_study(folder, MINI)
    mini = [f"{kind}/{name}" for name in ("P1", "P2", "P3") for kind, name in mini_files(name)]
    by_hand = [f"data/own/hhb/HHB_v{number:02d}.h5ad" for number in range(3, 11)]
    for name in [*mini, *by_hand, "data/weights/vit256_small_dino.pth"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def mini_files(name: str) -> list[tuple[str, str]]:
    """The files of an ST section in the layout of HER2ST."""
    return [
        ("data/mini/ST-cnts", f"{name}.tsv.gz"),
        ("data/mini/ST-imgs", f"{name}.jpg"),
        ("data/mini/ST-spotfiles", f"{name}_selection.tsv"),
        ("data/mini/ST-pat/lbl", f"{name}_labeled_coordinates.tsv"),
    ]


@pytest.fixture
def load_plan():
    """The plan of the configuration in the current folder, as the workflow loads it."""

    def loaded(name: str, written=(), **given) -> load.Plan:
        settings = schema.read_yaml("config/config.yaml") | {"study": name} | given
        return load.load(settings, "config/config.yaml", SCHEMAS, written)

    return loaded


@pytest.fixture(scope="session")
def shipped(repository):
    """name -> the plan of a shipped study with two seeds: five say the same five times."""

    @cache
    def loaded(name: str) -> load.Plan:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(repository)
            settings = schema.read_yaml("config/config.yaml") | {"study": name, "seeds": [42, 43]}
            return load.load(settings, "config/config.yaml", SCHEMAS)

    return loaded
