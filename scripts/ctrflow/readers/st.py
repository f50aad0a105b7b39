"""Spatial Transcriptomics (the ST platform: 100 µm spots, 200 µm apart), in the layout of the HER2ST release.

`path` is the counts table `ST-cnts/<S>.tsv[.gz]`; its spots are in `../ST-spotfiles/<S>_selection.tsv`.
Source: Andersson et al. 2021, github.com/almaan/her2st.
"""

import csv
import logging
import re
import zlib
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers import describe, join, spatialdata_zarr
from ctrflow.readers.kinds import is_store
from ctrflow.readers.platform import ST_ID, Platform
from ctrflow.readers.tables import numeric, open_text, read_table, require_columns, require_file
from ctrflow.scale.arrays import ST, ST_PLACES, lattice_um_per_px, require_lattice, square_array_um
from ctrflow.scale.settle import Claim, number, settle, settle_image_scale

logger = logging.getLogger("ctrflow")

PLATFORM = Platform("a counts table of the ST platform", in_stores=True)


def recognises(path: Path) -> bool:
    """Whether the second line of a table begins with a spot id such as 10x12."""
    try:
        with open_text(path) as handle:
            handle.readline(10_000_000)
            second = handle.readline(100)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error):
        return False
    return bool(re.match(rf'"?{ST_ID}"?\t', second))


def files(row: dict) -> list[str]:
    """The counts table and the selection file."""
    if is_store(row["path"]):
        return [row["path"]]
    return [row["path"], str(_selection_path(row["path"]))]


def read(row: dict):
    """Spots with counts and a position. See `ctrflow.readers.read_section`."""
    if is_store(row["path"]):
        return spatialdata_zarr.read_spots(
            row, lambda *array: square_array_um(*array, ST.pitch_um), ST.pitch_um, ST.spot_um, claims=_claims
        )
    selection_path = _selection_path(row["path"])
    counts = _read_counts(row["path"])
    positions = _read_selection(selection_path)
    spots = join(counts, positions, row["path"], selection_path, partial=True)
    array_um = positions[["array_x", "array_y"]].to_numpy() * ST.pitch_um
    require_lattice(array_um, positions[["x", "y"]].to_numpy(), ST.pitch_um, positions.index, selection_path)
    placed = positions.loc[spots.obs_names]
    image, spot_um = row.get("image") or "", number(row, "spot_um") or ST.spot_um
    image_scale = settle_image_scale(row, image, {})
    scale = settle(
        row, _claims(placed[["array_y", "array_x"]].to_numpy(), spots.obsm["spatial"], spot_um), image, image_scale
    )
    spots.uns["section"] = describe(row, scale, spot_um, image, image_scale)
    return spots


def _claims(array: np.ndarray, px: np.ndarray, spot_um: float) -> list[Claim]:
    """The pitch of the ST array, which an image may contradict: nothing in the files shows that it is this array.

    None of spots that lie, or are as wide, as on no ST array of 200 µm.
    """
    staggered = len(array) > 1 and len(np.unique(array.sum(axis=1) % 2)) == 1
    if spot_um != ST.spot_um or staggered or np.ptp(array, axis=0).max() >= ST_PLACES:
        logger.warning(
            "spots of %g µm in %d x %d places%s are not on the ST array of %g µm spots, %g µm apart, whose pitch would "
            "give the scale", spot_um, *(np.ptp(array, axis=0) + 1), ", every other empty," if staggered else "",
            ST.spot_um, ST.pitch_um,
        )  # fmt: skip
        return []
    return [
        Claim(lattice_um_per_px(square_array_um(*array.T, ST.pitch_um), px), f"array pitch of {ST.pitch_um:.0f} µm")
    ]


def _selection_path(path: str) -> Path:
    counts = Path(path)
    name = re.sub(r"\.(tsv|txt)(\.gz)?$", "", counts.name)
    return counts.parent.parent / "ST-spotfiles" / f"{name}_selection.tsv"


def _read_counts(path: str):
    """Spots x genes; the header may lack the corner cell, as R writes it."""
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    require_file(path)
    try:
        with open_text(path) as handle:
            genes = next(csv.reader([handle.readline()], delimiter="\t"), [])
            table = pd.read_csv(handle, sep="\t", header=None, index_col=0, dtype={0: str}, low_memory=False)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as a tab-separated table ({error}); download it again") from error
    if len(genes) == table.shape[1] + 1:
        genes = genes[1:]
    if len(genes) != table.shape[1] or not genes:
        raise InputError(
            f"{path}: {len(genes)} genes in the header, {table.shape[1]} counts in row 2; "
            "give a tab-separated table with spots as rows and genes as columns"
        )
    _require_numbers(table, genes, path)
    spots = table.index.astype(str)
    if not spots.str.fullmatch(ST_ID).any() and re.fullmatch(ST_ID, genes[0]):
        raise InputError(
            f"{path}: rows are genes ({first_few(spots, 3)}) and columns spots ({first_few(genes, 3)}); transpose it"
        )
    matrix = sparse.csr_matrix(table.to_numpy(np.float32))
    return AnnData(matrix, obs=pd.DataFrame(index=spots.rename(None)), var=pd.DataFrame(index=pd.Index(genes)))


def _require_numbers(table, genes: list[str], path: str) -> None:
    import pandas as pd

    wrong = [place for place, dtype in enumerate(table.dtypes) if dtype.kind not in "iuf"]
    if not wrong:
        return
    cells = table.iloc[:, wrong[0]].astype(str)
    row = int(pd.to_numeric(cells, errors="coerce").isna().to_numpy().argmax())
    raise InputError(
        f"{path}: row {row + 2}, column {genes[wrong[0]]}: '{cells.iloc[row]}' is not a number; put the count there"
    )


def _read_selection(path: Path):
    """Frame by spot id "XxY" of the spots under the tissue: x, y (px) and array_x, array_y (array index)."""
    import pandas as pd

    table = read_table(path)
    columns = ["x", "y", "pixel_x", "pixel_y"]
    require_columns(table, columns, path)
    values = numeric(table, columns, path)
    if "selected" in table:  # some files list the whole array
        values = values[(table["selected"].str.strip() != "0").to_numpy()]
    array = np.rint(values[:, :2]).astype(int)
    return pd.DataFrame(
        {"x": values[:, 2], "y": values[:, 3], "array_x": array[:, 0], "array_y": array[:, 1]},
        index=[f"{x}x{y}" for x, y in array],
    )
