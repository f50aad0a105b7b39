"""Read a Xenium bundle into cells.h5ad, and sum its cells into spots."""

from ctrflow import image, logs, readers, storage
from ctrflow.sections import aggregate

logger = logs.setup(snakemake.log[0])
name, output, row = snakemake.wildcards.section, snakemake.output, snakemake.params.row
cells = readers.read_section(row)
logger.info("%s: %d cells, %d genes", name, cells.n_obs, cells.n_vars)
spots = aggregate.aggregate_cells(cells, row["pool"])
readers.require_spatial_structure(spots, output.cells)
spots = image.pictured_spots(spots)
logger.info("%s: %d spots", name, spots.n_obs)
storage.write_h5ad(cells, output.cells)
storage.write_h5ad(spots, output.spots)
