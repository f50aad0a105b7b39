"""Check every path that a GPU takes: embedding, networks that learn and score, and which step gets which GPU.

    make check-gpu               on a GPU, at most eight minutes
    make check-gpu DEVICE=cpu    the same on the CPU with small inputs: whether this script works, in a minute

It prints one table, whose lines end in `ok` or in what is wrong. The exit status is 1 if a line is wrong or was not run
for want of time, and 2 without a GPU. A process keeps the device that it chose, so every measurement runs in a process
of its own, with one CPU thread; after a crash the next case starts another one.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from bench import UM_PER_PX, spots_on, texture, timed
from ctrflow import machine, methods
from ctrflow.errors import InputError

BUDGET_S = 480
NO_TIME = "not run: the time was over"
COLUMNS = ("check", "device", "CPU", "GPU memory", "deviation", "result")

# of the features from the CPU's in fp32, by the norm of what tells patches apart. A CPU's are 2e-6 (fp32), 2e-3 (fp16)
# and 2e-2 (bf16) from those in fp64. TF32 rounds as fp16 does, so that fp32 with it would be noticed
FEATURES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
# of the scores of the same model, in sd of the CPU's, and their rank correlation. On a CPU, other convolutions make
# 1e-4 sd at most, weights rounded as in TF32 1e-2 (`stands`), 2e-2 (`meatrd paper`) and 2e-3 (`meatrd reference`)
SCORES_SD, RANKS = 3e-3, 0.999

SLIDE_PX, PATCH_UM = 1024, 100.0
FEW = 4  # patches that memory is left for
SEED = 1
SECTIONS = {"P1": "her2", "T": "her2", "N1": ""}  # section -> kind of the tumour, none in a healthy one
LEARNED = {"labelled": "P1", "normal": "N1"}
IMAGE_FEATURES = 256
# whose preset `fast` is left out: `paper` with other numbers
FAST_IS_PAPER = ("meatrd", "stands")
FEW_EPOCHS = {
    "spacrd": {"epochs_align": 3, "epochs_fuse": 3, "epochs_classify": 10, "learning_rate": 1e-3},
    "meatrd": {"epochs_unet": 1, "epochs_rebuild": 1, "epochs_one_class": 1},
    "stands": {"epochs_image": 1, "epochs_extractor": 1, "epochs": 1},
}
SIZES = {
    "cuda": {
        "architecture": "vit_large_patch16_224",  # of uni
        "patches": 512,
        "sample": 8,
        "spots": 600,
        "genes": 1000,
        "options": {"meatrd": {"max_reference_spots": 200}, "stands": {"max_reference_spots": 64}},
    },
    "cpu": {
        "architecture": "vit_tiny_patch16_224",
        "patches": 8,
        "sample": 4,
        "spots": 30,
        "genes": 100,
        "options": {
            "meatrd": {"max_reference_spots": 12, "batch_size": 6},
            "stands": {"max_reference_spots": 12, "batch_size": 6, "patch_px": 16},
        },
    },
}


def main(arguments: list[str] | None = None) -> int:
    """Run all checks and print their table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = parser.parse_args(arguments).device
    if device == "cuda" and not has_gpu():
        print("check_gpu.py: torch sees no GPU; run this on a machine with one, or with --device cpu", file=sys.stderr)
        return 2
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sizes.json").write_text(json.dumps(SIZES[device]))
        lines = checks(folder, device, start_s + BUDGET_S)
        print(f"\n{time.monotonic() - start_s:.0f} s in all, of {BUDGET_S} at most")
    return report(lines)


