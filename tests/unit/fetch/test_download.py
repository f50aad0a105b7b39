"""Downloads from a server that stalls, truncates, refuses, forgets and changes its files."""

import errno
import hashlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from ctrflow.errors import InputError
from ctrflow.fetch import download
from faulty_server import (
    chunked,
    endless,
    gzipped_if_asked,
    partial,
    ranged,
    rangeless,
    serve,
    stall,
    status,
)

BODY = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()
SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "x.bin"


@pytest.fixture
def naps():
    """The seconds waited between tries."""
    return []


@pytest.fixture
def get(target, naps):
    def fetch(url, sha256="", mirror=None, path=target, tries=5):
        return download.fetch(url, path, sha256, mirror, tries=tries, timeout_s=(5, 0.25), sleep=naps.append)

    return fetch


def error_of(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def files_beside(target) -> list[str]:
    """The names in the folder of the target."""
    return sorted(path.name for path in target.parent.iterdir())


# --- success ---------------------------------------------------------------------------------------------------------


def test_a_file_is_downloaded(server, get, target):
    url = server.add("/x.bin", ranged(BODY))
    assert get(url) == (SHA, 300_000)
    assert target.read_bytes() == BODY
    assert files_beside(target) == ["x.bin"]
    assert server.ranges("/x.bin") == [None]


def test_an_empty_file_is_downloaded(server, get, target):
    assert get(server.add("/x.bin", ranged(b""))) == (hashlib.sha256(b"").hexdigest(), 0)
    assert files_beside(target) == ["x.bin"]


def test_redirects_are_followed(server, get, target):
    server.add("/there", ranged(BODY))
    assert get(server.add("/here", status(302, Location="/there")), SHA).sha256 == SHA
    assert "redirect" in error_of(get, server.add("/ring", status(302, Location="/ring")))


def test_no_compression_is_requested(server, get, target):
    get(server.add("/x.bin", gzipped_if_asked(BODY)), SHA)
    assert target.read_bytes() == BODY
    assert server.requests["/x.bin"][0]["Accept-Encoding"] == "identity"


def test_a_compressed_response_is_rejected_unless_the_file_is_a_gz(server, get, target):
    url = server.add("/x.bin", rangeless(BODY, Content_Encoding="gzip"))
    assert "compressed (gzip)" in error_of(get, url)
    assert files_beside(target) == []
    packed = target.with_name("x.tsv.gz")  # some servers declare the .gz itself as an encoding
    get(url, path=packed)
    assert packed.read_bytes() == BODY


@pytest.mark.parametrize("answer", [chunked(BODY), endless(BODY)])
def test_a_file_of_unknown_length_is_downloaded(answer, server, get, target):
    assert get(server.add("/x.bin", answer)).n_bytes == 300_000
    assert target.read_bytes() == BODY


def test_unknown_length_and_digest_give_a_warning(server, get, caplog):
    get(server.add("/x.bin", endless(BODY)))
    assert "neither length nor digest" in caplog.text
    caplog.clear()
    get(server.add("/y.bin", endless(BODY)), SHA)
    get(server.add("/z.bin", chunked(BODY)))
    assert "neither length nor digest" not in caplog.text


def test_digests_ignore_case(server, get):
    assert get(server.add("/x.bin", ranged(BODY)), SHA.upper()).sha256 == SHA


# --- tries -----------------------------------------------------------------------------------------------------------


def test_busy_twice_then_fine(server, get, target, naps):
    get(server.add("/x.bin", status(503), status(503), ranged(BODY)))
    assert target.read_bytes() == BODY
    assert len(naps) == 2
    assert 0.5 <= naps[0] <= 1  # 1 s less jitter, then 2 s less jitter
    assert 1 <= naps[1] <= 2


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_temporary_errors_are_retried_five_times(code, server, get, target, naps):
    message = error_of(get, server.add("/x.bin", status(code)))
    assert len(server.requests["/x.bin"]) == 5
    assert len(naps) == 4
    assert all(part in message for part in (str(code), "5 times", "/x.bin", "data_root"))
    assert files_beside(target) == []


def test_the_wait_grows_to_a_minute(server, get, naps):
    error_of(get, server.add("/x.bin", status(503)), tries=10)
    assert [round(nap / 2**n, 3) <= 1 for n, nap in enumerate(naps)] == [True] * 9
    assert all(30 <= nap <= 60 for nap in naps[-3:])  # 64, 128, 256 s without the cap


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        (lambda: formatdate(time.time() + 30, usegmt=True), 25, 30),
        ("86400", 300, 300),
        (lambda: formatdate(time.time() - 30, usegmt=True), 0.5, 1),
        ("soon", 0.5, 1),
    ],
)
def test_retry_after_is_honoured(asked, least, most, server, get, target, naps):
    asked = asked if isinstance(asked, str) else asked()
    get(server.add("/x.bin", status(429, Retry_After=asked), ranged(BODY)))
    assert target.read_bytes() == BODY
    assert len(naps) == 1
    assert least <= naps[0] <= most


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (401, "account"),
        (403, "account"),
        (404, "data_root"),
        (410, "data_root"),
        (400, "url"),
        (451, "url"),
        (204, "url"),
    ],
)
def test_permanent_errors_are_reported_at_once(code, cure, server, get, target, naps):
    message = error_of(get, server.add("/x.bin", status(code)))
    assert all(part in message for part in (str(code), "/x.bin", cure))
    assert len(server.requests["/x.bin"]) == 1
    assert (naps, files_beside(target)) == ([], [])


