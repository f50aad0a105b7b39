"""Windows of a slide image: TIFF, BigTIFF, OME-TIFF, SVS, NDPI and what else OpenSlide knows, JPEG, PNG, the pictures
inside an .h5ad; always RGB, 8 bits a channel.

Coordinates are continuous image px, (x, y) from the upper left corner of the full-resolution level; pixel i covers
[i, i + 1).
"""

import errno
import logging
import math
import re
import struct
import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few

logger = logging.getLogger("ctrflow")

WHITE = 255
_MAX_DECODED_PX = 4_000_000_000  # of a picture that is decoded whole: 12 GB
_BAND_PX = 1024
_CACHE_BYTES = 256 * 2**20  # decoded tiles of one image; neighbouring patches share them
_BATCHES_AHEAD = 2
_PLAUSIBLE_UM_PER_PX = (0.05, 20.0)  # a microscope's; 72 dpi would be 353
_ANISOTROPY = 0.02
_UNITS_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_APERIO_JPEG2000 = {33003, 33005}  # TIFF compression; the first holds YCbCr without saying so
_SIGNATURES = {
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\xff\xd8\xff": "photo",
    b"\x89PNG": "photo",
    b"\x89HDF": "hdf5",
}
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)  # says nothing of the file's content
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


_Window = Callable[[int, int, int, int], np.ndarray]  # (top, bottom, left, right) inside a level -> h x w x 3 (or 1)


@dataclass(frozen=True)
class _Level:
    width_px: int
    height_px: int
    downsample: float
    window: _Window


class Image:
    """A slide image read by windows; made by `open_image`, also a context manager.

    Attributes
    ----------
    path : Path
    width_px, height_px : int
        size of the full-resolution level
    levels : list of float
        downsample factor of every level, 1.0 first, ascending
    um_per_px : float or None
        what the file itself says of the full-resolution pixel; None where it says nothing, nothing plausible (72 dpi),
        or pixels that are not square
    """

    def __init__(
        self,
        path: Path,
        levels: list[_Level],
        close: Callable[[], None] = lambda: None,
        um_per_px: float | None = None,
    ):
        self.path = path
        self.um_per_px = um_per_px
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
        with _opening(self.path):
            pixels[top - y : bottom - y, left - x : right - x] = source.window(top, bottom, left, right)
        return pixels


def open_image(path: str | Path) -> Image:
    """Open a slide image.

    Tiled and uncompressed TIFFs (Aperio SVS among them) are read by windows, and so are all the slides OpenSlide knows
    (NDPI, MIRAX, SCN, DICOM, ...), of which the part inside the scanner's bounds is the image, as in QuPath. JPEG and
    PNG, and a level of a TIFF made of compressed strips (each as wide as the slide, so that every window would decode
    them again), are decoded once and kept. Of an .h5ad it is the picture `fullres`, else `hires`, of its only library
    in `uns["spatial"]`. Grey becomes RGB; transparent pixels are laid on white. The kind is told by content, not by the
    file's name.

    Raises
    ------
    InputError
        if the file is missing, damaged, cut short, no image, or not an 8-bit RGB or grey picture.
    """
    import openslide

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image; check column `image` of the section sheet")
    with _opening(path), path.open("rb") as file:
        head = file.read(4)
    kind = next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)
    if kind == "hdf5":
        return _open_hdf5(path)
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor not in {None, "generic-tiff", "aperio"} or (vendor == "aperio" and _is_jpeg2000(path)):
        return _open_openslide(path, vendor, kind)
    if path.suffix.lower() == ".mrxs":  # often itself a JPEG, but only a small preview
        raise InputError(f"{path}: a MIRAX slide without its folder; put {path.stem}/ with Slidedat.ini beside it")
    if kind is None:
        raise InputError(
            f"{path}: not a TIFF, JPEG or PNG image, nor a slide that OpenSlide knows, nor an .h5ad, whatever its name "
            "says; export or download it again, or correct column `image` of the section sheet"
        )
    return _open_tiff(path) if kind == "tiff" else _open_photo(path)


def require_inside(centres_px: np.ndarray, image: Image, names: Sequence[str]) -> None:
    """Refuse spot centres that lie outside the image: nearly always a wrong image or a wrong scale.

    Parameters
    ----------
    centres_px : n x 2, (x, y), full-resolution image px
    names : n spot ids
    """
    inside = _inside(centres_px, image)
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
        f"{image.path}: {len(outside)} of {len(inside)} spots lie outside the image ({few}); "
        f"the image is {image.width_px} x {image.height_px} px, {span} in px of it; "
        "check columns `image`, `image_scale` (image px per full-resolution px) and `um_per_px` of the section sheet"
    )


