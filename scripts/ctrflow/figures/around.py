"""The data of the figures of what lies around the called tumours: distances, layers, and expression of some genes."""

import numpy as np

from ctrflow.export.regions import find_regions, tessellate
from ctrflow.figures import settings
from ctrflow.rim import distance, layers

GENES = 5  # of a layer, at most
NO_SCORES = "No method has scores here."


def leading(layer_genes) -> list[str]:
    """The genes to show of every run: the first `GENES` of each layer that are higher there than in the rest.

    `layer_genes` is the table tables/layer_genes.tsv (`rim.genes.differing`, with task, encoder and variant).
    """
    return list(dict.fromkeys(_higher(layer_genes)["gene"]))


def around(setting: dict, layer_genes) -> dict:
    """What lies around the tumours called by the method with the highest mean AUC, or without labels by the first.

    The sections of the setting also have `leading` (frame, expression of the leading genes) and `widths_um`.

    Returns
    -------
    dict(reason: why there is nothing to show, or ""; variant; genes: Series, leading gene -> layer; markers: other
    genes to show; sections: of those with a rim, dict(rim_um (n,), layer (n,), expression, pitch_um, widths_um))
    """
    if not setting["variants"]:
        return {"reason": NO_SCORES}
    variant = [*settings.best(setting, 1), *setting["variants"]][0]
    own = [_section(one, variant) for one in setting["sections"] if variant in one["calls"]]
    own = [one for one in own if np.isfinite(one["rim_um"]).any()]
    if not own:
        return {"reason": f"No section has a rim between tumour and other tissue in the calls of {variant}."}
    of_run = (layer_genes[["task", "encoder", "variant"]] == [setting["task"], setting["encoder"], variant]).all(axis=1)
    genes = _higher(layer_genes[of_run]).drop_duplicates("gene").set_index("gene")["layer"]
    measured = set.intersection(*(set(one["expression"]) for one in own))
    genes = genes[genes.index.isin(list(measured))]
    if genes.empty:
        return {"reason": f"No gene is higher in a layer of {variant} than in the rest."}
    known = [gene for gene in setting["genes"] if gene in measured and gene not in genes.index]
    return {"reason": "", "variant": variant, "genes": genes, "markers": known, "sections": own}


def values(sections: list[dict], gene: str) -> np.ndarray:
    """A gene in all spots of the sections; of several, each less its own mean, since they differ in depth."""
    parts = [one["expression"][gene].to_numpy(dtype=float) for one in sections]
    return np.concatenate([of - of.mean() * (len(sections) > 1) for of in parts])


def joined(sections: list[dict], what: str) -> np.ndarray:
    """`rim_um` or `layer` of all spots of the sections."""
    return np.concatenate([one[what] for one in sections])


def _higher(layer_genes):
    of = layer_genes[layer_genes["log2_fold_change"] > 0]
    return of.groupby(["task", "encoder", "variant", "layer"], sort=False).head(GENES)


def _section(section: dict, variant: str) -> dict:
    import pandas as pd

    centres_px, call = section["centres_px"], section["calls"][variant].to_numpy(dtype=float)
    regions = {variant: find_regions(tessellate(centres_px), call == 1)}
    rim_um = distance.signed_um(centres_px, section["um_per_px"], {variant: call}, regions)[variant]
    expression = pd.concat([section["leading"], section["expression"]], axis=1)
    return {
        "rim_um": rim_um,
        "layer": layers.words(call, rim_um, section["widths_um"]),
        "expression": expression.loc[:, ~expression.columns.duplicated()],
        "pitch_um": section["pitch_px"] * section["um_per_px"],
        "widths_um": section["widths_um"],
    }
