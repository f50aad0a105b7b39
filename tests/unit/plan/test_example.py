"""The study `example`: what it downloads, and that no model maps a section whose patient it has seen."""

import hashlib
import re

import pytest
import yaml

import public_copies
from ctrflow.errors import InputError
from ctrflow.plan import downloads, sections
from ctrflow.storage import read_safetensors_metadata

MOST_BYTES = 6_000_000
OF_B = ["STHBC_B", "example_B4"]
OF_A_TO_F = sorted([*OF_B, *(f"STHBC_{letter}" for letter in "ACDEF")])


@pytest.fixture(autouse=True)
def _here(repository, monkeypatch):
    monkeypatch.chdir(repository)


@pytest.fixture
def files(shipped) -> dict:
    """Name below data/public/her2st -> row of the source list, of the files that the study reads."""
    plan = shipped("example")
    assert plan.used == plan.study.targets == ["example_B4"]
    read = [*sections.raw_files(plan, "example_B4"), *sections.image(plan, "example_B4")]
    assert set(read) <= set(downloads.downloads(plan))  # each by itself, none in an archive
    return {path.removeprefix("data/public/her2st/"): plan.sources.loc[path] for path in read}


def test_three_files_are_downloaded_less_than_6_mb_in_all(files):
    assert set(files) == set(public_copies.FILES)
    sizes = [int(re.fullmatch(r"([\d,]+) bytes", row.note)[1].replace(",", "")) for row in files.values()]
    assert sum(sizes) < MOST_BYTES


@public_copies.needed
def test_size_and_digest_of_the_list_are_those_of_the_files(files):
    for name, row in files.items():
        content = (public_copies.HER2ST / name).read_bytes()
        assert (f"{len(content):,} bytes", hashlib.sha256(content).hexdigest()) == (row.note, row.sha256)


@pytest.mark.parametrize("kind", ["image", "expression"])
@pytest.mark.parametrize("letter", list("ABC"))
def test_a_model_without_a_patient_has_not_seen_it(letter, kind):
    metadata = read_safetensors_metadata(f"models/without_{letter}/breast/{kind}.safetensors")
    assert metadata["patients"] == [f"her2st_{other}" for other in "ABCDEF" if other != letter]
    assert {name[: len("her2st_A")] for name in metadata["sections"]} == set(metadata["patients"])


def refused(section: str, model: str, load_plan, folder) -> bool:
    """Whether a model is refused for a section because it has seen the patient, and for nothing else."""
    task = {"name": "map", "split": "pretrained", "target": f'section == "{section}"', "model": model}
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump({"study": "given", "tasks": [task]}))
    try:
        load_plan(str(path))
    except InputError as error:
        told = str(error)
    else:
        return False
    return told.endswith(f"was trained on sections of the same patient as {section}; leave them out of `target`")


@pytest.mark.parametrize(
    ("model", "seen"),
    [
        ("shipped", OF_A_TO_F),
        ("models/breast/expression.safetensors", OF_A_TO_F),
        ("models/without_B/breast/image.safetensors", sorted(set(OF_A_TO_F) - set(OF_B))),
    ],
)
def test_a_model_maps_no_section_of_a_patient_that_it_has_seen(model, seen, shipped, load_plan, tmp_path):
    sheet = shipped("example").sheet
    published = sheet.index[sheet.patient.str.startswith("her2st_")]
    assert len(published) == 9  # those of the patients G and H among them, whom no shipped model has seen
    assert sorted(name for name in published if refused(name, model, load_plan, tmp_path)) == seen
