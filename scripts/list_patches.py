"""The pictures that methods learn from together, each with a digest of what is in it."""

import pandas as pd

from ctrflow import logs, storage

logs.setup(snakemake.log[0])
patches = snakemake.input.patches
digests = [storage.read_patches_digest(path) for path in patches]
listed = pd.DataFrame({"section": snakemake.params.sections, "patches": patches, "sha256": digests})
storage.write_tsv(listed, snakemake.output.patches)
