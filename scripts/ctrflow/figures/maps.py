"""Maps of the scores: a row per section, a column per method, H&E and label first (SpaCRD Figures 3, 5 and S1)."""

import numpy as np

from ctrflow import plots
from ctrflow.figures import page, settings
from ctrflow.figures.listing import drawn, not_drawn

TITLE = "Maps of the scores"
CAPTION = (
    "Each map shows the mean score over seeds by a colour scale of its own, from its 1st to its 99th percentile. Spots "
    "are drawn as wide as the distance between neighbours. Methods that learned from labels come first, those that "
    "saw none last, in each group the highest mean AUC first; below a map is its AUC, the mean over seeds."
)
HISTOLOGY, LABEL = "H&E", "label"
SECTIONS, METHODS = 8, 10  # at most on a page
SIDE, LOWEST, HIGHEST = 1.1, 0.5, 1.5  # inches: width of a map, and its height at least and at most
FINE = 3  # sampled points per pixel in each direction

_LEFT, _GAP, _LINE, _FOOT, _NAMES = 0.34, 0.07, 0.22, 0.42, 0.32  # inches
_KEY, _GROUP = 3.99, 1.6  # inches: the key without the groups, and each group
_LEADING = 1.1  # from line to line, in font sizes


def draw(setting: dict) -> dict:
    """All sections and methods, on pages of at most `SECTIONS` x `METHODS`."""
    if not setting["variants"]:
        return not_drawn(TITLE, "No method has scores here.")
    aucs = _aucs(setting)
    pictures = [
        _page(setting, sections, variants, aucs)
        for variants in page.pages(setting["variants"], METHODS)
        for sections in page.pages(setting["sections"], SECTIONS)
    ]
    return drawn(TITLE, CAPTION, pictures, {"": _table(setting, aucs)})


def raster(centres_px, diameter_px: float, window, wide: int) -> np.ndarray:
    """The spot in each pixel of a map, -1 for none.

    Parameters
    ----------
    centres_px : (n x 2)
    diameter_px : of a spot as drawn
    window : left, right, top, bottom of the map, px
    wide : pixels across

    Returns
    -------
    (pixels down x wide) int
    """
    from scipy.spatial import cKDTree

    left, right, top, bottom = window
    step = (right - left) / wide
    x = left + (np.arange(wide) + 0.5) * step
    y = top + (np.arange(max(round((bottom - top) / step), 1)) + 0.5) * step
    places = np.stack(np.meshgrid(x, y), axis=-1)
    far, spot = cKDTree(centres_px).query(places, distance_upper_bound=diameter_px / 2)
    return np.where(np.isfinite(far), spot, -1)


def _page(setting, sections, variants, aucs) -> bytes:
    windows = [_window(one) for one in sections]
    sizes = [_size(window) for window in windows]
    names = [*_beside(sections), *variants]
    groups = [group for group in settings.GROUPS if group in {setting["groups"][name] for name in variants}]
    wide = max(_LEFT + len(names) * (SIDE + _GAP), _LEFT + _KEY + len(groups) * _GROUP) + 0.05
    high = page.HEAD + _NAMES + sum(max(height, LOWEST) + _LINE for _, height in sizes) + _FOOT
    figure = page.sheet(wide, high, settings.heading(setting, TITLE))
    # the maps are assembled as pixels, as separate axes would be far slower
    pixels = np.ones((round(high * page.DPI), round(wide * page.DPI), 3))
    columns = {name: _LEFT + place * (SIDE + _GAP) for place, name in enumerate(names)}
    for name, left in columns.items():
        text, size = page.fit(name, SIDE, page.LARGE, lines=2)
        colour = settings.COLOURS[setting["groups"][name]] if name in variants else plots.INK
        # the baseline of the first line
        bottom = page.HEAD + _NAMES - 0.07 - text.count("\n") * size * _LEADING / 72
        _write(figure, left, bottom, text, size, color=colour, va="baseline", linespacing=_LEADING)
    top = page.HEAD + _NAMES
    for section, window, size in zip(sections, windows, sizes, strict=True):
        _row(figure, pixels, section, window, size, columns, top, aucs)
        top += max(size[1], LOWEST) + _LINE
    _key(figure, groups)
    figure.figimage(pixels, origin="upper", zorder=-1)
    return page.png(figure)


