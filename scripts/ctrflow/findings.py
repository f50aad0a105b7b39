"""Findings of checks: of a section after ingestion, and of the doctor before a run."""

from dataclasses import dataclass, field

LEVELS = ("ok", "warning", "problem")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    level : ok, warning or problem
    check : what was checked, such as placement or disk
    message : what was found and, if it is not ok, the cure
    values : the numbers behind the message
    subject : the section, encoder or package that it is about
    """

    level: str
    check: str
    message: str
    values: dict = field(default_factory=dict)
    subject: str = ""


def counted(number: int, noun: str) -> str:
    """A number of things, as in 1 section and 2,000 spots."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
