"""A section's spots on its image."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.image.formats import open_image
from ctrflow.image.patches import thumbnail
from ctrflow.image.slide import Image

logger = logging.getLogger("ctrflow")


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


@contextmanager
def _placed(spots) -> Iterator[tuple[Image, np.ndarray]]:
    """A section's image, and its spots' centres in px of it."""
    section = spots.uns["section"]
    with open_image(section["image"]) as slide:
        yield slide, np.asarray(spots.obsm["spatial"], np.float64) * float(section["image_scale"])


def _inside(centres_px: np.ndarray, image: Image) -> np.ndarray:
    return ((centres_px >= 0) & (centres_px <= [image.width_px, image.height_px])).all(axis=1)  # NaN is outside
