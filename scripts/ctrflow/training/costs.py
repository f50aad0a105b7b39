"""Costs of training and scoring: seconds, memory, and the size of a model (METHODS.md section 5).

Costs differ from run to run, so they are in separate files: models and scores stay identical to the byte.
"""

import builtins
import importlib
import logging
import resource
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np

from ctrflow import digests, machine

logger = logging.getLogger(__name__)

MIB = 2**20
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux
LINEAR = ("weights", "intercept")  # tensors of a model without a network


def load(method) -> None:
    """Import the library modules that a method uses, torch with them where it has a network, and initialise the GPU.

    Then `measured` sees torch. What functions import is loaded when they run, so that a step loads what it needs.
    """
    with machine.uncollected():
        for name in sorted(digests.closure(method.__file__)):
            importlib.import_module(name)
    if torch := _torch_on_gpu():
        torch.cuda.synchronize()


@contextmanager
def measured() -> Iterator[dict]:
    """Measure the costs of the block, without those of its imports; the yielded dict is filled if the block succeeds.

    Yields
    ------
    dict of
        seconds : wall clock
        rss_mb : peak resident memory (MiB) minus resident memory at the start. Except on Linux, where the peak can be
            reset, the increase of the peak of the process
        gpu_mb : peak memory allocated by torch on the GPU (MiB); None on a CPU
        optimised : number of parameters that torch optimisers stepped in the block, each counted once
    """
    cost: dict = {}
    gpu = _torch_on_gpu()
    try:
        CLEAR.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        _say_not_reset()
    before_mb = _resident_mb()[0]
    if gpu:
        gpu.cuda.synchronize()
        gpu.cuda.reset_peak_memory_stats()
    with _optimised() as optimised, _imports() as imports:
        start_s = time.perf_counter()
        yield cost
        if gpu:
            gpu.cuda.synchronize()
        cost["seconds"] = round(time.perf_counter() - start_s - imports["seconds"], 6)
    cost["rss_mb"] = round(max(_resident_mb()[1] - before_mb - imports["rss_mb"], 0.0), 3)
    cost["gpu_mb"] = round(gpu.cuda.max_memory_allocated() / MIB, 3) if gpu else None
    cost["optimised"] = sum(optimised)


@cache
def _say_not_reset() -> None:
    logger.warning("this system cannot reset the peak of memory: rss_mb of the costs is not that of a step alone")


def setting(view, threads: int) -> dict:
    """The conditions of a measurement: spots and genes of the view, threads, and the device (`cpu` or the GPU)."""
    gpu = _torch_on_gpu()
    device = gpu.cuda.get_device_name() if gpu else "cpu"
    return {"spots": int(view.n_obs), "genes": int(view.n_vars), "threads": int(threads), "device": device}


def sizes(model, tensors: dict[str, np.ndarray], while_scoring: float = 0) -> dict[str, int]:
    """The size of a model.

    Parameters
    ----------
    model : built from `tensors`
    tensors : of the model file; none for a method that does not train
    while_scoring : number of parameters that the method trains for each section while scoring

    Returns
    -------
    dict of
        params : parameters of the model's networks, including frozen ones and those trained while scoring; without a
            network, the weights of a linear model
        kept_numbers : all other numbers in the model file: running statistics, axes, trees, memory banks and reference
            scores
    """
    own = _parameters(model) or sum(np.size(tensors[name]) for name in LINEAR if name in tensors)
    kept = sum(np.size(value) for value in tensors.values()) - own
    return {"params": int(own + round(while_scoring)), "kept_numbers": int(kept)}


def _parameters(model) -> int:
    """Number of parameters of the networks that are attributes of a model; 0 without any."""
    torch = sys.modules.get("torch")
    nets = [value for value in vars(model).values() if torch and isinstance(value, torch.nn.Module)]
    return sum(value.numel() for value in {weight for net in nets for weight in net.parameters()})


@contextmanager
def _imports() -> Iterator[dict[str, float]]:
    """Seconds and resident memory (MiB) that imports in the block take: parts of packages are loaded at first use."""
    spent = {"seconds": 0.0, "rss_mb": 0.0}
    original, outermost = builtins.__import__, True

    def timed(*args, **kwargs):
        nonlocal outermost
        if not outermost:
            return original(*args, **kwargs)
        outermost, known, before_mb, start_s = False, len(sys.modules), _resident_mb()[0], time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            outermost = True
            if len(sys.modules) > known:
                spent["seconds"] += time.perf_counter() - start_s
                spent["rss_mb"] += _resident_mb()[0] - before_mb

    builtins.__import__ = timed
    try:
        yield spent
    finally:
        builtins.__import__ = original


@contextmanager
def _optimised() -> Iterator[list[int]]:
    """The sizes of the parameters that torch optimisers step in the block, one entry per parameter."""
    counted: list[int] = []
    if "torch" not in sys.modules:
        yield counted
        return
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    known = weakref.WeakSet()  # optimisers, each inspected once, since there are many steps
    alive: dict[int, weakref.ref] = {}  # weak, to not keep networks alive and distort the memory

    def look(optimiser, *_) -> None:
        if optimiser in known:
            return
        known.add(optimiser)
        for weight in (weight for group in optimiser.param_groups for weight in group["params"]):
            seen = alive.get(id(weight))
            if seen is None or seen() is not weight:
                alive[id(weight)] = weakref.ref(weight)
                counted.append(weight.numel())

    hook = register_optimizer_step_pre_hook(look)
    try:
        yield counted
    finally:
        hook.remove()


def _torch_on_gpu():
    """torch, if it is loaded and sees a GPU."""
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_available() else None


def _resident_mb() -> tuple[float, float]:
    """Current and peak resident memory of this process, MiB; the peak twice if the system reports only that."""
    with suppress(OSError, KeyError):
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        now, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # kB
        # not ru_maxrss, which starts at the size of the parent process (Snakemake)
        return now, peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)
    return peak, peak
