"""A call per spot: the crossing of a Gaussian mixture fitted to each section's scores."""

from ctrflow import logs, storage, threshold

logger = logs.setup(snakemake.log[0])
table, fits = threshold.call_sections(storage.read_tsv(snakemake.input.scores))
for section, fitted in fits.items():
    logger.info("%s: %s threshold %s", section, fitted.branch, fitted.threshold)
storage.write_tsv(table, snakemake.output.calls)
storage.write_json({section: fitted.as_dict() for section, fitted in fits.items()}, snakemake.output.threshold)
