"""What is drawn in a section as a table; and regions drawn at random where all labels are known."""

import numpy as np

from ctrflow.classes import CLASSES
from ctrflow.errors import InputError
from ctrflow.features import drawn
from ctrflow.sections import labels

REGIONS = 3  # of each class that `draw` draws


def read(path: str, spots, words_path: str, cells=None):
    """What is drawn in a file, as `table`. It is read as labels are, but what is not drawn is unknown, whatever the
    word `outside` means.

    Parameters
    ----------
    path, spots, cells, words_path : as of `labels.read_labels`
    """
    words = labels.read_words(words_path, str(spots.uns["section"].get("cohort", "")))
    return table(spots, labels.read_labels(path, spots, words | {labels.OUTSIDE: np.nan}, cells, words_path))


def table(spots, drawing):
    """What is drawn in a section, and where it may not be judged: frame of spot, label (1, 0, missing), region (number,
    -1 where nothing is drawn) and near (1 for drawn spots and those beside them).

    Parameters
    ----------
    spots : AnnData of the section contract
    drawing : label table (spot, label), in the order of the spots
    """
    import pandas as pd

    values = drawing["label"].astype(float).to_numpy()
    beside = drawn.adjacency(spots.obsm["spatial"])
    return pd.DataFrame(
        {
            "spot": spots.obs_names.to_numpy(str),
            "label": pd.array(values, dtype="Int64"),
            "region": drawn.numbered(values, beside),
            "near": drawn.near(values, beside).astype(int),
        }
    )


def draw(labels: np.ndarray, spatial_px, share: float, seed: int) -> np.ndarray:
    """A share of each class drawn as compact regions at random places, (spots,) 1, 0, NaN: for a study of how little is
    enough, where all labels are known.

    Raises
    ------
    InputError
        if a class has fewer than two spots.
    """
    for value, word in CLASSES.items():
        if (count := int((labels == value).sum())) < 2:
            raise InputError(f"{count} spots labelled {word}: a drawing of both classes needs two of each")
    return part(labels, spatial_px, share, seed)


def part(labels: np.ndarray, spatial_px, share: float, seed: int = 0) -> np.ndarray:
    """A share of the labelled spots of each class, at least two, as `REGIONS` regions; (spots,) 1, 0, NaN.

    A region grows from a random spot of its class over spots beside it, nearest to the first one first; where a piece
    of tissue is used up, the rest lies in another one.
    """
    labels, spatial_px = np.asarray(labels, dtype=float), np.asarray(spatial_px, dtype=float)
    beside, rng = drawn.adjacency(spatial_px), np.random.default_rng(seed)
    found = np.full(len(labels), np.nan)
    for value in (1, 0):
        own = labels == value
        left = min(max(2, int(np.ceil(share * own.sum()))), int(own.sum()))
        size = int(np.ceil(left / REGIONS))
        while left:
            free = own & np.isnan(found)
            region = _grown(rng.choice(np.flatnonzero(free)), free, min(size, left), beside, spatial_px)
            found[region] = value
            left -= len(region)
    return found


def _grown(first: int, free: np.ndarray, size: int, beside, spatial_px: np.ndarray) -> list[int]:
    """At most `size` connected free spots, from the first outwards."""
    far = np.linalg.norm(spatial_px - spatial_px[first], axis=1)
    region, front = [], {int(first)}
    seen = {int(first)}
    while front and len(region) < size:
        spot = min(front, key=lambda one: (far[one], one))
        front.remove(spot)
        region.append(spot)
        around = beside.indices[beside.indptr[spot] : beside.indptr[spot + 1]]
        new = {int(one) for one in around if free[one]} - seen
        front |= new
        seen |= new
    return region
