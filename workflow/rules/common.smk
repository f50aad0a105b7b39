# What all rules share: the plan (read and checked once), the values of the wildcards, and what only Snakemake asks for
# (memory, GPUs, groups, code digests). What a study will do is planned in scripts/ctrflow/plan, without Snakemake.
import gc
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# not `workflow.basedir`: of a module that is the folder of the workflow that uses it
ROOT = Path(str(workflow.current_basedir)).parents[1]
SCRIPTS = ROOT / "scripts"
if not (SCRIPTS / "ctrflow").is_dir():
    raise WorkflowError(
        f"{ROOT}: scripts/ctrflow is not there; give `snakefile` the path of a clone of ctrflow, complete and on a disk"
    )
if set("{}") & set(str(ROOT)):
    raise WorkflowError(
        f"{ROOT}: Snakemake cannot run steps from a path with braces; move ctrflow to a path without {{ and }}"
    )
sys.path[:0] = [str(SCRIPTS), str(ROOT / "workflow")]

# Snakemake puts this path into the commands of steps as it is (its issues 2645 and 3211); quoted, it may have spaces
if Path(sys.executable).exists():
    sys.executable = shlex.quote(sys.executable)

# the graph of jobs lives until the end; collecting garbage every 700 objects takes a tenth of a dry run
gc.set_threshold(100_000, 50, 100)

from ctrflow import digests, encoders, export, methods, schema
from ctrflow.errors import InputError
from ctrflow.plan import crops, downloads, load, one_section, paths
from ctrflow.plan import preflight, resources, sections, seeds, shipped, tables
from ctrflow.plan.paths import EMBEDDING, PATCHES, SECTION, SUPERPIXELS
from ctrflow.plan.paths import MODEL, MODELS, PRETRAINED, RUN, SOURCE, VIEW
from ctrflow.plan.paths import EXPORT, FIGURES, MAP, METRICS, REPORT, TABLES

CONFIG = "config/config.yaml"
DOCTOR_PAGE, DOCTOR_LOG = "logs/doctor.txt", "logs/doctor.log"
MODULE = workflow.modifier
# another workflow that uses this one (docs/module.md) has its own screen, default target and config/config.yaml
IN_MODULE = not MODULE.is_main_snakefile()
HAS_CONFIG = Path(CONFIG).is_file() and not MODULE.skip_configfile
# the doctor reports missing files itself, so they must not stop it
DOCTOR = MODULE.avail_rulename("doctor") in sys.argv[1:]
TYPED = workflow.config_settings.config_args
if (
    MODULE.skip_configfile
    and config is not workflow.modifier_stack[0].globals["config"]
):
    TYPED = ()  # the command line is about a configuration of which the module is given a part, or nothing

if any(
    MODULE.path_modifier.replace_prefix(path) != path
    for path in (REPORT, paths.DEMO, CONFIG, DOCTOR_LOG)
):
    raise WorkflowError(
        f"module {MODULE.namespace}: ctrflow's steps hand each other paths, so they stay as they are: leave out "
        "`prefix` and `replace_prefix`"
    )

# before anything can fail: no page of an earlier run
if DOCTOR and workflow.is_main_process and not workflow.output_settings.dryrun:
    if closed := preflight.unwritable([".snakemake", "logs"]):
        raise WorkflowError("\n".join(closed))
    preflight.remove(DOCTOR_PAGE, DOCTOR_LOG)

if HAS_CONFIG:
    try:
        # read here first: Snakemake's own message names neither file nor row
        schema.read_yaml(CONFIG)
    except InputError as error:
        raise WorkflowError(str(error)) from None

    configfile: CONFIG


try:
    GIVEN = config
    if not HAS_CONFIG:
        typed = workflow.config_settings.overwrite_config
        GIVEN = load.completed(
            config if MODULE.skip_configfile else typed, module=IN_MODULE
        )
    PLAN = load.load(
        dict(GIVEN),
        (
            f"`config` of the module {MODULE.namespace}"
            if MODULE.skip_configfile
            else ", ".join(map(str, workflow.configfiles)) or "configuration"
        ),
        ROOT / "workflow" / "schemas",
        written=workflow.is_main_process
        and [
            ".snakemake",
            *(() if workflow.dryrun else ("results", "logs", "benchmarks")),
        ],
        typed=TYPED,
    )
    # not in the rule: Snakemake shows an error of an input function with a traceback
    if MODULE.avail_rulename("map") in sys.argv[1:] and not PLAN.mapped:
        raise InputError(one_section.NEEDED)
    if PLAN.problems and not DOCTOR:
        raise InputError("\n".join(PLAN.problems))
