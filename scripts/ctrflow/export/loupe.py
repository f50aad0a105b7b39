"""The calls for 10x Loupe Browser."""

from ctrflow.export.columns import call_words, safe_names


def loupe_csv(calls) -> str:
    """The calls as Loupe Browser imports categories: CSV with `Barcode` first, then a column of words per run."""
    table = calls.apply(call_words).rename(columns=safe_names(calls.columns))
    table.index = table.index.astype(str)
    return table.to_csv(index_label="Barcode", lineterminator="\n")