def has_gpu() -> bool:
    """Whether torch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def checks(folder: Path, device: str, end_s: float) -> list[dict]:
    """The lines of all parts; prints what the device is."""
    about = in_children(facts, ["device"], device, folder, end_s)["device"]
    print(about.get("text", "unknown device"), flush=True)
    made = in_children(inputs, ["inputs"], "cpu", folder, end_s)["inputs"]
    lines = [
        line("device", wrong=about.get("wrong")),
        line("inputs", cpu=seconds(made), wrong=made.get("wrong")),
    ]
    for part in (embedding, fits_and_scores):
        lines += part(folder, device, end_s)
    return lines + locks(folder, device, about.get("names", ["0", "1"]), end_s)


# --- table -----------------------------------------------------------------------------------------------------------


def line(check: str, device="", cpu="", gpu_mb=None, deviation="", wrong: str | None = None) -> dict:
    """A line of the table."""
    memory = "" if gpu_mb is None else f"{gpu_mb:,.0f} MiB"
    return dict(zip(COLUMNS, (check, device, cpu, memory, deviation, wrong or "ok"), strict=True))


def report(lines: list[dict]) -> int:
    """Print the table; 1 if a line does not end in ok, else 0."""
    rows = [COLUMNS, *([str(one[name]).replace("|", "/").replace("\n", " ") for name in COLUMNS] for one in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    bad = sum(one["result"] != "ok" for one in lines)
    print(f"\n{len(lines) - bad} of {len(lines)} ok")
    return int(bad > 0)


def seconds(cost: dict) -> str:
    """The seconds of a measurement, if there are any."""
    return f"{cost['seconds']:.2f} s" if "seconds" in cost else ""


def first(*problems: str | None) -> str | None:
    """The first problem that there is."""
    return next(filter(None, problems), None)


def above(far: float, most: float, of_what: str) -> str | None:
    """What is wrong unless a deviation is at most this; NaN is wrong."""
    return None if far <= most else f"deviation {far:.1e} of {of_what}, at most {most:g} expected"


# --- processes -------------------------------------------------------------------------------------------------------


def in_children(measurement: Callable, cases: list[str], device: str, folder: Path, end_s: float) -> dict[str, dict]:
    """Case -> what the measurement finds on the device; of a case that failed, or was not run, `wrong` alone.

    One process runs all cases; where it ends early, another runs those after the failed one.
    """
    found: dict[str, dict] = {}
    while rest := cases[len(found) :]:
        command = [sys.executable, __file__, "--child", measurement.__name__, device, str(folder), *rest]
        try:
            left_s = max(end_s - time.monotonic(), 0.01)
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=left_s, check=False)
            wrong = why(done.stderr, done.returncode)
        except subprocess.TimeoutExpired:
            wrong = NO_TIME
        for case in rest:
            result = result_of(folder, measurement.__name__, case)
            if not result.is_file():
                break
            found[case] = json.loads(result.read_text())
        else:
            return found
        if wrong == NO_TIME:
            return found | {case: {"wrong": NO_TIME} for case in cases[len(found) :]}
        print(done.stderr, file=sys.stderr)
        found[cases[len(found)]] = {"wrong": wrong}
    return found


def why(said: str, status: int) -> str:
    """The error that a traceback ends with, or the exit status of a process that left none."""
    errors = re.findall(r"^(?:[\w.]+\.)?(\w+(?:Error|Interrupt|Exception)\b.*)", said, flags=re.MULTILINE)
    return errors[-1] if errors else f"exit status {status}"


def result_of(folder: Path, measurement: str, case: str) -> Path:
    """The file that a child writes."""
    return folder / f"{measurement} {case}.json"


def child(name: str, device: str, folder: Path, cases: list[str]) -> None:
    """Run a measurement for each case on a device, which is fixed for the whole process."""
    from ctrflow.logs import limit_threads

    limit_threads(1)
    machine.fix(device)
    for case in cases:
        found = globals()[name](folder, case, device)
        result = result_of(folder, name, case)
        result.with_suffix(".part").write_text(json.dumps(found))
        result.with_suffix(".part").rename(result)


def sizes_of(folder: Path) -> dict:
    """The sizes of this run."""
    return json.loads((folder / "sizes.json").read_text())


@contextmanager
def listening() -> Iterator[list[logging.LogRecord]]:
    """The warnings of the library while the block runs."""
    heard: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = heard.append
    logging.getLogger("ctrflow").addHandler(handler)
    try:
        yield heard
    finally:
        logging.getLogger("ctrflow").removeHandler(handler)


def facts(folder: Path, case: str, device: str) -> dict:
    """The device and its software as a line, and two names of the GPU."""
    import torch

    versions = f"torch {torch.__version__}, ctrflow {machine.installed()['ctrflow']}"
    if device == "cpu":
        return {"text": f"CPU in place of a GPU, {versions}", "names": ["GPU-one", "GPU-two"]}
    from ctrflow.encoders import network

    gpu, driver = torch.cuda.get_device_properties(0), "unknown"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    precision = network.settle({"device": device})[1]
    text = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, driver {driver}, CUDA {torch.version.cuda}, {versions}"
    # the beginning of a UUID names the GPU as well: two names, so that one GPU can stand for two
    names = [f"GPU-{gpu.uuid}", f"GPU-{str(gpu.uuid)[:8]}"]
    return {"text": f"{text}; precision auto is {precision}", "names": names}


# --- inputs ----------------------------------------------------------------------------------------------------------


def inputs(folder: Path, case: str, device: str) -> dict:
    """A slide, and the tables of a small fold with patches, in files."""
    return {"seconds": timed(lambda: (write_slide(folder / "slide.tif"), write_fold(folder)))[0]}


def write_slide(path: Path) -> None:
    """A stained-looking picture of many colours: an untrained network tells patches apart by little else."""
    import tifffile

    down, right = np.indices((SLIDE_PX, SLIDE_PX)) / (SLIDE_PX - 1)
    pixels = texture(SLIDE_PX) * np.stack([right, down, 1 - right], axis=2)
    tifffile.imwrite(path, pixels.astype(np.uint8), tile=(256, 256), photometric="rgb")


def write_fold(folder: Path) -> None:
    """Training and target table of both views, with made-up image features, and the patches that methods read."""
    from ctrflow import image, simulate, storage
    from ctrflow.folds import tables
    from simulated import as_spots

    sizes = sizes_of(folder)
    spots, labels, images = {}, {}, {}
    for name, kind in SECTIONS.items():
        about = {"name": name, "patient": name, "subtype": kind or "her2", "normal": not kind}
        drawn = simulate.simulate_section("visium", sizes["spots"], sizes["genes"], seed=5, **about)
        spots[name], labels[name] = as_spots(drawn, folder)
        images[name] = made_up_features(labels[name])
    target = tables.target_view({"T": spots["T"]}, {"T": images["T"]})
    for view, name in LEARNED.items():
        known = {name: labels[name]} if view == "labelled" else {}
        train = tables.train_view({name: spots[name]}, {name: images[name]}, known)
        for table, pieces in zip(("train", "target"), tables.build_views(train, target, sizes["genes"]), strict=True):
            storage.write_h5ad_pieces(pieces, folder / f"{view} {table}.h5ad")
    for name in ("meatrd", "stands"):
        given = options_of(name, "paper", sizes)
        for section in ("N1", "T"):
            pictures = image.section_patches(spots[section], given["patch_um"], given["patch_px"])
            np.savez(patches_of(folder, section, given), spots=spots[section].obs_names.to_numpy(str), patches=pictures)


def made_up_features(labels):
    """Image features that differ a little between cancer and other spots."""
    import pandas as pd
    from anndata import AnnData

    cancer = labels["label"].to_numpy(dtype=float)[:, None]
    values = np.random.default_rng(0).normal(cancer, 2.0, (len(labels), IMAGE_FEATURES)).astype(np.float32)
    about = {"id": "check", "digest": "check", "patch_px": 224, "patch_um": np.array([PATCH_UM])}
    return AnnData(values, obs=pd.DataFrame(index=labels["spot"].to_numpy()), uns={"encoder": about})


def patches_of(folder: Path, section: str, options: dict) -> Path:
    """The file with the patches of a section that a method reads."""
    return folder / f"{section} {options['patch_um']:g}um {options['patch_px']}px.npz"


# --- embedding -------------------------------------------------------------------------------------------------------


def embedding(folder: Path, device: str, end_s: float) -> list[dict]:
    """The encoder in each precision, the whole step in the one that it takes by itself, and the end of memory."""
    found = in_children(embed, [*FEATURES, "auto", "memory"], device, folder, end_s)
    own = in_children(embed_sample, ["fp32"], "cpu", folder, end_s)["fp32"]
    scarce = found.pop("memory")
    return [embedding_line(folder, precision, one, own) for precision, one in found.items()] + memory_lines(scarce)


def embedding_line(folder: Path, precision: str, found: dict, own: dict) -> dict:
    """A line of the table."""
    name = "embed_section, precision auto" if precision == "auto" else f"uni {precision}"
    wrong = first(found.get("wrong"), own.get("wrong"))
    if wrong:
        return line(name, wrong=wrong)
    given = FEATURES[found["precision"]]
    far = apart(*(np.load(folder / f"{one}.npy") for one in (f"embed {precision}", "embed_sample fp32")))
    rates = [f"{one['patches'] / one['seconds']:,.1f} patches/s" for one in (found, own)]
    patch_mib = found["patch_mib"]
    return line(
        name,
        f"{rates[0]}{' with building' if precision == 'auto' else ''}, {found['batch']} at a time",
        rates[1],
        found["gpu_mb"],
        f"{far:.1e}, at most {given:g}",
        first(
            above(far, given, "features from the CPU's in fp32"),
            f"a patch takes {patch_mib:.0f} MiB, more than estimated" if patch_mib > estimated_mib() else None,
        ),
    )


def apart(found: np.ndarray, reference: np.ndarray) -> float:
    """The largest distance of a patch's features from the reference, by the norm of what tells patches apart there."""
    spread = np.sqrt(np.square(reference - reference.mean(axis=0)).sum(axis=1).mean())
    return float(np.linalg.norm(found[: len(reference)] - reference, axis=1).max() / spread)


