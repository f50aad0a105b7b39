"""Views for methods that learn from what is drawn in the section that they score."""

import logging

import numpy as np

from ctrflow.errors import InputError
from ctrflow.trust.calibration import contrast

logger = logging.getLogger(__name__)

# of the spots farthest on the other side of a model's threshold, where one class alone is drawn
WEAK_SHARE = 0.1
WRONG = 0.65  # AUC on what is drawn below which a model is doubted (docs/within.md)
WORDS = {1: "cancer", 0: "other tissue"}


def of_seed(drawn, seed: int):
    """What is drawn for a seed: all, where a person drew it."""
    return drawn[drawn["seed"] == seed] if "seed" in drawn else drawn


def of_spots(drawn, spots):
    """What is drawn, in the order of these spots; all of them must be in it."""
    return drawn.set_index(drawn["spot"].astype(str)).loc[spots.astype(str)]


def prior(view, tables: list, kind: str) -> np.ndarray:
    """The scores of a model from elsewhere for the spots of a view: the mean over its seeds of the contrast, in sd
    above its threshold (`calibration.contrast`).

    Parameters
    ----------
    view : of one section
    tables : the score tables (section, spot, score) of the model's seeds
    kind : of the model's threshold
    """
    section, names = view.obs["section"].iloc[0], view.obs["spot"].to_numpy()
    found = []
    for table in tables:
        rows = table[table["section"] == section]
        scores = rows.set_index(rows["spot"].astype(str))["score"].reindex(names).to_numpy(dtype=float)
        if np.isnan(scores).any():
            raise InputError(
                f"section {section}: {int(np.isnan(scores).sum())} of its spots have no score of the model that the "
                "task builds on; delete the scores of that task and rerun"
            )
        found.append(contrast(scores, np.zeros(len(scores)), kind))
    return np.mean(found, axis=0)


def taught(view, drawn):
    """`labelled`, with a warning where a model stands in for a class."""
    view = labelled(view, drawn)
    if view.obs["weak"].any():
        missing = int(view.obs["label"][view.obs["weak"]].iloc[0])
        logger.warning(
            "section %s: nothing is drawn as %s; the %d spots that the model takes for it most stand in",
            view.obs["section"].iloc[0],
            WORDS[missing],
            view.obs["weak"].sum(),
        )
    return view


def labelled(view, drawn):
    """The view with what is drawn: obs["label"] (1, 0, NaN) and obs["weak"], labels that a model stands in for.

    Where one class alone is drawn, the tenth of the other spots that lies farthest on the other side of the model's
    threshold stands in for the other class.

    Parameters
    ----------
    view : of one section; obs["prior"] if there is a model
    drawn : frame of spot, label, near (`regions.table`), or a part of its labels

    Raises
    ------
    InputError
        if nothing is drawn, or one class alone without a model or over the whole section.
    """
    table = of_spots(drawn, view.obs["spot"])
    labels, beside = table["label"].astype(float).to_numpy(), table["near"].to_numpy() == 1
    view = view.copy()
    view.obs["label"], view.obs["weak"] = labels, False
    missing = [value for value in (1, 0) if not (labels == value).any()]
    section = f"section {view.obs['section'].iloc[0]}"
    if len(missing) == 2:
        raise InputError(f"{section}: no spot is drawn as cancer or as other tissue; draw a region of each")
    if not missing:
        return view
    if "prior" not in view.obs:
        raise InputError(
            f"{section}: nothing is drawn as {WORDS[missing[0]]}; draw a region of it too, or let the task build on a "
            "model from elsewhere (key `prior` of the study)"
        )
    if beside.all():
        raise InputError(
            f"{section}: nothing is drawn as {WORDS[missing[0]]}, and no spot is left that a model could take for it; "
            "draw a smaller part of the section, or a region of each class"
        )
    away = np.where(beside, np.inf, view.obs["prior"].to_numpy() * (1 if missing[0] == 0 else -1))
    count = min(max(2, round(WEAK_SHARE * len(labels))), int(np.isfinite(away).sum()))
    rows = np.argsort(away, kind="stable")[:count]
    view.obs.iloc[rows, view.obs.columns.get_loc("label")] = float(missing[0])
    view.obs.iloc[rows, view.obs.columns.get_loc("weak")] = True
    return view


def warn_of_disagreement(view) -> None:
    """Warn where a model from elsewhere does not tell apart what is drawn, by the view of `taught`."""
    if text := disagreement(view, np.where(view.obs["weak"], np.nan, view.obs["label"])):
        logger.warning("%s: %s", view.obs["section"].iloc[0], text)


def disagreement(view, labels: np.ndarray) -> str:
    """That the model in obs["prior"] does not tell apart what is drawn, (spots,) 1, 0, NaN; "" if it does, or there is
    none."""
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(labels)
    if "prior" not in view.obs or len(set(labels[known])) < 2:
        return ""
    agreement = roc_auc_score(labels[known] == 1, view.obs["prior"].to_numpy()[known])
    if agreement >= WRONG:
        return ""
    return (
        f"the model from elsewhere does not tell apart what is drawn (AUC {agreement:.2f}): it may not be of this "
        "tissue, or the classes are exchanged"
    )


def marked(scored, drawn, learned: bool):
    """A score table with the column `near`, 1 for spots that are drawn or beside a drawn one, where no metric counts
    them, and for a method that learned from the drawing `drawn`: 1, 0, or missing.

    Parameters
    ----------
    scored : score table of one section
    drawn : frame of spot, label, near
    learned : whether the method learned from it
    """
    table = of_spots(drawn, scored["spot"])
    own = {"drawn": table["label"].astype("Int64").to_numpy()} if learned else {}
    return scored.assign(near=table["near"].to_numpy(), **own)
