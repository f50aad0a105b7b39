"""Feature scaling, within each section or by the statistics of a reference, without labels."""

from collections.abc import Callable

import numpy as np

from ctrflow.features.blocks import Features, in_blocks, section_rows

DENSE = 2**26  # values (spots x features) to hold dense: 0.5 GB in float64; larger views are read in blocks


def fits(shape: tuple[int, int]) -> bool:
    """Whether a table of this shape is held dense."""
    return shape[0] * shape[1] <= DENSE


def section_scaled(matrix: np.ndarray, sections: np.ndarray, scaling: str) -> np.ndarray:
    """Scale each column within each section; computed in float64, returned in the dtype of `matrix`.

    "minmax" to [0, 1] (METHODS.md 1.3, S-20), "zscore" to mean 0 and sd 1, "none" unchanged. A column that is constant
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
    """`section_scaled` for requested rows only, for a view that does not fit into memory dense."""

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
        """All of it as a SciPy LinearOperator (spots x features), float64, for products."""
        from scipy.sparse.linalg import LinearOperator

        def times(right: np.ndarray) -> np.ndarray:
            product = np.empty((self.shape[0], right.shape[1]))
            for rows, shift, scale in zip(self.sections, self.shift, self.scale, strict=True):
                scaled = right / scale[:, None]
                for block in in_blocks(rows):
                    product[block] = self.features.times(block, scaled) - shift @ scaled
            return product

        def transposed_times(right: np.ndarray) -> np.ndarray:
            product = np.zeros((self.shape[1], right.shape[1]))
            for rows, shift, scale in zip(self.sections, self.shift, self.scale, strict=True):
                for block in in_blocks(rows):
                    own = right[block]
                    raw = self.features.transposed_times(block, own)
                    product += (raw - np.outer(shift, own.sum(axis=0))) / scale[:, None]
            return product

        return LinearOperator(
            self.shape,
            dtype=np.float64,
            matvec=lambda right: times(right.reshape(-1, 1)).ravel(),
            rmatvec=lambda right: transposed_times(right.reshape(-1, 1)).ravel(),
            matmat=times,
            rmatmat=transposed_times,
        )


def reference_statistics(features: np.ndarray, scaling: str = "reference") -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each column over the spots of a reference, float32; 0 and 1 with the scaling "none".

    A constant column has sd 1.
    """
    if scaling == "none":
        return np.zeros(features.shape[1], np.float32), np.ones(features.shape[1], np.float32)
    sd = features.std(axis=0, dtype=np.float64)
    return features.mean(axis=0, dtype=np.float64).astype(np.float32), np.where(sd > 1e-9, sd, 1).astype(np.float32)


def reference_scaled(features: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Features less `mean`, divided by `sd`, float32: with `reference_statistics` z-scores."""
    result = np.asarray(features, dtype=np.float32) - mean
    result /= sd
    return result


def _statistics(read: Callable, rows: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """The shift to subtract from the columns of a section, and the scale to divide them by.

    `read` returns the values of some rows, float64. Over several blocks, a mean is rounded differently than over all
    rows at once.
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
