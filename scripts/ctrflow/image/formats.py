"""Choose the reader of an image by its content."""

import logging
from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.image.h5ad import open_h5ad
from ctrflow.image.photo import open_photo, photo_facts
from ctrflow.image.scanner import open_scanner, vendor_of
from ctrflow.image.slide import Image, guarded
from ctrflow.image.tiff import open_tiff

logger = logging.getLogger("ctrflow")

_SIGNATURES = {
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\xff\xd8\xff": "photo",
    b"\x89PNG": "photo",
    b"\x89HDF": "hdf5",
}


def open_image(path: str | Path) -> Image:
    """Open a slide image.

    Tiled and uncompressed TIFFs (including Aperio SVS) and the formats of OpenSlide (NDPI, MIRAX, SCN, DICOM, ...) are
    read by windows; of the latter, the image is the part inside the scanner's bounds, as in QuPath. JPEG, PNG and TIFF
    levels of compressed strips (each as wide as the slide, so every window would decode them again) are decoded once
    and kept. Of an .h5ad, the image is `fullres`, else `hires`, of its only library in `uns["spatial"]`, or
    of the one behind its path, as in `cohort.h5ad#left`. Grey becomes
    RGB; transparent pixels are blended with white. The format is detected by content, not by the file's name.

    Raises
    ------
    InputError
        if the file is missing, damaged, truncated, or not an 8-bit RGB or grey image.
    """
    path, library = Path(path), ""
    if not path.is_file() and "#" in path.name:
        path, library = path.with_name(path.name.partition("#")[0]), path.name.partition("#")[2]
    if not path.is_file():
        raise InputError(f"{path}: no such image; check column `image` of the section sheet")
    kind = _kind(path)
    if kind == "hdf5":
        return open_h5ad(path, library)
    if vendor := vendor_of(path):
        return open_scanner(path, vendor, is_tiff=kind == "tiff")
    if path.suffix.lower() == ".mrxs":  # often a JPEG, but only a small preview
        raise InputError(f"{path}: a MIRAX slide without its folder; put {path.stem}/ with Slidedat.ini next to it")
    if kind is None:
        raise InputError(
            f"{path}: not a TIFF, JPEG or PNG image, a slide format of OpenSlide, or an .h5ad, despite its name; "
            "export or download it again, or correct column `image` of the section sheet"
        )
    return open_tiff(path) if kind == "tiff" else open_photo(path)


def facts_of(path: str | Path) -> tuple[tuple[int, int], float | None] | None:
    """Width and height (px) of an image, and µm per px if stated, without decoding its pixels.

    None if the image is missing, as one that is still to be fetched, or cannot be read: that is reported where its
    pixels are used.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        if _kind(path) == "photo" and path.suffix.lower() != ".mrxs":
            return photo_facts(path)
        with open_image(path) as picture:
            return picture.size_px(0), picture.um_per_px
    except InputError as error:
        logger.info("the image is not looked at: %s", error)
        return None


def _kind(path: Path) -> str | None:
    """tiff, photo or hdf5, by how the file begins; None for anything else."""
    with guarded(path), path.open("rb") as file:
        head = file.read(4)
    return next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)
