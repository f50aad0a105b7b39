"""A section with its results as AnnData, for scanpy, squidpy and cellxgene."""

import numpy as np

from ctrflow import storage
from ctrflow.export import Export
from ctrflow.export.columns import (
    CALL_COLOURS,
    LAYER_COLOURS,
    NOT_SCORED,
    aligned,
    call_words,
    layer_words,
    safe_names,
)

EXPORT = Export("{section}.h5ad", opens="scanpy, squidpy, cellxgene")


def write(section, path) -> None:
    """The section with its results, as AnnData, with the layout that cellxgene needs.

    cellxgene shows float32 layouts whose name begins with `X_`, with y upwards: `obsm["X_tissue"]`.
    """
    frames = section.scores, section.calls, section.provenance
    around = section.rim_um, section.layer
    table = section_h5ad(section.spots, *frames, *section.picture, section.sd, section.probability, *around)
    names = safe_names(section.verdicts)
    said = {names[run]: one for run, one in section.verdicts.items() if one.verdict}
    table.uns["ctrflow"]["verdict"] = {name: one.verdict for name, one in said.items()}
    table.uns["ctrflow"]["evidence"] = {name: " ".join(one.evidence) for name, one in said.items()}
    table.uns["ctrflow"]["outside"] = {name: "; ".join(one.outside) for name, one in said.items() if one.outside}
    table.obsm["X_tissue"] = (table.obsm["spatial"] * [1, -1]).astype(np.float32)
    storage.write_h5ad(table, path)


def section_h5ad(
    spots,
    scores,
    calls,
    provenance: dict | None = None,
    thumbnail=None,
    thumbnail_scale: float = 0.0,
    sd=None,
    probability=None,
    rim_um=None,
    layer=None,
):
    """A copy of the section with its results.

    Parameters
    ----------
    spots : AnnData, see the section contract
    scores, calls : frames by run (see `ctrflow.export`)
    provenance : plain dict stored in `uns["ctrflow"]` (study, versions, seeds ...)
    thumbnail, thumbnail_scale : (h x w x 3) uint8 and its px per full-resolution px, or None
    sd, probability, rim_um, layer : frames by run, or None

    Returns
    -------
    AnnData with, for each run, `obs["score_<name>"]` (float), `obs["sd_<name>"]` and `obs["probability_<name>"]`
    (float, if the run has them) and `obs["call_<name>"]` (category cancer / other, and "not scored" where that occurs:
    cellxgene and napari show no category with missing values); with `rim_um` and `layer` also `obs["rim_um_<name>"]`
    (float) and `obs["layer_<name>"]` (category, never missing); `uns["ctrflow"]["runs"]` maps each name to its run;
    `uns["spatial"]` is in scanpy's layout.

    Raises
    ------
    InputError
        if the frames have other spots than the section.
    """
    import pandas as pd

    section = spots.uns["section"]
    scores, calls = aligned(scores, spots, "scores"), aligned(calls, spots, "calls")
    sd = aligned(scores[[]] if sd is None else sd, spots, "sd")
    probability = aligned(scores[[]] if probability is None else probability, spots, "probability")
    rim_um = aligned(scores[[]] if rim_um is None else rim_um, spots, "distances")
    layer = aligned(scores[[]] if layer is None else layer, spots, "layers")
    names = safe_names(dict.fromkeys([*scores.columns, *calls.columns]))
    result = spots.copy()
    for run, name in names.items():
        if run in scores:
            result.obs[f"score_{name}"] = scores[run].to_numpy(dtype=float)
        if run in sd:
            result.obs[f"sd_{name}"] = sd[run].to_numpy(dtype=float)
        if run in probability:
            result.obs[f"probability_{name}"] = probability[run].to_numpy(dtype=float)
        if run in calls:
            words = call_words(calls[run]).to_numpy()
            kinds = [word for word in CALL_COLOURS if word != NOT_SCORED or word in words]
            result.obs[f"call_{name}"] = pd.Categorical(words, categories=kinds)
            result.uns[f"call_{name}_colors"] = [CALL_COLOURS[word] for word in kinds]
        if run in rim_um:
            result.obs[f"rim_um_{name}"] = rim_um[run].to_numpy(dtype=float)
        if run in layer:
            result.obs[f"layer_{name}"] = layer_words(layer[run])
            kinds = result.obs[f"layer_{name}"].cat.categories
            result.uns[f"layer_{name}_colors"] = [LAYER_COLOURS[word] for word in kinds]
    result.uns["ctrflow"] = {
        "runs": {name: str(run) for run, name in names.items()},
        "score": "mean over seeds; higher = more cancer-like",
        **(
            {"sd": "population sd of the score over seeds, shifts of the whole section aside"}
            if len(sd.columns)
            else {}
        ),
        "call": "cancer by label-free threshold, probability and verdict; what taught the run, as it was drawn",
        **({"rim_um": "distance to the rim of the called tumour, µm, negative inside"} if len(rim_um.columns) else {}),
        **(provenance or {}),
    }
    factors = {"spot_diameter_fullres": section["spot_um"] / section["um_per_px"]}
    images = {}
    if thumbnail is not None:
        factors["tissue_hires_scalef"], images["hires"] = thumbnail_scale, thumbnail
    library = safe_names([section["section"]])[section["section"]]  # a "/" would create a group in the file
    result.uns["spatial"] = {library: {"scalefactors": factors, "images": images}}
    return result
