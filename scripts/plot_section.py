"""Draw the map of a section: H&E, label, and each method's scores, calls and sd over seeds."""

from ctrflow import image, logs, plots, storage
from ctrflow.results import seeds

logs.setup(snakemake.log[0])
spots = storage.read_h5ad(snakemake.input.spots)
tables = [storage.read_tsv(path) for path in snakemake.input.calls]
scores, sd, calls, _ = seeds.on_section(snakemake.params.runs, tables, spots)
labels = storage.read_tsv(snakemake.input.labels[0]).label.to_numpy() if snakemake.input.labels else None
thumbnail, scale = image.section_thumbnail(spots, 1600)
facts = spots.uns["section"]
picture = plots.section_panel(
    thumbnail,
    scale,
    spots.obsm["spatial"],
    facts["spot_um"],
    facts["um_per_px"],
    seeds.layers(scores, calls, labels, sd),
    lossless=True,
)
storage.write_bytes(picture, snakemake.output.figure)
