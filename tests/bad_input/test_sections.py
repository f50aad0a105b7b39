"""Counts and coordinates: vendors' files as they come back from spreadsheets, scripts and other sections."""

import gzip
import json
import re
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import vendor_files as vendor
from ctrflow import readers

COUNTS, SELECTION = "ST-cnts/A1.tsv", "ST-spotfiles/A1_selection.tsv"
POSITIONS, FACTORS = "outs/spatial/tissue_positions.csv", "outs/spatial/scalefactors_json.json"
MTX = "outs/filtered_feature_bc_matrix"
ROWS = {"st": "st plain", "visium": "visium 2 CytAssist", "mtx": "visium mtx of version 2", "xenium": "xenium 4"}


def spoilt(case: str, *edits, **cells):
    """A fault: a folder of `vendor_files.CASES` with files edited: (file, bytes -> bytes); cells of its row."""

    def fault(folder):
        row, _ = vendor.CASES[ROWS.get(case, case)](folder)
        for name, edit in edits:
            path = folder / name
            path.write_bytes(edit(path.read_bytes()))
        return lambda: readers.read_section(row | cells)

    return fault


def text(edit):
    """An edit of a text file."""
    return lambda content: edit(content.decode()).encode()


def replaced(old: str, new: str, count: int = 0):
    """An edit of a text file by a regular expression."""

    def edit(before: str) -> str:
        after = re.sub(old, new, before, count=count, flags=re.MULTILINE)
        assert after != before
        return after

    return text(edit)


def to(content: bytes):
    return lambda _: content


def table_edit(edit, separator: str = "\t"):
    """An edit of a table with a header and, of counts, the spots first."""

    def on(content: bytes) -> bytes:
        import io

        table = pd.read_csv(io.BytesIO(content), sep=separator, dtype=str, keep_default_na=False)
        return edit(table).to_csv(sep=separator, index=False).encode()

    return on


def adata(edit, **cells):
    """A fault: an .h5ad of the Visium section, after an edit."""

    def fault(folder):
        row, _ = vendor.CASES["h5ad plain"](folder)
        edit(anndata.read_h5ad(row["path"])).write_h5ad(row["path"])
        return lambda: readers.read_section(row | cells)

    return fault


def with_x(edit):
    def on(spots):
        spots.X = edit(spots.X)
        return spots

    return on


def with_spatial(edit):
    def on(spots):
        spots.obsm["spatial"] = edit(spots.obsm["spatial"])
        return spots

    return on


def two_sections(spots):
    """Two sections of one array in one file, as a cohort is often shared."""
    other = spots.copy()
    other.obs_names = other.obs_names + "-2"
    return anndata.concat([spots, other])


def two_sections_apart(spots):
    """The same, each in px of its own image."""
    known = vendor.shuffled(vendor.truth("visium"))
    spots.obs["array_row"], spots.obs["array_col"] = known.array.T
    both = two_sections(spots)
    both.obsm["spatial"][spots.n_obs :] += [3.0, 5.0]
    return both


def transposed_market(content: bytes) -> bytes:
    lines = content.decode().splitlines()
    head = [line for line in lines if line.startswith("%")]
    swapped = [" ".join([b, a, c]) for a, b, c in map(str.split, lines[len(head) :])]
    return "\n".join([*head, *swapped, ""]).encode()


def from_zero(content: bytes) -> bytes:
    """Indices counted from 0, as scripts write them."""
    lines = content.decode().splitlines()
    at = next(i for i, line in enumerate(lines) if not line.startswith("%")) + 1
    lower = [f"{int(a) - 1} {int(b) - 1} {c}" for a, b, c in map(str.split, lines[at:])]
    return "\n".join([*lines[:at], *lower, ""]).encode()


def numbered_from_zero(table):
    table.iloc[:, 0] = [f"{int(x) - 1}x{int(y) - 1}" for x, y in table.iloc[:, 0].str.split("x")]
    return table


