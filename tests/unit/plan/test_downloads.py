"""What is downloaded and unpacked, and what a mirror spares."""

import hashlib
from pathlib import Path

import pytest

from ctrflow.plan.downloads import Download, Member, downloads, members

TASK = {"name": "t", "split": "transfer", "source": 'section == "A"', "target": 'section == "B"'}
PLAIN, HE1, HE2 = "data/public/c/counts.tsv", "data/public/c/he/1.jpg", "data/public/c/he/2.jpg"
COUNTS, ZIP = "https://one.example/counts.tsv", "https://two.example/a/images.zip?download=1"
DIGEST = "a" * 64
SOURCES = [
    {"file": PLAIN, "url": COUNTS},
    {"file": HE1, "url": ZIP, "sha256": DIGEST, "member": "HE/1.jpg", "password": "secret"},
    {"file": HE2, "url": ZIP, "sha256": DIGEST, "member": "HE/2.jpg", "password": "secret"},
]
ARCHIVE = f"data/downloads/{hashlib.sha256(ZIP.encode()).hexdigest()[:8]}-images.zip"
LOCK = "config/sources.lock.tsv"


@pytest.fixture
def plan(plan_of):
    """A plan whose files come from the sources above, tried in a mirror first."""
    sources = [{"sha256": "", "member": "", "password": ""} | row for row in SOURCES]
    return lambda mirror="": plan_of([TASK], ["random"], sources=sources, settings={"data_root": str(mirror)})


def test_an_archive_is_downloaded_once_for_all_its_members(plan):
    assert downloads(plan()) == {PLAIN: Download(COUNTS, "", "", LOCK), ARCHIVE: Download(ZIP, DIGEST, "", LOCK)}
    assert members(plan()) == {
        HE1: Member(ARCHIVE, "HE/1.jpg", "secret"),
        HE2: Member(ARCHIVE, "HE/2.jpg", "secret"),
    }


def test_a_mirror_is_asked_for_files_and_archives_at_their_paths(plan, tmp_path):
    found = downloads(plan(tmp_path))
    assert found[PLAIN].mirror == str(tmp_path / "c/counts.tsv")
    assert found[ARCHIVE].mirror == str(tmp_path / ARCHIVE.removeprefix("data/"))


def test_a_member_that_the_mirror_has_as_a_file_needs_no_archive(plan, tmp_path):
    """The digest of the list is that of the archive: it does not belong to the file."""
    for name in (HE1, HE2):
        path = tmp_path / Path(name).relative_to("data/public")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        left = {HE1, HE2} - {name} if name == HE1 else set()
        assert set(members(plan(tmp_path))) == left
        assert downloads(plan(tmp_path))[name] == Download(ZIP, "", str(path), "")
        assert (ARCHIVE in downloads(plan(tmp_path))) == bool(left)
