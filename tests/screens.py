"""A section whose every part can be told on a screenshot, and where a screenshot has it.

Nothing about it is symmetric, so that a flipped map never looks right. Three squares in corners of its picture have
colours of their own: from where they are found on a screenshot follows where each spot must be, whatever the viewer.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from anndata import AnnData
from matplotlib import colormaps
from PIL import Image, ImageColor
from scipy import ndimage
from scipy.sparse import csr_matrix

from ctrflow import export
from ctrflow.export.columns import CALL_COLOURS
from ctrflow.export.regions import section_regions
from ctrflow.results import verdict
from spot_arrays import section

RUN = "demo"
NAMES = ("h5ad", "spatialdata_zarr", "tissuumaps")
SCALE = 0.5  # px of the picture per full-resolution px
SIZE = (900, 700)
PITCH_PX = 90.0
GENES = 60
# colour -> centre of its square, in px of the picture: upper left, upper right, lower left
CORNERS = {(255, 0, 255): (40, 40), (0, 255, 0): (860, 40), (0, 0, 255): (40, 660)}
LEFT, RIGHT = (240, 215, 228), (205, 190, 228)  # of the tissue


def picture() -> np.ndarray:
    """The H&E (h x w x 3): two colours and the corners."""
    found = np.empty((SIZE[1], SIZE[0], 3), dtype=np.uint8)
    found[:, : SIZE[0] // 2], found[:, SIZE[0] // 2 :] = LEFT, RIGHT
    for colour, (x, y) in CORNERS.items():
        found[y - 24 : y + 24, x - 24 : x + 24] = colour
    return found


def made() -> export.Section:
    """17 x 12 spots without those of the lower right; scores fall from the upper left, where the calls are.

    The first spots of the lowest row are not scored. cellxgene 1.3.0 fails to send answers of less than 500 bytes: with
    fewer than some 120 spots, or a few genes, it stays empty.
    """
    column, row = np.meshgrid(np.arange(17), np.arange(12))
    kept = (column < 11) | (row < 7)
    column, row = column[kept], row[kept]
    spots = section(np.column_stack([column, row]) * PITCH_PX + 180.0, um_per_px=2.0)
    genes = pd.DataFrame(index=[f"GENE{number}" for number in range(GENES)])
    counts = csr_matrix(np.ones((spots.n_obs, GENES), dtype=np.float32))
    spots = AnnData(counts, obs=spots.obs, var=genes, obsm=dict(spots.obsm), uns=dict(spots.uns))
    spots.uns["section"]["spot_um"] = 110.0
    score = 1 - np.hypot(column, 1.5 * row) / np.hypot(column, 1.5 * row).max()
    call = ((column < 6) & (row < 4) & ~((column == 5) & (row == 3))).astype(float)
    missing = (row == 11) & (column < 3)
    score[missing] = call[missing] = np.nan
    scores, calls = (pd.DataFrame({RUN: values}, index=spots.obs_names) for values in (score, call))
    said = {RUN: verdict.Verdict()}
    regions = section_regions(spots, calls)
    return export.Section(spots, scores, calls, scores[[]], scores[[]], said, regions, (picture(), SCALE))


def call_colours(one: export.Section) -> np.ndarray:
    """The colour of each spot's call (n x 3)."""
    words = one.calls[RUN].map({1.0: "cancer", 0.0: "other"}).fillna("not scored")
    return np.array([ImageColor.getrgb(CALL_COLOURS[word]) for word in words])


def score_colours(one: export.Section) -> np.ndarray:
    """The colour of each spot's score in viridis (n x 3), NaN where it has none."""
    score = one.scores[RUN].to_numpy()
    colours = colormaps["viridis"](np.nan_to_num(score))[:, :3] * 255
    return np.where(np.isfinite(score)[:, None], colours, np.nan)


@dataclass(frozen=True)
class Shot:
    """A screenshot (h x w x 3), and where full-resolution px are on it: `offset + scale * (x, y)`."""

    pixels: np.ndarray
    offset: np.ndarray
    scale: np.ndarray

    def at(self, places) -> np.ndarray:
        """Full-resolution px (n x 2) in px of the screenshot."""
        return self.offset + self.scale * np.asarray(places, dtype=float)

    def colours(self, places, reach: int = 1) -> np.ndarray:
        """The median colour (n x 3) around places in full-resolution px."""
        steps = np.arange(-reach, reach + 1)
        x, y = np.round(self.at(places)).astype(int).T
        around = self.pixels[y[:, None, None] + steps[:, None], x[:, None, None] + steps]
        return np.median(around.reshape(len(x), -1, 3), axis=1)


def taken(page, path, pause_ms: int = 700) -> np.ndarray:
    """A screenshot of a page of the browser (h x w x 3) when it no longer changes; it is kept."""
    before = None
    for _ in range(40):
        page.wait_for_timeout(pause_ms)
        page.screenshot(path=path)
        now = np.asarray(Image.open(path).convert("RGB"))
        if before is not None and (now == before).all():
            return now
        before = now
    raise AssertionError(f"the page goes on changing: {path}")