def estimated_mib() -> float:
    """Memory per patch from which batches are chosen."""
    from ctrflow.encoders import network

    return network._GPU_BYTES_PER_PATCH / 2**20


def embed(folder: Path, case: str, device: str) -> dict:
    """All patches in one precision from memory; with `auto` the whole step, which reads them from the slide."""
    from ctrflow import encoders

    if case == "memory":
        return run_out(folder, device)
    count = sizes_of(folder)["patches"]
    if case != "auto":
        return encoded(folder, "embed", case, device, count)
    cost, table = measured(lambda: encoders.embed_section(slide_spots(folder, count), "check", options(folder, device)))
    np.save(folder / f"embed {case}.npy", table.X)
    precision = table.uns["encoder"]["precision"]
    batch = encoders.build("check", options(folder, device)).batch
    return cost | {"patches": count, "batch": batch, "precision": precision, "patch_mib": 0}


def embed_sample(folder: Path, case: str, device: str) -> dict:
    """The first few patches."""
    return encoded(folder, "embed_sample", case, device, sizes_of(folder)["sample"])


def encoded(folder: Path, name: str, precision: str, device: str, count: int) -> dict:
    """Encode the first `count` patches, which are in memory, and write their features."""
    from ctrflow import encoders
    from ctrflow.training import costs

    encoder = encoders.build("check", options(folder, device, precision))
    patches = slide_patches(folder, count, encoder.patch_px)
    encode = encoder.for_section(lambda: patches)
    encode(patches[:1])  # loads the kernels
    torch = costs._torch_on_gpu()
    before = torch.cuda.memory_allocated() if torch else 0
    cost, features = measured(lambda: encode(patches))
    np.save(folder / f"{name} {precision}.npy", features)
    mib = (cost["gpu_mb"] - before / 2**20) / min(encoder.batch, count) if torch else 0
    return cost | {"patches": count, "batch": encoder.batch, "precision": precision, "patch_mib": mib}


