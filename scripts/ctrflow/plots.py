"""Plots of sections and scores, drawn on matplotlib Figure objects (no pyplot, no global state)."""

import textwrap
from io import BytesIO

import numpy as np

# Okabe & Ito (2008): distinguishable with all common colour-vision deficiencies, and none is a colour of H&E
CANCER, OTHER, UNKNOWN = "#d55e00", "#56b4e9", "#9a9a9a"
WORDS = {"label": ("cancer", "other", "unknown"), "call": ("called cancer", "other", "not scored")}
SCORE_MAP, SD_MAP = "viridis", "magma_r"
RELIABILITY_COLUMNS = 6
INK = "#1f2328"
OUTLINE = "#009e73"  # of the same palette
LEVEL_COLOURS = {"ok": INK, "warning": "#8a5a00", "problem": "#b3261e"}

_PX_PER_INCH = 100
_PANEL_PX = 430  # long side of the tissue in a panel
_SMALL, _LARGE = 10.5, 13
_HEAD_PX, _FOOT_PX, _GAP_PX, _EDGE_PX = 32, 50, 14, 2
_OVERLAY_PX, _LINE_PX, _LETTER_PX = 640, 22, 10
_MOST_OUTLINES = 20_000
_CURVE_INCH = 3.7, 2.5
_TERM_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # of the same palette
_LOST = "#b3261e"


