"""Download a public file, or an archive of such files; what it is, is checked or recorded.

Without a lock file nothing is recorded: for a member that a mirror has instead of its archive, of which the digest is.
"""

from ctrflow import logs
from ctrflow.fetch import download, sources

logs.setup(snakemake.log[0])
url, sha256, lock = snakemake.params.url, snakemake.params.sha256, snakemake.params.lock
expected = sources.expected(url, sha256, lock) if lock else sha256
found = download.fetch(url, snakemake.output[0], expected, snakemake.params.mirror)
if lock and not sha256:
    sources.record(url, found.sha256, found.n_bytes, lock)
