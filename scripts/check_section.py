"""Check an ingested section, draw its spots on its image, and measure what scores are held against."""

from ctrflow import logs, plots, storage
from ctrflow.sections import check, yardsticks

logs.setup(snakemake.log[0])
spots = storage.read_h5ad(snakemake.input.spots)
labels = storage.read_tsv(snakemake.input.labels[0]) if snakemake.input.labels else None
published = storage.read_tsv(snakemake.input.published)
vendor_image = snakemake.input.vendor_image[0] if snakemake.input.vendor_image else ""
result = check.check_section(spots, labels, published, vendor_image)
storage.write_json(result, snakemake.output.check)
storage.write_bytes(plots.overlay(spots, result["findings"]), snakemake.output.overlay)
storage.write_tsv(yardsticks.yardsticks(spots), snakemake.output.yardsticks)
