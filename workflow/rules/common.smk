# What the rules share: the checked configuration, sheet and study, and the functions that name their files.
# All functions of the workflow stand here.
import gc
import hashlib
import os
import re
import shutil
import sys
import time
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

# a large graph of jobs lives until the end: to look for garbage in it every 700 objects takes a tenth of a dry run
gc.set_threshold(100_000, 50, 100)

from ctrflow import digests, encoders, markers, methods, model_file, readers
from ctrflow import published, room, schema, sheet, sources, study
from ctrflow.errors import InputError
from ctrflow.storage import read_safetensors_metadata

DEMO = "data/demo"
PUBLISHED = "config/published.tsv"
PUBLISHED_NAMES = "config/published_names.yaml"
MARKERS = "config/markers"
SEVERITY_WORDS = "config/severity_words.tsv"
SCHEMAS = Path(workflow.basedir) / "workflow" / "schemas"
CONFIG = "config/config.yaml"
WRITTEN = ("results", "logs", "benchmarks")
LEAST_FREE_BYTES = (
    1_000_000  # for Snakemake's own records; a job tells itself when the disk fills up
)
DOCTOR_PAGE = "logs/doctor.txt"
# a missing file is what the doctor looks for, and no reason to stop before it does
DOCTOR = "doctor" in sys.argv[1:]

try:
    # before Snakemake reads it, whose message names neither the file nor the row
    if Path(CONFIG).is_file():
        schema.read_yaml(CONFIG)
except InputError as error:
    raise WorkflowError(str(error)) from None


configfile: CONFIG


def study_path(name, where):
    """The file of a study: a path as it is, a name from config/studies."""
    if name.endswith((".yaml", ".yml")):
        return name
    known = sorted(path.stem for path in Path("config/studies").glob("*.yaml"))
    if name not in known:
        raise InputError(
            f"{where}: study: unknown study `{name}`; valid: {', '.join(known)}, or the path of a .yaml"
        )
    return f"config/studies/{name}.yaml"


def unwritable():
    """One message for each folder that a run writes to and cannot: Snakemake tells its own trouble by a traceback."""
    folders = [".snakemake"] if workflow.dryrun else [".snakemake", *WRITTEN]
    problems = []
    for folder in map(Path, folders):
        there = folder if folder.exists() else Path()
        if not os.access(there, os.W_OK | os.X_OK):
            problems.append(
                f"{folder.absolute()}: cannot be written to; make it writable for you, or run in a copy of the workflow"
            )
        elif shutil.disk_usage(there).free < LEAST_FREE_BYTES:
            problems.append(
                f"{folder.absolute()}: the disk is full; free some space, then run the same command again"
            )
    return problems


def ahead(path):
    """Whether a file is there and of a later time than now; clocks of a cluster differ by less than a minute."""
    return os.path.isfile(path) and os.path.getmtime(path) > time.time() + 60


def dated(path):
    """What to say of such a file."""
    return f"{path}: is dated {time.ctime(Path(path).stat().st_mtime)}, later than now; put the clock right, or "


def dated_ahead(rows, *paths):
    """One message for each own file of a later time than now: what is made of it would seem older than it for ever."""
    named = [
        path
        for line in rows.to_dict("records")
        if os.path.exists(line["path"])
        for path in [
            *readers.files(line),
            line["image"],
            line["labels"],
            line["alignment"],
        ]
    ]
    return [
        f"{dated(path)}give the file today's date: touch {path}"
        for path in filter(ahead, dict.fromkeys(filter(None, [*named, *paths])))
    ]


# in whatever order files were made before: what is begun with these rules is all that a study has
ANEW = """where it is right, have all that was made before it was set back made anew:
    find config data results benchmarks -newermt now -exec touch {} +
and the same command with --forcerun ingest_section ingest_cells label_section"""


def results_ahead(name):
    """A message where results of a study are of a later time than now: they would never seem older than what changes.

    A file between stages needs no look: Snakemake tells of it when a job has read it.
    """
    folder = Path("results", name)
    found = [
        path for path in sorted([*folder.glob("*"), *folder.glob("*/*")]) if ahead(path)
    ]
    return [f"{dated(found[0])}{ANEW}"] if found else []


