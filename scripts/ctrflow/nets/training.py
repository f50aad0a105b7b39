"""Reproducible training, shared by all torch methods."""

import logging
import time
from collections.abc import Iterator

import numpy as np
import torch

logger = logging.getLogger(__name__)


def start(seed: int) -> torch.device:
    """Seed torch, enable deterministic kernels, and return the device: the visible GPU of NVIDIA, else the CPU.

    Not the GPU of a Mac (mps): it has no float64, and what it computes wrongly (`encoders.network`) would be learned.
    A GPU computes in float32 as the CPU does; by default torch lets it convolve in TF32, with 10 bits of mantissa.
    Threads follow the BLAS limit that the step has set, so the result does not depend on the machine's cores.
    """
    import os

    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        torch.set_num_threads(int(threads))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    # what use_deterministic_algorithms sets, without its import of torch's compiler, which takes two seconds
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.allow_tf32 = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid of torch that costs some 3 %
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def orders(n: int, epochs: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """The shuffled rows of every epoch, (epochs x n) on `device`: drawn at once, so that the loop copies nothing."""
    return torch.stack([torch.randperm(n, generator=generator) for _ in range(epochs)]).to(device) if epochs else []


def batches(order: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """An epoch's rows, `size` at a time.

    The last, smaller batch is kept, as in the published code, unless it is a single row: batch normalisation has
    nothing to normalise in it. So there is no batch at all with one row or a `size` of 1.
    """
    for rows in order.split(size):
        if len(rows) > 1:
            yield rows


def epochs(order: torch.Tensor, stage: str, losses: list[dict], every_s: float = 5.0) -> Iterator[tuple]:
    """Iterate over the epochs of a stage: yield the rows of each, and a list for the loss terms of its steps.

    The mean of each term over the steps of an epoch is appended to `losses` (stage, epoch, term, value). The loss and
    the time left in the stage are logged every few seconds and at both ends, the number of steps at the end.
    """
    start_s = last = time.monotonic()
    steps, means, count = 0, [], len(order)
    for epoch, rows in enumerate(order, 1):
        taken: list[dict] = []
        yield rows, taken
        steps += len(taken)
        if not taken:
            continue
        means.append({term: torch.stack([step[term] for step in taken]).mean() for term in taken[0]})
        now = time.monotonic()
        if now - last >= every_s or epoch in (1, count):
            last = now
            loss, left_s = float(means[-1]["loss"]), (now - start_s) / epoch * (count - epoch)
            logger.info("%s: epoch %d of %d, loss %.4f, %.0f s left", stage, epoch, count, loss, left_s)
    logger.info("%s: %d optimiser steps", stage, steps)
    for term in means[0] if means else ():
        values = torch.stack([mean[term] for mean in means]).tolist()
        losses += [{"stage": stage, "epoch": i, "term": term, "value": value} for i, value in enumerate(values, 1)]


def descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor, terms: dict[str, torch.Tensor], taken: list) -> None:
    """One step down `loss`, which is recorded with its `terms` in `taken`."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    taken.append({"loss": loss.detach()} | {name: value.detach() for name, value in terms.items()})


def annealed(weights, rate: float, epochs: int) -> tuple:
    """Adam (0.5, 0.999), and the schedule to step after each epoch: the rate falls to zero along a cosine.

    As in MEATRD and STANDS (METHODS.md 2.3 to 2.5, 3.4).
    """
    optimiser = torch.optim.Adam(weights, lr=rate, betas=(0.5, 0.999), fused=True)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(epochs, 1))


def to_numpy(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """The state of a module as arrays."""
    return {name: value.detach().cpu().contiguous().numpy() for name, value in module.state_dict().items()}


def under(tensors: dict, prefix: str) -> dict:
    """The tensors whose names begin with `prefix`, by names without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def from_numpy(module: torch.nn.Module, tensors: dict[str, np.ndarray]) -> None:
    """Load a state from `to_numpy`."""
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})
