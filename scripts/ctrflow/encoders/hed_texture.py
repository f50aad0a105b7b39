"""A weight-free encoder: colour deconvolution, texture and local nuclear density in two fields, 100 and 200 µm wide.

Every patch is 200 µm wide and 192 px (1.04 µm/px) whatever the platform; the 100 µm field is its centre. Blocks of
features, each in both fields (prefix um200 or um100):

- intensity: mean, standard deviation, skewness and percentiles of the haematoxylin (h) and eosin (e) maps, mean and
  standard deviation of the residual (r) and of the whole optical density (d), share of unstained pixels. Stains by the
  fixed vectors of Ruifrok and Johnston (Anal Quant Cytol Histol 2001); every map is scaled to its 1st and 99th
  percentile in the section, after the maximum-concentration scaling of Macenko et al. (ISBI 2009).
- scale: variation between 1, 2, 4, 8 and 16 µm (energies of the Haar wavelet; Mallat, IEEE TPAMI 1989) and mean
  gradient at 1, 2, 4, 8 µm, of h and e.
- lbp: histogram of rotation-invariant uniform local binary patterns of h at 1 and 2 µm, on the 8 neighbours of a pixel
  (Ojala et al., IEEE TPAMI 2002).
- glcm: properties of the grey-level co-occurrence of h at 2 and 6 µm (Haralick et al., IEEE Trans SMC 1973).
- nuclei: blobs of h by scale-normalised Laplacian of Gaussian (Lindeberg, IJCV 1998; on nuclei, Al-Kofahi et al., IEEE
  TBME 2010): density, strength, size, distance to the nearest.
- fibre: coherence of the structure tensor of h and e (Bigun and Granlund, ICCV 1987), high in fibrous stroma.
"""

import hashlib
import math
from pathlib import Path

import numpy as np

from ctrflow.encoders import Encoder

MODEL = "hed_texture"
OPTIONS = ()

PATCH_UM = 200.0
PATCH_PX = 192
_UM_PER_PX = PATCH_UM / PATCH_PX
_BLACK = 10  # darker in all channels: not scanned (some slides are cut out on black), so not stained
_CLIP = (-0.25, 1.25)  # of the section's range, which is 0 to 1
_LEAST_SPAN = 0.05  # optical density; a blank section must not have its noise blown up
_UNSTAINED = 0.15
_NUCLEAR = 0.5
_CHUNK = 8  # patches at a time: the maps stay in the processor's cache
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # neighbours in order of angle
_GLCM_LEVELS = 16
_GLCM_STEPS = (1, 3)
_GLCM_PROPERTIES = ("contrast", "homogeneity", "energy", "correlation", "entropy")
_BLOB_RADII_UM = (3.0, 5.5)  # small and large nuclei
_BLOB_CONTRAST = 0.25
_FIBRE_BLOCK = 8


def build(options: dict, threads: int = 1) -> Encoder:
    """The encoder. It has no options, uses one thread and gives the same values whatever the batch."""

    def for_section(sample):
        ranges = stain_ranges(sample())

        def encode(patches: np.ndarray) -> np.ndarray:
            chunks = [patches[start : start + _CHUNK] for start in range(0, len(patches), _CHUNK)]
            return np.concatenate([_table(chunk, ranges)[0] for chunk in chunks])

        return encode

    names = _table(np.full((1, PATCH_PX, PATCH_PX, 3), 255, np.uint8), np.array([[0.0, 1.0]] * 4))[1]
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return Encoder(PATCH_UM, PATCH_PX, digest, for_section, names)


def stain_ranges(patches: np.ndarray) -> np.ndarray:
    """1st and 99th percentile of haematoxylin, eosin, residual and whole density over some patches of a section.

    Parameters
    ----------
    patches : uint8, n x px x px x 3

    Returns
    -------
    4 x 2, optical density
    """
    stains = _stains(patches[:, ::3, ::3])
    low, high = np.percentile(stains.reshape(4, -1), [1, 99], axis=1)
    return np.column_stack([low, np.maximum(high, low + _LEAST_SPAN)])


def _stains(patches: np.ndarray) -> np.ndarray:
    """uint8 n x h x w x 3 -> float32 4 x n x h x w: haematoxylin, eosin, residual, mean optical density."""
    from skimage.color import hed_from_rgb

    density = -np.log((np.arange(256) + 1) / 256).astype(np.float32)[patches]
    density[patches.max(axis=-1) <= _BLACK] = 0
    mixing = np.column_stack([hed_from_rgb, np.full(3, 1 / 3)]).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(density @ mixing, -1, 0))


