"""Check a study before it runs and report at once all that would fail later."""

import sys

from ctrflow import doctor, logs, storage

logs.setup(snakemake.log[0])
findings = doctor.examine(snakemake.params.plan)
page = doctor.page(findings)
storage.write_text(page, snakemake.params.page)
if snakemake.params.shown:  # else at the end of the run
    sys.stderr.write(page)
if any(finding.level == "problem" for finding in findings):
    sys.exit(1)
