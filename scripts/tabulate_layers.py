"""Tabulate what lies around the called tumours of a study: layers, their genes, and cell types in them."""

from collections import Counter
from pathlib import Path

import pandas as pd

from ctrflow import logs, storage
from ctrflow.export.regions import section_regions
from ctrflow.features import gene_names, markers
from ctrflow.results import seeds
from ctrflow.rim import cells, distance, genes, layers

RUN = ["task", "encoder", "variant"]

logger = logs.setup(snakemake.log[0])
inputs, params = snakemake.input, snakemake.params
calls = {path: storage.read_tsv(path) for path in inputs.calls}
evidence = {path: storage.read_json(path) for path in inputs.evidence}
types, names = markers.read_markers(inputs.cell_types, sets=()), gene_names.read(inputs.genes)
scored_on = Counter(
    run for of in params.targets for run in {(of["task"], of["encoder"], one["run"]) for one in of["runs"]}
)


def of_run(run: tuple, table):
    """A table with the columns that name its run."""
    return table.assign(**dict(zip(RUN, run, strict=True)))[[*RUN, *table]]


found, in_cells, bulks, tested = [], [], {}, {}
for path in inputs.spots:
    spots, section = storage.read_h5ad(path), Path(path).parent.name
    called = {}
    for of in (of for of in params.targets if of["section"] == section):
        own, known = [calls[run["calls"]] for run in of["runs"]], [evidence[run["evidence"]] for run in of["runs"]]
        called[of["task"], of["encoder"]] = seeds.on_section(of["runs"], own, known, spots).calls
    called, patient = pd.concat(called, axis=1), params.patients[section]
    rim_um = distance.of_section(spots, called, section_regions(spots, called))
    layer = layers.of_section(spots, called, rim_um, params.widths_um)
    table = layers.table(spots, layer).assign(patient=patient)
    found += [of_run(run, table[table["run"] == run].drop(columns="run")) for run in layer]
    scores = cells.scores(gene_names.translated(spots, section, list(types["gene"]), names), types)
    for run in layer:
        in_cells.append(of_run(run, cells.table(section, layer[run], scores).assign(patient=patient)))
        if layer[run].isin(layers.LAYERS).any():
            bulks.setdefault(run, []).append(genes.bulk(spots, layer[run], patient))
            if scored_on[run] == 1:
                tested[run] = genes.of_spots(spots, layer[run])
    logger.info("section %s: %d runs", section, layer.shape[1])

differing = [of_run(run, genes.differing(of, tested.get(run), params.reads_genes[run[2]])) for run, of in bulks.items()]
tables = {
    "layers": (found, [*layers.COLUMNS, "patient"]),
    "genes": (differing, genes.COLUMNS),
    "cells": (in_cells, [*cells.COLUMNS, "patient"]),
}
for name, (parts, columns) in tables.items():
    # pandas warns of joining empty tables: those of runs that call nothing
    parts = [pd.DataFrame(columns=[*RUN, *columns]), *(part for part in parts if len(part))]
    storage.write_tsv(pd.concat(parts[1:] or parts), snakemake.output[name])
