"""The plan as plain rows: the parameters of the steps that use a whole study."""

import json

from ctrflow import export, readers
from ctrflow.errors import InputError
from ctrflow.features.markers import SETS
from ctrflow.methods import modalities_of
from ctrflow.plan import paths, resources, sections, seeds
from ctrflow.plan.load import Plan
from ctrflow.plan.run import Run
from ctrflow.plan.study import describe
from ctrflow.results import published

INGEST = ("ingest_section", "ingest_cells", "label_section", "check_section")
CALLED_AT_ONCE = 100  # with all runs in one job, planning time grows with their square (docs/scale.md)


def files(name: str, runs) -> list[str]:
    """One file of each run."""
    return [run.file(name) for run in runs]


def batches(runs) -> dict[str, list[Run]]:
    """Rule -> the runs whose spots one job calls, in their order, so that runs of one method and task stay together."""
    starts = range(0, len(runs), CALLED_AT_ONCE)
    return {f"call_spots_{n}": runs[start : start + CALLED_AT_ONCE] for n, start in enumerate(starts, 1)}


def trained(plan: Plan) -> list[Run]:
    """The runs with a training of their own."""
    return [run for run in plan.study.runs if run.trains]


def given(plan: Plan) -> list[Run]:
    """The runs that score with a given model (split `pretrained`)."""
    return [run for run in plan.study.runs if run.given_model]


def prior_threshold(run: Run) -> str:
    """The kind of threshold of the scores that a run builds on; "" without them."""
    return run.prior[0].spec.threshold if run.prior else ""


def seeds_of(plan: Plan, task: str) -> list[int]:
    """The seeds of a task's runs, each once."""
    return list(dict.fromkeys(run.seed for run in plan.study.runs if run.task["name"] == task))


def taught(plan: Plan) -> list[Run]:
    """The runs that learn from what a person drew in their target."""
    return [run for run in plan.study.runs if run.view == "drawn" and not run.task.get("draw")]


def draw_here(plan: Plan, section: str) -> dict[str, str]:
    """Run, as on the maps -> the file of regions in which to draw next, of the runs that learn from a drawing in it."""
    runs = shown(plan.study.on(section))
    names = [line["run"] for line in on_section(plan, section)]
    own = taught(plan)
    found = {name: run.file("draw_here.geojson") for name, run in zip(names, runs, strict=True) if run in own}
    return dict(sorted(found.items()))


def uncropped(runs) -> list[Run]:
    """The runs on sections of the sheet, without those on crops of them."""
    return [run for run in runs if not run.fold.trained_by]


def shown(runs) -> list[Run]:
    """The runs shown in maps, exports and the report: methods, or controls if there is nothing else."""
    return [run for run in runs if run.spec.regime != "control"] or list(runs)


def rows(runs) -> list[dict]:
    """Runs as plain rows."""
    return [
        {
            "task": run.task["name"],
            "fold": run.fold.name,
            "encoder": run.encoder,
            "variant": run.variant.name,
            "method": run.spec.name,
            "regime": run.spec.regime,
            "reference": run.reference,
            "threshold": run.spec.threshold,
            "seed": run.seed,
        }
        for run in runs
    ]


def on_section(plan: Plan, section: str) -> list[dict]:
    """The shown runs on a section as plain rows; `run` names the column that its seeds share."""
    lines = rows(shown(plan.study.on(section)))
    alone = len({(line["task"], line["encoder"]) for line in lines}) == 1
    name = "{variant}" if alone else "{task}.{encoder}.{variant}"
    return [line | {"run": name.format(**line)} for line in lines]


def of_runs_on(plan: Plan, section: str, name: str) -> list[str]:
    """A file of every shown run on a section, such as calls.tsv."""
    return files(name, shown(plan.study.on(section)))


def costs(plan: Plan) -> list[dict]:
    """The runs as plain rows, each with its cost files, "" for steps that it does not have; without those on crops."""
    lines, runs = [], uncropped(plan.study.runs)
    for line, run in zip(rows(runs), runs, strict=True):
        embeddings = paths.embeddings(run.encoder, run.fold.targets)
        lines.append(
            line
            | {
                "infer": run.file("infer_cost.json"),
                "train": run.file("train_cost.json") if run.trains else "",
                "pretrain": run.weights(".cost.json") or "",
                "embedding": next(iter(embeddings), ""),
                "embed": [paths.benchmark("embed_section", path) for path in embeddings],
            }
        )
    return lines


