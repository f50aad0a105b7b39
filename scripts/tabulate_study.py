"""Compute the benchmark tables of a study: by section, by method, and for each pair of methods."""

from pathlib import Path

from ctrflow import logs, storage
from ctrflow.results import benchmark

logs.setup(snakemake.log[0])
labels = {Path(path).parent.name: storage.read_tsv(path) for path in snakemake.input.labels}
calls = (storage.read_tsv(path) for path in snakemake.input.calls)
tables = benchmark.tables(storage.read_tsv(snakemake.input.metrics), snakemake.params.runs, calls, labels)
for name, table in tables.items():
    storage.write_tsv(table, snakemake.output[name])
