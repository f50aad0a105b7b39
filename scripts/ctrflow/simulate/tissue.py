"""The drawn tissue: a map of regions, the ducts in it, and every cell with its place, kind and nucleus.

All lengths are µm and all maps share one square grid of `GRID_UM`; a depth map is positive inside its structure and
grows (about 1 per µm) away from its border, so it can be enlarged smoothly. Histology and expression are both derived
from this tissue alone.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

GRID_UM = 4.0
FAR_UM = 400.0
WORDS = (
    "undetermined",
    "invasive cancer",
    "cancer in situ",
    "breast glands",
    "immune infiltrate",
    "adipose tissue",
    "connective tissue",
)
CANCER_WORDS = ("invasive cancer", "cancer in situ")


class Kind(NamedTuple):
    """A kind of cell: its name, what a cell annotator would call it, and its nucleus (half axes in µm)."""

    name: str
    cluster: str
    long_um: float
    short_um: float
    spread: float  # relative spread of the size from cell to cell
    dark: float  # haematoxylin, relative to a lymphocyte
    ragged: float  # irregularity of the outline
    open: float  # 0 even chromatin, 1 pale centre with nucleoli


KINDS = (
    Kind("invasive", "Invasive_Tumor", 5.6, 4.3, 0.20, 0.62, 0.13, 0.9),
    Kind("bland", "Invasive_Tumor", 4.2, 3.1, 0.12, 0.74, 0.06, 0.2),
    Kind("luminal_like", "Invasive_Tumor", 6.0, 4.6, 0.22, 0.64, 0.15, 1.0),
    Kind("dcis", "DCIS", 5.1, 4.1, 0.13, 0.66, 0.08, 0.7),
    Kind("luminal", "Ductal", 4.3, 3.0, 0.08, 0.76, 0.04, 0.2),
    Kind("hyperplastic", "Ductal", 4.8, 3.5, 0.12, 0.70, 0.07, 0.45),
    Kind("active", "Ductal", 4.5, 3.2, 0.09, 0.76, 0.04, 0.3),
    Kind("myoepithelial", "Myoepi", 4.6, 1.7, 0.12, 0.80, 0.05, 0.1),
    Kind("fibroblast", "Stromal", 6.6, 1.5, 0.20, 0.78, 0.06, 0.1),
    Kind("reactive", "Stromal", 6.4, 2.1, 0.20, 0.66, 0.08, 0.4),
    Kind("adipocyte", "Adipocytes", 5.0, 1.3, 0.10, 0.85, 0.04, 0.0),
    Kind("t_cell", "T_Cells", 3.0, 2.8, 0.07, 1.00, 0.05, 0.0),
    Kind("b_cell", "B_Cells", 3.2, 3.0, 0.07, 0.96, 0.05, 0.0),
    Kind("macrophage", "Macrophages", 4.2, 3.1, 0.15, 0.62, 0.10, 0.4),
    Kind("endothelial", "Endothelial", 5.6, 1.4, 0.15, 0.85, 0.05, 0.0),
)
KIND = {kind.name: code for code, kind in enumerate(KINDS)}
CANCER_KINDS = tuple(KIND[name] for name in ("invasive", "bland", "luminal_like", "dcis"))


@dataclass(frozen=True)
class Plan:
    """Composition of a section: shares of the tissue area, and of the tumour by its look and its expression.

    `bland` tumour looks harmless (thin cords of small nuclei) and expresses the tumour programme; `luminal_like`
    tumour looks malignant and expresses nearly what normal epithelium does. Benign look-alikes: `hyperplasia`
    (solid ducts like cancer in situ, normal expression) and `active` lobules (normal look, tumour-leaning expression).
    """

    invasive: float = 0.35
    in_situ: float = 0.08
    bland: float = 0.17
    luminal_like: float = 0.30
    glands: float = 0.13
    hyperplasia: float = 0.09
    active: float = 0.08
    fat: float = 0.18
    immune: float = 0.04


class Tube(NamedTuple):
    """A duct, acinus or vessel cut across: centre, radius, outline harmonics, wall (0 = solid), lining kind, fill."""

    x_um: float
    y_um: float
    radius_um: float
    waves: np.ndarray
    wall_um: float
    kind: int
    fill: str


@dataclass
class Tissue:
    """Maps by name (grid, float32 depths in µm unless said), tubes, fat cell centres, and the cells (a DataFrame)."""

    side_um: float
    maps: dict[str, np.ndarray]
    tubes: list[Tube] = field(default_factory=list)
    fat_centres_um: np.ndarray | None = None
    cells: object = None


def draw_tissue(area_mm2: float, plan: Plan, rng: np.random.Generator) -> Tissue:
    """Draw tissue of `area_mm2` with white glass around it, and place its cells."""
    side = GRID_UM * round(np.sqrt(area_mm2 / 0.73) * 1000 / GRID_UM)
    tissue = Tissue(side, {"tissue": _outline(side, area_mm2, rng)})
    _zones(tissue, plan, rng)
    _ducts(tissue, plan, rng)
    _nests(tissue, plan, rng)
    _collagen(tissue, rng)
    tissue.maps["word"] = _words(tissue.maps)
    _place_cells(tissue, rng)
    return tissue


def smooth_noise(rng: np.random.Generator, size: int, wave_px: float) -> np.ndarray:
    """A smooth random field, size x size, about zero mean and unit spread, with features about `wave_px` apart."""
    from scipy.ndimage import gaussian_filter

    coarse = max(int(np.ceil(size * 4 / wave_px)) + 8, 12)
    noise = gaussian_filter(rng.standard_normal((coarse, coarse)), 1.1, mode="wrap").astype(np.float32)
    noise /= noise.std()
    step = wave_px / 4
    box = (4.0, 4.0, 4.0 + size / step, 4.0 + size / step)
    return enlarge(noise, (size, size), box)


def enlarge(grid: np.ndarray, shape: tuple[int, int], box: tuple | None = None, smooth: bool = True) -> np.ndarray:
    """Resample a float map to `shape`; `box` (left, top, right, bottom in grid cells) is the part that is wanted."""
    from PIL import Image

    kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    image = Image.fromarray(np.ascontiguousarray(grid, dtype=np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), kind, box=box), dtype=np.float32)


def look_up(grid: np.ndarray, points_um: np.ndarray) -> np.ndarray:
    """Values of a map at points (n x 2, x and y in µm), linearly between grid cells; codes by the nearest."""
    from scipy.ndimage import map_coordinates

    where = points_um[:, ::-1].T / GRID_UM - 0.5
    order = 1 if grid.dtype == np.float32 else 0
    return map_coordinates(grid, where, order=order, mode="nearest")


def _axes(side: float) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the grid cells' centres, µm, broadcastable."""
    centres = (np.arange(round(side / GRID_UM), dtype=np.float32) + 0.5) * GRID_UM
    return centres[None, :], centres[:, None]


