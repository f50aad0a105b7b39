"""Check that a section's image is the one that its spots' coordinates belong to.

This needs no labels: spots lie on tissue, and a spot over darker stain (more nuclei) has more counts than the spots
around it. The second is computed relative to the neighbours, because slow trends over a section agree by chance far too
often; on real and simulated sections the correlation was 0.29 to 0.80 in the right place and at most 0.20 in a wrong
orientation.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ctrflow.errors import InputError
from ctrflow.findings import Finding
from ctrflow.image import open_image, require_inside, thumbnail

_THUMBNAIL_PX = 1024
_BLACK = 30  # a pixel without a brighter channel: cut out or not scanned
_LIGHTEST_TISSUE = 0.25  # mean optical density (natural log); glass was at most 0.17, the lightest full frame 0.27
_MIN_CONTRAST = 0.1  # optical density between tissue and glass; less is a blank image
_MAX_SPOTS = 4000  # more (bins of Visium HD) are pooled to about as many blocks
_NEIGHBOURS = 8
# rank correlation of counts with stain, each against the neighbours
_AGREES, _AGREES_SD = 0.2, 4.0
_AGREES_SEARCHED_SD = 5.0  # if hundreds of places were tried
_HIRES_PX = 2000  # longest side of Space Ranger's tissue_hires_image.png
_SAME_PICTURE = 0.5  # correlation of grey values
_BLANK_GREY = 2  # standard deviation of the grey values of a blank picture

# (swap x and y, then mirror x, then mirror y) -> the description in messages
ORIENTATIONS = {
    (False, False, False): "as they are",
    (False, True, False): "mirrored left to right",
    (False, False, True): "mirrored top to bottom",
    (False, True, True): "turned by 180 degrees",
    (True, False, False): "with x and y swapped",
    (True, True, False): "turned by 90 degrees clockwise",
    (True, False, True): "turned by 90 degrees counter-clockwise",
    (True, True, True): "with x and y swapped and turned by 180 degrees",
}
AS_GIVEN = (False, False, False)


class Ground(NamedTuple):
    """A thumbnail: `tissue` (h x w bool) and the integral image of its darkness ((h + 1) x (w + 1))."""

    tissue: np.ndarray
    sums: np.ndarray


class Signal(NamedTuple):
    """Counts to compare with stain: centres (n x 2, thumbnail px), half the side of a spot (thumbnail px), the
    neighbours of each spot (n x k), and the ranks of its log counts relative to theirs (n, mean 0, sd 1)."""

    centres: np.ndarray
    half_px: float
    neighbours: np.ndarray
    excess: np.ndarray


class Fit(NamedTuple):
    """The fit of spots at one place: share on tissue, and rank correlation of counts with stain."""

    on_tissue: float
    agreement: float


def check_placement(spots, vendor_image: str = "") -> list[Finding]:
    """Compare a section's spots with its image.

    Parameters
    ----------
    spots
        AnnData as in spots.h5ad: X counts, `obsm["spatial"]`, `uns["section"]`.
    vendor_image
        Path of Space Ranger's own tissue_hires_image.png (`scalefactors_json.json` beside it), or "".

    Returns
    -------
    Findings of the checks `inside` (spots inside the image), `placement` (orientation, scale, shift), `pixel_size` if
    the file states one, `vendor_image` if one is given that is not the section's own. One finding `image` for a section
    without image.

    Raises
    ------
    InputError
        if an image cannot be read.
    """
    section = spots.uns["section"]
    if not section["image"]:
        return [Finding("ok", "image", "the section has no image: nothing to compare the spots with")]
    image_scale = float(section["image_scale"])
    centres = np.asarray(spots.obsm["spatial"], np.float64) * image_scale
    with open_image(section["image"]) as slide:
        inside = _check_inside(centres, slide, spots.obs_names)
        pixel_size = _check_pixel_size(section, slide.um_per_px)
        pixels, scale = thumbnail(slide, _THUMBNAIL_PX)
    spot_px = float(section["spot_um"]) / float(section["um_per_px"]) * image_scale
    total = np.asarray(spots.X.sum(axis=1)).ravel()
    fit = _check_fit(section, pixels, scale, centres * scale, spot_px * scale, total)
    findings = [inside, fit, *pixel_size]
    if vendor_image and Path(vendor_image).resolve() != Path(section["image"]).resolve():
        findings.append(check_vendor_image(pixels, scale * image_scale, vendor_image, section["image"]))
    return findings


# --- the image --------------------------------------------------------------------------------------------------------


def stain_darkness(pixels: np.ndarray) -> np.ndarray:
    """Mean optical density (natural log) of uint8 h x w x 3, float32 h x w; 0 where the image is black."""
    density = -np.log((pixels.astype(np.float32) + 1) / 256).mean(axis=2)
    density[_black(pixels)] = 0
    return density


def tissue_mask(pixels: np.ndarray) -> np.ndarray:
    """The tissue in a thumbnail: bool h x w; all False for a blank image, all True without background.

    Background is glass (light) or black (cut out). The threshold lies between glass and Otsu's threshold, nearer to
    glass: Otsu's alone loses pale stroma (it kept 66 % of the spots of HER2ST B4). Holes, such as fat, are filled.
    """
    from scipy import ndimage
    from skimage import filters, morphology

    black = _black(pixels)
    density = ndimage.gaussian_filter(stain_darkness(pixels), 1.5)
    seen = density[~black]
    if seen.size < 0.005 * density.size or np.ptp(np.percentile(seen, [0.5, 99.5])) < _MIN_CONTRAST:
        return np.zeros(black.shape, bool)
    otsu = filters.threshold_otsu(seen)
    glass = np.median(seen[seen <= otsu])
    # if even the lighter half is tissue, only black is background
    cut = -1 if glass > _LIGHTEST_TISSUE else glass + 0.4 * (otsu - glass)
    mask = (density > cut) & ~black
    reach = max(1, round(0.005 * max(mask.shape)))
    padded = ndimage.binary_closing(np.pad(mask, 2 * reach), iterations=reach)
    mask = ndimage.binary_fill_holes(padded[2 * reach : -2 * reach, 2 * reach : -2 * reach])
    return morphology.remove_small_objects(mask, max_size=int(0.002 * mask.size))


def _black(pixels: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_opening(pixels.max(axis=2) < _BLACK, iterations=2)


def survey(pixels: np.ndarray) -> Ground:
    """Tissue and darkness of a thumbnail."""
    return Ground(tissue_mask(pixels), darkness_sums(pixels))


def darkness_sums(pixels: np.ndarray) -> np.ndarray:
    """The integral image of the darkness of a thumbnail (h x w x 3): (h + 1) x (w + 1)."""
    sums = np.zeros((pixels.shape[0] + 1, pixels.shape[1] + 1))
    sums[1:, 1:] = stain_darkness(pixels).cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    return sums


# --- the spots --------------------------------------------------------------------------------------------------------


def oriented(centres: np.ndarray, orientation: tuple[bool, bool, bool], width: float, height: float) -> np.ndarray:
    """Centres (n x 2) rotated or mirrored within an image of `width` x `height`; see ORIENTATIONS."""
    swap, mirror_x, mirror_y = orientation
    x, y = centres[:, ::-1].T if swap else centres.T
    return np.column_stack([width - x if mirror_x else x, height - y if mirror_y else y])


def signal_of(centres: np.ndarray, spot_px: float, total: np.ndarray) -> Signal:
    """The counts to compare with stain; many spots are pooled to square blocks."""
    from scipy.spatial import KDTree
    from scipy.stats import rankdata

    half_px = spot_px / 2
    depth = total.astype(np.float64)
    if len(centres) > _MAX_SPOTS:
        side = np.sqrt(np.prod(np.maximum(np.ptp(centres, axis=0), 1)) / _MAX_SPOTS)
        _, block = np.unique(np.floor(centres / side).astype(int), axis=0, return_inverse=True)
        members = np.bincount(block)
        depth = np.bincount(block, depth) / members
        centres = np.column_stack([np.bincount(block, axis) / members for axis in centres.T])
        half_px = max(half_px, side / 2)
    count = min(_NEIGHBOURS, len(centres) - 1)
    distances, neighbours = (columns[:, 1:] for columns in KDTree(centres).query(centres, k=count + 1))
    # if spots are wider than their pitch, a scale is wrong; the pitch is in units of the coordinates
    half_px = min(half_px, float(np.median(distances[:, 0])) / 2)
    depth = np.log1p(depth)
    ranks = rankdata(depth - depth[neighbours].mean(axis=1))
    return Signal(centres, half_px, neighbours, (ranks - ranks.mean()) / max(ranks.std(), 1e-12))


def measure(ground: Ground, signal: Signal, centres: np.ndarray | None = None, zoom: float = 1.0) -> Fit:
    """The fit of spots at `centres` (default: as given), thumbnail px, each `zoom` times as wide as given."""
    from scipy.stats import rankdata

    centres = signal.centres if centres is None else centres
    height, width = ground.tissue.shape
    column, row = np.floor(np.clip(centres, -1, [width, height])).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    on_tissue = float(ground.tissue[row[inside], column[inside]].sum() / len(centres))
    if inside.mean() < 0.7:
        return Fit(on_tissue, 0.0)
    darkness = darkness_under(ground.sums, centres, signal.half_px * zoom)
    ranks = rankdata(darkness - darkness[signal.neighbours].mean(axis=1))
    spread = ranks.std()
    return Fit(on_tissue, float((signal.excess * (ranks - ranks.mean())).mean() / spread) if spread else 0.0)


def darkness_under(sums: np.ndarray, centres: np.ndarray, half_px: float) -> np.ndarray:
    """Mean darkness in the square of at least one px around each centre; 0 beyond the border."""
    half_px = max(half_px, 0.5)
    high = np.array(sums.shape)[::-1] - 1
    left, top = np.clip(np.rint(centres - half_px), 0, high).astype(int).T
    right, bottom = np.clip(np.rint(centres + half_px), 0, high).astype(int).T
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return total / max(2 * half_px, 1) ** 2


# --- alternative placements -------------------------------------------------------------------------------------------


def agrees(fit: Fit, n: int, sd: float = _AGREES_SD) -> bool:
    """Whether counts follow the stain beyond chance, for `n` compared spots."""
    return fit.agreement >= _AGREES and np.arctanh(min(fit.agreement, 0.999)) * np.sqrt(max(n - 3, 1)) >= sd


def better(other: Fit, given: Fit, n: int, sd: float = _AGREES_SD) -> bool:
    """Whether another placement is clearly better than the given one.

    Either counts follow the stain only there, or nearly all spots lie on tissue there and many do not as given.
    """
    if agrees(other, n, sd) and other.agreement >= given.agreement + 0.15:
        return other.on_tissue >= given.on_tissue - 0.1
    return given.on_tissue < 0.75 and other.on_tissue >= max(0.9, given.on_tissue + 0.25) and (
        other.agreement >= given.agreement - 0.1
    )  # fmt: skip


def best_orientation(ground: Ground, signal: Signal, given: Fit) -> tuple[tuple[bool, bool, bool], Fit] | None:
    """The best orientation that is better than the given one; None if there is none."""
    height, width = ground.tissue.shape
    fits = []
    for orientation in ORIENTATIONS:
        if orientation != AS_GIVEN:
            fit = measure(ground, signal, oriented(signal.centres, orientation, width, height))
            if better(fit, given, len(signal.centres)):
                fits.append((orientation, fit))
    return max(fits, key=lambda one: one[1].agreement + one[1].on_tissue, default=None)


def best_scale(ground: Ground, signal: Signal, given: Fit) -> tuple[float, Fit] | None:
    """The factor on the coordinates for which counts follow the stain; None if there is none.

    Powers of two first, then 1/40 to 40 in steps of 1 %, the best refined to 0.1 %. Spots on tissue are no evidence
    here: coordinates shrunk to a point may lie on it.
    """
    n = len(signal.centres)
    plain = _best_zoom(ground, signal, [0.125, 0.25, 0.5, 2.0, 4.0, 8.0])
    if plain and agrees(plain[1], n) and better(plain[1], given, n):
        return plain
    coarse = _best_zoom(ground, signal, 1.01 ** np.arange(-371, 372))
    if not coarse:
        return None
    fine = _best_zoom(ground, signal, coarse[0] * 1.001 ** np.arange(-10, 11))
    return fine if agrees(fine[1], n, _AGREES_SEARCHED_SD) and better(fine[1], given, n) else None


def _best_zoom(ground: Ground, signal: Signal, zooms) -> tuple[float, Fit] | None:
    """The factor with the best agreement among those that keep the spots inside and wider than a tenth of the image."""
    height, width = ground.tissue.shape
    top = signal.centres.max(axis=0)
    extent = np.ptp(signal.centres, axis=0).max()
    usable = [
        float(zoom)
        for zoom in zooms
        if (top * zoom <= [1.02 * width, 1.02 * height]).all() and extent * zoom >= 0.1 * max(width, height)
    ]
    fits = [(zoom, measure(ground, signal, signal.centres * zoom, zoom)) for zoom in usable]
    return max(fits, key=lambda one: one[1].agreement, default=None)


def best_shift(ground: Ground, signal: Signal, given: Fit) -> tuple[np.ndarray, Fit] | None:
    """The best shift (x, y) in thumbnail px that is better than none; integers up to half of the image are tried."""
    from skimage.feature import peak_local_max

    height, width = ground.tissue.shape
    # the sum over spots of (excess x darkness against neighbours) is linear in the darkness, hence one correlation
    weights = signal.excess.copy()
    np.subtract.at(weights, signal.neighbours, signal.excess[:, None] / signal.neighbours.shape[1])
    half = max(1, round(signal.half_px))
    grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1).reshape(-1, 2)
    darkness = darkness_under(ground.sums, grid, half).reshape(height, width)
    followed = _at_all_shifts(darkness, signal.centres, weights)
    covered = _at_all_shifts(ground.tissue.astype(np.float64), signal.centres, np.ones(len(signal.centres)))
    peaks = list(peak_local_max(followed, min_distance=2 * half, num_peaks=10, exclude_border=False))
    peaks.append(np.unravel_index(covered.argmax(), covered.shape))
    middle = np.array([width // 2, height // 2])
    fits = []
    for row, column in peaks:
        shift = np.array([column, row]) - middle
        fit = measure(ground, signal, signal.centres + shift)
        if better(fit, given, len(signal.centres), _AGREES_SEARCHED_SD):
            fits.append((shift, fit))
    return max(fits, key=lambda one: one[1].agreement, default=None)


def _at_all_shifts(values: np.ndarray, centres: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of weight x value at the shifted centres; entry [h // 2 + dy, w // 2 + dx] is for the shift (dx, dy)."""
    from scipy.fft import irfft2, rfft2

    height, width = values.shape
    shape = 2 * height, 2 * width  # no wrap-around
    kernel = np.zeros(shape)
    column, row = np.floor(centres).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    np.add.at(kernel, (row[inside], column[inside]), weights[inside])
    sums = irfft2(rfft2(values, shape) * np.conj(rfft2(kernel)), shape)
    rows, columns = np.arange(height) - height // 2, np.arange(width) - width // 2
    return sums[np.ix_(rows, columns)]


