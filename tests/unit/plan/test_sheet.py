"""The section sheet: what is read, and that every mistake is told with its place and its cure."""

import shutil
from pathlib import Path

import pytest

import vendor_files
from ctrflow.errors import InputError
from ctrflow.plan.sheet import COLUMNS, missing_files, read_sheet

HEADER = "section\tpatient\tplatform\tpath\timage\talignment\tum_per_px\tspot_um\timage_scale\tnormal"
GOOD = "A1\tP\tst\ta.tsv\the.jpg\t\t0.7\t\t0.5\tno"


def sheet(tmp_path, *rows, header=HEADER, name="sections.tsv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def problems(*paths):
    with pytest.raises(InputError) as caught:
        read_sheet(list(paths))
    return str(caught.value).splitlines()


def test_a_good_sheet(tmp_path):
    table = read_sheet([sheet(tmp_path, GOOD, "", "N1\t\tvisium\tv\t\t\t\t\t\tyes")])
    assert list(table.columns) == list(COLUMNS)
    assert list(table["section"]) == ["A1", "N1"]
    assert list(table["patient"]) == ["P", "N1"]  # empty: the section is its own patient
    assert list(table["um_per_px"]) == ["0.7", ""]
    assert list(table["labels"]) == ["", ""]
    assert all(isinstance(value, str) for value in table.to_numpy().ravel())


def test_text_stays_text(tmp_path):
    table = read_sheet([sheet(tmp_path, "007\tNA\tst\tnull\t\t\t1e0\t\t\t")])
    assert list(table.loc[0, ["section", "patient", "path", "um_per_px"]]) == ["007", "NA", "null", "1e0"]


def test_several_sheets_quotes_and_a_byte_order_mark(tmp_path):
    first = sheet(tmp_path, "A1\tst\ta.tsv", header="\ufeffsection\tplatform\tpath", name="a.tsv")
    second = sheet(tmp_path, 'B1\tst\tb.tsv\t"he said ""no"""', header="section\tplatform\tpath\tnote", name="b.tsv")
    table = read_sheet([first, second])
    assert list(table["section"]) == ["A1", "B1"]
    assert table.loc[1, "note"] == 'he said "no"'


def test_cells_left_out_at_the_end_are_empty(tmp_path):
    table = read_sheet([sheet(tmp_path, "A1\tP\tst\ta.tsv", "B1\tQ\tst\tb.tsv\the.jpg")])
    assert list(table["path"]) == ["a.tsv", "b.tsv"]
    assert list(table["image"]) == ["", "he.jpg"]
    assert list(table["normal"]) == ["", ""]
    # up to the last of the required columns, and no cell more than the header has
    assert "3 cells, the header has 10" in problems(sheet(tmp_path, "A1\tP\tst"))[1]
    assert "11 cells, the header has 10" in problems(sheet(tmp_path, GOOD + "\t"))[1]
    header = "path\tsection\tnote\tplatform\timage"
    assert "3 cells, the header has 5" in problems(sheet(tmp_path, "a.tsv\tA1\tst", header=header))[1]


@pytest.mark.parametrize("page", ["README.md", "docs/own_section.md"])
def test_the_row_of_a_page_can_be_pasted(page, tmp_path):
    root = Path(__file__).parents[3]
    config = root / "config"
    lines = (root / page).read_text(encoding="utf-8").splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.strip().startswith("| section | cohort |")]
    names, cells = ([cell.strip() for cell in lines[row].strip(" |").split("|")] for row in (start, start + 2))
    path = tmp_path / "sections.tsv"
    path.write_text((config / "sections.tsv").read_text(encoding="utf-8") + "\t".join(cells) + "\n", encoding="utf-8")
    row = read_sheet([path]).iloc[-1]
    assert list(row[names]) == cells
    assert cells[0] == "biopsy7"
    assert len(cells) == 7
    assert set(row.drop(names)) == {""}