except InputError as error:
    raise WorkflowError(str(error)) from None

STUDY, SETTINGS, THREADS = PLAN.study, PLAN.settings, PLAN.settings["threads"]
RUNS, TARGETS = STUDY.runs, STUDY.targets
# crops are targets that the workflow makes itself, without their tumour, see ctrflow.plan.crops
CROPS, UNCROPPED = STUDY.crops, STUDY.uncropped
OF_CELLS = PLAN.of_cells
DOWNLOADS, MEMBERS = downloads.downloads(PLAN), downloads.members(PLAN)
# the screen names a step without the wildcards that have one value in the whole run
VALUES = {
    "study": {STUDY.name},
    "task": STUDY.tasks,
    "encoder": {run.encoder for run in RUNS},
}
if not IN_MODULE:
    import screen

    screen.install(
        logger, workflow, [name for name, values in VALUES.items() if len(values) == 1]
    )


def one_of(names):
    """A wildcard constraint: one of these ids, which are folder or file names."""
    return "|".join(map(re.escape, sorted(set(names)))) or "(?!)"


wildcard_constraints:
    study=one_of([STUDY.name]),
    section=one_of(PLAN.sheet.index),
    task=one_of(STUDY.tasks),
    fold=one_of(fold for _, fold in STUDY.folds),
    encoder=one_of([*SETTINGS["encoders"], "none"]),
    method=one_of(STUDY.variants),
    view=one_of(methods.VIEWS),
    weights=one_of(filter(None, (run.shared_weights for run in RUNS))),
    together=one_of(STUDY.together),
    um=r"[\d.]+",
    px=r"\d+",
    seed=r"\d+",


def runs_of(wildcards):
    """The runs of a job: one, or all seeds of a method on a fold (see Study.named)."""
    return STUDY.named(wildcards)


def run_of(wildcards):
    """The run of a job; of several seeds the first, for what they have in common."""
    return STUDY.run(wildcards)


def fold_of(wildcards):
    """The fold of a job; without the wildcard `fold`, all that the task can train on."""
    if not hasattr(wildcards, "fold"):
        return STUDY.whole[wildcards.task]
    return STUDY.folds[wildcards.task, wildcards.fold]


def pictured_of(wildcards):
    """The sections in the training table of a fold that have a picture."""
    return PLAN.pictured(fold_of(wildcards).learned(wildcards.view))


def encoder_of(wildcards):
    """The options of an encoder."""
    return SETTINGS["encoders"][wildcards.encoder]


def parent_of(wildcards):
    """The section that a crop is of."""
    return crops.parent_of(wildcards.section)


def image_of(wildcards):
    """The image of a section."""
    return sections.image(PLAN, wildcards.section)


@cache  # asked once a job
def code(step, *modules):
    """A digest of the library code that a script imports, and of modules it loads by name: an edit re-runs the step."""
    return digests.of_code(SCRIPTS / f"{step}.py", *modules)


def memory(mb):
    """Memory for a job; more at each retry."""
    return lambda wildcards, attempt: mb * attempt


def run_memory(wildcards, input, attempt):
    """Memory for a training or scoring, by the size of its inputs; more at each retry."""
    listed = input.get("patches", "")
    return (
        resources.run_mb(
            run_of(wildcards), input[0], listed if isinstance(listed, str) else ""
        )
        * attempt
    )


def fold_memory(wildcards, input, attempt):
    """Memory for the tables of a fold; more at each retry."""
    return resources.fold_mb(input) * attempt


def run_gpu(wildcards):
    """Whether a job of a method asks for a GPU."""
    return resources.gpus(PLAN, run_of(wildcards).spec.gpu)


def encoder_gpu(wildcards):
    """Whether an embedding asks for a GPU."""
    return resources.gpus(PLAN, resources.is_network(PLAN, wildcards.encoder))


