"""Logging of a step: to its log file and to stderr; user errors without a traceback, and never a token."""

import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.machine import end_quickly
from ctrflow.machine import fix as fix_device

logger = logging.getLogger("ctrflow")

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")  # of the Hugging Face hub: 34 characters so far
TOKEN_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
LOG_ONLY = "CTRFLOW_LOG_ONLY"  # set by who follows the log files: stderr is then left alone

THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DASK_NUM_WORKERS", "ZARR_THREADING__MAX_WORKERS",
)  # fmt: skip


class _WithoutToken(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_token(super().format(record))


def without_token(text: str) -> str:
    """`text` with every hub token masked: that of the environment and anything that looks like one."""
    for name in TOKEN_NAMES:
        if os.environ.get(name, "").strip():
            text = text.replace(os.environ[name].strip(), "***")
    return TOKEN.sub("***", text)


def setup(log_path: str | Path | None = None, threads: int = 1, device: str | None = None) -> logging.Logger:
    """Log to `log_path` and stderr, send uncaught errors there too, fix the number of compute threads.

    Where the environment says that someone follows the log file (LOG_ONLY), it is that file only.

    The number of threads affects results (the order of floating-point sums), so it comes from the configuration, never
    from the cores that a run happens to get. `device` is given by steps that use networks: cpu hides GPUs, cuda
    requires one, auto uses one if available.
    """
    handlers: list[logging.Handler] = []
    if not (log_path and os.environ.get(LOG_ONLY)):
        handlers.append(logging.StreamHandler())
    if log_path:
        Path(log_path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_path, mode="w"))
    for handler in handlers:
        handler.setFormatter(_WithoutToken("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)
    logging.getLogger("anndata").setLevel(logging.WARNING)  # tells stderr of each column that it stores
    sys.excepthook = _report
    end_quickly()
    limit_threads(threads)
    if device is not None:
        fix_device(device)
    return logger


def limit_threads(threads: int) -> None:
    """Limit the threads of BLAS, OpenMP, numba and, if they are loaded later, torch, dask and zarr."""
    import threadpoolctl

    names = list(THREADS)
    if "numba" in sys.modules:  # it reads its variable at import and rejects later changes
        sys.modules["numba"].set_num_threads(min(threads, sys.modules["numba"].config.NUMBA_NUM_THREADS))
    else:
        names.append("NUMBA_NUM_THREADS")
    os.environ.update(dict.fromkeys(names, str(threads)))
    threadpoolctl.threadpool_limits(threads)


def _report(kind, error, traceback) -> None:
    if issubclass(kind, InputError):
        logger.error("%s", error)
    else:
        logger.error("failed", exc_info=(kind, error, traceback))


def progress(items: Iterable, total: int, what: str, size=lambda item: 1, every_s: float = 5.0) -> Iterator:
    """Yield `items` and log progress and speed, every few seconds and at the end.

    `what` names the unit ("spots"); `size(item)` is the number of units in an item.
    """
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - last >= every_s or done >= total:
            last = now
            logger.info("%s of %s %s, %.1f %s/s", f"{done:,}", f"{total:,}", what, done / max(now - start, 1e-9), what)
