"""Windows of a slide image: TIFF, BigTIFF, OME-TIFF, SVS, NDPI and what else OpenSlide knows, JPEG, PNG, the pictures
inside an .h5ad; always RGB, 8 bits a channel.

Coordinates are continuous image px, (x, y) from the upper left corner of the full-resolution level; pixel i covers
[i, i + 1).

What others use is named here. `slide` holds the image and what all readers share, `formats` chooses the reader (`tiff`,
`scanner`, `photo` or `h5ad`), `patches` cuts and shrinks an image of any kind, and `section` lays a section's spots on
its image.
"""

from ctrflow.image.formats import open_image
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
    "Image", "cut_patches", "open_image", "pictured_spots", "positive", "reading_order", "require_inside",
    "require_spots_inside", "scales", "section_patches", "section_thumbnail", "stream_patches", "thumbnail",
]  # fmt: skip
