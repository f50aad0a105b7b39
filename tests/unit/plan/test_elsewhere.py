"""The files that come with ctrflow, for a run in another folder."""

import pytest

from ctrflow.errors import InputError
from ctrflow.plan import load, shipped

WORDS = "config/label_words.tsv"


def test_what_the_folder_has_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.found(WORDS) == str(shipped.ROOT / WORDS)
    assert shipped.found("mine.tsv") == "mine.tsv"
    (tmp_path / "config").mkdir()
    (tmp_path / WORDS).write_text("")
    assert shipped.found(WORDS) == WORDS


def test_a_folder_counts_by_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert shipped.found("models", "*/*.safetensors") == str(shipped.ROOT / "models")
    (tmp_path / "models" / "mine" / "image.safetensors").write_text("")
    assert shipped.found("models", "*/*.safetensors") == "models"


def test_a_clone_below_the_folder_has_a_path_that_moves_with_it(monkeypatch):
    monkeypatch.chdir(shipped.ROOT.parent)
    assert shipped.found(WORDS) == f"{shipped.ROOT.name}/{WORDS}"
    monkeypatch.chdir(shipped.ROOT)
    assert shipped.found(WORDS) == WORDS


def test_studies_are_those_of_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config" / "studies").mkdir(parents=True)
    (tmp_path / "config/studies/mine.yaml").write_text("")
    names = shipped.names("config/studies", ".yaml")
    assert {"mine", "demo", "my_section"} <= set(names)
    assert names == sorted(names)
    assert load.study_path("mine", "here") == "config/studies/mine.yaml"
    assert load.study_path("demo", "here") == str(shipped.ROOT / "config/studies/demo.yaml")
    with pytest.raises(InputError, match=r"unknown study `other`; valid: .*mine, .*my_section"):
        load.study_path("other", "here")


def test_a_module_is_given_what_its_configuration_leaves_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"study": "mine.yaml", "threads": {"train": 4}, "encoders": {"own": {"model": "resnet50"}}}
    found = load.completed(given, module=True)
    assert found["study"] == "mine.yaml"
    assert found["threads"] == {"embed": 1, "train": 4}
    assert set(found["encoders"]) > {"own", "hed_texture", "lite0_fast"}
    assert found["label_words"] == str(shipped.ROOT / WORDS)
    assert found["sections"] == [str(shipped.ROOT / "config/sections.tsv")]
    assert given["threads"] == {"train": 4}  # it belongs to the other workflow


def test_nobody_gets_the_demo_of_a_module():
    assert "study" not in load.completed({}, module=True)
    assert load.completed({"path": "a"}, module=True)["study"] == "demo"
    assert load.completed({}, module=False)["study"] == "demo"
