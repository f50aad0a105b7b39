"""Markers of cell types in the layers: the mean z-score of a set's genes."""

import numpy as np

from ctrflow.features import markers
from ctrflow.folds.genes import log_normalise
from ctrflow.rim.layers import LAYERS

COLUMNS = ("section", "layer", "cell_type", "score", "spots", "genes", "missing")


def scores(spots, types) -> tuple:
    """The score of every cell type in every spot, and the genes that it comes from.

    A score is the mean over the genes of the z-scores of their log-normalised expression within the section: 0 is the
    section's mean, and a positive score means more than that, not how many cells.

    Parameters
    ----------
    spots : AnnData with raw counts, genes named as in `types`
    types : frame of gene and set, see `markers.read_markers`

    Returns
    -------
    frame (spots x types), NaN for a type none of whose genes has counts; type -> (genes used, genes missing)
    """
    import pandas as pd

    wanted = list(types["gene"])
    columns = spots.var_names.get_indexer(wanted)
    known = np.flatnonzero(columns >= 0)
    counted = np.zeros(len(wanted), dtype=bool)
    counted[known] = np.asarray(spots.X[:, columns[known]].sum(axis=0)).ravel() > 0
    # normalised by all genes of a spot, kept of the markers
    expression = log_normalise(spots.X)[:, columns[counted]]
    place = np.cumsum(counted) - 1
    found, genes = {}, {}
    for name, rows in types.groupby("set", sort=False).indices.items():
        used = rows[counted[rows]]
        genes[name] = [wanted[row] for row in used], [wanted[row] for row in rows if not counted[row]]
        found[name] = markers.mean_zscore(expression, place[used]) if len(used) else np.nan
    return pd.DataFrame(found, index=spots.obs_names), genes


def table(section: str, layer, scored: tuple):
    """The mean score of each cell type in each layer of a run; no row for a layer without spots.

    Parameters
    ----------
    section : its id
    layer : (n,) Series of one run, see `layers.of_section`
    scored : as returned by `scores`
    """
    import pandas as pd

    values, genes = scored
    rows = []
    for name in LAYERS:
        own = (layer == name).to_numpy()
        if own.any():
            rows += [
                [section, name, kind, values[kind].to_numpy()[own].mean(), int(own.sum()), *map(" ".join, genes[kind])]
                for kind in values
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
