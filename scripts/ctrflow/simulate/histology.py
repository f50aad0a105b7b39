"""Drawing H&E from drawn tissue: concentrations of two dyes, then light through them (Beer-Lambert).

The structure of a stain (two unit absorption vectors and their concentrations) follows Ruifrok and Johnston 2001.
"""

from dataclasses import dataclass

import numpy as np

from ctrflow.simulate.tissue import GRID_UM, KINDS, Tissue, enlarge, smooth_noise

HAEMATOXYLIN = (0.62, 0.70, 0.34)
EOSIN = (0.13, 0.91, 0.38)
BLOCK_PX = 384  # the picture is painted in blocks, so that what a block lacks costs nothing
SIZES = (0.72, 0.9, 1.1, 1.35)  # of nuclei, relative to their kind
VARIANTS = 2  # shapes for each kind, size and direction of a nucleus
TURNS = 12  # directions of nuclei in half a turn
TILE = 1024  # side of the repeating textures, a power of two


@dataclass(frozen=True)
class Stain:
    """One batch of staining and scanning: absorption vectors, strengths, glass colour, blur of the optics."""

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    strength_h: float
    strength_e: float
    glass: tuple[float, float, float]
    blur_um: float


def draw_stain(rng: np.random.Generator, spread: float = 1.0) -> Stain:
    """A batch near the textbook stain; `spread` 1 is the variation between laboratories."""

    def near(vector):
        moved = np.clip(np.array(vector) + rng.normal(0, 0.035 * spread, 3), 0.03, None)
        return tuple(moved / np.linalg.norm(moved))

    return Stain(
        haematoxylin=near(HAEMATOXYLIN),
        eosin=near(EOSIN),
        strength_h=float(np.exp(rng.normal(0, 0.10 * spread))),
        strength_e=float(np.exp(rng.normal(0, 0.14 * spread))),
        glass=tuple(np.clip(rng.normal((243, 241, 243), 2.5 * spread), 232, 250)),
        blur_um=float(rng.uniform(0.35, 0.35 + 0.5 * spread)),
    )


def draw_histology(tissue: Tissue, um_per_px: float, stain: Stain, rng: np.random.Generator) -> np.ndarray:
    """The H&E image of drawn tissue, uint8 (px x px x 3); image x, y in µm = (px + 0.5) * um_per_px."""
    size = round(tissue.side_um / um_per_px)
    textures = _textures(rng)
    nuclei = _stamp_nuclei(tissue.cells, size, um_per_px, stain.blur_um, textures["grain"], rng)
    maps = {name: np.clip(values, -80, 80) for name, values in tissue.maps.items() if values.dtype == np.float32}
    maps |= {name: tissue.maps[name] for name in ("across", "along")} | {"fat_wall": _fat_walls(tissue, rng)}
    image = np.empty((size, size, 3), np.uint8)
    for top in range(0, size, BLOCK_PX):
        for left in range(0, size, BLOCK_PX):
            window = (slice(top, min(top + BLOCK_PX, size)), slice(left, min(left + BLOCK_PX, size)))
            block = _Block(maps, textures, window, size, um_per_px)
            image[window] = _light(block, nuclei[window], stain)
    return image


def _light(block, nuclei: np.ndarray, stain: Stain) -> np.ndarray:
    """The colour (uint8) of one block: light of the glass, weakened by both dyes."""
    h, e = _dyes(block)
    covered = np.minimum(nuclei, 1)
    e = e * (1 - 0.62 * covered) * stain.strength_e
    h = (h * (1 - 0.5 * covered) + _saturate(nuclei)) * stain.strength_h
    grain = 1 + 0.005 * block.tile("fine", 5)
    pixels = np.empty((*h.shape, 3), np.uint8)
    for channel in range(3):
        density = h * np.float32(stain.haematoxylin[channel]) + e * np.float32(stain.eosin[channel])
        light = np.float32(stain.glass[channel]) * grain * np.exp(density * np.float32(-np.log(10)))
        pixels[..., channel] = np.clip(light, 0, 255)
    return pixels


def _saturate(nuclei: np.ndarray) -> np.ndarray:
    """Overlapping nuclei add up, but not without end."""
    return 1.75 * (1 - np.exp(-nuclei / 1.45))


