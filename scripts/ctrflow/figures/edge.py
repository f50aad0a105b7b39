"""Scores in healthy tissue, at the edge of the tumour and in it, as violins (SpaCRD, supplementary figures)."""

import numpy as np

from ctrflow import plots
from ctrflow.figures import page, settings
from ctrflow.figures.listing import drawn, not_drawn

TITLE = "Scores at the edge of the tumour"
TITLE_SECTIONS = "Scores at the edge of the tumour by section"
_GROUPS = (
    "Scores of spots in healthy tissue, at the edge and in the tumour; {}. The edge is what the annotator calls so; "
    "in sections without such a word it is the spots labelled other that have a cancer spot next to them (at most 1.5"
    " times the distance between neighbours away). Boxes hold the middle half of the spots, the white mark is the "
    "median."
)
CAPTION = _GROUPS.format("labelled sections together")
CAPTION_SECTIONS = _GROUPS.format("the method with the highest mean AUC")
REASON = "No section has labelled spots both in healthy tissue, at the edge of a tumour and in it."
# 1.41 pitches to the corner of a square array; the second ring of a hexagonal one is 1.73 away
REACH = 1.5
GROUPS = {"healthy": plots.OTHER, "edge": "#e69f00", "tumour": plots.CANCER}
PANELS = 20  # on a page
COLUMNS = ["variant", "section", "group", "spots", "mean", "median", "q25", "q75", "rule"]
_POINTS = 80


def draw(setting: dict) -> dict:
    """One panel per method, all labelled sections together."""
    sections = _with_groups(setting)
    if not sections:
        return not_drawn(TITLE, REASON)
    panels = [(name, name, sections) for name in setting["variants"] if any(name in one["scores"] for one in sections)]
    pictures = _draw(settings.heading(setting, TITLE), panels)
    return drawn(TITLE, CAPTION, pictures, {"": _table(setting["variants"], sections)})


def draw_sections(setting: dict) -> dict:
    """One panel per section, of the best method."""
    sections, names = _with_groups(setting), settings.best(setting, 1)
    if not sections or not names:
        return not_drawn(TITLE_SECTIONS, REASON if not sections else "No method has an AUC.")
    name = names[0]
    panels = [(one["section"], name, [one]) for one in sections if name in one["scores"]]
    heading = settings.heading(setting, f"{TITLE_SECTIONS}: {name}, {setting['groups'][name]}")
    return drawn(f"{TITLE_SECTIONS}: {name}", CAPTION_SECTIONS, _draw(heading, panels), {"": _table([name], sections)})


def groups(section) -> tuple[np.ndarray, str]:
    """Healthy, edge or tumour for each spot ("" if unknown), and the rule for the edge.

    "word": the annotator has a word for the edge; healthy are spots labelled other or with a word of normal tissue,
    tumour those labelled cancer or with a word of cancer. "neighbours": the edge are spots labelled 0 within `REACH`
    pitches of one labelled 1.
    """
    from scipy.spatial import cKDTree

    label, severity = section["label"], section["severity"]
    group = np.full(len(label), "", dtype="<U7")
    if (severity == "edge").any():
        group[(label == 0) | (severity == "normal")] = "healthy"
        group[(label == 1) | np.isin(severity, ("invasive", "in_situ"))] = "tumour"
        group[severity == "edge"] = "edge"
        return group, "word"
    group[label == 0], group[label == 1] = "healthy", "tumour"
    if (label == 1).any():
        tumour, other = section["centres_px"][label == 1], np.flatnonzero(label == 0)
        reach = REACH * section["pitch_px"]
        near = cKDTree(tumour).query(section["centres_px"][other], distance_upper_bound=reach)[0]
        group[other[np.isfinite(near)]] = "edge"
    return group, "neighbours"


def violin(values) -> tuple[np.ndarray, np.ndarray]:
    """Positions over the range of the values and the density there, scaled to 1; Gaussian kernel, Scott's width.

    Values are binned first, so that the time does not grow with their number.
    """
    from scipy.ndimage import gaussian_filter1d

    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.array([low]), np.array([1.0])
    bins = 4 * _POINTS
    spots, edges = np.histogram(values, bins, (low, high))
    width = values.std() * len(values) ** -0.2 / (edges[1] - edges[0])
    density = gaussian_filter1d(spots.astype(float), max(width, 1.0), mode="constant")[::4]
    return ((edges[1:] + edges[:-1]) / 2)[::4], density / density.max()


def _with_groups(setting) -> list[dict]:
    """The sections that have all three groups, with `edge` (the group of each spot) and `rule`."""
    sections = []
    for one in settings.labelled(setting):
        edge, rule = groups(one)
        if set(GROUPS) <= set(edge):
            sections.append(one | {"edge": edge, "rule": rule})
    return sections


def _draw(heading: str, panels: list[tuple]) -> list[bytes]:
    pictures = []
    limits = _limits(panels)
    for some in page.pages(panels, PANELS, columns=4):
        figure, axes = page.grid(len(some), 4, 2.3, 1.75, 0.42, 0.26, heading, foot=0.12)
        for one, (title, name, sections) in zip(axes, some, strict=True):
            page.title(one, title)
            _panel(one, *settings.pooled(sections, name, lambda section: section["edge"]))
            one.set_ylim(*limits[name])
        pictures.append(page.png(figure))
    return pictures


def _panel(axes, scores, edge) -> None:
    for place, (group, colour) in enumerate(GROUPS.items()):
        own = scores[edge == group]
        y, density = violin(own)
        axes.fill_betweenx(y, place - 0.4 * density, place + 0.4 * density, color=colour, alpha=0.7, linewidth=0)
        low, median, high = np.percentile(own, (25, 50, 75))
        axes.vlines(place, low, high, color=plots.INK, linewidth=3.5, zorder=3)
        axes.scatter(place, median, s=12, color="white", edgecolors=plots.INK, linewidths=0.7, zorder=4)
    axes.set_xlim(-0.55, len(GROUPS) - 0.45)
    axes.set_xticks(range(len(GROUPS)), [f"{group}\n{(edge == group).sum():,}" for group in GROUPS])
    axes.yaxis.set_major_locator(page.few(4))


def _limits(panels) -> dict:
    """Variant -> the range of its scores in all panels, with a margin."""
    of: dict[str, list] = {}
    for _, name, sections in panels:
        of.setdefault(name, []).append(settings.pooled(sections, name, lambda section: section["edge"])[0])
    ranges = {name: page.limits(np.concatenate(scores)) for name, scores in of.items()}
    return {name: (low - 0.04 * (high - low), high + 0.04 * (high - low)) for name, (low, high) in ranges.items()}


def _table(names, sections):
    """A row for each method, section and group, and without a section for all sections together."""
    import pandas as pd

    rows = []
    for name in names:
        own = [one for one in sections if name in one["scores"]]
        for some, section in [(own, None), *(([one], one["section"]) for one in own)]:
            if not some:
                continue
            scores, edge = settings.pooled(some, name, lambda one: one["edge"])
            rule = " and ".join(sorted({one["rule"] for one in some}))
            for group in GROUPS:
                values = scores[edge == group]
                quarters = np.percentile(values, (50, 25, 75))
                rows.append([name, section, group, len(values), values.mean(), *quarters, rule])
    return pd.DataFrame(rows, columns=COLUMNS)
