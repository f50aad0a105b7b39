"""Extract one file from an archive: zip (also AES-encrypted), tar (plain, gzip, bzip2, xz) or 7z, by its first bytes.

Only the caller decides where the file is written, never the archive.
"""

import bz2
import difflib
import gzip
import lzma
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import py7zr
import pyzipper

from ctrflow import storage
from ctrflow.disk import append, require_space, writing
from ctrflow.errors import InputError

CHUNK_BYTES = 1 << 20
TAR_READERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# what the archive readers raise on damaged files; py7zr checks much by assert and indexing
DAMAGE = (
    EOFError, OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, MemoryError,
    RuntimeError, struct.error, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
    pyzipper.zipfile.BadZipFile, py7zr.exceptions.ArchiveError,
)  # fmt: skip
UNKNOWN_METHOD = (NotImplementedError, py7zr.exceptions.UnsupportedCompressionMethodError)


class _Entry(NamedTuple):
    """A member of an archive; `extract` passes its content to a function, chunk by chunk."""

    name: str
    kind: str  # file, folder, link or device
    n_bytes: int
    extract: Callable[[Callable[[bytes], object]], None]


def unpack(archive: str | Path, member: str, path: str | Path, password: str | None = None) -> None:
    """Extract one file of an archive to `path`, as an atomic write.

    `member` is the file's path in the archive; a leading "./" in either is ignored.

    Raises
    ------
    InputError
        if the archive is missing, of another format, damaged or truncated, or needs a (different) password; if the
        member is missing, appears more than once, is a folder, a link or a device, or leads out of the archive; or if
        the file does not fit on the disk.
    """
    archive, path = Path(archive), Path(path)
    if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts or not _plain(member):
        raise InputError(f"{archive}: '{member}' is not a path inside an archive; correct column member")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with storage.atomic(path) as part:
        with writing(part):
            handle = part.open("wb", buffering=0)
        with handle, _errors_reported(archive, password):
            _extract(archive, member, part, partial(append, handle=handle, path=part), password)


def _extract(archive: Path, member: str, part: Path, write, password: str | None) -> None:
    names, matches = [], 0
    for entry in _entries(archive, password):
        names.append(_plain(entry.name))
        if names[-1] != _plain(member):
            continue
        matches += 1
        if matches > 1:
            raise InputError(f"{archive}: contains '{member}' more than once; unpack the right one by hand")
        if entry.kind != "file":
            raise InputError(f"{archive}: '{member}' is a {entry.kind}; name a file in column member")
        require_space(part, entry.n_bytes)
        entry.extract(write)
    if not matches:
        raise InputError(f"{archive}: no member '{member}'{_likely(member, names)}; correct column member")


