"""The one place that decides the scale of a section, from all that its files and its row of the sheet state."""

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ctrflow.errors import InputError
from ctrflow.image import facts_of
from ctrflow.image.slide import PLAUSIBLE_UM_PER_PX
from ctrflow.scale.arrays import SAME_SHARE, ST, ST_PLACES, VISIUM, Array, array_of
from ctrflow.scale.lattice import regular_lattice

logger = logging.getLogger("ctrflow")

SURE_OFF = 0.05  # by which sources that must agree may differ; two scans of a slide differ by more
LOOSE_OFF = 0.15  # by which the others may: diameters are rounded, and scanners state their nominal size
COLUMN = "column um_per_px"
REDUCED_IMAGES = {"hires": "tissue_hires_image", "lowres": "tissue_lowres_image"}
HEXAGONAL = f"hexagonal layout, if it is Visium's of {VISIUM.pitch_um:g} µm"


class Claim(NamedTuple):
    """What a source states: µm per full-resolution px, None for nothing; `sure` if layout or vendor's files show it;
    `alone` if it may decide without another source."""

    um_per_px: float | None
    source: str
    sure: bool = False
    alone: bool = True


class Scale(NamedTuple):
    """What was decided: µm per full-resolution px, and from what."""

    um_per_px: float
    why: str


def settle(
    row: dict,
    claims: Iterable[Claim],
    image: str = "",
    image_scale: float = 1.0,
    about: str = "",
    binding: bool = False,
) -> Scale:
    """Decide the scale of a section: the sheet's, else what the sure sources say, else what all others say.

    What differs from the decision is told with all numbers; it is refused where nothing decides.

    Parameters
    ----------
    row
        The section's row of the sheet.
    claims
        What the section's files state; the first of those that agree is used.
    image, image_scale
        The section's image, whose own pixel size is a claim too, and its px per full-resolution px.
    about
        What the files have instead, for the message that they do not give the scale.
    binding
        Whether the sheet's um_per_px is held against the files instead of deciding: positions do not depend on it.

    Raises
    ------
    InputError
        if nothing states the scale, sources contradict each other, or it is not plausible.
    """
    picture = _of_image(image, image_scale)
    claims = [one for one in (*claims, picture) if one.um_per_px]
    where = f"{row['path']}: section {row['section']}: "
    given = number(row, "um_per_px")
    if given is not None:
        claims.insert(len(claims) if binding else 0, Claim(given, COLUMN, sure=binding))
    decided = claims[:1] if given is not None and not binding else [one for one in claims if one.sure] or claims
    if not decided:
        about = f" ({about})" if about else ""
        raise InputError(
            f"{where}the files do not give the pixel size{about}; fill column um_per_px of the section sheet (µm per "
            "full-resolution pixel)"
        )
    first, numbers = decided[0], _numbers(claims)
    if any(_differ(first, other) for other in decided):
        cure = "find out which is right, and write it in column um_per_px of the section sheet"
        if binding:
            cure = "leave column um_per_px empty, or give the files of one image"
        raise InputError(f"{where}contradictory µm per px: {numbers}; {cure}")
    low, high = PLAUSIBLE_UM_PER_PX
    if not low <= first.um_per_px <= high:
        cure = "correct it in that file" if binding else f"write that of the full-resolution image in {COLUMN}"
        raise InputError(f"{where}{numbers} µm per px, which no microscope's image has ({low:g} to {high:g}); {cure}")
    agreed = [one.source for one in claims if not _differ(first, one)]
    if len(agreed) == 1 and not first.alone:
        raise InputError(
            f"{where}only the {first.source}, would give the pixel size, {first.um_per_px:.4g} ({about}); if it is, "
            "write that in column um_per_px of the section sheet"
        )
    why = f"{', '.join(agreed[:-1])} and {agreed[-1]} agree" if len(agreed) > 1 else f"{agreed[0]} alone"
    told = f"section {row['section']}: {first.um_per_px:.4g} µm per px: {why}"
    if len(agreed) == 1 and first is picture and first.um_per_px == image_scale:
        logger.warning("%s; many programs write 1 µm per px without knowing it: check it, or fill %s", told, COLUMN)
    elif len(agreed) < len(claims):
        others = _numbers(one for one in claims if _differ(first, one))
        logger.warning("%s, but %s; check that files, image and image_scale belong together", told, others)
    else:
        logger.info("%s", told)
    return Scale(first.um_per_px, why)


def _numbers(claims: Iterable[Claim]) -> str:
    return "; ".join(f"{one.source} gives {one.um_per_px:.4g}" for one in claims)


def _differ(one: Claim, other: Claim) -> bool:
    off = SURE_OFF if one.sure and other.sure else LOOSE_OFF
    return abs(math.log(one.um_per_px / other.um_per_px)) > math.log1p(off)


