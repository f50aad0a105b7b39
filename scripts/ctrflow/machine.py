"""The machine that a step runs on: its device, its memory, and the software on it."""

import fcntl
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ctrflow.errors import InputError

logger = logging.getLogger(__name__)

PACKAGES = ("snakemake", "torch", "torchvision", "timm", "anndata", "scanpy", "squidpy", "scikit-learn", "scikit-image",
            "numpy", "scipy", "pandas", "tifffile", "zarr")  # fmt: skip
DEVICES = ("auto", "cpu", "cuda")
_HELD: list[int] = []  # the open file whose lock says that this process has a GPU; it falls when the process ends


def choose(device: str = "auto") -> str:
    """The device to compute on: "cpu" or "cuda". `auto`: a GPU where torch sees one.

    Which GPU is the scheduler's choice, or that of `fix`: torch sees those that CUDA_VISIBLE_DEVICES names. torch is
    loaded only where the answer depends on it.

    Raises
    ------
    InputError
        if the name is unknown, or a GPU is insisted on and there is none.
    """
    if device not in DEVICES:
        raise InputError(f"device {device!r}; give {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise InputError(f"device cuda, but torch sees no GPU here{hidden}; give device: auto, or run on a GPU node")
    return "cpu"


def fix(device: str) -> None:
    """Settle the device of the whole process: hide GPUs (cpu), or take one of several that no other step has.

    A step computes on one GPU. Schedulers of clusters hand out one; Snakemake counts GPUs on one machine, and says to
    no step which is its.

    Raises
    ------
    InputError
        for an unknown name, and where a GPU is insisted on (cuda) and there is none.
    """
    if device == "cpu":  # also from libraries that would take a GPU without asking
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    if device in DEVICES:
        _take_one()
    if device != "auto":  # a step without networks must not load torch
        choose(device)


def _take_one() -> None:
    """Let this process see one GPU alone, where it sees several: the first that no other process has taken so."""
    gpus = _visible()
    if len(gpus) < 2:
        return
    for gpu in gpus:
        if _lock(Path(tempfile.gettempdir()) / f"ctrflow-gpu-{gpu}.lock"):
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            logger.info("GPU %s of %s", gpu, ", ".join(gpus))
            return
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]
    logger.warning("all GPUs (%s) are taken by other steps; sharing %s", ", ".join(gpus), gpus[0])


def _visible() -> list[str]:
    """The GPUs that this process may see, by the names that CUDA_VISIBLE_DEVICES takes."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.split() if found.returncode == 0 else []


def _lock(path: Path) -> bool:
    """Whether this process now holds a file's lock; the file stays, the lock falls with the process."""
    with suppress(FileExistsError):  # opened without creation below: a shared /tmp refuses O_CREAT on files of others
        made = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL)
        os.fchmod(made, 0o644)  # whatever the umask: others ask for the lock too
        os.close(made)
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _HELD.append(file)
    return True


def memory_bytes() -> float:
    """What this process may use: the machine's, or less where a container or a scheduler limits it."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    own = Path("/proc/self/cgroup")
    for limit in _limits(own.read_text()) if own.is_file() else ():
        text = limit.read_text().strip() if limit.is_file() else ""
        if text.isdigit():
            total = min(total, float(text))
    return total


def _limits(cgroup: str) -> Iterator[Path]:
    """The files that may limit the memory of a process, by its /proc/PID/cgroup: of its group and all above it."""
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
    """Name -> version of ctrflow, Python and the packages it stands on, as far as they are in this environment."""
    import ctrflow

    found = {"ctrflow": ctrflow.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
