"""The image inside an .h5ad, read by windows."""

import logging
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.image.slide import BAND_PX, CACHE_BYTES, Image, Level, Window, guarded, number_in, on_white

logger = logging.getLogger("ctrflow")

IMAGES_INSIDE = ("fullres", "hires", "downscaled_fullres")  # by preference; HEST-1k has the last


def open_h5ad(path: Path, library: str = "") -> Image:
    """Open the image in an .h5ad: of its only library, or of the one that is named."""
    import h5py

    with guarded(path):
        file = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    with guarded(path, file.close):
        picture = _picture(path, file, library)
        window = _window(picture, _unit(path, picture))
    logger.info("%s: image %s, %d x %d px", path, picture.name, picture.shape[1], picture.shape[0])
    return Image(path, [Level(picture.shape[1], picture.shape[0], 1.0, window)], file.close)


def _picture(path: Path, file, library: str):
    """The dataset of the image in `uns/spatial/<library>/images`."""
    import h5py

    cure = "give a separate image file in column `image` of the section sheet"
    spatial = file.get("uns/spatial")
    libraries = dict(spatial) if isinstance(spatial, h5py.Group) else {}
    images = {name: one["images"] for name, one in libraries.items() if _has_images(one) and library in ("", name)}
    if not images:
        raise InputError(f"{path}: HDF5 file without images (no uns/spatial/<library>/images); {cure}")
    if len(images) > 1:
        raise InputError(f"{path}: images of {len(images)} libraries ({first_few(images)}), expected one; {cure}")
    (stored,) = images.values()
    inside = [name for name in IMAGES_INSIDE if name in stored]
    name = next((name for name in inside if _has_scale(stored.parent, name)), next(iter(inside), None))
    if name is None:
        raise InputError(f"{path}: no image `fullres` or `hires` in {stored.name} (it has {first_few(stored)}); {cure}")
    picture = stored[name]
    if not isinstance(picture, h5py.Dataset) or picture.ndim != 3 or picture.shape[2] not in {3, 4} or not picture.size:
        raise InputError(f"{path}: {picture.name} is not an RGB image (height, width, 3); {cure}")
    if picture.dtype != np.uint8 and picture.dtype.kind != "f":
        raise InputError(f"{path}: {picture.name} is {picture.dtype}, not 8 bits per channel or 0 to 1; {cure}")
    return picture


def _has_scale(library, name: str) -> bool:
    """Whether an image is at full resolution, or its file states a scale: those come before others."""
    import h5py

    stated = library.get(f"scalefactors/tissue_{name}_scalef")
    if name == "fullres" or not isinstance(stated, h5py.Dataset) or stated.size != 1:
        return name == "fullres"
    value = np.ravel(stated[()])[0]
    return number_in(value.decode() if isinstance(value, bytes) else str(value)) > 0


def _has_images(library) -> bool:
    import h5py

    return isinstance(library, h5py.Group) and isinstance(library.get("images"), h5py.Group)


def _unit(path: Path, picture) -> float:
    """The factor that maps stored values to 0 to 255."""
    if picture.dtype == np.uint8:
        return 1.0
    highest = 0.0
    for top in range(0, len(picture), BAND_PX):
        band = picture[top : top + BAND_PX]
        low, high = float(band.min()), float(band.max())
        if not (low > -0.01 and high < 255.5):  # nor NaN
            raise InputError(f"{path}: {picture.name} has values from {low:g} to {high:g}; write 0 to 255, or 0 to 1")
        highest = max(highest, high)
    return 255.0 if highest < 1.5 else 1.0  # resampling can slightly exceed 1


def _window(picture, unit: float) -> Window:
    def window(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        part = picture[top:bottom, left:right]
        if part.dtype != np.uint8:
            part = np.clip(np.rint(part * unit), 0, 255).astype(np.uint8)
        return on_white(part) if part.shape[2] == 4 else part

    return window