# --- the checks -------------------------------------------------------------------------------------------------------


def _check_inside(centres, slide, names) -> Finding:
    try:
        require_inside(centres, slide, names)
    except InputError as error:
        return Finding("problem", "inside", str(error))
    return Finding("ok", "inside", f"all {len(centres):,} spots lie inside the image")


def _check_fit(section, pixels, scale, centres, spot_px, total) -> Finding:
    """Orientation, scale and shift; all in thumbnail px, `scale` is thumbnail px per image px."""
    path = section["image"]
    ground = survey(pixels)
    if not ground.tissue.any():
        return Finding(
            "warning", "placement", f"{path}: nearly blank, so nothing tells whether it is the section's image; "
            "open it, and give the H&E image in column `image` of the section sheet if it is not",
        )  # fmt: skip
    signal = signal_of(centres, spot_px, total)
    n = len(signal.centres)
    given = measure(ground, signal)
    if agrees(given, n):
        return Finding("ok", "placement", _describe(given, ground), _numbers(given))
    values = _numbers(given)
    turned = best_orientation(ground, signal, given)
    if turned:
        return _wrong_orientation(path, *turned, given, n, values)
    zoomed = best_scale(ground, signal, given)
    if zoomed:
        return _wrong_scale(section, *zoomed, given, values)
    if _in_corner(signal.centres, pixels.shape):
        return _corner(section, pixels.shape, scale, given, values)
    shifted = best_shift(ground, signal, given)
    if shifted:
        um = shifted[0] / scale / float(section["image_scale"]) * float(section["um_per_px"])
        return _wrong_shift(path, um, shifted[0] / scale, shifted[1], given, values)
    return _undecided(path, ground, given, n, values)


