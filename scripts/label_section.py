"""Read a section's labels into labels.tsv, apart from its data."""

from ctrflow import labels, logs, storage

logger = logs.setup(snakemake.log[0])
spots = storage.read_h5ad(snakemake.input.spots)
cells = storage.read_h5ad(snakemake.input.cells) if snakemake.input.cells else None
words = labels.read_words(snakemake.input.words, str(spots.uns["section"].get("cohort", "")))
table = labels.read_labels(snakemake.input.labels, spots, words, cells, snakemake.input.words)
logger.info(
    "%s: %d of %d spots cancer, %d unknown",
    snakemake.wildcards.section,
    (table.label == 1).sum(),
    len(table),
    table.label.isna().sum(),
)
storage.write_tsv(table, snakemake.output.labels)
