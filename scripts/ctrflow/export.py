"""What other viewers open: AnnData for scanpy, squidpy and napari, a CSV for Loupe, GeoJSON for QuPath.

Each function returns the content; `storage.write_h5ad`, `write_text`, `write_json` and `write_tsv` put it in a file.

A *run* is a task, an encoder and a variant of a method ("transfer|uni|spacrd"). `scores` and `calls` are frames with
the spot ids as index and one column per run: the mean score over the seeds (higher = more cancer-like; NaN = not
scored) and 1 cancer, 0 other, NaN not scored. `sd`, the sd of the score over seeds, is a frame of the runs that have
two or more; where there is none, nothing is written of it.
"""

import re
import uuid
from dataclasses import dataclass

import numpy as np

from ctrflow.errors import InputError, first_few

CANCER_RGB = [213, 94, 0]
CALL_COLOURS = ["#d55e00", "#56b4e9"]  # cancer, other, as in the report
CALL_WORDS = {1.0: "cancer", 0.0: "other"}


@dataclass(frozen=True)
class Lattice:
    """The array the spots lie on: their pitch (px), 4 (square) or 6 (hexagonal) sides, the angle of one axis (rad)."""

    pitch_px: float
    sides: int
    angle_rad: float

    @property
    def cell_px2(self) -> float:
        """The area that one spot stands for, px²."""
        return self.pitch_px**2 * (1.0 if self.sides == 4 else np.sqrt(3) / 2)


def lattice(spatial_px) -> Lattice:
    """The array behind spot centres (n x 2, px): pitch = median distance between neighbours.

    Square and hexagonal arrays are told apart, and their turn found, from the directions to close neighbours: the
    directions of a square array repeat every 90 degrees, those of a hexagonal one every 60 degrees. An irregular
    section (cells) gets whichever fits better: its areas are then approximate.

    Raises
    ------
    InputError
        with fewer than two distinct positions.
    """
    from scipy.spatial import cKDTree

    spatial_px = np.unique(np.asarray(spatial_px, dtype=float), axis=0)
    if len(spatial_px) < 2:
        raise InputError(f"{len(spatial_px)} spot position: the area of a spot cannot be told; give at least two spots")
    tree = cKDTree(spatial_px)
    nearest_px = float(np.median(tree.query(spatial_px, k=2)[0][:, 1]))
    pairs = tree.query_pairs(1.25 * nearest_px, output_type="ndarray")
    step = spatial_px[pairs[:, 1]] - spatial_px[pairs[:, 0]]
    # the nearest of several neighbours is nearer than the pitch where positions are measured, not nominal
    pitch = float(np.median(np.hypot(step[:, 0], step[:, 1])))
    directions = np.arctan2(step[:, 1], step[:, 0])
    order = {sides: np.exp(1j * sides * directions).mean() for sides in (4, 6)}
    # a single row of spots fits both: square is the plainer guess
    sides = 6 if abs(order[6]) > abs(order[4]) + 1e-9 else 4
    return Lattice(pitch, sides, float(np.angle(order[sides]) / sides))


def regions(spatial_px, called) -> list[tuple]:
    """Called spots joined to regions: a list of (polygon in px, indices of its spots), the largest first.

    Every spot owns the part of the plane that is nearer to it than to any other place of the array (on a perfect
    array a square or hexagon as wide as the pitch), so that the cells of neighbours meet without a gap and a hole is
    where a spot was not called. Regions are joined through direct neighbours (4 on a square array, 6 on a hexagonal
    one), not across corners.

    Parameters
    ----------
    spatial_px : (n x 2) all spot centres of the section, px
    called : (n,) true where cancer is called
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree
    from shapely import MultiPolygon, unary_union

    spatial_px = np.asarray(spatial_px, dtype=float)
    chosen = np.flatnonzero(np.asarray(called, dtype=bool))
    if not len(chosen):
        return []
    grid = lattice(spatial_px)
    cells = dict(zip(chosen, _cells(spatial_px, grid, chosen), strict=True))
    reach = 1.25 * grid.pitch_px
    pairs = cKDTree(spatial_px[chosen]).query_pairs(reach, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(chosen),) * 2)
    component = connected_components(graph, directed=False)[1]
    found = []
    for number in range(component.max() + 1):
        spots = chosen[component == number]
        shape = unary_union([cells[spot] for spot in spots]).simplify(1e-4 * grid.pitch_px)
        # on an irregular array cells of neighbours may meet in a point only
        parts = shape.geoms if isinstance(shape, MultiPolygon) else [shape]
        owner = [[spot for spot in spots if part.intersects(cells[spot].representative_point())] for part in parts]
        found += [(part, np.array(own)) for part, own in zip(parts, owner, strict=True) if own]
    return sorted(found, key=lambda region: (-region[0].area, region[1][0]))


def _cells(spatial_px, grid: Lattice, chosen) -> list:
    """The Voronoi cells of the chosen spots, closed at the section's border by the empty places of the array there."""
    from scipy.spatial import Voronoi, cKDTree
    from shapely import Polygon

    # spots at one place share its cell
    places, place = np.unique(spatial_px, axis=0, return_inverse=True)
    turns = grid.angle_rad + 2 * np.pi / grid.sides * np.arange(grid.sides)
    steps = grid.pitch_px * np.column_stack([np.cos(turns), np.sin(turns)])
    around = (places[:, None, :] + steps).reshape(-1, 2)
    around = around[cKDTree(places).query(around)[0] > 0.5 * grid.pitch_px]
    # the same empty place is seen from several spots
    close = cKDTree(around).query_pairs(0.3 * grid.pitch_px, output_type="ndarray") if len(around) else np.empty((0, 2))
    around = np.delete(around, np.unique(close[:, 1]).astype(int), axis=0)
    far = 1e3 * np.ptp(places, axis=0).max() * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    middle = places.mean(axis=0)
    # coordinates about the middle keep the accuracy of the tessellation
    voronoi = Voronoi(np.vstack([places, around, middle + far]) - middle)
    shapes = []
    for number in place.ravel()[chosen]:
        corners = voronoi.vertices[voronoi.regions[voronoi.point_region[number]]] + middle
        offset = corners - places[number]
        order = np.argsort(np.arctan2(offset[:, 1], offset[:, 0]))
        shapes.append(Polygon(corners[order]))
    return shapes


