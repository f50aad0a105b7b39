"""Extracting one file from zip, tar and 7z; whatever the archive holds, only that file is written."""

import gzip
import hashlib
import io
import json
import random
import resource
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import py7zr
import pytest
import pyzipper

from ctrflow.errors import InputError
from ctrflow.fetch import archives

SMALL = b"barcode\tx\ty\nAAAC-1\t1\t2\n"
LARGE = random.Random(3).randbytes(150_000) + bytes(150_000)
FILES = {"outs/spatial/positions.csv": SMALL, "outs/matrix.h5": LARGE, "outs/empty.txt": b""}
SCRIPT = Path(__file__).parents[3] / "scripts" / "unpack_member.py"
TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
KINDS = [*TAR_MODES, "zip", "7z", "7z with password"]


def make(tmp_path, kind: str, files=FILES, name="archive") -> Path:
    """An archive whose name has no suffix."""
    path = tmp_path / name
    if kind in TAR_MODES:
        with tarfile.open(path, TAR_MODES[kind]) as tar:
            add_tar(tar, "./outs", kind=tarfile.DIRTYPE)
            for member, content in files.items():
                add_tar(tar, f"./{member}", content)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.mkdir("outs")
            for member, content in files.items():
                opened.writestr(member, content)
    else:
        with py7zr.SevenZipFile(path, "w", password="secret" if "password" in kind else None) as opened:
            for member, content in files.items():
                opened.writestr(content, member)
    return path