def _of_image(image: str, image_scale: float) -> Claim:
    """What the image file states."""
    facts = facts_of(image) if image else None
    stated = facts and facts[1]
    return Claim(stated and stated * image_scale, f"{Path(image).name}'s own pixel size")


def settle_image_scale(row: dict, image: str, scalefactors: dict) -> float:
    """Image px per full-resolution px: the sheet's, else the vendor's for its own reduced images, else 1."""
    given = number(row, "image_scale")
    if given is not None:
        return given
    for kind, name in REDUCED_IMAGES.items():
        if name in Path(image).name and f"tissue_{kind}_scalef" in scalefactors:
            return float(scalefactors[f"tissue_{kind}_scalef"])
    return 1.0


class Layout(NamedTuple):
    """How spots lie: sides (4 square, 6 hexagonal, 0 neither) and pitch (px); the array that it shows with the diameter
    (None: unknown) and what these state of the scale; whether spots fill it, as bins do; all of it for messages."""

    sides: int
    pitch_px: float
    array: Array | None
    claims: list[Claim]
    filled: bool
    about: str


def of_layout(positions, diameter_px: float | None) -> Layout:
    """What spots state by their layout and their diameter: a known share of diameter to pitch shows the array.

    Parameters
    ----------
    positions
        Centres in full-resolution px, n x 2.
    diameter_px
        As the file states it, or None.
    """
    lattice = regular_lattice(positions)
    drawn = "no spot_diameter_fullres" if diameter_px is None else f"spot_diameter_fullres of {diameter_px:.4g} px"
    if lattice is None:
        return Layout(0, math.nan, None, [], False, f"spots in no regular layout, {drawn}")
    sides, pitch_px, shape = lattice.sides, lattice.pitch_px, {4: "square", 6: "hexagonal"}[lattice.sides]
    about = f"a {shape} layout with a pitch of {pitch_px:.4g} px, {drawn}"
    if diameter_px is None:
        return Layout(sides, pitch_px, None, [], False, about)
    array, drawn_um = array_of(sides, pitch_px, diameter_px) or (None, 0.0)
    if array is ST and not _fits_st(positions, lattice):
        array, about = None, f"{about}, with more places than the ST array has"
    if array is None:
        filled = abs(diameter_px / pitch_px - 1) < SAME_SHARE
        return Layout(sides, pitch_px, None, [], filled, about)
    pitch = Claim(array.pitch_um / pitch_px, f"{shape} layout of {array.name}, {array.pitch_um:g} µm", sure=True)
    drawn = Claim(drawn_um / diameter_px, f"spot_diameter_fullres of {drawn_um:g} µm")
    return Layout(sides, pitch_px, array, [pitch, drawn], False, about)


def _fits_st(positions, lattice) -> bool:
    """Whether spots have room on the ST array of 33 x 35 places; DBiT-seq, of the same share, has 50 x 50."""
    turned = np.exp(-1j * lattice.angle_rad) * (np.asarray(positions, float) @ [1, 1j])
    return max(np.ptp(turned.real), np.ptp(turned.imag)) / lattice.pitch_px < ST_PLACES - 0.5


def of_hexagons(layout: Layout, diameter_px: float | None, sure: bool) -> list[Claim]:
    """What hexagons state if they are Visium's, the only printed ones; `sure`: something else says so."""
    source = f"hexagonal layout of {VISIUM.name}, {VISIUM.pitch_um:g} µm" if sure else HEXAGONAL
    return [Claim(VISIUM.pitch_um / layout.pitch_px, source, sure, alone=sure), of_diameter(diameter_px)]


def of_diameter(diameter_px: float | None, file: str = "") -> Claim:
    """What Space Ranger's `spot_diameter_fullres` states of Visium spots; `file` is its name, for messages."""
    if diameter_px is None:
        return Claim(None, "spot_diameter_fullres")
    nominal_um, where = VISIUM.drawn_um[0], f" in {file}" if file else ""
    source = f"spot_diameter_fullres of {diameter_px:.4g} px for {nominal_um:g} µm{where}"
    return Claim(nominal_um / diameter_px, source)


def number(row: dict, column: str) -> float | None:
    """A positive number of the sheet, or None if the cell is empty."""
    text = str(row.get(column) or "").strip()
    if not text:
        return None
    value = positive(text)
    if value is None:
        raise InputError(
            f"section {row['section']}: column {column} is '{text}'; give a positive number or leave it empty"
        )
    return value


def positive(value) -> float | None:
    """A positive finite number as metadata may have it, also as text or alone in a list; None for anything else."""
    items = np.asarray(value, dtype=object).ravel()
    if len(items) != 1 or isinstance(items[0], bool | np.bool_):
        return None
    try:
        found = float(items[0])
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and found > 0 else None
