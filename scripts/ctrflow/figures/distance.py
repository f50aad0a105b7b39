"""Expression against the distance to the rim of the called tumour."""

import numpy as np

from ctrflow import plots
from ctrflow.export.columns import LAYER_COLOURS
from ctrflow.figures import around, page, settings
from ctrflow.figures.listing import drawn, not_drawn
from ctrflow.figures.severity import interval
from ctrflow.rim.layers import LAYERS

TITLE = "Expression against the distance to the tumour's rim"
CAPTION = (
    "Log-normalised expression by the distance to the rim of the tumour that {variant} calls, negative inside: the "
    "gene that is most clearly higher in each layer, and markers. Points are spots, the line is their mean in steps of "
    "distance with its 95 % interval, dotted lines are the borders of the layers. {several}Neighbouring spots are not "
    "independent, so intervals are too narrow; where spots of few counts lie far out, many of them are 0; and where a "
    "method reads genes, the rim was drawn by them."
)
MARKERS = 4
POINTS = 1500  # spots drawn in a panel, at most
STEPS = 30  # of distance, at most; none is narrower than the pitch
LEAST = 5  # spots of a step with a mean
COLUMNS = ["variant", "gene", "low_um", "high_um", "spots", "mean", "low", "high"]
ACROSS = 4  # panels


def draw(setting: dict) -> dict:
    """A panel for each gene."""
    import pandas as pd

    found = setting["around"]
    if found["reason"]:
        return not_drawn(TITLE, found["reason"])
    first = found["genes"].groupby(found["genes"], sort=False).head(1).index
    curves = {gene: _curve(found["sections"], gene) for gene in [*first, *found["markers"][:MARKERS]]}
    table = pd.concat([curve.assign(gene=gene, variant=found["variant"]) for gene, curve in curves.items()])[COLUMNS]
    several = "Of each section its own mean is subtracted. " * (len(found["sections"]) > 1)
    picture = _draw(settings.heading(setting, f"Distance to the rim: {found['variant']}"), found["sections"], curves)
    return drawn(TITLE, CAPTION.format(variant=found["variant"], several=several), [picture], {"": table})


def _curve(sections, gene: str):
    """The mean of a gene in steps of distance, with its 95 % interval over spots."""
    import pandas as pd

    rim_um, values = around.joined(sections, "rim_um"), around.values(sections, gene)
    values, rim_um = values[np.isfinite(rim_um)], rim_um[np.isfinite(rim_um)]
    wide = max(max(one["pitch_um"] for one in sections), np.ptp(rim_um) / STEPS)
    step = np.floor(rim_um / wide).astype(int)  # from the rim, so that no step has both sides of it
    rows = [
        [number * wide, (number + 1) * wide, int(own.sum()), *interval(values[own])]
        for number in np.unique(step)
        if (own := step == number).sum() >= LEAST
    ]
    return pd.DataFrame(rows, columns=COLUMNS[2:])


def _draw(heading: str, sections, curves: dict) -> bytes:
    figure, panels = page.grid(len(curves), ACROSS, 2.1, 1.7, 0.48, 0.26, heading, foot=0.42)
    rim_um, layer = around.joined(sections, "rim_um"), around.joined(sections, "layer")
    shown = np.flatnonzero(np.isfinite(rim_um))
    if len(shown) > POINTS:
        shown = np.random.default_rng(0).choice(shown, POINTS, replace=False)
    colours = [LAYER_COLOURS[name] for name in layer[shown]]
    for number, (axes, (gene, curve)) in enumerate(zip(panels, curves.items(), strict=True)):
        page.title(axes, gene)
        values = around.values(sections, gene)[shown]
        axes.scatter(rim_um[shown], values, s=3, c=colours, alpha=0.35, linewidths=0, zorder=1)
        _line(axes, curve)
        _limits(axes, values, sections[0]["widths_um"])
        if number % ACROSS == 0:
            axes.set_ylabel("expression", fontsize=page.SMALL, color=plots.INK)
            axes.yaxis.set_label_coords(-0.2, 0.5)
    place = 0.5, 0.36 / figure.get_size_inches()[1]
    text = "distance to the rim, µm (negative inside the tumour)"
    figure.text(*place, text, ha="center", va="center", fontsize=page.SMALL, color=plots.INK)
    page.legend(figure, [(LAYER_COLOURS[name], "o", name) for name in LAYERS])
    return page.png(figure)


def _line(axes, curve) -> None:
    middle = (curve["low_um"] + curve["high_um"]) / 2
    axes.fill_between(middle, curve["low"], curve["high"], color=plots.INK, alpha=0.2, linewidth=0, zorder=2)
    axes.plot(middle, curve["mean"], color=plots.INK, linewidth=1.4, zorder=3)


def _limits(axes, values, widths_um: dict) -> None:
    """The rim and the borders of the layers; what is seen of the band is where there are spots."""
    for place, style in ((-widths_um["inner"], ":"), (0, "-"), (widths_um["outer"], ":")):
        axes.axvline(place, color="#8c959f", linewidth=0.7, linestyle=style, zorder=0)
    margin = 0.06 * (np.ptp(values) or 1)
    axes.set_ylim(values.min() - margin, values.max() + margin)
    axes.xaxis.set_major_locator(page.few(4))
    axes.yaxis.set_major_locator(page.few(4))
