"""A drawing's extent held against the spots and the image: was it drawn on this picture?

Nothing in a drawing says which picture it was drawn on. A drawing of the whole section on a picture of half the size
lies in the upper left quarter, on tissue, and labels a quarter of the spots wrongly. So each picture that it may have
been drawn on is tried: would the drawing then fit the spots much better? A region in a corner must not be taken for a
whole section drawn smaller, nor the annotation of a whole slide for one drawn larger; where the sides lie tells them
apart, and a drawing of one class fills a section less often than one of several.
"""

import logging
import math
from typing import NamedTuple

import numpy as np

from ctrflow.errors import InputError
from ctrflow.image import facts_of
from ctrflow.scale.arrays import XENIUM_PX_UM
from ctrflow.scale.lattice import fit_lattice
from ctrflow.sections.drawings import IGNORED, Drawing

logger = logging.getLogger("ctrflow")

PX, UM = "px of the image", "µm on the slide"  # units of a drawing
_REDUCED = (2, 4, 5, 8, 10, 16, 20, 32, 64)  # levels of a pyramid, and round numbers
_VENDOR_PX = (600, 2000)  # longest side of Space Ranger's lowres and hires pictures
_MOST_SPOTS = 5000  # that are counted for each picture
_SIDE = 0.05  # a side of the drawing is at a side of the spots: share of the span, but at least a pitch
_SAME_FACTOR = 0.03  # relative difference
_CURES = {
    PX: "export them from the image in the section sheet, and check its column image_scale",
    UM: "export the selections of this section from Xenium Explorer",
}
_OVERRULE = (
    "; if it is right as it is, add an outline of the whole section, around everything that is drawn of the section, "
    "with the class Ignore*"
)
# Overlap is intersection over union: 0.75 for a box around an oval section, 1 for an outline of it. The limits were
# chosen on boxes and outlines around five sections of HER2ST, one of Visium and three simulated arrays, scaled by 0.08
# to 4 or moved, and on nests of 10 to 50 % of their width at 25 places each: of 9,000 nests none was refused, and 408
# gave a warning. tests/unit/sections/test_extents.py tries those of a simulated section.
_OVERLAPS = 0.5
_BETTER, _RATHER_BETTER, _FAR_BETTER = 1.5, 1.1, 3.0
_ON_SPOTS, _OFF_SPOTS, _MOSTLY_OFF = 0.8, 0.6, 0.5  # share of the drawn area that has spots
_SPREAD = 0.8  # of the spots' span: scattered regions of a whole section
_SMALL = 20  # times the area of a spot: of so small a drawing the share with spots says little
_MORE_SPOTS = 0.03  # share of the spots that a shift must gain
_BEYOND = 0.1  # share of the drawn area outside of the image: outlines around everything are drawn generously


class Place(NamedTuple):
    """Where the drawing would lie if another picture was drawn on: multiplied, moved, or with x and y exchanged."""

    factor: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    exchanged: bool = False

    def before(self, points: np.ndarray) -> np.ndarray:
        """Points (n x 2) in the coordinates that the drawing has now."""
        points = (points - self.shift) / self.factor
        return points[:, ::-1] if self.exchanged else points

    def after(self, points: np.ndarray) -> np.ndarray:
        """Points (n x 2) of the drawing, moved as it would be."""
        return (points[:, ::-1] if self.exchanged else points) * self.factor + self.shift


class Fit(NamedTuple):
    """Share of the spots in the drawing, share of the drawn area that has spots, and their overlap."""

    spots: float
    area: float
    overlap: float


class Scene(NamedTuple):
    """Drawing and spots: union of the polygons, boxes of both (low and high corner), how far a side of the drawing may
    be from a side of the spots (x and y), number of spots, their area, and those that are counted."""

    drawn: object
    drawn_box: np.ndarray
    spots_box: np.ndarray
    tolerance: np.ndarray
    count: int
    spots_area: float
    sample: np.ndarray


