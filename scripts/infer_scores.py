"""Score the target table of a fold, with the model of each seed."""

from functools import partial

from ctrflow import logs, methods, storage
from ctrflow.features import gene_names, markers
from ctrflow.folds import depth, tables
from ctrflow.image import superpixels
from ctrflow.results import scores
from ctrflow.training import costs, memory, model_file
from ctrflow.trust import evidence
from ctrflow.within import teach

logs.setup(snakemake.log[0], snakemake.params.threads, snakemake.params.device)
method = methods.load(snakemake.params.method)
equal_depth = snakemake.params.options.get("equal_depth", 0)
target = storage.read_h5ad(snakemake.input.target, with_layers=method.SPEC.counts or equal_depth > 0)
memory.require(method.SPEC, target, snakemake.params.options | {"max_reference_spots": 0})


def by_section(paths, read):
    """Section id -> what `read` returns for its file."""
    return dict(zip(snakemake.params.sections, map(read, paths), strict=True))


if snakemake.input.patches:
    target = tables.with_patches(target, by_section(snakemake.input.patches, storage.read_patches))
if snakemake.input.superpixels:
    target.uns["superpixels"] = by_section(
        snakemake.input.superpixels, lambda path: superpixels.arrays(storage.read_h5ad(path))
    )
if snakemake.input.markers:
    target.uns["markers"] = by_section(snakemake.input.markers, markers.read_markers)
if snakemake.input.positions:
    target.uns["positions"] = gene_names.read(snakemake.input.positions)
if snakemake.input.truth:
    target = tables.with_truth(target, [storage.read_tsv(path) for path in snakemake.input.truth])
if snakemake.input.prior:
    prior = [storage.read_tsv(path) for path in snakemake.input.prior]
    target.obs["prior"] = teach.prior(target, prior, snakemake.params.prior_threshold)
left_in_file = partial(storage.read_h5ad, with_x=False)
counts = by_section(snakemake.input.counts, left_in_file) if snakemake.input.counts else {}
costs.load(method)
for i, seed in enumerate(snakemake.params.seeds):
    model = snakemake.input.models[i] if snakemake.input.models else ""
    tensors, metadata = storage.read_safetensors(model) if model else ({}, {})
    own = model_file.own_tensors(tensors)
    if "model" in target.uns:  # a given model, which may come from others
        model_file.require_tensors(model, own, metadata, method)
    fitted = method.Model.from_tensors(own, snakemake.params.options, seed)
    seen = depth.thinned(target, equal_depth, seed)
    with costs.measured() as cost:
        values = fitted.score(seen)
    table = scores.table(target, values, snakemake.params.method)
    kind, platforms = method.SPEC.threshold, snakemake.params.platforms
    known = kind, platforms, counts, target.uns.get("positions")
    table["probability"], facts = evidence.gather(target, values, tensors, metadata, *known)
    if snakemake.input.drawn:
        drawn = teach.of_seed(storage.read_tsv(snakemake.input.drawn), seed)
        table = teach.marked(table, drawn, method.SPEC.from_drawings)
    storage.write_tsv(table, snakemake.output.scores[i])
    storage.write_json({name: one.as_dict() for name, one in facts.items()}, snakemake.output.evidence[i])
    # methods that train while scoring do so for each section
    numbers = costs.sizes(fitted, own, cost["optimised"] / len(snakemake.params.sections))
    storage.write_json(cost | numbers | costs.setting(target, snakemake.params.threads), snakemake.output.costs[i])