def load():
    """The configuration with its defaults, the section sheet and the study, all checked."""
    where = ", ".join(map(str, workflow.configfiles))
    settings = schema.check(
        dict(config), schema.read_yaml(SCHEMAS / "config.schema.yaml"), where
    )
    path = study_path(settings["study"], where)
    content = schema.check(
        schema.read_yaml(path), schema.read_yaml(SCHEMAS / "study.schema.yaml"), path
    )
    sections = sheet.read_sheet([Path(name) for name in settings["sections"]])
    expanded = study.expand(
        content,
        sections,
        settings["encoders"],
        settings["seeds"],
        path,
        read_safetensors_metadata,
        markers.tissues(MARKERS),
    )
    rows = sections.set_index("section", drop=False)
    problems = []
    for name in sorted({run.encoder for run in expanded.runs} - {"none"}):
        try:
            encoders.check(name, settings["encoders"][name])
        except InputError as error:
            problems.append(f"{where}: {error}")
    if not Path(settings["label_words"]).is_file():
        problems.append(
            f"{where}: label_words: {settings['label_words']} does not exist; correct the path"
        )
    used = {name for run in expanded.runs for name in expanded.sections(run)}
    public = sources.read_sources(settings["sources"])
    own = rows[rows.index.isin(used) & ~rows.path.str.startswith(f"{DEMO}/")]
    missing = sheet.missing_files(own, fetched=list(public.index))
    if missing:
        heading = f"{', '.join(settings['sections'])}: {len(missing)} missing file{'s' * (len(missing) > 1)}:"
        problems.append("\n  ".join([heading, *missing]))
    if workflow.is_main_process:
        problems += dated_ahead(own, settings["label_words"])
        problems += results_ahead(expanded.name) + unwritable()
    if problems and not DOCTOR:
        raise InputError("\n".join(problems))
    settings["n_genes"] = content.get("n_genes", settings["n_genes"])
    return settings, rows, expanded, content, public, problems


try:
    SETTINGS, SECTIONS, STUDY, STUDY_CONTENT, SOURCES, PROBLEMS = load()
except InputError as error:
    raise WorkflowError(str(error)) from None


# run -> the name of the weights that it shares with others, and (name, seed) -> one of the runs that share them
SHARED = {run: STUDY.shared_weights(run) for run in STUDY.runs}
SHARING = {(name, run.seed): run for run, name in SHARED.items() if name}


@cache  # asked once a job
def name_together(sections):
    """A short name for sections whose pictures are learned from together."""
    return hashlib.sha256("\n".join(sections).encode()).hexdigest()[:12]


def sections_together():
    """Name -> sections, of all that methods which look at pixels learn from: a fold's, or all that a task has."""
    folds = [*STUDY.folds.values(), *STUDY.whole.values()]
    views = {
        variant.spec.view
        for variant in STUDY.variants.values()
        if "patches" in variant.spec.needs
    }
    found = {fold.learned(view) for fold in folds for view in views} - {()}
    return {name_together(sections): sections for sections in found}


TOGETHER = sections_together()


# ids become file names, so a wildcard can only be one of them
def one_of(names):
    """A wildcard constraint: one of these ids."""
    return "|".join(map(re.escape, sorted(set(names)))) or "(?!)"


INGEST = (
    "ingest_section",
    "ingest_cells",
    "aggregate_cells",
    "label_section",
    "check_section",
)
XENIUM = list(SECTIONS.index[SECTIONS.platform == "xenium"])


wildcard_constraints:
    study=one_of([STUDY.name]),
    section=one_of(SECTIONS.index),
    task=one_of(STUDY.tasks),
    fold=one_of(fold for _, fold in STUDY.folds),
    encoder=one_of([*SETTINGS["encoders"], "none"]),
    method=one_of(STUDY.variants),
    view=one_of(methods.VIEWS),
    weights=one_of(name for name, _ in SHARING),
    together=one_of(TOGETHER),
    seed=r"\d+",


def row(section):
    """A section's line of the sheet."""
    return SECTIONS.loc[section].to_dict()


def raw_files(wildcards):
    """What ingest reads of a section: the downloads that lie in its folder, or what the reader finds there."""
    line = row(wildcards.section)
    inside = sources.below(SOURCES, line["path"])
    if not inside:
        return readers.files(line)
    return [*inside, line["alignment"]] if line["alignment"] else inside


def mirrored(path):
    """Where the offline mirror would have a file; "" without a mirror."""
    return sources.mirrored(path, SETTINGS["data_root"])


SOURCES_LOCK = str(sources.lock_path(SETTINGS["sources"]))
# a member of an archive that the mirror has as a file needs no archive
PACKED = [
    path
    for path, member in SOURCES.member.items()
    if member and not Path(mirrored(path) or "-").is_file()
]
ARCHIVES = {sources.archive_path(SOURCES.url[path]): path for path in PACKED}
PLAIN = [*(path for path in SOURCES.index if path not in PACKED), *ARCHIVES]


def download_url(wildcards):
    """The address of a download."""
    return SOURCES.url[ARCHIVES.get(wildcards.download, wildcards.download)]


def mirrored_member(wildcards):
    """Whether the mirror has a file instead of its archive, of which the list's digest is."""
    return wildcards.download in SOURCES.index and SOURCES.member[wildcards.download]


def download_sha256(wildcards):
    """The digest of a download as the source list has it."""
    name = ARCHIVES.get(wildcards.download, wildcards.download)
    return "" if mirrored_member(wildcards) else SOURCES.sha256[name]


def download_lock(wildcards):
    """Where the digest of a download is recorded."""
    return "" if mirrored_member(wildcards) else SOURCES_LOCK


