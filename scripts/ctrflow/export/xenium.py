"""The calls and layers for 10x Xenium Explorer, which shows cells; and all of a run, by cell, as a table."""

from pathlib import Path

import numpy as np

from ctrflow import storage
from ctrflow.errors import InputError
from ctrflow.export import Export
from ctrflow.export.columns import (
    CALL_COLOURS,
    LAYER_COLOURS,
    NOT_SCORED,
    aligned_values,
    call_words,
    layer_words,
    safe_names,
)
from ctrflow.sections.aggregate import spot_of_cells

EXPORT = Export("{section}.xenium_groups", opens="Xenium Explorer", folder=True, needs=("cells",))


def write(section, path) -> None:
    """The calls and layers of cells as one file per run each, and beside them the numbers, which cell groups cannot
    hold."""
    for run, name in safe_names(section.calls.columns).items():
        frames = section.scores[run], section.calls[run], section.probability.get(run)
        around = (None, None) if section.layer is None else (section.rim_um[run], section.layer[run])
        table = cell_table(section.cells, section.spots, *frames, *around)
        storage.write_text(xenium_csv(table), Path(path) / f"{name}.csv")
        if section.layer is not None:
            storage.write_text(xenium_csv(table, "layer", LAYER_COLOURS), Path(path) / f"{name}.layers.csv")
        storage.write_tsv(table, Path(path) / f"{name}.cells.tsv")


def cell_table(cells, spots, score, call, probability=None, rim_um=None, layer=None):
    """One run's result for every cell of the bundle: frame of cell_id, spot, score, call (cancer, other, not scored),
    and probability, rim_um and layer if they are given.

    A cell has the values of the spot that it was summed into (`aggregate.aggregate_cells`). It is "not
    scored" if its spot is not, or if it is in none: between discs, where no method sees it. Its spot, score and
    distance are then missing.

    Parameters
    ----------
    cells : AnnData of the bundle's cells, `obs_names` their ids, `obs["spot"]` the spot of each
    spots : AnnData, see the section contract
    score, call, probability, rim_um, layer : Series of one run with the spot ids as index

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
    for name, values in (("probability", probability), ("rim_um", rim_um)):
        if values is not None:
            table[name] = np.append(aligned_values(values, spots), np.nan)[spot]
    if layer is not None:
        words = layer_words(layer).reindex(spots.obs_names).to_numpy(object)
        table["layer"] = np.append(words, NOT_SCORED)[spot]
    return table


def xenium_csv(table, column: str = "call", colours: dict = CALL_COLOURS) -> str:
    """A column of words of a `cell_table` as Xenium Explorer imports cell groups: CSV of cell_id, group, color."""
    groups = table[["cell_id", column]].set_axis(["cell_id", "group"], axis=1)
    return groups.assign(color=groups["group"].map(colours)).to_csv(index=False, lineterminator="\n")