def within(pixels: np.ndarray, part) -> np.ndarray:
    """What of a screenshot of a page belongs to a part of it, such as the canvas."""
    box = part.bounding_box()
    left, top, width, height = (round(box[key]) for key in ("x", "y", "width", "height"))
    return pixels[top : top + height, left : left + width]


def alike(pixels, colour, tolerance: float = 40) -> np.ndarray:
    """Which pixels have a colour."""
    return np.abs(np.asarray(pixels, dtype=float) - colour).max(axis=-1) <= tolerance


def by_corners(pixels: np.ndarray) -> Shot:
    """A screenshot with the picture on it, placed by the picture's corners; neither turned, flipped nor stretched."""
    pixels = pixels[..., :3]
    found = []
    for colour in CORNERS:
        y, x = np.nonzero(alike(pixels, colour, 70))
        assert len(x) > 100, f"the corner {colour} of the picture is not there"
        found.append((np.median(x), np.median(y)))
    found, known = np.array(found), np.array(list(CORNERS.values())) / SCALE
    spans = found[1, 0] - found[0, 0], found[2, 1] - found[0, 1]
    scale = np.array(spans) / (known[1, 0] - known[0, 0], known[2, 1] - known[0, 1])
    assert scale[0] > 0.1
    assert abs(scale[1] / scale[0] - 1) < 0.03, "the picture is flipped, or not as high as it is wide"
    assert np.abs(found[1, 1] - found[0, 1]) < 3, "the picture is turned"
    return Shot(pixels, found[0] - scale * known[0], scale)


def by_spots(pixels: np.ndarray, one: export.Section) -> Shot:
    """A screenshot of spots coloured by call and nothing else in these colours, placed by the outermost of them."""
    colours = np.unique(call_colours(one), axis=0)
    drawn, _ = ndimage.label(np.any([alike(pixels, colour, 20) for colour in colours], axis=0))
    size = np.bincount(drawn.ravel())[1:]
    whole = np.flatnonzero(size > np.median(size) / 2) + 1  # no specks, such as edges of letters
    assert len(whole) == one.spots.n_obs, f"{len(whole)} spots"
    found = np.array(ndimage.center_of_mass(drawn > 0, drawn, whole))[:, ::-1]
    places = one.spots.obsm["spatial"]
    scale = np.ptp(found, axis=0) / np.ptp(places, axis=0)
    assert abs(scale[1] / scale[0] - 1) < 0.03, "the section is stretched"
    return Shot(pixels, found.min(axis=0) - scale * places.min(axis=0), scale)


def require_spots(shot: Shot, one: export.Section, wanted: np.ndarray, tolerance: float = 12) -> None:
    """Each spot has its colour (n x 3; NaN is not looked at) where it lies on the tissue."""
    known = np.isfinite(wanted).all(axis=1)
    assert known.sum() > 150
    found = shot.colours(one.spots.obsm["spatial"])[known]
    wrong = np.abs(found - wanted[known]).max(axis=1) > tolerance
    assert not wrong.any(), list(
        zip(one.spots.obs_names[known][wrong], found[wrong], wanted[known][wrong], strict=True)
    )


def require_tissue(shot: Shot, one: export.Section, tolerance: float = 12) -> None:
    """Between the spots the picture is seen, its left half and its right."""
    places = one.spots.obsm["spatial"] + PITCH_PX / 2
    outline = shapely.union_all([shape.boundary for shape, _ in one.regions[RUN]])
    middle = SIZE[0] / 2 / SCALE
    places = places[(shapely.distance(outline, shapely.points(places)) > 30) & (np.abs(places[:, 0] - middle) > 30)]
    wanted = np.where(places[:, :1] < middle, LEFT, RIGHT)
    assert min((places[:, 0] < middle).sum(), (places[:, 0] > middle).sum()) > 15
    found = shot.colours(places)
    wrong = np.abs(found - wanted).max(axis=1) > tolerance
    assert not wrong.any(), list(zip(places[wrong], found[wrong], strict=True))


def require_outlines(shot: Shot, one: export.Section, colour, tolerance: float = 60) -> None:
    """Lines of that colour run along the regions, and nowhere else on the tissue."""
    outline = shapely.union_all([shape.boundary for shape, _ in one.regions[RUN]])
    along = shapely.get_coordinates(shapely.segmentize(outline, 10))
    x, y = np.round(shot.at(along)).astype(int).T
    drawn = alike(shot.pixels, colour, tolerance)
    near = np.array([drawn[b - 3 : b + 4, a - 3 : a + 4].any() for a, b in zip(x, y, strict=True)])
    assert near.mean() > 0.95
    left, top, right, bottom = np.round(shot.at([(0, 0), np.array(SIZE) / SCALE])).astype(int).ravel()
    left, top, right, bottom = left + 4, top + 4, right - 4, bottom - 4
    rows, columns = np.nonzero(drawn[top:bottom, left:right])
    inside = (np.column_stack([columns + left, rows + top]) - shot.offset) / shot.scale
    far = shapely.distance(outline, shapely.points(inside)) * shot.scale[0] > 6
    assert far.mean() < 0.02, f"{far.sum()} of {len(far)} px lie elsewhere"
