"""Whether a section's picture looks like those that a model learned from: stain, scanner, focus.

Compared are the means of image features over a section, in sd of the spots of the training patients.
"""

import numpy as np

NAMES = ("profile.image_mean", "profile.image_sd")
LEAST_SD = 1e-6
# as many times farther than the farthest training patient is from the others is flagged (docs/trust.md)
FARTHER = 1.2


def fit(train) -> tuple[dict[str, np.ndarray], list[float]]:
    """The profile of the training sections' pictures, and the distance of each patient from the others.

    Sections without a picture, whose image features are NaN, are left out; no distance with a single patient.
    """
    features = np.asarray(train.obsm["image"], dtype=np.float64)
    have = np.isfinite(features[:, 0])
    if not have.any():
        return {}, []
    patients = train.obs["patient"].to_numpy()
    groups = [features[have & (patients == name)] for name in dict.fromkeys(patients[have])]
    alone = [_profile([other for other in groups if other is not own]) for own in groups] if len(groups) > 1 else []
    distances = [_distance(own, *others) for own, others in zip(groups, alone, strict=len(groups) > 1)]
    values = (value.astype(np.float32) for value in _profile(groups))
    return dict(zip(NAMES, values, strict=True)), distances


def distance(section, tensors: dict) -> float:
    """The root mean square over features of how far a section's mean lies from that of the training patients, in sd."""
    return _distance(np.asarray(section.obsm["image"], dtype=np.float64), *(tensors[name] for name in NAMES))


def concern(section, tensors: dict, among: list[float]) -> list[str]:
    """A sentence if the picture is unlike those of the training sections, which lie `among` each other so far apart."""
    if NAMES[0] not in tensors or "image" not in section.obsm or not among:
        return []
    found = distance(section, tensors)
    if found <= FARTHER * max(among):
        return []
    return [
        f"its picture (stain, scanner, focus) is {found:.1f} sd from those of the training sections, these at most "
        f"{max(among):.1f} from each other"
    ]


def _profile(groups: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    sd = np.sqrt(np.mean([group.var(axis=0) for group in groups], axis=0))
    return np.mean([group.mean(axis=0) for group in groups], axis=0), np.where(sd > LEAST_SD, sd, 1.0)


def _distance(features: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> float:
    return float(np.sqrt(np.mean(((features.mean(axis=0) - mean) / sd) ** 2)))