def _noise(rng, side: float, wave_um: float) -> np.ndarray:
    return smooth_noise(rng, round(side / GRID_UM), wave_um / GRID_UM)


def _depth(level: np.ndarray, threshold: float) -> np.ndarray:
    """About how far (µm) inside the contour `level` = `threshold` each cell lies."""
    down, right = np.gradient(level, GRID_UM)
    slope = np.hypot(down, right)
    near = np.abs(level - threshold) <= np.quantile(np.abs(level - threshold), 0.2)
    return ((level - threshold) / max(float(slope[near].mean()), 1e-6)).astype(np.float32)


def _top_share(level: np.ndarray, inside: np.ndarray, share: float) -> np.ndarray:
    """Depth of the part of `inside` with the highest levels that makes up `share` of it; nothing for share 0."""
    if share <= 0:
        return np.full(level.shape, -FAR_UM, np.float32)
    return _depth(level, float(np.quantile(level[inside], 1 - min(share, 0.999))))


def _outline(side: float, area_mm2: float, rng) -> np.ndarray:
    """A slab with rounded corners and an irregular edge, of the wanted area."""
    x, y = _axes(side)
    angle = rng.uniform(0, np.pi / 2)
    dx, dy = x - side / 2, y - side / 2
    along = (dx * np.cos(angle) + dy * np.sin(angle)) * rng.uniform(0.94, 1.06)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    power = rng.uniform(2.4, 3.2)
    distance = (np.abs(along) ** power + np.abs(across) ** power) ** (1 / power)
    rough = 0.024 * side * _noise(rng, side, 0.4 * side) + 10 * _noise(rng, side, 150) + 5 * _noise(rng, side, 45)
    glass = np.maximum(np.maximum(np.abs(dx), np.abs(dy)) - 0.44 * side, 0)  # keeps a margin of glass
    level = -(distance + rough + 2.0 * glass)
    inside = round(area_mm2 * 1e6 / GRID_UM**2)
    cut = np.partition(level.ravel(), level.size - inside)[level.size - inside]
    return (level - cut).astype(np.float32)


