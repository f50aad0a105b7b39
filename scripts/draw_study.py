"""Draw the figures of a study, those of the papers and what lies around the tumours, with their numbers."""

from pathlib import Path

from ctrflow import figures, image, logs, storage
from ctrflow.features import markers
from ctrflow.figures import around, discordant, sections, settings

logger = logs.setup(snakemake.log[0])
targets = snakemake.params.targets
tables = {path: storage.read_tsv(path) for path in snakemake.input.calls}
evidence = {path: storage.read_json(path) for path in snakemake.input.evidence}
labels = {Path(path).parent.name: storage.read_tsv(path) for path in snakemake.input.labels}
words = sections.read_severity(snakemake.input.words)
layer_genes = storage.read_tsv(snakemake.input.layer_genes).astype({"gene": str})  # some are named by numbers
leading = around.leading(layer_genes)
genes = discordant.genes(gene for path in snakemake.input.markers for gene in markers.read_markers(path)["gene"])

scored = {}
for path in snakemake.input.spots:
    spots, name = storage.read_h5ad(path), Path(path).parent.name
    thumbnail, scale = image.section_thumbnail(spots, 600)
    facts = sections.section(spots, genes, words, labels.get(name), snakemake.params.patients[name], thumbnail, scale)
    facts |= {"leading": sections.expression(spots, leading), "widths_um": snakemake.params.widths_um}
    for target in targets:
        if target["section"] == name:
            own = [tables[line["calls"]] for line in target["runs"]]
            known = [evidence[line["evidence"]] for line in target["runs"]]
            of = scored.setdefault((target["task"], target["encoder"]), [])
            of.append(sections.scored(facts, target["runs"], own, known, spots))

metrics = storage.read_tsv(snakemake.input.metrics)
drawn = [settings.setting(*key, of, metrics, genes) for key, of in scored.items()]
drawn = [one | {"around": around.around(one, layer_genes)} for one in drawn]
figures.draw_study(drawn, snakemake.output.figures)
logger.info("wrote %s", snakemake.output.figures)
