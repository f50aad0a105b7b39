"""Write a section's results for scanpy, Loupe Browser, QuPath, napari and a spreadsheet."""

from ctrflow import export, image, logs, storage
from ctrflow.export.regions import section_regions
from ctrflow.results import seeds

THUMBNAIL_PX = 2000  # long side of Space Ranger's "hires" image

logs.setup(snakemake.log[0])
runs = snakemake.params.runs
spots = storage.read_h5ad(snakemake.input.spots)
scores, sd, calls, _ = seeds.on_section(runs, [storage.read_tsv(path) for path in snakemake.input.calls], spots)
section = export.Section(
    spots,
    scores,
    calls,
    sd,
    regions=section_regions(spots, calls),
    picture=image.section_thumbnail(spots, THUMBNAIL_PX),
    provenance={"study": snakemake.wildcards.study, "seeds": sorted({run["seed"] for run in runs})},
)
export.write(section, dict(snakemake.output.items()))
