"""Expand a study file into folds and runs: sections, method, options and seed of each training and scoring."""

from dataclasses import dataclass, field, replace
from functools import cached_property

from ctrflow import methods
from ctrflow.errors import InputError, first_few
from ctrflow.folds.fold import Fold, make_folds, whole_fold
from ctrflow.plan import crops
from ctrflow.plan.given import given_models
from ctrflow.plan.run import Run, Variant, name_together
from ctrflow.plan.sheet import pictured

SIMULATED = "simulated"  # how the note of a simulated section begins
FROM_SIMULATED = "Learned from simulated tissue: this map of real tissue means nothing."
OF_SIMULATED = "Simulated section, scored by what was learned from real tissue: this map means nothing."
CROPS_NOTE = " Labelled targets are scored a second time without their tumour, where every call is wrong."
NEGATIVES_NOTE = "the source sections' spots labelled 0"


@dataclass(frozen=True)
class Study:
    """A checked study: folds by task, variants, runs, inapplicable (task, method) pairs, by task the fold of all its
    training sections, and by target section what its map must warn of."""

    name: str
    tasks: dict[str, dict]
    folds: dict[tuple[str, str], Fold]
    variants: dict[str, Variant]
    runs: list[Run]
    not_applicable: list[dict] = field(default_factory=list)
    whole: dict[str, Fold] = field(default_factory=dict)
    cautions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def named(self, wildcards) -> list[Run]:
        """The runs that wildcards identify: without `seed`, one for each seed; for shared weights, one of those that
        use them; without a fold, the run that learns from all training sections of its task."""
        return self._named[_key(**dict(wildcards.items()))]

    def run(self, wildcards) -> Run:
        """The run that wildcards identify; without `seed` that of the first seed, for what all seeds have in common."""
        return self.named(wildcards)[0]

    @cached_property
    def _named(self) -> dict[tuple, list[Run]]:
        runs = {}
        for run in self.runs:
            whole = replace(run, fold=self.whole.get(run.task["name"], run.fold))
            runs.setdefault(_key(**run.wildcards), [run])
            runs.setdefault(_key(**run.wildcards | {"seed": None}), []).append(run)
            runs.setdefault(_key(**whole.wildcards), [whole])
            if run.shared_weights:
                runs[_key(weights=run.shared_weights, seed=run.seed)] = [run]
        return runs

    @cached_property
    def together(self) -> dict[str, tuple[str, ...]]:
        """Name -> training sections, for every set of sections that a method reading patches learns from."""
        runs = (run for named in self._named.values() for run in named)
        reading = [run for run in runs if "patches" in run.spec.needs and run.learned]
        return {name_together(run.learned): run.learned for run in reading}

    @cached_property
    def targets(self) -> list[str]:
        """All scored sections, each once, in the order of the folds; crops are the last."""
        return list(dict.fromkeys(name for fold in self.folds.values() for name in fold.targets))

    @cached_property
    def crops(self) -> list[str]:
        """The targets that are crops of others."""
        return list(dict.fromkeys(name for fold in self.folds.values() if fold.trained_by for name in fold.targets))

    @cached_property
    def uncropped(self) -> list[str]:
        """The targets that are sections of the sheet."""
        return [name for name in self.targets if name not in self.crops]

    @cached_property
    def used(self) -> set[str]:
        """All sections of the study, training sections included."""
        return {name for run in self.runs for name in run.sections}

    def on(self, section: str) -> list[Run]:
        """The runs that score a section."""
        return [run for run in self.runs if section in run.fold.targets]


def _key(seed=None, weights="", study="", task="", fold="", encoder="", method="", view="") -> tuple:
    return weights, task, fold, encoder, method, None if seed is None else int(seed)


