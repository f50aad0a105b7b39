"""Everything of a study that would fail in hour three, looked for in a minute and told at once.

`examine` goes through the rooms of the house (configuration, versions, gpu, encoders, sections, disk, memory) and gives
a list of findings; nothing that is wrong stops it. `page` sets the list for a terminal.
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

from ctrflow.disk import size
from ctrflow.errors import InputError, first_few
from ctrflow.machine import choose
from ctrflow.training.memory import memory_bytes

logger = logging.getLogger("ctrflow")

LEVELS = ("ok", "warning", "problem")  # problems last: nearest the prompt
BUDGET_S = 60.0
WIDTH = 120

# of requirements.in, but no step needs them
OPTIONAL = {
    "atheris", "hypothesis", "playwright", "pytest", "pytest-xdist", "ruff", "snakefmt", "spatialdata-io",
    "snakemake", "snakemake-executor-plugin-slurm",
}  # fmt: skip
# What reading a damaged file, or a library that does not fit, may raise: one broken section must not hide the others.
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

# Estimates. Measured on HER2ST: 1.3 bytes of a vendor's gzipped counts hold one stored value; a value takes 8 bytes in
# memory (float32 and a 32-bit column) and 5.6 to 6.1 in spots.h5ad or, with 3,000 genes and two layers, in a fold.
VALUE_BYTES = 8
RAW_TO_MEMORY = 6.0
MEMORY_TO_FILE = 0.8
VALUES_PER_SPOT = 2000  # 1,600 to 3,800 on HER2ST
READING_COPIES = 3  # the vendor's matrix, ours, and one on the way
LIBRARIES_BYTES = 1e9
EMBEDDING_BYTES = 4.0 * 2048  # of a spot, with ResNet50; the others are narrower
RAW_BYTES_PER_S = 5e6
H5AD_BYTES_PER_S = 50e6


@dataclass(frozen=True)
class Finding:
    """What one look found: `level` (ok, warning, problem), the `room`, `what` it is about, a message with the cure."""

    level: str
    room: str
    what: str
    message: str


@dataclass(frozen=True)
class Extent:
    """How large a section is: spots, and bytes of its counts in memory; `read` or only guessed from its files."""

    section: str
    spots: int
    counts_bytes: float
    read: bool


def examine(plan: dict, budget_s: float = BUDGET_S) -> list[Finding]:
    """Look at everything a study needs, in about `budget_s` seconds.

    Parameters
    ----------
    plan
        What the workflow is about to do, as plain data. `rows`: the sheet's rows that the study uses (dicts of text).
        `public`: path -> url (or words) of files that the workflow will make or download itself. `encoders`: id ->
        options. `seen_by`: section -> the encoders that look at it; left out, all do. `methods`: variant -> dict, of
        which `gpu` says whether it gains from one. `folds`: how many there are. `device`, `folder` (of the results),
        `lock` (requirements.txt), `label_words`, `study` (its name). `problems`: what reading the configuration has
        already found. All but `rows` and `lock` may be left out.
    budget_s
        Sections are read, the small ones first, while this time lasts; then only their files are looked for.

    Returns
    -------
    list of Finding, in the order in which things were looked at. Nothing is raised for anything a user can put right.
    """
    start = time.monotonic()
    folder = Path(plan.get("folder") or "results")
    rows, options = plan["rows"], plan.get("encoders") or {}
    findings = _attempt("versions", "lock", check_versions, Path(plan["lock"]))
    findings += _attempt("gpu", "torch", check_device, plan.get("device") or "auto", _gaining(plan))
    with ThreadPoolExecutor(8) as pool:  # a hub that does not answer takes seconds each time
        checks = [
            pool.submit(_attempt, "encoders", name, check_encoder, name, given) for name, given in options.items()
        ]
    findings += [one for check in checks for one in check.result()]
    found, extents, coming = _check_sections(plan, folder, start + budget_s)
    findings += found
    folds = int(plan.get("folds") or len(rows))
    findings += _attempt("disk", folder.name, check_disk, folder, extents, options, folds, coming)
    findings += _attempt("memory", "counts", check_memory, extents)
    return _of_configuration(plan, findings) + findings


def _of_configuration(plan: dict, findings: list[Finding]) -> list[Finding]:
    """What reading the configuration found, without what the rooms say again."""
    told = {one.message for one in findings}
    study = str(plan.get("study") or "")
    found = []
    for text in plan.get("problems") or ():
        heading, *lines = text.split("\n  ")
        fresh = [line for line in lines if line not in told]
        if any(heading.endswith(message) for message in told) or (lines and not fresh):
            continue
        found.append(Finding("problem", "configuration", study, "\n  ".join([heading, *fresh])))
    return found or [Finding("ok", "configuration", study, f"{_counted(len(plan['rows']), 'section')} to look at")]


def page(findings: list[Finding]) -> str:
    """The findings as a plain table, problems last, and how many there are of each kind in the closing line."""
    widths = [max((len(getattr(one, name)) for one in findings), default=0) for name in ("level", "room", "what")]
    blocks = []
    for level in LEVELS:
        lines = [line for one in findings if one.level == level for line in _lines(one, widths)]
        blocks += ["\n".join(lines)] if lines else []
    counts = {level: sum(one.level == level for one in findings) for level in LEVELS}
    closing = f"{_counted(counts['problem'], 'problem')}, {_counted(counts['warning'], 'warning')}, {counts['ok']} ok"
    return "\n\n".join([*blocks, closing]) + "\n"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _lines(finding: Finding, widths: list[int]) -> list[str]:
    import textwrap

    cells = (finding.level, finding.room, finding.what)
    head = "".join(cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=True))
    # paths stay whole, so that they can be copied
    options = {"width": max(WIDTH - len(head), 40), "break_long_words": False, "break_on_hyphens": False}
    text = [part for line in finding.message.splitlines() for part in textwrap.wrap(line, **options) or [""]]
    return [(head if number == 0 else " " * len(head)) + part for number, part in enumerate(text or [""])]


def _attempt(room: str, what: str, check: Callable, *arguments) -> list[Finding]:
    """The findings of a check; what it raises becomes one."""
    try:
        return check(*arguments)
    except InputError as error:
        return [Finding("problem", room, what, str(error))]
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        return [Finding("problem", room, what, f"{where}{reason}; check the path, its permissions and its disk")]
    except FAILURES as error:
        text = f"{type(error).__name__}: {str(error).strip() or 'no more is known'}; the run would stop here as well"
        return [Finding("problem", room, what, text)]


@contextmanager
def _listening() -> Iterator[list[str]]:
    """The warnings that the library logs meanwhile."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)


