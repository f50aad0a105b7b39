"""Check a study before it runs, in about a minute: report at once what would fail hours later.

`examine` runs all checks (configuration, versions, gpu, encoders, sections, study, disk, memory) and returns their
findings; a problem never stops it. `page` formats the findings for a terminal.
"""

import logging
import os
import platform
import re
import shutil
import subprocess
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from ctrflow.classes import CLASSES
from ctrflow.disk import size
from ctrflow.errors import InputError, first_few
from ctrflow.findings import LEVELS, Finding, counted
from ctrflow.machine import choose
from ctrflow.training.memory import memory_bytes

logger = logging.getLogger("ctrflow")

BUDGET_S = 60.0
WIDTH = 120
OF_NAMES = "ctrflow.readers.genes"  # the logger of what a reader did to the names of genes

# in requirements.in, but not needed by any step
OPTIONAL = {
    "atheris", "hypothesis", "playwright", "pytest", "pytest-xdist", "ruff", "snakefmt", "spatialdata-io",
    "snakemake", "snakemake-executor-plugin-slurm", "rich",
}  # fmt: skip
# what damaged files and incompatible libraries may raise: one broken section must not hide the others
FAILURES = (
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)

# Estimates, measured on HER2ST: a stored value takes 1.3 bytes in a vendor's gzipped counts, 8 bytes in memory (float32
# and a 32-bit column), and 5.6 to 6.1 in spots.h5ad or, with 3,000 genes and two layers, in a fold.
VALUE_BYTES = 8
RAW_TO_MEMORY = 6.0
MEMORY_TO_FILE = 0.8
VALUES_PER_SPOT = 2000  # 1,600 to 3,800 on HER2ST
READING_COPIES = 3  # the vendor's matrix, ours, and an intermediate one
LIBRARIES_BYTES = 1e9
EMBEDDING_BYTES = 4.0 * 2048  # per spot, with ResNet50; others have fewer features
RAW_BYTES_PER_S = 5e6
H5AD_BYTES_PER_S = 50e6


@dataclass(frozen=True)
class Extent:
    """The size of a section: spots, and bytes of its counts in memory; `read`, or estimated from its files."""

    section: str
    spots: int
    counts_bytes: float
    read: bool


def examine(plan: dict, budget_s: float = BUDGET_S) -> list[Finding]:
    """Check everything that a study needs, in about `budget_s` seconds.

    Parameters
    ----------
    plan
        The planned study as plain data. `rows`: the sheet's rows that the study uses (dicts of text). `public`: path ->
        url (or description) of files that the workflow creates or downloads itself. `encoders`: id -> options.
        `seen_by`: section -> its encoders; default: all. `given`: section -> the models that score it, each with what
        else `check_model` takes. `compared`, `markers`, `positions`, `genes`: what the sections of the study are held
        against each other for, see `folds.compare`. `methods`: variant -> dict, whose `gpu` says whether it benefits
        from a GPU. `folds`: their number. `device`, `folder` (of the results), `lock` (requirements.txt),
        `label_words`, `study` (its name). `problems`: messages from reading the configuration. All but `rows`
        and `lock` are optional.
    budget_s
        Sections are read, the small ones first, until this time is up; for the others only the files are checked.

    Returns
    -------
    list of Finding, in the order of the checks. User errors are returned, not raised.
    """
    start = time.monotonic()
    folder = Path(plan.get("folder") or "results")
    rows, options = plan["rows"], plan.get("encoders") or {}
    findings = _attempt("versions", "lock", check_versions, Path(plan["lock"]))
    findings += _attempt("gpu", "torch", check_device, plan.get("device") or "auto", _benefiting(plan))
    with ThreadPoolExecutor(8) as pool:  # in parallel, as each request to an unreachable hub takes seconds
        checks = [
            pool.submit(_attempt, "encoders", name, check_encoder, name, given) for name, given in options.items()
        ]
    findings += [one for check in checks for one in check.result()]
    of_sections, extents, looks, n_missing = _check_sections(plan, folder, start + budget_s)
    findings += of_sections + check_study(plan, looks)
    folds = int(plan.get("folds") or len(rows))
    findings += _attempt("disk", folder.name, check_disk, folder, extents, options, folds, n_missing)
    findings += _attempt("memory", "counts", check_memory, extents)
    return _check_configuration(plan, findings) + findings


