"""Calls and verdicts of all sections of a score table."""

from dataclasses import dataclass

import numpy as np

from ctrflow.results import threshold, verdict
from ctrflow.results.scores import as_drawn


@dataclass(frozen=True, eq=False)
class Called:
    """The calls of a section's spots.

    calls : (n,) 1 tumour, 0 not
    mixture : (n,) those of the threshold alone, as in the papers
    threshold, verdict : `Threshold`, `verdict.Verdict`
    """

    calls: np.ndarray
    mixture: np.ndarray
    threshold: object
    verdict: object


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
        of = spots[section]
        one = call_section(
            group["score"].to_numpy(),
            group["probability"].to_numpy(dtype=float),
            np.asarray(of.obsm["spatial"])[of.obs_names.get_indexer(group["spot"])],
            facts[section],
            kind,
            group["drawn"] if "drawn" in group else None,
        )
        table.loc[rows, "call"], table.loc[rows, "call_mixture"] = one.calls, one.mixture
        fits[section], found[section] = one.threshold, one.verdict
    return table, fits, found


def call_section(score, probability, place, facts, kind: str, drawn=None) -> Called:
    """Call the spots of one section and say what that means for the section.

    Parameters
    ----------
    score : (n,)
    probability : (n,), NaN throughout where there is none
    place : (n, 2) positions, in any unit
    facts : `verdict.Facts` of the section
    kind : of threshold
    drawn : (n,) 1, 0, NaN where the section was drawn on, else None
    """
    fitted = threshold.fit(score, kind)
    mixture = fitted.call(score)
    if np.isnan(probability).all():
        probability = None
    called = verdict.call(mixture, probability, facts)
    if drawn is not None:
        called = as_drawn(called, drawn)
    piece = verdict.largest_piece(place, called)
    return Called(called, mixture, fitted, verdict.judge(facts, called, probability, piece))