def _zones(tissue: Tissue, plan: Plan, rng) -> None:
    """The large parts: tumour bed, fat, immune aggregates, and how the tumour looks where."""
    side, maps = tissue.side_um, tissue.maps
    inside = maps["tissue"] > 0
    bed = _noise(rng, side, 0.75 * side) + 0.25 * _noise(rng, side, 300)
    maps["bed"] = _top_share(bed, inside, plan.invasive)
    away = 1 / (1 + np.exp(-np.clip(maps["bed"], -300, 300) / 40))
    fat = _noise(rng, side, max(0.4 * side, 350)) + 0.3 * _noise(rng, side, 170) - 3 * away
    maps["fat"] = np.minimum(_top_share(fat, inside, plan.fat), maps["tissue"] - 12)
    shore = np.exp(-np.abs(maps["bed"]) / 150) if plan.invasive > 0 else 0.0
    immune = _noise(rng, side, 420) + 0.25 * _noise(rng, side, 120) + shore - 2.5 * (maps["fat"] > 0)
    maps["immune"] = np.minimum(_top_share(immune, inside, plan.immune), maps["tissue"] - 20)
    look = _noise(rng, side, max(0.5 * side, 400))
    in_bed = (maps["bed"] > 0) & inside
    pattern = np.zeros(inside.shape, np.uint8)  # 0 plain, 1 bland, 2 luminal-like
    if in_bed.any():
        pattern[look < np.quantile(look[in_bed], plan.bland)] = 1
        pattern[look > np.quantile(look[in_bed], 1 - plan.luminal_like)] = 2
    maps["pattern"] = pattern


def _waves(rng, roughness: float) -> np.ndarray:
    """Amplitudes and phases of outline harmonics 2 to 5."""
    return np.stack([rng.normal(0, roughness, 4) / np.arange(1, 5) ** 0.6, rng.uniform(0, 2 * np.pi, 4)])


def wall_radius(tube: Tube, angle: np.ndarray) -> np.ndarray:
    """Radius (µm) of a tube's outer wall in the directions `angle` (radians)."""
    radius = np.ones_like(angle)
    for order, (amplitude, phase) in enumerate(tube.waves.T, start=2):
        radius = radius + amplitude * np.cos(order * angle + phase)
    return tube.radius_um * radius