def safe_names(runs) -> dict[str, str]:
    """Run -> a name that is safe as a column of any viewer: letters, digits, `.`, `-`, all else becomes `_`.

    Raises
    ------
    InputError
        if two runs get the same name.
    """
    names = {run: re.sub(r"[^A-Za-z0-9.-]+", "_", str(run)).strip("_") or "run" for run in runs}
    taken = [name for name in names.values() if list(names.values()).count(name) > 1]
    if taken:
        clash = [run for run, name in names.items() if name in taken]
        raise InputError(
            f"runs {first_few(clash)} would share one column name {taken[0]!r}: rename one in the study file"
        )
    return names


def section_h5ad(
    spots, scores, calls, provenance: dict | None = None, thumbnail=None, thumbnail_scale: float = 0.0, sd=None
):
    """A copy of the section with its results, for scanpy, squidpy and napari-spatialdata.

    Parameters
    ----------
    spots : AnnData by the section contract
    scores, calls : frames by run (see the top of this module)
    provenance : plain dict kept in `uns["ctrflow"]` (study, versions, seeds ...)
    thumbnail, thumbnail_scale : (h x w x 3) uint8 and its px per full-resolution px, or None
    sd : frame by run, or None

    Returns
    -------
    AnnData with, for each run, `obs["score_<name>"]` (float), `obs["sd_<name>"]` (float, where the run has an sd) and
    `obs["call_<name>"]` (category cancer / other); `uns["ctrflow"]["runs"]` says which run each name stands for;
    `uns["spatial"]` as scanpy and squidpy read it.

    Raises
    ------
    InputError
        if the frames are not of this section's spots.
    """
    import pandas as pd

    section = spots.uns["section"]
    scores, calls = _aligned(scores, spots, "scores"), _aligned(calls, spots, "calls")
    sd = _aligned(scores[[]] if sd is None else sd, spots, "sd")
    names = safe_names(dict.fromkeys([*scores.columns, *calls.columns]))
    result = spots.copy()
    for run, name in names.items():
        if run in scores:
            result.obs[f"score_{name}"] = scores[run].to_numpy(dtype=float)
        if run in sd:
            result.obs[f"sd_{name}"] = sd[run].to_numpy(dtype=float)
        if run in calls:
            words = calls[run].map(CALL_WORDS).to_numpy()
            result.obs[f"call_{name}"] = pd.Categorical(words, categories=["cancer", "other"])
            result.uns[f"call_{name}_colors"] = CALL_COLOURS
    result.uns["ctrflow"] = {
        "runs": {name: str(run) for run, name in names.items()},
        "score": "mean over seeds; higher = more cancer-like",
        **(
            {"sd": "population sd of the score over seeds, shifts of the whole section aside"}
            if len(sd.columns)
            else {}
        ),
        "call": "cancer where the score reaches the label-free threshold of the run",
        **(provenance or {}),
    }
    factors = {"spot_diameter_fullres": section["spot_um"] / section["um_per_px"]}
    images = {}
    if thumbnail is not None:
        factors["tissue_hires_scalef"], images["hires"] = thumbnail_scale, thumbnail
    library = safe_names([section["section"]])[section["section"]]  # a "/" would be a group of the file
    result.uns["spatial"] = {library: {"scalefactors": factors, "images": images}}
    return result


def loupe_csv(calls) -> str:
    """The calls as Loupe Browser imports them: CSV with `Barcode` first, then a column of categories per run."""
    names = safe_names(calls.columns)
    table = calls.apply(lambda column: column.map(CALL_WORDS).fillna("not scored")).rename(columns=names)
    table.index = table.index.astype(str)
    return table.to_csv(index_label="Barcode", lineterminator="\n")


