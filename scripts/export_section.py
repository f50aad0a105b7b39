"""Draw the map of a section (H&E, label, and each method's scores, calls and sd over seeds), and write its results for
scanpy, cellxgene, Loupe Browser, QuPath, napari, TissUUmaps and a spreadsheet; those of a Xenium bundle also for Xenium
Explorer.
"""

from pathlib import Path

from ctrflow import export, image, logs, plots, storage
from ctrflow.export.regions import section_regions
from ctrflow.results import seeds, verdict
from ctrflow.rim import distance, layers
from ctrflow.scale import lattice

MAP_PX = 1600
THUMBNAIL_PX = 2000  # long side of Space Ranger's "hires" image

logs.setup(snakemake.log[0])
data, runs, paths = snakemake.input, snakemake.params.runs, dict(snakemake.output.items())
spots = storage.read_h5ad(data.spots)
tables, known = (
    [read(path) for path in of] for read, of in ((storage.read_tsv, data.calls), (storage.read_json, data.evidence))
)
found = seeds.on_section(runs, tables, known, spots)

labels = storage.read_tsv(data.labels[0]).label.to_numpy() if data.labels else None
thumbnail, scale = image.section_thumbnail(spots, MAP_PX)
drawn = storage.read_tsv(data.drawn[0]).label.to_numpy() if data.drawn else None
facts, panels = spots.uns["section"], seeds.panels(found, labels, drawn)
caution = " ".join(snakemake.params.cautions)
centres, spot_um, um_per_px = spots.obsm["spatial"], facts["spot_um"], facts["um_per_px"]
picture = plots.section_panel(
    thumbnail,
    scale,
    centres,
    spot_um,
    um_per_px,
    panels,
    True,
    lattice.tile_px(centres, spot_um / um_per_px),
    caution,
    verdict.statement(found.verdicts),
)
storage.write_bytes(picture, paths.pop("figure"))

widths_um = snakemake.params.widths_um
layers.warn_of_thin(spots, widths_um)
regions = section_regions(spots, found.calls)
rim_um = distance.of_section(spots, found.calls, regions)
section = export.Section(
    spots,
    found.scores,
    found.calls,
    found.sd,
    found.probability,
    found.verdicts,
    regions=regions,
    picture=image.section_thumbnail(spots, THUMBNAIL_PX),
    provenance={"study": snakemake.wildcards.study, "seeds": sorted({run["seed"] for run in runs})}
    | ({"caution": caution} if caution else {}),
    draw_here={run: Path(path).read_text() for run, path in zip(snakemake.params.taught, data.draw_here, strict=True)},
    cells=storage.read_h5ad(data.cells, with_x=False) if data.get("cells") else None,
    rim_um=rim_um,
    layer=layers.of_section(spots, found.calls, rim_um, widths_um),
)
export.write(section, paths)