def _wrong_orientation(path, orientation, fit, given, n, values) -> Finding:
    name = ORIENTATIONS[orientation]
    cure = "give the image as it was when the positions were made, or turn the positions likewise"
    if orientation == (True, False, False):
        cure = "x and y look swapped: write the column before the row in the positions"
    if not agrees(fit, n):
        cure += "; or it is another section's image, see the overlay"
    return Finding(
        "problem",
        "placement",
        f"{path}: the spots fit it {name}, not as they are ({_gain(fit, given)}); {cure}",
        values | {"better": name} | _numbers(fit, "better_"),
    )


def _wrong_scale(section, zoom, fit, given, values) -> Finding:
    image_scale = float(section["image_scale"]) * zoom
    return Finding(
        "problem", "placement", f"{section['image']}: the spots fit it with their coordinates times "
        f"{zoom:.3g}, not as they are ({_gain(fit, given)}); the positions belong to the section's image at another "
        f"resolution: set column `image_scale` of the section sheet to about {image_scale:.3g}, or give that image",
        values | {"better": f"times {zoom:.3g}", "image_scale": round(image_scale, 5)} | _numbers(fit, "better_"),
    )  # fmt: skip


def _wrong_shift(path, um, px, fit, given, values) -> Finding:
    return Finding(
        "problem", "placement", f"{path}: the spots fit it when shifted by {um[0]:+.0f} µm in x and {um[1]:+.0f} "
        f"µm in y ({px[0]:+.0f}, {px[1]:+.0f} image px), not as they are ({_gain(fit, given)}); give the image as it "
        "was when the positions were made (not cropped or padded since), or check that it is this section's",
        values | {"better": "shifted", "shift_um": [round(float(one), 1) for one in um]} | _numbers(fit, "better_"),
    )  # fmt: skip


