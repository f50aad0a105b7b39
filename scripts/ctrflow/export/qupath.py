"""The regions for QuPath."""

import json
from pathlib import Path

import numpy as np

from ctrflow import storage
from ctrflow.export import Export
from ctrflow.export.columns import aligned_values, safe_names
from ctrflow.export.regions import find_regions, tessellate
from ctrflow.sections import map_regions

EXPORT = Export("qupath", opens="QuPath", folder=True)
CANCER_RGB = [213, 94, 0]
DRAW_HERE_RGB = [240, 228, 66]


def write(section, path) -> None:
    """The regions, one file per run; and where to draw next, of runs that learn from a drawing."""
    for run, text in section.draw_here.items():
        storage.write_text(text, Path(path) / f"{safe_names([run])[run]}.draw_here.geojson")
    for run, name in safe_names(section.scores.columns).items():
        frames = section.scores[run], section.calls[run], section.sd.get(run), section.regions[run]
        drawn = qupath_geojson(section.spots, *frames, section.probability.get(run))
        # without indentation: a large section has a million vertices
        storage.write_text(json.dumps(drawn, allow_nan=False) + "\n", Path(path) / f"{name}.geojson")


def qupath_geojson(spots, score, call, sd=None, regions=None, probability=None, scale: float | None = None) -> dict:
    """The regions called cancer by one run as a GeoJSON FeatureCollection that QuPath (0.4 or later) reads.

    Coordinates are pixels of the section's image at its full size (spot pixels x image_scale). GeoJSON cannot
    express that: geographic readers (geopandas) assume degrees, EPSG:4326, unless overridden. Each region is an
    annotation of class "Cancer region" with the area (µm²) and perimeter (µm, holes included) of its polygon, the
    number of its spots, their mean score and, if they are given, their mean sd over seeds and mean probability.

    Parameters
    ----------
    spots : AnnData, see the section contract
    score, call : Series of one run with the spot ids as index
    sd, probability : as `score`, or None
    regions : those of `call` from `find_regions`; computed if None
    scale : px of another picture per full-resolution px, to write its coordinates
    """
    section = spots.uns["section"]
    score, call = (aligned_values(values, spots) for values in (score, call))
    extra = {"Mean sd over seeds": sd, "Mean probability": probability}
    extra = {name: aligned_values(values, spots) for name, values in extra.items() if values is not None}
    if regions is None:
        regions = find_regions(tessellate(spots.obsm["spatial"]), call == 1)
    found = []
    for _, own in regions:
        means = {name: round(float(np.nanmean(values[own])), 6) for name, values in extra.items()}
        found.append({"Spots": len(own), "Mean score": round(float(np.nanmean(score[own])), 6), **means})
    shapes = [shape for shape, _ in regions]
    return _annotations(section, shapes, found, map_regions.CLASS, CANCER_RGB, scale)


def draw_here(spots, regions: list[tuple], disagreement: np.ndarray) -> dict:
    """Regions in which to draw next as a FeatureCollection that QuPath reads, in the order that they are given.

    They have a class of their own, and are skipped when they come back in a drawing (`drawings.read_geojson`).

    Parameters
    ----------
    spots : AnnData, see the section contract
    regions : (polygon in px, rows of its spots), of `within.estimate.draw_next`
    disagreement : (spots,) of `within.estimate.estimate`
    """
    found = [{"Spots": len(own), "Mean disagreement": round(float(disagreement[own].mean()), 6)} for _, own in regions]
    shapes = [shape for shape, _ in regions]
    return _annotations(spots.uns["section"], shapes, found, map_regions.DRAW_HERE, DRAW_HERE_RGB)


def _annotations(
    section: dict, shapes: list, measurements: list[dict], word: str, rgb: list[int], scale: float | None = None
) -> dict:
    """Shapes in px as annotations of one class, with their area and perimeter beside the given measurements."""
    image_scale = scale or section.get("image_scale") or 1.0
    um_per_image_px = section["um_per_px"] / image_scale
    features = [
        {
            "type": "Feature",
            "id": map_regions.region_id(shape),
            "geometry": json.loads(text),
            "properties": {
                "objectType": "annotation",
                "name": f"{word} {number}",
                "classification": {"name": word, "color": rgb},
                "isLocked": False,
                "measurements": {
                    "Area µm^2": round(shape.area * um_per_image_px**2, 1),
                    "Perimeter µm": round(shape.length * um_per_image_px, 1),
                    **own,
                },
            },
        }
        for number, (shape, text, own) in enumerate(
            zip(*_in_image(shapes, image_scale), measurements, strict=True), start=1
        )
    ]
    return {"type": "FeatureCollection", "features": features}


def _in_image(shapes: list, image_scale: float) -> tuple:
    """Shapes in image px, rounded to 0.01, and the same as GeoJSON geometries, with holes in opposite orientation."""
    import shapely

    decimals = map_regions.DECIMALS
    shapes = shapely.transform(np.array(shapes, dtype=object), lambda points: np.round(points * image_scale, decimals))
    shapes = shapely.orient_polygons(shapes)
    return shapes, shapely.to_geojson(shapes)
