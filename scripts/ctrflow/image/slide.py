"""A slide image and what its readers share: levels, errors, pixel size, transparency."""

import errno
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError

logger = logging.getLogger("ctrflow")

WHITE = 255
BAND_PX = 1024  # rows processed at a time, where a full copy would be too large
CACHE_BYTES = 256 * 2**20  # decoded tiles of one image; neighbouring patches share them
_MAX_DECODED_PX = 4_000_000_000  # of an image that is decoded completely: 12 GB
PLAUSIBLE_UM_PER_PX = (0.05, 20.0)  # of a microscope; 72 dpi would be 353
_ANISOTROPY = 0.02
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)  # not about the file's content
# what the readers raise on damaged files; imagecodecs errors are RuntimeErrors
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

Window = Callable[[int, int, int, int], np.ndarray]  # (top, bottom, left, right) inside a level -> h x w x 3 (or 1)


@dataclass(frozen=True)
class Level:
    """One resolution of an image: its size, full-resolution px per level px, and the function that reads its pixels."""

    width_px: int
    height_px: int
    downsample: float
    window: Window


class Image:
    """A slide image read by windows; returned by `open_image`, also a context manager.

    Attributes
    ----------
    path : Path
    width_px, height_px : int
        size of the full-resolution level
    levels : list of float
        downsample factor of every level, 1.0 first, ascending
    um_per_px : float or None
        size of the full-resolution pixel as stated in the file; None if not stated, implausible (72 dpi) or not square
    """

    def __init__(
        self,
        path: Path,
        levels: list[Level],
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
        """Read the window of `w` x `h` px with upper left corner (`x`, `y`), all in px of `level`.

        Returns
        -------
        uint8, h x w x 3; white outside the image

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
        with guarded(self.path):
            pixels[top - y : bottom - y, left - x : right - x] = source.window(top, bottom, left, right)
        return pixels


@contextmanager
def guarded(path: Path, close: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn what the readers raise on a damaged file into an InputError and close the file."""
    try:
        yield
    except InputError:
        close()
        raise
    except _DAMAGE as error:
        close()
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.errno in _UNREADABLE:
        return InputError(f"{path}: cannot be read ({error.strerror}); check its permissions and its disk")
    reason = str(error).strip() or type(error).__name__
    return InputError(f"{path}: damaged or truncated image ({reason}); export or download it again")


def require_decodable(path: Path, width: int, height: int) -> None:
    """Raise an InputError if an image would not fit into memory."""
    if width * height > _MAX_DECODED_PX:
        raise InputError(f"{path}: {width} x {height} px is too large to decode at once; save it as a tiled TIFF")


def warn_if_turned(path: Path, orientation: int) -> None:
    """Warn if viewers rotate or mirror an image (EXIF and TIFF tag 274; 1 is upright)."""
    if orientation in range(2, 9):
        logger.warning(
            "%s: viewers rotate or mirror this image (orientation %d), but ctrflow reads its pixels as stored; if "
            "positions or annotations come from a viewer, save the image again upright",
            path, orientation,
        )  # fmt: skip


def square_um_per_px(x_um: float, y_um: float) -> float | None:
    """The pixel size from its two sides, if they agree and are plausible."""
    low, high = PLAUSIBLE_UM_PER_PX
    if not (low <= x_um <= high and low <= y_um <= high) or abs(x_um / y_um - 1) > _ANISOTROPY:
        return None
    return (x_um + y_um) / 2


def number_in(text: str) -> float:
    """The number in a text; 0 if it is not one."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def on_white(pixels: np.ndarray) -> np.ndarray:
    """h x w x 4 with alpha last -> h x w x 3."""
    alpha = pixels[..., 3:].astype(np.uint16)
    mixed = (pixels[..., :3] * alpha + WHITE * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)
