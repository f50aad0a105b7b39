"""Extract one file from a downloaded archive."""

from ctrflow import logs
from ctrflow.fetch import archives

logger = logs.setup(snakemake.log[0])
archive, member = snakemake.input.archive, snakemake.params.member
archives.unpack(archive, member, snakemake.output.file, snakemake.params.password)
logger.info("%s: %s of %s", snakemake.output.file, member, archive)
