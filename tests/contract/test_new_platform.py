"""A vendor format is one file: a reader added to the package is planned, recognised, read and examined."""

import json
import subprocess
import sys

import pytest
from PIL import Image

import recipes
from runs import add_rows, copy_workflow, environment, good, jobs, write_study

# an invented vendor: tables of counts and positions, px of 1 µm, with an image
READER = """
from pathlib import Path

from ctrflow.readers import describe, join
from ctrflow.readers.platform import Platform

PLATFORM = Platform(
    "a folder of dots",
    marks=("places.csv",),
    image="picture.png",
    spot_um=(10,),
    spot_um_rule="dots are 10 µm wide; leave it empty",
    cells=False,
)


def files(row):
    return [f"{row['path']}/counts.csv", f"{row['path']}/places.csv"]


def own_image(row):
    path = Path(row["path"], PLATFORM.image)
    return str(path) if path.is_file() else ""


def read(row):
    import pandas as pd
    from anndata import AnnData

    counts, places = (pd.read_csv(path, index_col=0) for path in files(row))
    spots = join(AnnData(counts.astype("float32")), places, *files(row))
    spots.uns["section"] = describe(row, 1.0, 10.0, own_image(row))
    return spots
"""
READ = """
import json, sys
from ctrflow import readers

path, platform = sys.argv[1:]
section = readers.read_section({"section": "D", "platform": platform, "path": path})
about = section.uns["section"]
print(json.dumps([
    readers.kind_of(path), section.X.sum().item(), section.obsm["spatial"][-1].tolist(), about["um_per_px"]
]))
"""
EXAMINE = """
import json, sys
from pathlib import Path
from ctrflow import doctor, readers
from ctrflow.errors import InputError
from ctrflow.plan.sheet import read_sheet

found = {"platforms": [*readers.platforms()]}
found["heavy"] = sorted({"anndata", "h5py", "pandas", "pyarrow", "scanpy", "scipy"} & set(sys.modules))
found["kind"] = readers.kind_of("data/D1")
row = read_sheet([Path("config/sections.tsv")]).set_index("section", drop=False).loc["D1"].to_dict()
section = readers.read_section(row)
found["read"] = [section.X.sum().item(), section.obsm["spatial"].tolist(), section.uns["section"]["image"]]
found["examined"] = [one.message for one in doctor._check_sections({"rows": [row]}, Path("results"), 1e12)[0]]
for name, act in {
    "mistaken": lambda: readers.read_section(row | {"platform": "visium"}),
    "too wide": lambda: read_sheet([Path("wide.tsv")]),
}.items():
    try:
        act()
    except InputError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A workflow with a section of an invented format and one of a variant that is read as cells; one file each."""
    folder = copy_workflow(tmp_path_factory.mktemp("new") / "workflow")
    readers = folder / "scripts" / "ctrflow" / "readers"
    (readers / "dots.py").write_text(READER)
    (readers / "blots.py").write_text(READER.replace("cells=False", "cells=True").replace("places.csv", "cells.csv"))
    for name, platform, places in (("D1", "dots", "places.csv"), ("B1", "blots", "cells.csv")):
        data = folder / "data" / name
        data.mkdir(parents=True)
        (data / "counts.csv").write_text("dot,A,B\n" + "".join(f"d{n},{n},1\n" for n in range(8)))
        (data / places).write_text("dot,x,y\n" + "".join(f"d{n},{10 * n},50\n" for n in reversed(range(8))))
        Image.new("RGB", (100, 100)).save(data / "picture.png")
        add_rows(folder, [{"section": name, "cohort": "dots", "platform": platform, "path": f"data/{name}"}])
    (folder / "wide.tsv").write_text("section\tplatform\tpath\tspot_um\nD1\tdots\tdata/D1\t55\n")
    task = {"name": "all", "split": "transfer", "normal": 'section == "D1"', "target": 'section == "B1"'}
    write_study(folder, {"study": "dots", "encoders": ["hed_texture"], "methods": ["random"], "tasks": [task]})
    return folder


def test_its_sections_are_planned(copy):
    wanted = [f"results/sections/{name}/spots.h5ad" for name in ("D1", "B1")]
    output = good(copy, "-n", *wanted, "--config", "study=dots")
    assert jobs(output) == {"ingest_section": 1, "ingest_cells": 1}
    for name, places in (("D1", "places.csv"), ("B1", "cells.csv")):
        assert f"input: data/{name}/counts.csv, data/{name}/{places}, data/{name}/picture.png" in output


def test_they_are_recognised_read_and_examined(copy):
    done = subprocess.run(
        [sys.executable, "-c", EXAMINE],
        cwd=copy,
        env=environment() | {"PYTHONPATH": str(copy / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"dots", "blots"} < set(found["platforms"])
    assert found["heavy"] == []  # planning imports every reader
    assert found["kind"] == "dots"
    assert found["read"] == [28 + 8, [[10 * n, 50] for n in range(8)], "data/D1/picture.png"]
    assert "8 spots, 2 genes, 1 µm per px (platform dots alone)" in found["examined"]
    assert "platform says visium, but this is a folder of dots; write dots in column platform" in found["mistaken"]
    assert "wide.tsv, row 2, column spot_um: dots are 10 µm wide; leave it empty" in found["too wide"]


def test_the_recipe_reads_a_section(tmp_path):
    """The example of CONTRIBUTING.md, on nine dots in three rows."""
    name = recipes.add("A vendor format", "readers", tmp_path)
    folder = tmp_path / "dots"
    folder.mkdir()
    dots = [f"d{number}" for number in range(9)]
    counts = "".join(f"{dot},{number},1\n" for number, dot in enumerate(dots))
    (folder / "counts.csv").write_text(f",g0,g1\n{counts}")
    places = "".join(f"{dot},{10 * (number % 3)},{10 * (number // 3)}\n" for number, dot in enumerate(dots))
    (folder / "places.csv").write_text(f",x,y\n{places}")
    kind, total, last, um_per_px = recipes.ask(tmp_path, READ, folder, name)
    assert (kind, total, last, um_per_px) == (name, 36 + 9, [20.0, 20.0], 1.0)
