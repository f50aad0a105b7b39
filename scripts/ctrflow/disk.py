"""Writing large files: free space, and clear errors if a write fails."""

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
    """Turn an OSError of the block, which must only write to `path`, into an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise InputError(f"{path}: the disk is full ({error.strerror}); free some space, then run again") from error
        raise InputError(f"{path}: cannot be written ({error.strerror}); make its folder writable") from error


def append(chunk: bytes, handle: FileIO, path: Path) -> None:
    """Write all of `chunk` to the unbuffered file `handle` at `path`, so that closing it cannot fail."""
    remaining = memoryview(chunk)
    with writing(path):
        while remaining:
            remaining = remaining[handle.write(remaining) :]


def require_space(path: Path, n_bytes: int) -> None:
    """Raise an InputError if another `n_bytes` do not fit on the disk of `path`."""
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise InputError(
            f"{path}: needs {size(n_bytes)}, its disk has {size(free)} free; free some space, then run again"
        )


def size(n_bytes: float) -> str:
    """A number of bytes in a readable unit: 1.2 GB (10^9 bytes)."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if abs(n_bytes) < 1000 or unit == "PB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} bytes" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