def _finding(level: str, check: str, subject: str, message: str) -> Finding:
    return Finding(level, check, message, subject=subject)


def _check_configuration(plan: dict, findings: list[Finding]) -> list[Finding]:
    """The problems from reading the configuration, without those that other checks report."""
    reported = {one.message for one in findings}
    study = str(plan.get("study") or "")
    problems = []
    for text in plan.get("problems") or ():
        heading, *lines = text.split("\n  ")
        new = [line for line in lines if line not in reported]
        if any(heading.endswith(message) for message in reported) or (lines and not new):
            continue
        problems.append(_finding("problem", "configuration", study, "\n  ".join([heading, *new])))
    if problems:
        return problems
    return [_finding("ok", "configuration", study, f"{counted(len(plan['rows']), 'section')} to check")]


def page(findings: list[Finding]) -> str:
    """The findings as a plain table, problems last, and a closing line with their number by level."""
    widths = [max((len(getattr(one, name)) for one in findings), default=0) for name in ("level", "check", "subject")]
    blocks = []
    for level in LEVELS:  # problems last: nearest to the prompt
        lines = [line for one in findings if one.level == level for line in _lines(one, widths)]
        blocks += ["\n".join(lines)] if lines else []
    counts = {level: sum(one.level == level for one in findings) for level in LEVELS}
    closing = f"{counted(counts['problem'], 'problem')}, {counted(counts['warning'], 'warning')}, {counts['ok']} ok"
    return "\n\n".join([*blocks, closing]) + "\n"


def _lines(finding: Finding, widths: list[int]) -> list[str]:
    import textwrap

    cells = (finding.level, finding.check, finding.subject)
    head = "".join(cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=True))
    # paths are not broken, so that they can be copied
    options = {"width": max(WIDTH - len(head), 40), "break_long_words": False, "break_on_hyphens": False}
    text = [part for line in finding.message.splitlines() for part in textwrap.wrap(line, **options) or [""]]
    return [(head if number == 0 else " " * len(head)) + part for number, part in enumerate(text or [""])]


def _attempt(name: str, subject: str, check: Callable, *arguments) -> list[Finding]:
    """The findings of a check; an exception becomes a finding."""
    try:
        return check(*arguments)
    except InputError as error:
        return [_finding("problem", name, subject, str(error))]
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        return [_finding("problem", name, subject, f"{where}{reason}; check the path, its permissions and its disk")]
    except FAILURES as error:
        text = f"{type(error).__name__}: {str(error).strip() or 'no further details'}; the run would fail here too"
        return [_finding("problem", name, subject, text)]


