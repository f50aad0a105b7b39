"""Names and values of runs as columns of a viewer's table."""

import re

import numpy as np

from ctrflow.classes import CLASSES
from ctrflow.errors import InputError, first_few
from ctrflow.rim.layers import CORE, INNER, NO_TUMOUR, OUTER, STROMA

NOT_SCORED = "not scored"
CALL_COLOURS = {"cancer": "#d55e00", "other": "#56b4e9", NOT_SCORED: "#9a9a9a"}  # as in the report
# of the same palette, from warm to cold
LAYER_COLOURS = {
    CORE: "#d55e00", INNER: "#e69f00", OUTER: "#f0e442", STROMA: "#56b4e9", NO_TUMOUR: "#0072b2", NOT_SCORED: "#9a9a9a",
}  # fmt: skip


def safe_names(runs) -> dict[str, str]:
    """Run -> a name that is safe as a column or file in all viewers: all but letters, digits, `.`, `-` becomes `_`.

    Raises
    ------
    InputError
        if two runs get the same name, ignoring case.
    """
    names = {run: re.sub(r"[^A-Za-z0-9.-]+", "_", str(run)).strip("_") or "run" for run in runs}
    folded = [name.casefold() for name in names.values()]
    taken = [name for name in names.values() if folded.count(name.casefold()) > 1]
    if taken:
        clash = [run for run, name in names.items() if name.casefold() == taken[0].casefold()]
        raise InputError(
            f"runs {first_few(clash)} would share the column name {taken[0]!r}: rename one in the study file"
        )
    return names


def call_words(calls):
    """Calls (a column) as the words cancer, other, not scored."""
    return calls.map(CLASSES).fillna(NOT_SCORED)


def layer_words(layer):
    """The layers of one run as a categorical column, with those words that occur, in the order of `LAYER_COLOURS`."""
    import pandas as pd

    words = layer.fillna(NOT_SCORED)
    return pd.Series(pd.Categorical(words, [word for word in LAYER_COLOURS if (words == word).any()]), words.index)


def aligned(frame, spots, what: str):
    """The frame in the order of the section's spots; missing spots are NaN, additional ones an error.

    Raises
    ------
    InputError
        for unknown or duplicate spots.
    """
    section = spots.uns["section"]["section"]
    index = frame.index.astype(str)
    if not index.is_unique:
        twice = index[index.duplicated()]
        raise InputError(
            f"{what} of section {section}: spots {first_few(twice)} occur twice; rebuild the scores of this section"
        )
    unknown = index[~index.isin(spots.obs_names)]
    if len(unknown):
        raise InputError(
            f"{what} of section {section}: {len(unknown)} spots are not in its spots.h5ad ({first_few(unknown)}); "
            "rebuild the scores of this section"
        )
    return frame.set_axis(index).reindex(spots.obs_names)


def aligned_values(series, spots) -> np.ndarray:
    """One run's values in the order of the section's spots, see `aligned`."""
    return aligned(series.to_frame("run"), spots, "scores")["run"].to_numpy()