# --- versions ---------------------------------------------------------------------------------------------------------


def check_versions(lock: Path) -> list[Finding]:
    """Python and the packages that requirements.in names, as installed and as the lock has them.

    Raises
    ------
    InputError
        if there is no lock.
    """
    if not lock.is_file():
        raise InputError(f"{lock}: no such file; run this from the project's folder, where the lock lies")
    text = lock.read_text(encoding="utf-8")
    cure = f"run `python -m pip install --require-hashes -r {lock}` in this environment"
    findings = [_check_python(text, lock)]
    locked = _locked(text)
    installed = {name: _installed(name) for name in locked}
    missing = [name for name in locked if installed[name] is None and name not in OPTIONAL]
    findings += [
        Finding("problem", "versions", name, f"not installed, {locked[name]} is needed; {cure}") for name in missing
    ]
    other = [name for name in locked if installed[name] and _release(installed[name]) != _release(locked[name])]
    for name in other:
        text = f"{installed[name]} is installed, {lock} has {locked[name]}; results may differ: {cure}"
        findings.append(Finding("warning", "versions", name, text))
    pair = [name for name in ("torch", "torchvision") if name in other]
    if len(pair) == 1 and not {"torch", "torchvision"} & set(missing):
        text = (
            f"{installed.get('torch')} and {installed.get('torchvision')} are not built for each other, "
            f"{locked.get('torch')} and {locked.get('torchvision')} are; {cure}"
        )
        findings.append(Finding("problem", "versions", "torch, torchvision", text))
    as_locked = sum(installed[name] is not None for name in locked) - len(other)
    findings.append(Finding("ok", "versions", "packages", f"{as_locked} as in {lock}"))
    return findings


