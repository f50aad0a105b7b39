"""Reading a view: the spots of each of its sections, and the block of a modality."""

from collections.abc import Iterator

import numpy as np


def section_rows(sections) -> Iterator[tuple[str, np.ndarray]]:
    """Each section and the rows of its spots, ascending; sections in the order in which they first come.

    Parameters
    ----------
    sections : (spots,) section ids; spots of a section need not follow one another
    """
    sections = np.asarray(sections)
    for section in dict.fromkeys(sections):
        yield section, np.flatnonzero(sections == section)


def matrix(view, modality: str) -> np.ndarray:
    """The image features of a view, or its log-normalised genes, dense: (spots x features), in the view's own type."""
    return view.obsm["image"] if modality == "image" else view.X.toarray()
