"""Bad input as people really deliver it: each must give one clear error, give a warning, or be read correctly.

A fault is a function that spoils one thing in an empty folder and returns a function that reads it; with it go words
that the message must contain. Other bad inputs: damage to every vendor file is in tests/contract/test_readers.py, what
a user sees of it in tests/workflow/test_bad_input.py, the rest in the unit tests. The run ends with a summary.
"""

import logging
from pathlib import Path

import pytest

from ctrflow.errors import InputError

ELSEWHERE = (
    "tests/workflow/test_bad_input.py::test_a_fault",
    "tests/contract/test_readers.py::test_a_broken_file_is_reported",
    "tests/contract/test_readers.py::test_a_missing_part_is_reported_or_not_needed",
    "tests/contract/test_readers.py::test_ids_shuffled_against_the_rest_are_reported",
    "tests/contract/test_readers.py::test_a_matrix_whose_parts_disagree_is_reported",
    "tests/contract/test_readers.py::test_a_damaged_store_is_reported",
    "tests/unit/plan/test_load.py::test_a_fault_is_reported",
    "tests/unit/plan/test_sheet.py::test_a_bad_cell_is_told",
    "tests/unit/fetch/test_sources.py::test_a_bad_cell_is_reported",
    "tests/unit/readers/test_readers.py::test_a_bad_counts_table_is_reported",
    "tests/unit/readers/test_readers.py::test_a_bad_selection_file_is_reported",
    "tests/unit/image/test_image.py::test_an_image_that_is_not_rgb_is_rejected",
    "tests/unit/image/test_image.py::test_truncated_images_are_rejected_when_opened",
    "tests/unit/plan/test_study.py::test_mistakes_are_named",
    "tests/unit/sections/test_placement.py::test_a_turned_or_mirrored_image_is_named",
    "tests/unit/sections/test_placement.py::test_a_wrong_scale_is_reported_with_the_right_one",
    "tests/unit/training/test_model_file.py::test_another_encoder_is_rejected",
    "tests/unit/training/test_model_file.py::test_names_of_another_kind_are_reported",
)  # one fault per parameter
REJECTED = "is_reported"
OUTCOMES = {
    REJECTED: "rejected with one clear error",
    "gives_a_warning": "accepted with a warning",
    "is_read_correctly": "read correctly",
}  # by the end of the test's name; others count as rejected
LONGEST = 1000  # characters of a message


def _missing(text: str, words) -> list[str]:
    return [word for word in words if str(word) not in text]


@pytest.fixture
def assert_error():
    """Reading must raise one InputError that contains all the words; the first names the place."""

    def check(read, words) -> None:
        with pytest.raises(InputError) as caught:
            read()
        message = str(caught.value)
        assert _missing(message, words) == [], message
        assert len(message) < LONGEST, message
        assert len(words) >= 2, "give at least the place and the cure"

    return check


@pytest.fixture
def assert_warning(caplog):
    """Reading must succeed with one warning that contains all the words."""

    def check(read, words) -> None:
        with caplog.at_level(logging.WARNING):
            read()
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert sum(not _missing(message, words) for message in messages) == 1, messages

    return check


def pytest_terminal_summary(terminalreporter) -> None:
    """The number of bad inputs that this run has tried, by outcome."""
    here = "/".join(Path(__file__).parts[-3:-1]) + "/"
    tried, counts = 0, dict.fromkeys(OUTCOMES, 0)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when != "call" or not report.nodeid.startswith((here, *ELSEWHERE)):
                continue
            tried += 1
            test = report.nodeid.split("::")[1]
            kind = next((kind for kind in OUTCOMES if kind in test), REJECTED)
            counts[kind] += outcome == "passed"
    if tried:
        parts = ", ".join(f"{number} {OUTCOMES[kind]}" for kind, number in counts.items())
        terminalreporter.section("bad input")
        terminalreporter.line(f"{tried} bad inputs: {parts}")
