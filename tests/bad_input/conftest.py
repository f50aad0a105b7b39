"""Bad input as people really deliver it: every fault is told in one clear message, warned of, or does no harm.

A fault is a function that spoils one thing in an empty folder and returns (what reads it, words). Found here are those
that no other test has: damage to every vendor file is in tests/contract/test_readers.py, what a user then sees in
tests/workflow/test_bad_input.py, and the rest beside what it is about, in tests/unit. The run ends with their number.
"""

import logging
from pathlib import Path

import pytest

from ctrflow.errors import InputError

ELSEWHERE = (
    "tests/workflow/test_bad_input.py::test_a_fault",
    "tests/contract/test_readers.py::test_a_broken_file_is_told",
    "tests/contract/test_readers.py::test_a_missing_part_is_told_or_not_needed",
    "tests/contract/test_readers.py::test_ids_shuffled_against_the_rest_are_told",
    "tests/contract/test_readers.py::test_a_matrix_whose_parts_disagree_is_told",
    "tests/contract/test_readers.py::test_a_damaged_store_is_told",
    "tests/unit/plan/test_sheet.py::test_a_bad_cell_is_told",
    "tests/unit/fetch/test_sources.py::test_a_bad_cell_is_told",
    "tests/unit/readers/test_readers.py::test_a_bad_counts_table_is_told",
    "tests/unit/readers/test_readers.py::test_a_bad_selection_file_is_told",
    "tests/unit/image/test_image.py::test_what_is_no_rgb_picture_is_refused",
    "tests/unit/image/test_image.py::test_truncated_images_are_refused_when_opened",
    "tests/unit/plan/test_study.py::test_mistakes_are_named",
    "tests/unit/sections/test_placement.py::test_a_turned_or_mirrored_image_is_named",
    "tests/unit/sections/test_placement.py::test_a_wrong_scale_is_told_with_the_right_one",
    "tests/unit/training/test_model_file.py::test_another_encoder_is_refused",
    "tests/unit/training/test_model_file.py::test_names_of_another_kind_are_said_to_be",
)  # one fault a parameter
TOLD = "is_told"
OUTCOMES = {TOLD: "told in one clear message", "is_doubted": "warned of", "does_no_harm": "read as if they were good"}
LONGEST = 1000  # characters: what a person reads before she gives up


def _lacks(text: str, words) -> list[str]:
    return [word for word in words if str(word) not in text]


@pytest.fixture
def told():
    """Reading must end in one InputError that has all the words; the first names the place."""

    def check(read, words) -> None:
        with pytest.raises(InputError) as caught:
            read()
        message = str(caught.value)
        assert _lacks(message, words) == [], message
        assert len(message) < LONGEST, message
        assert len(words) >= 2, "a fault has a place and a cure"

    return check


@pytest.fixture
def warned(caplog):
    """Reading must succeed, and one warning have all the words."""

    def check(read, words) -> None:
        with caplog.at_level(logging.WARNING):
            read()
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert sum(not _lacks(message, words) for message in messages) == 1, messages

    return check


def pytest_terminal_summary(terminalreporter) -> None:
    """How many bad inputs this run has tried, and what came of them."""
    here = "/".join(Path(__file__).parts[-3:-1]) + "/"
    tried, came_of = 0, dict.fromkeys(OUTCOMES, 0)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when != "call" or not report.nodeid.startswith((here, *ELSEWHERE)):
                continue
            tried += 1
            test = report.nodeid.split("::")[1]
            kind = next((kind for kind in OUTCOMES if kind in test), TOLD)
            came_of[kind] += outcome == "passed"
    if tried:
        shares = ", ".join(f"{number} {OUTCOMES[kind]}" for kind, number in came_of.items())
        terminalreporter.section("bad input")
        terminalreporter.line(f"{tried} bad inputs tried: {shares}")
