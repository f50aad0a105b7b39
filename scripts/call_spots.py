"""A call per spot: the crossing of a Gaussian mixture fitted to each section's scores."""

from ctrflow import logs, storage, threshold

logger = logs.setup(snakemake.log[0])
files = zip(snakemake.input.scores, snakemake.output.calls, snakemake.output.thresholds, strict=True)
for scores, calls, thresholds in files:
    table, fits = threshold.call_sections(storage.read_tsv(scores))
    storage.write_tsv(table, calls)
    storage.write_json({section: fitted.as_dict() for section, fitted in fits.items()}, thresholds)
logger.info("%d score tables called", len(snakemake.input.scores))