def _inside(centres_px: np.ndarray, image: Image) -> np.ndarray:
    return ((centres_px >= 0) & (centres_px <= [image.width_px, image.height_px])).all(axis=1)  # NaN is outside


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
    """`cut_patches` over consecutive batches of centres; yields (which rows of `centres_px`, patches, padded).

    The next two batches are cut by a background thread while the caller works on one. The thread's errors are raised
    here, when their batch is due; leaving the loop early ends it.
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
    """The order in which patches are read fastest: along bands of the slide, each as high as a patch.

    Neighbours share tiles, which then are decoded once. Worth it where spots lie in random order, as barcodes do.

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
    if isinstance(error, OSError) and error.errno in _UNREADABLE:
        return InputError(f"{path}: cannot be read ({error.strerror}); check its permissions and its disk")
    reason = str(error).strip() or type(error).__name__
    return InputError(f"{path}: damaged or cut short image ({reason}); export or download it again")


@contextmanager
def _opening(path: Path, close: Callable[[], None] = lambda: None) -> Iterator[None]:
    """What the readers raise on a file that is no good becomes an InputError; the file is closed then."""
    try:
        yield
    except InputError:
        close()
        raise
    except _DAMAGE as error:
        close()
        raise _damaged(path, error) from error


def _require_decodable(path: Path, width: int, height: int) -> None:
    """Refuse a picture that would not fit into memory."""
    if width * height > _MAX_DECODED_PX:
        raise InputError(f"{path}: {width} x {height} px is too large to be decoded whole; save it as a tiled TIFF")