def add_tar(tar, name, content=b"", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, target
    tar.addfile(info, io.BytesIO(content))


def password_of(kind: str):
    return "secret" if "password" in kind else None


def error_of(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def files_of(archive: Path, password: str | None = None) -> list[str]:
    return [entry.name for entry in archives._entries(archive, password) if entry.kind == "file"]


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_of_every_kind_is_extracted(kind, tmp_path):
    archive = make(tmp_path, kind)
    names = files_of(archive, password_of(kind))
    assert [name.removeprefix("./") for name in names] == list(FILES)
    for number, (member, content) in enumerate(FILES.items()):
        archives.unpack(archive, member, tmp_path / "new" / str(number), password_of(kind))
        archives.unpack(archive, f"./{member}", tmp_path / "dotted" / str(number), password_of(kind))
        assert (tmp_path / "new" / str(number)).read_bytes() == content
        assert (tmp_path / "dotted" / str(number)).read_bytes() == content
    assert everything(tmp_path) == {"archive"} | {f"{a}{b}" for a in ("new", "dotted") for b in ("", "/0", "/1", "/2")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_member_is_reported_with_similar_names(kind, tmp_path):
    archive = make(tmp_path, kind)
    message = error_of(archives.unpack, archive, "positions.csv", tmp_path / "x", password_of(kind))
    assert all(part in message for part in (str(archive), "'positions.csv'", "'outs/spatial/positions.csv'", "column"))
    assert everything(tmp_path) == {"archive"}


def test_the_most_similar_name_comes_first(tmp_path):
    files = {f"a/{n}.txt": b"" for n in range(9)} | {"b/Matrix.H5": b"", "b/matrx.h5": b""}
    message = error_of(archives.unpack, make(tmp_path, "zip", files), "outs/matrix.h5", tmp_path / "x")
    assert message.index("'b/Matrix.H5'") < message.index("'b/matrx.h5'")
    assert "among 12" in message  # the folder too
    message = error_of(archives.unpack, make(tmp_path, "zip", files), "zzzz", tmp_path / "x")
    assert "'a/0.txt'" in message
    assert "'a/7.txt'" not in message


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_folder_is_rejected(kind, tmp_path):
    archive = make(tmp_path, kind)
    assert "is a folder" in error_of(archives.unpack, archive, "outs/", tmp_path / "x")
    assert "is a folder" in error_of(archives.unpack, archive, "outs", tmp_path / "x")


# --- path traversal --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..", "", "."])
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_names_that_lead_out_are_rejected(name, kind, tmp_path):
    archive = tmp_path / "archive"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr(name or "empty", "evil")
            opened.writestr("good", "good")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            add_tar(tar, name, b"evil")
            add_tar(tar, "good", b"good")
    message = error_of(archives.unpack, archive, name, tmp_path / "deep" / "er" / "x")
    assert "is not a path inside an archive" in message
    archives.unpack(archive, "good", tmp_path / "deep" / "er" / "x")  # the evil member has no effect
    assert everything(tmp_path) == {"archive", "deep", "deep/er", "deep/er/x"}
    assert (tmp_path / "deep" / "er" / "x").read_bytes() == b"good"


def test_a_7z_name_that_leads_out_is_never_written(tmp_path):
    archive = make(tmp_path, "7z", {"xx/evil": b"evil", "good": b"good"})
    content = archive.read_bytes()
    # names are UTF-16 in a compressed header; an archive with uncompressed headers can be edited
    with py7zr.SevenZipFile(archive, "w") as opened:
        opened.set_encoded_header_mode(False)
        opened.writestr(b"evil", "xx/evil")
        opened.writestr(b"good", "good")
    content = archive.read_bytes()
    changed = content.replace("xx/evil".encode("utf-16-le"), "../evil".encode("utf-16-le"))
    assert changed != content
    archive.write_bytes(_with_header_checksums(changed))
    assert files_of(archive) == ["../evil", "good"]
    assert "is not a path" in error_of(archives.unpack, archive, "../evil", tmp_path / "a" / "x")
    assert "no member 'evil'" in error_of(archives.unpack, archive, "evil", tmp_path / "a" / "x")
    archives.unpack(archive, "good", tmp_path / "a" / "x")
    assert everything(tmp_path) == {"archive", "a", "a/x"}


def _with_header_checksums(content: bytes) -> bytes:
    """A 7z file with an edited uncompressed header, its checksums corrected: of bytes 12-32 and of the header."""
    offset, size = struct.unpack("<QQ", content[12:28])
    start = content[12:28] + struct.pack("<I", zlib.crc32(content[32 + offset : 32 + offset + size]))
    return content[:8] + struct.pack("<I", zlib.crc32(start)) + start + content[32:]


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.FIFOTYPE, "device"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
    ],
)
def test_links_and_devices_of_a_tar_are_rejected(kind, word, tmp_path):
    archive = tmp_path / "archive"
    with tarfile.open(archive, "w") as tar:
        add_tar(tar, "good", b"good")
        add_tar(tar, "odd", kind=kind, target="good")
    assert f"'odd' is a {word}" in error_of(archives.unpack, archive, "odd", tmp_path / "x")
    assert files_of(archive) == ["good"]
    assert everything(tmp_path) == {"archive"}


def test_links_of_a_zip_are_rejected(tmp_path):
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, mode in (("link", stat.S_IFLNK), ("pipe", stat.S_IFIFO), ("good", stat.S_IFREG)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o777) << 16
            opened.writestr(info, "/etc/passwd")
    assert "'link' is a link" in error_of(archives.unpack, archive, "link", tmp_path / "x")
    assert "'pipe' is a device" in error_of(archives.unpack, archive, "pipe", tmp_path / "x")
    assert files_of(archive) == ["good"]


def test_links_of_a_7z_are_rejected(tmp_path):
    archive, link = tmp_path / "archive", tmp_path / "link"
    link.symlink_to("archive")
    with py7zr.SevenZipFile(archive, "w") as opened:
        opened.write(link, "odd")
        opened.writestr(b"good", "good")
    assert "'odd' is a link" in error_of(archives.unpack, archive, "odd", tmp_path / "x")
    assert files_of(archive) == ["good"]


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_name_is_rejected(kind, tmp_path):
    archive = tmp_path / "archive"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("a/b.txt", "one")
            opened.writestr("a//b.txt", "two")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            add_tar(tar, "a/b.txt", b"one")
            add_tar(tar, "./a/b.txt", b"two")
    assert "more than once" in error_of(archives.unpack, archive, "a/b.txt", tmp_path / "x")
    assert everything(tmp_path) == {"archive"}


# --- passwords -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_names", [False, True])
def test_a_7z_needs_its_password(hidden_names, tmp_path):
    archive = tmp_path / "archive"
    with py7zr.SevenZipFile(archive, "w", password="secret", header_encryption=hidden_names) as opened:
        opened.writestr(LARGE, "a.bin")
    assert "needs a password" in error_of(archives.unpack, archive, "a.bin", tmp_path / "x")
    assert "needs a password" in error_of(archives.unpack, archive, "a.bin", tmp_path / "x", "")
    message = error_of(archives.unpack, archive, "a.bin", tmp_path / "x", "wrong")
    assert "password is wrong" in message
    assert "wrong'" not in message
    archives.unpack(archive, "a.bin", tmp_path / "x", "secret")
    assert (tmp_path / "x").read_bytes() == LARGE
    assert everything(tmp_path) == {"archive", "x"}


def encrypted_zip(path: Path, name: str, content: bytes, password: bytes) -> None:
    """A zip as PKWARE's appnote 6.1 encrypts it, which the standard library reads but does not write."""
    table = [0] * 256
    for n in range(256):
        value = n
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        table[n] = value
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte):
        keys[0] = keys[0] >> 8 ^ table[(keys[0] ^ byte) & 255]
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = keys[2] >> 8 ^ table[(keys[2] ^ keys[1] >> 24) & 255]

    def encrypt(byte):
        mask = (keys[2] | 2) & 0xFFFF
        update(byte)
        return byte ^ (mask * (mask ^ 1) >> 8 & 255)

    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(name, content)
        (info,) = opened.infolist()
        start = info.header_offset + 30 + len(name)
    for byte in password:
        update(byte)
    plain = path.read_bytes()
    secret = bytes(map(encrypt, bytes(11) + bytes([info.CRC >> 24]) + content))
    local = bytearray(plain[:start])
    rest = bytearray(plain[start + len(content) :])  # the central directory and its end
    local[6] |= 1
    rest[8] |= 1
    for header, at in ((local, 18), (rest, 20)):
        header[at : at + 4] = len(secret).to_bytes(4, "little")
    end = rest.rindex(b"PK\x05\x06")
    rest[end + 16 : end + 20] = (start + len(secret)).to_bytes(4, "little")
    path.write_bytes(bytes(local) + secret + bytes(rest))


