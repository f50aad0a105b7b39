"""Environments come from the one lock, and nothing is pinned twice."""

import re
import subprocess
import sys

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
    assert not re.search(r"(index-url|find-links|https?://)", (ROOT / "requirements.txt").read_text())
