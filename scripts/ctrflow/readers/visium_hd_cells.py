"""Visium HD cells: the segmented outputs of a Space Ranger 4 run; `aggregate.aggregate_cells` sums them into spots.

`path` is the `outs` folder or its `segmented_outputs`. Source: 10x Genomics, "Space Ranger: segmented outputs".
"""

import json
import logging
from itertools import product
from pathlib import Path

from ctrflow.errors import InputError, first_few
from ctrflow.readers import join, spaceranger
from ctrflow.readers.folders import find, outs, require_one_sample
from ctrflow.readers.kinds import has
from ctrflow.readers.matrices import files_10x, read_10x
from ctrflow.readers.platform import Platform
from ctrflow.readers.tables import read_text
from ctrflow.scale.arrays import VISIUM
from ctrflow.scale.settle import Claim, number

logger = logging.getLogger("ctrflow")

SPOT_RULE = f"cells of Visium HD are summed into {VISIUM.spot_um:.0f} µm spots; leave it empty"
PLATFORM = Platform(
    "a Space Ranger 4 folder of Visium HD cells (segmented_outputs)",
    marks=("segmented_outputs", "*filtered_feature_cell_matrix*"),
    shared_marks=True,
    image=f"spatial/{spaceranger.HIRES}",
    cells=True,
    spot_um=(VISIUM.spot_um,),
    spot_um_rule=SPOT_RULE,
)
INSIDE = "segmented_outputs"
BINS = ("binned_outputs/square_*um",)
MATRIX = "filtered_feature_cell_matrix"
POLYGONS = "cell_segmentations.geojson"
ANNOTATED = "graphclust_annotated_"  # before the names of copies that have the clusters too
CELL_ID = r"^(?:cellid_)?0*(\d+)(?:\.0)?(?:-\d+)?$"  # cellid_000000012-1 in the matrix is 12 in the polygons


def recognises(path: Path) -> bool:
    """Whether a folder has cells; in an `outs` with bins too, the bins come first, as they hold every transcript."""
    return has(path, PLATFORM.marks)


def files(row: dict) -> list[str]:
    """The matrix (HDF5, else the mtx folder's files), the polygons, and the scale factors if present."""
    folder = _folder(row)
    paths = [*files_10x(_matrix_path(folder)), _polygons_path(folder)]
    scalefactors = _scalefactors_path(folder)
    if scalefactors.is_file() or not folder.is_dir():
        paths.append(scalefactors)
    return [str(path) for path in paths]


def own_image(row: dict) -> str:
    """The run's reduced image; "" if it is missing or its scale unknown."""
    folder = _folder(row)
    known = "tissue_hires_scalef" in spaceranger.read_scalefactors(_scalefactors_path(folder))
    return spaceranger.hires_image([folder, _run(folder)]) if known else ""


def read(row: dict):
    """Cells: X counts of the gene-expression features, `obsm["spatial_um"]` centroids of the polygons (x, y) in µm.

    `uns["section"]` holds, besides the content of `ctrflow.readers.describe`, `pixel_size`, which equals um_per_px: the
    polygons are in px of the microscope image, so there is no alignment.
    """
    if number(row, "spot_um") not in (None, VISIUM.spot_um):
        raise InputError(f"section {row['section']}: column spot_um is {row['spot_um']}; {SPOT_RULE}")
    folder = _folder(row)
    matrix_path, polygons_path = _matrix_path(folder), _polygons_path(folder)
    require_parts(row)
    scalefactors_path = _scalefactors_path(folder)
    scalefactors = spaceranger.read_scalefactors(scalefactors_path)
    hires = spaceranger.hires_image([folder, _run(folder)])
    stated = Claim(scalefactors.get("microns_per_pixel"), f"microns_per_pixel in {scalefactors_path.name}", sure=True)
    section = spaceranger.described(row, hires, scalefactors, [stated], VISIUM.spot_um, binding=True)
    counts = read_10x(matrix_path)
    centres = _by_barcode(_read_centres(polygons_path), counts.obs_names, matrix_path)
    cells = join(counts, centres * section["um_per_px"], matrix_path, polygons_path, key="spatial_um")
    cells.uns["section"] = section | {"pixel_size": section["um_per_px"]}
    return cells


def _folder(row: dict) -> Path:
    """The folder of the cells' files; if missing, the one that Space Ranger would write."""
    folder = outs(row["path"], *PLATFORM.marks)
    inside = folder / INSIDE
    return inside if folder.name != INSIDE and (inside.is_dir() or not folder.is_dir()) else folder


