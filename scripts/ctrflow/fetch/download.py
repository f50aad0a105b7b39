"""Download a file over HTTP(S) with retries, resume and checksum; or take it from a mirror on disk.

An incomplete download is kept next to the target as `.<name>.part`, with its origin in `.<name>.part.json`, and resumed
by the next try or the next run (RFC 9110: Range, If-Range, Content-Range).
"""

import fcntl
import hashlib
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from email.utils import parsedate_to_datetime
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import requests
import urllib3.exceptions

from ctrflow import storage
from ctrflow.disk import append, require_space, size, writing
from ctrflow.errors import InputError
from ctrflow.logs import logger

CHUNK_BYTES = 1 << 18
PROGRESS_BYTES = 1 << 20  # this much progress resets the count of tries
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
LONGEST_WAIT_S = 300.0  # at most, of a server's Retry-After
REPORT_S = 5.0
RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}
BY_HAND = "or download it by hand and point `data_root` in the configuration to it"
HEADERS = {"User-Agent": "ctrflow", "Accept-Encoding": "identity"}  # identity: sizes and digests are of the file itself
NAMES = {"etag": "ETag", "modified": "Last-Modified"}


class Fetched(NamedTuple):
    """Digest and size of a complete file."""

    sha256: str
    n_bytes: int


class _Retry(Exception):
    """A failure that may be temporary; `wait_s` is the server's Retry-After."""

    def __init__(self, message: str, wait_s: float = 0.0):
        super().__init__(message)
        self.wait_s = wait_s


def fetch(
    url: str,
    path: str | Path,
    sha256: str = "",
    mirror: str | Path | None = None,
    *,
    tries: int = 5,
    timeout_s: tuple[float, float] = (10.0, 30.0),
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Download `url` to `path`, which appears only when the file is complete.

    Parameters
    ----------
    sha256
        expected digest (64 hexadecimal digits); empty: not known. A download with another digest is repeated once from
        the start, then rejected. Without a digest, a part is resumed only if the server's ETag or Last-Modified shows
        that the file has not changed.
    mirror
        a copy of the file on disk. If it exists, it is checked the same way and linked, or copied from another file
        system.
    tries
        consecutive tries without 1 MiB of progress before giving up; between them 1, 2, 4 ... up to 60 s with jitter,
        or the server's Retry-After, up to 300 s.
    timeout_s
        seconds to connect, and seconds without a byte before the connection counts as stalled.

    Raises
    ------
    InputError
        naming the url, what happened and the cure. The part is kept, unless its digest is wrong.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = sha256.lower()
    if mirror and os.path.lexists(mirror):
        return _from_mirror(Path(mirror), path, sha256)
    with _open_part(path, url) as part:
        _download(part, bool(sha256), tries, timeout_s, sleep)
        if sha256 and part.digest() != sha256:
            logger.warning("%s: sha256 is %s, expected %s; downloading it again", url, part.digest(), sha256)
            part.restart()
            _download(part, True, tries, timeout_s, sleep)
        fetched = Fetched(part.digest(), part.n_bytes)
        if sha256 and fetched.sha256 != sha256:
            part.restart()
            raise InputError(
                f"{url}: sha256 is {fetched.sha256} ({fetched.n_bytes:,} bytes), expected {sha256}, twice in a row. "
                "Either the file at the url changed: to accept it, correct sha256 in the source list or, if it is not "
                "given there, delete the url's line in the lock file next to the list. Or the download was corrupted: "
                f"run again, {BY_HAND}"
            )
        part.finish(path)
    logger.info("%s: %s, sha256 %s", path, size(fetched.n_bytes), fetched.sha256)
    return fetched


def _from_mirror(mirror: Path, path: Path, sha256: str) -> Fetched:
    if not mirror.is_file():
        raise InputError(f"{mirror}: not a file, or a broken link; put the file there or delete it")
    with storage.atomic(path) as part:
        try:
            # the target of a symbolic link, not the link
            part.hardlink_to(mirror.resolve())
            done, target = "linked", None
        except OSError:
            done, target = "copied", part
            with writing(part):
                part.touch()
            require_space(part, mirror.stat().st_size)
        fetched = _hash_file(mirror, target)
        if sha256 and fetched.sha256 != sha256:
            raise InputError(
                f"{mirror}: sha256 is {fetched.sha256} ({fetched.n_bytes:,} bytes), expected {sha256}; the copy is "
                "damaged or another version: replace it, or delete it to download the file"
            )
    logger.info("%s: %s from %s, %s, sha256 %s", path, done, mirror, size(fetched.n_bytes), fetched.sha256)
    return fetched


def _hash_file(source: Path, copy: Path | None) -> Fetched:
    """The digest of a file, which is also written to `copy` if that is given."""
    content, n_bytes = hashlib.sha256(), source.stat().st_size
    try:
        with source.open("rb") as handle, copy.open("wb", buffering=0) if copy else nullcontext() as out:
            chunks = iter(lambda: handle.read(CHUNK_BYTES), b"")
            for chunk in _with_progress(chunks, 0, n_bytes, source.name):
                content.update(chunk)
                if copy:
                    append(chunk, out, copy)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); make it readable or delete it") from error
    return Fetched(content.hexdigest(), n_bytes)


