"""Write the calls on a Xenium section per cell, for Xenium Explorer."""

from ctrflow import export, logs, storage
from ctrflow.results import seeds

logs.setup(snakemake.log[0])
cells = storage.read_h5ad(snakemake.input.cells, with_x=False)
spots = storage.read_h5ad(snakemake.input.spots)
tables = [storage.read_tsv(path) for path in snakemake.input.calls]
scores, sd, calls, _ = seeds.on_section(snakemake.params.runs, tables, spots)
export.write(export.Section(spots, scores, calls, sd, cells=cells), dict(snakemake.output.items()))
