"""Visium HD: the square bins of a Space Ranger 3 or 4 run, of the size given by column spot_um of the sheet.

`path` is the `outs` folder, its `binned_outputs`, or one `square_008um`.
Source: 10x Genomics, "Space Ranger: Visium HD outputs".
"""

import json
import re
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers import join, spaceranger, spatialdata_zarr
from ctrflow.readers.folders import outs
from ctrflow.readers.kinds import has, is_store
from ctrflow.readers.matrices import files_10x, read_10x
from ctrflow.readers.platform import BIN_ID, Platform
from ctrflow.scale.arrays import HD_BIN_UM, lattice_um_per_px, require_lattice, square_array_um
from ctrflow.scale.settle import Claim, number

PLATFORM = Platform(
    "a Space Ranger folder of Visium HD bins (binned_outputs)",
    marks=("binned_outputs", "square_[0-9][0-9][0-9]um"),
    in_stores=True,
    image=f"spatial/{spaceranger.HIRES}",
    spot_um=(2, 8, 16),
    spot_um_rule="Visium HD has bins of 2, 8 or 16 µm; write one of these, or nothing for 8",
)
CELLS = "segmented_outputs"  # of visium_hd_cells, beside binned_outputs
MARKS = ("binned_outputs", "square_*um", "spatial", f"*{spaceranger.MATRIX}*")
NEWEST_POSITIONS = "tissue_positions.parquet"


