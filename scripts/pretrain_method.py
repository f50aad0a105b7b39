"""Pretrain a method on patches of normal tissue: weights that the trainings of all folds share."""

from ctrflow import logs, methods, storage
from ctrflow.folds import tables
from ctrflow.training import costs, losses, memory

params, wildcards = snakemake.params, snakemake.wildcards
logs.setup(snakemake.log[0], params.threads, params.device)
method = methods.load(params.method)
train = storage.read_h5ad(snakemake.input.train, with_layers=False)
memory.require(method.SPEC, train, params.options)
train = tables.with_patches(train, storage.read_listed_patches(snakemake.input.patches))
costs.load(method)
with costs.measured() as cost:
    tensors, history = method.Model.pretrain(train, params.options, int(wildcards.seed))
facts = {"method": params.method, "options": params.options, "seed": int(wildcards.seed), "code": params.code}
storage.write_safetensors(tensors, facts, snakemake.output.model)
storage.write_tsv(losses.table(history, params.method), snakemake.output.losses)
storage.write_json(cost | costs.setting(train, params.threads), snakemake.output.cost)
