"""Where the workflow lies, from where it is run, another workflow that uses it, and paths that Snakemake chokes on."""

import os
import re
import subprocess
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from runs import MINI, PARTS, ROOT, copy, environment, good, jobs, run, write_study

STUDY = ("--config", "study=mini")
SPOTS = "results/sections/P1/spots.h5ad"
# plans what any study needs, and trains next to nothing
SHORT = MINI | {"seeds": [1], "methods": ["linear", "random"]}
ODD = ["My Drive (lab)", 'it\'s [1] & $HOME; "x"', "One  Drive", "a`b*?|<c>#%20", "back\\slash, ü=1"]


def with_environment(folder: Path) -> Path:
    """The folder, with the environment of the tests as its .venv, as `make` installs it there."""
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def started(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`snakemake` by the .venv in a folder; stdout and stderr together in `.stdout`."""
    return subprocess.run(
        [str(folder / ".venv" / "bin" / "python"), "-m", "snakemake", *arguments],
        cwd=folder,
        env=environment() | {"PATH": f"{folder}/.venv/bin{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )


def told(done: subprocess.CompletedProcess, *words: str) -> None:
    """A run that has ended with a message, and not with a raw error."""
    assert done.returncode != 0
    assert [word for word in words if word not in done.stdout] == [], done.stdout[-3000:]
    raw = ("Traceback", "WildcardError", "MissingInputException", "No such file or directory", "returned non-zero")
    assert [word for word in raw if word in done.stdout] == [], done.stdout[-3000:]


# --- where the checkout lies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ODD[0], *(pytest.param(name, marks=pytest.mark.slow) for name in ODD[1:])])
def test_a_step_runs_in_a_path_with_any_sign(name, fresh, tmp_path):
    folder = with_environment(copy(fresh, tmp_path / name / "ctrflow"))
    done = started(folder, SPOTS, "--cores", "1", *STUDY)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / SPOTS).is_file()


@pytest.mark.slow
def test_everything_runs_in_a_path_with_spaces_and_brackets(fresh, tmp_path):
    folder = with_environment(copy(fresh, tmp_path / ODD[0] / "ctrflow"))
    write_study(folder, SHORT)
    done = started(folder, "doctor", "--cores", "1", *STUDY)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "0 problems" in done.stdout
    done = started(folder, "--cores", "2", *STUDY)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "report in results/mini/report.html" in done.stdout
    page = folder / "results/mini/snakemake_report.html"
    assert started(folder, "--report", str(page.relative_to(folder)), *STUDY).returncode == 0
    assert "P1.png" in page.read_text()


def test_a_path_with_braces_is_told_before_any_job(fresh, tmp_path):
    folder = with_environment(copy(fresh, tmp_path / "{lab} 1" / "ctrflow"))
    told(
        started(folder, SPOTS, "--cores", "1", *STUDY), f"{folder}: Snakemake cannot run steps from a path with braces"
    )


def test_a_path_that_no_job_of_a_cluster_would_find_is_told(fresh, tmp_path):
    folder = with_environment(copy(fresh, tmp_path / "O'Neil" / "ctrflow"))
    asked = (SPOTS, "--workflow-profile", "slurm", "--slurm-no-account", *STUDY)
    told(started(folder, *asked), f"{folder}", "no jobs can be submitted from a path with quotes, $ or \\")


# --- the doctor's page ------------------------------------------------------------------------------------------------


def pages_of_an_earlier_run(folder: Path) -> None:
    """What the doctor has left of a healthy study."""
    (folder / "logs").mkdir()
    (folder / "logs/doctor.txt").write_text("0 problems, 0 warnings, 9 ok\n")
    (folder / "logs/doctor.log").write_text("10:00:00 INFO 3 sections\n")


@pytest.mark.parametrize(
    ("script", "where"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "see above"),
        ("this is no Python\n", "see above"),
        (
            'import os\nfrom ctrflow import logs\nlogs.setup(snakemake.log[0]).info("begun")\nos._exit(1)\n',
            "see logs/doctor.log",
        ),
    ],
    ids=["killed", "not begun", "ended"],
)
def test_a_dead_doctor_leaves_no_page_of_an_earlier_run(script, where, fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    pages_of_an_earlier_run(folder)
    (folder / "scripts/doctor.py").write_text(script)
    done = run(folder, "doctor", "--cores", "1", *STUDY)
    assert done.returncode != 0
    assert "0 problems" not in done.stdout
    assert f"the doctor's job ended without a page: {where}" in done.stdout
    assert not (folder / "logs/doctor.txt").exists()


def test_a_doctor_that_cannot_be_asked_leaves_no_page_either(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    pages_of_an_earlier_run(folder)
    told(run(folder, "doctor", "--cores", "1", *STUDY, "n_genes=many"), "n_genes: 'many' is not of type 'integer'")
    assert not (folder / "logs/doctor.txt").exists()


def test_a_dry_run_of_the_doctor_keeps_its_page(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    pages_of_an_earlier_run(folder)
    good(folder, "doctor", "-n", *STUDY)
    assert "0 problems" in (folder / "logs/doctor.txt").read_text()


# --- from where it is run ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elsewhere(fresh, tmp_path_factory) -> Path:
    """A folder with data, a sheet, a study and a configuration of its own, beside a clone of ctrflow."""
    base = tmp_path_factory.mktemp("elsewhere")
    folder = base / "mine"
    copy(fresh / "data", folder / "data")
    (base / "ctrflow").mkdir()
    for part in PARTS:
        (base / "ctrflow" / part).symlink_to(ROOT / part)
    rows = (fresh / "config/sections.tsv").read_text().splitlines()
    (folder / "sections.tsv").write_text("\n".join([rows[0], *rows[-3:]]) + "\n")
    (folder / "mine.yaml").write_text(yaml.safe_dump(SHORT | {"study": "mine"}))
    (folder / "own.yaml").write_text(yaml.safe_dump({"study": "mine.yaml", "sections": ["sections.tsv"]}))
    return folder


def elsewhere_with(elsewhere: Path, base: Path, snakefile: str, config: str = "") -> Path:
    """A copy of the folder, with a workflow of its own that uses the clone."""
    (base / "ctrflow").symlink_to(elsewhere.parent / "ctrflow")
    folder = copy(elsewhere, base / "mine")
    (folder / "Snakefile").write_text(snakefile)
    if config:
        (folder / "config.yaml").write_text(config)
    return folder


FLOW = ("-s", "../ctrflow/Snakefile")


def test_an_empty_folder_gets_the_demo(elsewhere, tmp_path):
    said = good(tmp_path, "-s", str(elsewhere.parent / "ctrflow/Snakefile"), "-n")
    assert jobs(said)["simulate_cohort"] == 1
    assert "input: data/demo/" in said
    assert f"{ROOT}/config/label_words.tsv" in said.replace(str(elsewhere.parent / "ctrflow"), str(ROOT))


def test_a_folder_with_its_own_sheet_finds_what_ctrflow_comes_with(elsewhere, tmp_path):
    (tmp_path / "ctrflow").symlink_to(elsewhere.parent / "ctrflow")
    folder = copy(elsewhere, tmp_path / "mine")
    (folder / "models").mkdir()  # of another program: no models of ctrflow
    labels = "results/sections/P1/labels.tsv"
    good(folder, *FLOW, labels, "--cores", "1", "--configfile", "own.yaml")
    given = pd.read_csv(folder / "data/mini/ST-pat/lbl/P1_labeled_coordinates.tsv", sep="\t")
    found = pd.read_csv(folder / labels, sep="\t")
    assert len(found) == len(given) > 50
    assert set(found.label.dropna()) == {0, 1}
    # by another way into the same folder, nothing is to be made again
    same = good(
        tmp_path, "-s", "ctrflow/Snakefile", "--directory", "mine", labels, "--configfile", "mine/own.yaml", "-n"
    )
    assert "Nothing to be done" in same
    # a section of one's own is scored by the shipped models
    scored = good(
        folder, *FLOW, "map", "-n", "--config", "path=data/mini/ST-cnts/P2.tsv.gz", "section=biopsy7", "tissue=breast"
    )
    assert jobs(scored)["build_target"] == 1
    assert "models/breast/expression.safetensors" in scored


def test_a_configuration_of_the_folder_counts(elsewhere, tmp_path):
    (tmp_path / "ctrflow").symlink_to(elsewhere.parent / "ctrflow")
    folder = copy(elsewhere, tmp_path / "mine")
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text(yaml.safe_dump({"study": "mine.yaml", "encoders": {}}))
    told(run(folder, *FLOW, "-n"), "config/config.yaml: 2 problems:", "sections: missing")


# --- as a module ------------------------------------------------------------------------------------------------------


def blocks(language: str) -> str:
    """The only block of a language on the page."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs/module.md").read_text(), re.DOTALL | re.MULTILINE)
    return text


