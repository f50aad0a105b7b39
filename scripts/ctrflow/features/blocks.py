"""Reading a view by section and in blocks of spots."""

from collections.abc import Iterator

import numpy as np

AT_ONCE = 8192  # spots made dense together: 0.3 GB of 4,000 features in float64


def section_rows(sections) -> Iterator[tuple[str, np.ndarray]]:
    """Each section and the rows of its spots, ascending; sections in order of first appearance.

    Parameters
    ----------
    sections : (spots,) section ids; spots of a section need not be contiguous
    """
    sections = np.asarray(sections)
    for section in dict.fromkeys(sections):
        yield section, np.flatnonzero(sections == section)


def in_blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows, `AT_ONCE` at a time."""
    for start in range(0, len(rows), AT_ONCE):
        yield rows[start : start + AT_ONCE]


def matrix(view, modality: str) -> np.ndarray:
    """The image features or the log-normalised genes of a view, dense: (spots x features), in the view's dtype."""
    return view.obsm["image"] if modality == "image" else view.X.toarray()


class Features:
    """Modalities of a view, concatenated; only requested rows are made dense.

    `spots`: the rows of the view to use, in their order; all by default.
    """

    def __init__(self, view, modalities: list[str], spots: np.ndarray | None = None):
        self.view, self.modalities = view, modalities
        self.parts = [view.obsm["image"] if name == "image" else view.X for name in modalities]
        self.spots = np.arange(view.n_obs) if spots is None else spots
        self.shape = len(self.spots), sum(part.shape[1] for part in self.parts)

    def of(self, rows: np.ndarray) -> "Features":
        """The same, restricted to some rows."""
        return Features(self.view, self.modalities, self.spots[rows])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(rows x features), in the view's dtype."""
        parts = self._at(rows)
        return np.hstack([part if isinstance(part, np.ndarray) else part.toarray() for part in parts])

    def times(self, rows: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The product of some rows and `right` (features x columns), without making genes dense; float64."""
        ends = np.cumsum([part.shape[1] for part in self.parts])[:-1]
        return sum(part @ own for part, own in zip(self._at(rows), np.split(right, ends), strict=True))

    def transposed_times(self, rows: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The product of the transpose of some rows and `right` (rows x columns), likewise."""
        return np.concatenate([part.T @ right for part in self._at(rows)])

    def _at(self, rows: np.ndarray) -> list:
        return [part[self.spots[rows]] for part in self.parts]
