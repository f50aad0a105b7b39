"""Compute all metrics of a study, as one long table."""

from pathlib import Path

from ctrflow import logs, storage
from ctrflow.results import metrics
from ctrflow.training import losses

logs.setup(snakemake.log[0])
labels = {Path(path).parent.name: storage.read_tsv(path) for path in snakemake.input.labels}
calls = [storage.read_tsv(path) for path in snakemake.input.calls]
verdicts = [storage.read_json(path) for path in snakemake.input.verdicts]
crops = {one["section"]: one["reason"] for one in map(storage.read_json, snakemake.input.crops)}
yardsticks = {Path(path).parent.name: storage.read_tsv(path) for path in snakemake.input.yardsticks}
params = snakemake.params
trainings = {
    tuple(run[name] for name in metrics.RUN): losses.unmoved_text(storage.read_tsv(path))
    for run, path in zip(params.trained, snakemake.input.losses, strict=True)
}
table = metrics.study_table(
    snakemake.wildcards.study, params.runs, calls, labels, params.patients, verdicts, crops, trainings, yardsticks
)
storage.write_tsv(table, snakemake.output.metrics)