def _ducts(tissue: Tissue, plan: Plan, rng) -> None:
    """Clusters of ducts and lobules, single ducts and small vessels; fills the maps tube, lumen, necrosis and so on."""
    side, maps = tissue.side_um, tissue.maps
    shape = maps["tissue"].shape
    for name in ("tube", "lumen", "necrosis", "blood", "lobule", "wall", "cluster"):
        maps[name] = np.full(shape, -FAR_UM, np.float32)
    maps["cluster_word"] = np.zeros(shape, np.uint8)
    area_um2 = float((maps["tissue"] > 0).sum()) * GRID_UM**2
    wanted = (
        ("dcis", plan.in_situ, "cancer in situ"),
        ("luminal", plan.glands, "breast glands"),
        ("hyperplastic", plan.hyperplasia, "breast glands"),
        ("active", plan.active, "breast glands"),
    )
    taken: list[tuple[float, float, float]] = []
    for kind, share, word in wanted:
        left = share * area_um2
        for _ in range(400):
            if left <= 0:
                break
            radius = min(rng.uniform(150, 260), 0.17 * side, 1.25 * np.sqrt(max(left, 6e3) / np.pi))
            spot = rng.uniform(0, side, 2)
            depth = look_up(maps["tissue"], spot[None])[0]
            bed = look_up(maps["bed"], spot[None])[0]
            if depth < 0.8 * radius or bed > (0.3 * radius if kind == "dcis" else -0.4 * radius):
                continue
            if any(np.hypot(*(spot - other[:2])) < 0.95 * (radius + other[2]) for other in taken):
                continue
            taken.append((*spot, radius))
            left -= np.pi * radius**2
            _cluster(tissue, spot, radius, kind, word, rng)
    for _ in range(int(area_um2 / 1e6 * 9)):
        spot = rng.uniform(0, side, 2)
        if look_up(maps["tissue"], spot[None])[0] > 40 and look_up(maps["cluster"], spot[None])[0] < -25:
            tube = Tube(*spot, rng.uniform(9, 24), _waves(rng, 0.12), 3.5, KIND["endothelial"], "blood")
            _add_tube(tissue, tube)


def _cluster(tissue: Tissue, centre, radius: float, kind: str, word: str, rng) -> None:
    """A lobule (many small acini) or a group of large ducts within a circle, clearing fat and tumour from it."""
    maps = tissue.maps
    solid = kind in ("dcis", "hyperplastic")
    low, high, gap = (38, 115, 16) if solid else (12, 21, 3)
    blob = Tube(*centre, radius, _waves(rng, 0.07), 0, 0, "")
    part, depth, _ = _tube_depth(tissue, blob, margin=60)
    maps["cluster"][part] = np.maximum(maps["cluster"][part], depth)
    maps["cluster_word"][part][depth > -6] = WORDS.index(word)
    for name in ("fat", "bed", "immune"):
        maps[name][part] = np.minimum(maps[name][part], -depth - 8)
    if not solid:
        maps["lobule"][part] = np.maximum(maps["lobule"][part], depth)
    done: list[tuple[float, float, float]] = []
    if not solid:
        duct = _draining_duct(centre, radius, kind, rng)
        _add_tube(tissue, duct, rng)
        done.append((duct.x_um, duct.y_um, 1.15 * duct.radius_um))
    sizes = np.sort(np.clip(rng.uniform(low, high, 250 if solid else 1100), None, 0.62 * radius))[::-1]
    for size in sizes:
        spot = centre + radius * np.sqrt(rng.uniform()) * np.array(_unit(rng.uniform(0, 2 * np.pi)))
        if np.hypot(*(spot - centre)) + size > radius:
            continue
        if any(np.hypot(spot[0] - x, spot[1] - y) < size + other + gap for x, y, other in done):
            continue
        done.append((*spot, size))
        wall, fill = (0.0, "") if solid else (rng.uniform(9, 11), "")
        if not solid and size > 18 and rng.uniform() < 0.3:
            fill = "secretion"
        if kind == "dcis" and size > 60 and rng.uniform() < 0.6:
            fill = "necrosis"
        elif solid and rng.uniform() < 0.6:
            fill = "holes"
        _add_tube(tissue, Tube(*spot, size, _waves(rng, 0.08), wall, KIND[kind], fill), rng)


def _draining_duct(centre, radius: float, kind: str, rng) -> Tube:
    """A larger hollow duct at the rim of a lobule."""
    spot = centre + 0.85 * radius * np.array(_unit(rng.uniform(0, 2 * np.pi)))
    return Tube(*spot, rng.uniform(34, 60), _waves(rng, 0.12), 15.0, KIND[kind], "secretion")


