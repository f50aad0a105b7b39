"""The arrays that sections come on: their printed sizes in one table, and their fit to the px of an image."""

import logging
import math
from dataclasses import dataclass

import numpy as np

from ctrflow.errors import InputError, first_few

logger = logging.getLogger("ctrflow")


@dataclass(frozen=True)
class Array:
    """A printed array, or a grid that others pool to.

    name : for messages
    sides : 6 (hexagonal) or 4 (square)
    pitch_um : distance of neighbours
    spot_um : width of what was captured
    drawn_um : what files state as the diameter of a spot, which need not be its width
    """

    name: str
    sides: int
    pitch_um: float
    spot_um: float
    drawn_um: tuple[float, ...]


# 10x Genomics, "Space Ranger: spatial outputs": `spot_diameter_fullres` is that of a nominal spot of 65 µm; HEST-1k
# writes the printed 55 µm (mahmoodlab/HEST, hest/utils.py, register_downscale_img)
VISIUM = Array("Visium", 6, 100.0, 55.0, (65.0, 55.0))
# Andersson et al. 2021: 1,007 spots of 100 µm in 33 x 35 places, 200 µm apart
ST = Array("ST", 4, 200.0, 100.0, (100.0,))
# HEST-1k sums the transcripts of Xenium in squares of 100 µm, and keeps the default diameter of 55 µm
HEST_XENIUM = Array("HEST-1k's squares of Xenium", 4, 100.0, 100.0, (55.0,))
ARRAYS = (VISIUM, ST, HEST_XENIUM)
ST_PLACES = 35  # along an axis of the ST array; arrays of another pitch have more (64 x 67 in Ji et al. 2020)

HD_BIN_UM = 8  # recommended by 10x
XENIUM_PX_UM = 0.2125  # of every Xenium instrument so far
# Largest deviation from an affine map, as a share of the array's extent: Space Ranger maps CytAssist images by a
# projective map, which differs by 5 px (23 µm) at a corner in one case (scverse/spatialdata-io, pull request 247).
MAX_BEND = 0.005
MAX_STRETCH = 0.05  # of an array between its two directions; at most 0.013 on the 30 sections of HER2ST
# of diameter to pitch: tells 0.5 of ST from the 0.518 of an array of 106 µm with spots of 55 µm; the pitches that the
# layout gives of HER2ST are right to 0.007
SAME_SHARE = 0.03


def lattice_um_per_px(array_um: np.ndarray, px: np.ndarray) -> float | None:
    """µm per px: the scale of the least-squares affine map from the printed array to the image.

    All spots contribute, so the jitter of single spots averages out. The median distance to the nearest neighbour would
    be biased: the nearest of several jittered neighbours is closer than the pitch (by 7 % on the HER2ST sections).

    Parameters
    ----------
    array_um
        Nominal positions on the slide, n x 2, µm.
    px
        Positions in the image, n x 2, px.

    Returns
    -------
    float or None
        None if the spots do not span a plane, or lie on another array: only stretched would it fit.
    """
    affine = _slide_to_image(array_um, px)
    if affine is None:
        return None
    longest, shortest = np.linalg.svd(affine[:2], compute_uv=False)
    if longest > (1 + MAX_STRETCH) * shortest:
        logger.warning(
            "the rows and columns of the array fit the positions only stretched by %.0f %% in one direction, so they "
            "are of another array and give no scale", 100 * (longest / shortest - 1),
        )  # fmt: skip
        return None
    return 1 / math.sqrt(longest * shortest)


def array_of(sides: int, pitch_px: float, diameter_px: float) -> tuple[Array, float] | None:
    """The array with this layout and share of diameter to pitch, and its `drawn_um`; None for an unknown one."""
    known = ((array, drawn_um) for array in ARRAYS if array.sides == sides for drawn_um in array.drawn_um)
    share = diameter_px / pitch_px
    return next((one for one in known if abs(share * one[0].pitch_um / one[1] - 1) < SAME_SHARE), None)


def array_of_pitch(sides: int, pitch_um: float) -> Array | None:
    """The printed array with this layout and pitch, None for another."""
    printed = (array for array in (VISIUM, ST) if array.sides == sides)
    return next((one for one in printed if abs(pitch_um / one.pitch_um - 1) < MAX_STRETCH), None)


def require_lattice(array_um: np.ndarray, px: np.ndarray, pitch_um: float, ids, path) -> None:
    """Refuse spots whose array index and position in the image contradict each other.

    A spot may lie half a pitch from its place in the array (at most 0.3 in the eight HER2ST files, which record each
    spot's own offset), or `MAX_BEND` for image distortion, which is more than a bin of Visium HD. Shuffled ids, damaged
    numbers and spots that share an array index exceed this.
    """
    import pandas as pd

    twice = pd.DataFrame(array_um).duplicated().to_numpy()
    if twice.any():
        raise InputError(
            f"{path}: spots with the same row and column of the array: {first_few(np.asarray(ids)[twice])}; "
            "give the vendor's original file"
        )
    affine = _slide_to_image(array_um, px)
    if affine is None:
        return
    expected = np.column_stack([array_um, np.ones(len(array_um))]) @ affine
    off_um = np.linalg.norm(px - expected, axis=1) / math.sqrt(abs(np.linalg.det(affine[:2])))
    allowed_um = max(pitch_um / 2, MAX_BEND * np.ptp(array_um, axis=0).max())
    bad = off_um > allowed_um
    if bad.any():
        raise InputError(
            f"{path}: {int(bad.sum()):,} spots lie more than {allowed_um:.0f} µm from the position given by their row "
            f"and column of the array: {first_few(np.asarray(ids)[bad])}; the table is damaged or its columns are "
            "shuffled against each other: download it again"
        )


def _slide_to_image(array_um: np.ndarray, px: np.ndarray) -> np.ndarray | None:
    """The 3 x 2 affine from µm on the slide to px; None if the spots do not span a plane."""
    usable = np.isfinite(px).all(axis=1)
    slide, image = array_um[usable], px[usable]
    if len(slide) < 3:
        return None
    middle, centre = slide.mean(axis=0), image.mean(axis=0)
    slide, image = slide - middle, image - centre
    if np.linalg.matrix_rank(slide) < 2 or np.linalg.matrix_rank(image) < 2:
        return None
    turn = np.linalg.lstsq(slide, image, rcond=None)[0]
    if np.linalg.matrix_rank(turn) < 2:
        return None
    return np.vstack([turn, centre - middle @ turn])


def visium_array_um(array_row: np.ndarray, array_col: np.ndarray) -> np.ndarray:
    """Visium's array indices as µm on the slide (n x 2): hexagonal, pitch 100 µm, columns counted in half pitches."""
    return np.column_stack([array_col / 2, array_row * math.sqrt(3) / 2]) * VISIUM.pitch_um


def square_array_um(array_row: np.ndarray, array_col: np.ndarray, pitch_um: float) -> np.ndarray:
    """A square array's indices as µm on the slide (n x 2)."""
    return np.column_stack([array_col, array_row]) * float(pitch_um)
