"""SpatialData Zarr stores: the table, and the positions of the element that it annotates.

Source: the SpatialData on-disk format, as spatialdata reads it (Zarr 2 and 3); spatialdata-io for the layout of
Visium, Visium HD and Xenium.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers import bare, describe
from ctrflow.readers.counts import require_finite, require_unique
from ctrflow.readers.h5ad import array_places, in_tissue, raw_counts
from ctrflow.readers.platform import BIN_ID, ST_ID, platforms
from ctrflow.scale.arrays import XENIUM_PX_UM, lattice_um_per_px, require_lattice
from ctrflow.scale.settle import Claim, number, settle, settle_image_scale

logger = logging.getLogger("ctrflow")

REDUCED = ("hires", "lowres", "cytassist")  # spatialdata-io's names of reduced images and their coordinate systems
# What spatialdata, anndata, zarr, pyarrow and ome-zarr raise on damaged stores.
DAMAGE = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError)


def read_spots(row: dict, array_um: Callable, pitch_um: float, spot_um: float, table_name: str = "", claims=None):
    """Spots in the tissue, in px of the full-resolution image. See `ctrflow.readers.read_section`.

    Parameters
    ----------
    array_um
        Takes `obs["array_row"]` and `obs["array_col"]` to µm on the slide (n x 2).
    pitch_um, spot_um
        Of the platform.
    table_name
        Name of the table, if a store has several.
    claims
        Takes rows and columns (n x 2), positions and the width of a spot to what they state of the scale; default: the
        array's pitch, for sure.
    """
    store, table = _open(row, table_name)
    spots = in_tissue(raw_counts(table, row["path"]), row["path"])
    element_name, element = _annotated(store, table)
    _require_technology(row, spots, element_name)
    if element is None or not hasattr(element, "geometry"):
        raise InputError(
            f"{row['path']}: section {row['section']}: the table annotates '{element_name}', which is not a "
            "shapes element of the store; write the store with the spots' shapes"
        )
    affine, factors = _to_pixels(store, element, row)
    spots.obsm["spatial"] = _apply(affine, _centroids(element, table, spots, row))
    require_finite(spots.obsm["spatial"], spots.obs_names, row["path"])
    image = row.get("image") or ""
    image_scale = settle_image_scale(row, image, factors)
    spot_um, array, px = number(row, "spot_um") or spot_um, array_places(spots, row["path"]), spots.obsm["spatial"]
    stated = []
    if array is not None:
        on_slide = array_um(*array.T)
        require_lattice(on_slide, px, pitch_um, spots.obs_names, row["path"])
        um_per_px = lattice_um_per_px(on_slide, px)
        if um_per_px is None and np.linalg.matrix_rank(on_slide - on_slide.mean(axis=0)) == 2:
            raise InputError(
                f"{row['path']}: section {row['section']}: rows and columns are of no {row['platform']} array; "
                "correct column platform"
            )
        stated = [Claim(um_per_px, f"array pitch of {pitch_um:g} µm", sure=True)]
        stated = claims(array, px, spot_um) if claims else stated
    scale = settle(row, stated, image, image_scale)
    if not image:
        logger.info("section %s: column image is empty; images inside a store are not read", row["section"])
    return bare(spots, "spatial", describe(row, scale, spot_um, image, image_scale))


def _require_technology(row: dict, spots, element_name: str) -> None:
    """Refuse spots whose ids or shapes are those of another technology: not every store says which one it is of."""
    forms = {"visium_hd": BIN_ID, "st": ST_ID}
    kind = next((name for name, form in forms.items() if spots.obs_names.str.fullmatch(form).all()), row["platform"])
    if not {"array_row", "array_col"} <= set(spots.obs.columns) and ("cell_id" in spots.obs or "cell" in element_name):
        kind = "xenium"
    if kind != row["platform"]:
        raise InputError(
            f"{row['path']}: section {row['section']}: column platform says {row['platform']}, but ids such as "
            f"{spots.obs_names[0]} and shapes such as '{element_name}' are of {kind}; write {kind} in column platform"
        )


def read_cells(row: dict):
    """Cells with `obsm["spatial_um"]`, and µm per Xenium px.

    Centroids are those of the annotated shapes; for a raster of labels, those that spatialdata-io copies from the
    vendor into `obsm["spatial"]`.
    """
    store, table = _open(row, "table")
    cells = raw_counts(table, row["path"])
    element_name, element = _annotated(store, table)
    pixel_size = _pixel_size(store, row)
    if element is not None and hasattr(element, "geometry"):
        xy_um = _apply(_to_xenium_px(element, element_name, row) * pixel_size, _centroids(element, table, cells, row))
    elif "spatial" in table.obsm:
        xy_um = np.asarray(cells.obsm["spatial"], np.float64)[:, :2]
    else:
        raise InputError(
            f"{row['path']}: section {row['section']}: the table annotates '{element_name}', which is not a "
            "shapes element, and has no obsm['spatial']; write the store with cells_as_circles=True"
        )
    if "cell_id" in cells.obs:
        cells.obs_names = cells.obs["cell_id"].astype(str).to_numpy()
    cells.obsm["spatial_um"] = xy_um
    return bare(cells, "spatial_um", {}), pixel_size


# --- the table --------------------------------------------------------------------------------------------------------


def _open(row: dict, table_name: str):
    """The store, and its table of the section."""
    import warnings

    import spatialdata

    path = row["path"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = spatialdata.read_zarr(path, selection=("images", "labels", "shapes", "tables"))
    except DAMAGE as error:
        raise InputError(
            f"{path}: cannot be read as a SpatialData store ({type(error).__name__}: {error}); "
            "copy it again, or write it again with spatialdata"
        ) from error
    made_by = store.attrs.get("spatialdata_io_reader")  # named after its readers, as the platforms are
    if made_by in [*platforms()] and made_by != row["platform"]:
        raise InputError(
            f"{path}: section {row['section']}: column platform says {row['platform']}, but this store was made from "
            f"{made_by} files; write {made_by} in column platform"
        )
    name = _table_of(store, row, table_name)
    _require_all_chunks(Path(path) / "tables" / name)
    return store, store.tables[name]


def _table_of(store, row: dict, wanted: str) -> str:
    """The table whose name ends in `wanted`, else the only one that annotates an element of the store."""
    names = list(store.tables)
    where = f"{row['path']}: section {row['section']}: "
    if not names:
        raise InputError(where + "the store has no table; write it with the table of counts")
    matching = [name for name in names if wanted and name.endswith(wanted)]
    sizes = [name for name in names if "square_" in name]
    if wanted.startswith("square_") and sizes and not matching:
        raise InputError(where + f"no table {wanted} (it has {first_few(sizes)}); write its bin size in column spot_um")
    candidates = matching or names
    if len(candidates) > 1:
        elements = {*store.shapes, *store.labels}
        candidates = [name for name in candidates if elements & set(_regions(store.tables[name]))] or candidates
    if len(candidates) > 1:
        raise InputError(
            where + f"{len(candidates)} tables, {first_few(candidates)}, and nothing identifies the one with the "
            "section's counts: write a store with only that table"
        )
    return candidates[0]


def _regions(table) -> list[str]:
    """The elements that a table annotates."""
    region = table.uns.get("spatialdata_attrs", {}).get("region", "")
    return [region] if isinstance(region, str) else list(region)


def _require_all_chunks(folder: Path) -> None:
    """Refuse a matrix with missing chunks: Zarr reads them as zeros.

    Only the matrix is checked: writers omit chunks of other arrays that are all zero.
    """
    import zarr

    root = zarr.open_group(folder, mode="r")
    for matrix in ("X", "layers/counts", "raw/X"):
        for part in ("data", "indices", "indptr"):
            array = root.get(f"{matrix}/{part}")
            if array is not None and array.nchunks_initialized < array.nchunks:
                raise InputError(
                    f"{folder / matrix / part}: {array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks "
                    "are missing; copy the whole store again"
                )


# --- positions --------------------------------------------------------------------------------------------------------


def _annotated(store, table) -> tuple[str, object]:
    """The name of the element that a table annotates, and the element (None if missing)."""
    regions = _regions(table)
    if len(regions) > 1:
        raise InputError(
            f"{store.path}: the table annotates {len(regions)} elements, {first_few(regions)}; "
            "write one store per section"
        )
    name = regions[0] if regions else ""
    found = {**store.shapes, **store.labels}
    return name, found.get(name)


def _centroids(element, table, spots, row: dict) -> np.ndarray:
    """Centroids (n x 2, x and y) of the shapes of `spots`, in the element's own coordinates."""
    import pandas as pd

    key = table.uns["spatialdata_attrs"].get("instance_key")
    if key not in spots.obs:
        raise InputError(f"{row['path']}: the table has no column '{key}' with the shape of each spot; add it")
    instances = spots.obs[key].to_numpy()
    for ids in (element.index, pd.Index(instances)):
        require_unique(ids, row["path"])
    known = np.isin(instances, element.index.to_numpy())
    if not known.all():
        raise InputError(
            f"{row['path']}: {int((~known).sum()):,} of {len(known):,} spots have no shape: "
            f"{first_few(spots.obs_names[~known])}; write the store again with all of them"
        )
    centre = element.geometry.loc[instances].centroid
    return np.column_stack([centre.x.to_numpy(), centre.y.to_numpy()])


