"""Which reader an image is for, told by its content."""

from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.image.h5ad import open_h5ad
from ctrflow.image.photo import open_photo
from ctrflow.image.scanner import open_scanner, vendor_of
from ctrflow.image.slide import Image, guarded
from ctrflow.image.tiff import open_tiff

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
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image; check column `image` of the section sheet")
    with guarded(path), path.open("rb") as file:
        head = file.read(4)
    kind = next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)
    if kind == "hdf5":
        return open_h5ad(path)
    if vendor := vendor_of(path):
        return open_scanner(path, vendor, is_tiff=kind == "tiff")
    if path.suffix.lower() == ".mrxs":  # often itself a JPEG, but only a small preview
        raise InputError(f"{path}: a MIRAX slide without its folder; put {path.stem}/ with Slidedat.ini beside it")
    if kind is None:
        raise InputError(
            f"{path}: not a TIFF, JPEG or PNG image, nor a slide that OpenSlide knows, nor an .h5ad, whatever its name "
            "says; export or download it again, or correct column `image` of the section sheet"
        )
    return open_tiff(path) if kind == "tiff" else open_photo(path)