@pytest.fixture(scope="module")
def outer(elsewhere, tmp_path_factory) -> Path:
    """The workflow of the page, in a folder beside the clone."""
    return elsewhere_with(elsewhere, tmp_path_factory.mktemp("outer"), blocks("python"), blocks("yaml"))


def test_the_workflow_of_the_page_is_planned(outer):
    said = good(outer, "-n")
    planned = jobs(said)
    made = {"ctrflow_ingest_section": 3, "ctrflow_export_section": 3, "ctrflow_summarise_export": 1, "collect": 1}
    assert {rule: planned[rule] for rule in made} == made
    assert planned["all"] == 1
    # its own rule `all` is the default; nothing of ctrflow's report is asked for
    assert not {"ctrflow_all", "ctrflow_report_study", "ctrflow_check_section"} & set(planned)
    assert "localrules directive" not in said


@pytest.mark.slow
def test_the_doctor_of_a_module_says_what_it_found(outer, tmp_path):
    (tmp_path / "ctrflow").symlink_to(outer.parent / "ctrflow")
    folder = copy(outer, tmp_path / "mine")
    assert "0 problems" in good(folder, "ctrflow_doctor", "--cores", "1")
    (folder / "data/mini/ST-imgs/P2.jpg").unlink()
    done = run(folder, "ctrflow_doctor", "--cores", "1")
    assert done.returncode != 0
    assert "1 problem," in done.stdout
    assert "1 problem," in (folder / "logs/doctor.txt").read_text()
    told(run(folder, "-n"), "sections.tsv: 1 missing file:", "data/mini/ST-imgs/P2.jpg does not exist")


