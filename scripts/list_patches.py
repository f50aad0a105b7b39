"""The pictures that methods learn from together, each with a digest of what is in it, and its size."""

import pandas as pd

from ctrflow import logs, storage

logs.setup(snakemake.log[0])
patches = snakemake.input.patches
facts = pd.DataFrame([storage.read_patches_facts(path) for path in patches])
listed = pd.DataFrame({"section": snakemake.params.sections, "patches": patches})
storage.write_tsv(listed.join(facts), snakemake.output.patches)
