"""The recipes of CONTRIBUTING.md, done in a copy of the library: tests look at what follows of one new file."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from runs import ROOT


def copy_library(folder: Path) -> None:
    """The library and its scripts, in a folder."""
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))


def add(heading: str, package: str, folder: Path) -> str:
    """Write the example under a heading into a package of a copy of the library in `folder`; the name of its module."""
    copy_library(folder)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    name = re.search(r"[Ff]or example\s+`(\w+)\.py`", text)[1]
    path = file(folder, package, name)
    assert not path.exists()
    path.write_text(re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1], encoding="utf-8")
    return name


def file(folder: Path, package: str, name: str) -> Path:
    """Where a module of the copy lies."""
    return folder / "scripts" / "ctrflow" / package / f"{name}.py"


def load(path: Path):
    """A module by its file, imported beside those of the library."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(folder: Path, code: str, *arguments):
    """What code that imports the copy prints as JSON; it runs where the shipped configuration is."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(folder / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
