"""Folds: the sections to train on and to score, by queries over the section sheet."""

import ast
import re
from dataclasses import dataclass

import numpy as np

from ctrflow.errors import InputError, first_few

# the syntax that a query over the sheet may use
QUERY = (
    ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.Invert, ast.BinOp, ast.BitAnd, ast.BitOr,
    ast.Compare, ast.cmpop, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Load,
)  # fmt: skip
TEXT_TESTS = ("contains", "startswith", "endswith")
SOURCE_NEGATIVES = "source_negatives"  # value of a task's `normal` if there is no healthy section


@dataclass(frozen=True)
class Fold:
    """One training set and the sections to score; section ids.

    `normals` are the sections of the normal reference; with `negatives` they are the sources, of which only the spots
    labelled 0 are used. `model` is the file of a given model, which scores the targets (split `pretrained`).
    `trained_by` names the fold whose models score the targets, where these are the crops of that fold's targets.
    With `drawn` the methods learn from what is drawn in the target itself (split `within`).
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    normals: tuple[str, ...] = ()
    negatives: bool = False
    model: str = ""
    trained_by: str = ""
    drawn: bool = False

    def learned(self, view: str) -> tuple[str, ...]:
        """The sections in the training table of a view: of `labelled`, `normal` or `drawn`; other views have none."""
        return {"labelled": self.sources, "normal": self.normals, "drawn": self.targets}.get(view, ())

    def labelled(self, view: str) -> tuple[str, ...]:
        """The sections whose labels the training table uses: none if the normal reference are healthy sections, nor of
        what is drawn, which each training gets beside the table."""
        without = view == "drawn" or (view == "normal" and not self.negatives)
        return () if without else self.learned(view)


def select(sheet, query: str, where: str):
    """The rows of the section sheet that a query selects, in the order of the sheet.

    Raises
    ------
    InputError
        if the query is invalid or selects nothing; `where` names the file and key of the query.
    """
    try:
        rows = sheet[_selected(sheet, query.strip())]
    except (
        ArithmeticError, AttributeError, LookupError, MemoryError, NameError, RuntimeError, SyntaxError, TypeError,
        ValueError, re.error,
    ) as error:  # fmt: skip
        raise InputError(
            f"{where}: `{query[:200]}` is not a query over the section sheet ({error}); columns: "
            f"{', '.join(sheet.columns)}"
        ) from error
    if rows.empty:
        raise InputError(
            f"{where}: `{query}` selects no section of the sheet; cohorts: {first_few(sorted(set(sheet.cohort)), 20)}"
        )
    return rows


def _selected(sheet, query: str):
    """Which rows a query selects; only comparisons are allowed, as pandas would call any method of a column."""
    how = f"compare columns by ==, !=, in, and, or, not, or by .str.{', .str.'.join(TEXT_TESTS)}"
    if not _is_plain(ast.parse(query, mode="eval")):
        raise ValueError(how)
    selected = np.asarray(sheet.eval(query, engine="python"))
    if selected.dtype != bool or selected.shape != (len(sheet),):
        raise ValueError(how)
    return selected


def _is_plain(node: ast.AST) -> bool:
    """Whether a query only compares columns with values."""
    if isinstance(node, ast.Call):
        return re.fullmatch(rf"\w+\.str\.({'|'.join(TEXT_TESTS)})", ast.unparse(node.func)) is not None and all(
            isinstance(value, ast.Constant) for value in [*node.args, *(word.value for word in node.keywords)]
        )
    return isinstance(node, QUERY) and all(map(_is_plain, ast.iter_child_nodes(node)))


def make_folds(task: dict, sheet, where: str = "study") -> list[Fold]:
    """The folds of a task.

    Parameters
    ----------
    task : `name`, `split`, and the queries `source`, `target` (default: the sources), `normal` (default: none; or
        `source_negatives`)
    sheet : the section sheet, one row per section
    where : file of the task, for messages

    Sections of a target's patient are never trained on, whatever the split.
    """
    where = f"{where}: task {task['name']}"
    split = task["split"]
    if split == "pretrained":
        if not task.get("target"):
            raise InputError(f"{where}: split `pretrained` needs a `target` query (the sections to score)")
        targets = select(sheet, task["target"], f"{where}: target")
        return [Fold(row.section, (), (row.section,)) for row in targets.itertuples()]
    if split == "within":
        return _within(task, sheet, where)

    sources, normals = _trained_on(task, sheet, where)
    if split == "transfer" and not task.get("target"):
        raise InputError(f"{where}: split `transfer` needs a `target` query (the sections to score)")
    targets = select(sheet, task["target"], f"{where}: target") if task.get("target") else sources
    if split == "leave_one_patient_out":
        groups = dict(list(targets.groupby("patient", sort=False)))
    else:
        groups = {row.section: targets[targets.section == row.section] for row in targets.itertuples()}

    folds = []
    for name, group in groups.items():
        train = sources[~sources.patient.isin(group.patient)]
        if train.empty and len(sources):
            raise InputError(
                f"{where}: no section left to train on for {name}: every source section is of the same patient; add "
                "sections of other patients, or fill the column patient"
            )
        healthy = tuple(normals.section[~normals.patient.isin(group.patient)])
        if not (len(train) or healthy):
            raise InputError(
                f"{where}: no normal section left for {name}: all are of the same patient; name others under `normal`"
            )
        folds.append(Fold(str(name), tuple(train.section), tuple(group.section), healthy, _negatives(task)))
    return folds


def _within(task: dict, sheet, where: str) -> list[Fold]:
    """A fold for each target, which learns from what is drawn in it, or from a part of its labels (`draw`)."""
    if not task.get("target"):
        raise InputError(f"{where}: split `within` needs a `target` query (the sections that were drawn in)")
    if task.get("crop"):
        raise InputError(
            f"{where}: `crop` is of no use with the split `within`, which is told where tumour is; leave it out"
        )
    targets = select(sheet, task["target"], f"{where}: target")
    column = "labels" if task.get("draw") else "drawn"
    bare = targets.section[targets[column] == ""]
    if len(bare):
        why = "`draw` takes a share of the labels of each" if task.get("draw") else "give what is drawn in each"
        raise InputError(
            f"{where}: sections with an empty column {column}: {first_few(bare)}; {why}, or leave them out of `target`"
        )
    return [Fold(row.section, (), (row.section,), drawn=True) for row in targets.itertuples()]


def whole_fold(task: dict, sheet, where: str = "study") -> Fold:
    """All sections that a task can train on, without a target: for a model to score new sections."""
    sources, normals = _trained_on(task, sheet, f"{where}: task {task['name']}")
    return Fold("", tuple(sources.section), (), tuple(normals.section), _negatives(task))


def _negatives(task: dict) -> bool:
    return task.get("normal") == SOURCE_NEGATIVES


def _trained_on(task: dict, sheet, where: str) -> tuple:
    """The labelled source sections and the normal sections of a task: two parts of the sheet."""
    healthy = task.get("normal") if not _negatives(task) else None
    if not task.get("source") and not (task["split"] == "transfer" and healthy):
        split = task["split"]
        raise InputError(f"{where}: split `{split}` needs a `source` query (the sections to train on)")
    sources = select(sheet, task["source"], f"{where}: source") if task.get("source") else sheet.iloc[:0]
    unlabelled = sources.section[sources.labels == ""]
    if len(unlabelled):
        raise InputError(
            f"{where}: source sections without labels: {first_few(unlabelled)}; fill the column labels of the sheet, "
            "or leave them out of `source`"
        )
    if _negatives(task):
        return sources, sources
    normals = select(sheet, healthy, f"{where}: normal") if healthy else sheet.iloc[:0]
    return sources, normals