def measured(step: Callable) -> tuple[dict, object]:
    """Seconds and memory of a step, and its result."""
    from ctrflow.training import costs

    with costs.measured() as cost:
        result = step()
    return cost, result


def options(folder: Path, device: str, precision: str = "auto") -> dict:
    """Options of `uni`, untrained, with the architecture of this run.

    Trained blocks weigh about 1. In an untrained `uni` they weigh 1e-5, so that all patches have the same features to
    1e-5, and errors of the blocks would not be seen.
    """
    from ctrflow.encoders import network, uni

    architecture, arguments = sizes_of(folder)["architecture"], uni.NETWORK.arguments | {"init_values": 1.0}
    uni.build = partial(network.build, replace(uni.NETWORK, architecture=architecture, arguments=arguments))
    return {"model": "uni", "weights": "random", "patch_um": PATCH_UM, "device": device, "precision": precision}


def slide_spots(folder: Path, count: int):
    """The first spots of the lattice on the slide."""
    return spots_on(str(folder / "slide.tif"), SLIDE_PX, sizes_of(folder)["patches"])[:count]


def slide_patches(folder: Path, count: int, px: int) -> np.ndarray:
    """Their patches."""
    from ctrflow import image

    with image.open_image(str(folder / "slide.tif")) as slide:
        centres_px = slide_spots(folder, count).obsm["spatial"]
        return image.cut_patches(slide, centres_px, PATCH_UM / UM_PER_PX, px)[0]