def shifted_by_two(table):
    table["x"] = (table["x"].astype(int) + 2).astype(str)
    return table


def loom(folder):
    """A fault: an HDF5 file in another format."""
    path = folder / "section.h5ad"
    with h5py.File(path, "w") as handle:
        handle["matrix"], handle["row_attrs/Gene"], handle["col_attrs/CellID"] = np.ones((3, 9)), ["a"] * 3, ["s"] * 9
    return lambda: readers.read_section({"section": "S1", "platform": "h5ad", "path": str(path)})


def h5ad_of(content: bytes):
    """A fault: a file named .h5ad."""

    def fault(folder):
        path = folder / "section.h5ad"
        path.write_bytes(content)
        return lambda: readers.read_section({"section": "S1", "platform": "h5ad", "path": str(path)})

    return fault


def raw_alone(folder):
    """A fault: Space Ranger's raw matrix without the filtered one."""
    row, _ = vendor.CASES["visium 2 CytAssist"](folder)
    matrix = folder / "outs/filtered_feature_bc_matrix.h5"
    matrix.rename(matrix.with_name("raw_feature_bc_matrix.h5"))
    return lambda: readers.read_section(row)


def aligned(text_of_matrix: str, **cells):
    """A fault: a Xenium bundle with this alignment."""

    def fault(folder):
        row, _ = vendor.CASES["xenium 1.1"](folder)
        path = folder / "he_imagealignment.csv"
        path.write_text(text_of_matrix)
        return lambda: readers.read_section(row | {"image": "he.tif", "alignment": str(path)} | cells)

    return fault


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n"
RAW = ["expected raw counts", "give the raw matrix"]
FAULTS = {
    # counts of the ST platform
    "st, decimal commas": (
        spoilt("st", (COUNTS, replaced(r"\t(\d+)$", r"\t\1,0"))),
        [COUNTS, "row 2, column GENE59", "is not a number", "put the count there"],
    ),
    "st, thousands separators": (
        spoilt("st", (COUNTS, replaced(r"\t(\d+)$", r"\t1'\1", 1))),
        [COUNTS, "row 2, column GENE59", "is not a number"],
    ),
    "st, thousands with a point": (spoilt("st", (COUNTS, replaced(r"\t\d+$", "\t1.234", 1))), [COUNTS, "1.234", *RAW]),
    "st, log-normalised": (
        spoilt("st", (COUNTS, table_edit(lambda t: t.iloc[:, :1].join(np.log1p(t.iloc[:, 1:].astype(int)))))),
        [COUNTS, "holds ", *RAW],
    ),
    "st, a title above the header": (
        spoilt("st", (COUNTS, lambda b: b"Counts of A1\n" + b)),
        [COUNTS, "1 genes in the header", "spots as rows and genes as columns"],
    ),
    "st, one gene name too few": (
        spoilt("st", (COUNTS, replaced(r"\tGENE7\t", "\t", 1))),
        [COUNTS, "1 genes without a name", "download it again"],
    ),
    "st, saved as UTF-16": (
        spoilt("st", (COUNTS, lambda b: b.decode().encode("utf-16"))),
        [COUNTS, "cannot be read as a tab-separated table", "download it again"],
    ),
    "st, semicolons": (spoilt("st", (COUNTS, replaced("\t", ";"))), [COUNTS, "give a tab-separated table"]),
    "st, a login page": (spoilt("st", (COUNTS, to(PAGE))), [COUNTS, "give a tab-separated table"]),
    "st, a pointer of Git LFS": (spoilt("st", (COUNTS, to(POINTER))), [COUNTS, "tab-separated table"]),
    "st, a workbook": (spoilt("st", (COUNTS, to(b"PK\x03\x04\xff\xfe" * 9))), [COUNTS, "tab-separated table"]),
    "st, gzipped and cut short": (
        spoilt("st", (COUNTS, lambda b: gzip.compress(b)[:900])),
        [COUNTS, "cannot be read", "download it again"],
    ),
    "st, transposed": (
        spoilt("st", (COUNTS, table_edit(lambda t: t.set_index(t.columns[0]).T.rename_axis("gene").reset_index()))),
        [COUNTS, "rows are genes (GENE0", "transpose it"],
    ),
    "st, a negative count": (spoilt("st", (COUNTS, replaced(r"\t\d+$", "\t-3", 1))), [COUNTS, "holds -3", *RAW]),
    "st, an infinite count": (spoilt("st", (COUNTS, replaced(r"\t\d+$", "\tinf", 1))), [COUNTS, "holds inf", *RAW]),
    "st, NA for a count": (spoilt("st", (COUNTS, replaced(r"\t\d+$", "\tNA", 1))), [COUNTS, "holds nan", *RAW]),
    "st, a spot twice": (
        spoilt("st", (COUNTS, lambda b: b + b.splitlines()[-1] + b"\n")),
        [COUNTS, "twice", "keep one row per spot"],
    ),
    "st, spots counted from 0": (
        spoilt("st", (COUNTS, table_edit(numbered_from_zero))),
        [COUNTS, SELECTION, "have no position", "from one section"],
    ),
    # coordinates of the ST platform
    "st, spots two columns further": (
        spoilt("st", (SELECTION, table_edit(shifted_by_two))),
        [COUNTS, SELECTION, "have no position", "from one section"],
    ),
    "st, positions with decimal commas": (
        spoilt("st", (SELECTION, replaced(r"\.", ","))),
        [SELECTION, "row 2, column pixel_x", "is not a number", "fill it in"],
    ),
    "st, an infinite position": (
        spoilt("st", (SELECTION, replaced(r"\t[\d.]+\t1$", "\tinf\t1", 1))),
        [SELECTION, "row 2, column pixel_y: 'inf' is not a number", "fill it in"],
    ),
    "st, one position of another spot": (
        spoilt("st", (SELECTION, replaced(r"\t[\d.]+\t1$", "\t9999\t1", 1))),
        [SELECTION, "spots lie more than 100 µm", "download it again"],
    ),
    "st, no position at all": (
        spoilt("st", (SELECTION, text(lambda t: t.splitlines()[0] + "\n"))),
        [COUNTS, SELECTION, "no spot in common"],
    ),
    # Visium
    "visium, positions as Excel exports them in Germany": (
        spoilt("visium", (POSITIONS, text(lambda t: t.replace(",", ";").replace(".", ",")))),
        [POSITIONS, "row 2", "is not a number", "fill it in"],
    ),
    "visium, tissue in words": (
        spoilt("visium", (POSITIONS, replaced("-1,1,", "-1,TRUE,"))),
        [POSITIONS, "column in_tissue: 'TRUE' is not a number"],
    ),
    "visium, no spot in the tissue": (
        spoilt("visium", (POSITIONS, replaced("-1,1,", "-1,0,"))),
        [POSITIONS, "no spot has in_tissue = 1", "mark the tissue"],
    ),
    "visium, barcodes without their suffix": (
        spoilt("visium", (POSITIONS, replaced("-1,", ","))),
        ["filtered_feature_bc_matrix.h5", POSITIONS, "no spot in common", "from one section"],
    ),
    "visium, barcodes of an aggregate": (
        spoilt("visium", (POSITIONS, replaced("-1,", "-3,"))),
        ["filtered_feature_bc_matrix.h5", POSITIONS, "no spot in common", "from one section"],
    ),
    "visium, a barcode twice": (
        spoilt("visium", (POSITIONS, lambda b: b + b.splitlines()[-1] + b"\n")),
        [POSITIONS, "twice", "keep one row per spot"],
    ),
    "visium, a title above the header": (
        spoilt("visium", (POSITIONS, lambda b: b"Positions of P1\n" + b)),
        [POSITIONS, "columns, but Space Ranger writes barcode", "give the original file"],
    ),
    "visium, a position of -1": (
        spoilt("visium", (POSITIONS, replaced(r",[\d.]+$", ",-1", 40))),
        [POSITIONS, "from the position given by their row and column", "download it again"],
    ),
    "visium, positions saved as UTF-16": (
        spoilt("visium", (POSITIONS, lambda b: b.decode().encode("utf-16"))),
        [POSITIONS, "cannot be read as text (UTF-16)", "export it as UTF-8"],
    ),
    "visium, a workbook of positions": (
        spoilt("visium", (POSITIONS, to(b"PK\x03\x04rest"))),
        [POSITIONS, "an Excel workbook", "export it as UTF-8"],
    ),
    "visium, a scale factor that is not a number": (
        spoilt("visium", (FACTORS, to(b'{"tissue_hires_scalef": NaN}'))),
        [FACTORS, "tissue_hires_scalef = nan", "positive numbers"],
    ),
    "visium, a scale factor of 0": (
        spoilt("visium", (FACTORS, to(b'{"tissue_hires_scalef": 0}'))),
        [FACTORS, "tissue_hires_scalef = 0", "download it again"],
    ),
    "visium, a list of scale factors": (spoilt("visium", (FACTORS, to(b"[0.2, 0.06]"))), [FACTORS, "not valid JSON"]),
    "visium, the raw matrix alone": (raw_alone, ["filtered_feature_bc_matrix.h5: no such file", "section sheet"]),
    # 10x's text matrices
    "mtx, transposed": (
        spoilt("mtx", (f"{MTX}/matrix.mtx", transposed_market)),
        ["genes.tsv", "rows, but matrix.mtx has", "from one run"],
    ),
    "mtx, places counted from 0": (
        spoilt("mtx", (f"{MTX}/matrix.mtx", from_zero)),
        ["matrix.mtx: not a complete Matrix Market file (indices outside", "download it again"],
    ),
    "mtx, normalised": (
        spoilt("mtx", (f"{MTX}/matrix.mtx", replaced(r"^(\d+ \d+ \d{1,3})$", r"\1.25"))),
        ["outs", "holds ", *RAW],
    ),
    "mtx, a dense array": (
        spoilt("mtx", (f"{MTX}/matrix.mtx", replaced("coordinate", "array"))),
        ["matrix.mtx: not a complete Matrix Market file", "not the header of a sparse matrix"],
    ),
    "mtx, symmetric": (
        spoilt("mtx", (f"{MTX}/matrix.mtx", replaced("general", "symmetric"))),
        ["matrix.mtx: not a complete Matrix Market file", "not the header of a sparse matrix"],
    ),
    "mtx, features of another reference": (
        spoilt("mtx", (f"{MTX}/genes.tsv", lambda b: b + b"ENSG9\tNEW1\nENSG8\tNEW2\n")),
        ["genes.tsv: 62 rows, but matrix.mtx has 60", "from one run"],
    ),
    "mtx, features in another order of columns": (
        spoilt("mtx", (f"{MTX}/genes.tsv", replaced(r"^(\S+)\t(\S+)$", r"\2\tGene Expression"))),
        ["genes.tsv: its columns are not id, symbol and type", "download it again"],
    ),
    "mtx, barcodes with their header": (
        spoilt("mtx", (f"{MTX}/barcodes.tsv", lambda b: b"barcode\n" + b)),
        ["barcodes.tsv", "rows, but matrix.mtx has", "from one run"],
    ),
    # Xenium
    "xenium, pixels of no size": (
        spoilt("xenium", ("P1_experiment.xenium", to(b'{"pixel_size": 0}'))),
        ["experiment.xenium: pixel_size is 0", "a positive number of µm"],
    ),
    "xenium, cells as Excel exports them in Germany": (
        spoilt("xenium", ("P1_cells.csv", text(lambda t: t.replace(",", ";").replace(".", ",")))),
        ["P1_cells.csv", "column x_centroid", "is not a number"],
    ),
    "xenium, cells of another run": (
        spoilt("xenium", ("P1_cells.csv", replaced(r"^(?!cell_id)(\w)", r"z\1"))),
        ["cell_feature_matrix.h5", "P1_cells.csv", "no spot in common", "from one section"],
    ),
    "xenium, an alignment of 2 x 3": (
        aligned("1,0,5\n0,1,7\n"),
        ["he_imagealignment.csv: 2 rows x 3 columns", "H&E px to Xenium px"],
    ),
    "xenium, an alignment transposed": (
        aligned("1,0,0\n0,1,0\n5,7,1\n"),
        ["he_imagealignment.csv: row 3 is 5, 7, 1 but must be 0, 0, 1", "Xenium Explorer"],
    ),
    "xenium, an alignment with decimal commas": (
        aligned("1,02;0,01;5,3\n0,01;1,02;7,1\n0;0;1\n"),
        ["he_imagealignment.csv: row 1, column 0: '1,02' is not a number", "fill it in"],
    ),
    "xenium, an alignment that squeezes all into a line": (
        aligned("1,1,0\n1,1,0\n0,0,1\n"),
        ["he_imagealignment.csv: the matrix cannot be inverted", "give the 3 x 3 matrix"],
    ),
    "xenium, an alignment that leads out of all numbers": (
        aligned("1e200,0,0\n0,1e200,0\n0,0,1\n"),
        ["he_imagealignment.csv: the matrix cannot be inverted", "give the 3 x 3 matrix"],
    ),
    "xenium, an alignment to a point": (
        aligned("1e-200,0,0\n0,1e-200,0\n0,0,1\n"),
        ["he_imagealignment.csv: the matrix cannot be inverted", "give the 3 x 3 matrix"],
    ),
    "xenium, an alignment of the other direction": (
        aligned("0.6,0,0\n0,0.6,0\n0,0,1\n", um_per_px="0.354"),
        ["section S1", "um_per_px gives 0.354", "he_imagealignment.csv from H&E px to Xenium px gives 0.1275"],
    ),
    "xenium, an alignment with its header": (
        aligned("a,b,c\n1,0,0\n0,1,0\n0,0,1\n"),
        ["he_imagealignment.csv: 4 rows x 3 columns", "no header"],
    ),
    # one file
    "h5ad, an R object": (h5ad_of(gzip.compress(b"X\n\x00\x00")), ["section.h5ad: not an HDF5 file", "export"]),
    "h5ad, a pointer of Git LFS": (h5ad_of(POINTER), ["section.h5ad: not an HDF5 file", "download it again"]),
    "h5ad, a login page": (h5ad_of(PAGE), ["section.h5ad: not an HDF5 file", "download it again"]),
    "h5ad, a Loom file": (loom, ["section.h5ad: no names in obs and var", "write it with anndata again"]),
    "h5ad, z-scores": (
        adata(with_x(lambda x: np.asarray(x.todense()) - 3.5)),
        ["section.h5ad", "holds -", *RAW, "layers['counts'] or .raw"],
    ),
    "h5ad, an infinite count": (
        adata(with_x(lambda x: np.where(np.arange(x.shape[1]) == 4, np.inf, x.todense()))),
        ["section.h5ad", "gene ", "holds inf", *RAW],
    ),
    "h5ad, all zero": (adata(with_x(lambda x: x * 0)), ["section.h5ad", "count", "zero"]),
    "h5ad, no positions but an embedding": (
        adata(lambda a: anndata.AnnData(a.X, obs=a.obs, var=a.var, obsm={"X_spatial": a.obsm["spatial"]})),
        ["section.h5ad: no obsm['spatial'] (it has X_spatial)", "full-resolution px"],
    ),
    "h5ad, positions in words": (
        adata(with_spatial(lambda p: pd.DataFrame(p.astype(str), columns=["x", "y"]).add("px").to_numpy())),
        ["section.h5ad: obsm['spatial'] is not numeric", "put (x, y) in px there"],
    ),
    "h5ad, one coordinate": (
        adata(with_spatial(lambda p: p[:, :1])),
        ["section.h5ad: obsm['spatial'] has shape", "x and y in px"],
    ),
    "h5ad, every spot at one place": (
        adata(with_spatial(lambda p: p * 0), um_per_px="1", spot_um="55"),
        ["section.h5ad", "spots share their position with another", "write one file per section"],
    ),
    "h5ad, two sections of one array": (
        adata(two_sections, um_per_px="1", spot_um="55"),
        ["section.h5ad", "2 sections in one file, -1, -1-2, by what follows the barcodes", "column library"],
    ),
    "h5ad, two sections, each in px of its own": (
        adata(two_sections_apart),
        ["section.h5ad", "2 sections in one file, -1, -1-2, by what follows the barcodes", "column library"],
    ),
    "h5ad, positions along a line": (
        adata(lambda a: with_spatial(lambda p: np.column_stack([p[:, 0], p[:, 0]]))(a)),
        ["section.h5ad", "fill column"],
    ),
    "h5ad, spots shuffled against their counts": (
        adata(with_spatial(lambda p: p[np.random.default_rng(0).permutation(len(p))])),
        ["section.h5ad", "no more alike", "shuffled against each other", "from one section"],
    ),
    "h5ad, a gene without a name": (
        adata(lambda a: anndata.AnnData(a.X, obs=a.obs, obsm=a.obsm, var=pd.DataFrame(index=["", *a.var_names[1:]]))),
        ["section.h5ad: 1 genes without a name", "download it again"],
    ),
    "h5ad, nothing in the tissue": (
        adata(lambda a: anndata.AnnData(a.X, obs=a.obs.assign(in_tissue=0), var=a.var, obsm=a.obsm)),
        ["section.h5ad: no spot has obs['in_tissue'] = 1", "correct or delete that column"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_reported(name, tmp_path, assert_error):
    fault, words = FAULTS[name]
    assert_error(fault(tmp_path), words)


def mangled(genes: list[str]):
    return dict(zip(["GENE3", "GENE4", "GENE5"], genes, strict=False))


def renamed(names: dict[str, str]):
    def edit(before: str) -> str:
        for old, new in names.items():
            before = before.replace(f"\t{old}\t", f"\t{new}\t")
        return before

    return (COUNTS, text(edit))


def factors_of(folder, **changed):
    row, _ = vendor.CASES["visium 2 CytAssist"](folder)
    path = folder / FACTORS
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return lambda: readers.read_section(row)


def in_micrometres(folder):
    """A fault: positions multiplied by µm per px, beside scale factors in px."""
    row, known = vendor.CASES["visium 2 CytAssist"](folder)
    path = folder / POSITIONS
    table = pd.read_csv(path)
    table[["pxl_row_in_fullres", "pxl_col_in_fullres"]] *= known.um_per_px
    table.to_csv(path, index=False)
    return lambda: readers.read_section(row)


WARNINGS = {
    "gene names that a spreadsheet took for dates": (
        spoilt("st", renamed(mangled(["1-Mar", "2-Sep", "1. Dez"]))),
        ["A1.tsv", "3 gene names look like dates", "1-Mar, 2-Sep, 1. Dez", "spreadsheet"],
    ),
    "gene names that became dates in figures": (
        spoilt("st", renamed(mangled(["2023-03-01", "01.09.2023"]))),
        ["A1.tsv", "2 gene names look like dates", "2023-03-01"],
    ),
    "a gene twice": (spoilt("st", renamed({"GENE3": "GENE4"})), ["A1.tsv", "1 gene names occur twice", "GENE4"]),
    "counts scaled to one total and rounded": (
        adata(with_x(lambda x: np.rint(1e6 * x.toarray() / x.toarray().sum(axis=1, keepdims=True)))),
        ["section.h5ad", "all spots have about the same total", "the raw matrix"],
    ),
    "a scale that is not that of the array": (
        spoilt("st", um_per_px="0.9"),
        ["section S1: 0.9 µm per px: column um_per_px alone, but array pitch of 200 µm gives 1.1", "check"],
    ),
    "positions in µm": (
        in_micrometres,
        ["1 µm per px: array pitch of 100 µm in tissue_positions.csv", "scalefactors_json.json gives 0.7;"],
    ),
    "scale factors of another image": (
        lambda folder: factors_of(folder, spot_diameter_fullres=9.5),
        ["tissue_positions.csv", "spot_diameter_fullres of 9.5 px for 65 µm in scalefactors_json.json gives 6.842"],
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_it_gives_a_warning(name, tmp_path, assert_warning):
    fault, words = WARNINGS[name]
    assert_warning(fault(tmp_path), words)


def boms(content: bytes) -> bytes:
    return b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")


HARMLESS = {
    "st, a byte-order mark and CRLF": ("st plain", [(COUNTS, boms), (SELECTION, boms)]),
    "st, gzip without its suffix": ("st plain", [(COUNTS, gzip.compress), (SELECTION, gzip.compress)]),
    "st, quoted": ("st plain", [(COUNTS, replaced(r"([^\t\n]+)", r'"\1"'))]),
    "st, counts with a point": ("st plain", [(COUNTS, replaced(r"\t(\d+)(?=[\t\n])", r"\t\1.0"))]),
    "visium, a byte-order mark and CRLF": ("visium 2 CytAssist", [(POSITIONS, boms), (FACTORS, boms)]),
    # the array is only used for the scale, which is the same along both axes
    "visium, rows and columns of the array swapped": (
        "visium 2 CytAssist",
        [(POSITIONS, replaced("array_row,array_col", "array_col,array_row"))],
    ),
    "visium, semicolons": ("visium 2 CytAssist", [(POSITIONS, replaced(",", ";"))]),
    "visium, quoted": ("visium 2 CytAssist", [(POSITIONS, replaced(r"([^,\n]+)", r'"\1"'))]),
    "mtx, gzip without its suffix": (
        "visium mtx of version 2",
        [(f"{MTX}/{name}", gzip.compress) for name in ("matrix.mtx", "barcodes.tsv", "genes.tsv")],
    ),
    "mtx, suffix without gzip": (
        "visium 1 mtx",
        [(f"{MTX}/{name}.gz", gzip.decompress) for name in ("matrix.mtx", "barcodes.tsv", "features.tsv")],
    ),
    "mtx, CRLF": (
        "visium mtx of version 2",
        [(f"{MTX}/{name}", replaced("\n", "\r\n")) for name in ("matrix.mtx", "barcodes.tsv", "genes.tsv")],
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_it_is_read_correctly(name, tmp_path):
    case, edits = HARMLESS[name]
    expected = readers.read_section(vendor.CASES[case](tmp_path / "intact")[0])
    row, _ = vendor.CASES[case](tmp_path / "other")
    for file, edit in edits:
        path = Path(tmp_path / "other" / file)
        path.write_bytes(edit(path.read_bytes()))
    spots = readers.read_section(row)
    assert list(spots.obs_names) == list(expected.obs_names)
    assert list(spots.var_names) == list(expected.var_names)
    assert (spots.X != expected.X).nnz == 0
    assert sparse.issparse(spots.X)
    np.testing.assert_array_equal(spots.obsm["spatial"], expected.obsm["spatial"])
    assert spots.uns["section"]["um_per_px"] == pytest.approx(expected.uns["section"]["um_per_px"])