@pytest.mark.parametrize(
    ("line", "column", "fragments"),
    [
        (GOOD.replace("A1", "A 1"), "section", ["'A 1'", "letters, digits"]),
        (GOOD.replace("A1", "../A1"), "section", ["'../A1'", "file name"]),
        (GOOD.replace("A1", ""), "section", ["''", "file name"]),
        (GOOD.replace("\tP\t", "\tP 1\t"), "patient", ["'P 1'", "file name", "letters, digits"]),
        (GOOD.replace("\tP\t", "\t../P\t"), "patient", ["'../P'", "file name"]),
        (GOOD.replace("\tst\t", "\tST\t"), "platform", ["'ST'", "visium, visium_hd, visium_hd_cells, xenium, h5ad"]),
        (GOOD.replace("a.tsv", ""), "path", ["empty", "counts file"]),
        (GOOD.replace("0.7", "0,7"), "um_per_px", ["'0,7'", "decimal point"]),
        (GOOD.replace("0.7", "-1"), "um_per_px", ["'-1'", "positive"]),
        (GOOD.replace("0.7", "nan"), "um_per_px", ["'nan'", "positive"]),
        (GOOD.replace("\t\t0.5", "\t0\t0.5"), "spot_um", ["'0'", "positive"]),
        (GOOD.replace("0.5", "half"), "image_scale", ["'half'", "positive"]),
        (GOOD.replace("\tno", "\tmaybe"), "normal", ["'maybe'", "yes, no or nothing"]),
        (GOOD.replace("he.jpg\t", "\ta.csv"), "alignment", ["column image is empty", "H&E image"]),
        (GOOD.replace("\tst\t", "\txenium\t"), "alignment", ["empty", "3 x 3"]),
        ("X1\t\txenium\tx\t\t\t\t100\t\t", "spot_um", ["55 µm", "leave it empty"]),
    ],
)
def test_a_bad_cell_is_told(tmp_path, line, column, fragments):
    path = sheet(tmp_path, "B1\tQ\tst\tb.tsv\t\t\t\t\t\t", line)
    heading, *found = problems(path)
    assert heading == "the section sheet has 1 problem:"
    assert len(found) == 1
    assert f"{path}, row 3, column {column}:" in found[0]
    assert [part for part in fragments if part not in found[0]] == []


def test_all_problems_come_at_once(tmp_path):
    first = sheet(tmp_path, GOOD, GOOD.replace("0.7", "x").replace("\tno", "\tn"), name="a.tsv")
    second = sheet(tmp_path, GOOD, "", "short\tP", name="b.tsv")
    heading, *found = problems(first, second)
    assert heading == "the section sheet has 5 problems:"
    places = [line.strip().split(":")[0] for line in found]
    assert places == [
        f"{first}, row 3, column um_per_px",
        f"{first}, row 3, column normal",
        f"{first}, row 3, column section",
        f"{second}, row 4",
        f"{second}, row 2, column section",
    ]
    assert "2 cells, the header has 10" in found[3]
    assert f"'A1' is already at {first}, row 2" in found[4]


def test_a_bad_header_is_told(tmp_path):
    _, *found = problems(sheet(tmp_path, "A1\tx", header="section\tplattform\tsection"))
    text = "\n".join(found)
    for fragment in (
        "row 1, column platform: missing",
        "row 1, column path: missing",
        "column 'plattform': unknown",
        "column section: appears more than once",
    ):
        assert fragment in text
    assert "separate columns by tabs" in problems(sheet(tmp_path, "A1,st,a", header="section,platform,path"))[1]


def test_spaces_for_tabs_are_told(tmp_path):
    message = problems(sheet(tmp_path, "A1 st a.tsv", header="section\tplatform\tpath"))[1]
    assert "row 2: 1 cell, the header has 3" in message
    assert "not spaces" in message


def test_a_quote_left_open_does_not_swallow_rows(tmp_path):
    path = sheet(tmp_path, 'A1\tst\t"a', "B1\tst\tb", "C1\tst\tc", header="section\tplatform\tpath")
    assert "double quote" in problems(path)[1]


def test_no_section_and_no_file_are_told(tmp_path):
    assert "no section" in problems(sheet(tmp_path))[1]
    assert "no such file" in problems(tmp_path / "none.tsv")[1]
    (tmp_path / "latin.tsv").write_bytes("section\tplatform\tpath\nA1\tst\té".encode("latin-1"))
    assert "save it as UTF-8" in problems(tmp_path / "latin.tsv")[1]
    (tmp_path / "empty.tsv").write_text("")
    assert "no header" in problems(tmp_path / "empty.tsv")[1]


def test_missing_files_are_listed_and_empty_cells_are_not(tmp_path):
    (tmp_path / "a.h5ad").write_text("")
    here, gone = str(tmp_path / "a.h5ad"), str(tmp_path / "gone.jpg")
    path = sheet(tmp_path, f"A1\t\th5ad\t{here}\t{gone}\t\t\t\t\t", f"B1\t\th5ad\t{here}\t\t\t\t\t\t")
    rows = read_sheet([path])
    found = missing_files(rows)
    assert len(found) == 1
    assert all(part in found[0] for part in ("section A1", "column image", gone, "does not exist", "correct the path"))
    assert missing_files(rows.to_dict("records")) == found


def test_a_path_that_no_disk_can_hold_is_missing():
    row = dict.fromkeys(COLUMNS, "") | {"section": "S1", "platform": "st", "path": "x" * 5000, "labels": "a\0b"}
    assert [problem.partition(":")[0] for problem in missing_files([row])] == [
        "section S1, column path",
        "section S1, column labels",
    ]


