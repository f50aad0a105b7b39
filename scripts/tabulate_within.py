"""Put what drawings say about the maps that they teach into one table."""

from ctrflow import logs, storage
from ctrflow.within import tabulate

logs.setup(snakemake.log[0])
estimates = [storage.read_json(path) for path in snakemake.input.estimates]
storage.write_tsv(tabulate.table(snakemake.params.runs, estimates), snakemake.output.within)
