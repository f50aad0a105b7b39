"""Get a file over HTTP(S): resumed, tried again, checked; or from a mirror on disk.

What a try got is kept beside the target as `.<name>.part`, with `.<name>.part.json` saying where it came from, and is
gone on with by the next try or the next run (RFC 9110: Range, If-Range, Content-Range).
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
PROGRESS_BYTES = 1 << 20  # a try that got that much further than any before it starts the count of tries anew
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
LONGEST_WAIT_S = 300.0  # of what a server asks for in Retry-After
REPORT_S = 5.0
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
BY_HAND = "or get it by hand and give it by `data_root` in the configuration"
HEADERS = {"User-Agent": "ctrflow", "Accept-Encoding": "identity"}  # identity: sizes and digests are of the file itself
NAMES = {"etag": "ETag", "modified": "Last-Modified"}


class Fetched(NamedTuple):
    """What a finished file is."""

    sha256: str
    n_bytes: int


class _TryAgain(Exception):
    """What went wrong may go well next time; `wait_s` is what the server asked for."""

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
    """Put the file at `url` at `path`, which appears only when it is whole.

    Parameters
    ----------
    sha256
        what the file must be (64 hexadecimal digits); empty: not known. A download with another digest is done once
        more from the start, then refused. Without a digest a part is only gone on with when the server's ETag or
        Last-Modified says that the file is still the same.
    mirror
        a copy of the file on disk. It is used if it exists, under the same check: linked, or copied where it lies on
        another file system.
    tries
        tries in a row without 1 MiB of progress before giving up; between them 1, 2, 4 ... up to 60 s and some jitter,
        or what the server asks for, up to 300 s.
    timeout_s
        seconds to connect, and seconds without a byte before the connection counts as stalled.

    Raises
    ------
    InputError
        naming the url, what happened and the cure. What was got so far is kept, unless its digest is wrong.
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
            logger.warning("%s: sha256 is %s, expected %s; getting it anew", url, part.digest(), sha256)
            part.restart()
            _download(part, True, tries, timeout_s, sleep)
        found = Fetched(part.digest(), part.n_bytes)
        if sha256 and found.sha256 != sha256:
            part.restart()
            raise InputError(
                f"{url}: sha256 is {found.sha256} ({found.n_bytes:,} bytes), expected {sha256}, twice in a row. The "
                "file at the url changed: to accept the new one, correct sha256 in the source list or, where that has "
                "none, delete the url's line in the list's lock file. Or downloads are damaged on their way: run "
                f"again, {BY_HAND}"
            )
        part.finish(path)
    logger.info("%s: %s, sha256 %s", path, size(found.n_bytes), found.sha256)
    return found


def _from_mirror(mirror: Path, path: Path, sha256: str) -> Fetched:
    if not mirror.is_file():
        raise InputError(f"{mirror}: not a file, or a link to nothing; put the file there or delete it")
    with storage.whole(path) as part:
        try:
            # the target of a symbolic link, not the link
            part.hardlink_to(mirror.resolve())
            done, target = "linked", None
        except OSError:
            done, target = "copied", part
            with writing(part):
                part.touch()
            require_space(part, mirror.stat().st_size)
        found = _hash_file(mirror, target)
        if sha256 and found.sha256 != sha256:
            raise InputError(
                f"{mirror}: sha256 is {found.sha256} ({found.n_bytes:,} bytes), expected {sha256}; the copy is damaged "
                "or of another version: put the right one there, or delete it to have it downloaded"
            )
    logger.info("%s: %s from %s, %s, sha256 %s", path, done, mirror, size(found.n_bytes), found.sha256)
    return found


def _hash_file(source: Path, copy: Path | None) -> Fetched:
    """The digest of a file, written to `copy` meanwhile if that is given."""
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
    """An unfinished file, open for writing at its end, with its digest so far and what is known of its origin."""

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
        """Empty the file; `origin` (etag, modified, total) is what will be written now."""
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
        """Give the file its name."""
        with writing(path):
            self.path.replace(path)
            self.origin_path.unlink(missing_ok=True)