def _unit(angle: float) -> tuple[float, float]:
    return float(np.cos(angle)), float(np.sin(angle))


def _tube_depth(tissue: Tissue, tube: Tube, margin: float):
    """The window of the maps around a tube, the depth inside its wall there, and the distance from its centre."""
    x, y = _axes(tissue.side_um)
    reach = tube.radius_um * 1.35 + margin
    cells = x.size
    first = [max(int((c - reach) / GRID_UM), 0) for c in (tube.y_um, tube.x_um)]
    last = [min(int((c + reach) / GRID_UM) + 1, cells) for c in (tube.y_um, tube.x_um)]
    part = (slice(first[0], last[0]), slice(first[1], last[1]))
    dx, dy = x[:, part[1]] - tube.x_um, y[part[0]] - tube.y_um
    distance = np.hypot(dx, dy)
    return part, (wall_radius(tube, np.arctan2(dy, dx)) - distance).astype(np.float32), distance


def _add_tube(tissue: Tissue, tube: Tube, rng=None) -> None:
    """Write one tube into the maps where it is the nearest one."""
    maps = tissue.maps
    part, depth, _ = _tube_depth(tissue, tube, margin=60)
    if depth.size == 0 or look_up(maps["tissue"], np.array([[tube.x_um, tube.y_um]]))[0] < tube.radius_um:
        return
    tissue.tubes.append(tube)
    nearest = depth > maps["tube"][part]
    lumen = depth - tube.wall_um if tube.wall_um else np.full_like(depth, -FAR_UM)
    necrosis = depth - 0.45 * tube.radius_um if tube.fill == "necrosis" else np.full_like(depth, -FAR_UM)
    if tube.fill == "holes":
        for _ in range(int(rng.integers(2, 6))):
            x, y = np.array(_unit(rng.uniform(0, 2 * np.pi))) * tube.radius_um * rng.uniform(0.1, 0.6)
            gx, gy = _axes(tissue.side_um)
            hole = rng.uniform(7, 15) - np.hypot(gx[:, part[1]] - tube.x_um - x, gy[part[0]] - tube.y_um - y)
            lumen = np.maximum(lumen, hole)
    new = {
        "tube": depth,
        "lumen": np.where(depth > 0, lumen, np.minimum(lumen, depth)),
        "necrosis": necrosis,
        "blood": depth - tube.wall_um if tube.fill == "blood" else np.full_like(depth, -FAR_UM),
        "wall": np.full_like(depth, float(tube.kind)),
    }
    for name, values in new.items():
        maps[name][part] = np.where(nearest, values, maps[name][part])


def _nests(tissue: Tissue, plan: Plan, rng) -> None:
    """Nests, cords and sheets of tumour cells inside the tumour bed."""
    side, maps = tissue.side_um, tissue.maps
    solid = _noise(rng, side, 170) + 0.45 * _noise(rng, side, 75) + 0.15 * _noise(rng, side, 30)
    nest = _depth(solid, float(np.quantile(solid, 0.36)))
    cords = _noise(rng, side, 95) + 0.3 * _noise(rng, side, 45)
    cord = 5.5 - np.abs(_depth(cords, 0.0))
    glands = _noise(rng, side, 120) + 0.35 * _noise(rng, side, 55)
    gland = _depth(glands, float(np.quantile(glands, 0.42)))
    level = np.choose(maps["pattern"], [nest, cord, gland])
    limit = np.minimum(np.minimum(maps["bed"], maps["tissue"] - 6), -maps["immune"] - 4)
    maps["nest"] = np.minimum(np.minimum(level, limit), -maps["tube"] - 5).astype(np.float32)
    pores = _noise(rng, side, 60)
    pore = np.minimum(_depth(pores, float(np.quantile(pores, 0.86))), gland - 10)
    holes = np.where(maps["pattern"] == 2, np.minimum(pore, maps["bed"] - 20), -FAR_UM)
    maps["lumen"] = np.maximum(maps["lumen"], holes).astype(np.float32)
    if plan.invasive <= 0:
        maps["nest"] = np.full_like(maps["nest"], -FAR_UM)


