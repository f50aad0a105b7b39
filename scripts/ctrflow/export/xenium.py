"""The calls for 10x Xenium Explorer, which shows cells; and the score of every cell as a table."""

from pathlib import Path

import numpy as np

from ctrflow import storage
from ctrflow.errors import InputError
from ctrflow.export import Export
from ctrflow.export.columns import CALL_COLOURS, aligned_values, call_words, safe_names
from ctrflow.sections.aggregate import spot_of_cells

EXPORT = Export("{section}.xenium_groups", opens="Xenium Explorer", folder=True, needs=("cells",))


def write(section, path) -> None:
    """The calls per cell as one file per run, and beside it the scores, which cell groups cannot hold."""
    for run, name in safe_names(section.calls.columns).items():
        frames = section.scores[run], section.calls[run], section.probability.get(run)
        table = cell_table(section.cells, section.spots, *frames)
        storage.write_text(xenium_csv(table), Path(path) / f"{name}.csv")
        storage.write_tsv(table, Path(path) / f"{name}.cells.tsv")


def cell_table(cells, spots, score, call, probability=None):
    """One run's result for every cell of the bundle: frame of cell_id, spot, score, call (cancer, other, not scored),
    and probability if it is given.

    A cell has the values of the spot that it was summed into (`aggregate.aggregate_cells`). It is "not
    scored" if its spot is not, or if it is in none: between discs, where no method sees it. Its spot and score are
    then missing.

    Parameters
    ----------
    cells : AnnData of the bundle's cells, `obs_names` their ids, `obs["spot"]` the spot of each
    spots : AnnData, see the section contract
    score, call, probability : Series of one run with the spot ids as index

    Raises
    ------
    InputError
        if no cell is in any spot.
    """
    import pandas as pd

    spot = spot_of_cells(cells, spots)
    if (spot < 0).all():
        raise InputError(
            f"section {spots.uns['section']['section']}: no cell of its cells.h5ad lies in a spot of its spots.h5ad; "
            "rebuild both files"
        )
    # a last row for the cells in no spot, which -1 selects
    score, call = (np.append(aligned_values(values, spots), np.nan)[spot] for values in (score, call))
    names = np.append(spots.obs_names.to_numpy(object), None)[spot]
    ids = cells.obs_names.astype(str)
    table = pd.DataFrame({"cell_id": ids, "spot": names, "score": score, "call": call_words(pd.Series(call))})
    if probability is None:
        return table
    return table.assign(probability=np.append(aligned_values(probability, spots), np.nan)[spot])


def xenium_csv(table) -> str:
    """The calls of a `cell_table` as Xenium Explorer imports cell groups: CSV of cell_id, group, color."""
    groups = table[["cell_id", "call"]].set_axis(["cell_id", "group"], axis=1)
    return groups.assign(color=groups["group"].map(CALL_COLOURS)).to_csv(index=False, lineterminator="\n")
