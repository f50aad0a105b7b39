"""An export is one file: a module added to ctrflow/export is planned and written without another edit."""

import json
import os
import subprocess
import sys

import pytest

import recipes
from runs import ROOT

PLAN = """
import json, sys
from types import SimpleNamespace
import pandas as pd
from ctrflow import export
from ctrflow.plan import tables
plan = SimpleNamespace(study=SimpleNamespace(name="mine", uncropped=["A", "X"]), of_cells=["X"])
calls = pd.DataFrame({"m": [1.0, 0.0, 1.0], "n": [1.0, 1.0, 1.0]})
export.write(export.Section(None, calls, calls, calls[[]], calls[[]]), {"counted": sys.argv[1]})
print(json.dumps([tables.exports(plan), tables.export_patterns(), tables.export_patterns("cells")]))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the library with the format of CONTRIBUTING.md, and with the same for cells."""
    folder = tmp_path_factory.mktemp("export")
    assert recipes.add("An export", "export", folder) == "counted"
    text = recipes.file(folder, "export", "counted").read_text(encoding="utf-8")
    of_cells = text.replace('counted.json", ', 'counted_cells.json", needs=("cells",), ')
    assert of_cells != text
    recipes.file(folder, "export", "counted_cells").write_text(of_cells, encoding="utf-8")
    return folder


def test_it_is_planned_and_written(copy):
    written = copy / "A.counted.json"
    exports, of_spots, of_cells = recipes.ask(copy, PLAN, written)
    assert [path for path in exports if "counted" in path] == [
        "results/mine/export/A/A.counted.json",
        "results/mine/export/X/X.counted.json",
        "results/mine/export/X/X.counted_cells.json",
    ]
    assert of_spots["counted"] == "results/{study}/export/{section}/{section}.counted.json"
    assert "counted" not in of_cells
    assert set(of_cells) == {"xenium", "counted_cells"}
    assert json.loads(written.read_text()) == {"m": 2, "n": 3}


def test_planning_loads_no_heavy_library():
    heavy = ["anndata", "geopandas", "h5py", "pandas", "scipy", "shapely", "spatialdata"]
    code = f"import sys; from ctrflow import export; export.formats(); print([m for m in {heavy} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