def _check_python(lock_text: str, lock: Path) -> Finding:
    stated = re.search(r"--python-version[ =](\d+)\.(\d+)", lock_text)
    least = (int(stated[1]), int(stated[2])) if stated else (3, 11)
    here = platform.python_version()
    if tuple(map(int, platform.python_version_tuple()[:2])) < least:
        wanted = ".".join(map(str, least))
        text = f"{here} is too old, {lock} was made for {wanted}; make the environment with Python {wanted} or newer"
        return Finding("problem", "versions", "python", text)
    return Finding("ok", "versions", "python", here)


def _locked(text: str) -> dict[str, str]:
    """Name -> version of the lock's packages that requirements.in names; of all, where the lock does not say which."""
    versions, direct, name = {}, set(), None
    for line in text.splitlines():
        pinned = re.match(r"([A-Za-z0-9][\w.\-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", line)
        if pinned:
            name = pinned[1].lower()
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
    """2.15.0+cpu -> 2.15.0: the build is another matter."""
    return version.partition("+")[0]


# --- gpu --------------------------------------------------------------------------------------------------------------


def check_device(device: str, gaining: tuple[str, ...] = ()) -> list[Finding]:
    """Whether networks can run where they should. `gaining`: encoders and methods that are slow without a GPU."""
    # torchvision fails at import when it was built for another torch
    import torch
    import torchvision  # noqa: F401

    built = f"torch {torch.__version__}, {f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU only'}"
    findings = [Finding("ok", "gpu", "torch", built)]
    if device == "cpu":
        return [*findings, Finding("ok", "gpu", "device", "the CPU, as the configuration asks")]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        refused = _attempt("gpu", "device", _require_device, device)
        available = torch.cuda.is_available()
    if available and not refused:
        return findings + _check_gpus()
    driver = _driver()
    if driver:
        text = f"{driver}, but torch sees none: {_why_unseen(torch, said)}"
        return [*findings, *refused, Finding("problem" if refused else "warning", "gpu", "driver", text)]
    if device == "cuda" and shutil.which("sbatch"):
        text = "no GPU here, as on most login nodes: jobs ask Slurm for one, and only there it shows whether it works"
        return [*findings, Finding("warning", "gpu", "device", text)]
    slow = f"; {first_few(gaining)} would be faster with one" if gaining else ""
    return [*findings, *(refused or [Finding("ok", "gpu", "device", f"no GPU here: all runs on the CPU{slow}")])]


def _require_device(device: str) -> list[Finding]:
    choose(device)
    return []


def _check_gpus() -> list[Finding]:
    """One finding for each GPU that torch sees, after a small computation on it."""
    import torch

    findings = []
    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        try:
            torch.ones(8, 8, device=f"cuda:{number}").matmul(torch.ones(8, 8, device=f"cuda:{number}")).cpu()
            free, total = torch.cuda.mem_get_info(number)
        except RuntimeError as error:  # no kernels for this generation, or memory taken by others
            text = f"{name} cannot compute ({str(error).strip().splitlines()[0]})"
            cure = "free it, or install a torch built for it, or set `device: cpu`"
            level, cure = ("warning", "the first one is used") if number else ("problem", cure)
            findings.append(Finding(level, "gpu", f"cuda:{number}", f"{text}; {cure}"))
            continue
        few = free < 4e9
        text = f"{name}, {size(free)} of {size(total)} free"
        if few:
            text += "; end what else runs on it, or expect smaller and slower batches"
        findings.append(Finding("warning" if few else "ok", "gpu", f"cuda:{number}", text))
    return findings


def _driver() -> str:
    """The GPUs and the driver of this machine in words, "" where there are none."""
    command = shutil.which("nvidia-smi")
    if not command:
        return ""
    query = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""  # the tool is there, but no card or no driver
    gpus = [line.split(", ") for line in shown.splitlines() if line.strip()]
    return f"this machine has {first_few(one[0] for one in gpus)} (driver {gpus[0][-1]})" if gpus else ""


