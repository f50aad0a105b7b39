"""What lies in each layer around the called tumour, for a spreadsheet."""

from ctrflow import storage
from ctrflow.export import Export
from ctrflow.rim import layers

EXPORT = Export("{section}.layers.tsv", opens="a spreadsheet")


def write(section, path) -> None:
    """One row per run and layer."""
    storage.write_tsv(layers.table(section.spots, section.layer), path)
