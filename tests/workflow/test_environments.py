"""Environments come from the one lock, and nothing is pinned twice."""

import re
import subprocess
import sys

import pytest
import yaml

from runs import ROOT


def test_environment_files_are_those_of_the_lock():
    done = subprocess.run(
        [sys.executable, "envs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_environment_is_there_and_used():
    named = set()
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        named |= set(re.findall(r'"\.\./\.\./envs/(\w+)\.yaml"', path.read_text()))
    assert named == {path.stem for path in (ROOT / "envs").glob("*.yaml")}


def test_packages_are_pinned():
    lock = (ROOT / "requirements.txt").read_text()
    for path in (ROOT / "envs").glob("*.yaml"):
        environment = yaml.safe_load(path.read_text())
        pins = environment["dependencies"][-1]["pip"]
        assert len(pins) > 30
        assert all(f"{pin} \\" in lock or re.search(rf"^{re.escape(pin.split('==')[0])}\[", lock, re.M) for pin in pins)


def test_the_data_environment_has_no_torch():
    assert "torch" not in (ROOT / "envs" / "data.yaml").read_text().split("channels")[1]


def test_the_lock_names_no_registry():
    assert not re.search(r"(^--|find-links|https?://)", (ROOT / "requirements.txt").read_text(), re.M)


STEPS = {
    "data": "from ctrflow import export, image, plots, readers, report, simulate\n"
    "from ctrflow.fetch import archives, download, sources\nfrom ctrflow.folds import tables\n"
    "from ctrflow.results import threshold\nfrom ctrflow.sections import aggregate, check, labels\n"
    "from ctrflow.readers import spatialdata_zarr\n"
    "import scanpy, sklearn.mixture, skmisc.loess, tifffile, zarr, pyarrow, shapely, jinja2, anndata\n"
    "import spatialdata, openslide, skimage.filters\nexport.names()",
    "learn": "from ctrflow import encoders, methods\nfrom ctrflow.folds import tables\n"
    "from ctrflow.results import scores\nfrom ctrflow.nets import spacrd\n"
    "import timm, skimage, anndata, openslide, imagecodecs\n"
    "for name in methods.names(): methods.load(name)\nencoders.names()",
}
STEPS["doctor"] = "\n".join([*STEPS.values(), "from ctrflow import doctor"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STEPS))
def test_an_environment_alone_can_import_its_steps(name, tmp_path):
    """In a venv without Snakemake, whose own packages `--sdm conda` would lend to a step without a word."""
    pins = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())["dependencies"][-1]["pip"]
    (tmp_path / "pins.txt").write_text("\n".join(pins))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", tmp_path / "pins.txt"], check=True)
    subprocess.run([python, "-c", STEPS[name]], check=True, env={"PYTHONPATH": str(ROOT / "scripts")})
    assert subprocess.run([python, "-c", "import snakemake"], check=False, capture_output=True).returncode != 0