def _why_unseen(torch, said: list) -> str:
    """The likeliest cause, with what torch itself has to say."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES is {visible!r}; unset it, or set `device: cpu`"
    if torch.version.cuda is None:
        return "this torch is built for CPUs only; install the locked one from requirements.txt"
    if visible and not said:  # of a driver that is too old torch says so
        return f"CUDA_VISIBLE_DEVICES is {visible!r}, which names none of them; correct or unset it"
    words = f" ({str(said[0].message).strip().splitlines()[0]})" if said else ""
    return (
        f"the driver is most likely too old for CUDA {torch.version.cuda}{words}; update it, or install a torch built "
        "for an older CUDA"
    )


def _gaining(plan: dict) -> tuple[str, ...]:
    networks = [name for name, options in (plan.get("encoders") or {}).items() if options.get("weights")]
    methods = [name for name, facts in (plan.get("methods") or {}).items() if facts.get("gpu")]
    return (*networks, *methods)


# --- encoders ---------------------------------------------------------------------------------------------------------


def check_encoder(name: str, options: dict) -> list[Finding]:
    """An encoder's model, options and weights: there and readable, or to be had from the hub.

    Raises
    ------
    InputError
        if its options are wrong, or its local weights missing.
    """
    from ctrflow import encoders

    encoders.check(name, options)
    refused = encoders.access(options)
    if refused:
        return [Finding("problem", "encoders", name, refused)]
    if not encoders.is_network(options):
        return [Finding("ok", "encoders", name, "needs no weights")]
    weights = options.get("weights") or "hub"
    if weights == "random":
        return [Finding("warning", "encoders", name, "weights are `random`: for tests; its features mean nothing")]
    if weights == "hub":
        return [Finding("ok", "encoders", name, "weights can be had from the hub")]
    return [Finding("ok", "encoders", name, f"weights {weights}, {size(Path(weights).stat().st_size)}")]


# --- sections ---------------------------------------------------------------------------------------------------------


def _check_sections(plan: dict, folder: Path, until: float) -> tuple[list[Finding], list[Extent], int]:
    """Findings of all sections, the sizes of those whose files are here, and how many files are still to come."""
    coming = {
        os.path.normpath(path): url for path, url in (plan.get("public") or {}).items() if not Path(path).exists()
    }
    findings, here, extents, awaited = [], [], [], set()
    for row in plan["rows"]:
        own = _coming_of(row, coming)
        awaited |= set(own)
        if own:
            text = (
                f"{_counted(len(own), 'file')} will come from {first_few(sorted({_source(own[path]) for path in own}))}"
            )
            findings.append(Finding("ok", "sections", row["section"], text))
        lost = _attempt("sections", row["section"], _check_files, row, list(plan.get("public") or {}))
        findings += lost
        counts_come = any(path not in (row.get("image"), row.get("labels")) for path in own)
        if not lost and not counts_come:
            here.append((_seconds_to_read(row, folder), row))
    unread = []
    for seconds, row in sorted(here, key=lambda item: item[0]):
        if time.monotonic() + seconds > until:
            unread.append(row["section"])
            extents.append(_guessed(row))
            continue
        logger.info("looking at section %s", row["section"])
        with _listening() as heard:
            found = _attempt("sections", row["section"], _check_section, row, plan, folder, coming, extents)
        findings += [Finding("warning", "sections", row["section"], text) for text in dict.fromkeys(heard)]
        findings += found
    if unread:
        text = f"not read for want of time, only their files were looked for: {first_few(unread, 20)}"
        findings.append(Finding("warning", "sections", "time", text))
    return findings, extents, len(awaited)


def _coming_of(row: dict, coming: dict) -> dict[str, str]:
    """The files of a row, or inside its folder, that the workflow will make or download: path -> where from."""
    named = [row.get(column) for column in ("path", "image", "labels", "alignment")]
    named = {os.path.normpath(path) for path in (*named, *_raw_files(row)) if path}
    inside = os.path.normpath(row["path"]) + os.sep
    return {path: url for path, url in coming.items() if path in named or path.startswith(inside)}


def _source(url: str) -> str:
    return urlsplit(url).hostname or url


def _check_files(row: dict, public: list[str]) -> list[Finding]:
    """One problem for each file of a row that is not here and will not come."""
    from ctrflow.plan import sheet

    return [Finding("problem", "sections", row["section"], text) for text in sheet.missing_files([row], fetched=public)]


def _check_section(row: dict, plan: dict, folder: Path, coming: dict, extents: list) -> list[Finding]:
    """Read a section as the workflow would: spots, their place in the image, labels. Its size goes to `extents`."""
    name = row["section"]
    spots, cells = _read(row, folder)
    facts = spots.uns["section"]
    counts_bytes = float((spots if cells is None else cells).X.nnz * VALUE_BYTES)
    extents.append(Extent(name, spots.n_obs, counts_bytes, read=True))
    scale = f"{float(facts['um_per_px']):.4g} µm per px"
    found = [Finding("ok", "sections", name, f"{spots.n_obs:,} spots, {spots.n_vars:,} genes, {scale}")]
    seen_by = plan["seen_by"].get(name) if "seen_by" in plan else plan.get("encoders")
    if not facts["image"] and seen_by:
        text = (
            f"no image, which encoder {first_few(seen_by)} must look at; fill column image of the section sheet, or "
            "use encoder `none` in the study"
        )
        found.append(Finding("problem", "sections", name, text))
    if facts["image"] and os.path.normpath(facts["image"]) not in coming:
        found += _attempt("sections", name, _check_placement, row, spots)
    if row.get("labels") and os.path.normpath(row["labels"]) not in coming:
        words_path = plan.get("label_words") or "config/label_words.tsv"
        found += _attempt("sections", name, _check_labels, row, spots, cells, words_path)
    return found


def _check_placement(row: dict, spots) -> list[Finding]:
    from ctrflow import readers
    from ctrflow.sections import placement

    found = placement.check_placement(spots, readers.image_path(row | {"image": ""}))
    told = [Finding(one.level, "sections", row["section"], one.message) for one in found if one.level != "ok"]
    return told or [Finding("ok", "sections", row["section"], "the spots fit the image")]


def _check_labels(row: dict, spots, cells, words_path: str) -> list[Finding]:
    """Labels can be read and are of these spots; which spot has which is not told."""
    from ctrflow.sections import labels

    words = labels.read_words(words_path, row.get("cohort") or "")
    table = labels.read_labels(row["labels"], spots, words, cells, words_path)
    known = table["label"].dropna()
    text = f"labels of {len(known):,} of {len(table):,} spots"
    one_class = known.nunique() < 2 and row.get("normal") != "yes"
    if one_class:
        text += (
            f", {'all of one class' if len(known) else 'none known'}: it cannot be evaluated, nor trained on alone; "
            f"check {row['labels']} and what {words_path} says of its words"
        )
    return [Finding("warning" if one_class else "ok", "sections", row["section"], text)]


def _read(row: dict, folder: Path):
    """Spots, and cells or None where none were read: from the results where they are up to date, else anew."""
    from ctrflow import readers, storage
    from ctrflow.sections import aggregate

    of_cells = readers.platforms()[row["platform"]].cells
    if _is_ingested(row, folder):
        place = folder / "sections" / row["section"]
        spots = storage.read_h5ad(place / "spots.h5ad")
        if _as_in_sheet(spots.uns["section"], row):
            return spots, storage.read_h5ad(place / "cells.h5ad") if of_cells else None
    section = readers.read_section(row)
    return (aggregate.aggregate_cells(section), section) if of_cells else (section, None)


def _is_ingested(row: dict, folder: Path) -> bool:
    """Whether the section's results are there and newer than its raw files."""
    from ctrflow import readers

    names = ["spots.h5ad", "cells.h5ad"] if readers.platforms()[row["platform"]].cells else ["spots.h5ad"]
    made = [folder / "sections" / row["section"] / name for name in names]
    raw = _raw_files(row)
    if not all(path.exists() for path in (*made, *raw)):
        return False
    return min(path.stat().st_mtime for path in made) > max((path.stat().st_mtime for path in raw), default=0)


