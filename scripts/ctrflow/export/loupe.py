"""The calls for 10x Loupe Browser."""

from ctrflow import storage
from ctrflow.export import Export
from ctrflow.export.columns import call_words, safe_names

EXPORT = Export("{section}.loupe.csv", opens="Loupe Browser")


def write(section, path) -> None:
    """The calls of all runs."""
    storage.write_text(loupe_csv(section.calls), path)


def loupe_csv(calls) -> str:
    """The calls as Loupe Browser imports categories: CSV with `Barcode` first, then one column per run."""
    table = calls.apply(call_words).rename(columns=safe_names(calls.columns))
    table.index = table.index.astype(str)
    return table.to_csv(index_label="Barcode", lineterminator="\n")