def _stamp_nuclei(cells, size: int, um_per_px: float, blur_um: float, noise, rng) -> np.ndarray:
    """Haematoxylin of all nuclei, size x size: each cell adds a template of its kind, size, shape and direction."""
    canvas = np.zeros((size, size), np.float32)
    kinds = cells["kind"].to_numpy()
    nominal = np.sqrt([k.long_um * k.short_um for k in KINDS])[kinds]
    relative = np.sqrt(cells["long_um"].to_numpy() * cells["short_um"].to_numpy()) / nominal
    size_bin = np.abs(np.log(relative[:, None] / np.array(SIZES))).argmin(axis=1)
    turn = np.floor((cells["angle"].to_numpy() % np.pi) / np.pi * TURNS).astype(int) % TURNS
    variant = rng.integers(0, VARIANTS, len(cells))
    seed = int(rng.integers(2**31))
    x = np.rint(cells["x_um"].to_numpy() / um_per_px - 0.5).astype(int)
    y = np.rint(cells["y_um"].to_numpy() / um_per_px - 0.5).astype(int)
    made: dict[tuple, np.ndarray] = {}
    keys = np.stack([kinds, size_bin, turn, variant], axis=1).tolist()
    for key, at_x, at_y, dark in zip(keys, x.tolist(), y.tolist(), cells["dark"].tolist(), strict=True):
        key = tuple(key)
        if key not in made:
            made[key] = _nucleus(key, um_per_px, blur_um, noise, np.random.default_rng([seed, *key]))
        stamp = made[key]
        half = stamp.shape[0] // 2
        if min(at_x, at_y) >= half and max(at_x, at_y) < size - half:
            canvas[at_y - half : at_y + half + 1, at_x - half : at_x + half + 1] += dark * stamp
    return canvas


def _nucleus(key: tuple, um_per_px: float, blur_um: float, noise, rng) -> np.ndarray:
    """One nucleus: an ellipse with a ragged outline, clumped chromatin, a darker rim and, if pale, nucleoli."""
    from scipy.ndimage import gaussian_filter

    code, size_bin, turn, _ = key
    kind = KINDS[code]
    stretch = np.clip(rng.normal(1, 0.10), 0.8, 1.25)
    long_um, short_um = kind.long_um * SIZES[size_bin] * stretch, kind.short_um * SIZES[size_bin] / stretch
    fine = 2 if um_per_px > 0.45 else 1  # drawn finer than the pixels, then averaged
    step = um_per_px / fine
    half = int(np.ceil((1.3 * long_um + 2.5 * blur_um) / um_per_px))
    count = (2 * half + 1) * fine
    axis = (np.arange(count) - (count - 1) / 2) * step
    angle = (turn + 0.5) / TURNS * np.pi
    x = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
    y = axis[:, None] * np.cos(angle) - axis[None, :] * np.sin(angle)
    around = np.arctan2(y / short_um, x / long_um)
    edge = np.ones_like(x)
    for order in (2, 3, 4, 5):
        edge += kind.ragged * rng.normal() / order**0.5 * np.cos(order * around + rng.uniform(0, 2 * np.pi)) * 0.6
    radius = np.hypot(x / long_um, y / short_um)
    depth = (edge - radius) * short_um
    top, left = rng.integers(0, TILE - count, 2)
    clumps = noise[top : top + count, left : left + count]
    body = 1 - 0.34 * kind.open * np.exp(-((radius / 0.75) ** 2))
    body = body * (1 + (0.10 + 0.12 * kind.open) * clumps) + 0.22 * np.exp(-((depth / 0.8) ** 2))
    if kind.open > 0.5:
        for _ in range(int(rng.integers(1, 3))):
            cx, cy = rng.normal(0, 0.28, 2) * (long_um, short_um)
            body += 0.55 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 0.75**2))
    stamp = np.clip(body, 0.15, 1.6) / (1 + np.exp(-np.clip(depth / 0.28, -30, 30)))
    stamp = gaussian_filter(stamp, blur_um / step)
    stamp = stamp.reshape(2 * half + 1, fine, 2 * half + 1, fine).mean(axis=(1, 3))
    stamp[stamp < 0.01] = 0
    return stamp.astype(np.float32)