def download_mirror(wildcards):
    """The offline copy of a download."""
    return mirrored(wildcards.download)


def archive_of(wildcards):
    """The archive that holds a file."""
    return sources.archive_path(SOURCES.url[wildcards.packed])


def member_of(wildcards):
    """The name of a file in its archive."""
    return SOURCES.member[wildcards.packed]


def password_of(wildcards):
    """The published password of an archive."""
    return SOURCES.password[wildcards.packed]


def demo_root(wildcards):
    """Where the demo cohort is written."""
    return DEMO


def demo_files():
    """The raw files of the demo cohort that anything reads."""
    rows = SECTIONS[SECTIONS.path.str.startswith(f"{DEMO}/")].to_dict("records")
    named = [
        [
            *readers.files(line),
            *vendor_image_of(line),
            *(line[column] for column in ("image", "labels", "alignment")),
        ]
        for line in rows
    ]
    return sorted({path for paths in named for path in paths if path})


def image_of(section):
    """The image of a section: the sheet's, or the one in a Space Ranger folder."""
    line = row(section)
    if line["image"]:
        return [line["image"]]
    return vendor_image_of(line)


def vendor_image_of(line):
    """The reduced image in a Space Ranger folder, there or still to come."""
    if line["platform"] not in ("visium", "visium_hd"):
        return []
    path = str(Path(line["path"]) / "spatial" / "tissue_hires_image.png")
    if path in SOURCES.index or path.startswith(f"{DEMO}/"):
        return [path]
    try:
        found = readers.image_path(line | {"image": ""})
    except InputError:
        return []  # the reader tells what is wrong with the folder
    return [found] if found else []


def vendor_image(wildcards):
    """The reduced image in a section's Space Ranger folder, to compare its own with."""
    return vendor_image_of(row(wildcards.section))


def image_file(wildcards):
    """The image of the section that the wildcards name."""
    return image_of(wildcards.section)


def weights_file(wildcards):
    """The local weights of an encoder, where it has some."""
    weights = SETTINGS["encoders"][wildcards.encoder].get("weights", "")
    return [] if weights in ("", "hub", "random") else weights


def labels_source(wildcards):
    """The label file of a section."""
    return row(wildcards.section)["labels"]


def cells_file(wildcards):
    """The cells of a Xenium section: its labels are the cells' labels."""
    return (
        f"results/sections/{wildcards.section}/cells.h5ad"
        if wildcards.section in XENIUM
        else []
    )


def sources_of(*paths):
    """What a job's sources are, to notice one that was replaced; of those that no rule makes."""
    own = [
        path
        for path in paths
        if not path.startswith(f"{DEMO}/") and path not in SOURCES.index
    ]
    return digests.of_sources(own)


def section_sources(wildcards):
    """The vendor files of a section, and its image."""
    return sources_of(*raw_files(wildcards), *image_file(wildcards))


def label_sources(wildcards):
    """The labels of a section, and the list that says what their words mean."""
    return sources_of(labels_source(wildcards), SETTINGS["label_words"])


def weights_source(wildcards):
    """The local weights of an encoder."""
    return sources_of(*filter(None, [weights_file(wildcards)]))


def model_source(wildcards):
    """The model file that a task brings along."""
    return sources_of(*filter(None, [given_model(wildcards)]))


@cache  # asked once a job
def code(step, *modules):
    """A digest of the library code that a step's script runs, and of what it loads by name; an edit re-runs the step."""
    return digests.of_code(Path(workflow.basedir) / "scripts" / f"{step}.py", *modules)


def ingest_code(wildcards):
    """The digest of a section's ingest, with its reader."""
    line = row(wildcards.section)
    step = "ingest_cells" if line["platform"] == "xenium" else "ingest_section"
    return code(step, f"readers.{line['platform']}")


def embed_code(wildcards):
    """The digest of an embedding, with its encoder."""
    return code(
        "embed_section",
        f"encoders.{encoders.module_name(SETTINGS['encoders'][wildcards.encoder])}",
    )


def train_code(wildcards):
    """The digest of a training, with its method."""
    return code("train_method", f"methods.{method_of(wildcards)}")


def infer_code(wildcards):
    """The digest of a scoring, with its method."""
    return code("infer_scores", f"methods.{method_of(wildcards)}")


def fold_of(wildcards):
    """The fold that the wildcards name; without one, all that the task can train on."""
    if not hasattr(wildcards, "fold"):
        return STUDY.whole[wildcards.task]
    return STUDY.folds[wildcards.task, wildcards.fold]


def train_sections(wildcards):
    """What a view trains on."""
    return fold_of(wildcards).learned(wildcards.view)


def gene_ranking(wildcards):
    """On what values and sections a task ranks its genes."""
    task = STUDY.tasks[wildcards.task]
    return {key: task[key] for key in ("hvg_input", "hvg_scope")}