def expand(
    content: dict,
    sheet,
    encoders: dict[str, dict],
    seeds: list[int],
    where: str,
    read_model=None,
    marked=(),
    models: str = "models",
) -> Study:
    """Check a study against the sheet, the registry and the encoders, and expand it.

    Parameters
    ----------
    content : the study file, valid by its schema
    sheet : the section sheet
    encoders : configured encoders, id -> options; `none` (no image) is always valid
    seeds : default, unless the study has its own
    where : the study file's name, for messages
    read_model : path -> metadata of a model file, for tasks with split `pretrained`
    marked : tissues with a list of marker genes
    models : folder of the shipped models
    """
    problems: list[str] = []
    folds, whole, variants, runs, not_applicable = {}, {}, {}, [], []
    seeds = content.get("seeds") or seeds
    labelled = set(sheet.section[sheet.labels != ""])
    unmarked = sheet[~sheet.tissue.str.casefold().isin(list(marked))].set_index("section")["tissue"]
    names = [task["name"] for task in content["tasks"]]
    problems += [f"{where}: two tasks are named `{name}`" for name in sorted({n for n in names if names.count(n) > 1})]
    for task in content["tasks"]:
        here = f"{where}: task {task['name']}"
        try:
            task_folds = make_folds(task, sheet, where)
            if task["split"] == "pretrained":
                given = given_models(task, task_folds, sheet, encoders, models, read_model, here)
                for one in given:
                    folds |= {(task["name"], fold.name): fold for fold in one.folds}
                    problems += _without_image(one.folds, sheet, one.encoder, [one.variant], here)
                    if variants.setdefault(one.variant.name, one.variant) != one.variant:
                        problems.append(f"{here}: `{one.variant.name}` has other options elsewhere in the study")
                    runs += [
                        Run(content["study"], task, fold, one.encoder, one.variant, one.seed) for fold in one.folds
                    ]
                continue
            chosen = _task_variants(task, content, variants, where)
            if task["split"] == "within":
                priors = _priors(task, task_folds, runs, here)
            else:
                priors = {}
                whole[task["name"]] = whole_fold(task, sheet, where)
        except InputError as error:
            problems.append(str(error))
            continue
        folds |= {(task["name"], fold.name): fold for fold in task_folds}
        own = list(dict.fromkeys(run.encoder for found in priors.values() for run in found))
        wanted = task.get("encoders") or own or content["encoders"]
        unknown = [name for name in wanted if name not in (*encoders, "none")]
        problems += [
            f"{here}: unknown encoder `{name}`; valid: {', '.join(sorted([*encoders, 'none']))}" for name in unknown
        ]
        for encoder in [name for name in wanted if name not in unknown]:
            problems += _without_image(task_folds, sheet, encoder, chosen, here)
            for variant in chosen:
                known = labelled, unmarked, _simulated_sections(sheet), bool(priors)
                reason = _why_not(variant, task_folds, encoder, *known)
                if reason:
                    not_applicable.append(
                        {"task": task["name"], "encoder": encoder, "variant": variant.name, "reason": reason}
                    )
                    continue
                runs += [
                    Run(content["study"], task, fold, encoder, variant, seed, priors.get(fold.name, ()))
                    for fold in task_folds
                    for seed in _seeds_of(task, variant, seeds)
                ]
    cautions, wrong = _simulated(runs, sheet, read_model, content.get("allow_simulated", False), where)
    problems += wrong
    cropped, wrong = _cropped(content["tasks"], runs, labelled, where)
    problems += wrong
    folds |= {(run.task["name"], run.fold.name): run.fold for run in cropped}
    made = [name for run in cropped for name in run.fold.targets]
    cautions |= {name: cautions[crops.parent_of(name)] for name in made if crops.parent_of(name) in cautions}
    runs += cropped
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    if not runs:
        reasons = "; ".join(f"{row['variant']} {row['reason']}" for row in not_applicable)
        raise InputError(f"{where}: no method can run on any task: {reasons}")
    tasks = {task["name"]: task for task in content["tasks"]}
    return Study(content["study"], tasks, folds, variants, runs, not_applicable, whole, cautions)


def _priors(task: dict, folds: list[Fold], runs: list[Run], where: str) -> dict[str, tuple[Run, ...]]:
    """Fold -> the runs of an earlier task whose scores those of a task with the split `within` build on: one for each
    seed of one method."""
    if "prior" not in task:
        return {}
    earlier = [run for run in runs if run.task["name"] == task["prior"] and run.spec.regime != "control"]
    of = {fold.name: tuple(run for run in earlier if fold.targets[0] in run.fold.targets) for fold in folds}
    bare = [name for name, found in of.items() if not found]
    if bare:
        raise InputError(f"{where}: prior: no earlier task `{task['prior']}` whose methods score {first_few(bare)}")
    several = sorted({run.variant.name for found in of.values() for run in found if len(_models(found)) > 1})
    if several:
        raise InputError(
            f"{where}: prior: the task `{task['prior']}` has several models ({first_few(several)}); name a task that "
            "has one method and one encoder"
        )
    if any(run.fold.drawn for found in of.values() for run in found):
        raise InputError(
            f"{where}: prior: the task `{task['prior']}` has the split `within` itself; name one that has not"
        )
    return of