def _number(text: str) -> float:
    """What a text says; 0 where it is no number."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _square_um_per_px(x_um: float, y_um: float) -> float | None:
    """One size of a pixel from two, if they agree and are plausible."""
    low, high = _PLAUSIBLE_UM_PER_PX
    if not (low <= x_um <= high and low <= y_um <= high) or abs(x_um / y_um - 1) > _ANISOTROPY:
        return None
    return (x_um + y_um) / 2


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """h x w x 4 with alpha last -> h x w x 3."""
    alpha = pixels[..., 3:].astype(np.uint16)
    mixed = (pixels[..., :3] * alpha + WHITE * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def _open_photo(path: Path) -> Image:
    """JPEG or PNG: the header through Pillow, the pixels of a JPEG through libjpeg straight into the array."""
    from PIL import Image as pil

    limit, pil.MAX_IMAGE_PIXELS = pil.MAX_IMAGE_PIXELS, None  # a slide is no decompression bomb; ours is below
    try:
        with _opening(path), pil.open(path) as picture:
            width, height = picture.size
            _require_decodable(path, width, height)
            if picture.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}:
                raise InputError(f"{path}: pixels of kind {picture.mode}; save it as an 8-bit RGB image")
            dpi = [float(value) for value in picture.info.get("dpi", (0, 0))]
            pixels = _decode(picture) if picture.format == "PNG" else _decode_jpeg(path)
    finally:
        pil.MAX_IMAGE_PIXELS = limit
    um_per_px = _square_um_per_px(25400 / dpi[0], 25400 / dpi[1]) if all(dpi) else None
    return Image(path, [_Level(width, height, 1.0, _array_window(pixels))], um_per_px=um_per_px)


def _array_window(pixels: np.ndarray) -> _Window:
    return lambda top, bottom, left, right: pixels[top:bottom, left:right]


def _decode_jpeg(path: Path) -> np.ndarray:
    """uint8 h x w x 3 (or 1), without a second copy."""
    import imagecodecs

    content = path.read_bytes()
    # libjpeg fills the missing part of a file cut short with grey: the end of the image must follow its last scan.
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ValueError("the end of the JPEG data is missing")
    pixels = imagecodecs.jpeg_decode(content)
    return pixels if pixels.ndim == 3 else pixels[..., None]


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


def _open_hdf5(path: Path) -> Image:
    """The picture of an .h5ad."""
    import h5py

    with _opening(path):
        file = h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES)
    with _opening(path, file.close):
        picture = _stored_picture(path, file)
        window = _stored_window(picture, _stored_unit(path, picture))
    logger.info("%s: image %s, %d x %d px", path, picture.name, picture.shape[1], picture.shape[0])
    return Image(path, [_Level(picture.shape[1], picture.shape[0], 1.0, window)], file.close)


def _stored_picture(path: Path, file):
    """The dataset of the picture in `uns/spatial/<library>/images`."""
    import h5py

    cure = "give the image as a file of its own in column `image` of the section sheet"
    spatial = file.get("uns/spatial")
    libraries = dict(spatial) if isinstance(spatial, h5py.Group) else {}
    images = {name: library["images"] for name, library in libraries.items() if _has_images(library)}
    if not images:
        raise InputError(f"{path}: HDF5 without pictures (no uns/spatial/<library>/images); {cure}")
    if len(images) > 1:
        raise InputError(f"{path}: pictures of {len(images)} libraries ({first_few(images)}), not of one; {cure}")
    (stored,) = images.values()
    name = next((name for name in ("fullres", "hires") if name in stored), None)
    if name is None:
        raise InputError(f"{path}: no picture `fullres` or `hires` in {stored.name} ({first_few(stored)}); {cure}")
    picture = stored[name]
    if not isinstance(picture, h5py.Dataset) or picture.ndim != 3 or picture.shape[2] not in {3, 4} or not picture.size:
        raise InputError(f"{path}: {picture.name} is no RGB picture (height, width, 3); {cure}")
    if picture.dtype != np.uint8 and picture.dtype.kind != "f":
        raise InputError(f"{path}: {picture.name} holds {picture.dtype}, neither 8 bits a channel nor 0 to 1; {cure}")
    return picture


def _has_images(library) -> bool:
    import h5py

    return isinstance(library, h5py.Group) and isinstance(library.get("images"), h5py.Group)


def _stored_unit(path: Path, picture) -> float:
    """What a stored value is multiplied with to be 0 to 255."""
    if picture.dtype == np.uint8:
        return 1.0
    highest = 0.0
    for top in range(0, len(picture), _BAND_PX):
        band = picture[top : top + _BAND_PX]
        low, high = float(band.min()), float(band.max())
        if not (low > -0.01 and high < 255.5):  # nor NaN
            raise InputError(f"{path}: {picture.name} has values from {low:g} to {high:g}; write 0 to 255, or 0 to 1")
        highest = max(highest, high)
    return 255.0 if highest < 1.5 else 1.0  # resampling may leave a little more than 1


def _stored_window(picture, unit: float) -> _Window:
    def window(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        part = picture[top:bottom, left:right]
        if part.dtype != np.uint8:
            part = np.clip(np.rint(part * unit), 0, 255).astype(np.uint8)
        return _on_white(part) if part.shape[2] == 4 else part

    return window


def _open_openslide(path: Path, vendor: str, kind: str | None) -> Image:
    """A slide in a scanner's own format."""
    import openslide

    if kind == "tiff":
        _require_pages_whole(path)  # OpenSlide looks at the pixels only when they are read
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise InputError(
            f"{path}: a slide of kind {vendor} that OpenSlide cannot read ({error}); "
            "copy it again with all files that belong to it, or export it as a tiled RGB TIFF"
        ) from error
    slide.set_cache(openslide.OpenSlideCache(_CACHE_BYTES))
    with _opening(path, slide.close):
        left, top, width, height = _bounds(slide)
        if (width, height) != slide.dimensions:
            text = "%s: the image is the scanned part, %d x %d px from (%d, %d) of OpenSlide's %d x %d"
            logger.info(text, path, width, height, left, top, *slide.dimensions)
        lock = threading.Lock()
        levels = [
            _Level(
                max(1, int(width / factor)),
                max(1, int(height / factor)),
                factor,
                _openslide_window(slide, lock, level, (left, top)),
            )
            for level, factor in enumerate(slide.level_downsamples)
        ]
        um = [_number(slide.properties.get(f"openslide.mpp-{axis}", "")) for axis in "xy"]

    def close() -> None:
        with lock:  # never under a thread that reads
            slide.close()

    return Image(path, levels, close, _square_um_per_px(*um))


def _bounds(slide) -> tuple[int, int, int, int]:
    """Left, top, width and height of what the scanner saw, in level 0; all of it where nothing is said."""
    names = ("x", "y", "width", "height")
    found = [slide.properties.get(f"openslide.bounds-{name}") for name in names]
    if None in found:
        return 0, 0, *slide.dimensions
    left, top, width, height = map(int, found)
    left, top = max(left, 0), max(top, 0)
    return left, top, min(width, slide.dimensions[0] - left), min(height, slide.dimensions[1] - top)


