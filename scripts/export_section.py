"""Write a section's results for scanpy, Loupe Browser, QuPath, napari and a spreadsheet."""

import json
from pathlib import Path

from ctrflow import export, image, logs, storage
from ctrflow.results import seeds

THUMBNAIL_PX = 2000  # the long side of the "hires" picture that Space Ranger makes

logs.setup(snakemake.log[0])
runs = snakemake.params.runs
spots = storage.read_h5ad(snakemake.input.spots)
scores, sd, calls, _ = seeds.on_section(runs, [storage.read_tsv(path) for path in snakemake.input.calls], spots)
regions = export.section_regions(spots, calls)
picture = image.section_thumbnail(spots, THUMBNAIL_PX)
seeds = sorted({run["seed"] for run in runs})
provenance = {"study": snakemake.wildcards.study, "seeds": seeds}
storage.write_h5ad(export.section_h5ad(spots, scores, calls, provenance, *picture, sd), snakemake.output.h5ad)
storage.write_text(export.loupe_csv(calls), snakemake.output.loupe)
folder = Path(snakemake.output.regions)
for run, name in export.safe_names(scores.columns).items():
    drawn = export.qupath_geojson(spots, scores[run], calls[run], sd.get(run), regions[run])
    # without indents: a large section has a million corners
    storage.write_text(json.dumps(drawn, allow_nan=False) + "\n", folder / f"{name}.geojson")
store = export.section_spatialdata(spots, scores, calls, regions, provenance, *picture, sd)
export.write_spatialdata(store, snakemake.output.spatialdata)
storage.write_tsv(export.summary_table(spots, scores, calls, sd, regions), snakemake.output.summary)
