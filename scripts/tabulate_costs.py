"""Collect the costs of a study's runs in one table."""

from ctrflow import logs, storage
from ctrflow.results import cost_tables

logs.setup(snakemake.log[0])
# a section's features contain the facts about their encoder
embeddings = {path: storage.read_h5ad(path, with_x=False).uns["encoder"] for path in snakemake.input.embeddings}
runs = [
    run
    | {step: storage.read_json(run[step]) if run[step] else {} for step in ("infer", "train", "pretrain")}
    | {"encoder_params": int(embeddings[run["embedding"]]["params"]) if run["embedding"] else None}
    | {"embed": cost_tables.benchmark_seconds(run["embed"])}
    for run in snakemake.params.runs
]
storage.write_tsv(cost_tables.table(runs), snakemake.output.efficiency)
