"""Take the image features of a crop from those of its section."""

from ctrflow import logs, storage
from ctrflow.sections import crop

logs.setup(snakemake.log[0])
features = storage.read_h5ad(snakemake.input.embedding[0])
spots = storage.read_h5ad(snakemake.input.spots, with_x=False)
storage.write_h5ad(crop.same_spots(features, spots), snakemake.output.embedding)