def spots_files(sections):
    """The spots of sections."""
    return [f"results/sections/{name}/spots.h5ad" for name in sections]


def labels_files(sections):
    """The labels of those sections that have some."""
    return [
        f"results/sections/{name}/labels.tsv"
        for name in sections
        if row(name)["labels"]
    ]


def embedding_files(sections, encoder):
    """The image features of sections, none without an encoder."""
    return (
        []
        if encoder == "none"
        else [f"results/embeddings/{encoder}/{name}.h5ad" for name in sections]
    )


def train_spots(wildcards):
    """Spots of the training sections of a view."""
    return spots_files(train_sections(wildcards))


def train_embeddings(wildcards):
    """Image features of the training sections of a view."""
    return embedding_files(train_sections(wildcards), wildcards.encoder)


def train_labels(wildcards):
    """Labels of the training sections; of no others, and none where the normal reference are healthy sections."""
    if wildcards.view == "normal" and not fold_of(wildcards).negatives:
        return []
    return labels_files(train_sections(wildcards))


def target_spots(wildcards):
    """Spots of the target sections of a fold."""
    return spots_files(fold_of(wildcards).targets)


def target_embeddings(wildcards):
    """Image features of the target sections of a fold."""
    return embedding_files(fold_of(wildcards).targets, wildcards.encoder)


def view_of(task, method):
    """The view a method gets on a task."""
    return (
        "pretrained"
        if STUDY.tasks[task]["split"] == "pretrained"
        else STUDY.variants[method].spec.view
    )


def view_dir(wildcards):
    """The folder of the view that a run sees."""
    view = view_of(wildcards.task, wildcards.method)
    return f"results/{STUDY.name}/{wildcards.task}/{wildcards.fold}/{wildcards.encoder}/{view}"


def train_file(wildcards):
    """The training table of a run."""
    return f"{view_dir(wildcards)}/train.h5ad"


def source_file(wildcards):
    """The table of all that a task can train on, as a method gets it."""
    view = STUDY.variants[wildcards.method].spec.view
    return f"results/{wildcards.study}/model/{wildcards.task}/{wildcards.encoder}/{view}/train.h5ad"


def target_file(wildcards):
    """The target table of a run."""
    return f"{view_dir(wildcards)}/target.h5ad"


def given_model(wildcards):
    """The model file a task brings along."""
    task = STUDY.tasks[wildcards.task]
    return task["model"] if task["split"] == "pretrained" else []


def min_gene_share(wildcards):
    """The share of a given model's genes that a section must measure."""
    return STUDY.tasks[wildcards.task].get(
        "min_gene_share", model_file.LEAST_GENE_SHARE
    )


def scoring_model(wildcards):
    """The model a run scores with: given, trained, or none for methods that do not train."""
    if given_model(wildcards):
        return given_model(wildcards)
    if not STUDY.variants[wildcards.method].spec.trains:
        return []
    return run_files("model.safetensors", [wildcards])[0]


def learned_sections(wildcards):
    """The sections that a method learns from, of a fold or of all that its task has."""
    return fold_of(wildcards).learned(STUDY.variants[wildcards.method].spec.view)


def patches_dir(wildcards):
    """The folder of the pictures that a method looks at, by their size; "" for one that looks at none."""
    variant = STUDY.variants[wildcards.method]
    if "patches" not in variant.spec.needs:
        return ""
    return "results/patches/{patch_um:g}um-{patch_px}px".format(**variant.options)


def patch_files(wildcards, sections):
    """The pictures of the spots of sections, for a method that looks at pixels."""
    folder = patches_dir(wildcards)
    return [f"{folder}/{name}.zarr" for name in sections] if folder else []


def patches_together(wildcards):
    """The sections whose pictures a list names."""
    return TOGETHER[wildcards.together]


def patches_to_list(wildcards):
    """The pictures that a list names."""
    folder = f"results/patches/{wildcards.um}um-{wildcards.px}px"
    return [f"{folder}/{name}.zarr" for name in patches_together(wildcards)]


def learned_patches(wildcards):
    """The list of the pictures of the spots that a method learns from."""
    folder = patches_dir(wildcards)
    together = name_together(learned_sections(wildcards))
    return f"{folder}/{together}.tsv" if folder else []


def target_patches(wildcards):
    """The pictures of the spots that a method scores."""
    return patch_files(wildcards, fold_of(wildcards).targets)


def target_superpixels(wildcards):
    """The superpixels of the targets, for a method that paints the whole picture."""
    if "superpixels" not in STUDY.variants[wildcards.method].spec.needs:
        return []
    return [f"results/superpixels/{name}.h5ad" for name in fold_of(wildcards).targets]


def target_markers(wildcards):
    """The marker genes of each target's tissue, for a method that starts from them."""
    if "markers" not in STUDY.variants[wildcards.method].spec.needs:
        return []
    return [
        markers.path_of(row(name)["tissue"], MARKERS)
        for name in fold_of(wildcards).targets
    ]


