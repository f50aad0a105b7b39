"""Code digests follow imports, and only those."""

import os
from pathlib import Path

from ctrflow import digests

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_a_method_reaches_its_nets_and_no_other_method():
    reached = digests.closure(SCRIPTS / "train_method.py", "methods.spacrd")
    assert {"ctrflow.methods", "ctrflow.nets.spacrd", "ctrflow.nets.training", "ctrflow.features.neighbours"} <= reached
    assert {"ctrflow.storage", "ctrflow.logs"} <= reached
    assert "ctrflow.methods.linear" not in reached
    assert not any("readers" in name or "report" in name for name in reached)


def test_an_encoder_reaches_its_network_and_no_other_encoder():
    shared = {f"ctrflow.{name}" for name in ("encoders", "image", "storage", "disk", "logs", "machine", "errors")}
    shared |= {f"ctrflow.image.{path.stem}" for path in (SCRIPTS / "ctrflow" / "image").glob("[a-z]*.py")}
    shared -= {"ctrflow.image.superpixels"}
    assert digests.closure(SCRIPTS / "embed_section.py", "encoders.hed_texture") == shared | {
        "ctrflow.encoders.hed_texture"
    }
    assert digests.closure(SCRIPTS / "embed_section.py", "encoders.uni") == shared | {
        "ctrflow.encoders.uni", "ctrflow.encoders.network", "ctrflow.encoders.weights",
    }  # fmt: skip


def test_a_reader_reaches_no_other_technology():
    technologies = {f"ctrflow.readers.{name}" for name in ("st", "visium", "visium_hd", "visium_hd_cells", "xenium")}
    for name in technologies:
        reached = digests.closure(SCRIPTS / "ingest_section.py", name.removeprefix("ctrflow."))
        assert reached & technologies == {name}
    assert not technologies & digests.closure(SCRIPTS / "ingest_cells.py")


def test_the_report_reaches_neither_encoders_nor_methods():
    reached = digests.closure(SCRIPTS / "report_study.py")
    assert not [name for name in reached if name.split(".")[1] in ("encoders", "methods", "nets", "readers")]


def test_every_script_reaches_what_it_imports():
    for path in SCRIPTS.glob("*.py"):
        assert "ctrflow.logs" in digests.closure(path), path


def test_the_page_belongs_to_the_report():
    names = [path.name for path in digests._files_of("ctrflow.report.page")]
    assert names == ["page.py", "page_marks.js", "page_script.js", "page_style.css", "page_template.html"]


def test_an_edit_changes_the_digests_of_what_imports_it(tmp_path, monkeypatch):
    package = tmp_path / "ctrflow"
    package.mkdir()
    (package / "a.py").write_text("def go():\n    from ctrflow import b\n")
    (package / "b.py").write_text("X = 1\n")
    (package / "c.py").write_text("import numpy\n")
    for name in "abc":
        (tmp_path / f"{name}_step.py").write_text(f"from ctrflow import {name}\n")
    monkeypatch.setattr(digests, "ROOT", package)

    def all_digests():
        digests._imports.cache_clear()
        return {name: digests.of_code(tmp_path / f"{name}_step.py") for name in "abc"}

    before = all_digests()
    (package / "b.py").write_text("X = 2\n")
    after = all_digests()
    digests._imports.cache_clear()
    assert [name for name in "abc" if before[name] != after[name]] == ["a", "b"]


def test_a_replaced_source_is_noticed(tmp_path):
    small, large, store = tmp_path / "small.tsv", tmp_path / "large.tif", tmp_path / "store.zarr"
    small.write_text("a")
    large.write_bytes(bytes(digests.SMALL_BYTES + 1))
    (store / "c").mkdir(parents=True)
    (store / "c" / "0").write_bytes(b"chunk")
    paths = [str(small), str(large), str(store), str(tmp_path / "absent")]
    known = digests.of_sources(paths)
    assert list(known) == paths
    assert known[paths[0]] == "ca978112ca1bbdca"  # of "a", by sha256sum
    assert known[paths[3]] == "missing"

    def changed():
        return [Path(path).name for path, state in digests.of_sources(paths).items() if state != known[path]]

    os.utime(small)  # touched, and the same
    assert changed() == []
    before = small.stat()
    small.write_text("b")
    os.utime(small, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(large, (0, 0))  # older
    os.utime(store / "c" / "0", (0, 0))
    assert changed() == ["small.tsv", "large.tif", "store.zarr"]