def _table(patches: np.ndarray, ranges: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Features, n x dim, and their names."""
    low, high = ranges.astype(np.float32).T[..., None, None, None]
    h, e, r, d = np.clip((_stains(patches) - low) / (high - low), *_CLIP)
    h_levels, e_levels = _pyramid(h), _pyramid(e)
    features = {
        **_intensity(h, e, r, d),
        **_scale(h_levels, "h"),
        **_scale(e_levels, "e"),
        **_lbp(h_levels[:2]),
        **_glcm(h_levels[1]),
        **_nuclei(h_levels[1]),
        **_fibre(h_levels[1], "h"),
        **_fibre(e_levels[1], "e"),
    }
    return np.column_stack(list(features.values())).astype(np.float32), tuple(features)


def _fields(maps: np.ndarray) -> dict[str, np.ndarray]:
    """n x side x side -> the 200 µm field and its 100 µm centre."""
    side = maps.shape[1]
    centre = slice(side // 4, side - side // 4)
    return {"um200": maps, "um100": maps[:, centre, centre]}


def _halve(maps: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels."""
    return (maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]) / 4


def _pyramid(maps: np.ndarray) -> list[np.ndarray]:
    """At 1, 2, 4, 8 and 16 µm/px."""
    levels = [maps]
    for _ in range(4):
        levels.append(_halve(levels[-1]))
    return levels


def _intensity(h: np.ndarray, e: np.ndarray, r: np.ndarray, d: np.ndarray) -> dict[str, np.ndarray]:
    features = {}
    for stain, maps in (("h", h), ("e", e)):
        for field, part in _fields(maps).items():
            mean, sd = part.mean(axis=(1, 2)), part.std(axis=(1, 2))
            centred = part - mean[:, None, None]
            features[f"{field}.{stain}_mean"] = mean
            features[f"{field}.{stain}_sd"] = sd
            skewness = (centred * centred * centred).mean(axis=(1, 2)) / np.maximum(sd, 1e-3) ** 3
            features[f"{field}.{stain}_skewness"] = skewness
            percents = (5, 25, 50, 75, 95)
            every_other = part[:, ::2, ::2].reshape(len(part), -1)  # as good, and four times as fast
            for percent, values in zip(percents, np.percentile(every_other, percents, axis=1), strict=True):
                features[f"{field}.{stain}_p{percent}"] = values
    for stain, maps in (("r", r), ("d", d)):
        for field, part in _fields(maps).items():
            features[f"{field}.{stain}_mean"] = part.mean(axis=(1, 2))
            features[f"{field}.{stain}_sd"] = part.std(axis=(1, 2))
    for field, part in _fields(d < _UNSTAINED).items():
        features[f"{field}.unstained"] = part.mean(axis=(1, 2))
    return features


def _scale(levels: list[np.ndarray], stain: str) -> dict[str, np.ndarray]:
    """The variance lost from one level to the next is the wavelet's energy between them."""
    features = {}
    variances = [{field: part.var(axis=(1, 2)) for field, part in _fields(level).items()} for level in levels]
    for i, level in enumerate(levels[:-1]):
        um = 2**i
        for field in ("um200", "um100"):
            energy = np.maximum(variances[i][field] - variances[i + 1][field], 0)
            features[f"{field}.{stain}_band{um}"] = np.sqrt(energy)
        across = level[:, :-1, 1:] - level[:, :-1, :-1]
        down = level[:, 1:, :-1] - level[:, :-1, :-1]
        for field, part in _fields(np.sqrt(across * across + down * down)).items():
            features[f"{field}.{stain}_gradient{um}"] = part.mean(axis=(1, 2))
    return features


def _quantised(maps: np.ndarray, levels: int) -> np.ndarray:
    """The section's range 0 to 1 in `levels` steps."""
    return np.clip(maps * levels, 0, levels - 1).astype(np.uint8)


def _lbp(levels: list[np.ndarray]) -> dict[str, np.ndarray]:
    features = {}
    kinds = _uniform_kinds()
    for i, level in enumerate(levels):
        grey = _quantised(level, 256)
        codes = np.zeros(level.shape, np.uint8)
        for bit, neighbour in enumerate(_neighbours(grey, mode="edge")):
            codes |= (neighbour >= grey).view(np.uint8) << np.uint8(bit)
        for field, part in _fields(codes).items():
            patterns = [np.bincount(one.ravel(), minlength=256) for one in part]
            shares = np.stack(patterns) @ kinds / part[0].size
            features |= {f"{field}.lbp{2**i}_{kind}": shares[:, kind] for kind in range(kinds.shape[1])}
    return features


def _neighbours(maps: np.ndarray, **padding) -> list[np.ndarray]:
    """The eight neighbours of every pixel, in order of angle: maps shifted by one pixel."""
    _, height, width = maps.shape
    wide = np.pad(maps, ((0, 0), (1, 1), (1, 1)), **padding)
    return [wide[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width] for row, column in _RING]


def _peaks(maps: np.ndarray) -> np.ndarray:
    """Local maxima in 3 x 3 px; of two equal neighbours one only."""
    neighbours = _neighbours(maps, constant_values=-np.inf)
    # The second four are opposite the first four.
    above = [maps > one for one in neighbours[:4]] + [maps >= one for one in neighbours[4:]]
    return np.logical_and.reduce(above)


