"""Writing large files: is there room, and if it fails, why in words a user can act on."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ctrflow.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell an OSError of the block, which must only write to `path`, as an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise InputError(f"{path}: the disk is full ({error.strerror}); free some space, then run again") from error
        raise InputError(f"{path}: cannot be written ({error.strerror}); make its folder writable") from error


def append(chunk: bytes, handle: FileIO, path: Path) -> None:
    """Write all of `chunk` to the unbuffered file `handle` at `path`; nothing is left to fail when it is closed."""
    left = memoryview(chunk)
    with writing(path):
        while left:
            left = left[handle.write(left) :]


def require_space(path: Path, n_bytes: int) -> None:
    """Refuse to begin with a file of which another `n_bytes` are to be written where they do not fit."""
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise InputError(
            f"{path}: needs {size(n_bytes)}, its disk has {size(free)} left; free some space, then run again"
        )


def size(n_bytes: float) -> str:
    """A number of bytes as people read it: 1.2 GB (10^9 bytes)."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if abs(n_bytes) < 1000 or unit == "PB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} bytes" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
