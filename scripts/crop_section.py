"""Make the tumour-free crop of a section: its spots, their labels, and whether there are enough of them."""

from ctrflow import logs, storage
from ctrflow.sections import crop

logger = logs.setup(snakemake.log[0])
section = storage.read_h5ad(snakemake.input.spots[0])
labels = storage.read_tsv(snakemake.input.labels[0])
spots, labels, facts = crop.tumour_free(section, labels, snakemake.wildcards.section)
logger.info("%s: %d of the %d spots of %s", facts["section"], facts["spots"], section.n_obs, facts["crop_of"])
if not facts["judged"]:
    logger.warning("%s: too small to be judged: %s", facts["section"], facts["reason"])
storage.write_h5ad(spots, snakemake.output.spots)
storage.write_tsv(labels, snakemake.output.labels)
storage.write_json(facts, snakemake.output.facts)