def _in_corner(centres, shape) -> bool:
    return bool((centres.max(axis=0) < np.array([shape[1], shape[0]]) / 4).all())


def _corner(section, shape, scale, given, values) -> Finding:
    """The finding for spots in the upper left corner: coordinates of a reduced image used on the full one."""
    reduction = max(shape[:2]) / scale / _HIRES_PX
    cure = "set column `image_scale` of the section sheet (image px per px of the coordinates)"
    if reduction >= 1.5:
        image_scale = float(section["image_scale"]) * reduction
        cure += f", to {image_scale:.4g} if they are those of Space Ranger's hires image (longest side {_HIRES_PX} px)"
        values = values | {"image_scale": round(image_scale, 5)}
    return Finding(
        "problem" if given.on_tissue < 0.5 else "warning",
        "placement",
        f"{section['image']}: the spots fill only its upper left corner, as coordinates of a reduced image do on the "
        f"full one; {cure}, or give the image that they belong to",
        values,
    )


def _undecided(path, ground, given, n, values) -> Finding:
    """The finding if no placement is better, but the counts do not confirm the given one."""
    cure = "look at the overlay, and check column `image` of the section sheet: it may be another section's image"
    if given.on_tissue < 0.75:
        level = "problem" if given.on_tissue < 0.5 else "warning"
        return Finding(level, "placement", f"{path}: {_describe(given, ground)}; {cure}", values)
    highest = np.arctanh(np.clip(given.agreement, -0.999, 0.999)) + 2 / np.sqrt(max(n - 3, 1))
    if highest < np.arctanh(_AGREES):
        text = f"{path}: {_describe(given, ground)}: nothing confirms that this is the section's image; {cure}"
        return Finding("warning", "placement", text, values)
    return Finding("ok", "placement", f"{_describe(given, ground)}, too little to be sure; see the overlay", values)