def _collagen(tissue: Tissue, rng) -> None:
    """Two coordinates (µm) across and along the fibres, which run in waves and wrap around ducts and nests."""
    side, maps = tissue.side_um, tissue.maps
    x, y = _axes(side)
    angle = rng.uniform(0, np.pi)
    across = x * np.cos(angle) + y * np.sin(angle) + 110 * _noise(rng, side, 650) + 26 * _noise(rng, side, 190)
    along = y * np.cos(angle) - x * np.sin(angle) + 60 * _noise(rng, side, 400)
    across = across + 2.2 * np.sin(along / 9 + 2 * _noise(rng, side, 200))
    outside = np.maximum(-np.maximum(np.maximum(maps["nest"], maps["tube"]), maps["lobule"]), 0)
    maps["across"] = (across + 45 * np.exp(-outside / 26)).astype(np.float32)
    maps["along"] = along.astype(np.float32)


def _words(maps: dict[str, np.ndarray]) -> np.ndarray:
    """What a pathologist would write over each grid cell: indices into WORDS, 0 where there is no tissue."""
    word = np.full(maps["tissue"].shape, WORDS.index("connective tissue"), np.uint8)
    word[maps["fat"] > 0] = WORDS.index("adipose tissue")
    word[(maps["bed"] > 0) & (maps["nest"] > -45)] = WORDS.index("invasive cancer")
    word[maps["immune"] > 0] = WORDS.index("immune infiltrate")
    in_cluster = (maps["cluster"] > -6) & ((maps["lobule"] > -6) | (maps["tube"] > -22))
    word[in_cluster] = maps["cluster_word"][in_cluster]
    word[maps["tissue"] <= 0] = 0
    return word


def _place_cells(tissue: Tissue, rng) -> None:
    """Cells by region, none closer to another than nuclei allow, as a DataFrame sorted by y."""
    import pandas as pd

    parts = [_ring_cells(tissue, rng), _fat_cells(tissue, rng), _filled_cells(tissue, rng)]
    cells = pd.concat(parts, ignore_index=True)
    points = cells[["x_um", "y_um"]].to_numpy()
    cells = cells[look_up(tissue.maps["tissue"], points) > 3].reset_index(drop=True)
    size = np.clip(rng.normal(1, np.array([k.spread for k in KINDS])[cells["kind"]]), 0.6, 1.7)
    stretch = np.clip(rng.normal(1, 0.08, len(cells)), 0.75, 1.3)
    cells["long_um"] = np.array([k.long_um for k in KINDS])[cells["kind"]] * size * stretch
    cells["short_um"] = np.array([k.short_um for k in KINDS])[cells["kind"]] * size / stretch
    cells["dark"] = np.array([k.dark for k in KINDS])[cells["kind"]] * np.clip(
        rng.normal(1, 0.14, len(cells)), 0.6, 1.4
    )
    cells = cells[_apart(cells)]
    tissue.cells = cells.sort_values(["y_um", "x_um"], ignore_index=True)


def _apart(cells) -> np.ndarray:
    """True for the cells kept when of two that overlap the later one is dropped."""
    from scipy.spatial import cKDTree

    radius = np.sqrt(cells["long_um"] * cells["short_um"]).to_numpy()
    points = cells[["x_um", "y_um"]].to_numpy()
    first, second = cKDTree(points).query_pairs(9.0, output_type="ndarray").T
    close = np.hypot(*(points[first] - points[second]).T) < 0.72 * (radius[first] + radius[second])
    keep = np.ones(len(cells), bool)
    keep[second[close]] = False  # query_pairs gives first < second
    return keep


