"""`make` sets up the environment, whatever the machine lacks: uv, a way for uv to get packages, the venv module."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATH = "/usr/bin:/bin"
# stands in for Python: `-m venv` copies itself into the folder; every call of pip is recorded
PYTHON = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; [ ! -f no_venv ] ;;
  "-m pip install --quiet uv") [ ! -f no_uv ] && cp uv_program "${0%python}uv" ;;
  "-m pip "*) echo "pip $*" >> calls; [ ! -f no_pip ] ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >> calls
[ ! -f uv_fails ]
"""
BY_UV = "uv pip install --quiet --require-hashes -r requirements.txt --python .venv/bin/python"
BY_PIP = "pip -m pip install --quiet --require-hashes -r requirements.txt"


@pytest.fixture
def make(tmp_path):
    """Runs make with the given parts missing or failing; returns its exit status, its output and the recorded calls."""
    if shutil.which("make", path=PATH) is None or shutil.which("uv", path=PATH):
        pytest.skip("make is not installed, or the system has a uv, which would be taken")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    python = tmp_path / "python"
    for path, text in ((python, PYTHON), (tmp_path / "uv_program", UV)):
        path.write_text(text)
        path.chmod(0o755)

    def run(*missing):
        for name in ("no_venv", "no_uv", "no_pip", "uv_fails"):
            (tmp_path / name).unlink(missing_ok=True)
        for name in ("calls", *missing):
            (tmp_path / name).write_text("")
        done = subprocess.run(
            ["make", f"PYTHON={python}", ".venv/.ready"],
            cwd=tmp_path,
            env={"PATH": PATH},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, (tmp_path / "calls").read_text().splitlines()

    return run


def test_uv_installs_where_pip_can_get_it(make, tmp_path):
    status, _, calls = make()
    assert (status, calls) == (0, [BY_UV])
    assert (tmp_path / ".venv" / ".ready").is_file()
    assert make()[2] == []  # nothing to do


def test_pip_installs_where_uv_is_unavailable(make):
    assert make("no_uv")[::2] == (0, [BY_PIP])


def test_pip_installs_where_uv_fails(make):
    status, output, calls = make("uv_fails")
    assert (status, calls) == (0, [BY_UV, BY_PIP])
    assert "trying pip" in output


def test_a_failed_installation_is_not_marked_as_ready(make, tmp_path):
    status, _, calls = make("uv_fails", "no_pip")
    assert (status, calls) == (2, [BY_UV, BY_PIP])
    assert not (tmp_path / ".venv" / ".ready").exists()
    assert make()[::2] == (0, [BY_UV])


def test_half_an_environment_is_removed(make, tmp_path):
    for _ in range(2):
        status, output, calls = make("no_venv")
        assert (status, calls) == (2, [])
        assert "install its venv module" in output
        assert not (tmp_path / ".venv").exists()
    assert make()[::2] == (0, [BY_UV])


@pytest.mark.parametrize("missing", [(), ("uv_fails", "no_pip")])
def test_viewers_are_tested_as_far_as_they_can_be_installed(missing, make, tmp_path):
    make()
    (tmp_path / "envs").mkdir()
    for name in ("viewers", "cellxgene"):
        (tmp_path / "envs" / f"{name}.txt").touch()
    for name in ("calls", *missing):
        (tmp_path / name).write_text("")
    done = subprocess.run(
        [shutil.which("make", path=PATH), "test-viewers"],
        cwd=tmp_path, env={"PATH": PATH}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "SHOTS=tests/viewers/shots .venv/bin/python -m pytest tests/viewers"
    calls = (tmp_path / "calls").read_text().splitlines()
    for name in ("viewers", "cellxgene"):
        install = f"pip install --quiet --require-hashes -r envs/{name}.txt"
        assert f"uv {install} --python .venv-{name}/bin/python" in calls
        assert (f"pip -m {install}" in calls) == bool(missing)
        assert (tmp_path / f".venv-{name}" / ".ready").is_file() != bool(missing)
        assert (f"envs/{name}.txt cannot be installed" in done.stdout) == bool(missing)
    assert not [call for call in calls if "requirements.txt" in call]  # the environment of ctrflow stays as it is


@pytest.mark.parametrize(("given", "wanted"), [((), "model \n"), (("STUDY=sthbc",), "model --config study=sthbc\n")])
def test_models_are_exported_for_the_given_study(given, wanted, make, tmp_path):
    make()
    done = subprocess.run(
        ["make", "-n", "CORES=3", "model", *given],
        cwd=tmp_path, env={"PATH": PATH}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f".venv/bin/python -m snakemake --cores 3 {wanted}" in done.stdout


@pytest.mark.parametrize(("tool", "cores"), [("nproc", "7"), ("sysctl", "10"), (None, "2")])
def test_as_many_cores_as_the_machine_has(tool, cores, make, tmp_path):
    """Linux has nproc; macOS has sysctl."""
    make()
    tools = tmp_path / "tools"
    tools.mkdir()
    if tool:
        wanted = {"nproc": "", "sysctl": "-n hw.ncpu"}[tool]
        (tools / tool).write_text(f'#!/bin/sh\n[ "$*" = "{wanted}" ] && echo {cores}\n')
        (tools / tool).chmod(0o755)
    done = subprocess.run(
        [shutil.which("make", path=PATH), "-n", "demo"],
        cwd=tmp_path, env={"PATH": str(tools)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f".venv/bin/python -m snakemake --cores {cores}\n" in done.stdout


def test_the_example_is_a_study_of_its_own(make, tmp_path):
    make()
    done = subprocess.run(
        ["make", "-n", "CORES=3", "example"],
        cwd=tmp_path, env={"PATH": PATH}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ".venv/bin/python -m snakemake --cores 3 --config study=example\n" in done.stdout


def test_what_is_given_to_map_reaches_snakemake(make, tmp_path):
    """Spaces, quotes, dollars and misspelt keys; but no variable of the environment, and not the Makefile's own."""
    make()
    (tmp_path / ".venv" / "bin" / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n')
    given = ["note=left, O'Neil  #5 (b)", "path=/data/my $x/outs", "tisue=breast"]
    for arguments in (given, []):
        subprocess.run(
            ["make", "CORES=3", f"PYTHON={tmp_path / 'python'}", "map", *arguments],
            cwd=tmp_path, env={"PATH": PATH, "platform": "linux"}, capture_output=True, check=True,
        )  # fmt: skip
        words = (tmp_path / "arguments").read_text().splitlines()
        assert words[:5] == ["-m", "snakemake", "--cores", "3", "map"]
        assert words[5:] == (["--config", *arguments] if arguments else [])


@pytest.mark.parametrize("name", ["My Drive (lab)", 'it\'s $HOME & "q"', "[1] #2 %s", "back\\slash"])
def test_it_installs_and_starts_in_a_path_with(name, make, tmp_path):
    """Nothing that make calls has the path of the folder in it, nor in its first line, as bin/snakemake has."""
    make()
    folder = tmp_path / name / "ctrflow"
    shutil.copytree(tmp_path / ".venv", folder / ".venv")
    for file in ("Makefile", "requirements.txt"):
        shutil.copy(tmp_path / file, folder)
    (folder / ".venv/bin/python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n')
    done = subprocess.run(
        ["make", f"PYTHON={tmp_path / 'python'}", "CORES=3", "demo"],
        cwd=folder, env={"PATH": PATH}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "arguments").read_text().splitlines() == ["-m", "snakemake", "--cores", "3"]


@pytest.mark.parametrize(("name", "words"), [("a:b", "path with a colon"), ("x{1}", "path with braces")])
def test_a_path_in_which_nothing_can_run_is_told_before_the_installation(name, words, make, tmp_path):
    make()
    folder = tmp_path / name
    folder.mkdir()
    for file in ("Makefile", "requirements.txt"):
        shutil.copy(tmp_path / file, folder)
    done = subprocess.run(
        ["make", f"PYTHON={tmp_path / 'python'}", "demo"],
        cwd=folder, env={"PATH": PATH}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{folder}: " in done.stderr
    assert f"{words}; move this folder" in done.stderr
    assert not (folder / ".venv").exists()