def _describe(fit: Fit, ground: Ground) -> str:
    where = (
        "tissue fills the image" if ground.tissue.all() else f"{100 * fit.on_tissue:.0f} % of the spots lie on tissue"
    )
    return f"{where}; counts follow the stain under the spots with rank correlation {fit.agreement:.2f}"


def _gain(fit: Fit, given: Fit) -> str:
    return (
        f"{100 * fit.on_tissue:.0f} % instead of {100 * given.on_tissue:.0f} % of the spots on tissue, rank "
        f"correlation of counts with stain {fit.agreement:.2f} instead of {given.agreement:.2f}"
    )


def _numbers(fit: Fit, prefix: str = "") -> dict:
    return {f"{prefix}on_tissue": round(fit.on_tissue, 4), f"{prefix}agreement": round(fit.agreement, 4)}


def _check_pixel_size(section, stated: float | None) -> list[Finding]:
    """Compare the sheet's pixel size with that of the image file; no finding if the file states none."""
    if stated is None:
        return []
    expected = float(section["um_per_px"]) / float(section["image_scale"])
    ratio = expected / stated
    values = {"expected_um_per_px": round(expected, 5), "stated_um_per_px": round(float(stated), 5)}
    numbers = f"{expected:.4g} µm per px from the section (um_per_px / image_scale), {stated:.4g} from the file"
    if abs(ratio - 1) <= 0.1:
        return [Finding("ok", "pixel_size", numbers, values)]
    exact = next((factor for factor in (2, 4, 8, 0.5, 0.25, 0.125) if abs(ratio / factor - 1) < 0.03), None)
    named = f", {exact:g} times as much: the image is at another resolution" if exact else ""
    return [
        Finding(
            "warning", "pixel_size", f"{section['image']}: {numbers}{named}; check columns `um_per_px` and "
            "`image_scale` of the section sheet", values,
        )
    ]  # fmt: skip


