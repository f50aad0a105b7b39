"""The source list: a tab-separated file, one row a file that a public section is made of; and its lock file.

The lock file lies beside the list and keeps the SHA-256 of every download that the list has no digest for, as it was
when it was first seen.
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
    """Read the source list and check every row; nothing is downloaded.

    Returns
    -------
    pandas.DataFrame
        index `file`, in the order of the list; columns url, sha256 (of the download: of the archive where there is a
        member; small letters), member, password, checked, note as text ("" where empty).

    Raises
    ------
    InputError
        one message with every problem: file, row, column, cure.
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
            f"{where}, column {column}: '{row[column]}' differs from '{same[column]}' of the same url at {other}; "
            "it belongs to the whole download: correct one of them"
            for column in ("sha256", "password")
            if row[column] != same[column]
        ]
        rows.append(row)
    problems += [
        f"{where}, column file: '{name}' lies in '{folder}', the file of {first_file[str(folder)][0]}; rename one"
        for name, (where, _) in first_file.items()
        for folder in PurePosixPath(name).parents
        if str(folder) in first_file
    ]
    require_none(problems, "the source list")
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str).set_index("file")


def archive_path(url: str) -> str:
    """Where a download that files are taken out of is kept: data/downloads/<digest of the url>-<its last part>."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2])
    # two spatial.tar.gz must not meet; the end of a long name is kept, it says the format
    return f"{DOWNLOADS}/{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name[-80:] or 'download'}"


def below(sources, folder: str) -> list[str]:
    """The files of the list that lie in a folder."""
    return [name for name in sources.index if name.startswith(f"{folder.rstrip('/')}/")]


def mirrored(file: str, data_root: str) -> str:
    """Where an offline mirror has a file: at the path below data/public, archives under downloads/; "" without one."""
    if not data_root:
        return ""
    inside = PurePosixPath(file)
    inside = inside.relative_to(FILES if inside.is_relative_to(FILES) else PurePosixPath(FILES).parent)
    return str(Path(data_root) / inside)


def lock_path(path: str | Path) -> Path:
    """The lock file of a source list: sources.tsv -> sources.lock.tsv beside it."""
    path = Path(path)
    return path.with_name(f"{path.stem}.lock.tsv")


def expected(url: str, sha256: str, lock: str | Path) -> str:
    """The SHA-256 that the download must have: that of the source list, else that of the lock file, else ""."""
    return sha256.lower() or _read_lock(Path(lock)).get(url, ("", 0))[0]


def record(url: str, sha256: str, n_bytes: int, lock: str | Path) -> None:
    """Write down in the lock file what a download was, when it is seen for the first time.

    Safe when several processes record at once.

    Raises
    ------
    InputError
        if another digest is on record for this url, or the lock file cannot be read, written or locked.
    """
    lock = Path(lock)
    with _locked(lock):
        known = _read_lock(lock)
        seen, _ = known.setdefault(url, (sha256, n_bytes))
        if seen != sha256:
            raise InputError(
                f"{lock}: {url} had sha256 {seen} when it was first seen and has {sha256} now; the file at the url "
                "changed: delete its line in the lock file to accept the new one (or the download was damaged: run "
                "again)"
            )
        rows = [LOCK_COLUMNS, *((key, digest, str(size)) for key, (digest, size) in sorted(known.items()))]
        with writing(lock):
            storage.write_text("".join("\t".join(row) + "\n" for row in rows), lock)


def _row_problems(row: dict) -> list[str]:
    problems = []
    parts = row["file"].split("/")
    if not row["file"].startswith(f"{FILES}/") or not all(map(NAME.fullmatch, parts)):
        problems.append(
            f"column file: '{row['file']}' cannot be the place of a file; write {FILES}/<cohort>/<name>, of letters, "
            "digits, '_', '.', '+', '-', no part beginning with '.'"
        )
    problems += _url_problems(row["url"])
    if row["sha256"] and not SHA256.fullmatch(row["sha256"]):
        problems.append(
            f"column sha256: '{row['sha256']}' is not 64 hexadecimal digits; correct it, or leave it empty until the "
            "file was seen (an MD5 belongs into the note)"
        )
    member = PurePosixPath(row["member"])
    if row["member"] and (member.is_absolute() or ".." in member.parts or "\\" in row["member"]):
        problems.append(
            f"column member: '{row['member']}' leads out of the archive; give the path inside it, separated by '/'"
        )
    if row["password"] and not row["member"]:
        problems.append("column password: filled, but column member is empty; name the file in the archive or clear it")
    if row["checked"] not in ("yes", "no"):
        problems.append(f"column checked: '{row['checked']}'; write yes (the url was tried) or no")
    return problems


def _url_problems(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", url)
    except ValueError:  # a bracket of an IPv6 address left open
        usable = False
    if not usable:
        return [f"column url: '{url}' is not the address of a download; begin it with https:// or http://"]
    if "@" in parts.netloc:
        return ["column url: holds a user name or password; give an address that anyone can use"]
    return []


def _read_lock(lock: Path) -> dict[str, tuple[str, int]]:
    """url -> (sha256, bytes); empty where nothing was recorded."""
    if not lock.exists() or lock.stat().st_size == 0:
        return {}
    problems: list[str] = []
    rows = read_rows(lock, LOCK_COLUMNS, LOCK_COLUMNS, problems)
    problems += [
        f"{where}: no sha256 or no number of bytes; delete the row, it is made anew"
        for where, row in rows
        if not SHA256.fullmatch(row["sha256"]) or not row["bytes"].isdecimal()
    ]
    known: dict[str, tuple[str, int]] = {}
    for where, row in rows:
        if row["url"] in known:
            problems.append(f"{where}, column url: '{row['url']}' is there twice; delete the row that is wrong")
        known[row["url"]] = (row["sha256"], row["bytes"])
    require_none(problems, "the lock file of the source list")
    return {url: (digest, int(size)) for url, (digest, size) in known.items()}


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Hold the lock file for this process alone."""
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
                f"{lock}: its file system cannot lock files ({error.strerror}); write the sha256 of the downloads into "
                "the source list, or keep it on another disk"
            ) from error
        # replaced by another process while this one waited
        handle.close()
