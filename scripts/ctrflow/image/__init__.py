"""Slide images, read by windows: TIFF, BigTIFF, OME-TIFF, SVS, NDPI and other OpenSlide formats, JPEG, PNG, images
inside an .h5ad; always RGB, 8 bits per channel.

Coordinates are continuous image px, (x, y) from the upper left corner of the full-resolution level; pixel i covers
[i, i + 1).

The public names are listed here. `slide` has the image class and what the readers share, `formats` chooses the reader
(`tiff`, `scanner`, `photo` or `h5ad`), `patches` cuts and downsamples images, `section` places a section's spots on its
image.
"""

from ctrflow.image.formats import facts_of, open_image
from ctrflow.image.patches import cut_patches, reading_order, stream_patches, thumbnail
from ctrflow.image.section import (
    pictured_spots,
    positive,
    require_inside,
    require_spots_inside,
    scales,
    section_patches,
    section_thumbnail,
)
from ctrflow.image.slide import Image

__all__ = [
    "Image", "cut_patches", "facts_of", "open_image", "pictured_spots", "positive", "reading_order", "require_inside",
    "require_spots_inside", "scales", "section_patches", "section_thumbnail", "stream_patches", "thumbnail",
]  # fmt: skip