def _openslide_window(slide, lock: threading.Lock, level: int, origin: tuple[int, int]) -> _Window:
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
        return pixels[..., :3] if pixels[..., 3].min() == 255 else _on_white(pixels)

    return window


def _is_jpeg2000(path: Path) -> bool:
    """Whether an Aperio slide is."""
    import tifffile

    with _opening(path), tifffile.TiffFile(path) as tiff:
        return int(tiff.pages.first.compression) in _APERIO_JPEG2000


def _require_pages_whole(path: Path) -> None:
    import tifffile

    with _opening(path), tifffile.TiffFile(path) as tiff:
        _require_all_pages(path, tiff)
        _require_whole(path, list(tiff.pages))


def _open_tiff(path: Path) -> Image:
    import tifffile

    with _opening(path):
        tiff = tifffile.TiffFile(path)
    with _opening(path, tiff.close):
        _require_all_pages(path, tiff)
        # The slide is the largest picture; others are labels, macros and thumbnails.
        series = max(tiff.series, key=lambda one: math.prod(_yx(one)))
        return Image(path, _tiff_levels(path, tiff, series), tiff.close, _tiff_um_per_px(tiff, series))


def _tiff_um_per_px(tiff, series) -> float | None:
    """From OME metadata, else Aperio's description, else the resolution tags (in ImageJ's unit where it wrote them)."""
    page = series.keyframe
    stated = _ome_um(tiff.ome_metadata, *_yx(series)) if tiff.is_ome else set()
    if aperio := re.search(r"\|\s*MPP\s*=\s*(\d+(?:[.,]\d+)?)", page.description if tiff.is_svs else ""):
        stated = {(float(aperio[1].replace(",", ".")),) * 2}
    if stated:
        return _square_um_per_px(*stated.pop()) if len(stated) == 1 else None
    unit_um = {2: 25_400.0, 3: 10_000.0}.get(page.tags.valueof("ResolutionUnit", 2))
    if tiff.is_imagej:
        unit_um = _UNITS_UM.get(str(tiff.imagej_metadata.get("unit")).replace("\\u00B5", "µ"), unit_um)
    per_unit = [page.tags.valueof(name, (0, 1)) for name in ("XResolution", "YResolution")]
    if unit_um is None or not all(numerator and denominator for numerator, denominator in per_unit):
        return None
    return _square_um_per_px(*(unit_um * denominator / numerator for numerator, denominator in per_unit))


def _ome_um(xml: str, height: int, width: int) -> set[tuple[float, float]]:
    """(PhysicalSizeX, PhysicalSizeY) of the images of this size, µm; 0 where the unit is no length."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return set()
    found = set()
    for pixels in root.iterfind(".//{*}Pixels"):
        sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "XY"]
        if (pixels.get("SizeX"), pixels.get("SizeY")) != (str(width), str(height)) or None in sizes:
            continue
        units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY"]
        found.add(tuple(_number(size) * _UNITS_UM.get(unit, 0) for size, unit in zip(sizes, units, strict=True)))
    return found


def _yx(series) -> tuple[int, int]:
    """Height and width."""
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return sizes.get("Y", 0), sizes.get("X", 0)


def _tiff_levels(path: Path, tiff, series) -> list[_Level]:
    height, width = _yx(series)
    lock = threading.Lock()  # of the file's position
    kept = _tile_cache(_CACHE_BYTES)
    levels = []
    for level in series.levels:
        level_height, level_width = _yx(level)
        factor = _downsample(width, height, level_width, level_height)
        if factor is None:
            continue
        _require_rgb(path, level)
        _require_whole(path, level.pages)
        if level.keyframe.is_tiled:
            window = _tiled_window(level, _tile_reader(tiff.filehandle, lock, level), kept)
        else:
            window = _strips_window(path, level, lock)
        levels.append(_Level(level_width, level_height, factor, window))
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


def _require_all_pages(path: Path, tiff) -> None:
    """Refuse a file whose chain of pages leads behind its end: the slide may be among the lost ones."""
    last = tiff.pages.next_page_offset
    if last is None:
        return
    tiff.filehandle.seek(last)
    pointer = tiff.filehandle.read(tiff.tiff.offsetsize)
    if pointer.strip(b"\0") or len(pointer) < tiff.tiff.offsetsize:
        raise InputError(
            f"{path}: cut short image (it has more than {len(tiff.pages)} pages); export or download it again"
        )


def _require_whole(path: Path, pages) -> None:
    """Refuse pages whose pixels would lie behind the end of the file."""
    size = path.stat().st_size
    for page in pages:
        ends = np.asarray(page.dataoffsets, np.int64) + np.asarray(page.databytecounts, np.int64)
        if len(ends) and ends.max() > size:
            raise InputError(
                f"{path}: cut short image (its pixels should reach byte {ends.max():,}, the file has {size:,}); "
                "export or download it again"
            )


def _tile_cache(limit_bytes: int) -> Callable[[object, Callable[[], np.ndarray]], np.ndarray]:
    """A memory of decoded tiles, the least recently used forgotten first; threads may share it.

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
            if key not in kept:  # another thread may have been faster
                kept[key] = pixels
                size += pixels.nbytes
            while size > limit_bytes:
                size -= kept.popitem(last=False)[1].nbytes
        return pixels

    return tile


