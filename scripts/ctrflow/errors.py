"""Errors that a user can fix: shown as one message, without a traceback."""


class InputError(ValueError):
    """Bad input. The message names the file, the row or column, and the cure."""


def first_few(names, limit: int = 5) -> str:
    """The first names of a long list and how many more there are, for a message."""
    names = [str(name) for name in names]
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
