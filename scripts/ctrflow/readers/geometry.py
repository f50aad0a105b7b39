"""Spot sizes and pitches of the platforms, and the scale of an image from the printed array."""

import math

import numpy as np

from ctrflow.errors import InputError, first_few

ST_SPOT_UM = 100.0
ST_PITCH_UM = 200.0
VISIUM_SPOT_UM = 55.0
VISIUM_PITCH_UM = 100.0
VISIUM_DIAMETER_UM = 65.0  # of `spot_diameter_fullres`, by 10x's definition; the printed spot has 55 µm
HD_BIN_UM = 8  # recommended by 10x
XENIUM_PX_UM = 0.2125  # of every Xenium instrument so far
# Largest deviation from an affine map, as a share of the array's extent: Space Ranger maps CytAssist images by a
# projective map, which differs by 5 px (23 µm) at a corner in one case (scverse/spatialdata-io, pull request 247).
MAX_BEND = 0.005


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
        None if the spots do not span a plane.
    """
    affine = _slide_to_image(array_um, px)
    return None if affine is None else 1 / math.sqrt(abs(np.linalg.det(affine[:2])))


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
    return np.column_stack([array_col * VISIUM_PITCH_UM / 2, array_row * VISIUM_PITCH_UM * math.sqrt(3) / 2])


def square_array_um(array_row: np.ndarray, array_col: np.ndarray, pitch_um: float) -> np.ndarray:
    """A square array's indices as µm on the slide (n x 2)."""
    return np.column_stack([array_col, array_row]) * float(pitch_um)