def test_missing_files_behind_a_path_are_listed(tmp_path):
    counts = tmp_path / "ST-cnts" / "A1.tsv.gz"
    row = {"section": "A1", "platform": "st", "path": str(counts)}
    assert len(missing_files([row])) == 1  # the counts; nothing is known of their neighbours
    counts.parent.mkdir()
    counts.write_text("")
    (found,) = missing_files([row])
    assert found.startswith(f"section A1, column path: {tmp_path}/ST-spotfiles/A1_selection.tsv does not exist")
    (tmp_path / "ST-spotfiles").mkdir()
    (tmp_path / "ST-spotfiles" / "A1_selection.tsv").write_text("")
    assert missing_files([row]) == []
    bundle = {"section": "X", "platform": "xenium", "path": str(tmp_path), "image": str(counts), "alignment": "no.csv"}
    assert [line.split(": ")[1].split()[0] for line in missing_files([bundle])] == [
        "no.csv", f"{tmp_path}/cell_feature_matrix.h5", f"{tmp_path}/cells.parquet"
    ]  # fmt: skip


def test_files_that_will_be_fetched_are_not_missed():
    folder, picture = "data/public/10x/V", "data/public/10x/V.tif"
    row = {"section": "V", "platform": "visium", "path": folder, "image": picture, "labels": "data/public/10x/V.csv"}
    (found,) = missing_files([row], fetched=[f"{folder}/spatial/tissue_positions_list.csv", picture])
    assert "column labels" in found
    assert len(missing_files([row])) == 3


@pytest.mark.parametrize(
    ("platform", "pool", "problem"),
    [
        ("xenium", "", ""),
        ("xenium", "discs", ""),
        ("xenium", "hexagons", ""),
        ("xenium", "squares", "column pool: 'squares' is unknown; write hexagons or discs, or nothing for hexagons"),
        ("xenium", "Discs", "column pool: 'Discs' is unknown; write hexagons or discs, or nothing for hexagons"),
        ("visium", "", ""),
        ("visium", "discs", "column pool: 'discs', but visium is read as spots, not as cells; leave it empty"),
    ],
)
def test_only_a_row_of_cells_says_how_they_are_pooled(platform, pool, problem, tmp_path):
    path = sheet(tmp_path, f"X1\t{platform}\tX1\t{pool}", header="section\tplatform\tpath\tpool")
    if not problem:
        assert read_sheet([path])["pool"].tolist() == [pool]
        return
    assert problems(path)[1].strip() == f"{path}, row 2, {problem}"


@pytest.mark.parametrize(("bin_um", "good"), [("", True), ("2", True), ("8", True), ("16", True), ("55", False)])
def test_a_visium_hd_row_chooses_a_bin_that_there_is(bin_um, good, tmp_path):
    header = "section\tplatform\tpath\tspot_um"
    path = tmp_path / "sheet.tsv"
    path.write_text(f"{header}\nA1\tvisium_hd\tA1/outs\t{bin_um}\n")
    if good:
        assert read_sheet([path])["spot_um"].tolist() == [bin_um]
        return
    with pytest.raises(InputError, match="2, 8 or 16"):
        read_sheet([path])


def test_what_is_missing_is_named_by_what_is_there(tmp_path):
    """A run of Visium HD under another platform, and bins of another width than was asked for."""
    row, _ = vendor_files.CASES["visium_hd 3"](tmp_path)
    (wrong,) = missing_files([row | {"platform": "visium"}])
    assert "column platform says visium, but this is a Space Ranger folder of Visium HD bins" in wrong
    shutil.rmtree(tmp_path / "outs/binned_outputs/square_016um")
    (none,) = missing_files([row | {"spot_um": "16"}])
    assert "no bins of 16 µm; write one of" in none
    assert "8" in none.rpartition("write one of")[2]
    assert missing_files([row]) == []


def test_a_folder_above_the_public_files_is_no_section(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (".", "data"):
        (found,) = missing_files(
            [{"section": "A", "platform": "visium", "path": path, "image": "none"}], fetched=["data/public/a/b.h5"]
        )[:1]
        assert "filtered_feature_bc_matrix.h5" in found or "does not exist" in found


@pytest.mark.parametrize("path", ["cohort.h5ad#left", "COHORT.H5AD#left"])
def test_a_library_is_named_in_the_path_and_the_image(tmp_path, path):
    sheet = tmp_path / "sections.tsv"
    sheet.write_text(f"section\tplatform\tpath\timage\nA\th5ad\t{path}\t{path}\n")
    (row,) = read_sheet([sheet]).to_dict("records")
    assert (row["path"], row["library"], row["image"]) == (path[:-5], "left", path[:-5])
    sheet.write_text(f"section\tplatform\tpath\tlibrary\nA\th5ad\t{path}\tright\n")
    with pytest.raises(InputError, match="names the library 'left', column library 'right'; keep one"):
        read_sheet([sheet])


def test_a_number_sign_may_be_in_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.h5ad#2").mkdir()
    Path("sections.tsv").write_text("section\tplatform\tpath\nA\tvisium\trun.h5ad#2\n")
    assert read_sheet([Path("sections.tsv")]).loc[0, "path"] == "run.h5ad#2"