@contextmanager
def _open_part(path: Path, url: str) -> Iterator[_Part]:
    """The part of `path`, held by this process alone; nothing is left of it if it is empty."""
    part_path = path.with_name(f".{path.name}.part")
    with writing(part_path):
        handle = part_path.open("a+b", buffering=0)  # what arrived outlives a kill
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:  # such as the child of a run that was killed
            raise InputError(f"{path}: another process is downloading it; wait for that one or end it") from error
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
    """What the part came from; empty where that is not known, or was another url."""
    try:
        origin = storage.read_json(path)
    except (OSError, ValueError):
        return {}
    known = isinstance(origin, dict) and set(origin) == {"url", "etag", "modified", "total"} and origin["url"] == url
    return origin if known else {}


# --- the conversation with the server --------------------------------------------------------------------------------


def _download(part: _Part, digest_known: bool, tries: int, timeout_s, sleep) -> None:
    """Fill the part. It ends: the count of tries starts anew only when the part is longer than it ever was."""
    failed, furthest = 0, part.n_bytes
    with requests.Session() as session:
        while True:
            try:
                _try_once(session, part, digest_known, timeout_s)
                return
            except _TryAgain as fault:
                failed += 1
                if part.n_bytes >= furthest + PROGRESS_BYTES:
                    failed, furthest = 1, part.n_bytes
                if failed >= tries:
                    kept = (
                        f"; {size(part.n_bytes)} are kept, run again to go on" if part.n_bytes else "; run again later"
                    )
                    raise InputError(f"{part.url}: {fault}, {failed} times{kept}, {BY_HAND}") from fault
                backoff_s = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** (failed - 1)) * random.uniform(0.5, 1)
                wait_s = max(backoff_s, min(fault.wait_s, LONGEST_WAIT_S))
                logger.warning("%s: %s; try %d of %d in %.1f s", part.url, fault, failed + 1, tries, wait_s)
                sleep(wait_s)


