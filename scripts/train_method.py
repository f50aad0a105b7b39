"""Train a method on the training table of a fold, with one or several seeds."""

from ctrflow import logs, machine, methods, storage
from ctrflow.folds import tables
from ctrflow.training import costs, losses, memory, model_file

params, inputs, output = snakemake.params, snakemake.input, snakemake.output
logger = logs.setup(snakemake.log[0], params.threads, params.device)
method = methods.load(params.method)
train = storage.read_h5ad(inputs.train, with_layers=method.SPEC.counts)
memory.require(method.SPEC, train, params.options)
if inputs.patches:
    train = tables.with_patches(train, storage.read_listed_patches(inputs.patches))
facts = {
    "method": method.SPEC.name,
    "variant": snakemake.wildcards.method,
    "options": params.options,
    "modalities": list(methods.modalities_of(method.SPEC, params.options)),
    "encoder": snakemake.wildcards.encoder,
    "encoder_settings": params.encoder,
    "code": params.code,
    "versions": machine.installed(),
    "least_genes": method.SPEC.least_genes,
    **params.origin,
    **model_file.training(train),
}
costs.load(method)
for i, seed in enumerate(params.seeds):
    logger.info("seed %d", seed)
    initial = {"pretrained": storage.read_safetensors(inputs.pretrained[i])[0]} if inputs.pretrained else {}
    with costs.measured() as cost:
        model = method.Model.fit(train, params.options, seed, **initial)
    storage.write_safetensors(model.tensors() | model_file.profile(train), facts | {"seed": seed}, output.models[i])
    storage.write_json(cost | costs.setting(train, params.threads), output.costs[i])
    history = losses.table(getattr(model, "losses", []), method.SPEC.name)
    storage.write_tsv(history, output.losses[i])
    for stage, concern in losses.concerns(history).items():
        logger.warning("stage %s: the loss is %s; lower the learning rate", stage, concern)