def _to_pixels(store, element, row: dict) -> tuple[np.ndarray, dict]:
    """The 3 x 3 affine from an element's coordinates to px of the full-resolution image, and scale factors.

    The full-resolution image is the largest image that shares a coordinate system with the element. Without one, the
    element's only system that is not named after a reduced image is used.
    """
    systems = _systems(element)
    factors = {
        f"tissue_{kind}_scalef": float(np.sqrt(abs(np.linalg.det(affine))))
        for kind in REDUCED[:2]
        for name, affine in systems.items()
        if name.endswith(f"_downscaled_{kind}")
    }
    own = {
        name: affine for name, affine in systems.items() if not any(f"_downscaled_{kind}" in name for kind in REDUCED)
    }
    pictures = [image for name, image in store.images.items() if not any(kind in name for kind in REDUCED)]
    for image in sorted(pictures, key=_n_px, reverse=True):
        shared = {name: affine for name, affine in _systems(image).items() if name in own}
        if shared:
            name = next(iter(shared))
            return np.linalg.inv(shared[name]) @ own[name], factors
    if len(own) != 1:
        raise InputError(
            f"{row['path']}: section {row['section']}: the spots have {len(own)} coordinate systems "
            f"({first_few(own) or 'none'}) and no full-resolution image identifies the one in px; "
            "write the store with that image, or with one system"
        )
    return next(iter(own.values())), factors


