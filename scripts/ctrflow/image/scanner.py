"""Slides in scanner formats, read with OpenSlide."""

import logging
import threading
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError
from ctrflow.image.slide import CACHE_BYTES, Image, Level, Window, guarded, number_in, on_white, square_um_per_px
from ctrflow.image.tiff import is_jpeg2000, require_complete_pages

logger = logging.getLogger("ctrflow")


def vendor_of(path: Path) -> str | None:
    """The vendor of a slide's format; None if OpenSlide knows none, or `tiff` reads it.

    Aperio slides are read by `tiff`, except those in JPEG 2000, whose colours it would get wrong.
    """
    import openslide

    vendor = openslide.OpenSlide.detect_format(path)
    if vendor == "generic-tiff" or (vendor == "aperio" and not is_jpeg2000(path)):
        return None
    return vendor


def open_scanner(path: Path, vendor: str, is_tiff: bool) -> Image:
    """Open a slide of the vendor format from `vendor_of`; `is_tiff`: whether the format is a kind of TIFF."""
    import openslide

    if is_tiff:
        require_complete_pages(path)  # OpenSlide notices missing pixels only when they are read
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise InputError(
            f"{path}: OpenSlide cannot read this {vendor} slide ({error}); "
            "copy it again with all files that belong to it, or export it as a tiled RGB TIFF"
        ) from error
    slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
    with guarded(path, slide.close):
        left, top, width, height = _bounds(slide)
        if (width, height) != slide.dimensions:
            text = "%s: using the scanned area, %d x %d px at (%d, %d) of %d x %d"
            logger.info(text, path, width, height, left, top, *slide.dimensions)
        lock = threading.Lock()
        levels = [
            Level(
                max(1, int(width / factor)),
                max(1, int(height / factor)),
                factor,
                _window(slide, lock, level, (left, top)),
            )
            for level, factor in enumerate(slide.level_downsamples)
        ]
        um = [number_in(slide.properties.get(f"openslide.mpp-{axis}", "")) for axis in "xy"]

    def close() -> None:
        with lock:  # never while a thread reads
            slide.close()

    return Image(path, levels, close, square_um_per_px(*um))


def _bounds(slide) -> tuple[int, int, int, int]:
    """Left, top, width and height of the scanned area in level 0; all of it if not stated."""
    names = ("x", "y", "width", "height")
    bounds = [slide.properties.get(f"openslide.bounds-{name}") for name in names]
    if None in bounds:
        return 0, 0, *slide.dimensions
    left, top, width, height = map(int, bounds)
    left, top = max(left, 0), max(top, 0)
    return left, top, min(width, slide.dimensions[0] - left), min(height, slide.dimensions[1] - top)


def _window(slide, lock: threading.Lock, level: int, origin: tuple[int, int]) -> Window:
    import openslide

    factor = slide.level_downsamples[level]

    def window(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        corner = origin[0] + round(left * factor), origin[1] + round(top * factor)
        try:
            with lock:
                region = slide.read_region(corner, level, (right - left, bottom - top))
        except openslide.OpenSlideError as error:
            raise OSError(str(error)) from error
        pixels = np.asarray(region)
        return pixels[..., :3] if pixels[..., 3].min() == 255 else on_white(pixels)

    return window
