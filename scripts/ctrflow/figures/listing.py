"""The list of a study's figures: content, files, and why a figure could not be drawn."""

import logging
from pathlib import Path

from ctrflow import storage

logger = logging.getLogger("ctrflow")

NAME = "figures.json"


def drawn(title: str, caption: str, pictures: list[bytes], tables: dict) -> dict:
    """A figure: PNG bytes of its pages, and its data frames by suffix of the file name ("" for the figure's name)."""
    return {"title": title, "caption": caption, "pictures": pictures, "tables": tables, "reason": ""}


def not_drawn(title: str, reason: str) -> dict:
    """A figure that cannot be drawn from these results, and the reason in one sentence."""
    return {"title": title, "caption": "", "pictures": [], "tables": {}, "reason": reason}


def write(figures: list[dict], folder: str | Path) -> None:
    """Write pictures, tables and, last, their list.

    Parameters
    ----------
    figures : results of `drawn` or `not_drawn`, each with `name`, `kind`, `task` and `encoder`
    folder : the folder of the study's figures
    """
    folder = Path(folder)
    lines = []
    for figure in figures:
        tables = {f"{figure['name']}{ending}.tsv": frame for ending, frame in figure["tables"].items()}
        for name, frame in tables.items():
            storage.write_tsv(frame, folder / name)
        for number, picture in enumerate(figure["pictures"], start=1):
            several = len(figure["pictures"]) > 1
            line = _line(figure, f" ({number} of {len(figure['pictures'])})" * several)
            name = f"{figure['name']}{f'_{number}' * several}"
            storage.write_bytes(picture, folder / f"{name}.png")
            lines.append(line | {"name": name, "file": f"{name}.png", "tables": list(tables)})
        if not figure["pictures"]:
            logger.info("%s not drawn: %s", figure["name"], figure["reason"])
            lines.append(_line(figure, "") | {"file": None, "tables": []})
    storage.write_json(lines, folder / NAME)


def index(folder: str | Path) -> list[dict]:
    """The figures of a study in display order.

    Parameters
    ----------
    folder : results/{study}/figures/study

    Returns
    -------
    list of dict(name, kind, task, encoder, title, caption, file, tables, reason), one per image; `file` and `tables`
    are names in that folder. If a figure could not be drawn, `file` is None and `reason` says why; else `reason` is "".
    """
    return storage.read_json(Path(folder) / NAME)


def _line(figure, page: str) -> dict:
    shared = ("name", "kind", "task", "encoder", "caption", "reason")
    return {key: figure[key] for key in shared} | {"title": figure["title"] + page}