def require_fit(path, drawing: Drawing, used: np.ndarray, centres: np.ndarray, section: dict, unit: str = PX) -> None:
    """Refuse a drawing that was plainly made on another picture, and warn if that is likely.

    Parameters
    ----------
    path
        The file, for messages.
    used
        Which polygons of the drawing contain a spot (bool).
    centres
        Spots, n x 2, in `unit`.
    section
        `uns["section"]`.
    unit
        `PX` or `UM`.

    Raises
    ------
    InputError
        with both spans and the scale or shift that would fit, if no polygon contains a spot, if the drawing reaches
        beyond the image, or if another picture fits far better.
    """
    import shapely

    cure = _CURES[unit]
    scene = _scene(drawing, centres)
    spans = (
        f"in {unit}, the polygons span {_span(scene.drawn_box)}, the spots {_span([centres.min(0), centres.max(0)])}"
    )
    here = _at_sides(scene, Place())
    if used.any() and (here.all() or _has_outline(scene, drawing)):
        return
    # polygons on other sections of the slide are no evidence
    reached = shapely.union_all(np.array(drawing.polygons)[used])
    own = _fit(scene, reached, Place())
    looked_at = unit == PX and (own.area < _OFF_SPOTS or _reaches_out(scene))
    facts = facts_of(section["image"]) if looked_at and section.get("image") else None
    size = facts and facts[0]
    known = _known_factors(section, unit, size)
    fits = {place: _fit(scene, scene.drawn, place) for place in [*map(Place, known), *_places_by_extent(scene)]}
    whole, part = _best(scene, fits, known)
    other = whole or part
    found = _would(other, fits[other], scene.count) if other else ""
    if not used.any():
        raise InputError(
            f"{path}: no polygon contains a spot of section {section['section']}: {spans}{found}; {cure}"
            f"{_of_degrees(drawing)}"
        )
    head = (
        f"{path}: the polygons contain {own.spots:.0%} of the spots of section {section['section']}, and "
        f"{own.area:.0%} of their area has spots: {spans}"
    )
    beyond = _share_beyond(scene.drawn, size)
    if beyond > _BEYOND:
        text = f"{head}; {beyond:.0%} of the drawn area is beyond the image of {size[0]} x {size[1]} px"
        raise InputError(f"{text}{found}; {cure}{_OVERRULE}")
    several = len({name.casefold() for name in drawing.classes}) > 1
    better = fits[other].overlap / max(own.overlap, 1e-9) if other else 0.0
    if whole:
        plain, likely = _judge_whole(scene, whole, fits[whole], own, better, several, _near(whole.factor, known))
    else:
        off = own.area < _OFF_SPOTS
        plain = part and off and several and better >= _FAR_BETTER and fits[part].overlap >= _OVERLAPS
        likely = part and (off or (several and _spreads(scene, part))) and better >= _BETTER
    if plain:
        raise InputError(f"{head}{found}; {cure}{_OVERRULE}")
    if likely:
        logger.warning("%s%s; %s%s", head, found, cure, _OVERRULE)
    elif own.area < _MOSTLY_OFF and own.spots < _MOSTLY_OFF and reached.area * scene.count > _SMALL * scene.spots_area:
        logger.warning("%s; %s", head, cure)


def _judge_whole(scene, place: Place, fit: Fit, own: Fit, better: float, several: bool, known: bool) -> tuple:
    """Whether a drawing that would reach all sides of the spots at `place` was plainly, or likely, meant to."""
    gained = int((_at_sides(scene, place) & ~_at_sides(scene, Place())).sum())
    certain = place.factor == 1 or gained > 2 or (known and several)
    if place.factor < 1 and own.area >= _OFF_SPOTS:
        certain = False  # perhaps part of an annotated slide
    gains = place.factor != 1 or fit.spots > own.spots + _MORE_SPOTS
    return certain and better >= _BETTER, gains and better >= _RATHER_BETTER and (certain or known or several)


# --- geometry ---------------------------------------------------------------------------------------------------------


def _scene(drawing: Drawing, centres: np.ndarray) -> Scene:
    import shapely

    drawn = shapely.union_all(drawing.polygons)
    pitch, spot_area = 0.0, 0.0
    if len(np.unique(centres, axis=0)) > 1:
        lattice = fit_lattice(centres)
        pitch, spot_area = lattice.pitch_px, lattice.cell_px2
    spots_box = np.array([centres.min(axis=0) - pitch / 2, centres.max(axis=0) + pitch / 2])
    tolerance = np.maximum(pitch, _SIDE * np.ptp(spots_box, axis=0))
    sample = centres[:: math.ceil(len(centres) / _MOST_SPOTS)]
    drawn_box = np.reshape(drawn.bounds, (2, 2))
    return Scene(drawn, drawn_box, spots_box, tolerance, len(centres), len(centres) * spot_area, sample)


def _fit(scene: Scene, area, place: Place) -> Fit:
    import shapely

    spots = float(shapely.contains_xy(area, place.before(scene.sample)).mean())
    common, drawn = spots * scene.spots_area, area.area * place.factor**2
    if not 0 < drawn < math.inf:
        return Fit(spots, 0.0, 0.0)
    # the spots' areas may be a little more than the drawn area
    return Fit(spots, min(1.0, common / drawn), min(1.0, common / max(drawn + scene.spots_area - common, 1e-300)))


def _at_sides(scene: Scene, place: Place) -> np.ndarray:
    """Which sides of the drawing are at those of the spots: low and high x and y (2 x 2)."""
    return np.abs(place.after(scene.drawn_box) - scene.spots_box) <= scene.tolerance


