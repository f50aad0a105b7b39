"""Read a section's labels into labels.tsv, separate from its data."""

from ctrflow import logs, storage
from ctrflow.sections import labels

logs.setup(snakemake.log[0])
spots = storage.read_h5ad(snakemake.input.spots, with_x=False)
cells = storage.read_h5ad(snakemake.input.cells, with_x=False) if snakemake.input.cells else None
words = labels.read_words(snakemake.input.words, str(spots.uns["section"].get("cohort", "")))
table = labels.read_labels(snakemake.input.labels, spots, words, cells, snakemake.input.words)
storage.write_tsv(table, snakemake.output.labels)
