"""A section's tissue as a grid of small squares (superpixels), for methods that resolve more than the spots.

The features of a superpixel, 46 in all, need no weights:

- mean and sd over its pixels of red, green, blue (0 to 1) and of haematoxylin and eosin (optical density by the fixed
  vectors of Ruifrok and Johnston, Anal Quant Cytol Histol 2001);
- the same ten at scales of 16, 32 and 64 µm (Gaussian means over the superpixels around, prefix um16. um32. um64.), and
  at each scale the variation of haematoxylin and eosin between the superpixels.
"""

import numpy as np

from ctrflow.errors import InputError
from ctrflow.image import Image, open_image, require_inside, scales

SUPERPIXEL_UM = 8.0  # iStar: 16 px of 0.5 µm
CHANNELS = ("red", "green", "blue", "haematoxylin", "eosin")
SCALES_UM = (16.0, 32.0, 64.0)
OWN = tuple(f"{channel}_{value}" for value in ("mean", "sd") for channel in CHANNELS)
FEATURES = OWN + tuple(
    f"um{scale:g}.{name}" for scale in SCALES_UM for name in (*OWN, "haematoxylin_between", "eosin_between")
)
_ACROSS_PX = 8  # pixels across a superpixel, at least, if the image has them; more would only cost time
_BAND_PX = 4_000_000  # pixels processed at a time
_BLACK = 10  # darker in all channels: not scanned
_TRUNCATE = 3.0  # sd of a Gaussian


def cut_superpixels(spots, um: float = SUPERPIXEL_UM):
    """Cut the tissue of a section into squares, `um` µm wide, and compute the features of each.

    Tissue is what lies within one spot pitch of a spot. The grid starts at the upper left corner of the image. Pixels
    come from the coarsest level that is fine enough, band by band: the image is never copied completely.

    Parameters
    ----------
    spots : AnnData by the section contract, with an image

    Returns
    -------
    AnnData
        X float32 (superpixels x `FEATURES`), obs row and col in the grid, obsm["rgb"] uint8 mean colour,
        obsm["spatial"] centres (x, y) in full-resolution px, uns["superpixels"] um, um_per_px, spot_um.

    Raises
    ------
    InputError
        if the section has no image or no scale, or spots lie outside the image.
    """
    import anndata
    import pandas as pd

    section = spots.uns["section"]
    if not section["image"]:
        raise InputError(
            f"section {section['section']}: no image to cut superpixels from; fill the column `image` of the section "
            "sheet, or leave out the methods that need superpixels"
        )
    um_per_px, image_scale = scales(section)
    centres_px = np.asarray(spots.obsm["spatial"], np.float64) * image_scale
    side_px = um / um_per_px * image_scale
    pitch_px = _pitch_px(centres_px) or float(section["spot_um"]) / um_per_px * image_scale
    with open_image(section["image"]) as image:
        require_inside(centres_px, image, spots.obs_names)
        rows, cols = _box(centres_px, pitch_px, side_px, image)
        means, sds = _pooled(image, side_px, rows, cols)
    row, col = np.nonzero(_near(centres_px, pitch_px, side_px, rows, cols))
    position_px = np.column_stack([cols[0] + col + 0.5, rows[0] + row + 0.5]) * side_px
    table = anndata.AnnData(
        _features(means, sds, row, col, um),
        obs=pd.DataFrame(
            {"row": (rows[0] + row).astype(np.int32), "col": (cols[0] + col).astype(np.int32)},
            index=np.arange(len(row)).astype(str),
        ),
        var=pd.DataFrame(index=list(FEATURES)),
        obsm={
            "rgb": np.rint(means[:3, row, col].T * 255).astype(np.uint8),
            "spatial": position_px / image_scale,
        },
    )
    table.uns["superpixels"] = {"um": float(um), "um_per_px": um_per_px, "spot_um": float(section["spot_um"])}
    return table


def arrays(table) -> dict:
    """A section's superpixels as methods get them: features, rgb, centres_px, row, col, um, um_per_px, spot_um."""
    return {
        "features": np.asarray(table.X, np.float32),
        "rgb": np.asarray(table.obsm["rgb"]),
        "centres_px": np.asarray(table.obsm["spatial"]),
        "row": table.obs["row"].to_numpy(),
        "col": table.obs["col"].to_numpy(),
        **{name: float(table.uns["superpixels"][name]) for name in ("um", "um_per_px", "spot_um")},
    }


def discs(superpixels: dict, spots_px: np.ndarray):
    """Which superpixels lie in which spot: CSR float64 (spots x superpixels), equal weights that sum to 1 in each row.

    A spot has the superpixels whose centres lie within its radius; if there are none, the nearest one.

    Parameters
    ----------
    superpixels : as `arrays` gives them
    spots_px : n x 2, (x, y), full-resolution px
    """
    from scipy import sparse
    from scipy.spatial import cKDTree

    tree = cKDTree(superpixels["centres_px"])
    radius_px = superpixels["spot_um"] / 2 / superpixels["um_per_px"]
    inside = tree.query_ball_point(spots_px, radius_px * (1 + 1e-9), return_sorted=True)
    nearest = tree.query(spots_px)[1]
    inside = [members or [one] for members, one in zip(inside, nearest, strict=True)]
    sizes = np.array([len(members) for members in inside])
    weights = np.repeat(1.0 / sizes, sizes)
    shape = (len(inside), len(superpixels["centres_px"]))
    return sparse.csr_matrix((weights, np.concatenate(inside), np.r_[0, sizes.cumsum()]), shape)


