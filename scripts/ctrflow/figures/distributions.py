"""Cumulative distributions of the scores of cancer and of other spots (SpaCRD Figure 4)."""

import numpy as np

from ctrflow import plots
from ctrflow.figures import page, settings
from ctrflow.figures.listing import drawn, not_drawn

TITLE = "Cumulative distributions of the scores"
CAPTION = (
    "Share of spots with at most a score, the methods with the highest mean AUC in turn from those that learned from "
    "labels and those that saw none. Thick lines are all labelled spots together, thin ones sections; the number is "
    "the KS statistic of the thick lines, which mixes the scales of the sections and is not the mean of their "
    "statistics."
)
METHODS = 4
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def draw(setting: dict) -> dict:
    """A panel for each of the best methods."""
    sections, names = settings.two_classes(setting), settings.best(setting, METHODS)
    if not sections or not names:
        return not_drawn(TITLE, "No section has labelled spots of both classes.")
    figure, panels = page.grid(len(names), 2, 3.3, 2.35, 0.45, 0.3, settings.heading(setting, TITLE), foot=0.42)
    tables = []
    for axes, name in zip(panels, names, strict=True):
        page.title(axes, f"{name}: {setting['groups'][name]}")
        tables.append(_panel(axes, sections, name))
    page.legend(figure, [(colour, "", word) for word, _, colour in settings.CLASSES])
    return drawn(TITLE, CAPTION, [page.png(figure)], {"": _joined(tables)})


def _panel(axes, sections, name: str):
    import pandas as pd
    from scipy.stats import ks_2samp

    scores, label = settings.pooled(sections, name, lambda one: one["label"])
    low, high = page.limits(scores)
    several = sum(name in one["scores"] for one in sections) > 1
    for section in sections if several else ():
        if name in section["scores"]:
            own = section["scores"][name].to_numpy(dtype=float)
            for _, value, colour in settings.CLASSES:
                _steps(axes, own[section["label"] == value], low, high, color=colour, linewidth=0.6, alpha=0.45)
    lines = []
    ks = float(ks_2samp(scores[label == 1], scores[label == 0]).statistic)
    for word, value, colour in settings.CLASSES:
        own = scores[label == value]
        _steps(axes, own, low, high, color=colour, linewidth=2, zorder=3)
        lines.append([name, word, len(own), *np.percentile(own, QUANTILES), ks])
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.02)
    axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.xaxis.set_major_locator(page.few(4))
    axes.set_xlabel("score", fontsize=page.SMALL, color=plots.INK, labelpad=1)
    axes.set_ylabel("share of spots", fontsize=page.SMALL, color=plots.INK, labelpad=2)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    at = {"transform": axes.transAxes, "ha": "left", "va": "top", "fontsize": page.LARGE - 0.5, "color": plots.INK}
    axes.text(0.04, 0.95, f"KS {ks:.3f}", bbox=box, zorder=5, **at)
    columns = ["variant", "class", "spots", *(f"q{percent:02d}" for percent in QUANTILES), "ks"]
    return pd.DataFrame(lines, columns=columns)


def _steps(axes, scores, low, high, **style) -> None:
    if len(scores):
        x = np.sort(scores)
        y = np.arange(1, len(x) + 1) / len(x)
        axes.plot([min(low, x[0]), *x, max(high, x[-1])], [0, *y, 1], drawstyle="steps-post", **style)


def _joined(tables):
    import pandas as pd

    return pd.concat(tables, ignore_index=True)
