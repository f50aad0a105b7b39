"""Summarise all sections and runs in one table: called spots, area, regions, mean score."""

import pandas as pd

from ctrflow import logs, storage

logs.setup(snakemake.log[0])
storage.write_tsv(pd.concat([storage.read_tsv(path) for path in snakemake.input.summaries]), snakemake.output.summary)
