"""Histograms of the scores of cancer and of other spots, with the thresholds (SpaCRD, supplementary figures)."""

import numpy as np

from ctrflow import plots
from ctrflow.figures import page, settings
from ctrflow.figures.listing import drawn, not_drawn

TITLE = "Histograms of the scores"
TITLE_SECTIONS = "Histograms of the scores by section"
_BARS = (
    "Bars are shares of the cancer spots and of the other spots; the first and the last hold what lies beyond. {} the"
    " threshold of the calls, which was found without labels."
)
CAPTION = "Labelled spots of all sections together. " + _BARS.format("Ticks at the top are, a section each,")
CAPTION_SECTIONS = "The method with the highest mean AUC. " + _BARS.format("The dashed line is")
NO_LABEL = "No section is labelled."
BINS = 40
PANELS = 24  # on a page
COLUMNS = ["variant", "section", "low", "high", "cancer", "other", "threshold"]


def draw(setting: dict) -> dict:
    """One panel per method, all labelled sections together."""
    sections = settings.labelled(setting)
    if not sections:
        return not_drawn(TITLE, NO_LABEL)
    panels = [(name, name, sections) for name in setting["variants"] if any(name in one["scores"] for one in sections)]
    pictures, table = _draw(settings.heading(setting, TITLE), panels, lines=len(sections) == 1)
    return drawn(TITLE, CAPTION, pictures, {"": table.drop(columns=["section", "threshold"])})


def draw_sections(setting: dict) -> dict:
    """One panel per section, of the best method."""
    sections, names = settings.labelled(setting), settings.best(setting, 1)
    if not sections or not names:
        return not_drawn(TITLE_SECTIONS, NO_LABEL if not sections else "No method has an AUC.")
    name = names[0]
    panels = [(one["section"], name, [one]) for one in sections if name in one["scores"]]
    heading = settings.heading(setting, f"{TITLE_SECTIONS}: {name}, {setting['groups'][name]}")
    pictures, table = _draw(heading, panels, lines=True)
    return drawn(f"{TITLE_SECTIONS}: {name}", CAPTION_SECTIONS, pictures, {"": table})


def counts(scores, label, low: float, high: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of the bins (`BINS` + 1), and the numbers of cancer and other spots in each.

    A bin includes its lower edge, the last also its upper one. The first and the last bin include values beyond `low`
    and `high`.
    """
    edges = np.linspace(low, high, BINS + 1)
    spots = [np.histogram(np.clip(scores[label == value], low, high), edges)[0] for _, value, _ in settings.CLASSES]
    return edges, *spots


def _draw(heading: str, panels: list[tuple], lines: bool):
    """Pages of panels (title, variant, sections), and the numbers; `lines`: draw thresholds as lines, not ticks."""
    import pandas as pd

    pictures, tables = [], []
    limits = _limits(panels)
    for some in page.pages(panels, PANELS, columns=4):
        figure, axes = page.grid(len(some), 4, 2.35, 1.5, 0.38, 0.24, heading, foot=0.34)
        for one, (title, name, sections) in zip(axes, some, strict=True):
            page.title(one, title)
            tables.append(_panel(one, name, sections, limits[name], lines))
        page.legend(figure, [(colour, "s", word) for word, _, colour in settings.CLASSES])
        pictures.append(page.png(figure))
    return pictures, pd.concat(tables, ignore_index=True)


def _limits(panels) -> dict:
    """Variant -> the range of its scores in all panels."""
    of: dict[str, list] = {}
    for _, name, sections in panels:
        of.setdefault(name, []).append(settings.pooled(sections, name, lambda one: one["label"])[0])
    return {name: page.limits(np.concatenate(scores)) for name, scores in of.items()}


def _panel(axes, name: str, sections, limits, lines: bool):
    import pandas as pd

    scores, label = settings.pooled(sections, name, lambda one: one["label"])
    edges, *by_class = counts(scores, label, *limits)
    for (_, _, colour), spots in zip(settings.CLASSES, by_class, strict=True):
        if spots.sum():
            share = spots / spots.sum()
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.45)
            axes.stairs(share, edges, color=colour, linewidth=1.0)
    fitted = [one["thresholds"][name].threshold for one in sections if name in one["scores"]]
    shown = np.clip([value for value in fitted if value is not None], edges[0], edges[-1])
    style = {
        "color": plots.INK,
        "linewidth": 1.1,
        "transform": axes.get_xaxis_transform(),
        "zorder": 4,
        "clip_on": False,
    }
    for value in shown:
        axes.plot((value, value), (0, 1) if lines else (0.88, 1), linestyle=(0, (4, 2)) if lines else "-", **style)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(page.few(3))
    axes.yaxis.set_major_locator(page.few(2))
    columns = [name, sections[0]["section"] if len(sections) == 1 else None, edges[:-1], edges[1:], *by_class]
    threshold = fitted[0] if len(fitted) == 1 else None
    return pd.DataFrame(dict(zip(COLUMNS, [*columns, threshold], strict=True)))