def _uniform_kinds() -> np.ndarray:
    """256 patterns x 10 kinds, one-hot: the number of neighbours set, or 9 where they are no single arc."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.eye(10)[np.where(changes <= 2, bits.sum(axis=1), 9)]


def _glcm(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Mean over four directions, `maps` at 2 µm/px."""
    from skimage.feature import graycomatrix, graycoprops

    angles = (0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)
    features = {}
    for field, part in _fields(_quantised(maps, _GLCM_LEVELS)).items():
        values = []
        for grey in part:
            matrix = graycomatrix(grey, _GLCM_STEPS, angles, _GLCM_LEVELS, symmetric=True, normed=True)
            values.append([graycoprops(matrix, name).mean(axis=1) for name in _GLCM_PROPERTIES])
        values = np.array(values)  # n x properties x steps
        for i, name in enumerate(_GLCM_PROPERTIES):
            features |= {f"{field}.glcm{2 * step}_{name}": values[:, i, j] for j, step in enumerate(_GLCM_STEPS)}
    return features


def _nuclei(maps: np.ndarray) -> dict[str, np.ndarray]:
    """`maps` at 2 µm/px. A disc of contrast c and radius r answers 2 c / e at sigma = r / sqrt(2)."""
    from scipy.ndimage import gaussian_laplace

    um_per_px = 2 * _UM_PER_PX
    sigmas = [radius / math.sqrt(2) / um_per_px for radius in _BLOB_RADII_UM]
    answers = np.stack([-(sigma**2) * gaussian_laplace(maps, sigma, axes=(1, 2)) for sigma in sigmas])
    answer = answers.max(axis=0)
    peaks = _peaks(answer) & (answer > _BLOB_CONTRAST * 2 / math.e)
    large = answers[1] > answers[0]
    features = {}
    area = {field: (part > _NUCLEAR).mean(axis=(1, 2)) for field, part in _fields(maps).items()}
    parts = {name: _fields(one) for name, one in (("h", maps), ("answer", answer), ("peaks", peaks), ("large", large))}
    for field in ("um200", "um100"):
        one = {name: part[field] for name, part in parts.items()}
        side_um = one["h"].shape[1] * um_per_px
        rows = [
            _blobs(*blob, um_per_px) for blob in zip(one["peaks"], one["answer"], one["h"], one["large"], strict=True)
        ]
        table = np.array(rows)
        features[f"{field}.nuclei_per_1000um2"] = 1000 * table[:, 0] / side_um**2
        features[f"{field}.nuclei_area"] = area[field]
        for i, name in enumerate(("strength", "strength_sd", "h", "h_sd", "large", "distance_um", "distance_sd_um"), 1):
            features[f"{field}.nuclei_{name}"] = table[:, i]
    return features


def _blobs(peaks: np.ndarray, answer: np.ndarray, h: np.ndarray, large: np.ndarray, um_per_px: float) -> list[float]:
    """Number of blobs in a field; strength and h there (mean, sd), share of large ones, distance to the nearest."""
    from scipy.spatial import KDTree

    points = np.argwhere(peaks)
    if len(points) < 2:  # nobody near: as far as the field is wide
        side_um = len(peaks) * um_per_px
        return [len(points), 0.0, 0.0, 0.0, 0.0, 0.0, side_um, 0.0]
    distance_um = KDTree(points).query(points, k=2)[0][:, 1] * um_per_px
    strength, stain = answer[peaks], h[peaks]
    means = [strength.mean(), strength.std(), stain.mean(), stain.std(), large[peaks].mean()]
    return [len(points), *means, distance_um.mean(), distance_um.std()]


def _fibre(maps: np.ndarray, stain: str) -> dict[str, np.ndarray]:
    """Coherence 0 (no direction) to 1 (one direction): locally, in blocks of 16 µm, and over the field."""
    across = (maps[:, 1:-1, 2:] - maps[:, 1:-1, :-2]) / 2
    down = (maps[:, 2:, 1:-1] - maps[:, :-2, 1:-1]) / 2
    products = [np.pad(one, ((0, 0), (1, 1), (1, 1))) for one in (across * across, down * down, across * down)]
    n, side, _ = maps.shape
    blocks = side // _FIBRE_BLOCK
    shape = (n, blocks, _FIBRE_BLOCK, blocks, _FIBRE_BLOCK)
    xx, yy, xy = (one.reshape(shape).mean(axis=(2, 4)) for one in products)
    features = {}
    fields = zip(*(_fields(one).values() for one in (xx, yy, xy)), strict=True)
    for field, (x, y, mixed) in zip(("um200", "um100"), fields, strict=True):
        directed = np.hypot(x - y, 2 * mixed).sum(axis=(1, 2))
        energy = np.maximum((x + y).sum(axis=(1, 2)), 1e-6)
        overall = np.hypot((x - y).sum(axis=(1, 2)), 2 * mixed.sum(axis=(1, 2)))
        features[f"{field}.{stain}_fibre_local"] = directed / energy
        features[f"{field}.{stain}_fibre_field"] = overall / energy
    return features
