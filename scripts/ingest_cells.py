"""Read a Xenium bundle into cells.h5ad."""

from ctrflow import logs, readers, storage

logger = logs.setup(snakemake.log[0])
cells = readers.read_section(snakemake.params.row)
logger.info("%s: %d cells, %d genes", snakemake.wildcards.section, cells.n_obs, cells.n_vars)
storage.write_h5ad(cells, snakemake.output.cells)
