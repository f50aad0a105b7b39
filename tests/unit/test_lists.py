"""docs/lists.md says what the code registers: a new method, encoder, platform, metric or export needs `make lists`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import recipes
from ctrflow import encoders, export, methods, readers
from ctrflow.results import metrics

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_one_that_the_code_gives():
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_everything_registered_is_on_the_page():
    page = (ROOT / "docs" / "lists.md").read_text(encoding="utf-8")
    names = [*methods.names(), *encoders.names(), *readers.platforms(), *export.names()]
    names += [metric.name for metric in metrics.METRICS]
    assert [name for name in names if f"\n| `{name}` |" not in page] == []


RECIPES = {"A method": "methods", "An encoder": "encoders", "A vendor format": "readers", "An export": "export"}


@pytest.mark.parametrize("heading", RECIPES)
def test_a_new_file_comes_onto_the_page_by_one_command(heading, tmp_path):
    name = recipes.add(heading, RECIPES[heading], tmp_path)
    assert f"\n| `{name}` |" in page_of(tmp_path)


def test_a_new_metric_comes_onto_the_page_by_one_command(tmp_path):
    recipes.copy_library(tmp_path)
    path = recipes.file(tmp_path, "results", "metrics")
    text = path.read_text(encoding="utf-8")
    line = 'METRICS = (\n    Metric("specificity", "Specificity", f1, needs="calls"),'
    path.write_text(text.replace("METRICS = (", line, 1), encoding="utf-8")
    assert "\n| `specificity` | Specificity |" in page_of(tmp_path)


def page_of(folder: Path) -> str:
    """The page that the generator writes for a copy of the library."""
    (folder / "docs").mkdir()
    shutil.copy2(ROOT / "docs" / "generate.py", folder / "docs")
    subprocess.run([sys.executable, "docs/generate.py"], cwd=folder, check=True)
    return (folder / "docs" / "lists.md").read_text(encoding="utf-8")