def _frame(points: np.ndarray, kind, angle):
    import pandas as pd

    return pd.DataFrame(
        {
            "x_um": points[:, 0],
            "y_um": points[:, 1],
            "kind": np.broadcast_to(np.asarray(kind, np.int64), len(points)),
            "angle": np.broadcast_to(np.asarray(angle, float), len(points)),
        }
    )


def _ring_cells(tissue: Tissue, rng):
    """Epithelium around lumina, myoepithelium around every duct, endothelium around vessels."""
    import pandas as pd

    parts = []
    for tube in tissue.tubes:
        centre = np.array([tube.x_um, tube.y_um])
        # layers: depth below the wall, spacing along it, kind, turn (0 along the wall, pi/2 towards the lumen)
        if tube.fill == "blood":
            layers = [(1.5, 14.0, KIND["endothelial"], 0.0)]
        elif tube.wall_um:
            layers = [(1.5, 15.0, KIND["myoepithelial"], 0.0), (6.2, 6.6, tube.kind, np.pi / 2)]
            if tube.wall_um > 14:
                layers.append((11.5, 9.5, tube.kind, np.pi / 2))
        else:
            layers = [(0.5, 17.0, KIND["myoepithelial"], 0.0), (6.0, 8.6, tube.kind, np.pi / 2)]
        for depth, spacing, kind, turn in layers:
            count = max(int(2 * np.pi * max(tube.radius_um - depth, 3) / spacing), 3)
            angle = (np.arange(count) + rng.uniform(-0.3, 0.3, count) + rng.uniform()) * 2 * np.pi / count
            radius = wall_radius(tube, angle) - depth + rng.normal(0, 0.7, count)
            points = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            parts.append(_frame(points, kind, angle + np.pi / 2 + turn + rng.normal(0, 0.2, count)))
    return pd.concat(parts, ignore_index=True) if parts else _frame(np.empty((0, 2)), 0, 0.0)


def sites(rng: np.random.Generator, side: float, spacing: float, jitter: float = 0.3) -> np.ndarray:
    """Points (n x 2, µm) about `spacing` apart over the square: a hexagonal lattice, shaken."""
    high = spacing * np.sqrt(3) / 2
    columns, rows = int(side / spacing) + 1, int(side / high) + 1
    x, y = np.meshgrid(np.arange(columns) * spacing, np.arange(rows) * high)
    x[1::2] += spacing / 2
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points += rng.normal(0, jitter * spacing, points.shape)
    return points[(points > 0).all(axis=1) & (points < side).all(axis=1)]


def _fat_cells(tissue: Tissue, rng):
    """Fat cells' centres, and their nuclei pressed flat against a wall they share with a neighbour."""
    centres = sites(rng, tissue.side_um, 66.0, jitter=0.17)
    tissue.fat_centres_um = centres
    depth = look_up(tissue.maps["fat"], centres)
    points = centres[depth > 0]
    if len(points) == 0:
        return _frame(np.empty((0, 2)), 0, 0.0)
    turn = rng.uniform(0, 2 * np.pi, len(points))
    points = points + 18 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points, angle = _onto_walls(points, centres)
    return _frame(points, KIND["adipocyte"], angle)


