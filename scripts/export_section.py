"""Write a section's results for scanpy, Loupe Browser and QuPath."""

from pathlib import Path

from ctrflow import export, image, logs, results, storage

logs.setup(snakemake.log[0])
runs = snakemake.params.runs
spots = storage.read_h5ad(snakemake.input.spots)
scores, sd, calls, _ = results.on_section(runs, [storage.read_tsv(path) for path in snakemake.input.calls], spots)
thumbnail, scale = image.section_thumbnail(spots, 1000)
seeds = sorted({run["seed"] for run in runs})
provenance = {"study": snakemake.wildcards.study, "seeds": seeds}
storage.write_h5ad(export.section_h5ad(spots, scores, calls, provenance, thumbnail, scale, sd), snakemake.output.h5ad)
storage.write_text(export.loupe_csv(calls), snakemake.output.loupe)
folder = Path(snakemake.output.regions)
for run, name in export.safe_names(scores.columns).items():
    regions = export.qupath_geojson(spots, scores[run], calls[run], sd.get(run))
    storage.write_json(regions, folder / f"{name}.geojson")
storage.write_tsv(export.summary_table(spots, scores, calls, sd), snakemake.output.summary)
