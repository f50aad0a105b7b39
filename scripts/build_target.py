"""Build the target table of a fold alone: all genes for methods that do not train, those of a given model, or, for
crops, those of the training table that their models learned from.
"""

from functools import partial

from ctrflow import logs, storage
from ctrflow.features import gene_names
from ctrflow.folds import tables
from ctrflow.training import model_file

logs.setup(snakemake.log[0])
names = snakemake.params.target_sections
left_in_file = partial(storage.read_h5ad, with_x=False)
spots = dict(zip(names, map(left_in_file, snakemake.input.target), strict=True))
images = dict(zip(names, map(left_in_file, snakemake.input.target_embeddings), strict=False))
target = tables.target_view(spots, images)
model = snakemake.input.get("model")
if model:
    tensors, metadata = storage.read_safetensors(model)
    model_file.require_beside(model, tensors, metadata)
    human, expression = gene_names.read(snakemake.input.genes), tensors.get(model_file.PROFILE)
    target = [model_file.target_table(target, metadata, model, snakemake.params.min_gene_share, human, expression)]
elif train := snakemake.input.get("train"):
    learned = storage.read_h5ad(train, with_x=False)
    target = tables.measured(target, list(learned.uns["library_genes"]))
    target = tables.in_pieces([target], list(learned.var_names))
else:
    target = tables.in_pieces([target], list(target.var_names))
storage.write_h5ad_pieces(target, snakemake.output.target)
