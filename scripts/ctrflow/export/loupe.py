"""The calls and layers for 10x Loupe Browser."""

from ctrflow import storage
from ctrflow.export import Export
from ctrflow.export.columns import call_words, layer_words, safe_names

EXPORT = Export("{section}.loupe.csv", opens="Loupe Browser")


def write(section, path) -> None:
    """The calls of all runs, and their layers."""
    storage.write_text(loupe_csv(section.calls, section.layer), path)


def loupe_csv(calls, layer=None) -> str:
    """Categories as Loupe Browser imports them: CSV with `Barcode` first, then the call by each run (a column of its
    name), then the layer (`layer_<name>`)."""
    names = safe_names(calls.columns)
    table = calls.apply(call_words).rename(columns=names)
    if layer is not None:
        table = table.assign(**{f"layer_{names[run]}": layer_words(layer[run]) for run in layer})
    table.index = table.index.astype(str)
    return table.to_csv(index_label="Barcode", lineterminator="\n")