def recognises(path: Path) -> bool:
    """Whether a Space Ranger folder is one bin size of a run, by its name or its scale factors."""
    if not has(path, spaceranger.MARKS):
        return False
    if _named_um(path):
        return True
    for found in sorted(path.glob(f"spatial/*{spaceranger.SCALEFACTORS}")):
        try:
            return "bin_size_um" in json.loads(found.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            return False  # reading it raises the error
    return False


def files(row: dict) -> list[str]:
    """The matrix (HDF5, else the mtx folder's files), the positions and, if there, the scale factors of a bin size."""
    if is_store(row["path"]):
        return [row["path"]]
    folder = _bin_folder(row)
    paths = [*files_10x(spaceranger.matrix_path(folder)), spaceranger.positions_path(folder, NEWEST_POSITIONS)]
    scalefactors = spaceranger.scalefactors_path(folder)
    if scalefactors.is_file() or not folder.is_dir():
        paths.append(scalefactors)
    return [str(path) for path in paths]


def require_parts(row: dict) -> None:
    """Refuse a folder without bins of the size that is asked for; the message says what it has."""
    if not (is_store(row["path"]) or _bin_folder(row).is_dir()):
        raise InputError(_no_bins(row))


def own_image(row: dict) -> str:
    """The run's reduced image; "" if it is missing or its scale unknown."""
    folder = _bin_folder(row)
    known = "tissue_hires_scalef" in spaceranger.read_scalefactors(spaceranger.scalefactors_path(folder))
    return _hires(folder) if known else ""


def read(row: dict):
    """Bins in the tissue. See `ctrflow.readers.read_section`.

    A bin's barcode gives its place in the array, and the scale factors its size: both are checked against the
    positions.
    """
    if is_store(row["path"]):
        _require_bins(row)
        bin_um = _wanted(row)
        spots = spatialdata_zarr.read_spots(
            row, lambda *array: square_array_um(*array, bin_um), bin_um, bin_um, f"square_{bin_um:03d}um"
        )
        _require_barcodes(spots.obs_names, None, bin_um, row["path"])
        return spots
    require_parts(row)
    folder = _bin_folder(row)
    matrix_path = spaceranger.matrix_path(folder)
    positions_path = spaceranger.positions_path(folder, NEWEST_POSITIONS)
    scalefactors_path = spaceranger.scalefactors_path(folder)
    scalefactors = spaceranger.read_scalefactors(scalefactors_path)
    bin_um = _bin_um(row, folder, scalefactors, scalefactors_path)
    positions = spaceranger.read_positions(positions_path, in_tissue=True)
    if positions.empty:
        raise InputError(f"{positions_path}: no bin has in_tissue = 1; mark the tissue and run Space Ranger again")
    _require_barcodes(positions.index, positions[["array_row", "array_col"]].to_numpy(), bin_um, positions_path)
    array_um = square_array_um(positions["array_row"].to_numpy(), positions["array_col"].to_numpy(), bin_um)
    px = positions[["x", "y"]].to_numpy()
    require_lattice(array_um, px, bin_um, positions.index, positions_path)
    spots = join(read_10x(matrix_path), positions, matrix_path, positions_path)
    pitch = f"pitch of bins of {bin_um} µm in {positions_path.name}"
    claims = [
        Claim(scalefactors.get("microns_per_pixel"), f"microns_per_pixel in {scalefactors_path.name}", sure=True),
        Claim(lattice_um_per_px(array_um, px), pitch, sure=True),
    ]
    spots.uns["section"] = spaceranger.described(row, _hires(folder), scalefactors, claims, bin_um)
    return spots


def _wanted(row: dict) -> int:
    """The bin size that the sheet asks for, µm."""
    given = number(row, "spot_um")
    if given is not None and given != round(given):
        raise InputError(f"section {row['section']}: column spot_um is {given:g}; give the size of a bin: 2, 8 or 16")
    return int(given or HD_BIN_UM)


def _bin_folder(row: dict) -> Path:
    """The folder of one bin size; if missing, the one that Space Ranger would write."""
    folder = outs(row["path"], *MARKS)
    one_size = has(folder, (f"*{spaceranger.MATRIX}*", "*tissue_positions*", "spatial/*tissue_positions*"))
    if _named_um(folder) or (one_size and not _sizes(folder)):
        return folder
    inside = folder / "binned_outputs"
    if folder.name != "binned_outputs" and (inside.is_dir() or not folder.is_dir()):
        folder = inside
    return folder / f"square_{_wanted(row):03d}um"


def _named_um(folder: Path) -> int | None:
    found = re.fullmatch(r"square_(\d{3})um", folder.name)
    return int(found[1]) if found else None


def _sizes(folder: Path) -> list[int]:
    """The bin sizes in a folder or in its `binned_outputs`, µm."""
    found = [*folder.glob("square_*um"), *folder.glob("binned_outputs/square_*um")]
    return sorted(filter(None, map(_named_um, found)))


def _no_bins(row: dict) -> str:
    folder = outs(row["path"], *MARKS, CELLS)
    sizes = _sizes(folder)
    where = f"{row['path']}: section {row['section']}: "
    if sizes:
        names = ", ".join(map(str, sizes))
        return where + f"no bins of {_wanted(row)} µm; write one of {names} in column spot_um"
    cure = "give the outs folder of a Visium HD run with its binned_outputs in column path"
    if has(folder, (f"{CELLS}/*",)):
        cure += ", or write visium_hd_cells in column platform to read the cells that it has"
    return where + f"no folder of bins; {cure}"


def _require_bins(row: dict) -> None:
    """Refuse a store of cells, as spatialdata-io writes it with `load_segmentations_only`: they would pass for bins."""
    tables = Path(row["path"], "tables")
    if has(tables, ("*cell_segmentations",)) and not has(tables, ("*square_*um",)):
        raise InputError(
            f"{row['path']}: section {row['section']}: a store of Visium HD cells without bins; write it with "
            "load_segmentations_only=False, or give Space Ranger's outs folder and write visium_hd_cells in column "
            "platform"
        )


def _bin_um(row: dict, folder: Path, scalefactors: dict, path: Path) -> int:
    """The size of a bin, on which the sheet, the folder's name and the scale factors must agree."""
    sizes = {
        f"{path} (bin_size_um)": scalefactors.get("bin_size_um"),
        f"{folder} (its name)": _named_um(folder),
        "column spot_um": number(row, "spot_um"),
    }
    sizes = {source: size for source, size in sizes.items() if size is not None}
    if not sizes:
        raise InputError(f"{path}: the size of a bin is unknown; fill column spot_um of the section sheet (µm)")
    if len(set(sizes.values())) > 1:
        claims = "; ".join(f"{source} says {size:g} µm" for source, size in sizes.items())
        raise InputError(f"section {row['section']}: {claims}; give the folder of one bin size and leave spot_um empty")
    return round(next(iter(sizes.values())))


def _require_barcodes(ids, array: np.ndarray | None, bin_um: int, path) -> None:
    """Refuse barcodes that name another bin size, or another place of the array than `array` (n x 2: row, column)."""
    named = ids.to_series().str.extract(BIN_ID).astype("Float64").to_numpy(np.float64, na_value=np.nan)
    wrong = named[:, 0] != bin_um
    if array is not None:
        wrong |= (named[:, 1:] != array).any(axis=1)
    wrong &= np.isfinite(named).all(axis=1)  # ids of another form are not checked
    if wrong.any():
        raise InputError(
            f"{path}: {int(wrong.sum()):,} barcodes contradict their row and column in the table or the bin size of "
            f"{bin_um} µm: {first_few(ids[wrong])}; the table is damaged or of another bin size: "
            "download it again"
        )


def _hires(folder: Path) -> str:
    """The reduced image in the folder of the bins, else in that of the run."""
    run = folder.parent.parent if folder.parent.name == "binned_outputs" else folder.parent
    return spaceranger.hires_image([folder, run])
