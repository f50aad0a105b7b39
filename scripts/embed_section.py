"""Compute image features of the patches around a section's spots."""

from ctrflow import encoders, logs, storage

logs.setup(snakemake.log[0], snakemake.params.threads, snakemake.params.device)
spots = storage.read_h5ad(snakemake.input.spots, with_x=False)
options = snakemake.params.encoder | {"device": snakemake.params.device}
features = encoders.embed_section(spots, snakemake.wildcards.encoder, options, threads=snakemake.params.threads)
storage.write_h5ad(features, snakemake.output.embedding)
