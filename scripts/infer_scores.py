"""Score the target table of a fold."""

from ctrflow import folds, logs, methods, scores, storage

logs.setup(snakemake.log[0], snakemake.params.threads, snakemake.params.device)
target = storage.read_h5ad(snakemake.input.target)
method = methods.load(snakemake.params.method)
if snakemake.input.truth:
    target = folds.with_truth(target, [storage.read_tsv(path) for path in snakemake.input.truth])
model = snakemake.input.get("model")
tensors = storage.read_safetensors(model)[0] if model else {}
fitted = method.Model.from_tensors(tensors, snakemake.params.options, int(snakemake.wildcards.seed))
storage.write_tsv(scores.table(target, fitted.score(target), snakemake.params.method), snakemake.output.scores)