def test_a_missing_server_is_retried_and_reported(get, naps):
    with serve() as gone:
        url = gone.add("/x.bin", ranged(BODY))
    message = error_of(get, url)
    assert "Connection refused" in message
    assert len(naps) == 4


def test_a_server_that_never_answers_is_reported(server, get, naps):
    message = error_of(get, server.add("/x.bin", stall), tries=2)
    assert "no answer" in message
    assert len(naps) == 1


@pytest.mark.parametrize("url", ["gopher://127.0.0.1/x", "http:///x", "http://[1::/x"])
def test_an_invalid_url_is_reported_at_once(url, get, naps):
    assert "correct the url" in error_of(get, url)
    assert naps == []


def test_an_invalid_certificate_is_reported_at_once(tmp_path, get, naps):
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made = ["openssl", "req", "-x509", *kind, "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve(context) as secure:
        message = error_of(get, secure.add("/x.bin", ranged(BODY)))
    assert "certificate is not valid" in message
    assert "REQUESTS_CA_BUNDLE" in message
    assert naps == []


def test_a_web_page_instead_of_the_file_is_rejected(server, get, target):
    url = server.add("/x.bin", rangeless(b"<html>log in", Content_Type="text/html; charset=utf-8"))
    assert "received a web page" in error_of(get, url)
    assert files_beside(target) == []
    page = hashlib.sha256(b"<html>log in").hexdigest()
    assert get(url, page).n_bytes == 12  # the digest confirms that it is the file


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", [None, stall])
def test_a_broken_or_stalled_body_is_resumed(then, server, get, target, naps):
    first = ranged(BODY, sends=100_000, then=then)
    assert get(server.add("/x.bin", first, ranged(BODY))) == (SHA, 300_000)
    assert target.read_bytes() == BODY
    assert server.ranges("/x.bin") == [None, "bytes=100000-"]
    assert server.requests["/x.bin"][1]["If-Range"] == '"v1"'
    assert len(naps) == 1
    assert files_beside(target) == ["x.bin"]


def test_a_body_that_keeps_breaking_is_kept_and_reported(server, get, target):
    url = server.add("/x.bin", ranged(BODY, sends=10_000))
    message = error_of(get, url)
    assert server.ranges("/x.bin") == [None, *(f"bytes={n}0000-" for n in range(1, 5))]
    assert "the download ended" in message or "broke" in message
    assert "50.0 kB are kept" in message
    assert files_beside(target) == [".x.bin.part", ".x.bin.part.json"]
    assert (target.parent / ".x.bin.part").read_bytes() == BODY[:50_000]
    server.add("/x.bin", ranged(BODY))  # the next run
    assert get(url) == (SHA, 300_000)
    assert server.ranges("/x.bin")[5:] == ["bytes=50000-"]
    assert files_beside(target) == ["x.bin"]


def test_progress_resets_the_count_of_tries_but_not_for_ever(server, get, target, naps, monkeypatch):
    monkeypatch.setattr(download, "PROGRESS_BYTES", 40_000)
    assert get(server.add("/x.bin", ranged(BODY, sends=40_000)), tries=2).sha256 == SHA
    assert len(naps) == 7  # 8 tries of 40,000 bytes; two in a row without progress would end it
    assert all(nap <= 1 for nap in naps)  # the wait is reset as well
    # a part of a file that changes at every try never grows
    changing = [ranged(BODY, etag=f'"{n}"', sends=100_000) for n in range(50)]
    assert "times" in error_of(get, server.add("/y.bin", *changing), tries=3)
    assert len(server.requests["/y.bin"]) == 3


def test_a_server_without_ranges_restarts(server, get, target):
    url = server.add("/x.bin", rangeless(BODY, sends=100_000, ETag='"v1"'), rangeless(BODY, ETag='"v1"'))
    assert get(url).sha256 == SHA
    assert server.ranges("/x.bin") == [None, "bytes=100000-"]
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("body", [OTHER, OTHER[:200_000], OTHER[:50_000], OTHER + OTHER])
@pytest.mark.parametrize("dated", [False, True])
def test_a_file_that_changed_between_tries_is_not_mixed(body, dated, server, get, target):
    old, new = (
        ({"etag": None, "modified_s": 1e9}, {"etag": None, "modified_s": 1.1e9}) if dated else ({}, {"etag": '"v2"'})
    )
    get(server.add("/x.bin", ranged(BODY, sends=100_000, **old), ranged(body, **new)))
    assert server.ranges("/x.bin") == [None, "bytes=100000-"]
    assert target.read_bytes() == body


@pytest.mark.parametrize("headers", [{"ETag": '"v2"'}, {"Last_Modified": formatdate(1.1e9, usegmt=True)}])
def test_a_changed_file_is_detected_if_the_server_ignores_if_range(headers, server, get, target):
    careless = partial(OTHER[100_000:], "bytes 100000-299999/300000", **headers)
    old = ranged(BODY, modified_s=1e9, sends=100_000)
    get(server.add("/x.bin", old, careless, ranged(OTHER, etag='"v2"')))
    assert target.read_bytes() == OTHER
    assert server.ranges("/x.bin") == [None, "bytes=100000-", None]


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-299999/300000", "bytes 100001-299999/300000", "bytes 100000-299999/300001", "pages 1-2/3", ""],
)
def test_a_wrong_content_range_is_not_appended(content_range, server, get, target):
    wrong = partial(BODY[100_000:], content_range, ETag='"v1"')
    get(server.add("/x.bin", ranged(BODY, sends=100_000), wrong, ranged(BODY)))
    assert target.read_bytes() == BODY
    assert server.ranges("/x.bin") == [None, "bytes=100000-", None]


