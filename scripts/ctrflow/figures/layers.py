"""Expression in the layers around the called tumour, as a heat map."""

import numpy as np

from ctrflow import plots
from ctrflow.export.columns import LAYER_COLOURS
from ctrflow.figures import around, page, settings
from ctrflow.figures.listing import drawn, not_drawn
from ctrflow.rim.genes import LEAST_SPOTS
from ctrflow.rim.layers import LAYERS

TITLE = "Expression in the layers around the called tumour"
CAPTION = (
    "Genes that are most clearly higher in one layer than in the rest of the tissue (at most {most} a layer, from "
    "tables/layer_genes.tsv, whose caveats hold here too), by the calls of {variant}: the mean log-normalised "
    "expression of each layer, as z-score over the layers; grey, fewer than {least} spots. {several}Colours say where "
    "a gene is highest, not how high."
)
SEVERAL = "Of each section its own mean is subtracted. "
COLUMNS = ["variant", "gene", "higher_in", "layer", "spots", "mean", "z"]
ROW, NAMES, TOP, WIDE = 0.17, 1.1, 0.34, 4.6  # inches
_LIMIT = 1.75  # of the colours; a z-score over four values is within 1.73


def draw(setting: dict) -> dict:
    """A row for each gene, a column for each layer."""
    found = setting["around"]
    if found["reason"]:
        return not_drawn(TITLE, found["reason"])
    table = _table(found)
    several = SEVERAL * (len(found["sections"]) > 1)
    caption = CAPTION.format(most=around.GENES, variant=found["variant"], least=LEAST_SPOTS, several=several)
    return drawn(TITLE, caption, [_draw(setting, table)], {"": table})


def _table(found):
    """The mean of each gene in each layer, and its z-score over the layers with enough spots."""
    import pandas as pd

    of = around.joined(found["sections"], "layer")
    sizes = [int((of == name).sum()) for name in LAYERS]
    rows = []
    for gene, higher_in in found["genes"].items():
        values = around.values(found["sections"], gene)
        enough = [
            values[of == name] if size >= LEAST_SPOTS else [np.nan] for name, size in zip(LAYERS, sizes, strict=True)
        ]
        means = np.array([np.mean(own) for own in enough])
        z = (means - np.nanmean(means)) / (np.nanstd(means) or 1)
        rows += [[found["variant"], gene, higher_in, *row] for row in zip(LAYERS, sizes, means, z, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _draw(setting, table) -> bytes:
    genes = list(dict.fromkeys(table["gene"]))
    z = table["z"].to_numpy().reshape(len(genes), len(LAYERS))
    high = ROW * len(genes)
    variant = table["variant"].iloc[0]
    figure = page.sheet(WIDE, page.HEAD + TOP + high + 0.55, settings.heading(setting, f"Layers: {variant}"))
    axes = page.panel(figure, NAMES, page.HEAD + TOP, WIDE - NAMES - 0.25, high)
    axes.set_facecolor("#e4e8ec")
    shown = axes.imshow(z, cmap="RdBu_r", vmin=-_LIMIT, vmax=_LIMIT, aspect="auto")
    axes.set_yticks(range(len(genes)), [page.fit(gene, NAMES - 0.1)[0] for gene in genes], parse_math=False)
    axes.xaxis.tick_top()
    names = [f"{name}\n{size:,} spots" for name, size in zip(LAYERS, table["spots"], strict=False)]
    axes.set_xticks(range(len(LAYERS)), names)
    axes.tick_params(length=0)
    for place, name in enumerate(LAYERS):
        ends = (place + 0.03) / len(LAYERS), (place + 0.97) / len(LAYERS)
        axes.axhline(-0.5, *ends, color=LAYER_COLOURS[name], linewidth=4)
    higher = table["higher_in"].to_numpy()[:: len(LAYERS)]
    for place in np.flatnonzero(higher[1:] != higher[:-1]):
        axes.axhline(place + 0.5, color="white", linewidth=2)
    bar = page.panel(figure, NAMES, page.HEAD + TOP + high + 0.14, 1.6, 0.09)
    figure.colorbar(shown, cax=bar, orientation="horizontal", ticks=(-1.5, 0, 1.5))
    bar.tick_params(labelsize=page.SMALL, length=2, pad=2)
    place = (NAMES + 1.75) / WIDE, 0.36 / figure.get_size_inches()[1]
    figure.text(*place, "z-score over the layers", fontsize=page.SMALL, color=plots.INK, va="center")
    return page.png(figure)
