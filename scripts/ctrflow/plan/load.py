"""Configuration, section sheet, sources and study: read, checked against each other, and put into one Plan."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ctrflow import encoders, readers, schema
from ctrflow.errors import InputError
from ctrflow.features import markers
from ctrflow.fetch import sources
from ctrflow.plan import crops, one_section, paths, preflight, sheet, shipped
from ctrflow.plan.given import SHIPPED
from ctrflow.plan.given_paths import file_problem, name_problem
from ctrflow.plan.study import SIMULATED, Study, expand
from ctrflow.storage import read_safetensors_metadata

PUBLISHED = "config/published.tsv"
PUBLISHED_NAMES = "config/published_names.yaml"
SEVERITY_WORDS = "config/severity_words.tsv"
MARKERS = "config/markers"
CELL_TYPES = "config/cell_types.tsv"
GENES = "config/genes/human.tsv.gz"


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is known before a run; `problems` stop it, and the doctor reports them."""

    settings: dict
    sheet: object  # frame, section -> its row; crops of the study after the sections of the sheet
    study: Study
    content: dict
    sources: object  # frame, public file -> its url
    problems: list[str]
    mapped: str = ""  # the section that is in no sheet, but given by `path`

    def row(self, section: str) -> dict:
        """A section's row of the sheet."""
        return self.sheet.loc[section].to_dict()

    @property
    def used(self) -> list[str]:
        """All sections of the study, training and target, in the order of the sheet."""
        return [name for name in self.sheet.index if name in self.study.used]

    @property
    def encoders(self) -> dict:
        """Encoder -> options, of all encoders of the study."""
        return {run.encoder: self.settings["encoders"].get(run.encoder, {}) for run in self.study.runs}

    def origin(self, sections) -> dict:
        """What a model file says of its training sections: tissues, platforms, and whether one of them is simulated."""
        rows = self.sheet.loc[list(sections)]
        simulated = bool(rows.note.str.startswith(SIMULATED).any())
        distinct = {"tissues": sorted(set(rows.tissue) - {""}), "platforms": sorted(set(rows.platform))}
        return distinct | {"simulated": simulated}

    def pictured(self, sections) -> list[str]:
        """Those of some sections that have an image, or may have one in the vendor's folder."""
        return sheet.pictured(self.sheet.loc[list(sections)])

    def labels(self, sections) -> list[str]:
        """The label tables of the labelled ones among sections."""
        return paths.of_sections("labels.tsv", [name for name in sections if self.row(name)["labels"]])

    @property
    def of_cells(self) -> list[str]:
        """The sections of the sheet that are read as cells."""
        read = [name for name, platform in readers.platforms().items() if platform.cells]
        return [name for name in self.sheet.index[self.sheet.platform.isin(read)] if name not in self.study.crops]


def completed(given: dict, module: bool) -> dict:
    """A configuration with that of ctrflow where it says nothing, for runs in a folder without config/config.yaml.

    To a `module` a study must be named, or a section be given by `path`: nobody asks for the demo of a module.
    """
    own = schema.read_yaml(shipped.ROOT / "config" / "config.yaml")
    own["sections"] = [shipped.found(name) for name in own["sections"]]
    own |= {key: shipped.found(own[key]) for key in ("sources", "label_words")}
    if module and "path" not in given:
        del own["study"]
    both = {key: own[key] | value for key, value in given.items() if isinstance(value, dict) and key in own}
    return own | given | both