# --- the vendor's image -----------------------------------------------------------------------------------------------


def check_vendor_image(pixels: np.ndarray, scale: float, vendor_image: str, path: str) -> Finding:
    """Compare the vendor's reduced image with the section's, by correlation of grey values.

    Parameters
    ----------
    pixels, scale
        Thumbnail of the section's image, and its px per full-resolution px.
    vendor_image
        Path of tissue_hires_image.png (or lowres), with `scalefactors_json.json` next to it.
    path
        The section's image, for the message.
    """
    with open_image(vendor_image) as slide:
        theirs, reduction = thumbnail(slide, _THUMBNAIL_PX)
    their_scale = _vendor_scale(vendor_image)
    factor = reduction * their_scale / scale if their_scale else max(theirs.shape) / max(pixels.shape)
    similarities = {orientation: similarity(pixels, theirs, orientation, factor) for orientation in ORIENTATIONS}
    given = similarities[AS_GIVEN]
    if given is None:
        return Finding(
            "warning", "vendor_image", f"{vendor_image}: nearly blank, so it cannot be compared with {path}; "
            "look at the overlay",
        )  # fmt: skip
    values = {"similarity": round(given, 4)}
    other = max(similarities, key=lambda orientation: similarities[orientation] or -1.0)
    best = similarities[other]
    if given >= _SAME_PICTURE and best <= given + 0.1:
        text = f"the vendor's own picture shows the same (correlation {given:.2f})"
        return Finding("ok", "vendor_image", text, values)
    start = f"{path}: not what {vendor_image} shows in the same place (correlation {given:.2f})"
    if best >= _SAME_PICTURE:
        name = ORIENTATIONS[other]
        return Finding(
            "problem", "vendor_image", f"{start}; it fits {name} ({best:.2f}): give the image as it was "
            "when Space Ranger ran", values | {"better": name, "better_similarity": round(best, 4)},
        )  # fmt: skip
    stretched = similarity(pixels, theirs, AS_GIVEN, max(theirs.shape) / max(pixels.shape))
    if their_scale and stretched is not None and stretched >= _SAME_PICTURE:
        times = factor * max(pixels.shape) / max(theirs.shape)
        return Finding(
            "problem", "vendor_image", f"{start}; it is the same picture at another size ({stretched:.2f}): multiply "
            f"column `image_scale` of the section sheet by {times:.4g}",
            values | {"better_similarity": round(stretched, 4)},
        )  # fmt: skip
    name = ORIENTATIONS[other]
    return Finding(
        "problem", "vendor_image", f"{start}, nor in any other orientation (best {name}: {best:.2f}): another "
        "image; give the one that Space Ranger was run with in column `image` of the section sheet", values,
    )  # fmt: skip


