"""Ids of a label table held against those of the section: is the table of this section?

The barcodes of Visium are the same on every slide, so a table of another section matches in part, or even fully. Where
several runs were aggregated, only a suffix or prefix (AAAC-1, AAAC-2; S1_AAAC-1) says which section a row is of. Ids
are therefore compared as they are; a suffix or prefix is never changed, but the message says which would match.
"""

import logging
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from ctrflow.errors import InputError, first_few

logger = logging.getLogger("ctrflow")

MAX_UNMATCHED = 0.05  # share of ids, of table and section, that may lack a match without a warning
MIN_MATCHED = 0.5  # share of the table's ids; less is another section
# positions of a Visium array of 6.5 and of 11 mm: a random choice of barcodes matches as this share of them has tissue
VISIUM_SPOTS = (4992, 14336)
CHANCE = 0.1  # of the others: tissue lies in the middle of the array on most slides
SAME_SPOTS = 0.95  # intersection over union of the barcodes of a section and of one run: tissue is never so alike
_SEPARATOR = re.compile(r"[-_.:#|/ ]+")
_MOST_PARTS = 9  # of an id
_RUNS = 0.25  # for each id of a table, at most
_MOST_RUNS, _MOST_NAMED = 100, 8
_BARCODE = re.compile("[ACGT]{16}")


class Run(NamedTuple):
    """The ids of a table that share what is before and after the barcode: how many, and how many of these barcodes
    the section has."""

    before: str
    after: str
    rows: int
    found: int


def of_section(path, ids, names, section: str) -> np.ndarray:
    """Which ids (unique, of a table) are of the section whose spots have the names.

    How many match is logged; a table that labels part of a section is normal. A warning is given if both have ids
    that the other lacks.

    Raises
    ------
    InputError
        if no id matches, if another section would match as well as this one, or if the ids are of several runs, and
        nothing tells which of them is this section.
    """
    inside = np.asarray(ids.isin(names))
    taken = np.ones(len(ids), bool)
    if not inside.all():
        before, after = _around(names)
        runs, run_of = _runs(ids, inside, names, before, after)
        own = next((n for n, run in enumerate(runs) if (run.before, run.after) == (before, after)), None)
        if not inside.any():
            raise InputError(_no_match(path, ids, names, section, runs, Run(before, after, 0, 0)))
        others = [run for n, run in enumerate(runs) if n != own]
        if sum(run.rows for run in others) > MAX_UNMATCHED * len(ids):
            _require_told_apart(path, runs, runs[own], len(names), section)
            taken = (run_of == own) | (run_of < 0)
            logger.info("%s: %d rows of other sections left out (%s)", path, (~taken).sum(), _listed(others, runs))
    rows, matched = int(taken.sum()), int(inside.sum())
    unknown, unlabelled = rows - matched, len(names) - matched
    if unknown > MAX_UNMATCHED * rows and unlabelled > MAX_UNMATCHED * len(names):
        text = (
            f"{path}: {unknown} of its {rows} ids are not in section {section}, and {unlabelled} of the section's "
            f"{len(names)} are not in the table"
        )
        if matched < max(MIN_MATCHED, _by_chance(names)) * rows:
            raise InputError(
                f"{text}; no more match than of a table of another section; give the table of this section"
            )
        logger.warning("%s; check that the table belongs to this section", text)
    logger.info("%s: %d of its %d ids are of section %s, which has %d", path, matched, rows, section, len(names))
    return inside


def _by_chance(names) -> float:
    """The share of another slide's barcodes that the section may have; 0 if its ids are not Visium's barcodes."""
    array = next((count for count in VISIUM_SPOTS if len(names) <= count), 0)
    if not array or not _BARCODE.search(names[0]):
        return 0.0
    share = len(names) / array
    return share + CHANCE * (1 - share)