@pytest.mark.slow
def test_the_workflow_of_the_page_makes_something_of_a_map(outer, finished, tmp_path):
    (tmp_path / "ctrflow").symlink_to(outer.parent / "ctrflow")
    folder = copy(outer, tmp_path / "mine")
    good(folder, "--cores", "2")
    summary = pd.read_csv(folder / "paper/sections.tsv", sep="\t")
    assert set(summary.section) == {"P1", "P2", "P3"}
    assert (folder / "paper/P1.png").read_bytes() == (folder / "results/mine/figures/P1.png").read_bytes()
    assert min(Image.open(folder / "paper/P1.png").size) > 300
    # the scores are those of the workflow by itself
    scores = "patients/P1/hed_texture/linear/seed1/scores.tsv"
    assert (folder / "results/mine" / scores).read_bytes() == (finished / "results/mini" / scores).read_bytes()
    assert not (folder / "results/mine/report.html").exists()


USED = """{configfile}
module ctrflow:
    snakefile: "../ctrflow/Snakefile"
    {config}

use rule * from ctrflow{prefix}
"""


# prefix, configfile, config
WAYS = [
    (" as theirs_*", "", ""),
    ("", 'configfile: "own.yaml"', "config: config"),
    *(
        pytest.param(*way, marks=pytest.mark.slow)
        for way in product(("", " as theirs_*"), ("", 'configfile: "own.yaml"'), ("", "config: config"))
    ),
]


