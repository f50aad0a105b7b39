"""The source list: a tab-separated file with one row per file of the public sections; and its lock file.

The lock file, next to the list, records the SHA-256 of each download that the list has no digest for, as first seen.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ctrflow import storage
from ctrflow.disk import writing
from ctrflow.errors import InputError
from ctrflow.tsv import read_rows, require_none

COLUMNS = ("file", "url", "sha256", "member", "password", "checked", "note")
REQUIRED = ("file", "url", "checked")
LOCK_COLUMNS = ("url", "sha256", "bytes")
FILES = "data/public"
DOWNLOADS = "data/downloads"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")


def read_sources(path: str | Path):
    """Read and check the source list; nothing is downloaded.

    Returns
    -------
    pandas.DataFrame
        index `file`, in the order of the list; columns url, sha256 (of the download, that is, of the archive if member
        is given; lower case), member, password, checked, note as text ("" if empty).

    Raises
    ------
    InputError
        listing all problems with file, row, column and cure.
    """
    import pandas as pd

    problems: list[str] = []
    rows, first_file, first_url = [], {}, {}
    for where, row in read_rows(Path(path), COLUMNS, REQUIRED, problems):
        row["sha256"] = row["sha256"].lower()
        problems += [f"{where}, {problem}" for problem in _row_problems(row)]
        other, _ = first_file.setdefault(row["file"], (where, row))
        if row["file"] and other != where:
            problems.append(f"{where}, column file: '{row['file']}' is already at {other}; delete one of the two rows")
        other, same = first_url.setdefault(row["url"], (where, row))
        problems += [
            f"{where}, column {column}: '{row[column]}' differs from '{same[column]}' for the same url at {other}; "
            "it is a property of the download: correct one of them"
            for column in ("sha256", "password")
            if row[column] != same[column]
        ]
        rows.append(row)
    problems += [
        f"{where}, column file: '{name}' is inside '{folder}', which is a file at {first_file[str(folder)][0]}; rename "
        "one"
        for name, (where, _) in first_file.items()
        for folder in PurePosixPath(name).parents
        if str(folder) in first_file
    ]
    require_none(problems, "the source list")
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str).set_index("file")


def archive_path(url: str) -> str:
    """Path of a downloaded archive: data/downloads/<digest of the url>-<last part of the url>."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2])
    # the digest keeps two spatial.tar.gz apart; of a long name the end is kept, with the format
    return f"{DOWNLOADS}/{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name[-80:] or 'download'}"


def below(sources, folder: str) -> list[str]:
    """The files of the list inside a folder."""
    inside = PurePosixPath(folder)
    if PurePosixPath(FILES).is_relative_to(inside):
        return []  # `data` holds what people put there, too
    return [name for name in sources.index if name.startswith(f"{inside}/")]


def mirrored(file: str, data_root: str) -> str:
    """Path of a file in an offline mirror: as below data/public, archives under downloads/; "" without a mirror."""
    if not data_root:
        return ""
    inside = PurePosixPath(file)
    inside = inside.relative_to(FILES if inside.is_relative_to(FILES) else PurePosixPath(FILES).parent)
    return str(Path(data_root) / inside)


def lock_path(path: str | Path) -> Path:
    """The lock file of a source list: sources.tsv -> sources.lock.tsv next to it."""
    path = Path(path)
    return path.with_name(f"{path.stem}.lock.tsv")


def expected(url: str, sha256: str, lock: str | Path) -> str:
    """The expected SHA-256 of a download: from the source list, else from the lock file, else ""."""
    return sha256.lower() or _read_lock(Path(lock)).get(url, ("", 0))[0]


def record(url: str, sha256: str, n_bytes: int, lock: str | Path) -> None:
    """Record digest and size of a download in the lock file when it is first seen.

    Several processes may record at the same time.

    Raises
    ------
    InputError
        if another digest is recorded for this url, or the lock file cannot be read, written or locked.
    """
    lock = Path(lock)
    with _locked(lock):
        known = _read_lock(lock)
        seen, _ = known.setdefault(url, (sha256, n_bytes))
        if seen != sha256:
            raise InputError(
                f"{lock}: {url} had sha256 {seen} when first downloaded, now it has {sha256}; if the file at the url "
                "changed, delete its line in the lock file to accept the new one; if the download was corrupted, run "
                "again"
            )
        rows = [LOCK_COLUMNS, *((key, digest, str(size)) for key, (digest, size) in sorted(known.items()))]
        with writing(lock):
            storage.write_text("".join("\t".join(row) + "\n" for row in rows), lock)


def _row_problems(row: dict) -> list[str]:
    problems = []
    parts = row["file"].split("/")
    if not row["file"].startswith(f"{FILES}/") or not all(map(NAME.fullmatch, parts)):
        problems.append(
            f"column file: '{row['file']}' is not a valid file path; write {FILES}/<cohort>/<name> with letters, "
            "digits, '_', '.', '+', '-', no part starting with '.'"
        )
    problems += _url_problems(row["url"])
    if row["sha256"] and not SHA256.fullmatch(row["sha256"]):
        problems.append(
            f"column sha256: '{row['sha256']}' is not 64 hexadecimal digits; correct it, or leave it empty if "
            "unknown (an MD5 belongs in column note)"
        )
    member = PurePosixPath(row["member"])
    if row["member"] and (member.is_absolute() or ".." in member.parts or "\\" in row["member"]):
        problems.append(f"column member: '{row['member']}' leads out of the archive; give the path inside it, with '/'")
    if row["password"] and not row["member"]:
        problems.append("column password: filled, but column member is empty; name the file in the archive or clear it")
    if row["checked"] not in ("yes", "no"):
        problems.append(f"column checked: '{row['checked']}'; write yes (the url has been tested) or no")
    return problems


def _url_problems(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", url)
    except ValueError:  # an unclosed bracket of an IPv6 address
        usable = False
    if not usable:
        return [f"column url: '{url}' is not a download address; start it with https:// or http://"]
    if "@" in parts.netloc:
        return ["column url: contains a user name or password; give a public address"]
    return []


def _read_lock(lock: Path) -> dict[str, tuple[str, int]]:
    """url -> (sha256, bytes); empty if nothing is recorded."""
    if not lock.exists() or lock.stat().st_size == 0:
        return {}
    problems: list[str] = []
    rows = read_rows(lock, LOCK_COLUMNS, LOCK_COLUMNS, problems)
    problems += [
        f"{where}: invalid sha256 or number of bytes; delete the row, it is recorded again"
        for where, row in rows
        if not SHA256.fullmatch(row["sha256"]) or not row["bytes"].isdecimal()
    ]
    known: dict[str, tuple[str, int]] = {}
    for where, row in rows:
        if row["url"] in known:
            problems.append(f"{where}, column url: '{row['url']}' appears twice; delete the wrong row")
        known[row["url"]] = (row["sha256"], row["bytes"])
    require_none(problems, "the lock file of the source list")
    return {url: (digest, int(size)) for url, (digest, size) in known.items()}


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Lock the lock file for this process."""
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = _open_locked(lock)
    try:
        yield
    finally:
        handle.close()


def _open_locked(lock: Path):
    while True:
        handle = lock.open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if lock.exists() and os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                return handle
        except OSError as error:
            handle.close()
            raise InputError(
                f"{lock}: its file system does not support file locks ({error.strerror}); write the sha256 of the "
                "downloads into the source list, or keep the list on another disk"
            ) from error
        # another process replaced the file while this one waited
        handle.close()
