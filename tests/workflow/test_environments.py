"""Environments come from the one lock, and nothing is pinned twice."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement

from runs import ROOT

LOCK = (ROOT / "requirements.txt").read_text()
LOCKS = {"requirements": LOCK} | {path.stem: path.read_text() for path in sorted((ROOT / "envs").glob("*.txt"))}
CPYTHON = {
    "python_version": "3.11", "python_full_version": "3.11.7", "implementation_name": "cpython",
    "platform_python_implementation": "CPython", "os_name": "posix", "extra": "",
}  # fmt: skip
# as uv names a platform -> what markers are evaluated with
PLATFORMS = {
    "x86_64-unknown-linux-gnu": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "aarch64-unknown-linux-gnu": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "aarch64-apple-darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}
PURE = ("connection-pool", "docrep", "flowio", "pims")  # published as source only; nothing in them is compiled
NVIDIA = re.compile(r"nvidia-|cuda-|triton")


def locked(platform: str) -> dict[str, str]:
    """Name -> version of what the lock installs on a platform."""
    found: dict[str, str] = {}
    for line in re.findall(r"^([^#\s].*?==.*?)\s*\\$", LOCK, re.M):
        pin = Requirement(line)
        if not pin.marker or pin.marker.evaluate(CPYTHON | PLATFORMS[platform]):
            assert pin.name not in found, f"{pin.name} twice"
            found[pin.name] = str(pin.specifier).removeprefix("==")
    return found


def test_environment_files_are_those_of_the_lock():
    done = subprocess.run(
        [sys.executable, "envs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_package_may_have_a_pin_for_each_platform():
    text = (
        "a[x, y]==1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:00\n    # via -r requirements.in\n"
        "a==2.0 ; sys_platform != 'linux' \\\n    --hash=sha256:00\n    # via\n    #   -r requirements.in\n    #   b\n"
        "b==3.0 \\\n    --hash=sha256:00\n    # via -r requirements.in\n"
    )
    pins, needed_by = runpy.run_path(str(ROOT / "envs" / "generate.py"))["read_lock"](text)
    assert pins == {"a": ["a==1.0 ; sys_platform == 'linux'", "a==2.0 ; sys_platform != 'linux'"], "b": ["b==3.0"]}
    assert needed_by == {"a": {"b"}, "b": set()}


def test_every_environment_is_there_and_used():
    named = set()
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        named |= set(re.findall(r'"\.\./\.\./envs/(\w+)\.yaml"', path.read_text()))
    assert named == {path.stem for path in (ROOT / "envs").glob("*.yaml")}


def test_packages_are_pinned():
    for path in (ROOT / "envs").glob("*.yaml"):
        environment = yaml.safe_load(path.read_text())
        pins = environment["dependencies"][-1]["pip"]
        assert len(pins) > 30
        assert all(f"{pin} \\" in LOCK or re.search(rf"^{re.escape(pin.split('==')[0])}\[", LOCK, re.M) for pin in pins)


def test_the_data_environment_has_no_torch():
    assert "torch" not in (ROOT / "envs" / "data.yaml").read_text().split("channels")[1]


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_names_no_registry(name):
    assert not re.search(r"(^--|find-links|https?://)", LOCKS[name], re.M)


@pytest.mark.parametrize(("name", "least"), [("requirements", 200), ("viewers", 150), ("cellxgene", 40)])
def test_every_package_of_the_lock_has_hashes(name, least):
    pins = re.split(r"^(?=[^#\s])", LOCKS[name], flags=re.M)[1:]
    assert len(pins) > least
    assert [pin.split()[0] for pin in pins if not re.search(r"--hash=sha256:[0-9a-f]{64}", pin)] == []


def test_viewers_read_by_the_packages_that_write():
    for name, package in (("viewers", "spatialdata"), ("cellxgene", "anndata")):
        [pin] = re.findall(rf"^{package}==(\S+)", LOCKS[name], re.M)
        assert f"\n{package}=={pin} \\\n" in LOCK


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_lock_has_what_a_platform_needs(platform):
    environment, found = CPYTHON | PLATFORMS[platform], locked(platform)
    wanted = [line.partition("#")[0].strip() for line in (ROOT / "requirements.in").read_text().splitlines()]
    needed = [Requirement(line) for line in wanted if line]
    for name in found:  # and what these packages need, as their installed metadata say
        try:
            needed += map(Requirement, metadata.requires(name) or ())
        except metadata.PackageNotFoundError:
            continue  # of another platform
    needed = [one for one in needed if not one.marker or one.marker.evaluate(environment)]
    assert len(needed) > 500
    for one in needed:
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        assert name in found, one
        assert one.specifier.contains(found[name], prereleases=True), (one, found[name])


def test_what_is_for_one_platform_stays_there():
    x86, arm, mac = (locked(platform) for platform in PLATFORMS)
    assert {name: arm[name] for name in arm if name in mac} == mac  # the same versions everywhere
    assert set(x86) - set(arm) == {"atheris"}
    assert all(NVIDIA.match(name) for name in set(arm) - set(mac))
    assert sum(NVIDIA.match(name) is not None for name in arm) > 15
    assert not [name for name in mac if NVIDIA.match(name)]
    for found in (x86, arm, mac):
        assert (found["torch"], found["torchvision"]) == ("2.15.0", "0.29.2")
        assert not {"colorama", "cffi", "httpx2-jsfetch"} & set(found)  # of Windows, PyPy and browsers


def test_packages_published_as_source_are_not_compiled():
    for name in PURE:
        files = metadata.files(name)
        assert files
        assert not [file for file in files if file.suffix in (".so", ".dylib", ".c", ".pyx")]


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_lock_can_be_installed(platform, tmp_path):
    """As far as the registry tells: nothing is installed, and wheels are asked for that fit the platform."""
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".venv" / "uv" / "bin")
    if not uv:
        pytest.skip("uv is not installed")
    compiled = [f"--no-binary={name}" for name in PURE]
    command = [uv, "pip", "install", "--dry-run", "--require-hashes", "--requirement", ROOT / "requirements.txt",
               "--python-version", "3.11", "--python-platform", platform, "--only-binary=:all:", *compiled,
               "--target", tmp_path / "none"]  # fmt: skip
    # the oldest macOS that torch has wheels for
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode and re.search(r"error sending request|dns error|client error|timed out", done.stderr):
        pytest.skip("no package registry is reached")
    assert done.returncode == 0, done.stderr[-2000:]
    planned = dict(re.findall(r"^ \+ (\S+)==(\S+)$", done.stderr, re.M))
    assert planned == locked(platform)


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
