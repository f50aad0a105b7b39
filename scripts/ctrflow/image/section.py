"""A section's spots on its image."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.image.formats import open_image
from ctrflow.image.patches import reading_order, stream_patches, thumbnail
from ctrflow.image.slide import Image

logger = logging.getLogger("ctrflow")


def section_thumbnail(spots, max_px: int) -> tuple[np.ndarray | None, float]:
    """Thumbnail of a section's image and its px per full-resolution px; (None, 0.0) without an image."""
    section = spots.uns["section"]
    if not section["image"]:
        return None, 0.0
    with open_image(section["image"]) as slide:
        pixels, scale = thumbnail(slide, max_px)
    return pixels, scale * float(section["image_scale"])


def scales(section: dict) -> tuple[float, float]:
    """`um_per_px` and `image_scale` of a section.

    Raises
    ------
    InputError
        naming the column to fill.
    """
    return positive(section, "um_per_px"), positive(section, "image_scale")


def positive(section: dict, key: str) -> float:
    """A length or scale of a section; raises an InputError that names the column to fill if it is not positive."""
    value = float(section.get(key, math.nan))
    if not 0 < value < math.inf:
        raise InputError(f"section {section['section']}: {key} is {value:g}; fill column `{key}` of the section sheet")
    return value


def section_patches(spots, um: float, px: int) -> np.ndarray:
    """The patch around every spot of a section, uint8 (spots x px x px x 3): `um` µm wide, white beyond the border.

    Raises
    ------
    InputError
        if the section has no image or no scale, or spots lie outside the image.
    """
    section = spots.uns["section"]
    if not section["image"]:
        raise InputError(
            f"section {section['section']}: no image to cut patches from; fill column `image` of the section sheet, or "
            "leave out the methods that need patches"
        )
    um_per_px, image_scale = scales(section)
    with _placed(spots) as (slide, centres_px):
        require_inside(centres_px, slide, spots.obs_names)
        side_px = um / um_per_px * image_scale
        order = reading_order(centres_px, side_px)
        patches = np.empty((len(centres_px), px, px, 3), np.uint8)
        for rows, batch, _ in stream_patches(slide, centres_px[order], side_px, px):
            patches[order[rows]] = batch
    return patches


def require_spots_inside(spots) -> None:
    """Raise an InputError if spots lie outside the section's image; a section without image passes."""
    if spots.uns["section"]["image"]:
        with _placed(spots) as (slide, centres_px):
            require_inside(centres_px, slide, spots.obs_names)


def pictured_spots(spots):
    """The spots whose centres lie on the section's image; all of them if it has no image.

    A post-run H&E image of a Xenium slide often shows less of the slide than the run. If fewer than half of the spots
    are inside, the image or alignment is wrong, and an InputError is raised.
    """
    if not spots.uns["section"]["image"]:
        return spots
    with _placed(spots) as (slide, centres_px):
        inside = _inside(centres_px, slide)
        if inside.mean() < 0.5:
            require_inside(centres_px, slide, spots.obs_names)
        if not inside.all():
            text = "%s: covers only %d of %d spots; the others are left out"
            logger.warning(text, slide.path, inside.sum(), len(inside))
    return spots if inside.all() else spots[inside].copy()


def require_inside(centres_px: np.ndarray, image: Image, names: Sequence[str]) -> None:
    """Raise an InputError if spot centres lie outside the image: nearly always a wrong image or a wrong scale.

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