def _require_told_apart(path, runs: list[Run], own: Run, spots: int, section: str) -> None:
    """Refuse a table of several runs unless the section's ids, or its spots, say which run it is."""
    of_aggregate = own.after not in ("", "-1")  # a run alone has "-1" or nothing after its barcodes
    if of_aggregate or (own.before and any(run.before != own.before for run in runs)):
        return
    same = [run for run in runs if run.found >= SAME_SPOTS * (run.rows + spots - run.found)]
    if same == [own]:
        return
    form, kept = _form(own, runs), "the rows of this section"
    if len(same) == 1:
        kept = f"those with {_form(same[0], runs)}, whose spots are the section's ({same[0].found:,} of {spots:,})"
    raise InputError(
        f"{path}: its ids have {_listed(runs, runs)}: it is of an aggregate of runs, whose barcodes are the same on "
        f"every slide, and {form} need not be section {section} ({own.found:,} of its {spots:,} spots match); keep "
        f"{kept}, and write their ids as the section does, with {form}"
    )


def _no_match(path, ids, names, section: str, runs: list[Run], own: Run) -> str:
    would = ""
    if runs:
        best, forms = max(runs, key=lambda run: run.found), [*runs, own]
        would = (
            f"its ids have {_listed(runs, forms)}, the section's {_form(own, forms)}: written like these, "
            f"{best.found:,} of the {best.rows:,} with {_form(best, forms)} would match, as barcodes of any slide may; "
        )
    return (
        f"{path}: no id matches section {section}: it has {first_few(ids, 3)}, the section {first_few(names, 3)}; "
        f"{would}check that both belong to the same section and write ids in the same form"
    )


# --- what is around the barcodes --------------------------------------------------------------------------------------


def _around(names) -> tuple[str, str]:
    """What all names have before and after the barcode, up to a separator: "", "-1" for AAAC-1 and AAAG-1."""
    names = list(names)
    before = re.sub(r"[^-_.:#|/ ]*$", "", _start(names))
    after = re.sub(r"^[^-_.:#|/ ]*", "", _start([name[::-1] for name in names])[::-1])
    return (before, after) if all(len(name) > len(before) + len(after) for name in names) else ("", "")


def _start(names: list[str]) -> str:
    """What all begin with."""
    low, high = min(names), max(names)
    return low[: next((n for n, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), len(low))]


def _runs(ids, inside, names, before: str, after: str) -> tuple[list[Run], np.ndarray]:
    """The runs that a table's ids are of, largest first, and the number of the run of each id (-1 for none)."""
    barcodes = {name[len(before) : len(name) - len(after)] for name in names}
    around = [(before, after) if known else _parted(text, barcodes) for text, known in zip(ids, inside, strict=True)]
    forms = Counter(form for form in around if form)
    # a section's numbers stand in any id; but a run has more than a few
    common = [form for form, _ in forms.most_common()] if len(forms) <= max(2, _RUNS * len(ids)) else []
    if inside.any() and (before, after) not in common:
        common = [(before, after)]
    # barcodes without tissue in the section have the form of others of their run
    whole = [
        form or next((one for one in common[:_MOST_RUNS] if _has(text, *one)), None)
        for text, form in zip(ids, around, strict=True)
    ]
    number = {form: n for n, form in enumerate(common)}
    run_of = np.array([number.get(form, -1) for form in whole], int)
    rows = np.bincount(run_of[run_of >= 0], minlength=len(common))
    runs = [Run(*form, int(rows[n]), forms[form]) for n, form in enumerate(common)]
    return runs, run_of


def _has(text: str, before: str, after: str) -> bool:
    return bool(before + after) and text.startswith(before) and text.endswith(after)


def _parted(text: str, barcodes: set) -> tuple[str, str] | None:
    """What an id has before and after a barcode of the section; None if it contains none."""
    breaks = [(found.start(), found.end()) for found in _SEPARATOR.finditer(text)][:_MOST_PARTS]
    for start in (0, *(end for _, end in breaks)):
        for stop in (len(text), *(begin for begin, _ in reversed(breaks))):
            if start < stop and text[start:stop] in barcodes:
                return text[:start], text[stop:]
    return None


def _form(run: Run, others: list[Run]) -> str:
    """What tells a run from the others: its suffix, its prefix, or both."""
    for part, name in (("before", "suffix"), ("after", "prefix")):
        if all(getattr(other, part) == getattr(run, part) for other in others):
            found = run.after if name == "suffix" else run.before
            return f"{name} {found}" if found else f"no {name}"
    return f"{run.before}...{run.after}"


def _listed(runs: list[Run], others: list[Run]) -> str:
    return first_few([f"{_form(run, others)} ({run.rows:,} rows)" for run in runs], _MOST_NAMED)