def _as_in_sheet(section: dict, row: dict) -> bool:
    """Whether what was read still is what the sheet says; its empty cells were filled by the reader."""
    texts = all(section.get(name) == row[name] for name in ("image", "cohort", "platform") if row.get(name))
    numbers = [name for name in ("um_per_px", "spot_um", "image_scale") if row.get(name)]
    return texts and all(float(section.get(name, 0)) == float(row[name]) for name in numbers)


def _seconds_to_read(row: dict, folder: Path) -> float:
    if _is_ingested(row, folder):
        return (folder / "sections" / row["section"] / "spots.h5ad").stat().st_size / H5AD_BYTES_PER_S
    return _raw_bytes(row) / RAW_BYTES_PER_S


def _raw_files(row: dict) -> list[Path]:
    """The files of a section's counts; none where its reader cannot tell, which `_check_files` says."""
    from ctrflow import readers

    try:
        return [Path(path) for path in readers.files(row)]
    except (OSError, *FAILURES):
        return []


def _raw_bytes(row: dict) -> float:
    paths = [inner for path in _raw_files(row) for inner in (path.rglob("*") if path.is_dir() else [path])]
    return float(sum(path.stat().st_size for path in paths if path.is_file()))


def _guessed(row: dict) -> Extent:
    counts_bytes = RAW_TO_MEMORY * _raw_bytes(row)
    return Extent(row["section"], round(counts_bytes / VALUE_BYTES / VALUES_PER_SPOT), counts_bytes, read=False)