# --- running out of memory -------------------------------------------------------------------------------------------


def memory_lines(found: dict) -> list[dict]:
    """Batches are halved until they fit, with the same features; a patch or a network that never fits is an error."""
    halved, patch, network = "memory for few patches", "memory for no patch", "memory for no network"
    if "wrong" in found:
        return [line(name, wrong=found["wrong"]) for name in (halved, patch, network)]
    given, far, tried = FEATURES[found["precision"]], found["apart"], found["tried"]
    return [
        line(
            halved,
            f"{' '.join(map(str, tried))} at a time",
            deviation=f"{far:.1e}, at most {given:g}",
            wrong=first(
                None if len(tried) > 1 else "memory did not run out",
                above(far, given, "features from those of whole batches"),
            ),
        ),
        line(patch, wrong=unless(found["patch"], "not enough GPU memory for one patch")),
        line(network, wrong=unless(found["network"], "not enough GPU memory for the network")),
    ]


def unless(said: str, expected: str) -> str | None:
    """What is wrong unless the expected error was raised."""
    return None if expected in said else f"{said or 'no error'!r} in place of {expected!r}"


def run_out(folder: Path, device: str) -> dict:
    """Encode patches where memory is left for few of them, and for none, nor for a network."""
    from ctrflow import encoders

    encoder = encoders.build("check", options(folder, device))
    patches = slide_patches(folder, sizes_of(folder)["patches"], encoder.patch_px)
    encode = encoder.for_section(lambda: patches)
    whole = encode(patches)
    limit = limit_gpu if device == "cuda" else limit_simulated
    with limit(encode, patches[:FEW], encoder.batch) as limited, listening() as heard:
        found = {"apart": apart(limited(patches), whole)}
    halvings = [record.args[0] for record in heard if "out of memory" in record.msg]
    found |= {"tried": [encoder.batch, *halvings], "precision": encoder.precision}
    with limit(encode, patches[:0], encoder.batch) as limited:
        found["patch"] = refusal(lambda: limited(patches[:1]))
        found["network"] = refusal(lambda: encoders.build("check", options(folder, device)))
    return found


@contextmanager
def limit_gpu(encode: Callable, few: np.ndarray, batch: int) -> Iterator[Callable]:
    """Leave this process the memory to encode a few patches, or none at all: allocations beyond that fail."""
    import torch

    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    if len(few):
        encode(few)
    enough_bytes = torch.cuda.max_memory_reserved() * (1.05 if len(few) else 1)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(enough_bytes / total_bytes)
    held = [] if len(few) else fill_gpu()
    try:
        yield encode
    finally:
        held.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)