def test_a_zip_needs_its_password(tmp_path):
    archive = tmp_path / "archive"
    encrypted_zip(archive, "a.txt", SMALL, b"secret")
    assert files_of(archive) == ["a.txt"]
    assert "needs a password" in error_of(archives.unpack, archive, "a.txt", tmp_path / "x")
    assert "password is wrong" in error_of(archives.unpack, archive, "a.txt", tmp_path / "x", "wrong")
    archives.unpack(archive, "a.txt", tmp_path / "x", "secret")
    assert (tmp_path / "x").read_bytes() == SMALL


@pytest.mark.parametrize("bits", [128, 256])
def test_an_aes_zip_is_read(tmp_path, bits):
    archive = tmp_path / "archive"
    with pyzipper.AESZipFile(archive, "w", compression=pyzipper.ZIP_DEFLATED) as opened:
        opened.setpassword(b"secret")
        opened.setencryption(pyzipper.WZ_AES, nbits=bits)
        opened.writestr("images/a.txt", SMALL)
    assert files_of(archive) == ["images/a.txt"]
    assert "needs a password" in error_of(archives.unpack, archive, "images/a.txt", tmp_path / "x")
    assert "password is wrong" in error_of(archives.unpack, archive, "images/a.txt", tmp_path / "x", "wrong")
    archives.unpack(archive, "images/a.txt", tmp_path / "x", "secret")
    assert (tmp_path / "x").read_bytes() == SMALL
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 1
    archive.write_bytes(content)
    (tmp_path / "x").unlink()
    assert str(archive) in error_of(archives.unpack, archive, "images/a.txt", tmp_path / "x", "secret")
    assert not (tmp_path / "x").exists()


