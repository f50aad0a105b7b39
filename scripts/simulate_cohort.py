"""Write the raw files of the demo cohort in the vendors' layouts."""

from pathlib import Path

from ctrflow import logs, simulate

logs.setup(snakemake.log[0])
simulate.simulate_cohort(Path(snakemake.params.folder), snakemake.params.seed, workers=snakemake.threads)