# --- the unfinished file ---------------------------------------------------------------------------------------------


class _Part:
    """An incomplete file, open for appending, with its digest so far and its origin."""

    def __init__(self, handle: FileIO, path: Path, url: str):
        self.handle, self.path, self.url = handle, path, url
        self.name = path.name.removeprefix(".").removesuffix(".part")
        self.origin_path = path.with_name(path.name + ".json")
        self.origin = _read_origin(self.origin_path, url)
        self.n_bytes = os.fstat(handle.fileno()).st_size
        self.content = hashlib.sha256()
        if not self.origin:
            self.restart()
        if self.n_bytes:
            handle.seek(0)
            for chunk in iter(lambda: handle.read(CHUNK_BYTES), b""):
                self.content.update(chunk)

    def digest(self) -> str:
        return self.content.hexdigest()

    def restart(self, origin: dict | None = None) -> None:
        """Empty the file; `origin` (etag, modified, total) is that of the content to follow."""
        self.handle.truncate(0)
        self.n_bytes, self.content, self.origin = 0, hashlib.sha256(), origin or {}
        if not origin:
            self.origin_path.unlink(missing_ok=True)
            return
        with writing(self.origin_path):
            storage.write_json({"url": self.url} | origin, self.origin_path)

    def append(self, chunk: bytes) -> None:
        append(chunk, self.handle, self.path)
        self.content.update(chunk)
        self.n_bytes += len(chunk)

    def finish(self, path: Path) -> None:
        """Move the file to its final name."""
        with writing(path):
            self.path.replace(path)
            self.origin_path.unlink(missing_ok=True)


@contextmanager
def _open_part(path: Path, url: str) -> Iterator[_Part]:
    """The part of `path`, locked by this process; removed at the end if it is empty."""
    part_path = path.with_name(f".{path.name}.part")
    with writing(part_path):
        handle = part_path.open("a+b", buffering=0)  # unbuffered: received bytes survive a kill
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:  # such as a child process of a killed run
            raise InputError(f"{path}: another process is downloading it; wait for it or stop it") from error
        except OSError:
            logger.debug("%s: its file system has no locks", part_path)
        if not part_path.exists() or not os.path.samestat(os.fstat(handle.fileno()), part_path.stat()):
            raise InputError(f"{path}: another process has just downloaded it; run again")
        part = _Part(handle, part_path, url)
        try:
            yield part
        finally:
            if not os.fstat(handle.fileno()).st_size:
                part_path.unlink(missing_ok=True)
                part.origin_path.unlink(missing_ok=True)


def _read_origin(path: Path, url: str) -> dict:
    """The origin of a part; empty if unknown or of another url."""
    try:
        origin = storage.read_json(path)
    except (OSError, ValueError):
        return {}
    known = isinstance(origin, dict) and set(origin) == {"url", "etag", "modified", "total"} and origin["url"] == url
    return origin if known else {}


# --- requests ---------------------------------------------------------------------------------------------------------


