"""What scores are held against without any label: the counts of each spot, and how dark its H&E is."""

import math

import numpy as np

from ctrflow.features.neighbours import nearest
from ctrflow.image import open_image, thumbnail
from ctrflow.sections.placement import darkness_sums, darkness_under

# as in the control `darkness`: the square around a spot, its pixels, and the spots averaged with it
FIELD_UM = 200.0
PIXEL_UM = FIELD_UM / 64
NEIGHBOURS = 6
MOST_PX = 4096  # longer side of the image that is looked at: 13 mm at that size of pixel


def yardsticks(spots):
    """Library size and darkness of each spot.

    Parameters
    ----------
    spots : AnnData as in spots.h5ad

    Returns
    -------
    frame (spot, library_size, darkness): all counts of the spot, and the mean optical density within 200 µm, averaged
    over the spot and its six neighbours; NaN without an image
    """
    import pandas as pd

    return pd.DataFrame(
        {
            "spot": spots.obs_names.astype(str),
            "library_size": np.asarray(spots.X.sum(axis=1)).ravel(),
            "darkness": _darkness(spots),
        }
    )


def _darkness(spots) -> np.ndarray:
    section = spots.uns["section"]
    if not section["image"]:
        return np.full(spots.n_obs, np.nan)
    px_per_um = float(section["image_scale"]) / float(section["um_per_px"])
    with open_image(section["image"]) as slide:
        longest = max(slide.width_px, slide.height_px)
        pixels, scale = thumbnail(slide, min(MOST_PX, math.ceil(longest / px_per_um / PIXEL_UM)))
    place = np.asarray(spots.obsm["spatial"], np.float64)
    centres = place * float(section["image_scale"]) * scale
    density = darkness_under(darkness_sums(pixels), centres, FIELD_UM / 2 * px_per_um * scale) / np.log(10)
    return density[nearest(place, NEIGHBOURS)].mean(axis=1)
