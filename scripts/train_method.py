"""Train a method on the training table of a fold."""

from ctrflow import logs, machine, methods, storage
from ctrflow.folds import tables
from ctrflow.training import costs, losses, memory, model_file

logger = logs.setup(snakemake.log[0], snakemake.params.threads, snakemake.params.device)
method, options, wildcards = methods.load(snakemake.params.method), snakemake.params.options, snakemake.wildcards
train = storage.read_h5ad(snakemake.input.train, with_layers=method.SPEC.counts)
memory.require(method.SPEC, train, options)
patches = snakemake.input.get("patches")
if patches:
    train = tables.with_patches(train, storage.read_listed_patches(patches))
pretrained = snakemake.input.get("pretrained")
initial = {"pretrained": storage.read_safetensors(pretrained)[0]} if pretrained else {}
costs.load(method)
with costs.measured() as cost:
    model = method.Model.fit(train, options, int(wildcards.seed), **initial)
metadata = {
    "method": method.SPEC.name,
    "variant": wildcards.method,
    "options": options,
    "modalities": list(methods.modalities_of(method.SPEC, options)),
    "seed": int(wildcards.seed),
    "encoder": wildcards.encoder,
    "encoder_settings": snakemake.params.encoder,
    "code": snakemake.params.code,
    "versions": machine.installed(),
    **model_file.training(train),
}
storage.write_safetensors(model.tensors(), metadata, snakemake.output.model)
storage.write_json(cost | costs.setting(train, snakemake.params.threads), snakemake.output.cost)
history = losses.table(getattr(model, "losses", []), method.SPEC.name)
storage.write_tsv(history, snakemake.output.losses)
for stage, concern in losses.concerns(history).items():
    logger.warning("stage %s: the loss is %s; lower the learning rate", stage, concern)
