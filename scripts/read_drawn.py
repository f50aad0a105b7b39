"""Read what is drawn in a section into drawn.tsv, separate from its data and its labels."""

from ctrflow import logs, storage
from ctrflow.within import regions

logs.setup(snakemake.log[0])
spots = storage.read_h5ad(snakemake.input.spots, with_x=False)
cells = storage.read_h5ad(snakemake.input.cells, with_x=False) if snakemake.input.cells else None
storage.write_tsv(regions.read(snakemake.input.drawn, spots, snakemake.input.words, cells), snakemake.output.drawn)