@pytest.mark.parametrize(("prefix", "configfile", "config"), WAYS)
def test_a_module_is_used_in_any_way(prefix, configfile, config, elsewhere, tmp_path):
    folder = elsewhere_with(elsewhere, tmp_path, USED.format(prefix=prefix, configfile=configfile, config=config))
    # without `config`, ctrflow reads what its own configuration and the command line say
    asked = () if configfile and config else ("--config", "study=mine.yaml", "sections=['sections.tsv']")
    name = "theirs_" if prefix else ""
    planned = jobs(good(folder, "-n", *asked))  # no rule of its own: ctrflow's first one
    assert planned[f"{name}check_section"] == 3
    assert planned[f"{name}report_study"] == 1
    assert planned[f"{name}all"] == 1


OUTER = """
onsuccess:
    print("mine: all is well")

wildcard_constraints:
    section=r"\\d+"

rule all:
    input:
        "mine/7.txt",

rule write:
    output:
        "mine/{section}.txt",
    shell:
        "echo {wildcards.section} > {output}"
"""


def test_a_module_takes_nothing_over(elsewhere, tmp_path):
    """Default target, screen, wildcards and last words are those of the workflow that uses it."""
    used = USED.format(configfile="", config='config: {"study": "mine.yaml", "sections": ["sections.tsv"]}', prefix="")
    folder = elsewhere_with(elsewhere, tmp_path, OUTER + used.replace("ctrflow\n", "ctrflow as ctrflow_*\n"))
    said = good(folder, "--cores", "1")
    assert (folder / "mine/7.txt").read_text() == "7\n"
    assert "mine: all is well" in said
    assert "rule write:" in said  # Snakemake's screen
    assert "ctrflow:" not in said
    assert jobs(said) == {"all": 1, "write": 1}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('config: {"study": "mine.yaml", "reads": 7}', ["`config` of the module ctrflow", "reads: unknown key"]),
        ('config: {"sections": ["sections.tsv"]}', ["`config` of the module ctrflow: 1 problem", "study: missing"]),
        ('config: {"study": "mine.yaml"}\n    prefix: "sub"', ["module ctrflow", "leave out `prefix`"]),
        (
            'config: {"study": "mine.yaml"}\n    replace_prefix: {"data/": "raw/"}',
            ["module ctrflow", "leave out `prefix` and `replace_prefix`"],
        ),
    ],
    ids=["unknown key", "no study", "prefix", "replace_prefix"],
)
def test_what_a_module_cannot_be_given_is_told(lines, words, elsewhere, tmp_path):
    told(run(elsewhere_with(elsewhere, tmp_path, USED.format(configfile="", config=lines, prefix="")), "-n"), *words)


def test_rules_without_their_library_are_told(elsewhere, tmp_path):
    """As Snakemake downloads them with `github(...)`."""
    base = tmp_path / "rules_only"
    base.mkdir()
    for part in ("Snakefile", "workflow"):
        (base / part).symlink_to(ROOT / part)
    used = USED.format(configfile="", config='config: {"study": "mine.yaml"}', prefix="")
    folder = elsewhere_with(elsewhere, tmp_path, used.replace("../ctrflow", "../rules_only"))
    told(run(folder, "-n"), "scripts/ctrflow is not there; give `snakefile` the path of a clone of ctrflow")


# --- paths of data ----------------------------------------------------------------------------------------------------


def edited(folder: Path, **cells: tuple[str, str]) -> None:
    """Replace paths in the sheet."""
    sheet = folder / "config/sections.tsv"
    text = sheet.read_text()
    for old, new in cells.values():
        assert old in text
        text = text.replace(old, new)
    sheet.write_text(text)


