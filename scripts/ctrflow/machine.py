"""The machine that a step runs on: device, memory and installed software."""

import atexit
import fcntl
import gc
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ctrflow.errors import InputError

logger = logging.getLogger(__name__)

PACKAGES = ("snakemake", "torch", "torchvision", "timm", "anndata", "scanpy", "squidpy", "scikit-learn", "scikit-image",
            "numpy", "scipy", "pandas", "tifffile", "zarr")  # fmt: skip
DEVICES = ("auto", "cpu", "cuda", "mps")
_HELD: list[int] = []  # the open lock file of this process's GPU; the lock is released when the process ends


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without looking for garbage: what imports allocate lives to the end, and with torch it is much.

    Only for imports: tables that are read hold cycles, and would stay in memory (build_fold took a third more).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def end_quickly() -> None:
    """Do not look for garbage once more at the end of the process."""
    atexit.register(_keep_all)


def _keep_all() -> None:
    if "triton" not in sys.modules:  # whose bindings would report all that is kept
        gc.freeze()


def choose(device: str = "auto") -> str:
    """The device to compute features on: "cpu", "cuda" or "mps". `auto`: a GPU if torch sees one.

    Which GPU of NVIDIA is decided by the scheduler or by `fix`: torch sees those in CUDA_VISIBLE_DEVICES. "mps" is the
    GPU of a Mac. Only encoders use it, whose networks are trained and convolve or attend in float32, and only where
    they compute there what they compute on the CPU (`encoders.network`). What methods train stays on the CPU
    (`nets.training.start`). torch is imported only if needed.

    Raises
    ------
    InputError
        if the name is unknown, or a GPU is required and there is none.
    """
    if device not in DEVICES:
        raise InputError(f"unknown device {device!r}; set it to {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
    if device == "cpu":
        return "cpu"
    import torch

    if device != "mps" and torch.cuda.is_available():
        return "cuda"
    if device != "cuda" and torch.backends.mps.is_available():
        return "mps"
    if device == "mps":
        raise InputError("device is mps, but torch sees no GPU of a Mac with Apple silicon; set `device: auto`")
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise InputError(f"device is cuda, but torch sees no GPU{hidden}; set `device: auto`, or run on a GPU node")
    return "cpu"


def fix(device: str) -> None:
    """Set the device of the whole process: hide GPUs (cpu), or pick one that no other step uses.

    A step uses one GPU. Cluster schedulers assign one; on a single machine Snakemake only counts GPUs and does not
    assign them.

    Raises
    ------
    InputError
        for an unknown name, or if a GPU is required (cuda, mps) and there is none.
    """
    if device == "cpu":  # also hides GPUs from libraries that would use one on their own
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    if device in DEVICES:
        _take_one()
    if device != "auto":  # a step without networks must not load torch
        choose(device)


def _take_one() -> None:
    """If several GPUs are visible, restrict this process to the first that no other step has locked."""
    gpus = _visible()
    if len(gpus) < 2:
        return
    for gpu in gpus:
        if _lock(Path(tempfile.gettempdir()) / f"ctrflow-gpu-{gpu}.lock"):
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            logger.info("GPU %s of %s", gpu, ", ".join(gpus))
            return
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]
    logger.warning("all GPUs (%s) are in use by other steps; sharing %s", ", ".join(gpus), gpus[0])


def _visible() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES accepts."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.split() if result.returncode == 0 else []


def _lock(path: Path) -> bool:
    """Try to lock a file; whether it worked. The file stays, the lock is released when the process ends."""
    with suppress(FileExistsError):  # opened without creation below: a shared /tmp denies O_CREAT on others' files
        created = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL)
        os.fchmod(created, 0o644)  # whatever the umask: other users lock it too
        os.close(created)
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _HELD.append(file)
    return True


def memory_bytes() -> float:
    """The memory this process may use: the machine's, or less if a container or a scheduler limits it."""
    total = _machine_bytes()
    own = Path("/proc/self/cgroup")
    for limit in _limits(own.read_text()) if own.is_file() else ():
        text = limit.read_text().strip() if limit.is_file() else ""
        if text.isdigit():
            total = min(total, float(text))
    return total


def _machine_bytes() -> float:
    """The memory of the machine; infinite if it does not tell."""
    with suppress(ValueError, OSError):  # macOS does not name pages in every version
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):
        return float(subprocess.run(["sysctl", "-n", "hw.memsize"], capture_output=True, text=True, check=False).stdout)
    return float("inf")


def _limits(cgroup: str) -> Iterator[Path]:
    """The files with memory limits of a process's control group and its ancestors, from /proc/PID/cgroup."""
    for line in cgroup.splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup")
        own = root / name.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root):
                yield folder / ("memory.limit_in_bytes" if controllers else "memory.max")


def installed() -> dict[str, str]:
    """Name -> version of ctrflow, Python and those of its main packages that are installed."""
    import ctrflow

    versions = {"ctrflow": ctrflow.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