def _vendor_scale(vendor_image: str) -> float | None:
    """The vendor image's px per full-resolution px, from the file next to it."""
    path = Path(vendor_image)
    factors = path.with_name("scalefactors_json.json")
    kind = "lowres" if "lowres" in path.name else "hires"
    if not factors.is_file():
        return None
    try:
        value = json.loads(factors.read_text(encoding="utf-8")).get(f"tissue_{kind}_scalef")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{factors}: not valid JSON ({error}); download it again") from error
    return float(value) if value else None


def similarity(
    ours: np.ndarray, theirs: np.ndarray, orientation: tuple[bool, bool, bool] = AS_GIVEN, factor: float = 1.0
) -> float | None:
    """Correlation of the details (high-passed grey values) of two images, aligned at their upper left corners.

    `ours` (h x w x 3) is reoriented so that the pixel at T(p) moves to p, where T is `oriented`, and resized by
    `factor`. None if one of the images is blank.
    """
    from PIL import Image
    from scipy import ndimage

    swap, mirror_x, mirror_y = orientation
    ours = ours[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
    ours = ours.swapaxes(0, 1) if swap else ours
    width, height = (min(round(ours.shape[axis] * factor), theirs.shape[axis]) for axis in (1, 0))
    if min(width, height) < 20:
        return 0.0  # too little overlap
    box = (0, 0, min(width / factor, ours.shape[1]), min(height / factor, ours.shape[0]))
    small = (
        Image.fromarray(np.ascontiguousarray(ours)).convert("L").resize((width, height), Image.Resampling.BOX, box),
        Image.fromarray(theirs).convert("L").crop((0, 0, width, height)),
    )
    # coarse enough to tolerate a shift by a pixel or two
    coarse = max(1, max(width, height) // 200)
    grey = [np.asarray(picture.reduce(coarse), np.float64) for picture in small]
    if min(one.std() for one in grey) < _BLANK_GREY:
        return None
    # without the outline, which sections share: with it, a wrong orientation correlated by up to 0.62
    detail = [one - ndimage.gaussian_filter(one, 5) for one in grey]
    return float(np.corrcoef(detail[0].ravel(), detail[1].ravel())[0, 1])