def _run(folder: Path) -> Path:
    return folder.parent if folder.name == INSIDE else folder


def _matrix_path(folder: Path) -> Path:
    return find([folder], [f"{MATRIX}.h5", MATRIX], "matrices") or folder / f"{MATRIX}.h5"


def _scalefactors_path(folder: Path) -> Path:
    places = [folder / "spatial", folder, _run(folder) / "spatial"]
    return find(places, [spaceranger.SCALEFACTORS], "files of scale factors") or places[0] / spaceranger.SCALEFACTORS


def _polygons_path(folder: Path) -> Path:
    """The polygons of the cells, else of their nuclei; of each, a copy with clusters if there is no other."""
    found = sorted(path for path in folder.glob("*_segmentations.geojson*") if not path.name.startswith("."))
    found = [path for path in found if path.name.removesuffix(".gz").endswith(".geojson")]
    for kind, annotated in product(("cell_", "nucleus_"), (False, True)):
        same = [path for path in found if f"{kind}segmentations" in path.name and (ANNOTATED in path.name) is annotated]
        if len(same) > 1:
            raise InputError(
                f"{folder}: {len(same)} files of polygons, {same[0].name} and {same[1].name}; keep only one"
            )
        if same:
            return same[0]
    return folder / POLYGONS


def require_parts(row: dict) -> None:
    """Refuse a folder without counts or without the cells' geometry, and files of two samples: ids are alike in all."""
    folder = _folder(row)
    matrix_path, polygons_path = _matrix_path(folder), _polygons_path(folder)
    where = f"{folder}: section {row['section']}: "
    if not (matrix_path.exists() or polygons_path.exists()):
        cure = f"give the outs folder of a Space Ranger 4 run with its {INSIDE} in column path"
        if has(_run(folder), BINS):
            cure += ", or write visium_hd in column platform to read the bins that it has"
        raise InputError(where + f"no {MATRIX}.h5 and no {POLYGONS}; {cure}")
    if not matrix_path.exists():
        raise InputError(where + f"no {MATRIX}.h5 (or its folder of mtx files); copy it from the run's {INSIDE}")
    if not polygons_path.exists():
        raise InputError(
            where + f"the cells have no geometry: no {POLYGONS}; copy it from the run's {INSIDE} to beside "
            f"{matrix_path.name}"
        )
    names = [ANNOTATED, POLYGONS, "nucleus_segmentations"]
    require_one_sample(matrix_path, [MATRIX], polygons_path, names)
    if "nucleus_segmentations" in polygons_path.name:
        logger.warning(
            "section %s: no %s in %s, so the centres of the nuclei are used: %s",
            row["section"], POLYGONS, folder, polygons_path.name,
        )  # fmt: skip


def _read_centres(path: Path):
    """Frame by cell id, as text: x and y of each polygon's centroid, in full-resolution px."""
    import pandas as pd
    import shapely
    from shapely.geometry import shape

    text = read_text(path)
    try:
        # each geometry is built as soon as it is parsed: nested lists of 500,000 cells need 3 GB
        content = json.loads(text, object_hook=lambda part: shape(part) if "coordinates" in part else part)
        features = content["features"]
        ids = [str(feature["properties"]["cell_id"]) for feature in features]
        centres = shapely.centroid([feature["geometry"] for feature in features])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, shapely.errors.ShapelyError) as error:
        raise InputError(
            f"{path}: not Space Ranger's GeoJSON of polygons, each with the property cell_id "
            f"({type(error).__name__}: {error}); copy it again from the run's {INSIDE}"
        ) from error
    return pd.DataFrame({"x": shapely.get_x(centres), "y": shapely.get_y(centres)}, index=pd.Index(ids, dtype=object))


def _by_barcode(centres, barcodes, matrix_path: Path):
    """`centres` by the matrix's barcodes; those of cells without one keep their number."""
    numbers = barcodes.str.replace(CELL_ID, r"\1", regex=True)
    twice = numbers.duplicated(keep=False) & ~barcodes.duplicated(keep=False)
    if twice.any():
        raise InputError(
            f"{matrix_path}: several cells of one number, {first_few(barcodes[twice])}, as when runs were aggregated; "
            "give the outs folder of one run"
        )
    names = dict(zip(numbers, barcodes, strict=True))
    own = centres.index.str.replace(CELL_ID, r"\1", regex=True)
    return centres.set_axis([names.get(number, number) for number in own])
