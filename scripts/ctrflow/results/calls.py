"""Calls and verdicts of all sections of a score table."""

import numpy as np

from ctrflow.results import threshold, verdict
from ctrflow.results.scores import as_drawn


def call_sections(scores, facts: dict, spots: dict, kind: str = "mixture") -> tuple:
    """Call the spots of each section.

    Parameters
    ----------
    scores : frame of section, spot, score, probability (NaN without one), and drawn (1, 0, NaN) where a drawing in the
        section taught the method
    facts : section -> `verdict.Facts`
    spots : section -> AnnData of the section contract; X is not read
    kind : of threshold, that of the method's SPEC

    Returns
    -------
    (table, thresholds, verdicts): scores with the columns `call` and `call_mixture` (that of the threshold alone, as in
    the papers); section -> Threshold; section -> Verdict
    """
    table = scores.assign(call=0, call_mixture=0)
    fits, found = {}, {}
    for section, group in scores.groupby("section", sort=False):
        rows = (table["section"] == section).to_numpy()
        fits[section] = threshold.fit(group["score"].to_numpy(), kind)
        mixture = fits[section].call(group["score"].to_numpy())
        probability = group["probability"].to_numpy(dtype=float)
        probability = None if np.isnan(probability).all() else probability
        called = verdict.call(mixture, probability, facts[section])
        if "drawn" in group:
            called = as_drawn(called, group["drawn"])
        table.loc[rows, "call"], table.loc[rows, "call_mixture"] = called, mixture
        of = spots[section]
        place = np.asarray(of.obsm["spatial"])[of.obs_names.get_indexer(group["spot"])]
        piece = verdict.largest_piece(place, called)
        found[section] = verdict.judge(facts[section], called, probability, piece)
    return table, fits, found