def marker_lists():
    """The marker genes of the targets' tissues, of those that have a list."""
    known = markers.tissues(MARKERS)
    tissues = [row(name)["tissue"].strip().casefold() for name in STUDY.targets()]
    return [
        markers.path_of(tissue, MARKERS)
        for tissue in dict.fromkeys(tissues)
        if tissue in known
    ]


def pretrained_file(wildcards):
    """The shared weights that a run starts from, where its method has such."""
    names = (wildcards[key] for key in ("task", "fold", "encoder", "method"))
    name = SHARED[study.Run(*names, int(wildcards.seed))]
    path = f"results/{STUDY.name}/pretrained/{name}/seed{wildcards.seed}.safetensors"
    return path if name else []


def pretraining_cost(run):
    """What the shared weights of a run cost; "" without any."""
    name = SHARED[run]
    path = f"results/{STUDY.name}/pretrained/{name}/seed{run.seed}.cost.json"
    return path if name else ""


def pretraining_run(wildcards):
    """A run whose tables shared weights are learned from: all that start from them have the same spots."""
    return SHARING[wildcards.weights, int(wildcards.seed)]


def pretraining_file(wildcards):
    """The training table that shared weights are learned on."""
    return train_file(pretraining_run(wildcards))


def pretraining_patches(wildcards):
    """The list of the pictures that shared weights are learned on."""
    return learned_patches(pretraining_run(wildcards))


def pretraining_method(wildcards):
    """The method that learns shared weights."""
    return method_of(pretraining_run(wildcards))


def pretraining_wants_gpu(wildcards):
    """Whether the learning of shared weights asks for a GPU."""
    return wants_gpu(pretraining_run(wildcards))


def pretraining_options(wildcards):
    """The options that decide on shared weights."""
    variant = STUDY.variants[pretraining_run(wildcards).method]
    return {name: variant.options[name] for name in variant.spec.pretrain}


def pretraining_code(wildcards):
    """The digest of the learning of shared weights."""
    return code("pretrain_method", f"methods.{pretraining_method(wildcards)}")


def truth_files(wildcards):
    """The targets' labels, for the oracle alone."""
    needs = STUDY.variants[wildcards.method].spec.needs
    return labels_files(fold_of(wildcards).targets) if "truth" in needs else []


def trained_encoder(wildcards):
    """What of an encoder's options a model file keeps; nothing without an encoder."""
    if wildcards.encoder == "none":
        return {}
    return model_file.encoder_settings(encoder_options(wildcards))


def method_of(wildcards):
    """The registered method behind a variant."""
    return STUDY.variants[wildcards.method].spec.name


def options_of(wildcards):
    """All options of a variant."""
    return STUDY.variants[wildcards.method].options


def asks_for_gpu():
    """Whether there are GPUs to ask for: always with `cuda`, never with `cpu`, with `auto` where this machine has one."""
    here = shutil.which("nvidia-smi") is not None
    return SETTINGS["device"] == "cuda" or (SETTINGS["device"] == "auto" and here)


def memory(mb):
    """Memory for a job, more when it is resubmitted because that was too little."""
    return lambda wildcards, attempt: mb * attempt


# minutes; short enough to share a job on a cluster, where each job costs two starts of Snakemake
SHORT_MIN = 30


def one_job(name):
    """A rule's `group`: its steps of the same name are one job on a cluster.

    None on a dry run, where nothing is submitted: to check groups takes Snakemake as long as all other planning.
    """
    return lambda wildcards: None if workflow.dryrun else name.format(**wildcards)


FOLD_JOB = one_job("fold.{task}.{fold}.{encoder}")
RUN_JOB = one_job("run.{task}.{fold}.{encoder}.{method}.{seed}")
SECTION_JOB = one_job("section.{section}")


def fold_job(wildcards):
    """The job of a cluster that takes all short steps of a fold; none for what is not of a fold."""
    return FOLD_JOB(wildcards) if hasattr(wildcards, "fold") else None


def run_job(wildcards):
    """The job of a cluster for learning and scoring: the fold's where both are short, else one of their own."""
    if not hasattr(wildcards, "fold"):
        return None
    short = not wants_gpu(wildcards) and train_minutes(wildcards) <= SHORT_MIN
    return (FOLD_JOB if short else RUN_JOB)(wildcards)


def embed_job(wildcards):
    """The job of a cluster for an embedding: the section's, where it needs no GPU."""
    return None if encoder_wants_gpu(wildcards) else SECTION_JOB(wildcards)


def method_memory(wildcards, input, attempt):
    """Memory for a method, by the size of its view and pictures where they are there; more when resubmitted."""
    spec = STUDY.variants[wildcards.method].spec
    listed = input.get("patches", "")
    pictures = room.listed_bytes(listed) if isinstance(listed, str) else 0
    asked = room.asked_mb(spec.dense, stored_bytes(input[0]), pictures)
    return max(spec.memory_mb, asked) * attempt


