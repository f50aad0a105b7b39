"""Cut a section's tissue into a grid of superpixels, for methods that predict between the spots."""

from ctrflow import logs, storage
from ctrflow.image import superpixels

logs.setup(snakemake.log[0])
spots = storage.read_h5ad(snakemake.input.spots, with_x=False)
storage.write_h5ad(superpixels.cut_superpixels(spots), snakemake.output.superpixels)
