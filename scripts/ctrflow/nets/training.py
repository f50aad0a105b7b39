"""What every torch method needs to train the same way twice."""

import logging
import time
from collections.abc import Iterator

import numpy as np
import torch

logger = logging.getLogger(__name__)


def start(seed: int) -> torch.device:
    """Seed torch, ask for deterministic kernels, and say where to compute: the visible GPU, else the CPU.

    Threads follow the BLAS limit that the step has set, so the result does not depend on the machine's cores.
    """
    import os

    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        torch.set_num_threads(int(threads))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batches(n: int, size: int, generator: torch.Generator, device: torch.device) -> Iterator[torch.Tensor]:
    """Shuffled row indices, `size` at a time, on `device`.

    The last, smaller batch is kept, as the published code does, unless it is a single row: batch normalisation has
    nothing to normalise there. So there is no batch at all when `n` or `size` is 1.
    """
    order = torch.randperm(n, generator=generator).to(device)
    for begin in range(0, n, size):
        rows = order[begin : begin + size]
        if len(rows) > 1:
            yield rows


def epochs(count: int, stage: str, every_s: float = 5.0) -> Iterator[tuple[int, list]]:
    """Number the epochs and log their mean loss every few seconds, and the number of steps at the end.

    Append the loss of each step to the list given.
    """
    start_s = last = time.monotonic()
    steps = 0
    for epoch in range(1, count + 1):
        losses: list = []
        yield epoch, losses
        steps += len(losses)
        now = time.monotonic()
        if losses and (now - last >= every_s or epoch in (1, count)):
            last = now
            loss = float(torch.stack(losses).mean())
            logger.info(
                "%s: epoch %d of %d, loss %.4f, %.1f epochs/s", stage, epoch, count, loss, epoch / (now - start_s)
            )
    logger.info("%s: %d optimiser steps", stage, steps)


def section_minmax(matrix: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Each column scaled to [0, 1] within each section, float32 (METHODS.md 1.3, S-20)."""
    result = np.empty(matrix.shape, dtype=np.float32)
    for section in np.unique(sections):
        rows = sections == section
        low, high = matrix[rows].min(axis=0), matrix[rows].max(axis=0)
        result[rows] = (matrix[rows] - low) / ((high - low) + 1e-12)
    return result


def to_numpy(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """The state of a module as arrays."""
    return {name: value.detach().cpu().contiguous().numpy() for name, value in module.state_dict().items()}


def from_numpy(module: torch.nn.Module, tensors: dict[str, np.ndarray]) -> None:
    """Load a state that `to_numpy` gave."""
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})