def _onto_walls(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points in fat moved to the nearest wall between two fat cells, and the direction of that wall."""
    from scipy.spatial import cKDTree

    distance, near = cKDTree(centres).query(points, k=2)
    apart = centres[near[:, 1]] - centres[near[:, 0]]
    length = np.hypot(*apart.T)
    to_wall = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * length)
    return points + apart * (to_wall / length)[:, None], np.arctan2(apart[:, 1], apart[:, 0]) + np.pi / 2


def _filled_cells(tissue: Tissue, rng):
    """Cells of nests, solid ducts, lymphoid aggregates, lobular stroma and the two kinds of stroma."""
    import pandas as pd

    maps, side = tissue.maps, tissue.side_um
    down, right = np.gradient(maps["across"], GRID_UM)
    fibre = (np.arctan2(down, right) + np.pi / 2).astype(np.float32)
    fibre_x, fibre_y = np.cos(2 * fibre), np.sin(2 * fibre)
    needed = ("nest", "tube", "fat", "immune", "lobule", "lumen", "necrosis", "bed", "pattern", "wall")
    recipes = (
        # region, spacing µm, share kept, {kind: weight}
        ("plain", 11.4, 0.97, {"invasive": 0.92, "t_cell": 0.05, "macrophage": 0.03}),
        ("bland", 10.2, 0.95, {"bland": 0.94, "t_cell": 0.06}),
        ("glandular", 10.8, 0.97, {"luminal_like": 0.94, "t_cell": 0.04, "macrophage": 0.02}),
        ("dcis", 10.2, 0.97, {"dcis": 0.97, "t_cell": 0.03}),
        ("hyperplastic", 10.0, 0.97, {"hyperplastic": 0.97, "t_cell": 0.03}),
        ("debris", 13.0, 0.5, {"t_cell": 1.0}),
        ("immune", 6.9, 0.93, {"t_cell": 0.58, "b_cell": 0.36, "macrophage": 0.06}),
        ("lobule", 15.0, 0.75, {"fibroblast": 0.7, "t_cell": 0.12, "b_cell": 0.08, "endothelial": 0.1}),
        ("reactive", 16.0, 0.75, {"reactive": 0.70, "t_cell": 0.13, "macrophage": 0.09, "endothelial": 0.08}),
        ("fibrous", 22.0, 0.6, {"fibroblast": 0.82, "t_cell": 0.05, "macrophage": 0.05, "endothelial": 0.08}),
        ("septa", 40.0, 0.35, {"endothelial": 0.5, "macrophage": 0.3, "fibroblast": 0.2}),
    )
    parts = []
    for region, spacing, share, mix in recipes:
        points = sites(rng, side, spacing)
        column, row = (points / GRID_UM).astype(int).T
        at = {name: maps[name][row, column] for name in needed}
        keep = _in_region(region, at) & (rng.uniform(size=len(points)) < share)
        points = points[keep]
        kinds = rng.choice([KIND[name] for name in mix], len(points), p=list(mix.values()))
        fibres = np.arctan2(look_up(fibre_y, points), look_up(fibre_x, points)) / 2
        loose = np.isin(kinds, [KIND[n] for n in ("fibroblast", "reactive", "endothelial")])
        if region == "septa" and len(points):
            points, fibres = _onto_walls(points, tissue.fat_centres_um)
        angle = np.where(loose, fibres + rng.normal(0, 0.22, len(points)), rng.uniform(0, np.pi, len(points)))
        parts.append(_frame(points, kinds, angle))
    return pd.concat(parts, ignore_index=True)


def _in_region(region: str, at: dict[str, np.ndarray]) -> np.ndarray:
    """Which points, given the maps' values at them, belong to a region of `_filled_cells`."""
    solid = (at["tube"] > 9) & (at["lumen"] < -2) & (at["necrosis"] < 0)
    nest = (at["nest"] > 3) & (at["lumen"] < -1)
    if region in ("plain", "bland", "glandular"):
        pattern = ("plain", "bland", "glandular").index(region)
        edge = -1.0 if region == "bland" else 3.0
        return (nest if region != "bland" else at["nest"] > edge) & (at["pattern"] == pattern)
    if region in ("dcis", "hyperplastic"):
        return solid & (at["wall"] == KIND[region])
    if region == "debris":
        return at["necrosis"] > 8
    outside = (at["nest"] < -3) & (at["tube"] < -4) & (at["lumen"] < -3)
    if region == "immune":
        return outside & (at["immune"] > 0)
    outside = outside & (at["immune"] <= 0)
    if region == "lobule":
        return outside & (at["lobule"] > 0)
    if region == "septa":
        return outside & (at["fat"] > 0)
    outside = outside & (at["fat"] <= -4) & (at["lobule"] <= 0)
    return outside & ((at["bed"] > 0) if region == "reactive" else (at["bed"] <= 0))