@contextmanager
def _logged() -> Iterator[list[tuple[str, str]]]:
    """(level, message) of the warnings that the library logs in the block, and of what was done to names of genes."""
    messages: list[tuple[str, str]] = []

    def keep(record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            messages.append(("warning", record.getMessage()))
        elif record.name == OF_NAMES:
            messages.append(("ok", record.getMessage()))

    handler = logging.Handler()
    handler.emit = keep
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


# --- versions ---------------------------------------------------------------------------------------------------------


def check_versions(lock: Path) -> list[Finding]:
    """Compare Python and the packages in requirements.in, as installed, with the lock.

    Raises
    ------
    InputError
        if there is no lock.
    """
    if not lock.is_file():
        raise InputError(f"{lock}: no such file; run this in the project's folder")
    text = lock.read_text(encoding="utf-8")
    cure = f"run `python -m pip install --require-hashes -r {lock}` in this environment"
    findings = [_check_python(text, lock)]
    locked = _locked(text)
    installed = {name: _installed(name) for name in locked}
    missing = [name for name in locked if installed[name] is None and name not in OPTIONAL]
    findings += [
        _finding("problem", "versions", name, f"not installed, {locked[name]} is required; {cure}") for name in missing
    ]
    other = [name for name in locked if installed[name] and _release(installed[name]) != _release(locked[name])]
    for name in other:
        text = f"{installed[name]} is installed, but {lock} has {locked[name]}; results may differ: {cure}"
        findings.append(_finding("warning", "versions", name, text))
    pair = [name for name in ("torch", "torchvision") if name in other]
    if len(pair) == 1 and not {"torch", "torchvision"} & set(missing):
        text = (
            f"{installed.get('torch')} and {installed.get('torchvision')} are not compatible; {lock} has "
            f"{locked.get('torch')} and {locked.get('torchvision')}: {cure}"
        )
        findings.append(_finding("problem", "versions", "torch, torchvision", text))
    as_locked = sum(installed[name] is not None for name in locked) - len(other)
    findings.append(_finding("ok", "versions", "packages", f"{as_locked} have the version in {lock}"))
    return findings


def _check_python(lock_text: str, lock: Path) -> Finding:
    stated = re.search(r"--python-version[ =](\d+)\.(\d+)", lock_text)
    least = (int(stated[1]), int(stated[2])) if stated else (3, 11)
    current = platform.python_version()
    if tuple(map(int, platform.python_version_tuple()[:2])) < least:
        required = ".".join(map(str, least))
        text = f"{current} is too old for {lock}; create the environment with Python {required} or newer"
        return _finding("problem", "versions", "python", text)
    return _finding("ok", "versions", "python", current)


def _locked(text: str) -> dict[str, str]:
    """Name -> version of the lock's packages that are in requirements.in; of all, if the lock does not mark them.

    Without those whose marker excludes this machine (`; sys_platform == 'linux'`).
    """
    from packaging.markers import Marker

    versions, direct, name = {}, set(), None
    for line in text.splitlines():
        pinned = re.match(r"([A-Za-z0-9][\w.\-]*)(?:\[[^\]]*\])?==([^\s;\\]+)(?:\s*;([^\\]+))?", line)
        if pinned:
            name = pinned[1].lower()
            if not pinned[3] or Marker(pinned[3].strip()).evaluate():
                versions[name] = pinned[2]
        elif name and line.lstrip().startswith("#") and "-r requirements.in" in line:
            direct.add(name)
    return {name: version for name, version in versions.items() if name in direct or not direct}


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> str:
    """2.15.0+cpu -> 2.15.0, without the build."""
    return version.partition("+")[0]


# --- gpu --------------------------------------------------------------------------------------------------------------


def check_device(device: str, benefiting: tuple[str, ...] = ()) -> list[Finding]:
    """Check the configured device. `benefiting`: encoders and methods that are slow without a GPU."""
    # torchvision fails at import if it was built for another torch
    import torch
    import torchvision  # noqa: F401

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    if torch.backends.mps.is_built():
        built = "built for the GPU of a Mac"
    findings = [_finding("ok", "gpu", "torch", f"torch {torch.__version__}, {built}")]
    if device == "cpu":
        return [*findings, _finding("ok", "gpu", "device", "CPU, as configured")]
    with warnings.catch_warnings(record=True) as from_torch:
        warnings.simplefilter("always")
        refused = _attempt("gpu", "device", _require_device, device)
        available = torch.cuda.is_available()
    if available and not refused:
        return findings + _check_gpus()
    if device == "mps" and refused:
        return [*findings, *refused]
    if not refused and torch.backends.mps.is_available():
        return [*findings, _check_mps()]
    driver = _driver()
    if driver:
        text = f"{driver}, but torch does not see it: {_why_unseen(torch, from_torch)}"
        return [*findings, *refused, _finding("problem" if refused else "warning", "gpu", "driver", text)]
    if device == "cuda" and shutil.which("sbatch"):
        text = "no GPU on this machine, as on most login nodes; jobs request one from Slurm, so it is not checked here"
        return [*findings, _finding("warning", "gpu", "device", text)]
    slow = f"; {first_few(benefiting)} would be faster with a GPU" if benefiting else ""
    return [*findings, *(refused or [_finding("ok", "gpu", "device", f"no GPU; everything runs on the CPU{slow}")])]


def _require_device(device: str) -> list[Finding]:
    choose(device)
    return []


def _check_gpus() -> list[Finding]:
    """One finding for each GPU that torch sees, after a test computation on it."""
    import torch

    findings = []
    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        try:
            torch.ones(8, 8, device=f"cuda:{number}").matmul(torch.ones(8, 8, device=f"cuda:{number}")).cpu()
            free, total = torch.cuda.mem_get_info(number)
        except RuntimeError as error:  # no kernels for this GPU, or its memory is in use
            text = f"{name} does not work ({str(error).strip().splitlines()[0]})"
            cure = "stop other processes on it, install a torch built for it, or set `device: cpu`"
            level, cure = ("warning", "the first one is used") if number else ("problem", cure)
            findings.append(_finding(level, "gpu", f"cuda:{number}", f"{text}; {cure}"))
            continue
        few = free < 4e9
        text = f"{name}, {size(free)} of {size(total)} free"
        if few:
            text += "; stop other processes on it, or expect smaller, slower batches"
        findings.append(_finding("warning" if few else "ok", "gpu", f"cuda:{number}", text))
    return findings


def _check_mps() -> Finding:
    """The GPU of a Mac, after a test computation on it."""
    import torch

    try:
        torch.ones(8, 8, device="mps").matmul(torch.ones(8, 8, device="mps")).cpu()
    except RuntimeError as error:
        text = f"the GPU of this Mac does not work ({str(error).strip().splitlines()[0]}); set `device: cpu`"
        return _finding("problem", "gpu", "mps", text)
    return _finding("ok", "gpu", "mps", "the GPU of this Mac, for encoders in fp32; methods run on the CPU")


def _driver() -> str:
    """A description of this machine's GPUs and driver; "" if there are none."""
    command = shutil.which("nvidia-smi")
    if not command:
        return ""
    query = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""  # the tool exists, but there is no GPU or no driver
    gpus = [line.split(", ") for line in shown.splitlines() if line.strip()]
    return f"this machine has {first_few(one[0] for one in gpus)} (driver {gpus[0][-1]})" if gpus else ""


def _why_unseen(torch, messages: list) -> str:
    """The most likely cause, with torch's own warning."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES is {visible!r}; unset it, or set `device: cpu`"
    if torch.version.cuda is None:
        return "the installed torch is for CPUs only; install the version in requirements.txt"
    if visible and not messages:  # torch warns about a driver that is too old
        return f"CUDA_VISIBLE_DEVICES is {visible!r}, which is no GPU of this machine; correct or unset it"
    warning = f" ({str(messages[0].message).strip().splitlines()[0]})" if messages else ""
    return (
        f"the driver is most likely too old for CUDA {torch.version.cuda}{warning}; update it, or install a torch "
        "built for an older CUDA"
    )


def _benefiting(plan: dict) -> tuple[str, ...]:
    """The encoders and methods that benefit from a GPU."""
    networks = [name for name, options in (plan.get("encoders") or {}).items() if options.get("weights")]
    methods = [name for name, facts in (plan.get("methods") or {}).items() if facts.get("gpu")]
    return (*networks, *methods)


# --- encoders ---------------------------------------------------------------------------------------------------------


def check_encoder(name: str, options: dict) -> list[Finding]:
    """Check an encoder's model, options and weights: readable, or available from the hub.

    Raises
    ------
    InputError
        if its options are wrong, or its local weights are missing.
    """
    from ctrflow import encoders

    encoders.check(name, options)
    problem = encoders.access(options)
    if problem:
        return [_finding("problem", "encoders", name, problem)]
    if not encoders.is_network(options):
        return [_finding("ok", "encoders", name, "needs no weights")]
    weights = options.get("weights") or "hub"
    if weights == "random":
        return [_finding("warning", "encoders", name, "weights are `random`, for tests: features are meaningless")]
    if weights in ("hub", "package"):
        return [_finding("ok", "encoders", name, f"weights are available from the {weights}")]
    return [_finding("ok", "encoders", name, f"weights {weights}, {size(Path(weights).stat().st_size)}")]


# --- sections ---------------------------------------------------------------------------------------------------------


def _check_sections(plan: dict, folder: Path, until: float) -> tuple[list[Finding], list[Extent], list, int]:
    """Findings of all sections, the sizes of those whose files exist, a `compare.Look` at each that was read, in the
    order of the sheet, and the number of files still to be fetched."""
    to_fetch = {
        os.path.normpath(path): url for path, url in (plan.get("public") or {}).items() if not Path(path).exists()
    }
    findings, readable, extents, looks, missing = [], [], [], [], set()
    for row in plan["rows"]:
        own = _to_fetch_of(row, to_fetch)
        missing |= set(own)
        if own:
            origins = first_few(sorted({_source(own[path]) for path in own}))
            text = f"the workflow will get {counted(len(own), 'missing file')} from {origins}"
            findings.append(_finding("ok", "sections", row["section"], text))
        problems = _attempt("sections", row["section"], _check_files, row, list(plan.get("public") or {}))
        findings += problems
        lacks_counts = any(path not in (row.get("image"), row.get("labels"), row.get("drawn")) for path in own)
        if not problems and not lacks_counts:
            readable.append((_seconds_to_read(row, folder), row))
    unread = []
    for seconds, row in sorted(readable, key=lambda item: item[0]):
        if time.monotonic() + seconds > until:
            unread.append(row["section"])
            extents.append(_estimated(row))
            continue
        logger.info("checking section %s", row["section"])
        with _logged() as messages:
            of_section = _attempt(
                "sections", row["section"], _check_section, row, plan, folder, to_fetch, extents, looks
            )
        findings += [_finding(level, "sections", row["section"], text) for level, text in dict.fromkeys(messages)]
        findings += of_section
    if unread:
        text = f"not read within the time limit, only the files are known to exist: {first_few(unread, 20)}"
        findings.append(_finding("warning", "sections", "time", text))
    order = [row["section"] for row in plan["rows"]]
    return findings, extents, sorted(looks, key=lambda one: order.index(one.section)), len(missing)


def _to_fetch_of(row: dict, to_fetch: dict) -> dict[str, str]:
    """The files of a row, or inside its folder, that the workflow will create or download: path -> origin."""
    named = [row.get(column) for column in ("path", "image", "labels", "alignment", "drawn")]
    named = {os.path.normpath(path) for path in (*named, *_raw_files(row)) if path}
    inside = os.path.normpath(row["path"]) + os.sep
    return {path: url for path, url in to_fetch.items() if path in named or path.startswith(inside)}


def _source(url: str) -> str:
    return urlsplit(url).hostname or url


def _check_files(row: dict, public: list[str]) -> list[Finding]:
    """One problem for each missing file of a row that the workflow will not fetch."""
    from ctrflow.plan import sheet

    return [
        _finding("problem", "sections", row["section"], text) for text in sheet.missing_files([row], fetched=public)
    ]


def _check_section(row: dict, plan: dict, folder: Path, to_fetch: dict, extents: list, looks: list) -> list[Finding]:
    """Read a section as the workflow would: spots, image, labels. Its size is appended to `extents`, and what is held
    against other sections to `looks`."""
    from ctrflow.folds import compare

    name = row["section"]
    spots, cells = _read(row, folder)
    facts = spots.uns["section"]
    counts_bytes = float((spots if cells is None else cells).X.nnz * VALUE_BYTES)
    extents.append(Extent(name, spots.n_obs, counts_bytes, read=True))
    scale = f"{float(facts['um_per_px']):.4g} µm per px ({facts['um_per_px_from']})"
    findings = [_finding("ok", "sections", name, f"{spots.n_obs:,} spots, {spots.n_vars:,} genes, {scale}")]
    seen_by = plan["seen_by"].get(name) if "seen_by" in plan else plan.get("encoders")
    if not facts["image"] and seen_by:
        text = (
            f"no image for encoder {first_few(seen_by)}; fill column image of the section sheet, or use encoder `none` "
            "in the study"
        )
        findings.append(_finding("problem", "sections", name, text))
    if facts["image"] and os.path.normpath(facts["image"]) not in to_fetch:
        findings += _attempt("sections", name, _check_placement, row, spots)
    labels = []
    if row.get("labels") and os.path.normpath(row["labels"]) not in to_fetch:
        words_path = plan.get("label_words") or "config/label_words.tsv"
        findings += _attempt("sections", name, _check_labels, row, spots, cells, words_path, labels)
    looks.append(compare.look(spots, *labels))
    if row.get("drawn") and os.path.normpath(row["drawn"]) not in to_fetch:
        words_path = plan.get("label_words") or "config/label_words.tsv"
        findings += _attempt("sections", name, _check_drawn, row, spots, cells, words_path, *labels)
    for model in plan.get("given", {}).get(name, ()):
        findings += _attempt("model", name, check_model, spots, *model)
    return findings


def _check_placement(row: dict, spots) -> list[Finding]:
    from ctrflow import readers
    from ctrflow.sections import placement

    results = placement.check_placement(spots, readers.image_path(row | {"image": ""}))
    problems = [_finding(one.level, "sections", row["section"], one.message) for one in results if one.level != "ok"]
    return problems or [_finding("ok", "sections", row["section"], "the spots fit the image")]


def _check_labels(row: dict, spots, cells, words_path: str, read: list) -> list[Finding]:
    """Check that labels can be read and belong to these spots; the labels of spots are not reported.

    Their table is appended to `read`.
    """
    from ctrflow.sections import labels

    words = labels.read_words(words_path, row.get("cohort") or "")
    table = labels.read_labels(row["labels"], spots, words, cells, words_path)
    read.append(table)
    known = table["label"].dropna()
    text = f"labels of {len(known):,} of {len(table):,} spots"
    one_class = known.nunique() < 2 and row.get("normal") != "yes"
    if one_class:
        text += (
            f", {'all of one class' if len(known) else 'none known'}; the section cannot be evaluated, or trained on "
            f"alone: check {row['labels']} and its words in {words_path}"
        )
    return [_finding("warning" if one_class else "ok", "sections", row["section"], text)]


def _check_drawn(row: dict, spots, cells, words_path: str, labels=None) -> list[Finding]:
    """Check that what is drawn can be read, and say how much it is.

    Of `labels`, the table of `labels.read_labels`, is told only that they say the opposite of most of a class: who
    draws must not learn from a warning how well the drawing fits the truth.
    """
    from ctrflow.within import regions

    table = regions.read(row["drawn"], spots, words_path, cells)
    counts = {word: int((table["label"] == value).sum()) for value, word in CLASSES.items()}
    drawn = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    text = f"drawn: {drawn} of {len(table):,} spots, {table['region'].max() + 1} regions"
    warnings = []
    if not all(counts.values()):
        warnings.append(
            "draw both classes: without a model to build on a map needs them, and on top of one it is better with them"
        )
    if labels is not None:
        warnings += _opposite(table, labels, row)
    return [_finding("warning" if warnings else "ok", "sections", row["section"], "; ".join([text, *warnings]))]


def _opposite(drawn, labels, row: dict) -> list[str]:
    """The classes of a drawing of which most spots have the other label."""
    true = labels.set_index("spot")["label"].astype(float)
    told = []
    for value, word in CLASSES.items():
        known = true.reindex(drawn["spot"][drawn["label"].astype(float) == value]).dropna()
        other = int((known != value).sum())
        if 2 * other > len(known):
            told.append(f"{other:,} of {len(known):,} spots drawn as {word}")
    if not told:
        return []
    both = f"{row['labels']} and {row['drawn']}"
    return [f"labels say the opposite of {' and '.join(told)}: check the words and the section of {both}"]


def check_model(spots, path: str, min_gene_share: float | None = None, genes: str = "") -> list[Finding]:
    """Check whether a given model applies to a section: its genes, and whether it learned from sections like this one.

    `genes` is the table of human genes, see `gene_names.read`; "" for names as they are.

    Raises
    ------
    InputError
        if the section measures too few of the model's genes.
    """
    from ctrflow import storage
    from ctrflow.features import gene_names
    from ctrflow.training import model_file

    tensors, metadata = storage.read_safetensors(path)
    model_file.require_beside(path, tensors, metadata)
    facts, name = spots.uns["section"], str(spots.uns["section"]["section"])
    sections, patients = counted(len(metadata["sections"]), "section"), counted(len(metadata["patients"]), "patient")
    kinds = ", ".join([*metadata["tissues"], *metadata["platforms"]])
    learned = f"{path}: {metadata['method']}, trained on {sections} of {patients} ({kinds})"
    if "gene" not in metadata["modalities"]:
        return [_finding("ok", "model", name, learned)]
    human, expression = gene_names.read(genes) if genes else None, tensors.get(model_file.PROFILE)
    spots, measured, found = model_file.examined(spots, name, metadata, path, min_gene_share, human, expression)
    text = f"{learned}; {measured:,} of its {len(metadata['genes']):,} genes are measured"
    if found:
        text += f", {found.depth:,.0f} counts a spot"
    if facts["platform"] not in metadata["platforms"]:
        text += f"; the section is {facts['platform']}"
    concerns = [f"unlike what {path} learned from: {concern}" for concern in (found.concerns if found else ())]
    return [_finding("ok", "model", name, text), *(_finding("warning", "model", name, one) for one in concerns)]


def check_study(plan: dict, looks: list) -> list[Finding]:
    """Hold the sections that were read against each other, and against models and marker lists: see `folds.compare`."""
    from ctrflow.folds import compare
    from ctrflow.training import model_file

    study = compare.Study(looks, plan.get("compared") or ())
    lists, genes = plan.get("markers") or (), plan.get("genes") or ""
    models = [path for given in (plan.get("given") or {}).values() for path, *_ in given]
    read = [path for _, path, _ in lists]
    return [
        *_attempt("study", "gene names", compare.names, study, plan["rows"], models, read),
        *_attempt("study", "markers", compare.marker_genes, study, lists),
        *_attempt("study", "positions", compare.positions, study, plan.get("positions") or (), genes),
        *_attempt("study", "depth", compare.depths, study, model_file.DEEPER),
        *_attempt("study", "labels", compare.words, study),
    ]


def _read(row: dict, folder: Path):
    """Spots, and cells or None for platforms without: from up-to-date results, else from the raw files."""
    from ctrflow import readers, storage
    from ctrflow.sections import aggregate

    of_cells = readers.platforms()[row["platform"]].cells
    if _is_ingested(row, folder):
        results = folder / "sections" / row["section"]
        spots = storage.read_h5ad(results / "spots.h5ad")
        if _as_in_sheet(spots.uns["section"], row):
            return spots, storage.read_h5ad(results / "cells.h5ad") if of_cells else None
    section = readers.read_section(row)
    return (aggregate.aggregate_cells(section, row.get("pool", "")), section) if of_cells else (section, None)


def _is_ingested(row: dict, folder: Path) -> bool:
    """Whether the section's results exist and are newer than its raw files."""
    from ctrflow import readers

    if row.get("library"):  # which of a file's sections the results are of, they do not say
        return False
    names = ["spots.h5ad", "cells.h5ad"] if readers.platforms()[row["platform"]].cells else ["spots.h5ad"]
    made = [folder / "sections" / row["section"] / name for name in names]
    raw = _raw_files(row)
    if not all(path.exists() for path in (*made, *raw)):
        return False
    return min(path.stat().st_mtime for path in made) > max((path.stat().st_mtime for path in raw), default=0)


def _as_in_sheet(section: dict, row: dict) -> bool:
    """Whether an ingested section matches the sheet; the reader fills empty cells of the sheet."""
    from ctrflow import readers
    from ctrflow.readers.platform import POOLS

    given = row | {"image": readers.given_image(row)}
    texts = all(section.get(name) == given[name] for name in ("image", "cohort", "platform") if given.get(name))
    numbers = [name for name in ("um_per_px", "spot_um", "image_scale") if row.get(name)]
    of_cells = readers.platforms()[row["platform"]].cells
    pooled = not of_cells or section.get("pool") == (row.get("pool") or POOLS[0])
    return texts and pooled and all(float(section.get(name, 0)) == float(row[name]) for name in numbers)


def _seconds_to_read(row: dict, folder: Path) -> float:
    if _is_ingested(row, folder):
        return (folder / "sections" / row["section"] / "spots.h5ad").stat().st_size / H5AD_BYTES_PER_S
    return _raw_bytes(row) / RAW_BYTES_PER_S


def _raw_files(row: dict) -> list[Path]:
    """The files of a section's counts; none if the reader fails, which `_check_files` reports."""
    from ctrflow import readers

    try:
        return [Path(path) for path in readers.files(row)]
    except (OSError, *FAILURES):
        return []


def _raw_bytes(row: dict) -> float:
    paths = [inner for path in _raw_files(row) for inner in (path.rglob("*") if path.is_dir() else [path])]
    return float(sum(path.stat().st_size for path in paths if path.is_file()))


def _estimated(row: dict) -> Extent:
    counts_bytes = RAW_TO_MEMORY * _raw_bytes(row)
    return Extent(row["section"], round(counts_bytes / VALUE_BYTES / VALUES_PER_SPOT), counts_bytes, read=False)


# --- disk and memory --------------------------------------------------------------------------------------------------


def check_disk(folder: Path, extents: list[Extent], encoders: dict, folds: int, n_missing: int = 0) -> list[Finding]:
    """Check the disk space for the results: at least the missing sections and embeddings, at most all of every fold."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        text = f"{existing}: cannot be written to; make it writable, or run in your own folder"
        return [_finding("problem", "disk", folder.name, text)]
    sections = sum(MEMORY_TO_FILE * one.counts_bytes for one in extents)
    fields = sum(_fields_of_view(options) for options in encoders.values())
    embeddings = sum(one.spots * EMBEDDING_BYTES * fields for one in extents)
    least = sum(_unmade_bytes(folder, one, encoders) for one in extents)
    # plus the exported copy, and for each encoder the tables of every fold
    most = least + sections + folds * (sections * max(1, len(encoders)) + embeddings)
    free = shutil.disk_usage(existing).free
    text = f"{size(free)} free"
    if extents:
        text += (
            f"; the results need another {size(least)} for sections and embeddings, up to {size(most)} with folds and "
            "exports"
        )
    if n_missing:
        text += f"; not counted: {counted(n_missing, 'missing file')}"
    level = "problem" if free < least else "warning" if free < most else "ok"
    if level != "ok":
        text += "; free some space, or use a folder on a larger disk"
    return [_finding(level, "disk", folder.name, text)]


def _unmade_bytes(folder: Path, one: Extent, encoders: dict) -> float:
    """The disk space for a section's missing spots and embeddings."""
    spots = 0.0 if (folder / "sections" / one.section / "spots.h5ad").exists() else MEMORY_TO_FILE * one.counts_bytes
    made = [name for name in encoders if (folder / "embeddings" / name / f"{one.section}.h5ad").exists()]
    fields = sum(_fields_of_view(options) for name, options in encoders.items() if name not in made)
    return spots + one.spots * EMBEDDING_BYTES * fields


def _fields_of_view(options: dict) -> int:
    patch_um = options.get("patch_um")
    return len(patch_um) if isinstance(patch_um, list | tuple) else 1


def check_memory(extents: list[Extent]) -> list[Finding]:
    """Check the memory for the largest section: the libraries and three copies of its counts."""
    if not extents:
        return []
    largest = max(extents, key=lambda one: one.counts_bytes)
    need = LIBRARIES_BYTES + READING_COPIES * largest.counts_bytes
    total = memory_bytes()
    basis = "as read" if largest.read else f"estimated as {RAW_TO_MEMORY:.0f} times its files"
    text = (
        f"the largest section, {largest.section}, needs about {size(need)} (libraries {size(LIBRARIES_BYTES)}, "
        f"{READING_COPIES} copies of its counts, {size(largest.counts_bytes)} {basis}); this machine has {size(total)}"
    )
    level = "problem" if largest.read and need > total else "warning" if need > total else "ok"
    if level != "ok":
        text += "; use a machine with more memory, or a coarser bin"
    return [_finding(level, "memory", "counts", text)]
