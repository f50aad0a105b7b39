"""How good a map taught by a drawing is, from the drawing alone; and where the next stroke would tell most.

Cross-validation over blocks: the drawn spots of each class are divided into compact blocks; a block of each is held
out, the rest teaches, and the held spots are scored. Neighbours of a held spot do not teach. It is right on average,
and rough for a single drawing (docs/within.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctrflow.classes import CLASSES
from ctrflow.features import drawn
from ctrflow.results import metrics, threshold
from ctrflow.within import regions, teach

BLOCKS = 4
SHARES = (0.05, 0.1, 0.2, 0.5)  # of the drawn spots, for the learning curve
FEW_REGIONS = 3  # of a class: fewer show little of how it varies
MOST_SPOTS = 20_000  # with more, a curve would take hours
NEXT_SHARE = 0.1  # of the spots that may be drawn next, those on which the blocks disagree most


@dataclass(frozen=True)
class Drawing:
    """A view of a section with what is drawn in it, and how a method learns from it.

    view : of one section, with obs["prior"] on top of a model
    labels : (spots,) 1, 0, NaN = not drawn
    learn : view -> (spots,) scores
    kind : of the method's threshold
    """

    view: object
    labels: np.ndarray
    learn: Callable
    kind: str

    @cached_property
    def beside(self):
        """Which spots lie beside each other; each of some twenty trainings needs it."""
        return drawn.adjacency(self.view.obsm["spatial"])

    def taught_by(self, labels: np.ndarray) -> np.ndarray:
        """The scores if these labels alone are drawn."""
        near = drawn.near(labels, self.beside).astype(int)
        table = {"spot": self.view.obs["spot"].to_numpy(), "label": labels, "near": near}
        return np.asarray(self.learn(teach.labelled(self.view, _frame(table))), dtype=float)


def estimate(drawing: Drawing) -> tuple[dict, np.ndarray]:
    """What the drawing itself says about the map that it teaches.

    Returns
    -------
    (facts, disagreement): facts of spots and regions drawn of each class, blocks, auc (mean over blocks; None unless
    both classes are drawn), balanced_accuracy, found (share of held cancer spots that are called), spared (share of
    held other spots that are not; None for a class that is not drawn), caveat, and curve, a list of dict(share, auc,
    balanced_accuracy); (spots,) the sd of the scores' ranks (0 to 1) over blocks, 0 with fewer than two
    """
    from scipy.stats import rankdata

    labels, spatial_px = drawing.labels, np.asarray(drawing.view.obsm["spatial"], dtype=float)
    number = drawn.numbered(labels, drawing.beside)
    counts = {word: int((labels == value).sum()) for value, word in CLASSES.items()}
    of = {word: len(set(number[labels == value])) for value, word in CLASSES.items()}
    facts = {"spots": counts, "regions": of, "blocks": 0, "caveat": "", "curve": []}
    block = blocks(labels, spatial_px)
    held_out = [block == one for one in range(int(block.max()) + 1)]
    if len(held_out) < 2:
        facts["caveat"] = "too little is drawn to hold a part of it out; draw more regions"
        return facts | _judged([]), np.zeros(len(labels))
    rounds = [_held(drawing, held) for held in held_out]
    facts |= {"blocks": len(rounds)} | _judged(rounds)
    least = min(found for word, found in of.items() if counts[word])
    if least < FEW_REGIONS:
        facts["caveat"] = f"fewer than {FEW_REGIONS} regions of a class are drawn: they show little of how it varies"
    if drawing.view.n_obs <= MOST_SPOTS:
        facts["curve"] = [{"share": share} | _curve_point(drawing, held_out, share) for share in SHARES]
        facts["curve"].append({"share": 1.0} | {key: facts[key] for key in ("auc", "balanced_accuracy")})
    ranks = np.array([rankdata(scores) / len(scores) for scores, *_ in rounds])
    return facts, ranks.std(axis=0)


def blocks(labels: np.ndarray, spatial_px: np.ndarray) -> np.ndarray:
    """The block of each drawn spot, -1 where nothing is drawn: both classes in as many compact blocks, at most
    `BLOCKS`, of two spots or more on average."""
    from sklearn.cluster import KMeans

    rows = {value: np.flatnonzero(labels == value) for value in CLASSES if (labels == value).any()}
    count = min([BLOCKS, *(len(own) // 2 for own in rows.values())])
    found = np.full(len(labels), -1)
    if count < 2:
        return found
    for own in rows.values():
        found[own] = KMeans(count, n_init=10, random_state=0).fit_predict(spatial_px[own])
    return found


def draw_next(spots, labels: np.ndarray, disagreement: np.ndarray, most: int = 5) -> list[tuple]:
    """The regions to look at next: (polygon in px, rows of its spots), by falling disagreement in all; [] without any.

    Parameters
    ----------
    spots : AnnData of the section contract
    labels : (spots,) what is drawn
    disagreement : (spots,) of `estimate`
    """
    from ctrflow.export.regions import find_regions, tessellate

    free = ~drawn.near(labels, drawn.adjacency(spots.obsm["spatial"]))
    if not (free.any() and disagreement[free].max() > 0):
        return []
    chosen = free & (disagreement >= np.quantile(disagreement[free], 1 - NEXT_SHARE))
    found = find_regions(tessellate(spots.obsm["spatial"]), chosen)
    return sorted(found, key=lambda region: -disagreement[region[1]].sum())[:most]


def _held(drawing: Drawing, held: np.ndarray, share: float = 1.0) -> tuple:
    """Scores of all spots, and truth, scores and calls of the held ones, taught by (a share of) the rest."""
    rest = np.where(drawn.near(np.where(held, 1.0, np.nan), drawing.beside), np.nan, drawing.labels)
    # a class whose every spot lies beside a held one is taught by those
    for value in CLASSES:
        if (drawing.labels == value).any() and not (rest == value).any():
            rest[(drawing.labels == value) & ~held] = value
    if share < 1:
        rest = regions.part(rest, drawing.view.obsm["spatial"], share)
    scores = drawing.taught_by(rest)
    calls = threshold.fit(scores, drawing.kind).call(scores)
    return scores, drawing.labels[held] == 1, scores[held], calls[held] == 1


def _curve_point(drawing: Drawing, held_out: list[np.ndarray], share: float) -> dict:
    found = _judged([_held(drawing, held, share) for held in held_out])
    return {key: found[key] for key in ("auc", "balanced_accuracy")}


def _judged(rounds: list[tuple]) -> dict:
    """AUC, balanced accuracy and the shares of both classes that are right, of held spots."""
    nothing = dict.fromkeys(("auc", "balanced_accuracy", "found", "spared"))
    if not rounds:
        return nothing
    truth, calls = (np.concatenate([one[place] for one in rounds]) for place in (1, 3))
    both = [metrics.auc(one[1], one[2]) for one in rounds if one[1].any() and not one[1].all()]
    shares = {"found": float(calls[truth].mean())} if truth.any() else {}
    shares |= {"spared": float(1 - calls[~truth].mean())} if not truth.all() else {}
    mean = float(np.mean(list(shares.values()))) if len(shares) == 2 else None
    return nothing | shares | {"auc": float(np.mean(both)) if both else None, "balanced_accuracy": mean}


def _frame(columns: dict):
    import pandas as pd

    return pd.DataFrame(columns)
