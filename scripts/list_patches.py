"""List the patches of the sections that methods train on together, each with its digest and size."""

import pandas as pd

from ctrflow import logs, storage

logs.setup(snakemake.log[0])
patches = snakemake.input.patches
facts = pd.DataFrame([storage.read_patches_facts(path) for path in patches])
listed = pd.DataFrame({"section": snakemake.params.sections, "patches": patches})
storage.write_tsv(listed.join(facts), snakemake.output.patches)
