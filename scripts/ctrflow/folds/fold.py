"""Folds: which sections are trained on and which are scored, by queries over the section sheet."""

import ast
import re
from dataclasses import dataclass

import numpy as np

from ctrflow.errors import InputError, first_few

# all that a query over the sheet is made of
QUERY = (
    ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.Invert, ast.BinOp, ast.BitAnd, ast.BitOr,
    ast.Compare, ast.cmpop, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Load,
)  # fmt: skip
TEXT_TESTS = ("contains", "startswith", "endswith")
SOURCE_NEGATIVES = "source_negatives"  # what `normal` of a task says where no healthy section exists


@dataclass(frozen=True)
class Fold:
    """One training set and the sections it is measured on; section ids.

    `normals` are the sections of the normal reference; with `negatives` they are the sources, of which the spots
    labelled 0 alone are taken.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    normals: tuple[str, ...] = ()
    negatives: bool = False

    def learned(self, view: str) -> tuple[str, ...]:
        """The sections whose spots a view's training table has: `labelled`, `normal`, or none of the others."""
        return {"labelled": self.sources, "normal": self.normals}.get(view, ())

    def labelled(self, view: str) -> tuple[str, ...]:
        """Those whose labels its training table is made with: none where the normal reference are healthy sections."""
        return () if view == "normal" and not self.negatives else self.learned(view)


def select(sheet, query: str, where: str):
    """The rows of the section sheet that a query picks, in the order of the sheet.

    Raises
    ------
    InputError
        when the query cannot be read or picks nothing; `where` says which key of which file it stands in.
    """
    try:
        rows = sheet[_picked(sheet, query.strip())]
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
            f"{where}: `{query}` picks no section of the sheet; cohorts: {first_few(sorted(set(sheet.cohort)), 20)}"
        )
    return rows


def _picked(sheet, query: str):
    """Which rows a query picks; it may only compare: pandas would call any method of a column, `to_csv` among them."""
    how = f"compare columns by ==, !=, in, and, or, not, or by .str.{', .str.'.join(TEXT_TESTS)}"
    if not _is_plain(ast.parse(query, mode="eval")):
        raise ValueError(how)
    picked = np.asarray(sheet.eval(query, engine="python"))
    if picked.dtype != bool or picked.shape != (len(sheet),):
        raise ValueError(how)
    return picked


def _is_plain(node: ast.AST) -> bool:
    """Whether a query is made of comparisons of columns with values alone."""
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
    sheet : the section sheet, one row a section
    where : file the task stands in, for messages

    No section of a target's patient is ever trained on, whatever the split.
    """
    where = f"{where}: task {task['name']}"
    split = task["split"]
    if split == "pretrained":
        if not task.get("target"):
            raise InputError(f"{where}: split `pretrained` needs a `target` query: which sections shall be scored?")
        targets = select(sheet, task["target"], f"{where}: target")
        return [Fold(row.section, (), (row.section,)) for row in targets.itertuples()]

    sources, normals = _trained_on(task, sheet, where)
    if split == "transfer" and not task.get("target"):
        raise InputError(f"{where}: split `transfer` needs a `target` query: which sections shall be scored?")
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
                f"{where}: nothing is left to train on for {name}: every source section is of the same patient; add "
                "sections of other patients, or fill the column patient"
            )
        healthy = tuple(normals.section[~normals.patient.isin(group.patient)])
        if not (len(train) or healthy):
            raise InputError(
                f"{where}: no normal section is left for {name}: all are of the same patient; name others under "
                "`normal`"
            )
        folds.append(Fold(str(name), tuple(train.section), tuple(group.section), healthy, _negatives(task)))
    return folds


def whole_fold(task: dict, sheet, where: str = "study") -> Fold:
    """All that a task can train on and no target: for a model that is to score sections yet unknown."""
    sources, normals = _trained_on(task, sheet, f"{where}: task {task['name']}")
    return Fold("", tuple(sources.section), (), tuple(normals.section), _negatives(task))


def _negatives(task: dict) -> bool:
    return task.get("normal") == SOURCE_NEGATIVES


def _trained_on(task: dict, sheet, where: str) -> tuple:
    """The labelled source sections and the normal sections of a task: two parts of the sheet."""
    healthy = task.get("normal") if not _negatives(task) else None
    if not task.get("source") and not (task["split"] == "transfer" and healthy):
        split = task["split"]
        raise InputError(f"{where}: split `{split}` needs a `source` query: which sections shall be trained on?")
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
