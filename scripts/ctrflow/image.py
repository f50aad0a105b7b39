"""Windows of a slide image: TIFF, BigTIFF, OME-TIFF and vendor pyramids, JPEG, PNG; always RGB, 8 bits a channel.

Coordinates are continuous image px, (x, y) from the upper left corner of the full-resolution level; pixel i covers
[i, i + 1).
"""

import logging
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few

logger = logging.getLogger("ctrflow")

WHITE = 255
_MAX_DECODED_PX = 4_000_000_000  # JPEG and PNG are decoded whole: 12 GB
_BAND_PX = 1024
_SIGNATURES = {
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\xff\xd8\xff": "photo",
    b"\x89PNG": "photo",
}
# What the readers raise on damaged files; imagecodecs errors are RuntimeErrors.
_DAMAGE = (
    ArithmeticError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class _Level:
    width_px: int
    height_px: int
    downsample: float
    window: Callable[[int, int, int, int], np.ndarray]  # (top, bottom, left, right) inside the level -> h x w x 3


class Image:
    """A slide image read by windows; made by `open_image`, also a context manager.

    Attributes
    ----------
    path : Path
    width_px, height_px : int
        size of the full-resolution level
    levels : list of float
        downsample factor of every level, 1.0 first, ascending
    """

    def __init__(self, path: Path, levels: list[_Level], close: Callable[[], None] = lambda: None):
        self.path = path
        self._levels = sorted(levels, key=lambda level: level.downsample)
        self._close = close
        self.width_px = self._levels[0].width_px
        self.height_px = self._levels[0].height_px
        self.levels = [level.downsample for level in self._levels]

    def __enter__(self) -> "Image":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._close()

    def size_px(self, level: int) -> tuple[int, int]:
        """Width and height of a level."""
        return self._levels[level].width_px, self._levels[level].height_px

    def read(self, x: int, y: int, w: int, h: int, level: int = 0) -> np.ndarray:
        """Read the window of `w` x `h` px whose upper left corner is (`x`, `y`), all in px of `level`.

        Returns
        -------
        uint8, h x w x 3; what lies outside the image is white

        Raises
        ------
        InputError
            if the pixels cannot be decoded (a damaged file).
        """
        source = self._levels[level]
        pixels = np.full((h, w, 3), WHITE, np.uint8)
        left, right = max(x, 0), min(x + w, source.width_px)
        top, bottom = max(y, 0), min(y + h, source.height_px)
        if left >= right or top >= bottom:
            return pixels
        try:
            pixels[top - y : bottom - y, left - x : right - x] = source.window(top, bottom, left, right)
        except _DAMAGE as error:
            raise _damaged(self.path, error) from error
        return pixels


def open_image(path: str | Path) -> Image:
    """Open a slide image.

    Tiled and uncompressed TIFFs are read by windows. JPEG and PNG, and a level of a TIFF made of compressed strips
    (each as wide as the slide, so that every window would decode them again), are decoded once and kept.
    Grey becomes RGB; transparent pixels are laid on white. The kind is told by content, not by the file's name.

    Raises
    ------
    InputError
        if the file is missing, damaged, cut short, no image, or not an 8-bit RGB or grey picture.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image; check column `image` of the section sheet")
    with path.open("rb") as file:
        head = file.read(4)
    kind = next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)
    if kind is None:
        raise InputError(
            f"{path}: not a TIFF, JPEG or PNG image, whatever its name says; "
            "export or download it again, or correct column `image` of the section sheet"
        )
    return _open_tiff(path) if kind == "tiff" else _open_photo(path)


def require_inside(centres_px: np.ndarray, image: Image, names: Sequence[str], path: str | Path) -> None:
    """Refuse spot centres that lie outside the image: nearly always a wrong image or a wrong scale.

    Parameters
    ----------
    centres_px : n x 2, (x, y), full-resolution image px
    names : n spot ids
    path : the file that the message names
    """
    inside = ((centres_px >= 0) & (centres_px <= [image.width_px, image.height_px])).all(axis=1)  # NaN is outside
    if inside.all():
        return
    outside = np.flatnonzero(~inside)
    few = first_few([names[i] for i in outside])
    finite = centres_px[np.isfinite(centres_px).all(axis=1)]
    span = "no spot has a position"
    if len(finite):
        (x_min, y_min), (x_max, y_max) = finite.min(axis=0), finite.max(axis=0)
        span = f"the spots span x {x_min:.0f} to {x_max:.0f}, y {y_min:.0f} to {y_max:.0f}"
    raise InputError(
        f"{path}: {len(outside)} of {len(inside)} spots lie outside the image ({few}); "
        f"the image is {image.width_px} x {image.height_px} px, {span} in px of it; "
        "check columns `image`, `image_scale` (image px per full-resolution px) and `um_per_px` of the section sheet"
    )


def cut_patches(image: Image, centres_px: np.ndarray, side_px: float, out_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square around every centre and resample it.

    Pixels come from the coarsest level that is still as fine as wanted, by antialiased bilinear resampling.

    Parameters
    ----------
    centres_px : n x 2, (x, y), full-resolution image px
    side_px : side of the square, full-resolution image px (not necessarily whole)
    out_px : side of the result

    Returns
    -------
    patches : uint8, n x out_px x out_px x 3; white where the square leaves the image
    padded : bool, n; whether it does
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
    """`cut_patches` over consecutive batches of centres; yields (which rows of `centres_px`, patches, padded)."""
    for start in range(0, len(centres_px), batch):
        rows = slice(start, min(start + batch, len(centres_px)))
        yield rows, *cut_patches(image, centres_px[rows], side_px, out_px)


def thumbnail(image: Image, max_px: int) -> tuple[np.ndarray, float]:
    """The whole image, its longer side at most `max_px`.

    Returns
    -------
    uint8 h x w x 3, and the scale: thumbnail px per full-resolution image px
    """
    from PIL import Image as pil

    scale = min(1.0, max_px / max(image.width_px, image.height_px))
    level = _level_for(image, 1 / scale)
    width, height = image.size_px(level)
    # Whole-number reduction band by band, so that an image without levels is never copied whole.
    shrink = max(1, int(1 / (scale * image.levels[level])))
    step = shrink * max(1, _BAND_PX // shrink)
    bands = []
    for top in range(0, height, step):
        band = pil.fromarray(image.read(0, top, width, min(step, height - top), level))
        bands.append(np.asarray(band.reduce(shrink)))
    reduced = pil.fromarray(np.concatenate(bands))
    size = max(1, round(image.width_px * scale)), max(1, round(image.height_px * scale))
    small = reduced.resize(size, pil.Resampling.BILINEAR, box=(0, 0, width / shrink, height / shrink))
    return np.asarray(small), scale


def _level_for(image: Image, downsample: float) -> int:
    """The coarsest level still as fine as `downsample` (full-resolution px per wanted px); else the finest."""
    fine_enough = [i for i, factor in enumerate(image.levels) if factor <= downsample * (1 + 1e-9)]
    return fine_enough[-1] if fine_enough else 0


def _cut(image: Image, centre: np.ndarray, side_px: float, out_px: int, level: int) -> np.ndarray:
    from PIL import Image as pil

    side = side_px / image.levels[level]
    left, top = centre / image.levels[level] - side / 2
    margin = math.ceil(max(1.0, side / out_px))  # the resampling filter looks this far beyond the square
    x, y = math.floor(left) - margin, math.floor(top) - margin
    w, h = math.ceil(left + side) + margin - x, math.ceil(top + side) + margin - y
    window = pil.fromarray(image.read(x, y, w, h, level))
    box = (left - x, top - y, left - x + side, top - y + side)
    return np.asarray(window.resize((out_px, out_px), pil.Resampling.BILINEAR, box=box))


def _damaged(path: Path, error: Exception) -> InputError:
    reason = str(error).strip() or type(error).__name__
    return InputError(f"{path}: damaged or cut short image ({reason}); export or download it again")


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """h x w x 4 with alpha last -> h x w x 3."""
    alpha = pixels[..., 3:].astype(np.uint16)
    mixed = (pixels[..., :3] * alpha + WHITE * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def _open_photo(path: Path) -> Image:
    """JPEG or PNG, through Pillow."""
    from PIL import Image as pil

    limit, pil.MAX_IMAGE_PIXELS = pil.MAX_IMAGE_PIXELS, None  # a slide is no decompression bomb; ours is below
    try:
        with pil.open(path) as picture:
            width, height = picture.size
            if width * height > _MAX_DECODED_PX:
                raise InputError(f"{path}: {width} x {height} px is too large for JPEG or PNG; save it as a tiled TIFF")
            if picture.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}:
                raise InputError(f"{path}: pixels of kind {picture.mode}; save it as an 8-bit RGB image")
            pixels = _decode(picture)
    except InputError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    finally:
        pil.MAX_IMAGE_PIXELS = limit
    return Image(path, [_Level(width, height, 1.0, lambda top, bottom, left, right: pixels[top:bottom, left:right])])


def _decode(picture) -> np.ndarray:
    """An opened Pillow picture -> uint8 h x w x 3, converted by bands (a whole copy would double the memory)."""
    width, height = picture.size
    transparent = picture.has_transparency_data
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BAND_PX):
        bottom = min(top + _BAND_PX, height)
        band = np.asarray(picture.crop((0, top, width, bottom)).convert("RGBA" if transparent else "RGB"))
        pixels[top:bottom] = _on_white(band) if transparent else band
    return pixels


def _open_tiff(path: Path) -> Image:
    import tifffile

    try:
        tiff = tifffile.TiffFile(path)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    try:
        # The slide is the largest picture; others are labels, macros and thumbnails.
        series = max(tiff.series, key=lambda one: math.prod(_yx(one)))
        levels = _tiff_levels(path, series)
    except InputError:
        tiff.close()
        raise
    except _DAMAGE as error:
        tiff.close()
        raise _damaged(path, error) from error
    return Image(path, levels, tiff.close)


def _yx(series) -> tuple[int, int]:
    """Height and width."""
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return sizes.get("Y", 0), sizes.get("X", 0)


def _tiff_levels(path: Path, series) -> list[_Level]:
    height, width = _yx(series)
    levels = []
    for level in series.levels:
        level_height, level_width = _yx(level)
        factor = _downsample(width, height, level_width, level_height)
        if factor is None:
            continue
        _require_rgb(path, level)
        _require_whole(path, level)
        levels.append(_Level(level_width, level_height, factor, _tiff_window(path, series, level)))
    return levels


def _downsample(width: int, height: int, level_width: int, level_height: int) -> float | None:
    """How much smaller a level is; None if it has other proportions, that is, shows something else.

    Writers round the size of a level up or down, so a whole number that explains both sides is taken as it is.
    """
    if not level_width or not level_height:
        return None
    factor = math.sqrt((width / level_width) * (height / level_height))
    whole = round(factor)
    if whole >= 1 and abs(width / whole - level_width) < 1 and abs(height / whole - level_height) < 1:
        return float(whole)
    rounding = 2 / min(level_width, level_height)
    if abs((width / level_width) / (height / level_height) - 1) > max(0.01, rounding):
        return None
    return factor


def _require_rgb(path: Path, level) -> None:
    """Refuse what is not an 8-bit RGB(A) or grey picture."""
    page = level.keyframe
    cure = "export the H&E image as an 8-bit RGB TIFF, or correct column `image` of the section sheet"
    if level.dtype != np.uint8:
        raise InputError(f"{path}: pixels of type {level.dtype}, not 8 bits a channel; {cure}")
    channels = dict(zip(level.axes, level.shape, strict=True))
    layout = level.axes.replace("C", "S")
    # A fourth channel is alpha only where the file says so; of separate channels it is a fluorescent dye.
    counts = {"YXS": (3, 4), "SYX": (3,), "YX": (1,)}.get(layout, ())
    count = channels.get("S", channels.get("C", 1))
    if count not in counts or (count == 4 and "C" in channels):
        shape = " x ".join(f"{size} {axis}" for axis, size in zip(level.axes, level.shape, strict=True))
        raise InputError(f"{path}: a stack or a set of channels ({shape}), not an RGB picture; {cure}")
    # Plain numbers where tifffile has no name for them.
    kind, compression = (getattr(tag, "name", str(tag)) for tag in (page.photometric, page.compression))
    as_rgb = kind in {"RGB", "MINISBLACK"} or (kind == "YCBCR" and "JPEG" in compression)
    if not as_rgb:
        raise InputError(f"{path}: colours stored as {kind} ({compression}); {cure}")


def _require_whole(path: Path, level) -> None:
    """Refuse a level whose pixels would lie behind the end of the file."""
    size = path.stat().st_size
    for page in level.pages:
        ends = np.asarray(page.dataoffsets, np.int64) + np.asarray(page.databytecounts, np.int64)
        if len(ends) and ends.max() > size:
            raise InputError(
                f"{path}: cut short image (its pixels should reach byte {ends.max():,}, the file has {size:,}); "
                "export or download it again"
            )


def _tiff_window(path: Path, series, level) -> Callable[[int, int, int, int], np.ndarray]:
    @cache
    def pixels():  # opened when first read: most levels never are
        import zarr

        if level.keyframe.is_tiled:
            return zarr.open(series.aszarr(level=series.levels.index(level)), mode="r")
        if level.keyframe.compression == 1 and level.dataoffset is not None:
            return np.memmap(path, np.uint8, "r", level.dataoffset, level.shape)
        logger.info("%s: compressed strips, so the level of %s px is decoded whole", path, _yx(level)[::-1])
        return level.asarray(maxworkers=1)

    planes_first = level.axes[0] in "SC"
    grey = level.axes == "YX"
    alpha = level.shape[-1] == 4 and any(sample in (1, 2) for sample in level.keyframe.extrasamples)

    def window(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        part = np.asarray(pixels()[:, top:bottom, left:right] if planes_first else pixels()[top:bottom, left:right])
        if grey:
            return part[..., None]  # broadcasts to the three channels
        if planes_first:
            return np.moveaxis(part, 0, -1)
        return _on_white(part) if alpha else part[..., :3]

    return window


def section_thumbnail(spots, max_px: int) -> tuple[np.ndarray | None, float]:
    """A section's image made small, and its pixels per full-resolution pixel; (None, 0.0) where it has no image."""
    section = spots.uns["section"]
    if not section["image"]:
        return None, 0.0
    with open_image(section["image"]) as slide:
        pixels, scale = thumbnail(slide, max_px)
    return pixels, scale * float(section["image_scale"])


def require_spots_inside(spots) -> None:
    """Refuse a section whose spots lie outside its image; a section without image passes."""
    section = spots.uns["section"]
    if not section["image"]:
        return
    with open_image(section["image"]) as slide:
        centres_px = np.asarray(spots.obsm["spatial"], np.float64) * float(section["image_scale"])
        require_inside(centres_px, slide, spots.obs_names, slide.path)
