"""TIFF, BigTIFF, OME-TIFF and Aperio SVS: levels, tiles, strips, pixel size."""

import logging
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError
from ctrflow.image.slide import (
    CACHE_BYTES,
    WHITE,
    Image,
    Level,
    Window,
    guarded,
    number_in,
    on_white,
    require_decodable,
    square_um_per_px,
    warn_if_turned,
)

logger = logging.getLogger("ctrflow")

_UNITS_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_APERIO_JPEG2000 = {33003, 33005}  # TIFF compression; the first is YCbCr although it is not declared


def open_tiff(path: Path) -> Image:
    """Open the largest image of a TIFF."""
    import tifffile

    with guarded(path):
        tiff = tifffile.TiffFile(path)
    with guarded(path, tiff.close):
        _require_all_pages(path, tiff)
        # the largest image is the slide; others are labels, macros and thumbnails
        series = max(tiff.series, key=lambda one: math.prod(_yx(one)))
        warn_if_turned(path, series.keyframe.tags.valueof("Orientation", 1))
        return Image(path, _levels(path, tiff, series), tiff.close, _um_per_px(tiff, series))


def is_jpeg2000(path: Path) -> bool:
    """Whether an Aperio slide is compressed as JPEG 2000."""
    import tifffile

    with guarded(path), tifffile.TiffFile(path) as tiff:
        return int(tiff.pages.first.compression) in _APERIO_JPEG2000


def require_complete_pages(path: Path) -> None:
    """Raise an InputError if a TIFF of any vendor is truncated."""
    import tifffile

    with guarded(path), tifffile.TiffFile(path) as tiff:
        _require_all_pages(path, tiff)
        _require_pixels(path, list(tiff.pages))


def _require_all_pages(path: Path, tiff) -> None:
    """Raise an InputError if the chain of pages leads beyond the end of the file: the slide may be missing."""
    last = tiff.pages.next_page_offset
    if last is None:
        return
    tiff.filehandle.seek(last)
    pointer = tiff.filehandle.read(tiff.tiff.offsetsize)
    if pointer.strip(b"\0") or len(pointer) < tiff.tiff.offsetsize:
        raise InputError(
            f"{path}: truncated image (it has more than {len(tiff.pages)} pages); export or download it again"
        )


def _require_pixels(path: Path, pages) -> None:
    """Raise an InputError if the pixels of a page would lie beyond the end of the file."""
    size = path.stat().st_size
    for page in pages:
        ends = np.asarray(page.dataoffsets, np.int64) + np.asarray(page.databytecounts, np.int64)
        if len(ends) and ends.max() > size:
            raise InputError(
                f"{path}: truncated image (its pixels end at byte {ends.max():,}, but the file has {size:,}); "
                "export or download it again"
            )


def _um_per_px(tiff, series) -> float | None:
    """From OME metadata, else Aperio's description, else the resolution tags (in ImageJ's unit if it wrote them)."""
    page = series.keyframe
    stated = _ome_um(tiff.ome_metadata, *_yx(series)) if tiff.is_ome else set()
    if aperio := re.search(r"\|\s*MPP\s*=\s*(\d+(?:[.,]\d+)?)", page.description if tiff.is_svs else ""):
        stated = {(float(aperio[1].replace(",", ".")),) * 2}
    if stated:
        return square_um_per_px(*stated.pop()) if len(stated) == 1 else None
    unit_um = {2: 25_400.0, 3: 10_000.0}.get(page.tags.valueof("ResolutionUnit", 2))
    if tiff.is_imagej:
        unit_um = _UNITS_UM.get(str(tiff.imagej_metadata.get("unit")).replace("\\u00B5", "µ"), unit_um)
    per_unit = [page.tags.valueof(name, (0, 1)) for name in ("XResolution", "YResolution")]
    if unit_um is None or not all(numerator and denominator for numerator, denominator in per_unit):
        return None
    return square_um_per_px(*(unit_um * denominator / numerator for numerator, denominator in per_unit))


def _ome_um(xml: str, height: int, width: int) -> set[tuple[float, float]]:
    """(PhysicalSizeX, PhysicalSizeY) of the images of this size, µm; 0 if the unit is not a length."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return set()
    stated = set()
    for pixels in root.iterfind(".//{*}Pixels"):
        sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "XY"]
        if (pixels.get("SizeX"), pixels.get("SizeY")) != (str(width), str(height)) or None in sizes:
            continue
        units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY"]
        stated.add(tuple(number_in(size) * _UNITS_UM.get(unit, 0) for size, unit in zip(sizes, units, strict=True)))
    return stated


def _yx(series) -> tuple[int, int]:
    """Height and width."""
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return sizes.get("Y", 0), sizes.get("X", 0)


def _levels(path: Path, tiff, series) -> list[Level]:
    height, width = _yx(series)
    lock = threading.Lock()  # of the file's position
    kept = _tile_cache(CACHE_BYTES)
    levels = []
    for level in series.levels:
        level_height, level_width = _yx(level)
        factor = _downsample(width, height, level_width, level_height)
        if factor is None:
            continue
        _require_rgb(path, level)
        _require_pixels(path, level.pages)
        if level.keyframe.is_tiled:
            require_decodable(path, level.keyframe.tilewidth, level.keyframe.tilelength)
            window = _tiled_window(level, _tile_reader(tiff.filehandle, lock, level), kept)
        else:
            window = _strips_window(path, level, lock)
        levels.append(Level(level_width, level_height, factor, window))
    return levels


def _downsample(width: int, height: int, level_width: int, level_height: int) -> float | None:
    """The downsampling factor of a level; None if it has other proportions, that is, shows something else.

    Writers round the size of a level up or down, so an integer that explains both sides is preferred.
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
    """Raise an InputError if a level is not an 8-bit RGB(A) or grey image."""
    page = level.keyframe
    cure = "export the H&E image as an 8-bit RGB TIFF, or correct column `image` of the section sheet"
    if level.dtype != np.uint8:
        raise InputError(f"{path}: pixels of type {level.dtype}, not 8 bits per channel; {cure}")
    channels = dict(zip(level.axes, level.shape, strict=True))
    layout = level.axes.replace("C", "S")
    # a fourth channel is alpha only if the file says so; of separate channels it is a fluorescent dye
    counts = {"YXS": (3, 4), "SYX": (3,), "YX": (1,)}.get(layout, ())
    count = channels.get("S", channels.get("C", 1))
    if count not in counts or (count == 4 and "C" in channels):
        shape = " x ".join(f"{size} {axis}" for axis, size in zip(level.axes, level.shape, strict=True))
        raise InputError(f"{path}: a stack or a set of channels ({shape}), not an RGB image; {cure}")
    # plain numbers if tifffile has no name for them
    kind, compression = (getattr(tag, "name", str(tag)) for tag in (page.photometric, page.compression))
    as_rgb = kind in {"RGB", "MINISBLACK"} or (kind == "YCBCR" and "JPEG" in compression)
    if not as_rgb:
        raise InputError(f"{path}: colours stored as {kind} ({compression}); {cure}")


