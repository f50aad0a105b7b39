"""Compute all metrics of a study, as one long table."""

from pathlib import Path

from ctrflow import logs, storage
from ctrflow.results import metrics

logs.setup(snakemake.log[0])
labels = {Path(path).parent.name: storage.read_tsv(path) for path in snakemake.input.labels}
calls = [storage.read_tsv(path) for path in snakemake.input.calls]
table = metrics.study_table(snakemake.wildcards.study, snakemake.params.runs, calls, labels, snakemake.params.patients)
storage.write_tsv(table, snakemake.output.metrics)
