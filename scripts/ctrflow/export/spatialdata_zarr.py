"""A section with its results as SpatialData, for napari-spatialdata and spatialdata-plot."""

from pathlib import Path

import numpy as np

from ctrflow import storage
from ctrflow.export import Export
from ctrflow.export.columns import safe_names
from ctrflow.export.h5ad import section_h5ad

EXPORT = Export("{section}.spatialdata.zarr", opens="napari-spatialdata, spatialdata-plot", folder=True)
SPOTS, TABLE, IMAGE = "spots", "table", "he"
_PYRAMID = [2, 2]  # each level of the image has half the width of the previous one
_LEAST_PX = 256  # short side of the smallest image that gets levels


def write(section, path) -> None:
    """The section with its results, as SpatialData."""
    content = section_spatialdata(
        section.spots,
        section.scores,
        section.calls,
        section.regions,
        section.provenance,
        *section.picture,
        section.sd,
        section.probability,
        section.rim_um,
        section.layer,
    )
    write_spatialdata(content, path)


def section_spatialdata(
    spots,
    scores,
    calls,
    regions,
    provenance: dict | None = None,
    thumbnail=None,
    thumbnail_scale: float = 0.0,
    sd=None,
    probability=None,
    rim_um=None,
    layer=None,
):
    """The H&E, the spots, the regions of every run and the table of all results in one object.

    There are two coordinate systems: `global`, full-resolution px (those of `obsm["spatial"]`), and `um`, µm.

    Parameters
    ----------
    spots, scores, calls, provenance, thumbnail, thumbnail_scale, sd, probability, rim_um, layer : as `section_h5ad`
    regions : those of every run, from `section_regions`

    Returns
    -------
    SpatialData of the image `he` (the thumbnail with two smaller levels; absent without H&E), the shapes `spots`
    (circles of the spot's diameter, indexed by spot id) and `regions_<name>` (polygons with area_um2, spots and
    mean_score; absent for a run that calls nothing), and the table `table`, which annotates `spots`: `section_h5ad`
    without its picture.
    """
    import geopandas
    from shapely import points
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    section = spots.uns["section"]
    um_per_px = section["um_per_px"]
    systems = {"global": Identity(), "um": _scale(um_per_px)}
    table = section_h5ad(spots, scores, calls, provenance, sd=sd, probability=probability, rim_um=rim_um, layer=layer)
    circles = geopandas.GeoDataFrame(
        {"radius": np.full(spots.n_obs, section["spot_um"] / um_per_px / 2)},
        geometry=points(np.asarray(spots.obsm["spatial"], dtype=float)),
        index=table.obs_names.rename(None),
    )
    shapes = {SPOTS: ShapesModel.parse(circles, transformations=dict(systems))}
    for run, name in safe_names(regions).items():
        if regions[run]:
            drawn = _region_frame(regions[run], scores[run].reindex(spots.obs_names).to_numpy(), um_per_px)
            shapes[f"regions_{name}"] = ShapesModel.parse(drawn, transformations=dict(systems))
    images = {} if thumbnail is None else {IMAGE: _image(thumbnail, thumbnail_scale, um_per_px)}
    return SpatialData(images=images, shapes=shapes, tables={TABLE: _annotating(table)})


def write_spatialdata(content, path: str | Path) -> None:
    """Write a SpatialData object as a Zarr folder, atomically."""
    import anndata
    import dask

    # set explicitly, because anndata's default is going to change
    settings = anndata.settings.override(auto_shard_zarr_v3=False)
    with storage.atomic_folder(path) as part, dask.config.set(scheduler="synchronous"), settings:
        content.write(part)


def _scale(factor: float):
    from spatialdata.transformations import Scale

    return Scale([factor, factor], axes=("x", "y"))


def _region_frame(regions: list[tuple], score: np.ndarray, um_per_px: float):
    import geopandas

    return geopandas.GeoDataFrame(
        {
            "area_um2": [shape.area * um_per_px**2 for shape, _ in regions],
            "spots": [len(own) for _, own in regions],
            "mean_score": [float(np.nanmean(score[own])) for _, own in regions],
        },
        geometry=[shape for shape, _ in regions],
    )


def _image(thumbnail: np.ndarray, thumbnail_scale: float, um_per_px: float):
    """The picture, with smaller levels if it is large enough, in the coordinates of the spots."""
    from spatialdata.models import Image2DModel

    return Image2DModel.parse(
        thumbnail,
        dims=("y", "x", "c"),
        c_coords=("r", "g", "b"),
        scale_factors=_PYRAMID if min(thumbnail.shape[:2]) >= _LEAST_PX else None,
        transformations={"global": _scale(1 / thumbnail_scale), "um": _scale(um_per_px / thumbnail_scale)},
    )


def _annotating(table):
    """The table with the two columns that link its rows to the spots."""
    import pandas as pd
    from spatialdata.models import TableModel

    del table.uns["spatial"]  # the picture is a separate element
    table.obs["region"] = pd.Categorical([SPOTS] * table.n_obs)
    table.obs["spot"] = table.obs_names.to_numpy(dtype=object)
    return TableModel.parse(table, region=SPOTS, region_key="region", instance_key="spot")
