"""Code digests follow imports, and only those."""

from ctrflow import digests


def test_a_method_reaches_its_nets_and_no_other_method():
    reached = digests.closure(["methods.spacrd"])
    assert {"ctrflow.methods", "ctrflow.nets.spacrd", "ctrflow.nets.training", "ctrflow.neighbours"} <= reached
    assert "ctrflow.methods.linear" not in reached
    assert not any("readers" in name or "report" in name for name in reached)


def test_an_edit_changes_the_digests_of_those_who_import_it(tmp_path, monkeypatch):
    package = tmp_path / "ctrflow"
    package.mkdir()
    (package / "a.py").write_text("def go():\n    from ctrflow import b\n")
    (package / "b.py").write_text("X = 1\n")
    (package / "c.py").write_text("import numpy\n")
    monkeypatch.setattr(digests, "ROOT", package)
    digests._imports.cache_clear()
    before = {name: digests.of_code(name) for name in "abc"}
    (package / "b.py").write_text("X = 2\n")
    digests._imports.cache_clear()
    after = {name: digests.of_code(name) for name in "abc"}
    digests._imports.cache_clear()
    assert [name for name in "abc" if before[name] != after[name]] == ["a", "b"]
