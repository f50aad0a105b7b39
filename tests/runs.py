"""Running the real workflow in copies of the repository, on small simulated sections."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from ctrflow import simulate

ROOT = Path(__file__).parents[1]
# Snakemake's own screen instead of ours, without its header: what ran, with Snakemake's table of jobs
SNAKEMAKES = ("--quiet", "host")
SHARED = ROOT.parent / "shared"  # real sections beside a development checkout
PARTS = ("Snakefile", "workflow", "profiles", "config", "models", "envs", "scripts", "requirements.txt")

MINI = {
    "study": "mini",
    "seeds": [1, 2],
    "encoders": ["hed_texture"],
    "methods": [
        {"method": "spacrd", "options": {"epochs_align": 2, "epochs_fuse": 2, "epochs_classify": 2}},
        "linear",
        "oracle",
        "random",
    ],
    "tasks": [
        {"name": "patients", "split": "leave_one_patient_out", "source": 'cohort == "mini"'},
    ],
}


def copy_workflow(folder: Path) -> Path:
    """The parts of the repository that a run needs, in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    return folder


def copy_beside_shared(base: Path) -> Path:
    """A copy of the repository in `base`, with the real sections beside it, as beside a checkout."""
    os.symlink(SHARED, base / "shared")
    return copy_workflow(base / "repo")


def environment() -> dict[str, str]:
    """The environment variables of a user who has activated the environment of the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "PYTHON"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def run(folder: Path, *arguments: str, timeout_s: int = 1200) -> subprocess.CompletedProcess:
    """`snakemake` with arguments, in a folder; stdout and stderr together in `.stdout`."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def good(folder: Path, *arguments: str) -> str:
    """`run` that must succeed; its output."""
    done = run(folder, *arguments)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def jobs(output: str) -> dict[str, int]:
    """Rule -> number of jobs, from Snakemake's table of a dry run, or of a run with `SNAKEMAKES`."""
    lines = output.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("job ") and "count" in line), None)
    if start is None:
        return {}
    counts = {}
    for line in lines[start + 2 :]:
        words = line.split()
        if len(words) != 2 or words[0] == "total":
            break
        counts[words[0]] = int(words[1])
    return counts


def add_rows(folder: Path, rows: list[dict]) -> None:
    """Append rows to the section sheet."""
    sheet = folder / "config" / "sections.tsv"
    columns = sheet.read_text().splitlines()[0].split("\t")
    with sheet.open("a") as file:
        file.writelines("\t".join(str(row.get(column, "")) for column in columns) + "\n" for row in rows)


def write_study(folder: Path, content: dict) -> str:
    """Write a study file in the folder; its path relative to the folder."""
    path = folder / "config" / "studies" / f"{content['study']}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path.relative_to(folder))


def st_row(name: str, cohort: str = "mini", labelled: bool = True) -> dict:
    """The sheet row of a section that `add_section` wrote."""
    base = "data/mini"
    return {
        "section": name, "cohort": cohort, "patient": name, "platform": "st", "path": f"{base}/ST-cnts/{name}.tsv.gz",
        "image": f"{base}/ST-imgs/{name}.jpg", "note": "simulated",
        "labels": f"{base}/ST-pat/lbl/{name}_labeled_coordinates.tsv" if labelled else "",
    }  # fmt: skip


def add_section(folder: Path, name: str, **options) -> None:
    """A small simulated ST section as raw files."""
    section = simulate.simulate_section(
        "st", **{"spots": 60, "genes": 200, "seed": 3, "name": name, "patient": name} | options
    )
    simulate.write_st(section, folder / "data" / "mini", name)


def copy_with_three_patients(folder: Path, study: dict) -> Path:
    """A fresh copy with three small patients in the sheet, P1 to P3, and a study; not run yet."""
    copy_workflow(folder)
    names = ("P1", "P2", "P3")
    for name in names:
        add_section(folder, name)
    add_rows(folder, [st_row(name) for name in names])
    write_study(folder, study)
    return folder


def copy(source: Path, folder: Path) -> Path:
    """A copy to modify, with its results and file times."""
    return Path(shutil.copytree(source, folder, symlinks=True))
