"""Look for everything that would fail later in a study, and tell it at once."""

import sys
from pathlib import Path

from ctrflow import doctor, logs, storage

logs.setup(snakemake.log[0])
Path(snakemake.params.page).unlink(missing_ok=True)  # the last look's page must not pass for this one's
findings = doctor.examine(snakemake.params.plan)
storage.write_text(doctor.page(findings), snakemake.params.page)
if any(finding.level == "problem" for finding in findings):
    sys.exit(1)