def test_without_a_validator_only_a_known_digest_allows_a_resume(server, get, target):
    first, second = ranged(BODY, etag=None, sends=100_000), ranged(BODY, etag=None)
    get(server.add("/x.bin", first, second), SHA)
    assert server.ranges("/x.bin") == [None, "bytes=100000-"]
    assert server.requests["/x.bin"][1]["If-Range"] is None
    get(server.add("/y.bin", first, second))
    assert server.ranges("/y.bin") == [None, None]
    # another length: another file
    get(server.add("/z.bin", first, ranged(BODY[:200_000], etag=None)), hashlib.sha256(BODY[:200_000]).hexdigest())
    assert server.ranges("/z.bin") == [None, "bytes=100000-", None]


def test_a_mixture_that_only_the_digest_shows_is_downloaded_again(server, get, target):
    first, second = ranged(OTHER, etag=None, sends=100_000), ranged(BODY, etag=None)
    get(server.add("/x.bin", first, second), SHA)
    assert server.ranges("/x.bin") == [None, "bytes=100000-", None]
    assert target.read_bytes() == BODY


def test_a_weak_etag_is_no_validator(server, get):
    get(server.add("/x.bin", ranged(BODY, etag='W/"1"', sends=100_000), ranged(BODY, etag='W/"1"')))
    assert server.ranges("/x.bin") == [None, None]


def test_a_date_of_the_same_second_is_no_validator(server, get):
    fresh = ranged(BODY, etag=None, modified_s=time.time() + 5, sends=100_000)
    get(server.add("/x.bin", fresh, ranged(BODY)))
    assert server.ranges("/x.bin") == [None, None]