def as_gpu(wants):
    """A rule's `gpu`, for schedulers that count GPUs (gpu_request: gpu)."""
    return lambda wildcards: int(SETTINGS["gpu_request"] == "gpu" and wants(wildcards))


def as_gres(wants):
    """A rule's `gres`, for a SLURM that has GPUs as generic resources only (gpu_request: gres)."""
    return lambda wildcards: (
        "gpu:1" if SETTINGS["gpu_request"] == "gres" and wants(wildcards) else ""
    )


def one_job(name):
    """A rule's `group`: jobs of the same group name are submitted to a cluster as one.

    None on a dry run, where nothing is submitted: checking groups takes Snakemake as long as all other planning.
    """
    return lambda wildcards: None if workflow.dryrun else name.format(**wildcards)


SECTION_JOB = one_job(resources.SECTION_JOB)
STUDY_JOB, EXPORT_JOB = one_job("study"), one_job("export")
FOLD_JOB = one_job(resources.FOLD_JOB)


def fold_job(wildcards):
    """The group of a fold, for all its short steps; none for jobs without a fold."""
    return FOLD_JOB(wildcards) if hasattr(wildcards, "fold") else None


def train_job(wildcards):
    """A training joins the group of the fold where it is short."""
    if workflow.dryrun:
        return None
    return resources.train_group(run_of(wildcards), run_gpu(wildcards)) or None


def score_job(wildcards):
    """A scoring joins the group of the fold, or that of the scorings after long trainings."""
    if workflow.dryrun:
        return None
    return resources.score_group(run_of(wildcards), run_gpu(wildcards)) or None


def embed_job(wildcards):
    """An embedding joins the group of its section where it needs no GPU."""
    return None if encoder_gpu(wildcards) else SECTION_JOB(wildcards)


def exported(*needs):
    """The output of a rule: all export formats with these needs (see ctrflow.export)."""
    return {
        name: directory(path) if export.load(name).EXPORT.folder else path
        for name, path in tables.export_patterns(*needs).items()
    }


def models_to_export(wildcards):
    """The model files of the target `model`."""
    try:
        return tables.exported_models(PLAN)
    except InputError as error:
        raise WorkflowError(str(error)) from None


def require_cluster_path():
    """Refuse folders whose names do not survive the commands that submit jobs to a cluster; spaces and brackets do."""
    folders = dict.fromkeys((ROOT, Path.cwd(), Path(sys.prefix)))
    odd = [str(folder) for folder in folders if set("'\"$`\\") & set(str(folder))]
    if odd and not workflow.local_exec:
        raise WorkflowError(
            f"{', '.join(odd)}: no jobs can be submitted from a path with quotes, $ or \\; move the folder"
        )


def where_results_are():
    """Where the results are, printed at the end of a run."""
    one_map, maps = {"map": MAP}, {"maps": FIGURES}
    places = {
        "report": REPORT,
        **(one_map if PLAN.mapped else maps),
        "tables and regions": EXPORT,
        "models for new sections": MODELS,
    }
    paths_of = {
        what: path.format(study=STUDY.name, section=PLAN.mapped)
        for what, path in places.items()
    }
    made = [
        f"{what} in {path}" for what, path in paths_of.items() if Path(path).exists()
    ]
    return "\nctrflow: " + ("; ".join(made) or "nothing to show yet")


def what_to_do(logs):
    """The cure for clock skew, an error that Snakemake reports without one."""
    texts = [Path(log).read_text(encoding="utf-8", errors="replace") for log in logs]
    if not any("clock skew" in text for text in texts):
        return ""
    return f"\nctrflow: files are dated in the future. Correct the clock. If it is correct now, {preflight.REBUILD}"


def doctor_page():
    """The doctor's page, printed last; of its own run, since that of an earlier one has been removed."""
    if not DOCTOR:
        return ""
    if Path(DOCTOR_PAGE).is_file():
        return Path(DOCTOR_PAGE).read_text(encoding="utf-8")
    log = Path(DOCTOR_LOG)
    said = f"see {log}" if log.is_file() and log.stat().st_size else "see above"
    return f"\nctrflow: the doctor's job ended without a page: {said}"
