"""Tumour-free crops of targets: sections of the plan's own making, and the runs that score them."""

from dataclasses import replace

from ctrflow.errors import InputError, first_few
from ctrflow.folds.fold import Fold
from ctrflow.plan.run import Run
from ctrflow.sections.crop import CROP


def name_of(section: str) -> str:
    """The id of a section's crop."""
    return f"{section}{CROP}"


def parent_of(crop: str) -> str:
    """The section that a crop is of."""
    return crop.removesuffix(CROP)


def crop_fold(fold: Fold, labelled) -> Fold:
    """The fold of the crops of a fold's labelled targets, which the models of that fold score."""
    crops = tuple(name_of(name) for name in fold.targets if name in labelled)
    return replace(fold, name=name_of(fold.name), targets=crops, trained_by=fold.name)


def crop_runs(task: dict, runs: list[Run], labelled, where: str) -> list[Run]:
    """The runs that score the crops of a task's labelled targets, one for each run of a method; [] without `crop`.

    Controls are left out: the calls on a crop are to be judged, and a control makes none of use.

    Raises
    ------
    InputError
        if no target is labelled, or no method scores them.
    """
    if not task.get("crop"):
        return []
    targets = list(dict.fromkeys(name for run in runs for name in run.fold.targets))
    if not labelled.intersection(targets):
        raise InputError(
            f"{where}: `crop` keeps the spots labelled 0, but no target has labels: {first_few(targets)}; fill the "
            "column labels of the section sheet, or leave `crop` out"
        )
    of_methods = [run for run in runs if run.spec.regime != "control" and labelled.intersection(run.fold.targets)]
    if not of_methods:
        raise InputError(f"{where}: `crop` has no method to judge, only controls; add a method, or leave `crop` out")
    folds = {run.fold: crop_fold(run.fold, labelled) for run in of_methods}
    return [replace(run, fold=folds[run.fold]) for run in of_methods]


def with_crops(rows, crops: list[str]):
    """A section sheet, indexed by section, with a row for each crop: that of its section, under its own id and note."""
    import pandas as pd

    if not crops:
        return rows
    own = rows.loc[[parent_of(name) for name in crops]].assign(section=list(crops))
    own["note"] = [f"{note}; tumour-free crop".removeprefix("; ") for note in own.note]
    return pd.concat([rows, own.set_index("section", drop=False)])