def leave_part(target, url, content, **known):
    """Write the files that a killed run leaves."""
    target.parent.mkdir(parents=True, exist_ok=True)
    (target.parent / ".x.bin.part").write_bytes(content)
    origin = {"url": url, "etag": '"v1"', "modified": "", "total": 300_000} | known
    (target.parent / ".x.bin.part.json").write_text(json.dumps(origin))


def test_a_complete_part_is_finished(server, get, target):
    url = server.add("/x.bin", ranged(BODY))
    leave_part(target, url, BODY)
    assert get(url) == (SHA, 300_000)
    assert server.ranges("/x.bin") == ["bytes=300000-"]
    assert files_beside(target) == ["x.bin"]


@pytest.mark.parametrize("n_bytes", [200_000, 300_000])
def test_a_part_longer_than_the_file_or_of_another_is_replaced(n_bytes, server, get, target):
    content = OTHER[:n_bytes]
    answer = status(416, b"", Content_Range=f"bytes */{n_bytes}", ETag='"v2"')
    url = server.add("/x.bin", answer, ranged(content, etag='"v2"'))
    leave_part(target, url, BODY)
    get(url)
    assert server.ranges("/x.bin") == ["bytes=300000-", None]
    assert target.read_bytes() == content


@pytest.mark.parametrize("damage", ["other url", "no json", "half a json"])
def test_a_part_of_unknown_origin_is_discarded(damage, server, get, target):
    url = server.add("/x.bin", ranged(BODY))
    leave_part(target, "http://elsewhere/x.bin" if damage == "other url" else url, OTHER[:100_000])
    side = target.parent / ".x.bin.part.json"
    if damage == "no json":
        side.unlink()
    if damage == "half a json":
        side.write_text('{"url": ')
    assert get(url).sha256 == SHA
    assert server.ranges("/x.bin") == [None]
    assert files_beside(target) == ["x.bin"]


@pytest.mark.parametrize("whole", [True, False])
def test_chunks_that_end_too_early_are_detected(whole, server, get, target):
    url = server.add("/x.bin", chunked(BODY[:5000], whole=whole, ETag='"v1"'), chunked(BODY, ETag='"v1"'))
    get(url)
    assert target.read_bytes() == (BODY[:5000] if whole else BODY)


CHILD = """
import sys
from ctrflow.fetch import download
download.fetch(sys.argv[1], sys.argv[2], timeout_s=(5, 20))
"""


def test_a_killed_download_is_resumed(server, get, target):
    url = server.add("/x.bin", ranged(BODY, sends=123_456, then=stall), ranged(BODY))
    part = target.parent / ".x.bin.part"
    child = subprocess.Popen([sys.executable, "-c", CHILD, url, str(target)], env={"PYTHONPATH": str(SCRIPTS)})
    try:
        deadline = time.monotonic() + 15
        while not (part.exists() and part.stat().st_size == 123_456):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "another process is downloading it" in error_of(get, url)
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert not target.exists()
    assert get(url) == (SHA, 300_000)
    assert target.read_bytes() == BODY
    assert server.ranges("/x.bin") == [None, "bytes=123456-"]
    assert server.requests["/x.bin"][1]["If-Range"] == '"v1"'


# --- digest, disk, log -----------------------------------------------------------------------------------------------


def test_a_wrong_digest_is_retried_once_then_reported(server, get, target):
    message = error_of(get, server.add("/x.bin", ranged(OTHER)), SHA)
    assert server.ranges("/x.bin") == [None, None]
    assert all(part in message for part in ("/x.bin", SHA, hashlib.sha256(OTHER).hexdigest(), "lock file"))
    assert files_beside(target) == []


def test_a_download_corrupted_once_is_repeated(server, get, target):
    get(server.add("/x.bin", ranged(OTHER), ranged(BODY)), SHA)
    assert target.read_bytes() == BODY


def test_an_old_file_is_kept_until_the_new_one_is_complete(server, get, target):
    target.parent.mkdir()
    target.write_text("old")
    error_of(get, server.add("/x.bin", ranged(OTHER)), SHA)
    assert target.read_text() == "old"
    get(server.add("/y.bin", ranged(BODY)), SHA)
    assert target.read_bytes() == BODY