def _has_outline(scene: Scene, drawing: Drawing) -> bool:
    """Whether one object has the extent of the spots, or is an outline Ignore* around them.

    Such an outline may be wider, since what is drawn of the section may be; but not as wide as on a picture that is
    twice as large.
    """
    import shapely

    first = np.flatnonzero(np.diff(drawing.numbers, prepend=-1))  # part of each object
    boxes = np.reshape(shapely.bounds(drawing.polygons), (-1, 2, 2))
    low, high = np.minimum.reduceat(boxes[:, 0], first), np.maximum.reduceat(boxes[:, 1], first)
    beyond = np.stack([scene.spots_box[0] - low, high - scene.spots_box[1]], axis=1)
    around = (beyond >= -scene.tolerance).all(axis=(1, 2))
    at_sides = (beyond <= scene.tolerance).all(axis=(1, 2))
    ignored = np.array([drawing.classes[n].casefold().rstrip("* ") == IGNORED for n in first])
    narrow = (high - low < _REDUCED[0] * (np.ptp(scene.spots_box, axis=0) - 2 * scene.tolerance)).all(axis=1)
    return bool((around & (at_sides | (ignored & narrow))).any())


def _spreads(scene: Scene, place: Place) -> bool:
    """Whether the drawing would be nearly as wide and as high as the spots."""
    return bool((np.ptp(place.after(scene.drawn_box), axis=0) >= _SPREAD * np.ptp(scene.spots_box, axis=0)).all())


def _reaches_out(scene: Scene) -> bool:
    inside = (scene.drawn_box[0] >= scene.spots_box[0] - scene.tolerance) & (
        scene.drawn_box[1] <= scene.spots_box[1] + scene.tolerance
    )
    return not inside.all()


def _share_beyond(drawn, size: tuple[int, int] | None) -> float:
    import shapely

    if size is None or not 0 < drawn.area < math.inf:
        return 0.0
    return 1 - shapely.intersection(drawn, shapely.box(0, 0, *size)).area / drawn.area


# --- other pictures ---------------------------------------------------------------------------------------------------


def _known_factors(section: dict, unit: str, size: tuple[int, int] | None) -> list[float]:
    """What a drawing on another picture of the section would have to be multiplied by."""
    um_per_px = float(section.get("um_per_px") or 1.0)
    if unit == UM:
        factors = [XENIUM_PX_UM, um_per_px]
    else:
        image_scale = float(section.get("image_scale") or 1.0)
        factors = [*_REDUCED, image_scale, um_per_px / image_scale, *(max(size or (0,)) / px for px in _VENDOR_PX)]
    factors = [factor for factor in factors if 0 < factor < math.inf]
    both = sorted({*factors, *(1 / factor for factor in factors)})
    return [factor for factor in both if not _near(factor, [1.0])]


def _near(factor: float, known) -> bool:
    return any(abs(factor / one - 1) <= _SAME_FACTOR for one in known)


def _places_by_extent(scene: Scene) -> list[Place]:
    """Scale from the ratio of the spans, shift if the spans are the same, and x and y exchanged."""
    drawn, spots = np.ptp(scene.drawn_box, axis=0), np.ptp(scene.spots_box, axis=0)
    places = [Place(exchanged=True)]
    with np.errstate(all="ignore"):
        factor = float(np.sqrt(np.prod(spots / drawn)))
    if 0 < factor < math.inf and not _near(factor, [1.0]):
        places.append(Place(factor))
    if (np.abs(spots - drawn) <= scene.tolerance).all():
        places.append(Place(shift=tuple((scene.spots_box - scene.drawn_box).mean(axis=0))))
    return places


def _best(scene: Scene, fits: dict, known: list[float]) -> tuple[Place | None, Place | None]:
    """The place where the drawing best covers the whole section, and where it best lies on a part of it."""
    whole = [place for place in fits if _at_sides(scene, place).all() and fits[place].overlap >= _OVERLAPS]
    part = [place for place in fits if place.factor in known and fits[place].area >= _ON_SPOTS]
    return tuple(max(places, key=lambda place: fits[place].overlap, default=None) for places in (whole, part))


# --- messages ---------------------------------------------------------------------------------------------------------


def _would(place: Place, fit: Fit, count: int) -> str:
    if place.exchanged:
        what, why = "with x and y exchanged", "written as (row, column)"
    elif place.factor == 1:
        what, why = "moved by x {:+.0f}, y {:+.0f}".format(*place.shift), "drawn on a part of the image"
    else:
        what, why = f"multiplied by {place.factor:.4g}", f"drawn on a picture {1 / place.factor:.4g} times the size"
    return f"; {what}, they would contain {fit.spots:.0%} of the {count:,} spots, as if {why}"


def _of_degrees(drawing: Drawing) -> str:
    return f"; the file's crs is {drawing.reference}, but px are needed, no degrees" if drawing.reference else ""


def _span(box) -> str:
    (x_min, y_min), (x_max, y_max) = box
    return f"x {x_min:.0f} to {x_max:.0f}, y {y_min:.0f} to {y_max:.0f}"
