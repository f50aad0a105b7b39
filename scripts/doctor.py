"""Check a study before it runs and report at once all that would fail later."""

import sys

from ctrflow import doctor, logs, storage

logs.setup(snakemake.log[0])
findings = doctor.examine(snakemake.params.plan)
storage.write_text(doctor.page(findings), snakemake.params.page)
if any(finding.level == "problem" for finding in findings):
    sys.exit(1)
