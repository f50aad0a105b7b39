"""The level of a section: a score that says whether there is a tumour, where a map says where.

Most methods scale each section by itself, which takes away what all of its spots have in common, and with it whether
any of them is cancer. The level keeps it: a logistic regression on log-normalised expression, averaged over a spot and
its neighbours, in units of the training patients. It is learned once for a fold, whatever the method. A section's peak
(the level of its most cancer-like spots) is compared with those of training sections and of their tumour-free crops,
each scored by a level that has not seen the patient (docs/trust.md).
"""

import logging
from dataclasses import dataclass

import numpy as np

from ctrflow.features.blocks import in_blocks, section_rows
from ctrflow.features.neighbours import nearest
from ctrflow.trust.held_out import held_out

logger = logging.getLogger(__name__)

NEIGHBOURS = 6  # averaged with a spot, as in `linear`
C = 1e-3  # inverse ridge strength (docs/trust.md has 1e-4)
MOST_SPOTS = 20_000  # learned from; more change nothing and need memory
PEAK = 98  # percentile of a section's level; with 95, a section with 5 % of tumour would have none (docs/trust.md)
LEAST_SD = 1e-6
NAMES = ("level.weights", "level.mean", "level.sd", "level.intercept")
HELD_OUT = ("held_out.full", "held_out.crop")


@dataclass(frozen=True)
class HeldOutSection:
    """A training section or crop, scored by a level that was learned without its patient.

    tumour : whether a spot of it is labelled cancer
    peak : the level of its most cancer-like spots
    structure : Moran's I of the level, see `score`
    """

    section: str
    patient: str
    tumour: bool
    peak: float
    structure: float


def fit(train) -> dict[str, np.ndarray]:
    """The tensors of a level learned from the labelled spots of a training table.

    Mean and sd of a gene are averaged over patients, so that no patient's share of cancer becomes the origin.

    Raises
    ------
    ValueError
        if the labels are of one class.
    """
    from sklearn.linear_model import LogisticRegression

    labels = train.obs["label"].to_numpy(dtype=float)
    rows = _drawn(train.obs["section"].to_numpy(), labels)
    features = pooled(train, rows)
    mean, sd = _of_patients(features, train.obs["patient"].to_numpy()[rows])
    regression = LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
    regression.fit((features - mean) / sd, labels[rows].astype(int))
    values = regression.coef_.ravel(), mean, sd, regression.intercept_
    return {name: np.asarray(value, dtype=np.float32) for name, value in zip(NAMES, values, strict=True)}


def score(view, tensors: dict) -> tuple[np.ndarray, dict[str, float]]:
    """The level of each spot (logit), and the structure of each section.

    The level is that of the averaged expression, averaged again over the spot and its neighbours. A gene without a
    count in a section has no effect there, as it may not be measured. The structure is Moran's I of the level of single
    spots with their six neighbours: near 0 where positions or values are mixed up.
    """
    levels, structure = np.empty(view.n_obs), {}
    for rows, around, table in _sections(view):
        weights, constant = _linear(table, tensors)
        logits = np.empty(len(rows))
        for block in in_blocks(np.arange(len(rows))):  # averages have several times as many values
            logits[block] = _averaged(table, around[block]) @ weights + constant
        levels[rows] = logits[around].mean(axis=1)
        structure[str(view.obs["section"].iloc[rows[0]])] = _moran(table @ weights, around)
    return levels, structure


def _moran(values: np.ndarray, around: np.ndarray) -> float:
    centred = values - values.mean()
    total = centred @ centred
    return float(centred @ centred[around[:, 1:]].mean(axis=1) / total) if total > 0 else 0.0


def peaks(view, levels: np.ndarray) -> dict[str, float]:
    """Section -> its peak."""
    sections = view.obs["section"].to_numpy()
    return {str(sections[rows[0]]): float(np.percentile(levels[rows], PEAK)) for _, rows in section_rows(sections)}