def test_too_small_a_disk_is_reported_before_writing(server, get, target, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=299_999))
    message = error_of(get, server.add("/x.bin", ranged(BODY)))
    assert all(part in message for part in ("x.bin", "needs 300.0 kB", "free some space"))
    assert files_beside(target) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200_000))
    url = server.add("/y.bin", ranged(BODY))
    leave_part(target, url, BODY[:100_000])
    get(url)  # the rest fits


def test_a_disk_that_fills_up_is_reported_and_the_part_kept(server, get, target):
    url = server.add("/x.bin", ranged(BODY))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        message = error_of(get, url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the disk is full" in message
    assert len(server.requests["/x.bin"]) == 1
    assert get(url).sha256 == SHA
    assert server.ranges("/x.bin") == [None, "bytes=200000-"]


def test_a_read_only_folder_is_reported(server, get, tmp_path):
    (tmp_path / "file").write_text("")
    url = server.add("/x.bin", ranged(BODY))
    assert "cannot be written" in error_of(get, url, path=tmp_path / "file" / "x.bin")
    if os.geteuid() == 0:
        return  # root can write anywhere
    (tmp_path / "sealed").mkdir(mode=0o500)
    assert "make its folder writable" in error_of(get, url, path=tmp_path / "sealed" / "x.bin")


def test_progress_is_logged_now_and_then(server, get, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "ctrflow")
    get(server.add("/x.bin", ranged(BODY)))
    assert len(caplog.records) == 1  # the end only, as the file is small
    monkeypatch.setattr(download, "REPORT_S", 0)
    caplog.clear()
    chunks = iter([b"x" * 1_000_000] * 3)
    clock = iter([0.0, 2.0, 4.0, 6.0])
    monkeypatch.setattr(download.time, "monotonic", lambda: next(clock))
    assert len(list(download._with_progress(chunks, 5_000_000, 20_000_000, "x"))) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "x: 6.0 MB of 20.0 MB, 500.0 kB/s, 0:00:28 left",
        "x: 7.0 MB of 20.0 MB, 500.0 kB/s, 0:00:26 left",
        "x: 8.0 MB of 20.0 MB, 500.0 kB/s, 0:00:24 left",
    ]


# --- mirrors ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path):
    path = tmp_path / "mirror" / "x.bin"
    path.parent.mkdir()
    path.write_bytes(BODY)
    return path


def test_a_mirror_is_linked_and_nothing_downloaded(server, get, target, mirror, caplog):
    caplog.set_level(logging.INFO, "ctrflow")
    assert get(server.add("/x.bin", ranged(BODY)), SHA, mirror) == (SHA, 300_000)
    assert target.samefile(mirror)
    assert not target.is_symlink()
    assert f"linked from {mirror}" in caplog.text
    assert server.requests == {}
    assert files_beside(target) == ["x.bin"]
    get("http://nowhere", SHA, mirror)  # again, over itself
    assert files_beside(target) == ["x.bin"]


def test_a_symbolic_link_in_the_mirror_is_followed(get, target, mirror):
    link = mirror.with_name("link.bin")
    link.symlink_to("x.bin")
    get("http://nowhere", SHA, link)
    assert target.samefile(mirror)
    assert not target.is_symlink()


def test_a_mirror_on_another_disk_is_copied(get, target, mirror, caplog, monkeypatch):
    def fail(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    caplog.set_level(logging.INFO, "ctrflow")
    assert get("http://nowhere", SHA, mirror) == (SHA, 300_000)
    assert target.read_bytes() == BODY
    assert not target.samefile(mirror)
    assert f"copied from {mirror}" in caplog.text


def test_a_mirror_with_another_digest_is_reported(server, get, target, mirror):
    mirror.write_bytes(OTHER)
    message = error_of(get, server.add("/x.bin", ranged(BODY)), SHA, mirror)
    assert all(part in message for part in (str(mirror), SHA, hashlib.sha256(OTHER).hexdigest(), "delete it"))
    assert files_beside(target) == []
    assert mirror.read_bytes() == OTHER


def test_a_mirror_without_the_file_is_skipped(server, get, target, mirror):
    get(server.add("/x.bin", ranged(BODY)), SHA, mirror.with_name("absent"))
    assert server.ranges("/x.bin") == [None]
    broken = mirror.with_name("broken")
    broken.symlink_to("absent")
    assert "not a file" in error_of(get, "http://nowhere", SHA, broken)
    assert "not a file" in error_of(get, "http://nowhere", SHA, mirror.parent)