def section_panel(
    thumbnail,
    scale,
    spatial_px,
    spot_um,
    um_per_px,
    layers,
    lossless: bool = False,
    tile_px=None,
    caution: str = "",
    statement: str = "",
) -> bytes:
    """The section as panels: the H&E, then one panel per layer; several runs wrap to new rows.

    Parameters
    ----------
    thumbnail : (h x w x 3) uint8, or None for a section without H&E (white background, no H&E panel)
    scale : thumbnail px per full-resolution px (ignored without thumbnail)
    spatial_px : (n x 2) spot centres (x, y), full-resolution px
    spot_um, um_per_px : diameter of a spot in µm; µm per full-resolution px
    layers : list of (title, values, kind); values (n,), NaN = unknown; kind "score" (colour by value), "sd" (colour by
        value from 0, on a separate scale), "probability" (from 0 to 1), "label" or "call" (1 cancer, 0 other); values
        None draws an empty panel with the text "not labelled" or "no score"
    lossless : PNG also with H&E, three to four times as large
    tile_px : the corners of a spot around its centre, full-resolution px, see `lattice.tile_px`; None draws discs
    caution : what a reader must not miss, in red above the panels
    statement : what the map says about the section as a whole, above the panels

    Returns
    -------
    JPEG bytes with H&E, PNG bytes without.
    """
    from matplotlib.figure import Figure

    spatial_px = np.asarray(spatial_px, dtype=float)
    if thumbnail is None:
        # without an image any scale will do
        scale = 1000.0 / max(np.ptp(spatial_px, axis=0).max(), 1.0)
    centres = spatial_px * scale
    spot = spot_um / um_per_px * scale
    shape = spot if tile_px is None else tile_px * scale
    um_per_unit = um_per_px / scale
    window = _window(centres, spot, None if thumbnail is None else thumbnail.shape)
    rows = _panel_rows(([] if thumbnail is None else [("H&E", None, "image")]) + list(layers))

    width, height = _panel_size(window)
    ground = None if thumbnail is None else _ground(thumbnail, window, width)
    columns = max(len(row) for row in rows)
    across = columns * width + (columns - 1) * _GAP_PX + 2 * _EDGE_PX
    row_px = height + _HEAD_PX + _FOOT_PX
    texts = ((caution, _LOST), (statement, INK))
    lines = [(line, colour) for text, colour in texts for line in textwrap.wrap(text, across // _LETTER_PX)]
    down = len(rows) * row_px + len(lines) * _LINE_PX
    figure = Figure(figsize=(across / _PX_PER_INCH, down / _PX_PER_INCH), dpi=_PX_PER_INCH, facecolor="white")
    for number, (line, colour) in enumerate(lines):
        top = 1 - (number + 0.5) * _LINE_PX / down
        figure.text(_EDGE_PX / across, top, line, fontsize=_SMALL, weight="bold", color=colour, va="center")
    places = [(row, column, panel) for row, panels in enumerate(rows) for column, panel in enumerate(panels)]
    for row, column, (title, values, kind) in places:
        left = (_EDGE_PX + column * (width + _GAP_PX)) / across
        bottom = 1 - (len(lines) * _LINE_PX + (row + 1) * row_px) / down
        axes = figure.add_axes((left, bottom + _FOOT_PX / down, width / across, height / down))
        foot = (left, bottom, width / across, _FOOT_PX / down)
        if ground is not None:
            pixels, extent = ground
            axes.imshow(pixels if kind == "image" else _faded(pixels), extent=extent, interpolation="nearest", zorder=0)
        _frame(axes, window, title, width)
        if row == column == 0:
            _scale_bar(figure, axes, None if thumbnail is None else foot, window, um_per_unit)
        if kind == "image":
            continue
        _layer(figure, axes, foot, centres, shape, values, kind)
    return _bytes(figure, "png" if thumbnail is None or lossless else "jpeg")


def call_picture(thumbnail, scale, spatial_px, spot_um, um_per_px, calls, tile_px=None, width_px: int = 360) -> bytes:
    """A small image of a section with the called spots on its H&E, without text.

    Parameters
    ----------
    thumbnail, scale, spatial_px, spot_um, um_per_px, tile_px : as for `section_panel`
    calls : (n,) 1 cancer, 0 other, NaN not scored
    width_px : width of the image in px; its height is at most as large

    Returns
    -------
    JPEG bytes with H&E, PNG bytes without.
    """
    from matplotlib.figure import Figure

    spatial_px, calls = np.asarray(spatial_px, dtype=float), np.asarray(calls, dtype=float)
    if thumbnail is None:
        scale = 1000.0 / max(np.ptp(spatial_px, axis=0).max(), 1.0)
    centres, spot = spatial_px * scale, spot_um / um_per_px * scale
    shape = spot if tile_px is None else tile_px * scale
    window = _window(centres, spot, None if thumbnail is None else thumbnail.shape)
    figure = Figure(figsize=(width_px / _PX_PER_INCH,) * 2, dpi=_PX_PER_INCH, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    if thumbnail is not None:
        pixels, extent = _ground(thumbnail, window, width_px)
        axes.imshow(pixels, extent=extent, interpolation="nearest", zorder=0)
    else:
        _spots(axes, centres[calls != 1], shape, "#d9dee4")
    _frame(axes, window, "", width_px)
    _spots(axes, centres[calls == 1], shape, CANCER)
    return _bytes(figure, "png" if thumbnail is None else "jpeg")


def jpeg(pixels) -> bytes:
    """An image (h x w x 3, uint8) as JPEG bytes, in the quality of the report's section images."""
    from PIL import Image

    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG", quality=80, optimize=True)
    return out.getvalue()


def loss_curves(losses) -> bytes:
    """Training loss curves of a method, as PNG bytes: one panel per stage, three in a row.

    The total (term "loss") of each run is a thin line and their mean a thick one; other terms are shown as a dashed
    mean with a band from the lowest to the highest run. Means end with the shortest run. A cross at the top marks the
    epoch from which the total of a run is not finite. The axis is logarithmic if losses are positive and span more than
    a factor of 10.

    Parameters
    ----------
    losses : frame (fold, seed, stage, epoch, term, value) of the runs of one method, at least one row; a run is a fold
        and a seed
    """
    from matplotlib.figure import Figure

    losses = losses.assign(value=losses["value"].astype(float).replace([np.inf, -np.inf], np.nan))
    stages = list(dict.fromkeys(losses["stage"]))
    terms = [term for term in dict.fromkeys(losses["term"]) if term != "loss"]
    colours = {term: _TERM_COLOURS[place % len(_TERM_COLOURS)] for place, term in enumerate(terms)}
    columns = min(len(stages), 3)
    rows = -(-len(stages) // columns)
    entries = _loss_entries(losses, colours)
    legend_rows = -(-len(entries) // (2 * columns))
    wide, high = columns * _CURVE_INCH[0], rows * _CURVE_INCH[1] + 0.22 * legend_rows + 0.08
    figure = Figure(figsize=(wide, high), dpi=150, facecolor="white")
    for place, stage in enumerate(stages):
        row, column = divmod(place, columns)
        left, top = column * _CURVE_INCH[0] + 0.62, row * _CURVE_INCH[1] + 0.3
        size = _CURVE_INCH[0] - 0.74, _CURVE_INCH[1] - 0.72
        axes = figure.add_axes((left / wide, 1 - (top + size[1]) / high, size[0] / wide, size[1] / high))
        axes.set_title(stage, fontsize=9, color=INK, loc="left", pad=5, parse_math=False)
        _stage_losses(axes, losses[losses["stage"] == stage], colours)
        if column == 0:
            axes.set_ylabel("loss, mean of an epoch", fontsize=8, color=INK)
    legend = figure.legend(
        [mark for mark, _ in entries], [text for _, text in entries], loc="lower center", ncols=2 * columns,
        fontsize=8, frameon=False, labelcolor=INK, handlelength=2.2, columnspacing=1.4,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _bytes(figure, "png")


def reliability_panels(curves) -> bytes:
    """Reliability curves as small multiples, each with its counts below, as PNG bytes.

    Parameters
    ----------
    curves : list, at least one, of (title, mean_score, share, spots); (bins,) each as returned by `metrics.reliability`
    """
    from matplotlib.figure import Figure

    columns = min(len(curves), RELIABILITY_COLUMNS)
    rows = -(-len(curves) // columns)
    wide, high = 196, 270
    across, down = columns * wide + 8, rows * high
    figure = Figure(figsize=(across / _PX_PER_INCH, down / _PX_PER_INCH), dpi=1.5 * _PX_PER_INCH, facecolor="white")
    for number, (title, mean_score, share, spots) in enumerate(curves):
        row, column = divmod(number, columns)
        left, top = (column * wide + 44) / across, 1 - (row * high + 26) / down
        width = (wide - 52) / across
        curve = figure.add_axes((left, top - (wide - 52) / down, width, (wide - 52) / down))
        counts = figure.add_axes((left, top - (wide - 52 + 66) / down, width, 46 / down))
        _reliability(curve, counts, mean_score, share, spots)
        # as in `_frame`: a long name shrinks to its panel
        size = np.clip((wide - 52) * 72 / _PX_PER_INCH / (0.6 * max(len(title), 1)), 5, 9)
        curve.set_title(title, fontsize=size, color=INK, loc="left", pad=5, parse_math=False)
        if not column:
            curve.set_ylabel("share of cancer", fontsize=8, color=INK, labelpad=1)
            counts.set_ylabel("spots", fontsize=8, color=INK, labelpad=1)
    return _bytes(figure, "png")


def overlay(spots, findings) -> bytes:
    """The spots of a section on its image, to check that they belong together, as PNG bytes.

    Left the complete image with all spots in their true size, right a close-up, three spots wide, of the spot nearest
    to the middle of the tissue, with the outline of an encoder's patch (a spot's width, at least 55 µm). Above them
    section, platform, µm per px and the most severe finding.

    Parameters
    ----------
    spots : AnnData as in spots.h5ad
    findings : list of dict with `level`, `what` and `message`, at least one, as `check.check_section` returns them

    Raises
    ------
    InputError
        if the image cannot be read.
    """
    from matplotlib.figure import Figure

    section = spots.uns["section"]
    um_per_px = float(section["um_per_px"])
    centres = np.asarray(spots.obsm["spatial"], np.float64)
    spot = float(section["spot_um"]) / um_per_px
    patch = max(spot, 55 / um_per_px)
    middle, pitch = _middle_spot(centres)
    side = max(3 * pitch, 1.6 * patch)
    close = middle[0] - side / 2, middle[0] + side / 2, middle[1] - side / 2, middle[1] + side / 2
    thumbnail, scale, detail = _overlay_pixels(section, middle, side)
    whole = _whole_window(centres, spot, None if thumbnail is None else np.array(thumbnail.shape[1::-1]) / scale)
    width = round(_OVERLAY_PX * (whole[1] - whole[0]) / (whole[3] - whole[2]))
    lines = _overlay_title(section, findings, (width + _OVERLAY_PX) // _LETTER_PX)
    head = _LINE_PX * len(lines) + 12
    across, down = width + _GAP_PX + _OVERLAY_PX + 2 * _EDGE_PX, head + _OVERLAY_PX + _FOOT_PX
    figure = Figure(figsize=(across / _PX_PER_INCH, down / _PX_PER_INCH), dpi=_PX_PER_INCH, facecolor="white")
    for row, (text, colour, weight) in enumerate(lines):
        y = 1 - (8 + _LINE_PX * row) / down
        figure.text(8 / across, y, text, va="top", fontsize=_SMALL, color=colour, weight=weight, parse_math=False)
    for left, wide, shown, pixels in ((0, width, whole, thumbnail), (width + _GAP_PX, _OVERLAY_PX, close, detail)):
        place = (_EDGE_PX + left) / across, _FOOT_PX / down, wide / across, _OVERLAY_PX / down
        axes = figure.add_axes(place)
        if pixels is thumbnail is not None:
            axes.imshow(pixels, extent=(0, pixels.shape[1] / scale, pixels.shape[0] / scale, 0), zorder=0)
        elif pixels is not None:
            axes.imshow(pixels, extent=(close[0], close[1], close[3], close[2]), zorder=0)
        _frame(axes, shown, "", wide)
        _outlines(axes, centres, spot, shown, 0.8 if shown is whole else 1.8)
        _square(axes, middle, side if shown is whole else patch)
        _scale_bar(figure, axes, (place[0], 0.0, place[2], place[1]), shown, um_per_px)
    return _bytes(figure, "png")


def score_limits(scores) -> tuple[float, float]:
    """The colour range of scores: 0 to 1 for well spread probabilities, else the 1st to 99th percentile."""
    scores = np.asarray(scores, dtype=float)
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return 0.0, 1.0
    if scores.min() >= 0 and scores.max() <= 1 and np.ptp(scores) >= 0.3:
        return 0.0, 1.0
    low, high = np.percentile(scores, [1, 99])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def sd_limits(sd) -> tuple[float, float]:
    """The colour range of sds over seeds: 0 to the 99th percentile; 0 to 1 if all seeds agree."""
    sd = np.asarray(sd, dtype=float)
    sd = sd[np.isfinite(sd)]
    high = float(np.percentile(sd, 99)) if len(sd) else 0.0
    # equal scores leave only rounding noise
    return (0.0, high) if high > 1e-9 else (0.0, 1.0)


def round_length_um(longest_um: float) -> float:
    """The length of a scale bar: the longest of 1, 2, 5 x 10^k µm up to `longest_um`."""
    power = 10.0 ** np.floor(np.log10(longest_um))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest_um * (1 + 1e-9)))


def length_text(um: float) -> str:
    """A length as text: "500 µm", "2 mm"."""
    return f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"


def _reliability(curve, counts, mean_score, share, spots) -> None:
    """One curve with a dot per non-empty bin, its area by the number of spots, and the spots as bars."""
    spots = np.asarray(spots)
    filled = spots > 0
    most = max(int(spots.max()), 1)
    curve.plot((0, 1), (0, 1), color=UNKNOWN, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    x, y = np.asarray(mean_score)[filled], np.asarray(share)[filled]
    curve.plot(x, y, color=CANCER, linewidth=1.2, zorder=2)
    curve.scatter(x, y, s=5 + 30 * spots[filled] / most, color=CANCER, linewidths=0, zorder=3, clip_on=False)
    curve.set_ylim(0, 1)
    curve.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    curve.tick_params(labelbottom=False)
    counts.bar((np.arange(len(spots)) + 0.5) / len(spots), spots, width=0.9 / len(spots), color="#c8d1dc")
    counts.set_ylim(0, 1.15 * most)
    counts.set_yticks((0, most), ("0", f"{most:,}"))
    counts.set_xlabel("score", fontsize=8, color=INK, labelpad=1)
    for axes in (curve, counts):
        axes.set_xlim(0, 1)
        axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        axes.tick_params(labelsize=7, colors=INK, length=2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


def _stage_losses(axes, losses, colours) -> None:
    """The losses of one stage, NaN where not finite."""
    shortest = losses.groupby(["fold", "seed"])["epoch"].max().min()
    longest = losses["epoch"].max()
    marker = "o" if longest < 10 else None
    values = losses["value"].dropna()
    if len(values) and 0 < 10 * values.min() < values.max():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title("log axis", fontsize=7, color=INK, loc="right", pad=5)
    for term, of in losses.groupby("term", sort=False):
        runs = of.pivot(index="epoch", columns=["fold", "seed"], values="value")
        mean = runs[runs.index <= shortest].mean(axis=1)
        if term in colours:
            near = runs.loc[mean.index]
            axes.fill_between(mean.index, near.min(axis=1), near.max(axis=1), color=colours[term], alpha=0.2, lw=0)
            axes.plot(mean, color=colours[term], linewidth=1.6, linestyle=(0, (4, 2)), marker=marker, ms=3, zorder=4)
            continue
        axes.plot(mean, color=INK, linewidth=1.8, marker=marker, markersize=3, zorder=3)
        if runs.shape[1] > 1:
            axes.plot(runs, color=INK, linewidth=0.6, alpha=0.35, zorder=2)
        lost = _lost_from(of)
        place = axes.get_xaxis_transform()
        axes.plot(lost, [0.95] * len(lost), color=_LOST, marker="x", ms=6, linestyle="", zorder=5, transform=place)
    axes.set_xlim(1 - 0.02 * longest, longest + 0.02 * longest)
    axes.set_xlabel("epoch", fontsize=8, color=INK)
    axes.xaxis.set_major_locator(_few_integers())
    axes.tick_params(labelsize=7, colors=INK, length=2, which="both")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _lost_from(totals) -> list[int]:
    """The epoch from which the total is not finite, for each run that ends so."""
    lost = []
    for _, run in totals.groupby(["stage", "fold", "seed"], sort=False):
        finite = run["epoch"][run["value"].notna()].max() if run["value"].notna().any() else 0
        if finite < run["epoch"].max():
            lost.append(int(finite) + 1)
    return lost


def _loss_entries(losses, colours) -> list[tuple]:
    """Marks and texts of the legend."""
    from matplotlib.lines import Line2D

    runs = len(losses[["fold", "seed"]].drop_duplicates())
    entries = [(Line2D([], [], color=INK, linewidth=1.8), f"total, mean of {runs} runs" if runs > 1 else "total")]
    if runs > 1:
        entries.append((Line2D([], [], color=INK, linewidth=0.6, alpha=0.5), "total, each run"))
    entries += [
        (Line2D([], [], color=colour, linewidth=1.6, linestyle=(0, (4, 2))), term) for term, colour in colours.items()
    ]
    if _lost_from(losses[losses["term"] == "loss"]):
        entries.append((Line2D([], [], color=_LOST, marker="x", markersize=6, linestyle=""), "not finite from here on"))
    return entries


def _middle_spot(centres) -> tuple[np.ndarray, float]:
    """The spot nearest to the median position, and the distance between neighbours."""
    from scipy.spatial import KDTree

    tree = KDTree(centres)
    middle = centres[tree.query(np.median(centres, axis=0))[1]]
    sample = centres[:: max(1, len(centres) // 2000)]
    return middle, float(np.median(tree.query(sample, k=2)[0][:, 1]))


def _whole_window(centres, spot, size) -> tuple[float, float, float, float]:
    """The complete image and all spots, also those beyond the image, with a limited aspect ratio."""
    low, high = centres.min(axis=0) - spot, centres.max(axis=0) + spot
    if size is not None:
        low, high = np.minimum(low, 0), np.maximum(high, size)
    wide, tall = high - low
    wide, tall = max(wide, 0.4 * tall), max(tall, wide / 1.8)
    return low[0], low[0] + wide, low[1], low[1] + tall


def _overlay_pixels(section, middle, side):
    """The thumbnail, its px per full-resolution px, and the square of `side` around `middle`."""
    from ctrflow import image

    if not section["image"]:
        return None, 0.0, None
    image_scale = float(section["image_scale"])
    with image.open_image(section["image"]) as slide:
        thumbnail, scale = image.thumbnail(slide, 2 * _OVERLAY_PX)
        detail, _ = image.cut_patches(slide, middle[None] * image_scale, side * image_scale, _OVERLAY_PX)
    return thumbnail, scale * image_scale, detail[0]


def _overlay_title(section, findings, letters: int) -> list[tuple]:
    """Lines of (text, colour, weight): the section, its most severe finding, and the number of others."""
    from textwrap import wrap

    um_per_px, image_scale = float(section["um_per_px"]), float(section["image_scale"])
    facts = f"{section['section']}   {section['platform']}   {um_per_px:.4g} µm per px"
    if section["image"] and image_scale != 1:
        facts += f", {um_per_px / image_scale:.4g} in the image"
    order = list(LEVEL_COLOURS)
    worst = max(findings, key=lambda one: order.index(one["level"]))
    level = worst["level"]
    if level == "ok":
        worst = next((one for one in findings if one["what"] in ("placement", "image")), worst)
        return [(facts, INK, "bold"), *((line, INK, "normal") for line in wrap(worst["message"], letters))]
    others = [one["level"] for one in findings if one is not worst and one["level"] != "ok"]
    text = f"{level.upper()}: {worst['message']}"
    if others:
        text += f" (and {len(others)} more: see check.json)"
    return [(facts, INK, "bold"), *((line, LEVEL_COLOURS[level], "bold") for line in wrap(text, letters))]


def _outlines(axes, centres, spot, window, line) -> None:
    """Circles of the spots in a window; every n-th if there are very many."""
    from matplotlib.collections import EllipseCollection

    left, right, top, bottom = window
    x, y = centres.T
    reach = spot / 2
    seen = (x > left - reach) & (x < right + reach) & (y > top - reach) & (y < bottom + reach)
    drawn = centres[seen][:: -(-int(seen.sum()) // _MOST_OUTLINES) or 1]
    size = np.full(len(drawn), spot)
    axes.add_collection(
        EllipseCollection(
            size, size, np.zeros(len(drawn)), units="xy", offsets=drawn, offset_transform=axes.transData,
            facecolors="none", edgecolors=OUTLINE, linewidths=line, zorder=2,
        )
    )  # fmt: skip


def _square(axes, middle, side) -> None:
    from matplotlib.patches import Rectangle

    corner = middle - side / 2
    axes.add_patch(Rectangle(corner, side, side, facecolor="none", edgecolor=INK, linewidth=3, zorder=3))
    axes.add_patch(Rectangle(corner, side, side, facecolor="none", edgecolor="white", linewidth=1.4, zorder=4))


def _window(centres, spot, shape) -> tuple[float, float, float, float]:
    """Left, right, top, bottom of the visible part: the spots and a margin, within the image if there is one."""
    margin = max(1.2 * spot, 0.03 * np.ptp(centres, axis=0).max())
    left, top = centres.min(axis=0) - margin
    right, bottom = centres.max(axis=0) + margin
    if shape is None:
        bottom += 0.09 * (bottom - top)  # room for the scale bar
    else:
        # include all spots, also those beyond the border of the image
        left, top = min(max(left, 0), centres[:, 0].min()), min(max(top, 0), centres[:, 1].min())
        right, bottom = max(min(right, shape[1]), centres[:, 0].max()), max(min(bottom, shape[0]), centres[:, 1].max())
    return float(left), float(right), float(top), float(bottom)


def _panel_size(window) -> tuple[int, int]:
    left, right, top, bottom = window
    width, height = right - left, bottom - top
    # a minimum leaves room for the title of a very long section
    scale = _PANEL_PX / max(width, height)
    return max(round(width * scale), 150), max(round(height * scale), 150)


def _panel_rows(panels) -> list[list]:
    """Panels in rows of at most four; those of a run stay in one row, and so does a single run."""
    groups: list[list] = []
    for panel in panels:
        if panel[2] in ("probability", "call", "sd") and groups and groups[-1][0][2] == "score":
            groups[-1].append(panel)
        else:
            groups.append([panel])
    rows: list[list] = []
    alone = len(panels) <= 5 and sum(group[0][2] == "score" for group in groups) == 1
    for group in groups:
        if rows and (alone or len(rows[-1]) + len(group) <= 4):
            rows[-1] += group
        else:
            rows.append(list(group))
    return rows


def _frame(axes, window, title, width_px) -> None:
    left, right, top, bottom = window
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)  # image rows run downwards
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d5d9de")
        spine.set_linewidth(0.8)
    # a letter is about 0.6 font sizes wide: a long run name shrinks to fit its panel
    size = np.clip(width_px * 72 / _PX_PER_INCH / (0.6 * max(len(title), 1)), 6, _LARGE)
    axes.set_title(title, fontsize=size, color=INK, loc="left", pad=6, parse_math=False)


def _ground(thumbnail, window, width_px) -> tuple:
    """The visible part of the image, at its drawn size, and its extent (left, right, bottom, top)."""
    from PIL import Image

    left, right, top, bottom = window
    rows = slice(max(int(top), 0), int(np.ceil(bottom)))
    columns = slice(max(int(left), 0), int(np.ceil(right)))
    crop = Image.fromarray(np.ascontiguousarray(thumbnail[rows, columns]))
    scale = width_px / (right - left)
    size = max(round(crop.width * scale), 1), max(round(crop.height * scale), 1)
    extent = columns.start, columns.start + crop.width, rows.start + crop.height, rows.start
    return np.asarray(crop.resize(size, Image.Resampling.LANCZOS)), extent


def _faded(pixels):
    return 255 - (255 - pixels) // 2


def _layer(figure, axes, foot, centres, shape, values, kind) -> None:
    if kind not in ("score", "probability", "sd", "label", "call"):
        raise ValueError(f"unknown kind of layer {kind!r}: score, probability, sd, label or call")
    if values is None:
        text = "not labelled" if kind == "label" else f"no {kind}"
        axes.text(
            0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=12, color="#57606a",
            bbox={"facecolor": "white", "edgecolor": "#d5d9de", "boxstyle": "round,pad=0.5"},
        )  # fmt: skip
        return
    values = np.asarray(values, dtype=float)
    if kind in ("score", "probability", "sd"):
        low, high = {"score": score_limits, "probability": lambda _: (0.0, 1.0), "sd": sd_limits}[kind](values)
        colours = SD_MAP if kind == "sd" else SCORE_MAP
        _spots(axes, centres, shape, _value_colours(values, low, high, colours))
        _colour_bar(figure, foot, low, high, values, colours)
        return
    words = WORDS[kind]
    colours = np.where(np.isnan(values), UNKNOWN, np.where(values == 1, CANCER, OTHER))
    _spots(axes, centres, shape, colours)
    counts = (values == 1).sum(), (values == 0).sum(), np.isnan(values).sum()
    entries = [entry for entry in zip(words, (CANCER, OTHER, UNKNOWN), counts, strict=True) if entry[2]]
    _legend(figure, foot, entries)


def _spots(axes, centres, shape, colours) -> None:
    """Discs, if `shape` is a diameter, or polygons, if it is the corners around a centre."""
    from matplotlib.collections import EllipseCollection, PolyCollection

    look = {"facecolors": colours, "edgecolors": "none", "alpha": 0.92, "zorder": 2}
    if np.ndim(shape):
        # antialiased borders of neighbours would show the ground between them
        axes.add_collection(PolyCollection(centres[:, None] + shape, antialiaseds=False, **look))
        return
    size = np.full(len(centres), shape)
    axes.add_collection(
        EllipseCollection(
            size, size, np.zeros(len(centres)), units="xy", offsets=centres, offset_transform=axes.transData, **look
        )
    )  # fmt: skip


def _value_colours(values, low, high, name):
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    colours = colormaps[name](np.clip((values - low) / (high - low), 0, 1))
    colours[np.isnan(values)] = to_rgba(UNKNOWN)
    return colours


def _colour_bar(figure, foot, low, high, values, name) -> None:
    left, bottom, width, height = foot
    axes = figure.add_axes((left + 0.12 * width, bottom + 0.58 * height, 0.76 * width, 0.2 * height))
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=name, aspect="auto", extent=(low, high, 0, 1))
    axes.set_yticks([])
    ticks = np.linspace(low, high, 3)
    # if the range is cut at percentiles, the end labels include values beyond
    beyond = np.nanmin(values) < low, False, np.nanmax(values) > high
    signs = ("≤ ", "", "≥ ")
    axes.set_xticks(ticks, [f"{signs[i] if beyond[i] else ''}{_short(ticks[i], high - low)}" for i in range(3)])
    axes.tick_params(labelsize=_SMALL, colors=INK, length=2, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(value: float, span: float) -> str:
    digits = max(0, int(np.ceil(1 - np.log10(span)))) if span > 0 else 2
    return f"{value:.{digits}f}" if digits <= 4 else f"{value:.2g}"


def _legend(figure, foot, entries) -> None:
    from matplotlib.lines import Line2D

    left, bottom, width, height = foot
    marks = [Line2D([], [], marker="o", linestyle="", markersize=8, color=colour) for _, colour, _ in entries]
    figure.legend(
        marks, [f"{word} {count:,}" for word, _, count in entries], loc="center", ncols=len(entries),
        bbox_to_anchor=(left + width / 2, bottom + 0.62 * height), fontsize=_SMALL, frameon=False,
        handletextpad=0.1, columnspacing=1.0, labelcolor=INK,
    )  # fmt: skip


def _scale_bar(figure, axes, foot, window, um_per_unit) -> None:
    """A scale bar below the panel if its foot is free, else in its lower left corner."""
    from matplotlib.lines import Line2D

    wide = window[1] - window[0]
    um = round_length_um(0.4 * wide * um_per_unit)
    share = um / um_per_unit / wide
    if foot is None:
        left, length, transform, y, text_y = 0.03, share, axes.transAxes, 0.035, 0.05
    else:
        left, length, transform = foot[0], foot[2] * share, figure.transFigure
        y, text_y = foot[1] + foot[3] * 0.72, foot[1] + foot[3] * 0.6
    bar = Line2D([left, left + length], [y, y], color=INK, linewidth=3, solid_capstyle="butt", transform=transform)
    (axes if foot is None else figure).add_artist(bar)
    figure.text(
        left + length / 2, text_y, length_text(um), ha="center", va="bottom" if foot is None else "top",
        fontsize=_SMALL, color=INK, transform=transform,
    )  # fmt: skip


def _few_integers():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, integer=True)


def rendered(figure):
    """Render a figure to a PIL image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _bytes(figure, kind: str) -> bytes:
    image = rendered(figure)
    out = BytesIO()
    if kind == "jpeg":
        image.save(out, "JPEG", quality=78, subsampling=2, optimize=True)
    else:
        image.save(out, "PNG", optimize=True)
    return out.getvalue()
