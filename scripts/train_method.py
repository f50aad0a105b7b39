"""Train a method on the training table of a fold, with one or several seeds."""

from functools import partial

from ctrflow import logs, machine, methods, storage
from ctrflow.folds import depth, tables
from ctrflow.training import costs, losses, memory, model_file
from ctrflow.trust import calibration, level, picture
from ctrflow.within import teach

params, inputs, output = snakemake.params, snakemake.input, snakemake.output
logger = logs.setup(snakemake.log[0], params.threads, params.device)
method = methods.load(params.method)
equal_depth = params.options.get("equal_depth", 0)
train = storage.read_h5ad(inputs.train, with_layers=method.SPEC.counts or equal_depth > 0)
memory.require(method.SPEC, train, params.options)
if inputs.patches:
    train = tables.with_patches(train, storage.read_listed_patches(inputs.patches))
own_level, levels, gate = {}, {}, {}
if inputs.level:
    tensors, learned = storage.read_safetensors(inputs.level)
    own_level, levels, gate = (*level.split(tensors), learned["gate"])
modalities = list(methods.modalities_of(method.SPEC, params.options))
reads_image = "image" in modalities and "image" in train.obsm
seen, distances = picture.fit(train) if reads_image and not inputs.drawn else ({}, [])
if inputs.prior:
    train.obs["prior"] = teach.prior(train, [storage.read_tsv(path) for path in inputs.prior], params.prior_threshold)
facts = {
    "method": method.SPEC.name,
    "variant": snakemake.wildcards.method,
    "options": params.options,
    "modalities": modalities,
    "encoder": snakemake.wildcards.encoder,
    "encoder_settings": params.encoder,
    "code": params.code,
    "versions": machine.installed(),
    "least_genes": method.SPEC.least_genes,
    "gate": gate,
    "picture": distances,
    **params.origin,
    **model_file.training(train),
}
beside = model_file.profile(train) | seen | own_level
costs.load(method)
for i, seed in enumerate(params.seeds):
    logger.info("seed %d", seed)
    initial = {"pretrained": storage.read_safetensors(inputs.pretrained[i])[0]} if inputs.pretrained else {}
    reference = depth.thinned(train, equal_depth, seed)
    if inputs.drawn:
        reference = teach.taught(reference, teach.of_seed(storage.read_tsv(inputs.drawn), seed))
        teach.warn_of_disagreement(reference)
    with costs.measured() as cost:
        model = method.Model.fit(reference, params.options, seed, **initial)
    found = {}
    if params.calibrates:
        needs_image = "image" in modalities and not methods.reads_missing(method.SPEC, params.options)
        found = calibration.fit(
            train,
            levels,
            partial(method.Model.fit, options=params.options, seed=seed),
            method.SPEC.threshold,
            needs_image,
        )
    storage.write_safetensors(model.tensors() | beside, facts | {"seed": seed, "calibration": found}, output.models[i])
    storage.write_json(cost | costs.setting(train, params.threads), output.costs[i])
    history = losses.table(getattr(model, "losses", []), method.SPEC.name)
    storage.write_tsv(history, output.losses[i])
    for stage, concern in losses.concerns(history).items():
        logger.warning("stage %s: the loss is %s; lower the learning rate", stage, concern)
    if stages := losses.unmoved_text(history):
        logger.warning("training did not lower its loss: %s", stages)