def _download(part: _Part, digest_known: bool, tries: int, timeout_s, sleep) -> None:
    """Complete the part. Always ends: only a new maximum of the part's length resets the count of tries."""
    failed, furthest = 0, part.n_bytes
    with requests.Session() as session:
        while True:
            try:
                _try_once(session, part, digest_known, timeout_s)
                return
            except _Retry as fault:
                failed += 1
                if part.n_bytes >= furthest + PROGRESS_BYTES:
                    failed, furthest = 1, part.n_bytes
                if failed >= tries:
                    kept = (
                        f"; {size(part.n_bytes)} are kept, run again to resume" if part.n_bytes else "; run again later"
                    )
                    raise InputError(f"{part.url}: {fault}, {failed} times{kept}, {BY_HAND}") from fault
                backoff_s = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** (failed - 1)) * random.uniform(0.5, 1)
                wait_s = max(backoff_s, min(fault.wait_s, LONGEST_WAIT_S))
                logger.warning("%s: %s; try %d of %d in %.1f s", part.url, fault, failed + 1, tries, wait_s)
                sleep(wait_s)


def _try_once(session, part: _Part, digest_known: bool, timeout_s) -> None:
    """One request: resume the part, or restart it. Returns when the file is complete."""
    if_range = _validator(part.origin)
    if part.n_bytes and not if_range and not (digest_known and part.origin["total"]):
        part.restart()  # a mixture of two files could not be detected
    headers = dict(HEADERS)
    if part.n_bytes:
        headers |= {"Range": f"bytes={part.n_bytes}-"} | ({"If-Range": if_range} if if_range else {})
    with _ask(session, part.url, headers, timeout_s) as response:
        if response.status_code == 416 and part.n_bytes:
            return _end_or_restart(part, response)
        if response.status_code == 206 and part.n_bytes:
            _require_continuation(part, response)
        elif response.status_code == 200:
            _begin(part, response, digest_known)
        else:
            _refuse(part.url, response)
        require_space(part.path, (part.origin["total"] or part.n_bytes) - part.n_bytes)
        _receive(part, response, timeout_s)
    return None


def _ask(session, url: str, headers: dict, timeout_s):
    try:
        return session.get(url, headers=headers, stream=True, timeout=timeout_s)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        causes = _causes(error)
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            raise InputError(
                f"{url}: the server's certificate is not valid ({causes[-1]}); correct the machine's clock or its "
                f"certificates (set REQUESTS_CA_BUNDLE to a certificate file), {BY_HAND}"
            ) from error
        raise _Retry(f"no answer ({causes[-1]}); check the network and the proxy (https_proxy)") from error
    except (requests.RequestException, OSError) as error:
        raise InputError(f"{url}: the request failed ({error}); correct the url in the source list") from error


def _causes(error: BaseException) -> list[BaseException]:
    """The error and its chain of causes; the root cause last."""
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    return chain


def _refuse(url: str, response) -> None:
    """Raise the error of an unsuccessful status."""
    answer = f"{response.status_code} {response.reason}"
    if response.status_code in RETRY_STATUS:
        raise _Retry(f"the server answers {answer}", _retry_after_s(response.headers.get("Retry-After", "")))
    if response.status_code in (401, 403):
        raise InputError(
            f"{url}: access denied ({answer}); check on the data set's page whether you need an account or must accept "
            "terms, then download the file by hand and point `data_root` in the configuration to it"
        )
    if response.status_code in (404, 410):
        raise InputError(f"{url}: not found ({answer}); correct the url in the source list, {BY_HAND}")
    raise InputError(f"{url}: the server answers {answer}; correct the url in the source list, {BY_HAND}")


def _retry_after_s(text: str) -> float:
    """Retry-After in seconds, from a number or an HTTP date; 0 if it is neither."""
    if text.isdecimal():
        return float(text)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _begin(part: _Part, response, digest_known: bool) -> None:
    """Start the part from a response that holds the complete file."""
    headers = response.headers
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity" and not part.name.endswith((".gz", ".tgz")):  # some servers label .gz files this way
        raise InputError(
            f"{part.url}: the server sends it compressed ({encoding}) although that was not requested; download it by "
            "hand and point `data_root` in the configuration to it"
        )
    if not digest_known and headers.get("Content-Type", "").startswith("text/html") and ".htm" not in part.name:
        raise InputError(
            f"{part.url}: received a web page instead of the file (a login, or terms to accept?); open it in a browser "
            "and correct the url in the source list, or download the file by hand and point `data_root` in the "
            "configuration to it"
        )
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    length = "" if chunked else headers.get("Content-Length", "")
    if part.n_bytes:
        logger.info("%s: the server does not resume; downloading from the start", part.url)
    if not length and not chunked and not digest_known:
        logger.warning("%s: neither length nor digest is known; cannot check that the file is complete", part.url)
    part.restart(_known(headers) | {"total": int(length) if length.isdecimal() else None})


