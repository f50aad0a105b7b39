"""The source list and its lock file."""

import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ctrflow.errors import InputError
from ctrflow.fetch import sources
from faulty_server import ranged, serve

HEADER = "file\turl\tsha256\tmember\tpassword\tchecked\tnote"
A, B = "a" * 64, "b" * 64
URL = "https://example.org/files/spatial.tar.gz"
SCRIPT = Path(__file__).parents[3] / "scripts" / "fetch_file.py"
BODY = b"counts\n" * 1000
SHA = hashlib.sha256(BODY).hexdigest()


def row(file="data/public/x/a.h5", url=URL, sha256="", member="", password="", checked="no", note=""):
    return "\t".join([file, url, sha256, member, password, checked, note])


def sheet(tmp_path, *rows, header=HEADER):
    path = tmp_path / "sources.tsv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def problems(path):
    with pytest.raises(InputError) as caught:
        sources.read_sources(path)
    return str(caught.value).splitlines()


# --- the list --------------------------------------------------------------------------------------------------------


def test_a_good_list(tmp_path):
    path = sheet(
        tmp_path,
        '# a comment with a tab\tand a quote\t"',
        row("data/public/x/a.h5", "https://example.org/a.h5?download=1", A.upper(), checked="yes"),
        "",
        row("data/public/x/spatial/p.csv", URL, "", "spatial/p.csv", "NA", note="7 MB"),
        "data/public/x/spatial/s.json\t" + URL + "\t\tspatial/s.json\tNA\tno",
        header="# what it is\n#\n" + HEADER,
    )
    table = sources.read_sources(path)
    assert table.index.name == "file"
    assert list(table.index) == [f"data/public/x/{name}" for name in ("a.h5", "spatial/p.csv", "spatial/s.json")]
    assert list(table.columns) == ["url", "sha256", "member", "password", "checked", "note"]
    assert list(table["sha256"]) == [A, "", ""]
    assert list(table["password"]) == ["", "NA", "NA"]
    assert list(table["note"]) == ["", "7 MB", ""]


def test_a_list_with_only_comments_is_empty(tmp_path):
    table = sources.read_sources(sheet(tmp_path, "# nothing yet"))
    assert len(table) == 0
    assert list(table.columns) == ["url", "sha256", "member", "password", "checked", "note"]


@pytest.mark.parametrize(
    ("bad", "column", "fragments"),
    [
        (row(file="data/private/a.h5"), "file", ["'data/private/a.h5'", "data/public/<cohort>"]),
        (row(file="data/public/../../a.h5"), "file", ["'data/public/../../a.h5'"]),
        (row(file="/data/public/a.h5"), "file", ["'/data/public/a.h5'"]),
        (row(file="data/public/x/.hidden"), "file", ["starting with '.'"]),
        (row(file="data/public/x//a.h5"), "file", ["'data/public/x//a.h5'"]),
        (row(file="data/public/x/{a}.h5"), "file", ["letters"]),
        (row(file="data/public/x/"), "file", ["is not a valid file path"]),
        (row(file=""), "file", ["''"]),
        (row(url="ftp://example.org/a"), "url", ["'ftp://example.org/a'", "https://"]),
        (row(url="example.org/a"), "url", ["https://"]),
        (row(url="https:///a"), "url", ["'https:///a'"]),
        (row(url="https://[::1/a"), "url", ["'https://[::1/a'"]),
        (row(url="https://example.org/a b"), "url", ["'https://example.org/a b'"]),
        (row(url=""), "url", ["''"]),
        (row(url="https://me:word@example.org/a"), "url", ["public address"]),
        (row(sha256=A[1:]), "sha256", ["64 hexadecimal"]),
        (row(sha256="g" * 64), "sha256", ["64 hexadecimal"]),
        (row(sha256="d" * 32), "sha256", ["MD5"]),
        (row(member="../a"), "member", ["'../a'", "out of the archive"]),
        (row(member="/a"), "member", ["out of the archive"]),
        (row(member="a\\b"), "member", ["'/'"]),
        (row(password="x"), "password", ["column member is empty"]),
        (row(checked=""), "checked", ["yes", "no"]),
        (row(checked="maybe"), "checked", ["'maybe'"]),
    ],
)
def test_a_bad_cell_is_reported(bad, column, fragments, tmp_path):
    path = sheet(tmp_path, "# comment", row("data/public/y/b.h5", "https://example.org/b"), bad)
    heading, *lines = problems(path)
    assert heading == "the source list has 1 problem:"
    assert len(lines) == 1
    assert f"{path}, row 4, column {column}:" in lines[0]
    assert [part for part in fragments if part not in lines[0]] == []
    assert "me:word" not in lines[0]