def _row(figure, pixels, section, window, size, columns: dict, top: float, aucs: dict) -> None:
    """The maps of a section, each in its column, with the texts next to and below them."""
    height = max(size[1], LOWEST)
    text, letters = page.fit(section["section"], height, page.LARGE)
    _write(figure, _LEFT - 0.1, top + height / 2, text, letters, rotation=90, ha="center", va="center")
    _scale_bar(figure, section, window, size[0], _LEFT, top + height + _LINE / 2)
    for (name, left), picture in zip(columns.items(), _pictures(section, window, size, columns), strict=True):
        middle = left + SIDE / 2
        if picture is None:
            missing = {HISTOLOGY: "no H&E", LABEL: "not labelled"}.get(name, "no score")
            _write(figure, middle, top + height / 2, missing, page.SMALL, ha="center", va="center", color="#57606a")
            continue
        _put(pixels, picture, middle - size[0] / 2, top + (height - size[1]) / 2)
        auc = aucs.get((section["section"], name), np.nan)
        if np.isfinite(auc):
            _write(figure, middle, top + height + 0.03, f"AUC {auc:.3f}", page.SMALL - 0.5, ha="center", va="top")


def _beside(sections) -> list[str]:
    """The columns before the scores: H&E and label, if a section has one."""
    shown = []
    if any(one["thumbnail"] is not None for one in sections):
        shown.append(HISTOLOGY)
    if any(_label_colours(one["label"]) is not None for one in sections):
        shown.append(LABEL)
    return shown


def _window(section) -> tuple[float, float, float, float]:
    """Left, right, top, bottom of the spots and a margin, px."""
    margin = 0.6 * _drawn_px(section)
    low, high = section["centres_px"].min(axis=0) - margin, section["centres_px"].max(axis=0) + margin
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def _drawn_px(section) -> float:
    # at their true size, half their pitch, spots of the ST platform would be invisible in a small map
    return max(section["spot_px"], 0.96 * section["pitch_px"])


def _size(window) -> tuple[float, float]:
    """Width and height of a map, inches."""
    left, right, top, bottom = window
    scale = min(SIDE / (right - left), HIGHEST / (bottom - top))
    return scale * (right - left), scale * (bottom - top)


def _pictures(section, window, size, names) -> list:
    """Each column's map as pixels (h x w x 3) from 0 to 1, None if missing."""
    wide = max(round(size[0] * page.DPI), 1)
    spots = raster(section["centres_px"], _drawn_px(section), window, wide * FINE)
    pictures = []
    for name in names:
        if name == HISTOLOGY:
            pictures.append(_ground(section, window, size))
            continue
        colours = _label_colours(section["label"]) if name == LABEL else _score_colours(section, name)
        pictures.append(None if colours is None else _painted(spots, colours))
    return pictures


def _ground(section, window, size) -> np.ndarray | None:
    """The thumbnail in the window; white beyond its border."""
    from PIL import Image

    if section["thumbnail"] is None:
        return None
    left, right, top, bottom = (edge * section["thumbnail_scale"] for edge in window)
    picture = Image.fromarray(np.ascontiguousarray(section["thumbnail"]))
    shape = tuple(max(round(side * page.DPI), 1) for side in size)
    how = {"resample": Image.Resampling.BILINEAR, "fillcolor": "white"}
    return np.asarray(picture.transform(shape, Image.Transform.EXTENT, (left, top, right, bottom), **how)) / 255