def _textures(rng) -> dict[str, np.ndarray]:
    """Repeating noise, TILE x TILE: fibres and bundles (rows across, columns along), granules, cell-sized."""
    from scipy.fft import irfft2, rfft2

    frequency = np.fft.fftfreq(TILE)[:, None] ** 2, np.fft.rfftfreq(TILE)[None, :] ** 2

    def noise(across, along):
        pass_band = np.exp(-2 * np.pi**2 * (across**2 * frequency[0] + along**2 * frequency[1])).astype(np.float32)
        white = rng.standard_normal((TILE, TILE), dtype=np.float32)
        field = irfft2(rfft2(white) * pass_band)
        return field / field.std()

    return {
        "fibril": noise(1.3, 18.0),
        "bundle": noise(3.6, 55.0),
        "cleft": noise(5.5, 38.0),
        "fine": noise(0.8, 0.8),
        "grain": noise(1.8, 1.8),
        "cell": noise(5.5, 5.5),
        "cloud": noise(28.0, 28.0),
    }


def _fat_walls(tissue: Tissue, rng) -> np.ndarray:
    """Distance (µm) to the nearest wall between fat cells, with rounded corners, on a grid of half GRID_UM."""
    from scipy.spatial import cKDTree

    step = GRID_UM / 2
    size = round(tissue.side_um / step)
    walls = np.full((size, size), 30.0, np.float32)
    near_fat = enlarge(tissue.maps["fat"], (size, size)) > -12
    rows, columns = np.nonzero(near_fat)
    if len(rows) == 0:
        return walls
    points = (np.stack([columns, rows], axis=1) + 0.5) * step
    for axis in (0, 1):
        points[:, axis] += 1.8 * smooth_noise(rng, size, 34 / step)[rows, columns]
    distance, which = cKDTree(tissue.fat_centres_um).query(points, k=4)
    centres = tissue.fat_centres_um[which]
    total = np.zeros(len(points))
    for other in (1, 2, 3):
        apart = np.hypot(*(centres[:, other] - centres[:, 0]).T)
        to_wall = (distance[:, other] ** 2 - distance[:, 0] ** 2) / (2 * apart)
        total += np.exp(-to_wall / 3.5)
    walls[rows, columns] = -3.5 * np.log(total)
    return walls


class _Block:
    """A window of the image: maps enlarged to its pixels, and its part of the repeating textures."""

    def __init__(self, maps, textures, window, size, um_per_px):
        self.maps, self.textures, self.window, self.size = maps, textures, window, size
        self.shape = tuple(part.stop - part.start for part in window)
        self._tiles = {}

    def _box(self, cells: int) -> tuple[float, float, float, float]:
        """The window in grid cells of a map that has `cells` of them a side: left, top, right, bottom."""
        rows, columns = ((part.start * cells / self.size, part.stop * cells / self.size) for part in self.window)
        return (columns[0], rows[0], columns[1], rows[1])

    def depth(self, name: str) -> np.ndarray:
        part, (top, left) = self._part(name)
        box = self._box(len(self.maps[name]))
        return enlarge(part, self.shape, (box[0] - left, box[1] - top, box[2] - left, box[3] - top), smooth=False)

    def holds(self, name: str, above: float = -20.0) -> bool:
        """Whether a structure comes within 20 µm of the window."""
        return bool(self._part(name)[0].max() > above)

    def _part(self, name: str) -> tuple[np.ndarray, tuple[int, int]]:
        """The cells of a map around the window, and the row and column of the first."""
        left, top, right, bottom = self._box(len(self.maps[name]))
        top, left = max(int(top) - 2, 0), max(int(left) - 2, 0)
        return self.maps[name][top : int(bottom) + 3, left : int(right) + 3], (top, left)

    def tile(self, name: str, shift: int = 0) -> np.ndarray:
        if (name, shift) not in self._tiles:
            steps = [(np.arange(part.start, part.stop) + 131 * shift) % TILE for part in self.window]
            self._tiles[name, shift] = self.textures[name][np.ix_(*steps)]
        return self._tiles[name, shift]

    def fibre(self, name: str) -> np.ndarray:
        """A fibre texture, looked up along the collagen's own coordinates (1 texel = 1 µm)."""
        if "across" not in self._tiles:
            self._tiles["across"] = self.depth("across").astype(np.int32) & (TILE - 1)
            self._tiles["along"] = self.depth("along").astype(np.int32) & (TILE - 1)
        return self.textures[name][self._tiles["across"], self._tiles["along"]]


def _ramp(depth: np.ndarray, soft: float = 1.2) -> np.ndarray:
    """0 outside to 1 inside a structure, over about `soft` µm each side of its border."""
    return np.clip(depth * np.float32(0.25 / soft) + np.float32(0.5), 0, 1)


def _bump(depth: np.ndarray, at: float, width: float) -> np.ndarray:
    """1 on the line at depth `at`, falling to 0 within twice `width` (µm)."""
    return np.clip(1 - np.square((depth - np.float32(at)) / np.float32(2 * width)), 0, None)


