"""The spots that a method trains on: a normal reference, or the labelled spots of source sections."""

import numpy as np

from ctrflow.errors import InputError, first_few


def capped(spots: int, most: int, seed: int) -> np.ndarray:
    """The rows of the reference to train on: all, or `most` of them drawn at random, in their order.

    `most` 0 means all. Other spots stay in the graph of their section as neighbours.
    """
    if not most or spots <= most:
        return np.arange(spots)
    return np.sort(np.random.default_rng(seed).choice(spots, most, replace=False))


def require_spots(method: str, spots: int, least: int, sections=None, cure: str = "") -> None:
    """Raise an InputError if a reference has fewer than `least` spots.

    Parameters
    ----------
    sections : section ids of its spots, if the message should name them
    cure : another cure than more normal sections, appended to the message
    """
    if spots >= least:
        return
    noun = "spot" if spots == 1 else "spots"
    where = "of normal tissue to learn from, and"
    if sections is not None:
        where = f"in the normal sections {first_few(dict.fromkeys(sections))};"
    raise InputError(
        f"method {method}: {spots} {noun} {where} it needs at least {least}: name other sections under `normal` of the "
        f"study{cure}"
    )


def labelled_rows(view, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a training view (spots,) float32, 1, 0 or NaN for unknown; and the rows with known labels.

    Raises
    ------
    InputError
        if one of the classes has no spot.
    """
    labels = view.obs["label"].to_numpy(dtype=np.float32)
    rows = np.flatnonzero(~np.isnan(labels))
    missing = [kind for value, kind in ((1, "cancer"), (0, "other tissue")) if not (labels == value).any()]
    if missing:
        raise InputError(
            f"method {method}: the training sections {first_few(dict.fromkeys(view.obs['section']))} have no spot "
            f"labelled as {' or '.join(missing)}; training needs both: name other sections under `source` of the "
            "study, or label more spots"
        )
    return labels, rows