def _models(runs: tuple[Run, ...]) -> set[tuple]:
    return {(run.encoder, run.variant.name) for run in runs}


def _cropped(tasks: list[dict], runs: list[Run], labelled: set, where: str) -> tuple[list[Run], list[str]]:
    """The runs on the crops of all tasks, and problems."""
    found, problems = [], []
    for task in tasks:
        own = [run for run in runs if run.task is task]
        try:
            found += crops.crop_runs(task, own, labelled, f"{where}: task {task['name']}") if own else []
        except InputError as error:
            problems.append(str(error))
    return found, problems


def describe(task: str, study: Study) -> str:
    """What a task does: the split, the sections trained on and those scored, and whether their crops are scored too."""
    cropped = any(fold.trained_by for (name, _), fold in study.folds.items() if name == task)
    return _describe_split(task, study) + CROPS_NOTE * cropped


def _describe_split(task: str, study: Study) -> str:
    folds = [fold for (name, _), fold in study.folds.items() if name == task and not fold.trained_by]
    sources = list(dict.fromkeys(name for fold in folds for name in fold.sources))
    targets = list(dict.fromkeys(name for fold in folds for name in fold.targets))
    split = study.tasks[task]["split"]
    if split == "within":
        what = "a share of its labels" if study.tasks[task].get("draw") else "what is drawn in it"
        model = (
            f", on top of the scores of the task {study.tasks[task]['prior']}" if "prior" in study.tasks[task] else ""
        )
        return (
            f"Each of {first_few(targets, 12)} is taught by {what}{model}, and evaluated where nothing is drawn, nor "
            "beside it. Labels of the target itself are used: not to be compared with methods that have none."
        )
    if split == "pretrained":
        scored: dict[str, list[str]] = {}
        for fold in folds:
            scored.setdefault(fold.model, []).extend(fold.targets)
        return " ".join(f"The model {model} scores {first_few(names, 12)}." for model, names in scored.items())
    ranking = _gene_ranking(study.tasks[task])
    normal = _normal_reference(task, folds, study)
    if split == "transfer":
        learned = f"Trained on {first_few(sources, 12)}; each" if sources else "Each"
        return f"{learned} of {first_few(targets, 12)} is scored in turn.{normal}{ranking}"
    left_out = "patient" if split == "leave_one_patient_out" else "section"
    return (
        f"One {left_out} at a time is left out and scored; training uses the other patients' sections among "
        f"{first_few(sources, 12)}.{normal}{ranking}"
    )


def _normal_reference(task: str, folds: list[Fold], study: Study) -> str:
    """A sentence on what one-class methods learn from; "" without such methods."""
    if not any(run.task["name"] == task and run.spec.view == "normal" for run in study.runs):
        return ""
    if folds[0].negatives:
        return f" Methods that know normal tissue alone learn it from {NEGATIVES_NOTE}: no healthy section is named."
    names = list(dict.fromkeys(name for fold in folds for name in fold.normals))
    return f" Methods that know normal tissue alone learn it from {first_few(names, 12)}."


def _gene_ranking(task: dict) -> str:
    """A sentence on how a task ranks its genes; "" for the default."""
    if (task["hvg_input"], task["hvg_scope"]) == ("counts", "all"):
        return ""
    values = "log values" if task["hvg_input"] == "log" else "counts"
    sections = "the first training section alone" if task["hvg_scope"] == "first" else "all training sections"
    return f" Genes are ranked on {values} of {sections}."


