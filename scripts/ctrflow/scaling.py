"""Features brought to one scale within each section: its own statistics, no labels."""

import numpy as np

from ctrflow.views import section_rows


def section_scaled(matrix: np.ndarray, sections: np.ndarray, scaling: str) -> np.ndarray:
    """Each column scaled within each section, in the type of `matrix`, computed in float64.

    "minmax" to [0, 1] (METHODS.md 1.3, S-20), "zscore" to mean 0 and sd 1, "none" as it is. A column that is constant
    in a section becomes 0.
    """
    result = np.array(matrix)
    if scaling == "none":
        return result
    for _, rows in section_rows(sections):
        block = result[rows].astype(np.float64)
        if scaling == "minmax":
            low, high = block.min(axis=0), block.max(axis=0)
            result[rows] = (block - low) / ((high - low) + 1e-12)
        else:
            sd = block.std(axis=0)
            result[rows] = (block - block.mean(axis=0)) / np.where(sd > 1e-9, sd, 1.0)
    return result
