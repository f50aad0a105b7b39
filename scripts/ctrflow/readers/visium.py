"""Visium: a Space Ranger `outs` folder (55 µm spots on a hexagonal array, 100 µm apart), of version 1, 2, 3 or 4.

Arrays of 6.5 and 11 mm differ only in extent. Source: 10x Genomics, "Space Ranger: spatial outputs".
"""

from ctrflow.errors import InputError
from ctrflow.readers import join, spaceranger, spatialdata_zarr
from ctrflow.readers.folders import outs, require_one_sample
from ctrflow.readers.kinds import is_store
from ctrflow.readers.matrices import files_10x, read_10x
from ctrflow.readers.platform import Platform
from ctrflow.scale.arrays import VISIUM, lattice_um_per_px, require_lattice, visium_array_um
from ctrflow.scale.settle import Claim, number, of_diameter

PLATFORM = Platform(
    "a Space Ranger folder of Visium spots",
    # `spatial` alone is no mark: an outs of Visium HD has it too
    marks=("spatial/*tissue_positions*", *spaceranger.MARKS[1:]),
    shared_marks=True,
    in_stores=True,
    image=f"spatial/{spaceranger.HIRES}",
)
# of the folder to read: wider than those of PLATFORM, because files may be gzipped or missing
MARKS = ("spatial", f"*{spaceranger.MATRIX}*")


def files(row: dict) -> list[str]:
    """The matrix (HDF5, else the mtx folder's files), the positions, and the scale factors if present."""
    if is_store(row["path"]):
        return [row["path"]]
    folder = outs(row["path"], *MARKS)
    paths = [*files_10x(spaceranger.matrix_path(folder)), spaceranger.positions_path(folder)]
    scalefactors = spaceranger.scalefactors_path(folder)
    if scalefactors.is_file() or not folder.is_dir():
        paths.append(scalefactors)
    return [str(path) for path in paths]


def own_image(row: dict) -> str:
    """The folder's reduced image; "" if it is missing or its scale unknown."""
    folder = outs(row["path"], *MARKS)
    known = "tissue_hires_scalef" in spaceranger.read_scalefactors(spaceranger.scalefactors_path(folder))
    return spaceranger.hires_image([folder]) if known else ""


def read(row: dict):
    """Spots in the tissue. See `ctrflow.readers.read_section`.

    The scale comes from the array's pitch, not from `spot_diameter_fullres`: that is the diameter in px of a nominal
    65 µm spot, so taking it for 55 µm would be 15 % off.
    """
    if is_store(row["path"]):
        return spatialdata_zarr.read_spots(row, visium_array_um, VISIUM.pitch_um, VISIUM.spot_um)
    folder = outs(row["path"], *MARKS)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give Space Ranger's outs folder in column path")
    scalefactors_path = spaceranger.scalefactors_path(folder)
    scalefactors = spaceranger.read_scalefactors(scalefactors_path)
    matrix_path, positions_path = spaceranger.matrix_path(folder), spaceranger.positions_path(folder)
    if not matrix_path.exists():
        raise InputError(
            f"{matrix_path}: no such file; check the path in the section sheet, or copy the file from the run's outs "
            "folder; those of a Visium HD run are in binned_outputs (write visium_hd in column platform) and "
            "segmented_outputs (visium_hd_cells)"
        )
    require_one_sample(matrix_path, [spaceranger.MATRIX], positions_path, spaceranger.POSITIONS)
    hires = spaceranger.hires_image([folder])
    counts = read_10x(matrix_path)
    positions = spaceranger.read_positions(positions_path)
    array_um = visium_array_um(positions["array_row"].to_numpy(), positions["array_col"].to_numpy())
    px = positions[["x", "y"]].to_numpy()
    require_lattice(array_um, px, VISIUM.pitch_um, positions.index, positions_path)
    counts = spaceranger.leave_out_others(counts, positions, matrix_path, positions_path)
    positions = positions[positions["in_tissue"] == 1]
    spots = join(counts, positions, matrix_path, positions_path)
    claims = [
        Claim(lattice_um_per_px(array_um, px), f"array pitch of 100 µm in {positions_path.name}", sure=True),
        of_diameter(scalefactors.get("spot_diameter_fullres"), scalefactors_path.name),
    ]
    spot_um = number(row, "spot_um") or VISIUM.spot_um
    spots.uns["section"] = spaceranger.described(row, hires, scalefactors, claims, spot_um)
    return spots