def _tile_reader(file, lock: threading.Lock, level) -> Callable[[int], np.ndarray]:
    """A function that decodes one tile: its number in the level -> uint8 h x w x 3 (or 1).

    tifffile's decoders are called without its Zarr store, which takes longer than they do.
    """
    page = level.keyframe
    height, width = _yx(level)
    tiles = math.ceil(height / page.tilelength) * math.ceil(width / page.tilewidth)
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        planes = [(page, plane * tiles) for plane in range(page.samplesperpixel)]
    else:
        planes = [(one, 0) for one in level.pages]  # one page, or one for each colour
    alpha = page.samplesperpixel == 4 and any(sample in (1, 2) for sample in page.extrasamples)

    def segment(one, number: int) -> np.ndarray:
        count = one.databytecounts[number]
        if not count:  # left out by the writer: nothing there
            return np.full((page.tilelength, page.tilewidth, page.samplesperpixel), WHITE, np.uint8)
        with lock:
            file.seek(one.dataoffsets[number])
            coded = file.read(count)
        return page.decode(coded, number, jpegtables=one.jpegtables)[0][0]

    def read(number: int) -> np.ndarray:
        if len(planes) > 1:
            return np.concatenate([segment(one, first + number)[..., :1] for one, first in planes], axis=-1)
        pixels = segment(page, number)
        return _on_white(pixels) if alpha else pixels[..., :3]

    return read


def _tiled_window(level, read: Callable[[int], np.ndarray], kept) -> _Window:
    """Windows put together from tiles that are decoded once while they are remembered."""
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


def _strips_window(path: Path, level, lock: threading.Lock) -> _Window:
    @cache
    def pixels() -> np.ndarray:  # opened when first read: most levels never are
        if level.keyframe.compression == 1 and level.dataoffset is not None:
            return np.memmap(path, np.uint8, "r", level.dataoffset, level.shape)
        _require_decodable(path, *_yx(level)[::-1])
        logger.info("%s: compressed strips, so the level of %s px is decoded whole", path, _yx(level)[::-1])
        return level.asarray(maxworkers=1)

    planes_first = level.axes[0] in "SC"
    grey = level.axes == "YX"
    alpha = level.shape[-1] == 4 and any(sample in (1, 2) for sample in level.keyframe.extrasamples)

    def window(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        with lock:  # two threads decode it once
            whole = pixels()
        part = np.asarray(whole[:, top:bottom, left:right] if planes_first else whole[top:bottom, left:right])
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
    if spots.uns["section"]["image"]:
        with _placed(spots) as (slide, centres_px):
            require_inside(centres_px, slide, spots.obs_names)


def pictured_spots(spots):
    """The spots whose centres lie on the section's image, all of them where it has none.

    An H&E picture taken after a Xenium run often shows less of the slide than the run did. Fewer than half inside mean
    a wrong image or alignment, and are refused.
    """
    if not spots.uns["section"]["image"]:
        return spots
    with _placed(spots) as (slide, centres_px):
        inside = _inside(centres_px, slide)
        if inside.mean() < 0.5:
            require_inside(centres_px, slide, spots.obs_names)
        if not inside.all():
            logger.warning("%s: shows %d of %d spots, the others are left out", slide.path, inside.sum(), len(inside))
    return spots if inside.all() else spots[inside].copy()


@contextmanager
def _placed(spots) -> Iterator[tuple[Image, np.ndarray]]:
    """A section's image, and its spots' centres in px of it."""
    section = spots.uns["section"]
    with open_image(section["image"]) as slide:
        yield slide, np.asarray(spots.obsm["spatial"], np.float64) * float(section["image_scale"])