def fold_memory(wildcards, input, attempt):
    """Memory for the tables of a fold: a section at a time, and the target whole (docs/scale.md)."""
    return max(8000, room.fold_mb(max(map(stored_bytes, input)))) * attempt


def stored_bytes(path):
    """The size of a file; 0 before it is there."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def train_minutes(wildcards, attempt=1):
    """Time for a training at full settings; more when it is resubmitted."""
    return STUDY.variants[wildcards.method].spec.minutes * attempt


def infer_minutes(wildcards, attempt):
    """Time for a scoring; of a method that learns while it scores, for both."""
    spec = STUDY.variants[wildcards.method].spec
    return (min(60, spec.minutes) if spec.trains else spec.minutes) * attempt


def pretraining_memory(wildcards, input, attempt):
    """Memory for the learning of shared weights."""
    return method_memory(pretraining_run(wildcards), input, attempt)


def pretraining_minutes(wildcards, attempt):
    """Time for the learning of shared weights."""
    return train_minutes(pretraining_run(wildcards), attempt)


def encoder_options(wildcards):
    """An encoder as the configuration gives it."""
    return SETTINGS["encoders"][wildcards.encoder]


def target_sections(wildcards):
    """The sections a fold scores."""
    return fold_of(wildcards).targets


def target_patients():
    """Target section -> patient."""
    return {name: row(name)["patient"] for name in STUDY.targets()}


def target_images():
    """The images of all target sections."""
    return [path for name in STUDY.targets() for path in image_of(name)]


def shown_settings():
    """The settings that the report shows."""
    return {
        "n_genes": SETTINGS["n_genes"],
        "threads": SETTINGS["threads"],
        "encoders": used_encoders(),
        "methods": {
            name: variant.options
            for name, variant in STUDY.variants.items()
            if variant.options
        },
    }


def wants_gpu(wildcards):
    """Whether a job of a method asks for a GPU: it gains from one, and there are some."""
    return asks_for_gpu() and STUDY.variants[wildcards.method].spec.gpu


def encoder_wants_gpu(wildcards):
    """Whether an embedding asks for a GPU: its encoder is a network, and there are some."""
    return asks_for_gpu() and encoders.is_network(encoder_options(wildcards))


def as_gpu(wants):
    """A rule's `gpu`: one for a job that wants it, where the scheduler is asked so."""
    return lambda wildcards: int(SETTINGS["gpu_request"] == "gpu" and wants(wildcards))


def as_gres(wants):
    """A rule's `gres`: the same for a SLURM that knows GPUs as generic resources alone."""
    return lambda wildcards: (
        "gpu:1" if SETTINGS["gpu_request"] == "gres" and wants(wildcards) else ""
    )


def method_device(wildcards):
    """Where a method computes: what the configuration says, for one that gains from a GPU."""
    return SETTINGS["device"] if STUDY.variants[wildcards.method].spec.gpu else "cpu"


def encoder_device(wildcards):
    """Where an encoder computes: a network as configured, any other on the CPU, also where a GPU is insisted on."""
    network = encoders.is_network(encoder_options(wildcards))
    return SETTINGS["device"] if network else "cpu"


def run_files(name, runs=None):
    """One file of each run of the study."""
    return [
        f"results/{STUDY.name}/{run.task}/{run.fold}/{run.encoder}/{run.method}/seed{run.seed}/{name}"
        for run in (STUDY.runs if runs is None else runs)
    ]


# Each time a job takes a file, Snakemake goes through all outputs and inputs of the job that makes it: with all runs of
# a study in one job that grows with their square.
CALLED_AT_ONCE = 100


def call_batches():
    """Rule -> the runs that one job calls, in their order: those of one method and task lie side by side."""
    starts = range(0, len(STUDY.runs), CALLED_AT_ONCE)
    return {
        f"call_spots_{number}": STUDY.runs[start : start + CALLED_AT_ONCE]
        for number, start in enumerate(starts, 1)
    }


def run_costs():
    """The runs as plain rows, each with the files that say what it cost; "" where a step is not taken."""
    trained = set(trained_runs())
    return [
        line
        | {
            "infer": run_files("infer_cost.json", [run])[0],
            "train": run_files("train_cost.json", [run])[0] if run in trained else "",
            "pretrain": pretraining_cost(run),
            "embedding": next(
                iter(
                    embedding_files(
                        STUDY.folds[run.task, run.fold].targets, run.encoder
                    )
                ),
                "",
            ),
            "embed": [
                f"benchmarks/embed_section/{run.encoder}/{name}.tsv"
                for name in STUDY.folds[run.task, run.fold].targets
                if run.encoder != "none"
            ],
        }
        for line, run in zip(run_table(STUDY.runs), STUDY.runs)
    ]


