"""Free disk space and clear errors of failed writes."""

import errno
from pathlib import Path

import pytest

from ctrflow import disk
from ctrflow.errors import InputError


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (9_800_000_000, "9.8 GB"),
        (2.5e15, "2.5 PB"),
        (7e18, "7000.0 PB"),
    ],
)
def test_sizes_are_readable(n_bytes, text):
    assert disk.size(n_bytes) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"), (errno.EROFS, "cannot be written")],
)
def test_a_failed_write_is_reported(number, text):
    with pytest.raises(InputError, match=f"^x.bin: .*{text}"), disk.writing(Path("x.bin")):
        raise OSError(number, "why")


def test_free_space_is_checked_before_writing(tmp_path):
    disk.require_space(tmp_path / "x", 1)
    with pytest.raises(InputError, match=r"needs 1000\.0 PB, its disk has"):
        disk.require_space(tmp_path / "x", 10**18)