def _dyes(block: _Block) -> tuple[np.ndarray, np.ndarray]:
    """Haematoxylin and eosin of everything but the nuclei, painted from the stroma upwards."""
    if not block.holds("tissue"):
        return np.zeros(block.shape, np.float32), np.zeros(block.shape, np.float32)
    grain, cell, cloud, fine = (block.tile(name) for name in ("grain", "cell", "cloud", "fine"))
    wobble = 2.2 * cell + grain
    bed = _ramp(block.depth("bed"), 25)
    dyes = _stroma(block, bed)

    def paint(share, h, e):
        dyes[0] += share * (np.maximum(h, 0) - dyes[0])
        dyes[1] += share * (np.maximum(e, 0) - dyes[1])

    if block.holds("fat"):
        membrane = _ramp(0.9 + 0.2 * grain - block.depth("fat_wall"), 0.5)
        fat = _ramp(block.depth("fat") + wobble, 2.0)
        paint(fat, 0.004 + 0.05 * membrane, 0.010 + (0.36 + 0.06 * grain) * membrane)
    if block.holds("immune"):
        paint(_ramp(block.depth("immune") + wobble, 5), 0.10 + 0.03 * grain, 0.15 + 0.04 * cell)
    nest = np.zeros(block.shape, np.float32)
    if block.holds("nest"):
        depth = block.depth("nest") + wobble
        nest = _ramp(depth)
        cleft = _bump(depth, -3.5, 1.6) * _ramp(cloud - 0.3, 0.4) * _ramp(block.depth("bed"), 4)
        dyes[1] *= 1 - 0.75 * cleft
        cytoplasm = 0.24 + 0.045 * cell + 0.03 * grain + 0.04 * cloud
        paint(nest, 0.115 + 0.03 * cell + 0.02 * grain + 0.02 * cloud, cytoplasm)
    if block.holds("tube"):
        depth = block.depth("tube") + 0.4 * wobble
        dyes[1] += 0.13 * _bump(depth, -2.0, 1.5) * (1 - nest)  # basement membrane
        paint(_ramp(depth), 0.09 + 0.025 * cell + 0.02 * grain, 0.26 + 0.04 * cell + 0.03 * grain)
    if block.holds("lumen"):
        depth = block.depth("lumen") + 0.3 * wobble
        secretion = _ramp(depth - 4 - 2 * cloud, 1.5) * _ramp(cloud, 0.3)
        paint(_ramp(depth, 0.8), 0.01, 0.015 + 0.14 * secretion * (1 + 0.15 * grain))
    if block.holds("necrosis"):
        debris = (0.05 + 0.07 * grain + 0.04 * fine, 0.42 + 0.10 * grain + 0.08 * fine)
        paint(_ramp(block.depth("necrosis") + 2 * wobble, 4), *debris)
    if block.holds("blood"):
        paint(_ramp(block.depth("blood"), 1.0), 0.02, 0.08 + 0.65 * _ramp(grain - 0.1, 0.35))
    edge = block.depth("tissue") + 1.6 * wobble
    there = _ramp(edge, 1.5)
    return dyes[0] * there, dyes[1] * there * (1 + 0.25 * _bump(edge, 0, 5))


def _stroma(block: _Block, bed: np.ndarray) -> list[np.ndarray]:
    """Both dyes of collagen: bundles, fibrils and clefts; paler and bluer in the tumour bed and within lobules."""
    grain, cloud, fine = (block.tile(name) for name in ("grain", "cloud", "fine"))
    lobule = np.zeros(block.shape, np.float32)
    if block.holds("lobule"):
        lobule = _ramp(block.depth("lobule") + 1.1 * block.tile("cell"), 6)
    loose = np.maximum(0.5 * bed, lobule)
    cleft = _ramp(block.fibre("cleft") - 1.2 - 0.6 * loose + 0.2 * grain + 0.15 * cloud, 0.09)
    bundles = (0.07 * block.fibre("bundle") + 0.045 * block.fibre("fibril")) * (1 - 0.4 * loose)
    e = np.maximum((0.33 + 0.04 * cloud) * (1 - 0.42 * loose) + bundles + 0.02 * fine + 0.02 * grain, 0.05)
    h = 0.02 + 0.045 * bed + 0.06 * lobule + 0.012 * fine + 0.01 * cloud
    return [np.maximum(h, 0), e * (1 - 0.88 * cleft)]
