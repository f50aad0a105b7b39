"""The chance that a section has tumour, learned from held-out training sections and their tumour-free crops."""

import numpy as np

from ctrflow.results.verdict import Gate
from ctrflow.trust.level import HeldOutSection


def learn(sections: list[HeldOutSection]) -> Gate | None:
    """The gate; None without sections of both kinds, or if those with tumour do not have the higher peaks.

    Targets are Platt's (1999), softened by the number of patients, not of sections, as serial sections of a patient
    repeat each other; every patient counts the same on each side. So a gate that separates all training sections
    remains cautious.
    """
    from scipy.optimize import minimize

    tumour = np.array([one.tumour for one in sections], dtype=bool)
    if not len(tumour) or tumour.all() or not tumour.any():
        return None
    values, patients = np.array([one.peak for one in sections]), np.array([one.patient for one in sections])
    target, weight = np.empty(len(values)), np.empty(len(values))
    for side in (True, False):
        names, place, counts = np.unique(patients[tumour == side], return_inverse=True, return_counts=True)
        share = (len(names) + 1) / (len(names) + 2)
        target[tumour == side] = share if side else 1 - share
        weight[tumour == side] = 1 / (len(names) * counts[place])

    def loss(point: np.ndarray) -> float:
        logits = point[0] * values + point[1]
        return float(weight @ (np.logaddexp(0, logits) - target * logits))

    slope, intercept = minimize(loss, np.array([1.0, 0.0])).x
    if slope <= 0:
        return None
    ends = [(float(values[tumour == side].min()), float(values[tumour == side].max())) for side in (True, False)]
    counts = int(tumour.sum()), int((~tumour).sum())
    structure = min(one.structure for one in sections if one.tumour)
    return Gate(float(slope), float(intercept), *ends, counts, float(structure), len(set(patients)))
