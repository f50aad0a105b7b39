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


def write(section, path) -> None:
    """The regions, one file per run."""
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
    image_scale = scale or section.get("image_scale") or 1.0
    um_per_image_px = section["um_per_px"] / image_scale
    if regions is None:
        regions = find_regions(tessellate(spots.obsm["spatial"]), call == 1)
    drawn = _in_image([shape for shape, _ in regions], image_scale)
    features = []
    for number, (shape, text, (_, own)) in enumerate(zip(*drawn, regions, strict=True), start=1):
        features.append(
            {
                "type": "Feature",
                "id": map_regions.region_id(shape),
                "geometry": json.loads(text),
                "properties": {
                    "objectType": "annotation",
                    "name": f"{map_regions.CLASS} {number}",
                    "classification": {"name": map_regions.CLASS, "color": CANCER_RGB},
                    "isLocked": False,
                    "measurements": {
                        "Area µm^2": round(shape.area * um_per_image_px**2, 1),
                        "Perimeter µm": round(shape.length * um_per_image_px, 1),
                        "Spots": len(own),
                        "Mean score": round(float(np.nanmean(score[own])), 6),
                        **{name: round(float(np.nanmean(values[own])), 6) for name, values in extra.items()},
                    },
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _in_image(shapes: list, image_scale: float) -> tuple:
    """Shapes in image px, rounded to 0.01, and the same as GeoJSON geometries, with holes in opposite orientation."""
    import shapely

    decimals = map_regions.DECIMALS
    shapes = shapely.transform(np.array(shapes, dtype=object), lambda points: np.round(points * image_scale, decimals))
    shapes = shapely.orient_polygons(shapes)
    return shapes, shapely.to_geojson(shapes)
