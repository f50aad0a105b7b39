"""The table of a method's scores: section, spot, score."""

import numpy as np

from ctrflow.errors import InputError


def table(target, scores: np.ndarray, method: str):
    """One row per target spot, after checking that there is one finite score per spot."""
    import pandas as pd

    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (target.n_obs,):
        raise ValueError(f"method {method} gave scores of shape {scores.shape} for {target.n_obs} spots")
    bad = ~np.isfinite(scores)
    if bad.any():
        raise InputError(
            f"method {method}: {bad.sum()} of {len(scores)} scores are not finite, the first at spot "
            f"{target.obs_names[bad][0]}; "
            "training diverged: lower its learning rate or check the section's counts"
        )
    return pd.DataFrame(
        {"section": target.obs["section"].to_numpy(), "spot": target.obs["spot"].to_numpy(), "score": scores}
    )


def taught(table) -> np.ndarray:
    """Which rows of a score table are spots that were drawn to teach the run, or lie beside them: nothing is judged
    there."""
    return table["near"].to_numpy() == 1 if "near" in table else np.zeros(len(table), dtype=bool)


def as_drawn(called: np.ndarray, drawn) -> np.ndarray:
    """Calls with what a person drew in their place: a map that is taught by a drawing does not contradict it.

    Parameters
    ----------
    called : (spots,) 0 or 1
    drawn : (spots,) 1, 0, NaN
    """
    drawn = np.asarray(drawn, dtype=float)
    return np.where(np.isnan(drawn), called, drawn).astype(int)


def judged(labels: np.ndarray, spots, tables: list) -> np.ndarray:
    """The labels of a section where they may be held against its scores: NaN where something was drawn to teach one of
    the runs, or beside it.

    Parameters
    ----------
    labels : (spots,) 1, 0, NaN
    spots : their ids
    tables : score tables of the section
    """
    hidden = {spot for table in tables for spot in table["spot"][taught(table)].astype(str)}
    labels = np.asarray(labels, dtype=float)
    return np.where([str(spot) in hidden for spot in spots], np.nan, labels) if hidden else labels
