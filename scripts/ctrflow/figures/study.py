"""All figures of a study."""

from pathlib import Path

from ctrflow.figures import (
    calls,
    discordant,
    distance,
    distributions,
    edge,
    histograms,
    ks,
    layers,
    listing,
    maps,
    severity,
)

# in display order, with the figures of SpaCRD and MEATRD that they reproduce
KINDS = {
    "maps": maps.draw,  # SpaCRD Figures 3, 5 and S1
    "ks": ks.draw,  # SpaCRD Figure 4
    "distributions": distributions.draw,  # SpaCRD Figure 4
    "histograms": histograms.draw,  # SpaCRD, supplementary figures
    "histograms_sections": histograms.draw_sections,
    "severity": severity.draw,  # SpaCRD Figure 6
    "edge": edge.draw,  # SpaCRD, supplementary figures
    "edge_sections": edge.draw_sections,
    "discordant": discordant.draw,  # SpaCRD Figure 7
    "calls": calls.draw,  # MEATRD Figure 3
    "layers": layers.draw,  # these two are of no paper
    "distance": distance.draw,
}


def draw_study(settings: list[dict], folder: str | Path) -> None:
    """Draw every figure of every task and encoder and list them in `folder`.

    Parameters
    ----------
    settings : as returned by `settings.setting`, with `around.around` as `around`; one per task and encoder
    folder : for images, tables and figures.json. With several tasks or encoders, names begin with them.
    """
    figures = []
    for setting in settings:
        prefix = "" if len(settings) == 1 else f"{setting['task']}.{setting['encoder']}."
        of = {key: setting[key] for key in ("task", "encoder")}
        for kind, draw in KINDS.items():
            figures.append(draw(setting) | of | {"kind": kind, "name": prefix + kind})
    listing.write(figures, folder)