def cost_files():
    """What is known of the costs of all runs."""
    steps = ("pretrain", "train", "infer")
    files = [line[step] for line in run_costs() for step in steps]
    return [path for path in dict.fromkeys(files) if path]


def cost_embeddings():
    """One section's features of each encoder."""
    return list({line["embedding"]: None for line in run_costs() if line["embedding"]})


def trained_runs():
    """The runs with a training of their own."""
    return [
        run
        for run in STUDY.runs
        if STUDY.variants[run.method].spec.trains
        and STUDY.tasks[run.task]["split"] != "pretrained"
    ]


def exported_models():
    """One file for each task, encoder, method and seed of the study that trains."""
    files = [
        f"results/{STUDY.name}/model/{run.task}/{run.encoder}/{run.method}.seed{run.seed}.safetensors"
        for run in trained_runs()
    ]
    return list(dict.fromkeys(files))


def models_to_export(wildcards):
    """All model files that the study can export."""
    if not exported_models():
        raise WorkflowError(
            f"study {STUDY.name}: no method here learns from sections, so there is no model to export"
        )
    return exported_models()


def given_runs():
    """The runs that score with a model that a task brings along."""
    return [run for run in STUDY.runs if given_model(run)]


def runs_on(section):
    """The runs that score a section."""
    return [
        run for run in STUDY.runs if section in STUDY.folds[run.task, run.fold].targets
    ]


def normal_reference(run):
    """What a method that knows normal tissue alone learned it from; "" for the others."""
    if STUDY.variants[run.method].spec.view != "normal" or given_model(run):
        return ""
    negatives = STUDY.folds[run.task, run.fold].negatives
    return "source_negatives" if negatives else "normal_sections"


def run_table(runs):
    """The wildcards of runs as plain rows, for a step's parameters."""
    return [
        {
            "task": run.task,
            "fold": run.fold,
            "encoder": run.encoder,
            "variant": run.method,
            "method": STUDY.variants[run.method].spec.name,
            "regime": STUDY.variants[run.method].spec.regime,
            "reference": normal_reference(run),
            "threshold": STUDY.variants[run.method].spec.threshold,
            "seed": run.seed,
        }
        for run in runs
    ]


def shown(runs):
    """The runs that maps, exports and the report's pictures show: methods, and controls only where there is nothing else."""
    return [
        run for run in runs if STUDY.variants[run.method].spec.regime != "control"
    ] or runs


def section_runs(wildcards):
    """The shown runs on a section as plain rows; `run` names the column that its seeds share."""
    runs = shown(runs_on(wildcards.section))
    alone = len({(run.task, run.encoder) for run in runs}) == 1
    return [
        line
        | {
            "run": (
                line["variant"]
                if alone
                else "{task}.{encoder}.{variant}".format(**line)
            )
        }
        for line in run_table(runs)
    ]


def section_calls(wildcards):
    """The calls of every shown run on a section."""
    return run_files("calls.tsv", shown(runs_on(wildcards.section)))


def used_sections():
    """Every section of the study, those learned from too, in the order of the sheet."""
    used = {name for run in STUDY.runs for name in STUDY.sections(run)}
    return [name for name in SECTIONS.index if name in used]


def used_encoders():
    """The encoders of the study with their options."""
    return {
        name: SETTINGS["encoders"].get(name, {})
        for name in dict.fromkeys(run.encoder for run in STUDY.runs)
    }


def compared_plan():
    """What decides which printed numbers of the papers the study can be compared with."""
    return published.plan(STUDY, SECTIONS, used_encoders(), SETTINGS["n_genes"])


def sheet_rows(sections):
    """Lines of the sheet, as a step's parameter."""
    return [row(name) for name in sections]


def target_runs(task, encoder, section):
    """The shown runs on one picture of the report as plain rows, each with the file of its calls."""
    runs = shown(
        [run for run in runs_on(section) if (run.task, run.encoder) == (task, encoder)]
    )
    return [
        line | {"run": line["variant"], "calls": path}
        for line, path in zip(run_table(runs), run_files("calls.tsv", runs))
    ]


def target_table():
    """Task, encoder, target section and shown runs of everything that is scored."""
    seen = {
        (run.task, run.encoder, section): None
        for run in STUDY.runs
        for section in STUDY.folds[run.task, run.fold].targets
    }
    return [
        {
            "task": task,
            "encoder": encoder,
            "section": section,
            "runs": target_runs(task, encoder, section),
        }
        for task, encoder, section in seen
    ]


def method_table():
    """Variant -> regime, reference and options, for the report."""
    return {
        name: {
            "regime": variant.spec.regime,
            "reference": variant.spec.reference,
            "options": variant.options,
        }
        for name, variant in STUDY.variants.items()
    }


def task_sentences():
    """Task -> one sentence on what is trained on what."""
    return {name: study.describe(name, STUDY) for name in STUDY.tasks}