def qupath_geojson(spots, score, call, sd=None) -> dict:
    """The regions called cancer by one run as a GeoJSON FeatureCollection that QuPath (0.4 or later) reads.

    Coordinates are pixels of the section's image at its full size (spot pixels x image_scale). Each region is an
    annotation of class "Cancer region" with its area (µm²), the number of its spots, their mean score and, where `sd`
    is given, their mean sd over seeds.

    Parameters
    ----------
    spots : AnnData by the section contract
    score, call : Series of one run with the spot ids as index
    sd : as `score`, or None
    """
    from shapely import affinity, geometry

    section = spots.uns["section"]
    score, call = (_values(values, spots) for values in (score, call))
    sd = None if sd is None else _values(sd, spots)
    image_scale = section.get("image_scale") or 1.0
    features = []
    for number, (shape, own) in enumerate(regions(spots.obsm["spatial"], call == 1), start=1):
        placed = affinity.scale(shape, image_scale, image_scale, origin=(0, 0))
        name = f"Cancer region {number}"
        features.append(
            {
                "type": "Feature",
                # QuPath wants a UUID; made from the content, so that a second export is the same file
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{section['section']} {placed.wkt}")),
                "geometry": _rounded(geometry.mapping(geometry.polygon.orient(placed))),
                "properties": {
                    "objectType": "annotation",
                    "name": name,
                    "classification": {"name": "Cancer region", "color": CANCER_RGB},
                    "isLocked": False,
                    "measurements": {
                        "Area µm^2": round(shape.area * section["um_per_px"] ** 2, 1),
                        "Spots": len(own),
                        "Mean score": round(float(np.nanmean(score[own])), 6),
                        **({} if sd is None else {"Mean sd over seeds": round(float(np.nanmean(sd[own])), 6)}),
                    },
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def summary_row(spots, score, call, sd=None) -> dict:
    """One run on one section in numbers.

    Returns
    -------
    dict of section, spots, scored, called, share (of the scored spots), regions, area_mm2 (called spots x the area a
    spot of the array stands for), mean_score (scored spots), mean_score_called (NaN where nothing is called) and, where
    `sd` is given, mean_sd (scored spots).
    """
    section = spots.uns["section"]
    score, call = (_values(values, spots) for values in (score, call))
    sd = None if sd is None else _values(sd, spots)
    called, scored = call == 1, np.isfinite(score)
    spatial_px = spots.obsm["spatial"]
    row = {
        "section": section["section"],
        "spots": len(call),
        "scored": int(scored.sum()),
        "called": int(called.sum()),
        "share": float(called.sum() / scored.sum()) if scored.any() else float("nan"),
        "regions": len(regions(spatial_px, called)),
        "area_mm2": float(called.sum() * spot_area_mm2(spatial_px, section["um_per_px"])),
        "mean_score": float(score[scored].mean()) if scored.any() else float("nan"),
        "mean_score_called": float(score[called & scored].mean()) if (called & scored).any() else float("nan"),
    }
    if sd is None:
        return row
    return row | {"mean_sd": float(sd[scored].mean()) if scored.any() else float("nan")}


def summary_table(spots, scores, calls, sd=None):
    """`summary_row` of each run of a section: a frame with the run's name in the column `run`."""
    import pandas as pd

    sd = scores[[]] if sd is None else sd
    rows = [{"run": run, **summary_row(spots, scores[run], calls[run], sd.get(run))} for run in scores.columns]
    return pd.DataFrame(rows)


def spot_area_mm2(spatial_px, um_per_px: float) -> float:
    """The area one spot of the array stands for, mm²: 0.04 for ST (200 µm squares), 0.00866 for Visium."""
    return lattice(spatial_px).cell_px2 * um_per_px**2 / 1e6


def _values(series, spots) -> np.ndarray:
    return _aligned(series.to_frame("run"), spots, "scores")["run"].to_numpy()


def _aligned(frame, spots, what: str):
    """The frame in the order of the section's spots; spots it lacks are NaN, spots it has beyond them are an error."""
    section = spots.uns["section"]["section"]
    index = frame.index.astype(str)
    if not index.is_unique:
        twice = index[index.duplicated()]
        raise InputError(
            f"{what} of section {section}: spots {first_few(twice)} twice; make the scores of this section again"
        )
    strangers = index[~index.isin(spots.obs_names)]
    if len(strangers):
        raise InputError(
            f"{what} of section {section}: {len(strangers)} spots are not in its spots.h5ad ({first_few(strangers)}); "
            "make the scores of this section again"
        )
    return frame.set_axis(index).reindex(spots.obs_names)


def _rounded(shape: dict) -> dict:
    """A geometry with its coordinates to a hundredth of a pixel."""
    rings = [[[round(float(x), 2), round(float(y), 2)] for x, y in ring] for ring in shape["coordinates"]]
    return {"type": shape["type"], "coordinates": rings}
