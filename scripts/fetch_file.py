"""Download a public file or archive and check or record its digest.

Without a lock file nothing is recorded: for a member that a mirror has in place of its archive, whose digest it is.
"""

from ctrflow import logs
from ctrflow.fetch import download, sources

logs.setup(snakemake.log[0])
url, sha256, lock = snakemake.params.url, snakemake.params.sha256, snakemake.params.lock
expected = sources.expected(url, sha256, lock) if lock else sha256
fetched = download.fetch(url, snakemake.output[0], expected, snakemake.params.mirror)
if lock and not sha256:
    sources.record(url, fetched.sha256, fetched.n_bytes, lock)