# --- disk and memory --------------------------------------------------------------------------------------------------


def check_disk(folder: Path, extents: list[Extent], encoders: dict, folds: int, coming: int = 0) -> list[Finding]:
    """Room for the results: at least those sections and embeddings that are not there, at most all and every fold."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(place, os.W_OK):
        text = f"{place}: cannot be written to; make it writable, or run from a folder of your own"
        return [Finding("problem", "disk", folder.name, text)]
    sections = sum(MEMORY_TO_FILE * one.counts_bytes for one in extents)
    fields = sum(_fields_of_view(options) for options in encoders.values())
    embeddings = sum(one.spots * EMBEDDING_BYTES * fields for one in extents)
    least = sum(_unmade_bytes(folder, one, encoders) for one in extents)
    # ... the exported copy, and with each encoder the tables of every fold
    most = least + sections + folds * (sections * max(1, len(encoders)) + embeddings)
    free = shutil.disk_usage(place).free
    text = f"{size(free)} free"
    if extents:
        text += (
            f"; the results take another {size(least)} for sections and embeddings, up to {size(most)} with folds and "
            "exports"
        )
    if coming:
        text += f"; not counted: {_counted(coming, 'file')} still to come"
    level = "problem" if free < least else "warning" if free < most else "ok"
    if level != "ok":
        text += "; free some space, or put the folder on a larger disk"
    return [Finding(level, "disk", folder.name, text)]


def _unmade_bytes(folder: Path, one: Extent, encoders: dict) -> float:
    """What a section's spots and embeddings will take, without those that are there."""
    spots = 0.0 if (folder / "sections" / one.section / "spots.h5ad").exists() else MEMORY_TO_FILE * one.counts_bytes
    made = [name for name in encoders if (folder / "embeddings" / name / f"{one.section}.h5ad").exists()]
    fields = sum(_fields_of_view(options) for name, options in encoders.items() if name not in made)
    return spots + one.spots * EMBEDDING_BYTES * fields


def _fields_of_view(options: dict) -> int:
    patch_um = options.get("patch_um")
    return len(patch_um) if isinstance(patch_um, list | tuple) else 1


def check_memory(extents: list[Extent]) -> list[Finding]:
    """Memory for the largest section: the libraries and three copies of its counts."""
    if not extents:
        return []
    largest = max(extents, key=lambda one: one.counts_bytes)
    need = LIBRARIES_BYTES + READING_COPIES * largest.counts_bytes
    total = memory_bytes()
    basis = "counts as read" if largest.read else f"guessed as {RAW_TO_MEMORY:.0f} times its files"
    text = (
        f"{size(total)} on this machine; the largest section, {largest.section}, takes about {size(need)} "
        f"(libraries {size(LIBRARIES_BYTES)}, {READING_COPIES} copies of {size(largest.counts_bytes)}, {basis})"
    )
    level = "problem" if largest.read and need > total else "warning" if need > total else "ok"
    if level != "ok":
        text += "; use a machine with more, or a coarser bin"
    return [Finding(level, "memory", "counts", text)]
