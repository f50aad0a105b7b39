"""Build the training and target tables of a fold, or the training table of all that a task can train on."""

from functools import partial

from ctrflow import logs, storage
from ctrflow.folds import tables

logs.setup(snakemake.log[0])
data, params = snakemake.input, snakemake.params
train_sections, target_sections = params.train_sections, params.target_sections
left_in_file = partial(storage.read_h5ad, with_x=False)


def by_section(sections, paths, read=left_in_file):
    """Section id -> table; empty without files."""
    return {name: read(path) for name, path in zip(sections, paths, strict=True)} if paths else {}


train = tables.train_view(
    by_section(train_sections, data.train),
    by_section(params.pictured, data.train_embeddings),
    by_section(train_sections, data.labels, storage.read_tsv),
)
if snakemake.wildcards.view == "normal" and data.labels:
    train = tables.negatives(train)
if snakemake.output.get("target"):
    target = tables.target_view(
        by_section(target_sections, data.target), by_section(target_sections, data.target_embeddings)
    )
    train, target = tables.build_views(train, target, params.n_genes, **params.gene_ranking)
    storage.write_h5ad_pieces(target, snakemake.output.target)
else:
    train = tables.build_train(train, params.n_genes, **params.gene_ranking)
storage.write_h5ad_pieces(train, snakemake.output.train)