def _try_once(session, part: _Part, digest_known: bool, timeout_s) -> None:
    """One request: go on with the part, or start it again. Returns when the file is complete."""
    if_range = _validator(part.origin)
    if part.n_bytes and not if_range and not (digest_known and part.origin["total"]):
        part.restart()  # nothing would tell a mixture of two files
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
                f"certificates (REQUESTS_CA_BUNDLE names a file of them), {BY_HAND}"
            ) from error
        raise _TryAgain(f"no answer ({causes[-1]}); is there a network, a proxy (https_proxy)?") from error
    except (requests.RequestException, OSError) as error:
        raise InputError(f"{url}: cannot be asked for ({error}); correct the url in the source list") from error


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it; the first cause last."""
    found = [error]
    while following := found[-1].__cause__ or found[-1].__context__:
        found.append(following)
    return found


def _refuse(url: str, response) -> None:
    """Say what a status means that is not a file."""
    answer = f"{response.status_code} {response.reason}"
    if response.status_code in TRY_AGAIN:
        raise _TryAgain(f"the server answers {answer}", _retry_after_s(response.headers.get("Retry-After", "")))
    if response.status_code in (401, 403):
        raise InputError(
            f"{url}: access refused ({answer}); see on the page of the data set whether it needs an account or its "
            "terms accepted, then get the file by hand and give it by `data_root` in the configuration"
        )
    if response.status_code in (404, 410):
        raise InputError(f"{url}: not there (any more) ({answer}); correct the url in the source list, {BY_HAND}")
    raise InputError(f"{url}: the server answers {answer}; correct the url in the source list, {BY_HAND}")


def _retry_after_s(text: str) -> float:
    """Seconds, from a number of them or an HTTP date; 0 where it is neither."""
    if text.isdecimal():
        return float(text)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _begin(part: _Part, response, digest_known: bool) -> None:
    """Start the file with the whole of it that was sent."""
    headers = response.headers
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity" and not part.name.endswith((".gz", ".tgz")):  # some servers call a .gz file so
        raise InputError(f"{part.url}: sent as {encoding}, though asked not to; get the file by hand, see `data_root`")
    if not digest_known and headers.get("Content-Type", "").startswith("text/html") and ".htm" not in part.name:
        raise InputError(
            f"{part.url}: a web page came instead of the file (a login, or terms to accept?); open it in a browser, "
            "correct the url in the source list, or get the file by hand and give it by `data_root`"
        )
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    length = "" if chunked else headers.get("Content-Length", "")
    if part.n_bytes:
        logger.info("%s: the server sends it from the start again", part.url)
    if not length and not chunked and not digest_known:
        logger.warning("%s: neither length nor digest is known; that it is whole cannot be seen", part.url)
    part.restart(_known(headers) | {"total": int(length) if length.isdecimal() else None})


def _require_continuation(part: _Part, response) -> None:
    """What is sent must begin where the part ends, and be of the same file."""
    sent = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", sent)
    total = part.origin["total"]
    if not found or int(found[1]) != part.n_bytes or (total and found[2] not in ("*", str(total))):
        fault = f"bytes {part.n_bytes}- of {total} were asked for, '{sent}' came"
    elif _differs(part.origin, response.headers):
        fault = "the file changed meanwhile"
    else:
        return logger.info("%s: going on at %s", part.url, size(part.n_bytes))
    part.restart()
    raise _TryAgain(fault)


def _end_or_restart(part: _Part, response) -> None:
    """There is nothing after the part: it is the whole file, or of another one."""
    ends_here = response.headers.get("Content-Range", "") == f"bytes */{part.n_bytes}"
    if ends_here and part.origin["total"] in (None, part.n_bytes) and not _differs(part.origin, response.headers):
        return
    n_bytes = part.n_bytes
    part.restart()
    raise _TryAgain(f"the file ends before byte {n_bytes:,}, where the part ends")


def _receive(part: _Part, response, timeout_s) -> None:
    total = part.origin["total"]
    # read1 hands on what is there: nothing is lost in a buffer when the connection breaks
    chunks = iter(lambda: response.raw.read1(CHUNK_BYTES, decode_content=False) or b"", b"")
    try:
        for chunk in _with_progress(chunks, part.n_bytes, total, part.name):
            part.append(chunk)
    except urllib3.exceptions.ReadTimeoutError as error:
        raise _TryAgain(f"stalled for {timeout_s[1]:g} s after {part.n_bytes:,} bytes") from error
    except urllib3.exceptions.HTTPError as error:
        raise _TryAgain(f"the connection broke after {part.n_bytes:,} of {total or 'unknown'} bytes") from error
    if total is not None and part.n_bytes < total:
        raise _TryAgain(f"cut short after {part.n_bytes:,} of {total:,} bytes")
    if total is not None and part.n_bytes > total:
        part.restart()
        raise _TryAgain(f"more than the announced {total:,} bytes came")


def _known(headers) -> dict:
    """What a server says that changes with the file; "" where it says nothing."""
    modified = headers.get("Last-Modified", "")
    with suppress(ValueError, TypeError):  # TypeError: one date has a time zone, the other none
        # a date is a validator only if the file was not still being written in that second (RFC 9110, 8.8.2.2)
        age_s = (parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)).total_seconds()
        return {"etag": headers.get("ETag", ""), "modified": modified if age_s >= 1 else ""}
    return {"etag": headers.get("ETag", ""), "modified": ""}


def _validator(origin: dict) -> str:
    """What If-Range may say: a strong ETag, else a date."""
    etag = origin.get("etag", "")
    return etag if etag and not etag.startswith("W/") else origin.get("modified", "")


def _differs(origin: dict, headers) -> bool:
    return any(origin[key] and headers.get(name, origin[key]) != origin[key] for key, name in NAMES.items())


def _with_progress(chunks: Iterable[bytes], have: int, total: int | None, name: str) -> Iterator[bytes]:
    """Pass chunks on and log every few seconds how far, how fast and how long still."""
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
