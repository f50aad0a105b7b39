"""Layout of the figures: in inches from the upper left corner, with text fitted to its space."""

import re
from io import BytesIO
from itertools import pairwise

import numpy as np

from ctrflow import plots

DPI = 160
HEAD = 0.4  # inches above the panels, for the heading
SMALL, LARGE = 7.0, 8.5  # points
LEAST = 5.5  # points a long name may shrink to
LETTER = 0.57  # mean width of a letter, in font sizes


def sheet(wide: float, high: float, heading: str = ""):
    """An empty white figure, size in inches, with a heading in the upper left corner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white")
    text, size = fit(heading, wide - 0.2, LARGE, lines=2, least=SMALL)
    figure.text(0.1 / wide, 1 - 0.07 / high, text, va="top", fontsize=size, color=plots.INK, parse_math=False)
    return figure


def panel(figure, left: float, top: float, wide: float, high: float):
    """Axes, position and size in inches from the upper left corner, without upper and right spine."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, 1 - (top + high) / down, wide / across, high / down))
    axes.tick_params(labelsize=SMALL, colors=plots.INK, length=2, pad=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#8c959f")
        axes.spines[side].set_linewidth(0.7)
    return axes


def grid(count: int, columns: int, wide: float, high: float, left: float, top: float, heading: str, foot: float = 0.5):
    """A figure of equal panels in rows.

    Parameters
    ----------
    count, columns : number of panels, and maximal number of columns
    wide, high : inches from one panel to the next
    left, top : margins of a panel in inches, for ticks and title
    foot : inches below the panels, for the legend

    Returns
    -------
    (figure, list of axes)
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = sheet(max(columns * wide + 0.1, 4.6), HEAD + rows * high + foot, heading)
    places = [divmod(number, columns) for number in range(count)]
    return figure, [
        panel(figure, column * wide + left, HEAD + row * high + top, wide - left - 0.08, high - top - 0.24)
        for row, column in places
    ]


def pages(items: list, most: int, columns: int = 1) -> list[list]:
    """Split items into as few parts of at most `most` items as possible, of similar length, in full rows of columns."""
    rows = -(-len(items) // columns)
    count = -(-rows // (most // columns))
    cuts = [columns * -(-part * rows // count) for part in range(count + 1)] if count else [0]
    return [items[one:two] for one, two in pairwise(cuts)]


def fit(text: str, inches: float, size: float = SMALL, lines: int = 1, least: float = LEAST) -> tuple[str, float]:
    """A name fitted to a width in inches and a number of lines, and its font size.

    It shrinks to `least` points, then breaks after a "_", "-", "." or space; if that is not enough, its middle is cut.
    """
    for count in range(1, lines + 1):
        for points in np.arange(size, least - 0.01, -0.5):
            broken = _broken(text, _letters(inches, points))
            if len(broken) <= count:
                return "\n".join(broken), float(points)
    keep = _letters(inches, least) * lines - 1
    cut = text[: -(-keep // 2)] + "…" + text[len(text) - keep // 2 :]
    return "\n".join(_broken(cut, _letters(inches, least), hard=True)), least


def title(axes, text: str, wide: float | None = None) -> None:
    """The title of a panel, left-aligned above it, at most as wide as the panel or `wide` inches."""
    wide = wide or axes.get_position().width * axes.figure.get_size_inches()[0]
    text, size = fit(text, wide, LARGE)
    axes.set_title(text, fontsize=size, pad=4, parse_math=False, loc="left", color=plots.INK)


def legend(figure, entries: list[tuple], foot: float = 0.14) -> None:
    """A legend in one row, `foot` inches from the lower edge. Entries: (colour, marker, word)."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=colour, marker=marker, markersize=5, linestyle="" if marker else "-", linewidth=1.6)
        for colour, marker, _ in entries
    ]
    figure.legend(
        marks, [word for _, _, word in entries], loc="center", ncols=len(entries), fontsize=LARGE - 0.5,
        bbox_to_anchor=(0.5, foot / figure.get_size_inches()[1]), frameon=False, labelcolor=plots.INK,
        handletextpad=0.3, columnspacing=1.4,
    )  # fmt: skip


def limits(values) -> tuple[float, float]:
    """The range of scores to show: 1st to 99th percentile, so that a few outliers do not compress the others."""
    low, high = np.percentile(values, (1, 99))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def few(count: int):
    """Ticks at no more than `count` round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count)


def png(figure) -> bytes:
    """The figure as PNG bytes, in 256 colours: a third of the size without visible loss.

    The palette covers all colours; weighted by area, the few pixels of a legend would turn grey.
    """
    from PIL import Image

    picture = plots.rendered(figure).quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    out = BytesIO()
    picture.save(out, "PNG", optimize=True, dpi=(DPI, DPI))
    return out.getvalue()


def length(text: str, size: float) -> float:
    """The approximate width of a text in inches."""
    return len(text) * LETTER * size / 72


def _letters(inches: float, size: float) -> int:
    return max(int(inches * 72 / (LETTER * size)), 3)


def _broken(text: str, letters: int, hard: bool = False) -> list[str]:
    """Lines of at most `letters` letters, as long as possible; `hard` breaks anywhere, else only after separators."""
    if len(text) <= letters:
        return [text]
    if hard:
        return [text[start : start + letters] for start in range(0, len(text), letters)]
    lines = [""]
    for part in re.findall(r"[^_\-. ]*[_\-. ]|[^_\-. ]+", text):
        if len(part) > letters:
            return [""] * len(text)  # does not fit into any number of lines
        if len(lines[-1]) + len(part) > letters:
            lines.append("")
        lines[-1] += part
    return lines
