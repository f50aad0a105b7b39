"""Estimate from a drawing alone how good the map is that it teaches, and find where to draw next."""

import json

from ctrflow import logs, methods, storage
from ctrflow.export import qupath
from ctrflow.within import estimate, teach

inputs, params = snakemake.input, snakemake.params
logger = logs.setup(snakemake.log[0], params.threads)
method = methods.load(params.method)
# the rows of a section, in the order of its spots
view = storage.read_h5ad(inputs.train, with_layers=method.SPEC.counts)
drawn = storage.read_tsv(inputs.drawn)
if inputs.prior:
    view.obs["prior"] = teach.prior(view, [storage.read_tsv(path) for path in inputs.prior], params.prior_threshold)
labels = teach.of_spots(drawn, view.obs["spot"])["label"].to_numpy(dtype=float)
seed = int(snakemake.wildcards.seed)


def learn(taught):
    """The scores of a section that is taught by some labels."""
    return method.Model.fit(taught, params.options, seed).score(taught)


found = estimate.Drawing(view, labels, learn, method.SPEC.threshold)
facts, disagreement = estimate.estimate(found)
facts["caveat"] = "; ".join(filter(None, (teach.disagreement(view, labels), facts["caveat"])))
storage.write_json(facts, snakemake.output.estimate)
spots = storage.read_h5ad(inputs.spots, with_x=False)
where = estimate.draw_next(spots, labels, disagreement)
storage.write_text(
    json.dumps(qupath.draw_here(spots, where, disagreement), allow_nan=False) + "\n", snakemake.output.next
)
logger.info("%s", facts["caveat"] or "estimated")
