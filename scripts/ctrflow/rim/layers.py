"""The layers around the rim of the called tumour, and what is in each.

From inside to outside: `core`, `inner rim`, `outer rim`, `stroma`. Inside are called spots, outside all others, so
"stroma" is whatever is not tumour and not near it: connective tissue, fat, glands, lymph follicles. The default widths
are those of the invasive margin, a zone of 1 mm centred on the border of the tumour: 500 µm either side (Hendry et al.,
Advances in Anatomic Pathology 24(5):235, 2017).
"""

import logging

import numpy as np

from ctrflow.scale.lattice import fit_lattice, spot_area_mm2

logger = logging.getLogger(__name__)

CORE, INNER, OUTER, STROMA = LAYERS = ("core", "inner rim", "outer rim", "stroma")
NO_TUMOUR = "no tumour called"
COLUMNS = ("section", "layer", "spots", "share", "area_mm2", "median_counts")


def of_section(spots, calls, rim_um, widths_um: dict):
    """The layer of every spot, by run.

    A called spot is in the core if it is deeper than the inner width, or if the run has no rim; another spot is in the
    stroma if it is farther than the outer width, or if there is no rim. Where a run calls nothing there are no layers.

    Parameters
    ----------
    spots : AnnData, see the section contract
    calls, rim_um : frames by run; `rim_um` as `distance.of_section` gives it
    widths_um : `inner` and `outer`, the widths of the two rims

    Returns
    -------
    frame (spots x runs) of one of `LAYERS`, or `NO_TUMOUR`; None where a spot has no call.
    """
    import pandas as pd

    calls = calls.reindex(spots.obs_names)
    found = {run: words(calls[run].to_numpy(), rim_um[run].to_numpy(), widths_um) for run in calls}
    return pd.DataFrame(found, index=spots.obs_names, columns=calls.columns)


def words(call: np.ndarray, rim_um: np.ndarray, widths_um: dict) -> np.ndarray:
    """The layers of one run from calls (n,) and distances (n,) in µm: (n,) of words, None without a call."""
    called = call == 1
    if not called.any():
        return np.where(np.isnan(call), None, NO_TUMOUR)
    near = np.abs(rim_um) <= np.where(called, widths_um["inner"], widths_um["outer"])  # never for NaN
    found = np.where(called, np.where(near, INNER, CORE), np.where(near, OUTER, STROMA)).astype(object)
    found[np.isnan(call)] = None
    return found


def warn_of_thin(spots, widths_um: dict) -> None:
    """Say which rims are too thin for the array: half a pitch lies between the rim and the nearest spots."""
    facts = spots.uns["section"]
    pitch_um = fit_lattice(spots.obsm["spatial"]).pitch_px * facts["um_per_px"]
    thin = [f"{name} {width:g} µm" for name, width in widths_um.items() if width < pitch_um]
    if thin:
        logger.warning(
            "section %s: layers_um: %s, but spots are %.0f µm apart: a rim holds one row of them at most, and "
            "hardly any if it is thinner than half of that",
            facts["section"],
            ", ".join(thin),
            pitch_um,
        )


def table(spots, layer):
    """What is in each layer: one row per run and layer, in the order of `LAYERS`; none for a run that calls nothing.

    Returns
    -------
    frame of run, section, layer, spots, share (of the scored spots), area_mm2 (spots x the area that one represents),
    median_counts (of all genes of a spot; NaN without spots)
    """
    import pandas as pd

    facts = spots.uns["section"]
    spot_mm2 = spot_area_mm2(spots.obsm["spatial"], facts["um_per_px"])
    counts = np.asarray(spots.X.sum(axis=1), dtype=float).ravel()
    rows = []
    for run in layer:
        of = layer[run]
        if not of.isin(LAYERS).any():
            continue
        for name in LAYERS:
            own = (of == name).to_numpy()
            median = float(np.median(counts[own])) if own.any() else float("nan")
            share = own.sum() / of.notna().sum()
            rows.append([run, facts["section"], name, int(own.sum()), share, own.sum() * spot_mm2, median])
    return pd.DataFrame(rows, columns=["run", *COLUMNS])