def _systems(element) -> dict[str, np.ndarray]:
    """The 3 x 3 affine from an element's coordinates to each of its coordinate systems, if affine."""
    from spatialdata.transformations import get_transformation

    systems = {}
    for name, transformation in get_transformation(element, get_all=True).items():
        try:
            systems[name] = transformation.to_affine_matrix(("x", "y"), ("x", "y"))
        except ValueError:
            logger.info("coordinate system %s is not affine, left out", name)
    return systems


def _n_px(image) -> int:
    """Pixels in the finest level of an image."""
    level = next(iter(image["scale0"].data_vars.values())) if "scale0" in getattr(image, "children", {}) else image
    return level.sizes["y"] * level.sizes["x"]


def _apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ affine[:2, :2].T + affine[:2, 2]


def _pixel_size(store, row: dict) -> float:
    """µm per Xenium px: spatialdata-io keeps shapes and transcripts in µm, scaled to px by the inverse."""
    for element in store.shapes.values():
        scale = np.sqrt(abs(np.linalg.det(_to_xenium_px(element, "", row)[:2, :2])))
        if scale > 1.5:
            return float(1 / scale)
    return XENIUM_PX_UM


def _to_xenium_px(element, name: str, row: dict) -> np.ndarray:
    systems = _systems(element)
    if "global" in systems or len(systems) == 1:
        return systems.get("global", next(iter(systems.values())))
    raise InputError(
        f"{row['path']}: section {row['section']}: {name} has the coordinate systems {first_few(systems) or 'none'}, "
        "but not 'global', which spatialdata-io writes in Xenium px; write the store with it"
    )
