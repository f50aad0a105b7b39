"""Features brought to one scale within each section: its own statistics, no labels."""

from collections.abc import Callable

import numpy as np

from ctrflow.features.blocks import Features, in_blocks, section_rows

DENSE = 2**26  # values (spots x features) that a method holds dense: 0.5 GB in float64; larger views are read in blocks


def fits(shape: tuple[int, int]) -> bool:
    """Whether so many spots x features are held dense."""
    return shape[0] * shape[1] <= DENSE


def section_scaled(matrix: np.ndarray, sections: np.ndarray, scaling: str) -> np.ndarray:
    """Each column scaled within each section, in the type of `matrix`, computed in float64.

    "minmax" to [0, 1] (METHODS.md 1.3, S-20), "zscore" to mean 0 and sd 1, "none" as it is. A column that is constant
    in a section becomes 0.
    """
    result = np.array(matrix)
    if scaling == "none":
        return result
    for _, rows in section_rows(sections):
        shift, scale = _statistics(lambda block: result[block].astype(np.float64), rows, scaling)
        for block in in_blocks(rows):
            result[block] = (result[block].astype(np.float64) - shift) / scale
    return result


class Scaled:
    """What `section_scaled` gives, for the rows that are asked for; of a view that would not fit into memory dense."""

    def __init__(self, features: Features, sections: np.ndarray, scaling: str):
        self.features, self.shape = features, features.shape
        self.sections, self.codes = [], np.empty(len(sections), np.int64)
        self.shift, self.scale = [], []
        for code, (_, rows) in enumerate(section_rows(sections)):
            self.codes[rows] = code
            shift, scale = np.zeros(self.shape[1]), np.ones(self.shape[1])
            if scaling != "none":
                shift, scale = _statistics(lambda block: features[block].astype(np.float64), rows, scaling)
            self.sections.append(rows)
            self.shift.append(shift)
            self.scale.append(scale)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(rows x features) float32."""
        result = np.empty((len(rows), self.shape[1]), np.float32)
        for at in in_blocks(np.arange(len(rows))):
            codes, values = self.codes[rows[at]], self.features[rows[at]].astype(np.float64)
            for code in np.unique(codes):
                own = codes == code
                values[own] = (values[own] - self.shift[code]) / self.scale[code]
            result[at] = values
        return result

    def operator(self):
        """The whole of it as a SciPy LinearOperator (spots x features), float64: for products alone."""
        from scipy.sparse.linalg import LinearOperator

        def times(right: np.ndarray) -> np.ndarray:
            found = np.empty((self.shape[0], right.shape[1]))
            for rows, shift, scale in zip(self.sections, self.shift, self.scale, strict=True):
                scaled = right / scale[:, None]
                for block in in_blocks(rows):
                    found[block] = self.features.times(block, scaled) - shift @ scaled
            return found

        def transposed_times(right: np.ndarray) -> np.ndarray:
            found = np.zeros((self.shape[1], right.shape[1]))
            for rows, shift, scale in zip(self.sections, self.shift, self.scale, strict=True):
                for block in in_blocks(rows):
                    own = right[block]
                    product = self.features.transposed_times(block, own)
                    found += (product - np.outer(shift, own.sum(axis=0))) / scale[:, None]
            return found

        return LinearOperator(
            self.shape,
            dtype=np.float64,
            matvec=lambda right: times(right.reshape(-1, 1)).ravel(),
            rmatvec=lambda right: transposed_times(right.reshape(-1, 1)).ravel(),
            matmat=times,
            rmatmat=transposed_times,
        )


def _statistics(read: Callable, rows: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """What is taken from the columns of a section, and what they are then divided by.

    `read` gives the values of some rows, float64. They are read block by block, so a mean over more spots than a block
    has is rounded otherwise than over all at once.
    """
    blocks = list(in_blocks(rows))
    if scaling == "minmax":
        low = np.min([read(block).min(axis=0) for block in blocks], axis=0)
        high = np.max([read(block).max(axis=0) for block in blocks], axis=0)
        return low, (high - low) + 1e-12
    if len(blocks) == 1:
        values = read(rows)
        mean, sd = values.mean(axis=0), values.std(axis=0)
    else:
        mean = sum(read(block).sum(axis=0) for block in blocks) / len(rows)
        sd = np.sqrt(sum(np.square(read(block) - mean).sum(axis=0) for block in blocks) / len(rows))
    return mean, np.where(sd > 1e-9, sd, 1.0)
