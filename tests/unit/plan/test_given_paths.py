"""What is wrong with the paths that people give."""

import os

import pytest

from ctrflow.errors import InputError
from ctrflow.plan.given_paths import file_problem, name_problem
from ctrflow.plan.sheet import COLUMNS, missing_files, read_sheet

FINE = ["a.tif", "a [1] (b) & 'c' \"d\" $e #f %g *?;.tif", "ä/中 1.tif", "../a//b", "C:\\a", "-", "~"]


@pytest.mark.parametrize("path", FINE)
def test_a_name_may_have_any_other_sign(path, tmp_path):
    assert name_problem(path) == ""
    file = tmp_path / path.replace("/", "_")
    file.write_text("")
    assert file_problem(str(file)) == ""


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a{1}.tif", "'a{1}.tif' has braces"),
        ("{lab/a.tif", "has braces"),
        ("a}.tif", "has braces"),
        ("a\tb.tif", "'a\\tb.tif' has a line break, a tab"),
        ("a\nb.tif", "'a\\nb.tif' has a line break"),
        ("https://example.org/a.tif", "is an address; download the file"),
        ("s3://bucket/a.tif", "is an address"),
    ],
)
def test_a_name_that_cannot_work_is_told(path, words):
    assert words in name_problem(path)


def test_what_is_wrong_with_a_file_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tif").write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, target in (("good", "a.tif"), ("dangling", "gone.tif"), ("loop", "loop"), ("away", "/no/such/disk")):
        (tmp_path / name).symlink_to(target)
    assert file_problem("a.tif") == file_problem("good") == file_problem("folder", folder=True) == ""
    assert file_problem("b.tif") == "b.tif does not exist; correct the path or fetch the file"
    assert file_problem("folder") == "folder is a folder; give a file"
    assert file_problem("pipe") == "pipe is neither a file nor a folder; correct the path"
    assert file_problem("dangling").startswith("dangling is a link to gone.tif, which does not exist; mend the link")
    assert file_problem("loop").startswith("loop is a link that leads back to itself; mend the link")
    assert file_problem("away/a.tif").startswith(
        "away/a.tif leads through away, a link to /no/such/disk, which does not exist"
    )
    assert file_problem("loop/a.tif").startswith("loop/a.tif leads through loop, a link that leads back to itself")
    assert file_problem("a.tif/b").startswith("a.tif/b is no path: a part before the last is a file")


def test_a_file_that_is_closed_to_the_user_is_told(tmp_path, monkeypatch):
    file = tmp_path / "a.tif"
    file.write_text("")
    asked = {}
    monkeypatch.setattr(os, "access", lambda path, mode: asked.setdefault(path, mode) is None)
    assert file_problem(str(file)) == f"{file} cannot be read; make it readable for you (chmod u+rX), or ask its owner"
    assert file_problem(str(tmp_path), folder=True).startswith(f"{tmp_path} cannot be read")
    assert asked == {str(file): os.R_OK, str(tmp_path): os.R_OK | os.X_OK}

    def closed(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", closed)
    assert file_problem("a/b").startswith("a/b cannot be reached: one of its folders is closed to you")


HEADER = "section\tplatform\tpath\timage\tlabels"


def sheet_of(folder, *rows):
    path = folder / "sections.tsv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


def test_every_bad_name_of_a_sheet_comes_with_row_and_column(tmp_path):
    path = sheet_of(tmp_path, "A1\tst\ta{1}\tb{2}\tc{3}", "B1\tst\ta\tb\tc", 'C1\tst\ta\tb\t"c\nd"')
    with pytest.raises(InputError) as caught:
        read_sheet([path])
    found = [line.strip().partition(": ")[0] for line in str(caught.value).splitlines() if "sections.tsv" in line]
    assert found == [
        f"{path}, row 2, column path", f"{path}, row 2, column image", f"{path}, row 2, column labels",
        f"{path}, row 5, column labels",
    ]  # fmt: skip


def test_the_home_folder_has_a_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    table = read_sheet([sheet_of(tmp_path, "A1\tst\t~/a.tsv\t~nobody-of-this-name/b.jpg\tnone~")])
    assert table.loc[0, ["path", "image", "labels"]].tolist() == [
        "/home/me/a.tsv", "~nobody-of-this-name/b.jpg", "none~"
    ]  # fmt: skip


def row_of(**cells: str) -> dict:
    return dict.fromkeys(COLUMNS, "") | {"section": "A1"} | cells


def test_a_folder_for_a_file_and_a_file_for_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    folder, file = str(tmp_path / "folder"), str(tmp_path / "file")
    row = row_of(platform="h5ad", path=folder, image=folder, labels=folder)
    assert missing_files([row]) == [
        f"section A1, column {name}: {folder} is a folder; give a file" for name in ("image", "labels", "path")
    ]
    found = missing_files([row_of(platform="visium", path=file)])
    assert found
    assert all(f"section A1, column path: {file}/" in line and "is no path: a part before" in line for line in found)


def test_links_to_nothing_inside_the_vendors_folder(tmp_path):
    """The matrix, which must be there, and the reduced image, which a run would read because its name is there."""
    (tmp_path / "spatial").mkdir()
    (tmp_path / "filtered_feature_bc_matrix.h5").symlink_to("moved.h5")
    (tmp_path / "spatial/tissue_hires_image.png").symlink_to("moved.png")
    (tmp_path / "spatial/tissue_positions_list.csv").write_text("")
    (tmp_path / "spatial/scalefactors_json.json").write_text('{"tissue_hires_scalef": 0.1}')
    matrix, image = missing_files([row_of(platform="visium", path=str(tmp_path))])
    assert "filtered_feature_bc_matrix.h5 is a link to moved.h5, which does not exist" in matrix
    assert "tissue_hires_image.png is a link to moved.png, which does not exist" in image
    (without,) = missing_files([row_of(platform="visium", path=str(tmp_path), image="none")])
    assert without == matrix


def test_what_a_reader_cannot_choose_is_told_beside_the_other_problems(tmp_path):
    for name in ("A_filtered_feature_bc_matrix.h5", "B_filtered_feature_bc_matrix.h5"):
        (tmp_path / name).write_text("")
    found = missing_files([row_of(platform="visium", path=str(tmp_path), labels="gone.tsv")])
    assert found[0] == "section A1, column labels: gone.tsv does not exist; correct the path or fetch the file"
    assert "A_filtered_feature_bc_matrix.h5 and B_filtered_feature_bc_matrix.h5; keep only one" in found[1]


def test_braces_inside_the_vendors_folder(tmp_path):
    matrix = tmp_path / "{A}_filtered_feature_bc_matrix.h5"
    matrix.write_text("")
    found = missing_files([row_of(platform="visium", path=str(tmp_path))])
    assert found[0].startswith(f"section A1, column path: '{matrix}' has braces")
