"""Check a study before it runs and report at once all that would fail later."""

import sys
from pathlib import Path

from ctrflow import doctor, logs, storage

logs.setup(snakemake.log[0])
Path(snakemake.params.page).unlink(missing_ok=True)  # so that an old page is not mistaken for this one
findings = doctor.examine(snakemake.params.plan)
storage.write_text(doctor.page(findings), snakemake.params.page)
if any(finding.level == "problem" for finding in findings):
    sys.exit(1)
