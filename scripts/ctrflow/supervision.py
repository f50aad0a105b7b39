"""The labels that a supervised method learns from."""

import numpy as np

from ctrflow.errors import InputError, first_few


def labelled_rows(view, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a training view (spots,) float32, 1, 0 or NaN for unknown; and the rows where they are known.

    Raises
    ------
    InputError
        where one of the classes has no spot: there is nothing to tell apart.
    """
    labels = view.obs["label"].to_numpy(dtype=np.float32)
    rows = np.flatnonzero(~np.isnan(labels))
    missing = [kind for value, kind in ((1, "cancer"), (0, "other tissue")) if not (labels == value).any()]
    if missing:
        raise InputError(
            f"method {method}: the training sections {first_few(dict.fromkeys(view.obs['section']))} have no spot "
            f"labelled as {' or '.join(missing)}, and it learns to tell the two apart: name other sections under "
            "`source` of the study, or label more spots"
        )
    return labels, rows
