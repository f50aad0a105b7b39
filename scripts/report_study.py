"""Write the report of a study: one page with all results."""

from pathlib import Path

import pandas as pd

from ctrflow import figures, image, logs, machine, report, storage
from ctrflow.results import benchmark, cost_tables, metrics, scores, seeds
from ctrflow.sections import check
from ctrflow.training import model_file

FACTS = ["spots", "genes", "median_counts", "median_genes", "empty_share"]  # of check.json

logger = logs.setup(snakemake.log[0])
params = snakemake.params
tables = {path: storage.read_tsv(path) for path in snakemake.input.calls}
evidence = {path: storage.read_json(path) for path in snakemake.input.evidence}
spots = {Path(path).parent.name: path for path in snakemake.input.spots}
labels = {Path(path).parent.name: storage.read_tsv(path) for path in snakemake.input.labels}
sheet = pd.DataFrame(params.sheet).set_index("section", drop=False)
checks = {Path(path).parent.name: storage.read_json(path) for path in snakemake.input.checks}
concerns = {name: check.concerns(result) for name, result in checks.items()}
for fact in FACTS:
    sheet[fact] = [checks[name].get(fact) for name in sheet.index]
sheet["check"] = ["; ".join(concerns[name]) or "ok" for name in sheet.index]

given = {}
for line, path in zip(params.given, snakemake.input.given, strict=True):
    facts = storage.read_h5ad(path, with_x=False).uns["model"]
    given.setdefault(line["task"], []).append(facts)

sections = []
for target in params.targets:
    name, runs = target["section"], target["runs"]
    data = storage.read_h5ad(spots[name], with_x=False)
    scored = [tables[line["calls"]] for line in runs]
    found = seeds.on_section(runs, scored, [evidence[line["evidence"]] for line in runs], data)
    own = [table[table["section"] == name] for table in scored]
    known = labels[name].label.to_numpy(dtype=float) if name in labels else None
    taught = known is not None and any("near" in table for table in own)
    thumbnail, scale = image.section_thumbnail(data, report.PICTURE_PX)
    facts = data.uns["section"]
    sections.append(
        target
        | {key: sheet.loc[name, key] for key in ("patient", "cohort", "platform", "note")}
        | {"spatial_px": data.obsm["spatial"], "um_per_px": facts["um_per_px"], "spot_um": facts["spot_um"]}
        | {"thumbnail": thumbnail, "thumbnail_scale": scale}
        | {"concerns": concerns[name]}
        | {"labels": known, "judged": scores.judged(known, labels[name].spot, own) if taught else None}
        | {"spots": list(data.obs_names)}
        | {"regions": labels[name].region.tolist() if name in labels else None}
        | {"runs": found.of_runs()}
    )

made = {Path(path).stem: path for path in snakemake.input.tables}
content = {
    "study": params.study["title"] or params.study["study"],
    "note": params.study["note"],
    "simulated": bool(sheet.note[[line["section"] for line in params.targets]].str.startswith("simulated").any()),
    "cautions": params.cautions,
    "metrics": storage.read_tsv(snakemake.input.metrics),
    "benchmark": benchmark.read_tables(Path(made["methods"]).parent),
    "published": storage.read_tsv(made["published"]),
    "within": storage.read_tsv(snakemake.input.within) if snakemake.input.within else None,
    "efficiency": storage.read_tsv(made["efficiency"]),
    "figures": [
        line | {"picture": (Path(snakemake.input.figures) / line["file"]).read_bytes() if line["file"] else None}
        for line in figures.index(snakemake.input.figures)
    ],
    "reliability": metrics.reliability_table(params.runs, [tables[path] for path in snakemake.input.calls], labels),
    "methods": params.methods,
    "tasks": params.tasks
    | {task: f"{params.tasks[task]} {model_file.sentences(facts)}" for task, facts in given.items()},
    "given": sorted(given),
    "sections": sections,
    "not_applicable": pd.DataFrame(params.not_applicable, columns=["task", "encoder", "variant", "reason"]),
    "thresholds": seeds.threshold_table(params.runs, [storage.read_json(path) for path in snakemake.input.thresholds]),
    "losses": seeds.loss_table(params.trained, [storage.read_tsv(path) for path in snakemake.input.losses]),
    "sheet": sheet[["section", "cohort", "patient", "platform", *FACTS, "note", "check"]],
    "seeds": sorted({line["seed"] for line in params.runs}),
    "versions": machine.installed(),
    "config": params.settings,
    "costs": cost_tables.cost_table(params.benchmarks),
}
report.write_report(content, snakemake.output.report)
logger.info("wrote %s", snakemake.output.report)
