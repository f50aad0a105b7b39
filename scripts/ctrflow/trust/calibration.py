"""The probability of cancer of each spot, from scores of patients that a method was not trained on.

logit p = a u + b v + c: u is the distance of a spot's score from the label-free threshold of its section, in sd of the
section's scores (the contrast: where), and v the level of the spot, which is comparable between sections (whether).
a, b, c are those of a logistic regression on the source patients, each scored by a model of the others, full sections
and their tumour-free crops: Platt scaling (1999) with the level as second variable.
"""

import logging
from collections.abc import Callable

import numpy as np

from ctrflow.features.blocks import section_rows
from ctrflow.results import threshold
from ctrflow.trust.held_out import held_out

logger = logging.getLogger(__name__)

LEAST_PATIENTS = 2  # that can be held out: with one, a patient's oddities would be taken for everyone's
SATURATED = 1e-6  # scores of a network end at 0 and 1, where the logit is infinite
KEYS = ("contrast", "level", "intercept")
LEAST_SD = 1e-9


def contrast(scores: np.ndarray, sections: np.ndarray, kind: str = "mixture") -> np.ndarray:
    """How far each score lies above its section's threshold, in sd of the section's scores.

    Scores within [0, 1] are taken as logits. A section of equal scores has 0.

    Parameters
    ----------
    scores : (spots,)
    sections : (spots,) section ids
    kind : of threshold, that of the method's SPEC
    """
    scores = np.asarray(scores, dtype=np.float64)
    unit = bool(scores.min() >= 0 and scores.max() <= 1)
    result = np.zeros(len(scores))
    for _, rows in section_rows(np.asarray(sections)):
        limit = threshold.fit(scores[rows], kind).threshold
        if limit is None:
            continue
        values = _logit(scores[rows]) if unit else scores[rows]
        limit = float(_logit(np.array([limit]))[0]) if unit else limit
        spread = values.std()
        result[rows] = (values - limit) / spread if spread > 0 else 0.0
    return result


def fit(train, levels: dict, model_of: Callable, kind: str = "mixture", needs_image: bool = False) -> dict:
    """The coefficients of the probability, learned from held-out patients; {} with the reason logged.

    Parameters
    ----------
    train : labelled training table of a fold
    levels : of its spots (`level.held_out_levels`)
    model_of : training table -> model with `score(target)`
    kind : of threshold
    needs_image : whether sections without a picture cannot be scored: they are then trained on alone

    Returns
    -------
    dict of contrast, level, intercept; and patients, those held out
    """
    usable = np.isfinite(np.asarray(train.obsm["image"])[:, 0]) if needs_image else None
    parts, patients = [], []
    for one in held_out(train, usable):
        sections = one.sections.obs["section"].to_numpy().astype(str)
        scores = np.asarray(model_of(one.rest).score(one.sections), dtype=np.float64)
        level = np.where(one.crop, levels["held_out.crop"][one.rows], levels["held_out.full"][one.rows])
        known = ~np.isnan(one.labels) & np.isfinite(level)
        if not known.any() or not np.isfinite(scores).all():
            logger.warning("calibration: patient %s has no labelled spot or no finite scores", one.patient)
            continue
        logger.info("calibration: patient %s scored by a model of the others", one.patient)
        features = np.column_stack([contrast(scores, sections, kind), level])
        parts.append((features[known], one.labels[known], sections[known]))
        patients.append(one.patient)
    if len(patients) < LEAST_PATIENTS:
        logger.warning("no probability: %d patients could be held out, %d are needed", len(patients), LEAST_PATIENTS)
        return {}
    features, labels, _ = map(np.concatenate, zip(*parts, strict=True))
    found = _regressed(features, labels, _weights([sections for *_, sections in parts]))
    return found | {"patients": patients} if found else {}


def probability(calibration: dict, scores, sections, level: np.ndarray, kind: str = "mixture") -> np.ndarray:
    """The probability of each spot.

    Parameters
    ----------
    calibration : of the model file (`fit`)
    scores, sections, level : (spots,)
    kind : of threshold
    """
    from scipy.special import expit

    slope, of_level, constant = (calibration[key] for key in KEYS)
    return expit(slope * contrast(scores, sections, kind) + of_level * level + constant)


def _weights(patients: list[np.ndarray]) -> np.ndarray:
    """Weights of all spots, given the section of each spot of each patient: every patient counts the same, and so does
    every section of a patient; their sum is the number of sections."""
    found = [np.unique(sections, return_inverse=True, return_counts=True) for sections in patients]
    mean = np.mean([len(names) for names, _, _ in found])
    return np.concatenate([mean / (len(names) * spots[place]) for names, place, spots in found])


def _regressed(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict:
    """Coefficients of a logistic regression with a ridge beside which a section is one observation, so that a few
    patients are not taken for thousands of spots."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        logger.warning("no probability: the spots of held-out patients are of one class")
        return {}
    mean, sd = features.mean(axis=0), np.maximum(features.std(axis=0), LEAST_SD)
    regression = LogisticRegression(C=1.0).fit((features - mean) / sd, labels.astype(int), sample_weight=weights)
    slopes = regression.coef_.ravel() / sd
    if slopes[0] <= 0:
        logger.warning("no probability: held-out patients have lower scores where there is cancer")
        return {}
    values = [*slopes, regression.intercept_[0] - slopes @ mean]
    return dict(zip(KEYS, map(float, values), strict=True))


def _logit(values: np.ndarray) -> np.ndarray:
    clipped = np.clip(values, SATURATED, 1 - SATURATED)
    return np.log(clipped / (1 - clipped))
