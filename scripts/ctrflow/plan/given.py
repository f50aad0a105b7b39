"""Given models (split `pretrained`): which model scores a section, and what speaks against it."""

from dataclasses import dataclass, replace
from pathlib import Path

from ctrflow import methods
from ctrflow.errors import InputError, first_few
from ctrflow.folds.fold import Fold
from ctrflow.plan.run import Variant
from ctrflow.plan.sheet import pictured
from ctrflow.training import model_file

SHIPPED = "shipped"  # value of a task's `model`: for each section the model of its tissue in the folder of models
IMAGE, EXPRESSION = "image.safetensors", "expression.safetensors"  # the files of a tissue's folder


@dataclass(frozen=True)
class Given:
    """A given model, as the runs that score with it need it, and the folds that it scores."""

    path: str
    metadata: dict
    variant: Variant
    encoder: str
    folds: tuple[Fold, ...]

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return self.metadata["seed"]


def given_models(task: dict, folds: list[Fold], sheet, encoders: dict, models: str, read_model, where: str) -> list:
    """The models of a task with the split `pretrained`, each with the folds that it scores.

    Parameters
    ----------
    task : of the study; `model` is a path, or `shipped`
    folds : one for each target section
    encoders : configured encoders, id -> options
    models : folder of the shipped models, one folder for each tissue
    read_model : path -> metadata

    Raises
    ------
    InputError
        listing everything that speaks against the models.
    """
    if not task.get("model"):
        raise InputError(
            f"{where}: split `pretrained` needs `model`: the path of a model.safetensors, or `{SHIPPED}` for those in "
            f"{models}"
        )
    rows = sheet.set_index("section", drop=False).loc[[fold.name for fold in folds]]
    path_of = dict.fromkeys(rows.index, task["model"])
    if task["model"] == SHIPPED:
        path_of = _shipped(rows, Path(models), where)
    found, problems = [], []
    for path in dict.fromkeys(path_of.values()):
        own = [replace(fold, model=path) for fold in folds if path_of[fold.name] == path]
        targets = rows.loc[[fold.name for fold in own]]
        metadata = read_model(path)
        try:
            variant = _variant(metadata, path, where)
        except InputError as error:
            problems.append(str(error))
            continue
        encoder, wrong = _encoder(metadata, path, encoders, where)
        problems += [*wrong, *_learned_from(metadata, path, targets, where)]
        found.append(Given(path, metadata, variant, encoder, tuple(own)))
    if problems:
        raise InputError("\n".join(problems))
    return found


def _shipped(rows, models: Path, where: str) -> dict[str, str]:
    """Section -> the model of its tissue: with the picture where there is one."""
    have = {folder.name: folder for folder in sorted(models.glob("*/")) if any(folder.glob("*.safetensors"))}
    with_image, path_of, without = set(pictured(rows)), {}, []
    for row in rows.itertuples():
        folder = have.get(row.tissue.strip().casefold())
        wanted = [IMAGE, EXPRESSION] if row.section in with_image else [EXPRESSION]
        paths = [folder / name for name in wanted if (folder / name).is_file()] if folder else []
        if paths:
            path_of[row.section] = str(paths[0])
        else:
            without.append(f"{row.section} ({f'tissue {row.tissue}' if row.tissue else 'no tissue given'})")
    if without:
        raise InputError(
            f"{where}: no model for {first_few(without)}; {models} has models for: {', '.join(have) or 'no tissue'}. "
            "Correct the column tissue, or choose what to learn from (docs/own_section.md): draw a few regions of the "
            "section itself (`drawn`), name labelled sections of the tissue under `source`, or use marker genes "
            "(config/markers)"
        )
    return path_of


def _variant(metadata: dict, path: str, where: str) -> Variant:
    try:
        model_file.require_metadata(metadata)
        spec = methods.load(metadata["method"]).SPEC
        return Variant(metadata["variant"], spec, methods.resolve_options(spec, metadata["options"]))
    except InputError as error:
        raise InputError(
            f"{where}: the model {path} is from another version of ctrflow ({error}); train it again"
        ) from error


def _encoder(metadata: dict, path: str, encoders: dict, where: str) -> tuple[str, list[str]]:
    """The encoder whose features a model reads (`none` without one), and problems with its configuration."""
    name = metadata["encoder"]
    if name == "none" or "image" not in metadata["modalities"]:
        return "none", []
    trained = metadata["encoder_settings"]
    if name not in encoders:
        return name, [
            f"{where}: the model {path} was trained with the encoder `{name}` ({_settings(trained)}), which "
            "the configuration does not have; add it under `encoders`"
        ]
    configured = model_file.encoder_settings(encoders[name])
    keys = trained.keys() | configured.keys()
    differing = sorted(key for key in keys if trained.get(key) != configured.get(key))
    if not differing:
        return name, []
    return name, [
        f"{where}: the model {path} was trained with other settings of the encoder `{name}`: "
        f"{_settings(trained, differing)} in the model, {_settings(configured, differing)} in the configuration; "
        "configure the encoder as in the model"
    ]


def _settings(settings: dict, keys=None) -> str:
    keys = sorted(settings) if keys is None else keys
    return ", ".join(f"{key}: {settings[key]}" if key in settings else f"no {key}" for key in keys)


def _learned_from(metadata: dict, path: str, targets, where: str) -> list[str]:
    """Problems of a model and its targets: sections of a patient that it was trained on, or of another tissue."""
    problems = []
    seen = targets[targets.section.isin(metadata["sections"]) | targets.patient.isin(metadata["patients"])]
    if len(seen):
        problems.append(
            f"{where}: the model {path} was trained on sections of the same patient as {first_few(seen.section)}; "
            "leave them out of `target`"
        )
    tissues = {name.casefold() for name in metadata["tissues"]}
    other = targets[(targets.tissue != "") & ~targets.tissue.str.strip().str.casefold().isin(tissues)]
    if tissues and len(other):
        problems.append(
            f"{where}: the model {path} knows {', '.join(metadata['tissues'])}; "
            f"{first_few(f'{row.section} is {row.tissue.strip()}' for row in other.itertuples())}: correct the column "
            "tissue, or take another model"
        )
    return problems