def once(lines: list[dict], *columns: str) -> list:
    """The distinct non-empty values of columns."""
    return [value for value in dict.fromkeys(line[name] for line in lines for name in columns) if value]


def targets(plan: Plan) -> list[dict]:
    """Task, encoder and target section of everything that is scored, but crops, with the shown runs."""
    found: dict[tuple, list[Run]] = {}
    for run in uncropped(plan.study.runs):
        for section in run.fold.targets:
            found.setdefault((run.task["name"], run.encoder, section), []).append(run)
    return [
        {
            "task": task,
            "encoder": encoder,
            "section": section,
            "runs": [
                line | {"run": line["variant"], "calls": run.file("calls.tsv"), "evidence": run.file("evidence.json")}
                for line, run in zip(rows(shown(runs)), shown(runs), strict=True)
            ],
        }
        for (task, encoder, section), runs in found.items()
    ]


def scored(runs) -> list[str]:
    """The target sections of runs, each once."""
    return list(dict.fromkeys(name for run in runs for name in run.fold.targets))


def platforms(plan: Plan, sections) -> dict[str, str]:
    """Section -> platform, "" for a general file format: its technology is not known."""
    technologies = {name for name, platform in readers.platforms().items() if platform.in_stores}
    of = {name: plan.row(name)["platform"] for name in sections}
    return {name: platform if platform in technologies else "" for name, platform in of.items()}


def patients(plan: Plan) -> dict[str, str]:
    """Target section -> patient."""
    return {name: plan.row(name)["patient"] for name in plan.study.targets}


def images(plan: Plan) -> list[str]:
    """The images of all target sections."""
    return [path for name in plan.study.uncropped for path in sections.image(plan, name)]


def methods(plan: Plan) -> dict[str, dict]:
    """Variant -> regime, reference and options."""
    return {
        name: {"regime": one.spec.regime, "reference": one.spec.reference, "options": one.options}
        for name, one in plan.study.variants.items()
    }


def read_genes(plan: Plan) -> dict[str, bool]:
    """Variant -> whether it reads expression."""
    return {name: "gene" in modalities_of(one.spec, one.options) for name, one in plan.study.variants.items()}


def settings(plan: Plan) -> dict:
    """The settings that the report shows."""
    options = {name: one.options for name, one in plan.study.variants.items() if one.options}
    own = {key: plan.settings[key] for key in ("n_genes", "threads")}
    return own | {"encoders": plan.encoders, "methods": options}


def tasks(plan: Plan) -> dict[str, str]:
    """Task -> one sentence on its training and target sections."""
    return {name: describe(name, plan.study) for name in plan.study.tasks}


def compared(plan: Plan) -> dict:
    """What decides which published numbers the study can be compared with."""
    return published.plan(plan.study, plan.sheet, plan.encoders, plan.settings["n_genes"])


def benchmarks(plan: Plan) -> list[dict]:
    """Rule, variant and benchmark file of every measured job of the study."""
    name, runs, used = plan.study.name, plan.study.runs, plan.used
    lines = [("ingest", "", f"benchmarks/{step}/{section}.tsv") for step in INGEST for section in used]
    lines += [
        ("embed_section", encoder, f"benchmarks/embed_section/{encoder}/{section}.tsv")
        for encoder in plan.encoders
        for section in used
    ]
    crops = plan.study.crops
    lines += [("crop_section", "", f"benchmarks/crop_section/{name}.tsv") for name in crops]
    lines += [
        ("crop_embedding", encoder, f"benchmarks/crop_embedding/{encoder}/{name}.tsv")
        for encoder in plan.encoders
        for name in crops
    ]
    cut = dict.fromkeys(path for run in runs for path in run.patches(run.sections))
    lines += [("cut_patches", "", paths.benchmark("cut_patches", path)) for path in cut]
    shared = {(run.shared_weights, run.seed): run.variant.name for run in runs if run.shared_weights}
    lines += [
        ("pretrain_method", variant, f"benchmarks/{name}/pretrain_method/{weights}/seed{seed}.tsv")
        for (weights, seed), variant in shared.items()
    ]
    for step, short in (("train_method", resources.trains_fast), ("infer_scores", resources.scores_fast)):
        lines += [(step, variant, path) for path, variant in seeds.benchmarks(step, runs, short).items()]
    return [dict(zip(("rule", "variant", "path"), line, strict=True)) for line in lines]


