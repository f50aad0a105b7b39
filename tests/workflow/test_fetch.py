"""Public sections: from an address in the source list to spots, through archives, mirrors and a broken server."""

import hashlib
import shutil
import zipfile

import pytest

from faulty_server import ranged, serve, status
from runs import SNAKEMAKES, copy, good, jobs, run

SHEET = ("section", "cohort", "patient", "platform", "path", "image", "labels")
FILES = ("ST-cnts/P1.tsv.gz", "ST-spotfiles/P1_selection.tsv", "ST-imgs/P1.jpg")
SPOTS = "results/sections/pub1/spots.h5ad"


@pytest.fixture(scope="module")
def published(fresh, tmp_path_factory):
    """A copy with a section `pub1` whose files lie on a server, the image in a zip; and that server."""
    folder = copy(fresh, tmp_path_factory.mktemp("public") / "repo")
    mini, public = folder / "data" / "mini", "data/public/mini"
    archive = folder / "images.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(mini / FILES[2], "HE/P1.jpg")
    with serve() as server:
        lines = ["file\turl\tsha256\tmember\tpassword\tchecked\tnote"]
        for name in FILES[:2]:
            url = server.add(f"/{name}", ranged((mini / name).read_bytes()))
            lines.append(f"{public}/{name}\t{url}\t\t\t\tno\t")
        url = server.add("/images.zip", ranged(archive.read_bytes()))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        lines.append(f"{public}/{FILES[2]}\t{url}\t{digest}\tHE/P1.jpg\t\tno\t")
        (folder / "config" / "sources.tsv").write_text("\n".join(lines) + "\n")
        cells = ("pub1", "public", "P1", "st", f"{public}/{FILES[0]}", f"{public}/{FILES[2]}", "")
        (folder / "sheet.tsv").write_text("\t".join(SHEET) + "\n" + "\t".join(cells) + "\n")
        (folder / "pub.yaml").write_text(
            "study: pub\nseeds: [1]\nmethods: [random]\ntasks:\n"
            '  - {name: own, split: transfer, source: cohort == "mini", target: section == "pub1"}\n'
        )
        (folder / "public.yaml").write_text("sections: [config/sections.tsv, sheet.tsv]\n")
        yield folder, server


def arguments(*more):
    """A run of the study `pub` up to the section's spots."""
    return ("--cores", "2", SPOTS, "--configfile", "public.yaml", "--config", "study=pub.yaml", *more)


def test_files_come_by_themselves_and_are_recorded(published, tmp_path):
    folder, server = published
    folder = copy(folder, tmp_path / "repo")
    assert jobs(good(folder, *SNAKEMAKES, *arguments())) == {"fetch_file": 3, "unpack_member": 1, "ingest_section": 1}
    for name in FILES:
        assert (folder / "data/public/mini" / name).read_bytes() == (folder / "data/mini" / name).read_bytes()
    lock = (folder / "config" / "sources.lock.tsv").read_text()
    for name in FILES[:2]:
        digest = hashlib.sha256((folder / "data/mini" / name).read_bytes()).hexdigest()
        assert f"{server.root}/{name}\t{digest}\t" in lock
    assert "images.zip" not in lock  # its digest stands in the list
    assert "Nothing to be done" in good(folder, *arguments())


def test_a_mirror_is_tried_first_and_needs_no_network(published, tmp_path):
    folder, server = published
    folder = copy(folder, tmp_path / "repo")
    shutil.copytree(folder / "data" / "mini", tmp_path / "mirror" / "mini")
    asked = {path: len(headers) for path, headers in server.requests.items()}
    output = good(folder, *SNAKEMAKES, *arguments(f"data_root={tmp_path / 'mirror'}"))
    assert {path: len(headers) for path, headers in server.requests.items()} == asked
    assert "unpack_member" not in output
    assert (folder / SPOTS).is_file()


def test_a_file_that_is_gone_is_told_once_with_its_cure(published, tmp_path):
    folder, server = published
    folder = copy(folder, tmp_path / "repo")
    server.add(f"/{FILES[1]}", status(404))
    done = run(folder, *arguments())
    server.add(f"/{FILES[1]}", ranged((folder / "data/mini" / FILES[1]).read_bytes()))
    assert done.returncode != 0
    assert "404" in done.stdout
    assert "data_root" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (folder / "data/public/mini" / FILES[1]).exists()
    good(folder, *arguments())