def fill_gpu() -> list:
    """Tensors in all of the memory that is left; torch takes blocks of more and of less than 1 MiB from two pools."""
    import torch

    held = []
    for size_bytes in (3 << 19, 1 << 18):
        try:
            while True:
                held.append(torch.empty(size_bytes, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            continue
    return held


@contextmanager
def limit_simulated(encode: Callable, few: np.ndarray, batch: int) -> Iterator[Callable]:
    """Raise torch's error where more than a few patches are encoded, or a network is moved to the device."""
    import torch

    from ctrflow.encoders import network

    def forward(patches: np.ndarray) -> np.ndarray:
        if len(patches) > len(few):
            raise torch.OutOfMemoryError("simulated")
        return encode(patches)

    with mock.patch.object(torch.nn.Module, "to", side_effect=torch.OutOfMemoryError("simulated")):
        yield network.by_chunks(forward, batch)


def refusal(step: Callable) -> str:
    """The error that a step refuses its input with, if it does."""
    try:
        step()
    except InputError as error:
        return str(error)
    return ""


# --- methods ---------------------------------------------------------------------------------------------------------


def fits_and_scores(folder: Path, device: str, end_s: float) -> list[dict]:
    """Two lines for each method and preset: learning on both devices and twice on one, scoring by one model on both."""
    cases = [f"{name} {preset}" for name in FEW_EPOCHS for preset in presets(name)]
    found = in_children(fit, cases, device, folder, end_s)
    good = [case for case in cases if "wrong" not in found[case]]
    again = in_children(fit_again, good, device, folder, end_s)
    own = in_children(fit_on_cpu, good, "cpu", folder, end_s)
    lines = []
    for case in cases:
        lines += method_lines(folder, case, found[case], again.get(case, {}), own.get(case, {}))
    return lines


def presets(name: str) -> list[str]:
    """The presets that differ in more than numbers of epochs and spots."""
    return [one for one in methods.load(name).SPEC.presets if one != "fast" or name not in FAST_IS_PAPER]


def method_lines(folder: Path, case: str, found: dict, again: dict, own: dict) -> list[dict]:
    """The lines of a method with a preset."""
    names = f"{case}, fit", f"{case}, score"
    wrong = first(found.get("wrong"), own.get("wrong"))
    if wrong:
        return [line(name, wrong=wrong) for name in names]
    same = found["sha256"] == again.get("sha256")
    learnt = line(
        names[0],
        *(seconds(one["fit"]) for one in (found, own)),
        found["fit"]["gpu_mb"],
        "same bytes twice" if same else "",
        first(again.get("wrong"), None if same else "a second fit with the same seed gives other bytes"),
    )
    ranks, far = alike(*(np.load(folder / f"{place} {case}.npy") for place in ("device", "cpu")))
    scored = line(
        names[1],
        *(seconds(one["score"]) for one in (found, own)),
        found["score"]["gpu_mb"],
        f"{far:.1e} sd, at most {SCORES_SD:g}; ranks {ranks:.4f}",
        first(
            above(far, SCORES_SD, "scores from the CPU's, in their sd"),
            above(1 - ranks, 1 - RANKS, "ranks of scores from the CPU's, as 1 - correlation"),
        ),
    )
    return [learnt, scored]


def alike(found: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Rank correlation, and the largest difference in sd of the reference; NaN for scores that are all equal."""
    from scipy.stats import spearmanr

    with np.errstate(invalid="ignore", divide="ignore"):
        return float(spearmanr(found, reference)[0]), float(np.abs(found - reference).max() / reference.std())


def options_of(name: str, preset: str, sizes: dict) -> dict:
    """All options of a method in this run."""
    given = {"preset": preset} | FEW_EPOCHS[name] | sizes["options"].get(name, {})
    return methods.resolve_options(methods.load(name).SPEC, given)


def fold_of(folder: Path, case: str) -> tuple:
    """Method, options, training and target table of a case; imports what they need."""
    from ctrflow import storage
    from ctrflow.folds import tables
    from ctrflow.training import costs

    name, preset = case.split()
    method, given = methods.load(name), options_of(name, preset, sizes_of(folder))
    views = [storage.read_h5ad(folder / f"{method.SPEC.view} {table}.h5ad") for table in ("train", "target")]
    if "patches" in method.SPEC.needs:
        for view, section in zip(views, ("N1", "T"), strict=True):
            with np.load(patches_of(folder, section, given)) as file:
                tables.with_patches(view, {section: (file["spots"], file["patches"])})
    costs.load(method)
    import torch

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # torch imports its compiler with the first optimiser
    return method, given, *views


def fit(folder: Path, case: str, device: str) -> dict:
    """Learn, write the model, and score with it."""
    from ctrflow import storage

    method, given, train, target = fold_of(folder, case)
    learning, model = measured(lambda: method.Model.fit(train, given, SEED))
    path = model_of(folder, case)
    storage.write_safetensors(model.tensors(), {}, path)
    scoring = score(folder, case, "device", method, given, target)
    return {"fit": learning, "score": scoring, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def fit_again(folder: Path, case: str, device: str) -> dict:
    """Learn once more with the same seed, in another process."""
    from ctrflow import storage

    method, given, train, _ = fold_of(folder, case)
    path = folder / "again.safetensors"
    storage.write_safetensors(method.Model.fit(train, given, SEED).tensors(), {}, path)
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def fit_on_cpu(folder: Path, case: str, device: str) -> dict:
    """Learn on the CPU for its seconds, and score with the model that the device learned."""
    method, given, train, target = fold_of(folder, case)
    learning, _ = measured(lambda: method.Model.fit(train, given, SEED))
    return {"fit": learning, "score": score(folder, case, "cpu", method, given, target)}


def score(folder: Path, case: str, place: str, method, given: dict, target) -> dict:
    """Cost of scoring with the model of the device; writes the scores."""
    from ctrflow import storage

    model = method.Model.from_tensors(storage.read_safetensors(model_of(folder, case))[0], given, SEED)
    cost, scores = measured(lambda: model.score(target))
    np.save(folder / f"{place} {case}.npy", scores)
    return cost


def model_of(folder: Path, case: str) -> Path:
    """The model that the device learned."""
    return folder / f"{case}.safetensors"


# --- which step gets which GPU ---------------------------------------------------------------------------------------


def locks(folder: Path, device: str, names: list[str], end_s: float) -> list[dict]:
    """Processes that hold a GPU at the same time; one GPU under two names stands for two."""
    two, shared, released = checked = ("two steps, a GPU each", "a third shares, is warned", "a released one is taken")
    if time.monotonic() >= end_s:
        return [line(name, wrong=NO_TIME) for name in checked]
    if device == "cuda" and len(machine._visible()) > 1:
        names = machine._visible()[:2]
    environment = gpus_named(names, device, folder)
    processes: list[subprocess.Popen] = []

    def step() -> dict:
        """Start a process, which then holds its GPU."""
        command = [sys.executable, __file__, "--hold", device, str(max(1, round(end_s - time.monotonic())))]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        said = processes[-1].stdout.readline()
        return json.loads(said) if said else {"wrong": "the process ended early"}

    try:
        held = [step(), step(), step()]
        stop(processes[0])
        held.append(step())
    finally:
        for process in processes:
            stop(process)
    got, shares, wrong = ([one.get(key) for one in held] for key in ("gpu", "shares", "wrong"))
    third, fourth = [got[2], *shares[:3]], [got[3], shares[3]]
    return [
        line(two, f"{got[0]} and {got[1]}", wrong=first(*wrong[:2], unless_equal(got[:2], names))),
        line(shared, f"{got[2]}", wrong=first(wrong[2], unless_equal(third, [names[0], False, False, True]))),
        line(released, f"{got[3]}", wrong=first(wrong[3], unless_equal(fourth, [names[0], False]))),
    ]


def unless_equal(found: list, expected: list) -> str | None:
    """What is wrong unless they are equal."""
    return None if found == expected else f"{found} in place of {expected}"


def gpus_named(names: list[str], device: str, folder: Path) -> dict[str, str]:
    """The environment of steps that see these GPUs, with locks of their own; on the CPU nvidia-smi is made up."""
    environment = os.environ | {"TMPDIR": str(folder)}
    if device == "cuda":
        return environment | {"CUDA_VISIBLE_DEVICES": ",".join(names)}
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {' '.join(names)}\n")
    program.chmod(0o755)
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return environment | {"PATH": f"{folder}{os.pathsep}{environment['PATH']}"}


def stop(process: subprocess.Popen) -> None:
    """End a process, and with it its lock."""
    process.kill()
    process.wait()
    process.stdout.close()


def hold(device: str, most_s: str) -> None:
    """Take a GPU as a step does, compute on it, print which it is, and hold it until killed."""
    signal.alarm(int(most_s))
    with listening() as heard:
        machine.fix("auto" if device == "cpu" else device)
    found = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "shares": any("sharing" in one.msg for one in heard)}
    if device == "cuda":
        import torch

        total = int(torch.ones(1000, 1000, device="cuda").sum())
        if (torch.cuda.device_count(), total) != (1, 1_000_000):
            found["wrong"] = f"{torch.cuda.device_count()} GPUs visible, {total} in place of 1,000,000"
    print(json.dumps(found), flush=True)
    time.sleep(int(most_s))


# ---------------------------------------------------------------------------------------------------------------------


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:4], Path(sys.argv[4]), sys.argv[5:])
    elif sys.argv[1:2] == ["--hold"]:
        hold(*sys.argv[2:])
    else:
        sys.exit(main())
