"""Learn the level of a fold, which says whether a section has a tumour, and score each source patient by the others."""

from ctrflow import logs, storage
from ctrflow.trust import gate, level

logs.setup(snakemake.log[0], snakemake.params.threads)
train = storage.read_h5ad(snakemake.input.train)
levels, sections = level.held_out_levels(train)
found = gate.learn(sections)
facts = {"gate": found.as_dict() if found else {}, "sections": [vars(one) for one in sections]}
storage.write_safetensors(level.fit(train) | levels, facts, snakemake.output.level)