def _has_alpha(page) -> bool:
    return page.samplesperpixel == 4 and any(sample in (1, 2) for sample in page.extrasamples)


def _tile_cache(limit_bytes: int) -> Callable[[object, Callable[[], np.ndarray]], np.ndarray]:
    """A thread-safe LRU cache of decoded tiles.

    Returns a function (key, decode) -> tile.
    """
    kept: OrderedDict = OrderedDict()
    lock = threading.Lock()
    size = 0

    def tile(key, decode: Callable[[], np.ndarray]) -> np.ndarray:
        nonlocal size
        with lock:
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        pixels = decode()
        with lock:
            if key not in kept:  # another thread may have added it
                kept[key] = pixels
                size += pixels.nbytes
            while size > limit_bytes:
                size -= kept.popitem(last=False)[1].nbytes
        return pixels

    return tile


def _tile_reader(file, lock: threading.Lock, level) -> Callable[[int], np.ndarray]:
    """A function that decodes one tile: its number in the level -> uint8 h x w x 3 (or 1).

    tifffile's decoders are called directly, since its Zarr store takes longer than they do.
    """
    page = level.keyframe
    height, width = _yx(level)
    tiles = math.ceil(height / page.tilelength) * math.ceil(width / page.tilewidth)
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        planes = [(page, plane * tiles) for plane in range(page.samplesperpixel)]
    else:
        planes = [(one, 0) for one in level.pages]  # one page, or one for each colour
    alpha = _has_alpha(page)

    def segment(one, number: int) -> np.ndarray:
        count = one.databytecounts[number]
        if not count:  # a sparse tile
            return np.full((page.tilelength, page.tilewidth, page.samplesperpixel), WHITE, np.uint8)
        with lock:
            file.seek(one.dataoffsets[number])
            coded = file.read(count)
        return page.decode(coded, number, jpegtables=one.jpegtables)[0][0]

    def read(number: int) -> np.ndarray:
        if len(planes) > 1:
            return np.concatenate([segment(one, first + number)[..., :1] for one, first in planes], axis=-1)
        pixels = segment(page, number)
        return on_white(pixels) if alpha else pixels[..., :3]

    return read


def _tiled_window(level, read: Callable[[int], np.ndarray], kept) -> Window:
    """Windows assembled from cached tiles."""
    tile_height, tile_width = level.keyframe.tilelength, level.keyframe.tilewidth
    across = math.ceil(_yx(level)[1] / tile_width)

    def window(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        pixels = np.empty((bottom - top, right - left, 3), np.uint8)
        for row in range(top // tile_height, (bottom - 1) // tile_height + 1):
            for column in range(left // tile_width, (right - 1) // tile_width + 1):
                number = row * across + column
                tile = kept((id(level), number), lambda number=number: read(number))
                y, x = row * tile_height, column * tile_width
                y0, y1 = max(top, y), min(bottom, y + tile_height)
                x0, x1 = max(left, x), min(right, x + tile_width)
                pixels[y0 - top : y1 - top, x0 - left : x1 - left] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        return pixels

    return window


def _strips_window(path: Path, level, lock: threading.Lock) -> Window:
    @cache
    def pixels() -> np.ndarray:  # opened when first read: most levels never are
        if level.keyframe.compression == 1 and level.dataoffset is not None:
            return np.memmap(path, np.uint8, "r", level.dataoffset, level.shape)
        height, width = _yx(level)
        require_decodable(path, width, height)
        logger.info("%s: compressed strips; decoding the complete level of %d x %d px", path, width, height)
        return level.asarray(maxworkers=1)

    planes_first = level.axes[0] in "SC"
    grey = level.axes == "YX"
    alpha = _has_alpha(level.keyframe)

    def window(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        with lock:  # two threads decode it once
            level_px = pixels()
        part = np.asarray(level_px[:, top:bottom, left:right] if planes_first else level_px[top:bottom, left:right])
        if grey:
            return part[..., None]  # broadcasts to the three channels
        if planes_first:
            return np.moveaxis(part, 0, -1)
        return on_white(part) if alpha else part[..., :3]

    return window