def _painted(spots: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A map from the colours of its spots (n x 3), on white, at the size it is drawn."""
    fine = np.vstack([colours, np.ones((1, 3))])[spots]
    rows, columns = (side // FINE for side in fine.shape[:2])
    blocks = fine[: rows * FINE, : columns * FINE].reshape(rows, FINE, columns, FINE, 3)
    return blocks.mean(axis=(1, 3))


def _score_colours(section, variant: str) -> np.ndarray | None:
    from matplotlib import colormaps

    if variant not in section["scores"]:
        return None
    scores = section["scores"][variant].to_numpy(dtype=float)
    low, high = page.limits(scores)
    return colormaps[plots.SCORE_MAP](np.clip((scores - low) / (high - low), 0, 1))[:, :3]


def _label_colours(label) -> np.ndarray | None:
    from matplotlib.colors import to_rgb

    if label is None or not np.isfinite(label).any():
        return None
    cancer, other, unknown = map(to_rgb, (plots.CANCER, plots.OTHER, plots.UNKNOWN))
    known = np.where((label == 1)[:, None], cancer, other)
    return np.where(np.isnan(label)[:, None], unknown, known)


def _put(pixels: np.ndarray, picture: np.ndarray, left: float, top: float) -> None:
    """Place an image on the page, its upper left corner given in inches."""
    row, column = round(top * page.DPI), round(left * page.DPI)
    part = pixels[row : row + picture.shape[0], column : column + picture.shape[1]]
    part[:] = picture[: part.shape[0], : part.shape[1]]


def _write(figure, left: float, top: float, text: str, size: float, **style) -> None:
    across, down = figure.get_size_inches()
    style = {"color": plots.INK, "parse_math": False} | style
    figure.text(left / across, 1 - top / down, text, fontsize=size, **style)


def _scale_bar(figure, section, window, wide: float, left: float, top: float) -> None:
    """A scale bar and its length, below the H&E."""
    from matplotlib.lines import Line2D

    um = (window[1] - window[0]) * section["um_per_px"]
    shown = plots.round_length_um(0.45 * um)
    length = wide * shown / um
    across, down = figure.get_size_inches()
    ends, height = np.array([left, left + length]) / across, 1 - top / down
    style = {"color": plots.INK, "linewidth": 1.8, "solid_capstyle": "butt", "transform": figure.transFigure}
    figure.add_artist(Line2D(ends, [height, height], **style))
    _write(figure, left + length + 0.04, top, plots.length_text(shown), page.SMALL - 0.5, va="center")


def _key(figure, groups) -> None:
    """The colour key of maps, labels and method names, at the bottom."""
    top = figure.get_size_inches()[1] - 0.2
    axes = page.panel(figure, _LEFT + 0.22, top - 0.05, 0.9, 0.1)
    axes.imshow(np.linspace(0, 1, 128)[None], cmap=plots.SCORE_MAP, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    _write(figure, _LEFT + 0.18, top, "low", page.SMALL, ha="right", va="center")
    _write(figure, _LEFT + 1.16, top, "high score", page.SMALL, va="center")
    left = _LEFT + 1.95
    for word, colour in zip(plots.WORDS["label"], (plots.CANCER, plots.OTHER, plots.UNKNOWN), strict=True):
        _write(figure, left, top, "●", page.LARGE, color=colour, va="center")
        _write(figure, left + 0.14, top, word, page.SMALL, va="center")
        left += 0.68
    for group in groups:
        _write(figure, left, top, f"method: {group}", page.SMALL, color=settings.COLOURS[group], va="center")
        left += _GROUP


def _aucs(setting) -> dict:
    """(section, variant) -> AUC, the mean over seeds; NaN if missing."""
    rows = setting["metrics"]
    return rows[rows["metric"] == "auc"].groupby(["section", "variant"])["value"].mean().to_dict()


def _table(setting, aucs):
    """Section, variant, spots, the range of the colours and the AUC of every map."""
    import pandas as pd

    rows = [
        [one["section"], name, len(one["scores"]), *page.limits(one["scores"][name]), aucs.get((one["section"], name))]
        for one in setting["sections"]
        for name in setting["variants"]
        if name in one["scores"]
    ]
    return pd.DataFrame(rows, columns=["section", "variant", "spots", "low", "high", "auc"])
