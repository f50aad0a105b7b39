"""Call spots by the label-free threshold of each section's scores."""

from ctrflow import logs, storage
from ctrflow.results import threshold

logger = logs.setup(snakemake.log[0])
output = snakemake.output
files = zip(snakemake.input.scores, output.calls, output.thresholds, snakemake.params.kinds, strict=True)
for scores, calls, thresholds, kind in files:
    table, fits = threshold.call_sections(storage.read_tsv(scores), kind)
    storage.write_tsv(table, calls)
    storage.write_json({section: fitted.as_dict() for section, fitted in fits.items()}, thresholds)
logger.info("%d score tables called", len(snakemake.input.scores))
