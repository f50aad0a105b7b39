"""Draw a share of a section's labels as compact regions, for each seed, for a study of how little is enough."""

import pandas as pd

from ctrflow import logs, storage
from ctrflow.within import regions

logs.setup(snakemake.log[0])
spots = storage.read_h5ad(snakemake.input.spots, with_x=False)
labels = storage.read_tsv(snakemake.input.labels[0])
known, place = labels["label"].astype(float).to_numpy(), spots.obsm["spatial"]
drawn = {seed: regions.draw(known, place, snakemake.params.share, seed) for seed in snakemake.params.seeds}
tables = [regions.table(spots, labels.assign(label=own)).assign(seed=seed) for seed, own in drawn.items()]
storage.write_tsv(pd.concat(tables), snakemake.output.drawn)