# --- damage ----------------------------------------------------------------------------------------------------------


def rejected(archive: Path, content: bytes, kind: str, target: Path) -> bool:
    """Whether extracting the large file of a damaged archive fails; if not, it must be intact."""
    archive.write_bytes(content)
    try:
        archives.unpack(archive, "outs/matrix.h5", target, password_of(kind))
    except InputError:
        assert not target.exists()
        return True
    assert target.read_bytes() == LARGE
    target.unlink()
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_gives_the_intact_file_or_an_error(kind, tmp_path):
    archive = make(tmp_path, kind)
    content = archive.read_bytes()
    ends = [0, 1, 5, 40, 600, 1500, *range(2000, len(content), len(content) // 8), len(content) - 1]
    seen = [rejected(archive, content[:end], kind, tmp_path / "x") for end in ends]
    # an uncompressed tar may have lost only data after the file
    assert seen == ([True] * seen.count(True) + [False] * seen.count(False) if kind == "tar" else [True] * len(ends))
    assert seen.count(True) >= 8


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tar"])  # which has no checksum of its content
def test_a_changed_byte_gives_the_intact_file_or_an_error(kind, tmp_path):
    archive = make(tmp_path, kind)
    content = archive.read_bytes()
    dice = random.Random(5)
    n_places = 4 if "password" in kind else 12  # to derive a key takes time
    first, last = range(n_places), range(len(content) - n_places, len(content))
    seen = []
    for place in [*first, *dice.sample(range(len(content)), n_places), *last]:
        changed = bytearray(content)
        changed[place] ^= dice.randrange(1, 256)
        seen.append(rejected(archive, changed, kind, tmp_path / "x"))
    assert seen.count(True) >= len(seen) / 3  # at least the bytes within the content


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"<!DOCTYPE html>", "a web page"), (b"\x89PNG\r\n", "PNG"), (bytes(600), "x00")],
)
def test_a_file_that_is_not_an_archive_is_reported(content, word, tmp_path):
    (tmp_path / "a.zip").write_bytes(content)
    message = error_of(archives.unpack, tmp_path / "a.zip", "a", tmp_path / "x")
    assert all(part in message for part in ("a.zip", "not a zip, tar or 7z archive", word))
    assert "no such file" in error_of(archives.unpack, tmp_path / "b.zip", "a", tmp_path / "x")


def test_a_gzip_that_is_not_a_tar_is_reported(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(LARGE))
    assert "a.gz" in error_of(archives.unpack, tmp_path / "a.gz", "a", tmp_path / "x")


# --- disk ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_larger_than_the_disk_is_rejected(kind, tmp_path, monkeypatch):
    archive = make(tmp_path, kind)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(LARGE) - 1))
    message = error_of(archives.unpack, archive, "outs/matrix.h5", tmp_path / "x", password_of(kind))
    assert "needs 300.0 kB" in message
    archives.unpack(archive, "outs/spatial/positions.csv", tmp_path / "x", password_of(kind))
    assert everything(tmp_path) == {"archive", "x"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_fills_up_is_reported(kind, tmp_path):
    archive = make(tmp_path, kind)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        message = error_of(archives.unpack, archive, "outs/matrix.h5", tmp_path / "x", password_of(kind))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the disk is full" in message
    assert everything(tmp_path) == {"archive"}


def test_the_script_unpacks(tmp_path):
    archive = make(tmp_path, "7z with password")
    given = json.dumps([str(archive), str(tmp_path / "x"), str(tmp_path / "log")])
    code = f"""
import runpy
from types import SimpleNamespace as N
archive, file, log = {given}
params = N(member="outs/matrix.h5", password="secret")
snakemake = N(input=N(archive=archive), output=N(file=file), params=params, log=[log])
runpy.run_path({str(SCRIPT)!r}, init_globals={{"snakemake": snakemake}})
"""
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPT.parent)}, check=True)
    assert hashlib.sha256((tmp_path / "x").read_bytes()).digest() == hashlib.sha256(LARGE).digest()
    assert "secret" not in (tmp_path / "log").read_text()
