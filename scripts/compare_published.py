"""Compare the papers' printed numbers with those of the study, and reproduce their tables."""

from pathlib import Path

import pandas as pd

from ctrflow import logs, storage
from ctrflow.results import published

logger = logs.setup(snakemake.log[0])
inputs, params = snakemake.input, snakemake.params
printed = published.read_published(inputs.published)
names = published.read_names(inputs.names)
wanted = published.call_sections(printed, names)
folds = {(run["task"], run["fold"]) for run in params.plan["runs"] if run["section"] in wanted}
pairs = zip(params.runs, inputs.calls, strict=True)
scoring = [(run, path) for run, path in pairs if (run["task"], run["fold"]) in folds]
labels = {name: path for path in inputs.labels if (name := Path(path).parent.name) in wanted}
values = [
    storage.read_tsv(inputs.metrics),
    published.section_values([storage.read_json(path) for path in inputs.checks]),
    published.cost_values(storage.read_tsv(inputs.costs), params.plan),
    published.call_values(
        [run for run, _ in scoring],
        [storage.read_tsv(path) for _, path in scoring],
        {name: storage.read_tsv(path) for name, path in labels.items()},
        names,
        wanted,
    ),
]
compared = published.compare(printed, names, params.plan, pd.concat(values, ignore_index=True))
storage.write_tsv(compared, snakemake.output.published)
published.write_tables(published.paper_tables(printed, compared), snakemake.output.papers)
logger.info(
    "%d of %d printed numbers compared", len(compared.drop_duplicates(list(published.COLUMNS[:5]))), len(printed)
)