def _require_continuation(part: _Part, response) -> None:
    """The response must continue where the part ends, and be of the same file."""
    sent = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", sent)
    total = part.origin["total"]
    if not match or int(match[1]) != part.n_bytes or (total and match[2] not in ("*", str(total))):
        fault = f"requested bytes {part.n_bytes}- of {total}, received '{sent}'"
    elif _differs(part.origin, response.headers):
        fault = "the file changed during the download"
    else:
        return logger.info("%s: resuming at %s", part.url, size(part.n_bytes))
    part.restart()
    raise _Retry(fault)


def _end_or_restart(part: _Part, response) -> None:
    """The server has nothing after the part: it is complete, or of another file."""
    ends_here = response.headers.get("Content-Range", "") == f"bytes */{part.n_bytes}"
    if ends_here and part.origin["total"] in (None, part.n_bytes) and not _differs(part.origin, response.headers):
        return
    n_bytes = part.n_bytes
    part.restart()
    raise _Retry(f"the file ends before byte {n_bytes:,}, where the part ends")


def _receive(part: _Part, response, timeout_s) -> None:
    total = part.origin["total"]
    # read1 returns what has arrived: nothing is lost in a buffer when the connection breaks
    chunks = iter(lambda: response.raw.read1(CHUNK_BYTES, decode_content=False) or b"", b"")
    try:
        for chunk in _with_progress(chunks, part.n_bytes, total, part.name):
            part.append(chunk)
    except urllib3.exceptions.ReadTimeoutError as error:
        raise _Retry(f"stalled for {timeout_s[1]:g} s after {part.n_bytes:,} bytes") from error
    except urllib3.exceptions.HTTPError as error:
        raise _Retry(f"the connection broke after {part.n_bytes:,} of {total or 'unknown'} bytes") from error
    if total is not None and part.n_bytes < total:
        raise _Retry(f"the download ended after {part.n_bytes:,} of {total:,} bytes")
    if total is not None and part.n_bytes > total:
        part.restart()
        raise _Retry(f"received more than the announced {total:,} bytes")


def _known(headers) -> dict:
    """ETag and Last-Modified of a response; "" where it has none."""
    modified = headers.get("Last-Modified", "")
    with suppress(ValueError, TypeError):  # TypeError: one date has a time zone, the other none
        # a date is a validator only if the file was not still being written in that second (RFC 9110, 8.8.2.2)
        age_s = (parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)).total_seconds()
        return {"etag": headers.get("ETag", ""), "modified": modified if age_s >= 1 else ""}
    return {"etag": headers.get("ETag", ""), "modified": ""}


def _validator(origin: dict) -> str:
    """The value for If-Range: a strong ETag, else a date."""
    etag = origin.get("etag", "")
    return etag if etag and not etag.startswith("W/") else origin.get("modified", "")


def _differs(origin: dict, headers) -> bool:
    return any(origin[key] and headers.get(name, origin[key]) != origin[key] for key, name in NAMES.items())


def _with_progress(chunks: Iterable[bytes], have: int, total: int | None, name: str) -> Iterator[bytes]:
    """Yield chunks and log progress, speed and remaining time every few seconds."""
    start = last = time.monotonic()
    done = have
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        now = time.monotonic()
        if now - last < REPORT_S:
            continue
        last, per_s = now, (done - have) / (now - start)
        left = f", {timedelta(seconds=round((total - done) / per_s))} left" if total else ""
        logger.info("%s: %s of %s, %s/s%s", name, size(done), size(total) if total else "?", size(per_s), left)
