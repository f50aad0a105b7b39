"""The tables that people edit: section sheet, marker lists, label words."""

import pytest

from ctrflow.features import markers
from ctrflow.plan import sheet
from ctrflow.sections import labels

HEADER = "section\tpatient\tplatform\tpath\timage\tum_per_px\tnote\n"
GOOD = "A1\tP\tst\tdata/A1.tsv\the.jpg\t0.7\tfirst\n"


def sheet_of(text: str | bytes, encoding: str = "utf-8"):
    """A fault: a section sheet with this content."""

    def fault(folder):
        path = folder / "sections.tsv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return lambda: sheet.read_sheet([path])

    return fault


def row_of(old: str, new: str):
    """A fault: a section sheet with a bad row 3."""
    assert old in GOOD
    return sheet_of(HEADER + GOOD + GOOD.replace("A1\t", "B1\t", 1).replace(old, new, 1))


def markers_of(text: str, encoding: str = "utf-8"):
    """A fault: a marker list with this content."""

    def fault(folder):
        path = folder / "breast.tsv"
        path.write_text(text, encoding=encoding)
        return lambda: markers.read_markers(path)

    return fault


def words_of(content: bytes):
    """A fault: a list of words with this content."""

    def fault(folder):
        path = folder / "label_words.tsv"
        path.write_bytes(content)
        return lambda: labels.read_words(path)

    return fault


PLACE = "sections.tsv, row 3, column"
FAULTS = {
    "sheet saved as Unicode text by Excel": (sheet_of(HEADER + GOOD, "utf-16"), ["sections.tsv", "save it as UTF-8"]),
    "sheet saved in Latin-1": (
        sheet_of(HEADER + GOOD.replace("first", "Präparat"), "latin-1"),
        ["sections.tsv", "save it as UTF-8"],
    ),
    "sheet that is an Excel workbook": (
        sheet_of(b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x9c\xff\xfe" * 9),
        ["sections.tsv", "save it as UTF-8, tab-separated"],
    ),
    "sheet with semicolons": (
        sheet_of((HEADER + GOOD).replace("\t", ";")),
        ["sections.tsv, row 1", "separate columns by tabs"],
    ),
    "sheet with columns in capitals": (
        sheet_of(HEADER.replace("section", "Section") + GOOD),
        ["sections.tsv, row 1", "column section: missing", "column 'Section': unknown; correct or delete it"],
    ),
    "sheet with a column without a name": (
        sheet_of(HEADER.replace("\n", "\t\n") + GOOD),
        ["sections.tsv, row 1", "column '': unknown; correct or delete it"],
    ),
    "a table of counts for a sheet": (
        sheet_of("\t" + "\t".join(f"G{n}" for n in range(900)) + "\n1x1" + "\t0" * 900 + "\n"),
        ["sections.tsv, row 1: 901 unknown columns: , G0, G1, G2, G3 and 896 more", "give a table with the columns"],
    ),
    "two sheets in one": (
        sheet_of(HEADER + GOOD + HEADER),
        [f"{PLACE} platform: 'platform' is unknown; use one of", f"{PLACE} um_per_px: 'um_per_px'"],
    ),
    "sheet with only a title": (sheet_of("My sections\n"), ["sections.tsv, row 1", "separate columns by tabs"]),
    "empty sheet": (sheet_of(""), ["sections.tsv, row 1", "the first row names the columns"]),
    "only a header": (sheet_of(HEADER), ["sections.tsv: no section", "add a row"]),
    "two ids that differ in case": (
        sheet_of(HEADER + GOOD + GOOD.replace("A1\t", "a1\t", 1)),
        [f"{PLACE} section: 'a1' is already at", "row 2, as 'A1'; give each its own id"],
    ),
    "a scale with its unit": (
        row_of("0.7", "0.7 µm"),
        [f"{PLACE} um_per_px: '0.7 µm' is not a positive number", "poi"],
    ),
    "a scale as a fraction": (row_of("0.7", "7/10"), [f"{PLACE} um_per_px: '7/10'", "decimal point"]),
    "a scale beyond all numbers": (row_of("0.7", "1e999"), [f"{PLACE} um_per_px: '1e999'", "decimal point"]),
    "a platform by its trade name": (
        row_of("\tst\t", "\tVisium HD\t"),
        [f"{PLACE} platform: 'Visium HD' is unknown", "visium_hd"],
    ),
    "a platform cell shifted": (
        row_of("P\tst", "st\tP"),
        [f"{PLACE} platform: 'P' is unknown", "use one of st, visium"],
    ),
    "a patient with an umlaut": (row_of("\tP\t", "\tMüller\t"), [f"{PLACE} patient: 'Müller'", "use letters, digits"]),
    "a word with spaces for its tab": (words_of(b"word\tlabel\ntumor 1\n"), ["label_words.tsv: row 2", "a tab"]),
    "words with a label in words": (
        words_of(b"word\tlabel\nTumor\tja\n"),
        ["label_words.tsv: row 2", "1 (cancer), 0 (other) or unknown"],
    ),
    "words with commas": (words_of(b"word,label\ntumor,1\n"), ["label_words.tsv", "separated by a tab"]),
    "words saved as Unicode text by Excel": (
        words_of("word\tlabel\ntumor\t1\n".encode("utf-16")),
        ["label_words.tsv: cannot be read as text", "export"],
    ),
    "words saved in Latin-1": (
        words_of("word\tlabel\nDrüse\t0\n".encode("latin-1")),
        ["label_words.tsv: cannot be read as text", "export"],
    ),
    "a marker list without sources": (
        markers_of("gene\tset\tsource\nEPCAM\ttumour\t\n"),
        ["breast.tsv, row 2, column source: empty", "fill it"],
    ),
    "a marker of another set": (
        markers_of("gene\tset\tsource\nEPCAM\ttumor\tx\n"),
        ["breast.tsv, row 2, column set: 'tumor'", "valid: epithelial, tumour"],
    ),
    "a marker list saved as UTF-16": (
        markers_of("gene\tset\tsource\n", "utf-16"),
        ["breast.tsv", "save it as UTF-8, tab-separated"],
    ),
}
FAULTS["an id that leads out of its folder"] = (
    sheet_of(HEADER + GOOD + GOOD.replace("A1\t", "../../A1\t", 1)),
    [f"{PLACE} section: '../../A1' cannot be an id or a file name", "use letters"],
)


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_reported(name, tmp_path, assert_error):
    fault, words = FAULTS[name]
    assert_error(fault(tmp_path), words)


def test_a_path_of_windows_is_reported(tmp_path):
    path = tmp_path / "sections.tsv"
    path.write_text(HEADER + GOOD.replace("data/A1.tsv", r"C:\data\A1.tsv"))
    rows = sheet.read_sheet([path])
    (message, _) = sheet.missing_files(rows)
    assert message.startswith(r"section A1, column path: C:\data\A1.tsv does not exist; correct the path")


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_a_sheet_with_line_ends_of_other_systems_is_read_correctly(tmp_path, ends):
    path = tmp_path / "sections.tsv"
    path.write_bytes(("\ufeff" + HEADER + GOOD).replace("\n", ends).encode())
    (row,) = sheet.read_sheet([path]).to_dict("records")
    assert (row["section"], row["um_per_px"], row["note"]) == ("A1", "0.7", "first")