def _pitch_px(centres_px: np.ndarray) -> float:
    """Median distance to the nearest other spot; 0 if there is none."""
    from scipy.spatial import cKDTree

    if len(centres_px) < 2:
        return 0.0
    return float(np.median(cKDTree(centres_px).query(centres_px, k=[2])[0]))


def _box(centres_px: np.ndarray, pitch_px: float, side_px: float, image: Image) -> tuple[tuple, tuple]:
    """(first, end) rows and cols of the grid that hold the tissue and whose centres lie on the image."""
    size_px = np.array([image.width_px, image.height_px])
    first = np.floor(np.maximum(centres_px.min(axis=0) - pitch_px, 0) / side_px).astype(int)
    last = np.floor(np.minimum(centres_px.max(axis=0) + pitch_px, size_px - side_px / 2) / side_px).astype(int)
    last = np.maximum(last, first)
    return (first[1], last[1] + 1), (first[0], last[0] + 1)


def _near(centres_px: np.ndarray, pitch_px: float, side_px: float, rows: tuple, cols: tuple) -> np.ndarray:
    """bool (rows x cols): whether the centre lies within a pitch of a spot."""
    from scipy.spatial import cKDTree

    tree = cKDTree(centres_px)
    x = (np.arange(*cols) + 0.5) * side_px
    near = np.empty((rows[1] - rows[0], len(x)), bool)
    for i, row in enumerate(range(*rows)):
        points = np.column_stack([x, np.full(len(x), (row + 0.5) * side_px)])
        near[i] = np.isfinite(tree.query(points, distance_upper_bound=pitch_px * (1 + 1e-9))[0])
    return near


def _pooled(image: Image, side_px: float, rows: tuple, cols: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of every channel over the pixels of every superpixel of the box: float32, channels x rows x cols."""
    level = max((i for i, factor in enumerate(image.levels) if side_px / factor >= _ACROSS_PX), default=0)
    side = side_px / image.levels[level]
    shrink = max(1, int(side / _ACROSS_PX))
    side /= shrink
    left = _edges(cols, side)
    at_once = max(1, int(_BAND_PX / ((left[-1] - left[0]) * side)))
    means, sds = (np.empty((len(CHANNELS), rows[1] - rows[0], cols[1] - cols[0]), np.float32) for _ in range(2))
    for first in range(*rows, at_once):
        top = _edges((first, min(first + at_once, rows[1])), side)
        pixels = _window(image, level, shrink, top, left)
        area = np.maximum(np.diff(top), 1)[:, None] * np.maximum(np.diff(left), 1)
        band = slice(first - rows[0], first - rows[0] + len(area))
        for i, values in enumerate(_channels(pixels)):
            means[i, band] = _summed(values, top, left) / area
            square = _summed(values * values, top, left) / area
            sds[i, band] = np.sqrt(np.maximum(square - means[i, band] ** 2, 0))
    return means, sds


def _edges(span: tuple, side: float) -> np.ndarray:
    """The pixel where each superpixel of `span` (first, end) begins, and where the last one ends.

    A pixel belongs to the superpixel that contains its centre; pixels larger than superpixels belong to several.
    """
    index = np.arange(span[0], span[1] + 1)
    if side >= 1:
        return np.ceil(index * side - 0.5 - 1e-9).astype(int)
    edges = np.floor((index + 0.5) * side).astype(int)
    edges[-1] = edges[-2] + 1
    return edges


def _window(image: Image, level: int, shrink: int, top: np.ndarray, left: np.ndarray) -> np.ndarray:
    """uint8 h x w x 3, from the first to the last edge, in pixels of the level reduced by `shrink`."""
    from PIL import Image as pil

    x, y, right, bottom = (int(edge) * shrink for edge in (left[0], top[0], left[-1], top[-1]))
    pixels = image.read(x, y, right - x, bottom - y, level)
    pixels = pixels if shrink == 1 else np.array(pil.fromarray(pixels).reduce(shrink))
    pixels[pixels.max(axis=-1) <= _BLACK] = 255
    return pixels


def _channels(pixels: np.ndarray):
    """Yield the maps of `CHANNELS`, float32 h x w."""
    from skimage.color import hed_from_rgb

    for i in range(3):
        yield pixels[..., i].astype(np.float32) / 255
    density = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
    mixing = hed_from_rgb.astype(np.float32)
    for stain in range(2):
        # a lookup table per colour is faster than a product over the colours
        yield sum((density * mixing[colour, stain])[pixels[..., colour]] for colour in range(3))


def _summed(values: np.ndarray, top: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Sums over the rectangles between the edges; between equal edges, the pixel itself."""
    return np.add.reduceat(np.add.reduceat(values, top[:-1] - top[0], axis=0), left[:-1] - left[0], axis=1)


def _features(means: np.ndarray, sds: np.ndarray, row: np.ndarray, col: np.ndarray, um: float) -> np.ndarray:
    """float32 (superpixels x `FEATURES`)."""
    from scipy.ndimage import gaussian_filter

    own = [*means, *sds]
    columns = [one[row, col] for one in own]
    for scale in SCALES_UM:
        around = [gaussian_filter(one, scale / um, truncate=_TRUNCATE, mode="nearest") for one in own]
        columns += [one[row, col] for one in around]
        for i in (3, 4):
            square = gaussian_filter(own[i] ** 2, scale / um, truncate=_TRUNCATE, mode="nearest")
            columns.append(np.sqrt(np.maximum(square - around[i] ** 2, 0))[row, col])
    return np.column_stack(columns).astype(np.float32, copy=False)
