"""One section from the command line: `path` and other columns of the section sheet as keys of the configuration."""

import os
import re
from fnmatch import fnmatch
from pathlib import Path

from ctrflow import schema
from ctrflow.errors import InputError
from ctrflow.plan import paths, shipped
from ctrflow.plan.given import SHIPPED
from ctrflow.plan.given_paths import file_problem
from ctrflow.plan.sheet import COLUMNS, FILES
from ctrflow.readers import NO_IMAGE, kind_of, libraries, platforms

COMMAND_LINE = "command line"
COMMAND = "snakemake --cores all map --config path=/data/biopsy7/outs image=/data/biopsy7/slide.tif tissue=breast"
NEEDED = f"""map needs the path of a section, and takes every column of the section sheet (config/README.md), as in
  {COMMAND}
Sections of the sheet are mapped by
  snakemake --cores all --config study=my_section"""
COHORT, STUDY = "mine", "my_section"
DRAWN = "drawn"  # the task that learns from a drawing
CONFIGURED_STUDY = "demo"  # of config.yaml: the study of who asks for none
# folders named alike for every section, beside the marks of the platforms
ALIKE = ("outs", "ST-cnts")
SUFFIXES = re.compile(r"(\.(gz|tsv|txt|csv|h5ad|zarr))+$", re.IGNORECASE)


def as_typed(given: dict, arguments, rules: dict) -> dict:
    """A configuration with the columns of the sheet as `key=value` arguments of the command line have them.

    Snakemake makes numbers of what looks like one: of the patient 007 a 7, of the section 12_03 a 1203.

    Raises
    ------
    InputError
        for arguments that break `rules`, the schema of the configuration.
    """
    split = (argument.partition("=") for argument in arguments)
    texts = {key: value.strip("'\"").strip() for key, _, value in split}
    given = given | {key: text for key, text in texts.items() if key in COLUMNS}
    schema.check({key: given[key] for key in texts}, rules | {"required": []}, COMMAND_LINE)
    return given


def study_of(settings: dict) -> str:
    """The study of a configuration; for a section of its own the one that maps such sections, if no other is asked for.

    Raises
    ------
    InputError
        for columns without `path`.
    """
    columns = [name for name in COLUMNS if name in settings]
    if columns and not settings.get("path"):
        raise InputError(
            f"configuration: {', '.join(columns)} given, but no path; add what the sequencing facility delivered, as "
            f"in\n  {COMMAND}"
        )
    return STUDY if columns and settings["study"] == CONFIGURED_STUDY else settings["study"]


def place(arguments, where: str) -> str:
    """Where `path` is given, for messages: on the command line, or in the files of the configuration."""
    return COMMAND_LINE if any(argument.startswith("path=") for argument in arguments) else where


def read_row(settings: dict, where: str) -> tuple[dict, list[str]]:
    """The row of the sheet that a configuration gives, empty columns derived from `path`, and what is wrong with it.

    `where` names the place of `path`. `platform` is None if the files do not tell it. ({}, []) without `path`.
    """
    if "path" not in settings:
        return {}, []
    row = dict.fromkeys(COLUMNS, "") | {"cohort": COHORT}
    row |= {name: _text(settings[name]) for name in COLUMNS if name in settings}
    row |= {name: _own_path(row[name]) for name in FILES if row[name] != NO_IMAGE}
    row = libraries.of_row(row)
    row["section"] = row["section"] or name_of(row["path"], row["library"])
    problems = _taken(row["section"])
    if not row["platform"]:
        row["platform"], unknown = _platform(row["path"])
        problems += unknown
    return row, [f"{where}, column {problem}" for problem in problems]


def name_of(path: str, library: str = "") -> str:
    """The id of the section at a path: its last folder or file that is not named alike for every section; and, of a
    file of several, its library."""
    alike = (*ALIKE, *(mark for platform in platforms().values() for mark in platform.marks))
    parts = Path(os.path.abspath(path)).parts[1:]
    names = (SUFFIXES.sub("", part) for part in reversed(parts) if not any(fnmatch(part, mark) for mark in alike))
    suffix = f"_{library}" if library else ""
    ids = (re.sub(r"[^A-Za-z0-9_.-]+", "_", name + suffix).strip("_.-") for name in names)
    return next(filter(None, ids), "")


def only(content: dict, row: dict, models: str, has_image: bool) -> dict:
    """A study that scores the section alone, under its name, whatever sections it names as targets; no crop of it.

    With `drawn` a task more teaches the map by it, on top of the first task; in its place, if that task would take a
    shipped model and there is none for the tissue.

    Parameters
    ----------
    content : the study
    row : the section's row of the sheet
    models : folder of the shipped models
    has_image : whether the section has a picture
    """
    section = row["section"]
    tasks = [task | {"target": f'section == "{section}"'} for task in content["tasks"]]
    tasks = [{key: value for key, value in task.items() if key != "crop"} for task in tasks]
    if row["drawn"]:
        tasks = _taught(
            tasks, section, any(Path(models, row["tissue"].strip().casefold()).glob("*.safetensors")), has_image
        )
    return content | {"study": section, "title": section, "tasks": tasks}


def _taught(tasks: list[dict], section: str, has_model: bool, has_image: bool) -> list[dict]:
    """The tasks, and one that learns from what is drawn in the section."""
    by_model = tasks[0]["split"] != "pretrained" or tasks[0]["model"] != SHIPPED or has_model
    drawn = {"name": DRAWN, "split": "within", "target": f'section == "{section}"', "methods": ["strokes"]}
    drawn |= {"hvg_input": "counts", "hvg_scope": "all"}
    if by_model:
        return [*tasks, drawn | {"prior": tasks[0]["name"]}]
    return [drawn | {"encoders": ["hed_texture" if has_image else "none"]}]


def _text(value) -> str:
    """A value as the sheet has it: a file of the configuration has numbers, and YAML reads `yes` as true."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.15g}" if isinstance(value, int | float) else str(value)


def _own_path(path: str) -> str:
    """A path as Snakemake compares them; the shell leaves a ~ after a = alone."""
    return os.path.normpath(os.path.expanduser(path)) if path else ""


def _taken(section: str) -> list[str]:
    """The results are in a folder of the section's name below results/, which must not be that of anything else."""
    studies = shipped.names("config/studies", ".yaml")
    what = dict.fromkeys(studies, "the name of a study") | dict.fromkeys(paths.RESERVED_STUDIES, "a reserved name")
    other = next((name for name in what if name.casefold() == section.casefold()), None)
    return [f"section: '{section}' is {what[other]}; give section=<another name>"] if other else []


def _platform(path: str) -> tuple[str | None, list[str]]:
    """The platform of the files at a path; None, and why, if they do not tell it."""
    if problem := file_problem(path, folder=True):
        return None, [f"path: {problem}"]
    kind, known = kind_of(path), platforms()
    if kind in known:
        return kind, []
    if kind == "10x":
        return None, [f"path: {path} is a 10x count matrix; give the vendor's folder that has it and the positions"]
    stored = kind == "spatialdata"
    which = "is a SpatialData store, which may hold" if stored else "is not recognised as"
    names = [name for name, one in known.items() if one.in_stores or not stored]
    return None, [f"platform: {path} {which} one of {', '.join(names)}; give platform=<one of them>"]
