"""Train a method on the training table of a fold."""

from ctrflow import logs, methods, storage

logger = logs.setup(snakemake.log[0], snakemake.params.threads, snakemake.params.device)
train = storage.read_h5ad(snakemake.input.train)
method, options, wildcards = methods.load(snakemake.params.method), snakemake.params.options, snakemake.wildcards
model = method.Model.fit(train, options, int(wildcards.seed))
metadata = {
    "method": method.SPEC.name,
    "variant": wildcards.method,
    "options": options,
    "seed": int(wildcards.seed),
    "encoder": wildcards.encoder,
    "genes": list(train.var_names),
    "library_genes": list(train.uns["library_genes"]),
    "sections": list(dict.fromkeys(train.obs["section"])),
    "patients": list(dict.fromkeys(train.obs["patient"])),
    "code": snakemake.params.code,
}
storage.write_safetensors(model.tensors(), metadata, snakemake.output.model)
