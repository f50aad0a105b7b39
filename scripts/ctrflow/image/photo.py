"""JPEG and PNG, decoded completely."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError
from ctrflow.image.slide import (
    BAND_PX,
    Image,
    Level,
    Window,
    guarded,
    on_white,
    require_decodable,
    square_um_per_px,
    warn_if_turned,
)

_ORIENTATION = 274  # EXIF's tag, TIFF's number


def open_photo(path: Path) -> Image:
    """Open a JPEG or PNG: the header with Pillow, the pixels of a JPEG with libjpeg directly into the array."""
    with _header(path) as picture:
        width, height = picture.size
        require_decodable(path, width, height)
        if picture.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}:
            raise InputError(f"{path}: pixel mode {picture.mode} is not supported; save it as an 8-bit RGB image")
        warn_if_turned(path, picture.getexif().get(_ORIENTATION, 1))
        um_per_px = _um_per_px(picture)
        pixels = _decode_png(picture) if picture.format == "PNG" else _decode_jpeg(path)
    return Image(path, [Level(width, height, 1.0, _array_window(pixels))], um_per_px=um_per_px)


def photo_facts(path: Path) -> tuple[tuple[int, int], float | None]:
    """Width and height, and µm per px if stated, from the header alone."""
    with _header(path) as picture:
        return picture.size, _um_per_px(picture)


@contextmanager
def _header(path: Path) -> Iterator:
    """A JPEG or PNG opened by Pillow, which decodes nothing yet."""
    from PIL import Image as pil

    limit, pil.MAX_IMAGE_PIXELS = pil.MAX_IMAGE_PIXELS, None  # too low for slides; our own limit is below
    try:
        with guarded(path), pil.open(path) as picture:
            yield picture
    finally:
        pil.MAX_IMAGE_PIXELS = limit


def _um_per_px(picture) -> float | None:
    dpi = [float(value) for value in picture.info.get("dpi", (0, 0))]
    return square_um_per_px(25400 / dpi[0], 25400 / dpi[1]) if all(dpi) else None


def _decode_jpeg(path: Path) -> np.ndarray:
    """uint8 h x w x 3 (or 1), without a second copy."""
    import imagecodecs

    content = path.read_bytes()
    # libjpeg fills the missing part of a truncated file with grey: the end of the image must follow its last scan.
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ValueError("the end of the JPEG data is missing")
    pixels = imagecodecs.jpeg_decode(content)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _decode_png(picture) -> np.ndarray:
    """An open Pillow image -> uint8 h x w x 3, converted by bands (a full copy would double the memory)."""
    width, height = picture.size
    transparent = picture.has_transparency_data
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, BAND_PX):
        bottom = min(top + BAND_PX, height)
        band = np.asarray(picture.crop((0, top, width, bottom)).convert("RGBA" if transparent else "RGB"))
        pixels[top:bottom] = on_white(band) if transparent else band
    return pixels


def _array_window(pixels: np.ndarray) -> Window:
    return lambda top, bottom, left, right: pixels[top:bottom, left:right]