def test_contradicting_rows_are_all_reported_at_once(tmp_path):
    path = sheet(
        tmp_path,
        row("data/public/x/a", URL, A, "a", "one"),
        row("data/public/x/a", "https://example.org/else"),
        row("data/public/x/b", URL, B, "b", "one"),
        row("data/public/x/c", URL, A, "c"),
        row("data/public/x/a/d", URL, A, "d", "one"),
        "data/public/x/e\t" + URL,
    )
    heading, *lines = problems(path)
    assert heading == "the source list has 5 problems:"
    assert [line.strip().split(":")[0] for line in lines] == [
        f"{path}, row 7",
        f"{path}, row 3, column file",
        f"{path}, row 4, column sha256",
        f"{path}, row 5, column password",
        f"{path}, row 6, column file",
    ]
    assert "2 cells, the header has 7" in lines[0]
    assert f"already at {path}, row 2" in lines[1]
    assert all(part in lines[2] for part in (A, B, f"{path}, row 2"))
    assert "inside 'data/public/x/a'" in lines[4]


def test_the_header_of_another_sheet_is_reported(tmp_path):
    message = "\n".join(problems(sheet(tmp_path, header="# c\nfile\turl\tmd5")))
    assert "row 2, column checked: missing" in message
    assert "row 2, column 'md5': unknown" in message
    assert "no such file" in problems(tmp_path / "none.tsv")[1]


# --- paths of downloads ----------------------------------------------------------------------------------------------


def test_archives_have_readable_distinct_names():
    digest = hashlib.sha256(URL.encode()).hexdigest()[:8]
    assert sources.archive_path(URL) == f"data/downloads/{digest}-spatial.tar.gz"
    assert sources.archive_path(URL) != sources.archive_path(URL.replace("files", "other"))

    def name(url):
        return sources.archive_path(url).rpartition("-")[2]

    assert name("https://zenodo.org/records/1/files/images.zip?download=1#x") == "images.zip"
    assert name("https://example.org/a%2Fb%20c%00.7z") == "b_c_.7z"
    assert name("https://example.org/dir/") == "dir"
    assert name("https://example.org") == "download"
    assert name("https://example.org/" + "x" * 300 + ".zip") == "x" * 76 + ".zip"


def test_the_lock_file_is_next_to_its_list():
    assert sources.lock_path("config/sources.tsv") == Path("config/sources.lock.tsv")


# --- the lock file ---------------------------------------------------------------------------------------------------


def test_a_recorded_digest_is_expected_from_then_on(tmp_path):
    lock = tmp_path / "sources.lock.tsv"
    assert sources.expected("https://b", "", lock) == ""
    sources.record("https://b", A, 12, lock)
    sources.record("https://a", B, 34, lock)
    sources.record("https://b", A, 12, lock)
    assert lock.read_text() == f"url\tsha256\tbytes\nhttps://a\t{B}\t34\nhttps://b\t{A}\t12\n"
    assert sources.expected("https://b", "", lock) == A
    assert sources.expected("https://b", B.upper(), lock) == B  # the list takes precedence
    assert sources.expected("https://c", "", lock) == ""
    assert os.listdir(tmp_path) == ["sources.lock.tsv"]


def test_another_digest_is_reported_and_not_recorded(tmp_path):
    lock = tmp_path / "sources.lock.tsv"
    sources.record("https://a", A, 12, lock)
    before = lock.read_text()
    with pytest.raises(InputError) as caught:
        sources.record("https://a", B, 12, lock)
    assert all(part in str(caught.value) for part in (str(lock), "https://a", A, B, "delete its line", "run again"))
    assert lock.read_text() == before
    sources.record("https://c", B, 1, lock)  # the lock was released


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"https://a\t{A[1:]}\t12", "row 2: invalid sha256"),
        (f"https://a\t{A}\tmany", "row 2: invalid sha256 or number"),
        ("<<<<<<< HEAD", "row 2: 1 cell"),
        (f"https://a\t{A}\t1\nhttps://a\t{B}\t1", "row 3, column url"),
    ],
)
def test_a_damaged_lock_file_is_reported(line, message, tmp_path):
    lock = tmp_path / "sources.lock.tsv"
    lock.write_text(f"url\tsha256\tbytes\n{line}\n")
    for call in (lambda: sources.expected("https://b", "", lock), lambda: sources.record("https://b", A, 1, lock)):
        with pytest.raises(InputError) as caught:
            call()
        assert f"{lock}, {message}" in str(caught.value)