def parse_method(entry, where: str) -> Variant:
    """An entry of `methods`: a name, or a mapping of method, options and the id of the variant."""
    entry = {"method": entry} if isinstance(entry, str) else entry
    spec = methods.load(entry["method"]).SPEC
    name = entry.get("id", spec.name)
    if name in methods.VIEWS:
        raise InputError(
            f"{where}: a method cannot have the id `{name}`, which is reserved for a view; choose another id"
        )
    return Variant(name, spec, methods.resolve_options(spec, entry.get("options")))


def _task_variants(task: dict, content: dict, variants: dict, where: str) -> list[Variant]:
    chosen, problems = [], []
    entries = task.get("methods") or content.get("methods")
    if not entries:
        raise InputError(f"{where}: task {task['name']}: no `methods`; list them for the task or for the study")
    for entry in entries:
        try:
            variant = parse_method(entry, where)
        except InputError as error:
            problems.append(f"{where}: {error}")
            continue
        other = variants.setdefault(variant.name, variant)
        if other != variant or variant in chosen:
            problems.append(f"{where}: two methods have the id `{variant.name}`; give one of them another `id`")
        chosen.append(variant)
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    return chosen


def _seeds_of(task: dict, variant: Variant, seeds: list[int]) -> list[int]:
    """The seeds to run: only one for a method that does not depend on it, unless what is drawn does."""
    seeds = task.get("seeds") or seeds
    return seeds if variant.spec.seeded or task.get("draw") else seeds[:1]


def _why_not(
    variant: Variant, folds: list[Fold], encoder: str, labelled: set, unmarked, simulated: set, has_prior: bool
) -> str:
    targets = {name for fold in folds for name in fold.targets}
    return methods.why_not(
        variant.spec,
        variant.options,
        encoder=encoder,
        has_sources=all(fold.sources for fold in folds),
        has_normals=all(fold.normals for fold in folds),
        labelled_targets=targets <= labelled,
        without_markers=sorted(set(unmarked[unmarked.index.isin(targets)])),
        simulated=sorted(targets & simulated),
        drawn=any(fold.drawn for fold in folds),
        has_prior=has_prior,
    )


def _simulated_sections(sheet) -> set[str]:
    return set(sheet.section[sheet.note.str.startswith(SIMULATED)])


def _simulated(runs: list[Run], sheet, read_model, allowed: bool, where: str) -> tuple[dict, list[str]]:
    """Section -> warnings for its map, and problems: simulated tissue teaches nothing about real tissue, nor real
    tissue about simulated."""
    simulated = _simulated_sections(sheet)
    cautions, mixed = {}, {}
    for run in runs:
        for name in run.fold.targets:
            real = name not in simulated
            if run.given_model:
                unlike = [run.given_model] if read_model(run.given_model)["simulated"] == real else []
            else:
                unlike = [other for other in run.learned if (other in simulated) == real]
            if unlike:
                mixed.setdefault((run.task["name"], first_few(unlike, 3), real), []).append(name)
                cautions[name] = (FROM_SIMULATED if real else OF_SIMULATED,)
    if allowed:
        return cautions, []
    return {}, [
        f"{where}: task {task}: {source} {'is' if real else 'is not'} simulated, {first_few(dict.fromkeys(names))} "
        f"{'is not' if real else 'is'}: such a map means nothing. Name sections (`source`, `normal`) or a model of the "
        "same kind, or set `allow_simulated: true` in the study"
        for (task, source, real), names in mixed.items()
    ]


def _without_image(folds: list[Fold], sheet, encoder: str, variants: list[Variant], where: str) -> list[str]:
    """Sections without a picture, where one is needed: targets, and sections that a method learns from."""
    if encoder == "none":
        return []
    with_image = set(pictured(sheet))
    needing = {name for fold in folds for name in fold.targets}
    learned = {name for fold in folds for name in (*fold.sources, *fold.normals)}
    reading = [one for one in variants if "image" in methods.modalities_of(one.spec, one.options)]
    in_part = reading and all(methods.reads_missing(one.spec, one.options) for one in reading)
    if not in_part or not learned & with_image:
        needing |= learned
    bare = [name for name in sheet.section if name in needing - with_image]
    if not bare:
        return []
    return [
        f"{where}: encoder `{encoder}` reads the image, but these sections have none: {first_few(bare)}; "
        "fill the column image, or use the encoder `none`"
    ]