def maps(plan: Plan) -> list[str]:
    """The map of every target section, crops included."""
    return [paths.MAP.format(study=plan.study.name, section=name) for name in plan.study.targets]


def export_patterns(*needs: str) -> dict[str, str]:
    """Format -> its path, with the wildcards `study` and `section`, of the formats with exactly these needs."""
    return {name: f"{paths.EXPORT}/{{section}}/{spec.path}" for name, spec in export.formats(*needs).items()}


def export_modules(*needs: str) -> list[str]:
    """The modules of these formats, for `digests.of_code`, because they are loaded by name."""
    return [f"export.{name}" for name in export.formats(*needs)]


def exports(plan: Plan) -> list[str]:
    """The exported files of every target but crops; folders not named after it are outputs of the same job."""
    of_spots, of_cells, with_cells = export_patterns(), export_patterns("cells"), plan.of_cells
    found = []
    for section in plan.study.uncropped:
        patterns = of_spots | (of_cells if section in with_cells else {})
        found += [
            pattern.format(study=plan.study.name, section=section)
            for pattern in patterns.values()
            if "{section}." in pattern
        ]
    return [*found, f"{paths.EXPORT}/summary.tsv".format(study=plan.study.name)]


def exported_models(plan: Plan) -> list[str]:
    """The model file of each task, encoder, method and seed that trains.

    Raises
    ------
    InputError
        if nothing in the study trains.
    """
    found = list(dict.fromkeys(run.exported for run in trained(plan) if not run.fold.drawn))
    if not found:
        raise InputError(f"study {plan.study.name}: none of its methods trains a model, so there is nothing to export")
    return found


def _distinct(items) -> list:
    """Plain items that may not be hashable, each once, in their order."""
    return list({json.dumps(item): item for item in items}.values())


def _given_models(plan: Plan) -> dict[str, list]:
    """The given models that score each section, each once, with what else `doctor.check_model` takes."""
    found: dict[str, list] = {}
    for run in uncropped(given(plan)):
        share = plan.study.tasks[run.task["name"]].get("min_gene_share")
        for name in run.fold.targets:
            found.setdefault(name, []).append([run.given_model, share, sections.gene_table(True)])
    return {name: _distinct(models) for name, models in found.items()}


def doctor(plan: Plan, lock: str) -> dict:
    """The inputs of the doctor, who looks at no crop: it is not made yet, and its section is looked at."""
    used = [name for name in plan.used if name not in plan.study.crops]
    seen = {name: set() for name in used}
    pictured = set(plan.pictured(used))
    for run in uncropped(plan.study.runs):
        for name in pictured.union(run.fold.targets).intersection(run.sections):
            seen[name] |= {run.encoder} - {"none"}
    lines = [plan.row(name) for name in used]
    runs = uncropped(plan.study.runs)
    return {
        "study": plan.study.name,
        "problems": plan.problems,
        "rows": [line for line in lines if not line["path"].startswith(f"{paths.DEMO}/")],
        "public": dict(plan.sources.url),
        "encoders": {name: options for name, options in plan.encoders.items() if name != "none"},
        "seen_by": {name: sorted(names) for name, names in seen.items()},
        "given": _given_models(plan),
        "compared": _distinct(
            {
                "task": run.task["name"],
                "learned": run.learned,
                "labelled": [name for name in run.fold.labelled(run.view) if plan.row(name)["labels"]],
                "targets": run.fold.targets,
            }
            for run in runs
            if not (run.given_model or run.fold.drawn)
        ),
        "markers": _distinct(
            [name, str(path), run.options.get("sets", SETS)]
            for run in runs
            for name, path in zip(
                run.scored_with("markers"), sections.marker_lists(plan, run.scored_with("markers")), strict=True
            )
        ),
        "positions": _distinct(name for run in runs for name in run.scored_with("positions")),
        "genes": sections.gene_table(True),
        "device": plan.settings["device"],
        "label_words": plan.settings["label_words"],
        "folds": len(plan.study.folds),
        "methods": {name: {"gpu": one.spec.gpu} for name, one in plan.study.variants.items()},
        "folder": "results",
        "lock": lock,
    }