def test_a_lock_file_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        sources.record("https://a", A, 1, tmp_path / "file" / "sources.lock.tsv")


def _record_some(worker: int, lock: Path, barrier) -> None:
    barrier.wait()
    for n in range(10):
        sources.record(f"https://example.org/{worker}/{n}", f"{worker:064x}", n, lock)
        sources.record("https://example.org/shared", A, 5, lock)


def test_eight_processes_can_record_at_once(tmp_path):
    lock = tmp_path / "sources.lock.tsv"
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    workers = [context.Process(target=_record_some, args=(n, lock, barrier)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert [worker.exitcode for worker in workers] == [0] * 8
    header, *lines = lock.read_text().splitlines()
    wanted = [f"https://example.org/{w}/{n}\t{w:064x}\t{n}" for w in range(8) for n in range(10)]
    assert lines == sorted([*wanted, f"https://example.org/shared\t{A}\t5"])
    assert header == "url\tsha256\tbytes"
    assert os.listdir(tmp_path) == ["sources.lock.tsv"]


def test_a_record_waits_for_the_lock(tmp_path):
    lock = tmp_path / "sources.lock.tsv"
    with sources._locked(lock):
        waiting = threading.Thread(target=sources.record, args=("https://a", A, 1, lock))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()
    assert sources.expected("https://a", "", lock) == A


# --- the script ------------------------------------------------------------------------------------------------------


def fetch_file(tmp_path, url, sha256="", mirror=None, lock="sources.lock.tsv"):
    code = f"""
import runpy
from types import SimpleNamespace as N
params = N(url={url!r}, sha256={sha256!r}, mirror={mirror!r}, lock={lock!r})
snakemake = N(output=["data/x.h5"], params=params, log=["logs/x.log"])
runpy.run_path({str(SCRIPT)!r}, init_globals={{"snakemake": snakemake}})
"""
    run = {"env": {"PYTHONPATH": str(SCRIPT.parent)}, "cwd": tmp_path, "capture_output": True, "text": True}
    return subprocess.run([sys.executable, "-c", code], check=False, **run)


def test_the_script_records_and_then_verifies(tmp_path):
    with serve() as server:
        url = server.add("/x.h5", ranged(BODY))
        assert fetch_file(tmp_path, url).returncode == 0
        assert (tmp_path / "data" / "x.h5").read_bytes() == BODY
        assert sources.expected(url, "", tmp_path / "sources.lock.tsv") == SHA
        server.add("/x.h5", ranged(BODY[::-1]))
        again = fetch_file(tmp_path, url)
        assert again.returncode == 1
        assert "delete the url's line" in (tmp_path / "logs" / "x.log").read_text()
        assert "Traceback" not in again.stderr
        assert (tmp_path / "data" / "x.h5").read_bytes() == BODY


def test_the_script_uses_a_mirror_and_records_nothing_if_the_list_has_a_digest(tmp_path):
    (tmp_path / "mirror.h5").write_bytes(BODY)
    assert fetch_file(tmp_path, "http://nowhere", SHA, "mirror.h5").returncode == 0
    assert (tmp_path / "data" / "x.h5").read_bytes() == BODY
    assert not (tmp_path / "sources.lock.tsv").exists()


def test_a_mirrored_member_is_not_mistaken_for_its_archive(tmp_path):
    (tmp_path / "mirror.h5").write_bytes(BODY)
    sources.record("http://nowhere/a.zip", A, 1, tmp_path / "sources.lock.tsv")
    assert fetch_file(tmp_path, "http://nowhere/a.zip", "", "mirror.h5").returncode == 1
    assert fetch_file(tmp_path, "http://nowhere/a.zip", "", "mirror.h5", lock="").returncode == 0
    assert (tmp_path / "data" / "x.h5").read_bytes() == BODY
    assert sources.expected("http://nowhere/a.zip", "", tmp_path / "sources.lock.tsv") == A


def test_files_below_a_folder_and_their_path_in_a_mirror(tmp_path):
    names = ["data/public/a/x", "data/public/a/b/y", "data/public/ab/z"]
    listed = sources.read_sources(sheet(tmp_path, *(row(name, url=f"{URL}/{n}") for n, name in enumerate(names))))
    assert sources.below(listed, "data/public/a") == names[:2]
    assert sources.mirrored("data/public/a/b/y", "/mirror") == "/mirror/a/b/y"
    archive = sources.archive_path("https://example.org/a.zip")
    assert sources.mirrored(archive, "/mirror") == f"/mirror/{archive.removeprefix('data/')}"
    assert sources.mirrored("data/public/a/x", "") == ""
