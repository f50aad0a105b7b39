"""Square patches around spots, and thumbnails."""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ctrflow.image.slide import BAND_PX, Image

_BATCHES_AHEAD = 2


def cut_patches(image: Image, centres_px: np.ndarray, side_px: float, out_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square around every centre and resample it.

    Pixels come from the coarsest level that is fine enough, by antialiased bilinear resampling.

    Parameters
    ----------
    centres_px : n x 2, (x, y), full-resolution image px
    side_px : side of the square, full-resolution image px (not necessarily whole)
    out_px : side of the result

    Returns
    -------
    patches : uint8, n x out_px x out_px x 3; white outside the image
    padded : bool, n; whether the square extends beyond the image
    """
    level = _level_for(image, side_px / out_px)
    patches = np.empty((len(centres_px), out_px, out_px, 3), np.uint8)
    for patch, centre in zip(patches, centres_px, strict=True):
        patch[:] = _cut(image, centre, side_px, out_px, level)
    low, high = centres_px - side_px / 2, centres_px + side_px / 2
    tolerance = 1e-6
    padded = ((low < -tolerance) | (high > np.array([image.width_px, image.height_px]) + tolerance)).any(axis=1)
    return patches, padded


def stream_patches(
    image: Image, centres_px: np.ndarray, side_px: float, out_px: int, batch: int = 64
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """`cut_patches` over consecutive batches of centres; yields (rows of `centres_px`, patches, padded).

    A background thread cuts the next two batches while the caller works on one. Its errors are raised here, when their
    batch is due; leaving the loop early stops it.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="patches")
    pending = deque()
    try:
        for start in range(0, len(centres_px), batch):
            rows = slice(start, min(start + batch, len(centres_px)))
            pending.append((rows, pool.submit(cut_patches, image, centres_px[rows], side_px, out_px)))
            if len(pending) > _BATCHES_AHEAD:
                due, patches = pending.popleft()
                yield due, *patches.result()
        while pending:
            due, patches = pending.popleft()
            yield due, *patches.result()
    finally:
        pool.shutdown(cancel_futures=True)


def reading_order(centres_px: np.ndarray, side_px: float) -> np.ndarray:
    """The fastest order to read patches: along bands of the slide, each as high as a patch.

    Neighbours share tiles, which are then decoded once. It helps if spots are in random order, as with barcodes.

    Parameters
    ----------
    centres_px : n x 2, (x, y), full-resolution image px
    side_px : side of the patches, full-resolution image px

    Returns
    -------
    n indices into `centres_px`
    """
    return np.lexsort((centres_px[:, 0], np.floor(centres_px[:, 1] / side_px)))


def thumbnail(image: Image, max_px: int) -> tuple[np.ndarray, float]:
    """The downsampled image, its longer side at most `max_px`.

    Returns
    -------
    uint8 h x w x 3, and the scale: thumbnail px per full-resolution image px
    """
    from PIL import Image as pil

    scale = min(1.0, max_px / max(image.width_px, image.height_px))
    level = _level_for(image, 1 / scale)
    width, height = image.size_px(level)
    # Integer reduction band by band, so that an image without levels is never copied completely.
    shrink = max(1, int(1 / (scale * image.levels[level])))
    step = shrink * max(1, BAND_PX // shrink)
    bands = []
    for top in range(0, height, step):
        band = pil.fromarray(image.read(0, top, width, min(step, height - top), level))
        bands.append(np.asarray(band.reduce(shrink)))
    reduced = pil.fromarray(np.concatenate(bands))
    size = max(1, round(image.width_px * scale)), max(1, round(image.height_px * scale))
    small = reduced.resize(size, pil.Resampling.BILINEAR, box=(0, 0, width / shrink, height / shrink))
    return np.asarray(small), scale


def _level_for(image: Image, downsample: float) -> int:
    """The coarsest level at least as fine as `downsample` (full-resolution px per output px); else the finest."""
    fine_enough = [i for i, factor in enumerate(image.levels) if factor <= downsample * (1 + 1e-9)]
    return fine_enough[-1] if fine_enough else 0


def _cut(image: Image, centre: np.ndarray, side_px: float, out_px: int, level: int) -> np.ndarray:
    from PIL import Image as pil

    side = side_px / image.levels[level]
    left, top = centre / image.levels[level] - side / 2
    margin = math.ceil(max(1.0, side / out_px))  # reach of the resampling filter beyond the square
    x, y = math.floor(left) - margin, math.floor(top) - margin
    w, h = math.ceil(left + side) + margin - x, math.ceil(top + side) + margin - y
    window = pil.fromarray(image.read(x, y, w, h, level))
    box = (left - x, top - y, left - x + side, top - y + side)
    return np.asarray(window.resize((out_px, out_px), pil.Resampling.BILINEAR, box=box))