def _plain(name: str) -> str:
    """A member's name without "./" and doubled slashes; ".." stays, so such a name never matches a requested one."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _likely(member: str, names: list[str]) -> str:
    """The names closest to `member`, as part of a message."""
    last = member.rpartition("/")[2].lower()
    same = [name for name in names if name.rpartition("/")[2].lower() == last]
    close = [*same, *difflib.get_close_matches(member, names, n=5, cutoff=0.4)] or names
    shown = ", ".join(f"'{name}'" for name in list(dict.fromkeys(close))[:5])
    return f" among {len(names)}, such as {shown}" if names else ": the archive is empty"


@contextmanager
def _errors_reported(archive: Path, password: str | None) -> Iterator[None]:
    """Turn errors while reading an archive into an InputError."""
    try:
        yield
    except InputError:
        raise
    except py7zr.exceptions.PasswordRequired as error:
        raise _needs_password(archive) from error
    except UNKNOWN_METHOD as error:
        raise InputError(
            f"{archive}: compression or encryption is not supported ({error}); unpack it by hand and point `data_root` "
            "in the configuration to its files"
        ) from error
    except DAMAGE as error:
        secret = "the password is wrong, or the archive is" if password else "the archive is"
        raise InputError(
            f"{archive}: {secret} damaged or truncated ({error or type(error).__name__}); "
            f"{'correct column password, or ' if password else ''}delete the archive to download it again"
        ) from error


def _needs_password(archive: Path) -> InputError:
    return InputError(f"{archive}: needs a password; give it in column password of the source list")


def _entries(archive: Path, password: str | None) -> Iterator[_Entry]:
    """The members of an archive; an entry must be extracted before the next one is requested."""
    if not archive.is_file():
        raise InputError(f"{archive}: no such file; download it first")
    with archive.open("rb") as handle:
        start = handle.read(512)
    if start.startswith(b"7z\xbc\xaf\x27\x1c"):
        return _entries_7z(archive, password)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _entries_zip(archive, password)
    opened = next((reader for magic, reader in TAR_READERS.items() if start.startswith(magic)), None)
    if opened or start[257:262] == b"ustar":
        return _entries_tar(archive, opened)
    what = "empty" if not start else "a web page" if start.lstrip()[:1] == b"<" else f"begins with {start[:8]!r}"
    raise InputError(f"{archive}: not a zip, tar or 7z archive ({what}); correct the url, or delete it to retry")


def _copy(source: BinaryIO, write) -> None:
    for chunk in iter(lambda: source.read(CHUNK_BYTES), b""):
        write(chunk)


def _entries_tar(archive: Path, opened) -> Iterator[_Entry]:
    # one pass, since seeking in a compressed tar means decompressing it again
    with (opened or open)(archive, "rb") as stream:
        with tarfile.open(fileobj=stream, mode="r|" if opened else "r:") as tar:
            for info in tar:
                kind = "file" if info.isreg() else "folder" if info.isdir() else "device" if info.isdev() else "link"
                yield _Entry(info.name, kind, info.size, partial(_extract_tar, tar, info))
        # the checksum of the archive is at its end
        _copy(stream, len)


def _extract_tar(tar: tarfile.TarFile, info: tarfile.TarInfo, write) -> None:
    _copy(tar.extractfile(info), write)


def _entries_zip(archive: Path, password: str | None) -> Iterator[_Entry]:
    with pyzipper.AESZipFile(archive) as opened:
        for info in opened.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            kind = "link" if mode == stat.S_IFLNK else "file" if mode in (0, stat.S_IFREG) else "device"
            extract = partial(_extract_zip, archive, opened, info, password)
            yield _Entry(info.filename, "folder" if info.is_dir() else kind, info.file_size, extract)


def _extract_zip(
    archive: Path, opened: pyzipper.AESZipFile, info: pyzipper.zipfile.ZipInfo, password: str | None, write
) -> None:
    if info.flag_bits & 1 and not password:
        raise _needs_password(archive)
    with opened.open(info, pwd=password.encode() if password else None) as source:
        _copy(source, write)


def _entries_7z(archive: Path, password: str | None) -> Iterator[_Entry]:
    # an open file, because for a path py7zr starts threads
    with archive.open("rb") as handle, py7zr.SevenZipFile(handle, password=password or None) as opened:
        for info in opened.list():
            kind = (
                "folder" if info.is_directory else "link" if info.is_symlink else "file" if info.is_file else "device"
            )
            yield _Entry(info.filename, kind, info.uncompressed, partial(_extract_7z, opened, info.filename))


def _extract_7z(opened: py7zr.SevenZipFile, name: str, write) -> None:
    # py7zr needs a folder to check names against; the content goes to `write`
    with tempfile.TemporaryDirectory() as nowhere:
        opened.extract(path=nowhere, targets=[name], factory=_Sink(write))


class _Sink(py7zr.io.WriterFactory, py7zr.io.Py7zIO):
    """Receives the content of one member from py7zr."""

    def __init__(self, write):
        self.pass_on = write

    def create(self, filename: str) -> "_Sink":
        return self

    def write(self, s: bytes) -> int:
        self.pass_on(bytes(s))
        return len(s)

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def flush(self) -> None:
        pass

    def size(self) -> int:
        return 0