def held_out_levels(train) -> tuple[dict[str, np.ndarray], list[HeldOutSection]]:
    """The level of every patient's spots, learned from the other patients.

    Returns
    -------
    (levels, sections): `held_out.full` and `held_out.crop`, (spots of `train`,) float32, the level of a spot in its
    section and in its crop, NaN where there is none; and a line for each section and crop
    """
    levels = {name: np.full(train.n_obs, np.nan, dtype=np.float32) for name in HELD_OUT}
    lines = []
    for one in held_out(train):
        tensors = fit(one.rest)
        values, alike = score(one.sections, tensors)
        for name, part in zip(HELD_OUT, (~one.crop, one.crop), strict=True):
            levels[name][one.rows[part]] = values[part]
        names = one.sections.obs["section"].to_numpy()
        for name, peak in peaks(one.sections, values).items():
            tumour = bool((one.labels[names == name] == 1).any())
            lines.append(HeldOutSection(name, one.patient, tumour, peak, alike[name]))
        logger.info("level of patient %s by the others", one.patient)
    return levels, lines


def split(tensors: dict) -> tuple[dict, dict]:
    """The tensors of the level, and the levels of held-out spots, of a level file."""
    return {name: tensors[name] for name in NAMES}, {name: tensors[name] for name in HELD_OUT}


def pooled(view, rows: np.ndarray) -> np.ndarray:
    """(rows x genes) float32: log of the mean expression of a spot and its neighbours, each spot counting the same."""
    result = np.empty((len(rows), view.n_vars), dtype=np.float32)
    place = np.full(view.n_obs, -1)
    place[rows] = np.arange(len(rows))
    for own, around, table in _sections(view):
        wanted = np.flatnonzero(place[own] >= 0)
        if len(wanted):
            result[place[own[wanted]]] = _averaged(table, around[wanted]).toarray()
    return result


def _sections(view):
    """Rows, neighbours (rows within the section) and expression of each section."""
    for _, rows in section_rows(view.obs["section"].to_numpy()):
        yield rows, nearest(np.asarray(view.obsm["spatial"])[rows], NEIGHBOURS), view.X[rows]


def _averaged(table, around: np.ndarray):
    """Sparse log1p of the mean of expm1 over each row of `around`."""
    from scipy import sparse

    n, k = around.shape
    mean = sparse.csr_matrix((np.full(n * k, 1 / k, np.float32), around.ravel(), np.arange(0, n * k + 1, k)),
                             shape=(n, table.shape[0]))  # fmt: skip
    return (mean @ sparse.csr_matrix(table).expm1()).log1p()


def _linear(table, tensors: dict) -> tuple[np.ndarray, float]:
    """Weights for log expression, 0 for genes without a count, and the constant."""
    weights = np.asarray(tensors["level.weights"], dtype=np.float64) / tensors["level.sd"]
    seen = np.asarray((table > 0).sum(axis=0)).ravel() > 0
    weights = np.where(seen, weights, 0.0)
    return weights, float(tensors["level.intercept"][0]) - float(weights @ tensors["level.mean"])


def _drawn(sections: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The labelled rows, at most `MOST_SPOTS` of them, spread evenly over each section."""
    known = np.flatnonzero(~np.isnan(labels))
    parts = [known[rows] for _, rows in section_rows(sections[known])]
    step = max(1, -(-len(known) // MOST_SPOTS))
    return np.sort(np.concatenate([rows[::step] for rows in parts]))


def _of_patients(features: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each feature, averaged over patients."""
    groups = [features[patients == name] for name in dict.fromkeys(patients)]
    mean = np.mean([group.mean(axis=0, dtype=np.float64) for group in groups], axis=0)
    sd = np.sqrt(np.mean([group.var(axis=0, dtype=np.float64) for group in groups], axis=0))
    return mean.astype(np.float32), np.where(sd > LEAST_SD, sd, 1).astype(np.float32)
