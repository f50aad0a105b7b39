"""Aggregate the cells of a Xenium section into spots of Visium geometry."""

from ctrflow import image, logs, readers, storage
from ctrflow.sections import aggregate

logger = logs.setup(snakemake.log[0])
spots = aggregate.aggregate_cells(storage.read_h5ad(snakemake.input.cells))
readers.require_spatial_structure(spots, snakemake.input.cells)
spots = image.pictured_spots(spots)
logger.info("%s: %d spots", snakemake.wildcards.section, spots.n_obs)
storage.write_h5ad(spots, snakemake.output.spots)
