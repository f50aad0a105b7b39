"""Read a section's vendor files into spots.h5ad."""

from ctrflow import image, logs, readers, storage

logger = logs.setup(snakemake.log[0])
spots = readers.read_section(snakemake.params.row)
image.require_spots_inside(spots)
logger.info("%s: %d spots, %d genes", snakemake.wildcards.section, spots.n_obs, spots.n_vars)
storage.write_h5ad(spots, snakemake.output.spots)