def benchmark_table():
    """Rule, variant and benchmark file of every job of the study that costs something."""
    shared = [
        ("ingest", "", f"benchmarks/{step}/{name}.tsv")
        for step in INGEST
        for name in used_sections()
    ]
    embedded = [
        ("embed_section", encoder, f"benchmarks/embed_section/{encoder}/{name}.tsv")
        for encoder in used_encoders()
        for name in used_sections()
    ]
    pictured = [
        (
            "cut_patches",
            "",
            str(
                Path("benchmarks/cut_patches", *Path(path).parts[2:]).with_suffix(
                    ".tsv"
                )
            ),
        )
        for path in dict.fromkeys(
            path for run in STUDY.runs for path in patch_files(run, STUDY.sections(run))
        )
    ]
    pretrained = [
        (
            "pretrain_method",
            run.method,
            f"benchmarks/{STUDY.name}/pretrain_method/{name}/seed{seed}.tsv",
        )
        for (name, seed), run in SHARING.items()
    ]
    own = [
        (
            step,
            run.method,
            f"benchmarks/{STUDY.name}/{step}/{run.task}/{run.fold}/{run.encoder}/{run.method}/seed{run.seed}.tsv",
        )
        for step in ("train_method", "infer_scores")
        for run in STUDY.runs
    ]
    return [
        dict(zip(("rule", "variant", "path"), line))
        for line in [*shared, *embedded, *pictured, *pretrained, *own]
    ]


def summaries(wildcards):
    """The summary of every target section."""
    return [
        f"results/{wildcards.study}/export/{name}/{name}.summary.tsv"
        for name in STUDY.targets()
    ]


def section_labels(wildcards):
    """A section's labels, where it has some."""
    return labels_files([wildcards.section])


def reader_row(wildcards):
    """What a reader takes from a section's line: an edited note or label column is no reason to read it again."""
    line = row(wildcards.section)
    return {
        key: line[key]
        for key in SECTIONS.columns
        if key not in ("labels", "normal", "note")
    }


def exports():
    """The exported files of every target section."""
    kinds = ("h5ad", "loupe.csv", "spatialdata.zarr", "summary.tsv")
    files = [
        f"results/{STUDY.name}/export/{name}/{name}.{kind}"
        for name in STUDY.targets()
        for kind in [*kinds, *(["xenium_groups"] if name in XENIUM else [])]
    ]
    return [*files, f"results/{STUDY.name}/export/summary.tsv"]


def check_files():
    """What was found of every section that the study uses."""
    return [f"results/sections/{name}/check.json" for name in used_sections()]


def checks():
    """What was found of every section that the study uses, with its pictures."""
    pictures = [f"results/sections/{name}/overlay.png" for name in used_sections()]
    return [*check_files(), *pictures]


def seen_by():
    """Section -> the encoders that look at its image."""
    found = {name: set() for name in used_sections()}
    for run in STUDY.runs:
        for name in STUDY.sections(run):
            found[name] |= {run.encoder} - {"none"}
    return {name: sorted(names) for name, names in found.items()}


def doctor_plan(wildcards):
    """What the doctor looks at, as plain data."""
    rows = sheet_rows(used_sections())
    return {
        "study": STUDY.name,
        "problems": PROBLEMS,
        "rows": [line for line in rows if not line["path"].startswith(f"{DEMO}/")],
        "public": dict(SOURCES.url),
        "encoders": {
            name: options for name, options in used_encoders().items() if name != "none"
        },
        "seen_by": seen_by(),
        "device": SETTINGS["device"],
        "label_words": SETTINGS["label_words"],
        "folds": len(STUDY.folds),
        "methods": {
            name: {"gpu": variant.spec.gpu} for name, variant in STUDY.variants.items()
        },
        "folder": "results",
        "lock": str(Path(workflow.basedir) / "requirements.txt"),
    }


def figures():
    """The map of every target section."""
    return [f"results/{STUDY.name}/figures/{name}.png" for name in STUDY.targets()]


def what_was_made():
    """What a user opens next, said at the end of a run."""
    base = f"results/{STUDY.name}"
    places = {
        "report": f"{base}/report.html",
        "maps": f"{base}/figures",
        "tables and regions": f"{base}/export",
        "models for new sections": f"{base}/model",
    }
    made = [f"{what} in {path}" for what, path in places.items() if Path(path).exists()]
    return "\nctrflow: " + ("; ".join(made) or "nothing to show yet")


def what_to_do(logs):
    """The cure for what Snakemake tells without one: files dated ahead, since a clock was set back."""
    said = [Path(log).read_text(encoding="utf-8", errors="replace") for log in logs]
    if not any("clock skew" in text for text in said):
        return ""
    return f"\nctrflow: files are dated later than now. Put the clock right, or {ANEW}"


def what_the_doctor_found():
    """The doctor's page, the last thing on the screen."""
    page = Path(DOCTOR_PAGE)
    return page.read_text(encoding="utf-8") if DOCTOR and page.is_file() else ""
