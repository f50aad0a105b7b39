"""Summary numbers of a section's results, for a spreadsheet."""

import numpy as np

from ctrflow import storage
from ctrflow.export import Export
from ctrflow.export.columns import aligned_values
from ctrflow.export.regions import find_regions, section_regions, tessellate
from ctrflow.rim.layers import LAYERS
from ctrflow.scale.lattice import spot_area_mm2

EXPORT = Export("{section}.summary.tsv", opens="a spreadsheet")


def write(section, path) -> None:
    """The summary of each run."""
    table = summary_table(section.spots, section.scores, section.calls, section.sd, section.regions)
    mean = [section.probability[run].mean() if run in section.probability else float("nan") for run in table["run"]]
    said = [section.verdicts[run] for run in table["run"]]
    table.insert(1, "verdict", [one.verdict for one in said])
    if section.layer is not None:
        table = table.assign(**spots_of_layers(section.layer[table["run"]]))
    table = table.assign(
        mean_probability=mean,
        evidence=[" ".join(one.evidence) for one in said],
        outside=["; ".join(one.outside) for one in said],
        caution=section.provenance.get("caution", ""),
    )
    storage.write_tsv(table, path)


def summary_row(spots, score, call, sd=None, regions=None, spot_mm2: float | None = None) -> dict:
    """The summary of one run on one section.

    Parameters
    ----------
    spots : AnnData, see the section contract
    score, call : Series of one run with the spot ids as index
    sd : as `score`, or None
    regions, spot_mm2 : those of `call` from `find_regions`, and `spot_area_mm2`; computed if None

    Returns
    -------
    dict of section, spots, scored, called, share (called of the scored spots), regions (separate foci), perimeter_um
    (of all of them, as drawn, holes and the edge of the tissue included), area_mm2 (called spots x the array area per
    spot), tissue_mm2 (the same for scored spots), mean_score (scored spots), mean_score_called (NaN if nothing is
    called) and, if `sd` is given, mean_sd (scored spots).
    """
    section = spots.uns["section"]
    score, call = (aligned_values(values, spots) for values in (score, call))
    sd = None if sd is None else aligned_values(sd, spots)
    called, scored = call == 1, np.isfinite(score)
    spatial_px = spots.obsm["spatial"]
    spot_mm2 = spot_area_mm2(spatial_px, section["um_per_px"]) if spot_mm2 is None else spot_mm2
    regions = find_regions(tessellate(spatial_px), called) if regions is None else regions
    row = {
        "section": section["section"],
        "spots": len(call),
        "scored": int(scored.sum()),
        "called": int(called.sum()),
        "share": float(called.sum() / scored.sum()) if scored.any() else float("nan"),
        "regions": len(regions),
        "perimeter_um": float(sum(shape.length for shape, _ in regions) * section["um_per_px"]),
        "area_mm2": float(called.sum() * spot_mm2),
        "tissue_mm2": float(scored.sum() * spot_mm2),
        "mean_score": float(score[scored].mean()) if scored.any() else float("nan"),
        "mean_score_called": float(score[called & scored].mean()) if (called & scored).any() else float("nan"),
    }
    if sd is None:
        return row
    return row | {"mean_sd": float(sd[scored].mean()) if scored.any() else float("nan")}


def spots_of_layers(layer) -> dict:
    """`spots_core`, `spots_inner_rim` ...: how many spots of each layer each run (column) has."""
    return {f"spots_{name.replace(' ', '_')}": (layer == name).sum().to_numpy() for name in LAYERS}


def summary_table(spots, scores, calls, sd=None, regions=None):
    """`summary_row` of each run of a section: a frame with the run's name in the column `run`.

    `regions` are those of every run from `section_regions`; computed if None.
    """
    import pandas as pd

    sd = scores[[]] if sd is None else sd
    regions = section_regions(spots, calls) if regions is None else regions
    spot_mm2 = spot_area_mm2(spots.obsm["spatial"], spots.uns["section"]["um_per_px"])
    rows = [
        {"run": run, **summary_row(spots, scores[run], calls[run], sd.get(run), regions[run], spot_mm2)}
        for run in scores.columns
    ]
    return pd.DataFrame(rows)