def load(given: dict, where: str, schemas: Path, written=(), typed=()) -> Plan:
    """The checked plan; `given` is the configuration, `where` names its files.

    `written` are the folders that the run writes to; empty inside a job, because the main process has checked them.
    `typed` are the `key=value` arguments of the command line, whose values `given` has as Snakemake parsed them.

    Raises
    ------
    InputError
        listing every problem of the configuration, the sheet and the study.
    """
    rules = schema.read_yaml(schemas / "config.schema.yaml")
    settings = schema.check(one_section.as_typed(given, typed, rules), rules, where)
    settings |= _at_home(settings)
    settings["models"] = shipped.found(settings["models"], "*/*.safetensors")
    path = study_path(one_section.study_of(settings), where)
    content = schema.check(schema.read_yaml(path), study_schema(schemas), path)
    content["tasks"] = [_with_model(task) for task in content["tasks"]]
    place = one_section.place(typed, where)
    row, wrong = one_section.read_row(settings, place)
    rows = sheet.read_sheet([Path(name) for name in settings["sections"]], [(place, row)] if row else [], wrong)
    if row and not wrong:
        content = one_section.only(content, row, settings["models"], row["section"] in sheet.pictured(rows))
    marked = markers.tissues(shipped.found(MARKERS, "*.tsv"))
    study = expand(
        content,
        rows,
        settings["encoders"],
        settings["seeds"],
        path,
        cache(read_safetensors_metadata),
        marked,
        settings["models"],
    )
    rows = rows.set_index("section", drop=False)
    public = sources.read_sources(settings["sources"])
    own = rows[rows.index.isin(study.used) & ~rows.path.str.startswith(f"{paths.DEMO}/")]
    problems = _encoder_problems(study, settings, where)
    problems += _path_problems(settings, study, where)
    mapped = row.get("section", "")
    fetched = list(public.index)
    problems += _missing(own[own.section != mapped], fetched, ", ".join(settings["sections"]))
    problems += _missing(own[own.section == mapped], fetched, place)
    if written:
        problems += preflight.future_sources(own, settings["label_words"])
        problems += preflight.future_results(study.name) + preflight.unwritable(written)
    settings["n_genes"] = content.get("n_genes", settings["n_genes"])
    return Plan(settings, crops.with_crops(rows, study.crops), study, content, public, problems, mapped)


def study_schema(schemas: Path) -> dict:
    """The schema of study files. Studies and tasks are folders, so names used in paths.py are reserved."""
    found = schema.read_yaml(schemas / "study.schema.yaml")
    found["properties"]["study"]["not"] = {"enum": paths.RESERVED_STUDIES}
    found["properties"]["tasks"]["items"]["properties"]["name"]["not"] = {"enum": paths.RESERVED_TASKS}
    return found


def study_path(name: str, where: str) -> str:
    """The file of a study, which is given as a path or as the name of a file in config/studies."""
    if name.endswith((".yaml", ".yml")):
        return os.path.expanduser(name)
    known = shipped.names("config/studies", ".yaml")
    if name not in known:
        raise InputError(f"{where}: study: unknown study `{name}`; valid: {', '.join(known)}, or the path of a .yaml")
    return shipped.found(f"config/studies/{name}.yaml")


def _at_home(settings: dict) -> dict:
    """The settings that are paths, ~ replaced by the home folder: no shell does it in a file, nor after a =."""
    at_home = {key: os.path.expanduser(settings[key]) for key in ("sources", "data_root", "label_words", "models")}
    weights = {
        name: options | {"weights": os.path.expanduser(options["weights"])} if "weights" in options else options
        for name, options in settings["encoders"].items()
    }
    return at_home | {"sections": list(map(os.path.expanduser, settings["sections"])), "encoders": weights}


def _with_model(task: dict) -> dict:
    """A task whose model may be one that comes with ctrflow."""
    if task.get("model", SHIPPED) == SHIPPED:
        return task
    return task | {"model": shipped.found(os.path.expanduser(task["model"]))}


def _path_problems(settings: dict, study: Study, where: str) -> list[str]:
    """What is wrong with the paths of files that are in no sheet; whether models and weights exist, others check."""
    options = [settings["encoders"].get(name, {}) for name in {run.encoder for run in study.runs}]
    named = {"label_words": [settings["label_words"]], "weights": [one.get("weights", "") for one in options]}
    named["model"] = {fold.model for fold in study.folds.values() if fold.model}
    found = [f"{key}: {name_problem(path)}" for key, paths in named.items() for path in paths if name_problem(path)]
    found += [f"label_words: {problem}" for problem in [file_problem(settings["label_words"])] if problem]
    own = (
        file_problem(shipped.found(name)) for name in (PUBLISHED, PUBLISHED_NAMES, SEVERITY_WORDS, CELL_TYPES, GENES)
    )
    return [f"{where}: {problem}" for problem in [*found, *filter(None, own)]]


def _encoder_problems(study: Study, settings: dict, where: str) -> list[str]:
    problems = []
    for name in sorted({run.encoder for run in study.runs} - {"none"}):
        try:
            encoders.check(name, settings["encoders"][name])
        except InputError as error:
            problems.append(f"{where}: {error}")
    return problems


def _missing(rows, fetched: list[str], where: str) -> list[str]:
    missing = sheet.missing_files(rows, fetched)
    heading = f"{where}: {len(missing)} missing file{'s' * (len(missing) > 1)}:"
    return ["\n  ".join([heading, *missing])] if missing else []
