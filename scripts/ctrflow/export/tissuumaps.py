"""A section with its results as a project of TissUUmaps: picture, spots by score and call, regions.

Keys are those of its project files of version 1.3 (https://tissuumaps.github.io/tissuumaps-schema).
"""

import json
from io import BytesIO
from pathlib import Path

import numpy as np

from ctrflow import storage
from ctrflow.export import Export
from ctrflow.export.columns import safe_names
from ctrflow.export.h5ad import section_h5ad
from ctrflow.export.qupath import qupath_geojson

EXPORT = Export("tissuumaps", opens="TissUUmaps", folder=True)
PICTURE, SPOTS = "he.tif", "spots.csv"
_TILE_PX = 256
_QUALITY = 80  # of JPEG, as in the report


def write(section, path) -> None:
    """The project `<section>.tmap` and the files that it shows, in one folder."""
    folder, facts = Path(path), section.spots.uns["section"]
    picture, px_per_px = section.picture
    if picture is None:
        px_per_px = 1.0  # positions as they are
    else:
        storage.write_bytes(pyramid(picture), folder / PICTURE)
    drawn = _write_regions(section, px_per_px, folder)
    project = {
        "schemaVersion": "1.3",
        "filename": facts["section"],
        "layers": [] if picture is None else [{"name": "H&E", "tileSource": f"{PICTURE}.dzi"}],
        "mpp": facts["um_per_px"] / px_per_px,
        "markerFiles": [_markers(section, px_per_px, folder)],
        "regionFiles": [{"title": f"Regions {Path(name).stem}", "path": name, "autoLoad": False} for name in drawn],
        "settings": [
            {"module": "markerUtils", "function": "_startMarkersOn", "value": True},
            # spots in px of the picture: they stay on their tissue at every zoom
            {"module": "glUtils", "function": "_useAbsoluteMarkerSize", "value": {"spots": True}},
        ],
        "plugins": [],
        "collectionMode": False,
    }
    name = safe_names([facts["section"]])[facts["section"]]
    storage.write_json(project, folder / f"{name}.tmap")


def pyramid(picture: np.ndarray) -> bytes:
    """A picture (h x w x 3, uint8) and its halves as tiled TIFF, which TissUUmaps shows without a copy of its own."""
    import tifffile
    from PIL import Image

    options = {
        "tile": (_TILE_PX, _TILE_PX),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": _QUALITY},
        "metadata": None,
        "software": "ctrflow",
    }
    out = BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(np.ascontiguousarray(picture), **options)
        while min(picture.shape[:2]) > _TILE_PX:
            picture = np.asarray(Image.fromarray(picture).reduce(2))
            writer.write(picture, subfiletype=1, **options)
    return out.getvalue()


def _write_regions(section, scale: float, folder: Path) -> list[str]:
    """The regions of each run that has any, in px of the picture; the names of the files."""
    written = []
    for run, name in safe_names(section.scores.columns).items():
        if not section.regions[run]:
            continue
        frames = section.scores[run], section.calls[run], section.sd.get(run), section.regions[run]
        drawn = qupath_geojson(section.spots, *frames, section.probability.get(run), scale)
        written.append(f"{name}.json")
        storage.write_text(json.dumps(drawn, allow_nan=False) + "\n", folder / written[-1])
    return written


def _markers(section, scale: float, folder: Path) -> dict:
    """Write the spots, and say how they are shown: by one column of results at a time, chosen from a list."""
    facts = section.spots.uns["section"]
    without_genes = section.spots[:, :0]
    frames = section.scores, section.calls, section.provenance
    around = {"rim_um": section.rim_um, "layer": section.layer}
    table = section_h5ad(without_genes, *frames, sd=section.sd, probability=section.probability, **around)
    columns = [name for name in table.obs if name not in section.spots.obs]
    x, y = table.obsm["spatial"].T
    spots = table.obs[columns].assign(x=x, y=y).rename_axis("spot")[["x", "y", *columns]]
    _write_table(spots, folder / SPOTS)
    return {
        "title": "Spots",
        "name": "spots",
        "uid": "spots",
        "comment": "results of each run",
        "autoLoad": True,  # the first of the list
        "hideSettings": True,
        "path": SPOTS,
        "expectedHeader": {
            "X": "x",
            "Y": "y",
            "coord_factor": scale,
            "shape_fixed": "disc",
            "scale_factor": facts["spot_um"] / facts["um_per_px"] * scale,
            "opacity": 1.0,
            "stroke_width": 0.0,
        },
        "expectedRadios": dict.fromkeys(("cb_gr_rand", "cb_gr_key", "shape_gr", "shape_gr_rand"), False)
        | {"shape_fixed": True, "_no_outline": True},
        "dropdownOptions": [
            {"optionName": name, "name": name, "path": _file_of(spots, name, folder), **_colours(table, name)}
            for name in columns
            if spots[name].notna().any()
        ],
    }


def _file_of(spots, column: str, folder: Path) -> str:
    """The table to show a column from: TissUUmaps takes missing numbers for the lowest, so they get one without."""
    known = spots[column].notna()
    if known.all():
        return SPOTS
    name = f"{column}.csv"
    _write_table(spots.loc[known, ["x", "y", column]], folder / name)
    return name


def _colours(table, column: str) -> dict:
    """A category in its own colours, a number in those of viridis."""
    is_category = table.obs[column].dtype == "category"
    radios = {f"expectedRadios.{name}": is_category for name in ("cb_gr", "cb_gr_dict")}
    radios["expectedRadios.cb_col"] = not is_category
    if not is_category:
        header = {"gb_col": "", "cb_col": column, "cb_cmap": "interpolateViridis"}
    else:
        colours = dict(zip(table.obs[column].cat.categories, table.uns[f"{column}_colors"], strict=True))
        header = {"gb_col": column, "cb_gr_dict": json.dumps(colours)}
    return radios | {f"expectedHeader.{name}": value for name, value in header.items()}


def _write_table(spots, path: Path) -> None:
    text = spots.to_csv(float_format="%.6g", lineterminator="\n")
    storage.write_text(text, path)
