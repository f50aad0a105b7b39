"""Call the spots of each section, and say whether it has a tumour."""

from ctrflow import logs, storage
from ctrflow.results import calls
from ctrflow.results.verdict import Facts

logger = logs.setup(snakemake.log[0])
output, inputs = snakemake.output, snakemake.input
where = {
    section: storage.read_h5ad(path, with_x=False)
    for section, path in zip(snakemake.params.sections, inputs.spots, strict=True)
}
files = zip(
    inputs.scores,
    inputs.evidence,
    output.calls,
    output.thresholds,
    output.verdicts,
    snakemake.params.kinds,
    strict=True,
)
for scores, evidence, called, thresholds, verdicts, kind in files:
    facts = {name: Facts.from_dict(values) for name, values in storage.read_json(evidence).items()}
    table, fits, found = calls.call_sections(storage.read_tsv(scores), facts, where, kind)
    storage.write_tsv(table, called)
    storage.write_json({section: fitted.as_dict() for section, fitted in fits.items()}, thresholds)
    storage.write_json({section: verdict.as_dict() for section, verdict in found.items()}, verdicts)
logger.info("%d score tables called", len(inputs.scores))
