"""The calls for 10x Xenium Explorer, which shows cells."""

from pathlib import Path

import numpy as np

from ctrflow import storage
from ctrflow.errors import InputError
from ctrflow.export import Export
from ctrflow.export.columns import CALL_COLOURS, aligned_values, call_words, safe_names
from ctrflow.sections.aggregate import membership

EXPORT = Export("{section}.xenium_groups", opens="Xenium Explorer", folder=True, needs=("cells",))


def write(section, path) -> None:
    """The calls per cell, one file per run."""
    for run, name in safe_names(section.calls.columns).items():
        groups = xenium_csv(section.cells, section.spots, section.calls[run])
        storage.write_text(groups, Path(path) / f"{name}.csv")


def xenium_csv(cells, spots, call) -> str:
    """One run's calls as Xenium Explorer imports cell groups: CSV of cell_id, group, color, one row per cell.

    A cell has the call of the spot that it was summed into (`aggregate.aggregate_cells`): cancer or other. It is "not
    scored" if its spot is not, or if it lies between spots and so was seen by no method.

    Parameters
    ----------
    cells : AnnData of the bundle's cells, `obs_names` their ids, `obsm["spatial_um"]`
    spots : AnnData, see the section contract, `obsm["spatial_um"]`
    call : Series of one run with the spot ids as index

    Raises
    ------
    InputError
        if no cell lies in any spot.
    """
    import pandas as pd

    section = spots.uns["section"]
    belongs = membership(cells.obsm["spatial_um"], spots.obsm["spatial_um"], section["spot_um"]).tocoo()
    if not belongs.nnz:
        raise InputError(
            f"section {section['section']}: no cell of its cells.h5ad lies in a spot of its spots.h5ad; "
            "rebuild both files"
        )
    call = aligned_values(call, spots)
    of_cell = np.full(cells.n_obs, np.nan)
    of_cell[belongs.col] = call[belongs.row]
    group = call_words(pd.Series(of_cell))
    table = pd.DataFrame({"cell_id": cells.obs_names.astype(str), "group": group, "color": group.map(CALL_COLOURS)})
    return table.to_csv(index=False, lineterminator="\n")
