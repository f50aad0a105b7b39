"""Bars of means over sections, one per method, with a dot for each section."""

from itertools import pairwise

import numpy as np

from ctrflow import plots
from ctrflow.figures import page
from ctrflow.figures.settings import COLOURS, GROUPS

ROW = 0.2  # inches
NAMES = 1.3, 2.7  # inches for the methods' names, least and most
_GAP = 0.5  # rows between groups


def draw(heading: str, names: list[str], groups: dict, columns: dict, dots: bool) -> bytes:
    """Bars side by side, as PNG bytes.

    Parameters
    ----------
    names : the methods, from the top, sorted by group
    groups : method -> group
    columns : measure -> (means (method -> value), points (method -> values of the sections)); from 0 to 1, NaN if
        missing
    dots : whether to draw the sections
    """
    changes = np.cumsum([0, *(groups[one] != groups[two] for one, two in pairwise(names))])
    y = np.arange(len(names)) + _GAP * changes
    wide = 3.2 if len(columns) == 1 else 2.1
    high = (y[-1] + 1) * ROW
    named = float(np.clip(page.length(max(names, key=len), page.LARGE) + 0.2, *NAMES))
    figure = page.sheet(named + len(columns) * (wide + 0.25), page.HEAD + 0.24 + high + 0.72, heading)
    for number, (what, (means, points)) in enumerate(columns.items()):
        axes = page.panel(figure, named + number * (wide + 0.25), page.HEAD + 0.24, wide - 0.2, high)
        page.title(axes, what)
        values = np.array([means[name] for name in names])
        axes.barh(y, np.nan_to_num(values), height=0.72, color=[COLOURS[groups[name]] for name in names], zorder=2)
        for place, name in zip(y, names, strict=True):
            value = means[name]
            text = f"{value:.3f}" if np.isfinite(value) else "–"
            _write(axes, 1, place, text, 6, ha="left", fontsize=page.SMALL)
            if dots:
                own = np.asarray(points[name], dtype=float)
                mark = {"s": 7, "color": "white", "edgecolors": plots.INK, "linewidths": 0.6, "clip_on": False}
                axes.scatter(own, np.full(len(own), place), zorder=3, **mark)
        axes.set_xlim(0, 1)
        axes.set_ylim(y[-1] + 0.6, -0.6)
        axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        axes.grid(axis="x", color="#e4e8ec", linewidth=0.7, zorder=0)
        axes.set_yticks(y, [""] * len(names))
        axes.tick_params(axis="y", length=0)
        if not number:
            _names(axes, y, names, named - 0.2)
    shown = [group for group in GROUPS if group in {groups[name] for name in names}]
    entries = [(COLOURS[group], "s", group) for group in shown]
    page.legend(figure, entries, foot=0.16)
    return page.png(figure)


def _names(axes, y, names: list[str], wide: float) -> None:
    """The methods' names, all in the size that fits the longest."""
    fitted = [page.fit(name, wide, page.LARGE, least=page.SMALL - 1) for name in names]
    size = min(size for _, size in fitted)
    for place, (text, _) in zip(y, fitted, strict=True):
        _write(axes, 0, place, text, -5, ha="right", fontsize=size)


def _write(axes, x: float, y: float, text: str, points: float, **style) -> None:
    """A text at an offset in points to the right of a position."""
    style = {"va": "center", "color": plots.INK, "parse_math": False, "annotation_clip": False} | style
    axes.annotate(text, (x, y), (points, 0), textcoords="offset points", **style)