def test_bad_paths_are_told_at_once(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    rows = (folder / "config/sections.tsv").read_text().splitlines()
    numbers = {line.split("\t")[0]: number for number, line in enumerate(rows, 1)}
    edited(
        folder,
        image=("data/mini/ST-imgs/P1.jpg", "data/mini/ST-imgs/P1{x}.jpg"),
        labels=("data/mini/ST-pat/lbl/P2_", "data/{mini}/ST-pat/lbl/P2_"),
        path=("data/mini/ST-cnts/P3.tsv.gz", "s3://mini/P3.tsv.gz"),
    )
    told(
        run(folder, SPOTS, "--cores", "1", *STUDY),
        "the section sheet has 3 problems:",
        f"config/sections.tsv, row {numbers['P1']}, column image: 'data/mini/ST-imgs/P1{{x}}.jpg' has braces",
        f"config/sections.tsv, row {numbers['P2']}, column labels: 'data/{{mini}}/ST-pat/lbl/P2_",
        f"config/sections.tsv, row {numbers['P3']}, column path: 's3://mini/P3.tsv.gz' is an address",
    )


def test_links_to_nothing_are_told_at_once(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    data = folder / "data/mini"
    for path, target in (
        (data / "ST-imgs/P1.jpg", "gone.jpg"),
        (data / "ST-spotfiles/P1_selection.tsv", "gone.tsv"),
        (data / "ST-cnts/P2.tsv.gz", "P2.tsv.gz"),
    ):
        path.unlink()
        path.symlink_to(target)
    (data / "ST-imgs/P3.jpg").unlink()
    (data / "ST-imgs/P3.jpg").mkdir()
    told(
        run(folder, SPOTS, "--cores", "1", *STUDY),
        "config/sections.tsv: 4 missing files",
        "section P1, column image: data/mini/ST-imgs/P1.jpg is a link to gone.jpg, which does not exist",
        "section P1, column path: data/mini/ST-spotfiles/P1_selection.tsv is a link to gone.tsv, which does not exist",
        "section P2, column path: data/mini/ST-cnts/P2.tsv.gz is a link that leads back to itself",
        "section P3, column image: data/mini/ST-imgs/P3.jpg is a folder; give a file",
    )


def test_a_section_is_read_from_any_other_path(fresh, tmp_path, monkeypatch):
    """Signs of glob patterns, spaces and quotes; links; and a home folder by its sign."""
    folder = copy(fresh, tmp_path / "repo")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    odd = tmp_path / "home" / "it's [1] * ? (a) & $b" / "mini"
    odd.parent.mkdir(parents=True)
    odd.symlink_to(folder / "data/mini")
    edited(folder, all=("data/mini/", f"~/{odd.parent.name}/mini/"))
    labels = "results/sections/P1/labels.tsv"
    good(folder, labels, "--cores", "1", *STUDY)
    assert len(pd.read_csv(folder / labels, sep="\t")) > 50


def test_files_of_ctrflow_that_are_gone_are_told(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    for name in ("published.tsv", "severity_words.tsv"):
        (folder / "config" / name).unlink()
    told(run(folder, "-n", *STUDY), "config/published.tsv does not exist", "config/severity_words.tsv does not exist")


def test_braces_in_the_configuration_are_told(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    (folder / "config/label_words.tsv").rename(folder / "a{b}.tsv")
    (folder / "models").rename(folder / "m{1}")
    told(
        run(
            folder, "-n", "map", "--config", "path=data/mini/ST-cnts/P1.tsv.gz", "section=biopsy7", "tissue=breast",
            "label_words=a{b}.tsv", "models=m{1}",
        ),
        "label_words: 'a{b}.tsv' has braces",
        "model: 'm{1}/breast/expression.safetensors' has braces",
    )  # fmt: skip
