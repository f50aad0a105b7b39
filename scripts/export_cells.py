"""Write the calls on a Xenium section cell by cell, for Xenium Explorer."""

from pathlib import Path

from ctrflow import export, logs, storage
from ctrflow.results import seeds

logs.setup(snakemake.log[0])
cells = storage.read_h5ad(snakemake.input.cells, with_x=False)
spots = storage.read_h5ad(snakemake.input.spots)
tables = [storage.read_tsv(path) for path in snakemake.input.calls]
calls = seeds.on_section(snakemake.params.runs, tables, spots)[2]
folder = Path(snakemake.output.groups)
for run, name in export.safe_names(calls.columns).items():
    storage.write_text(export.xenium_csv(cells, spots, calls[run]), folder / f"{name}.csv")
