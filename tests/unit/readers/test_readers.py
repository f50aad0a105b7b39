"""Readers on small hand-written vendor folders, and on real ones if they are available."""

import gzip
import json
import math
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import sparse

import vendor_files
from ctrflow import readers
from ctrflow.errors import InputError
from ctrflow.readers import folders, structure
from ctrflow.scale import arrays
from ctrflow.storage import write_h5ad

DATA = Path(__file__).parents[4] / "shared" / "data"

# 8 spots of a 3 x 3 grid; counts by hand, two genes
ST_IDS = ["1x1", "2x1", "3x1", "1x2", "2x2", "3x2", "1x3", "2x3"]
ST_COUNTS = np.array([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12, 13], [14, 15]])
# one micrometre is half a pixel: Visium's pitch is 50 px
UM_PER_PX = 2.0


def row(platform, path, **more):
    return {"section": "S1", "platform": platform, "path": str(path)} | {key: str(value) for key, value in more.items()}


def fails(wanted_row, *fragments):
    """The message of the InputError that reading must raise; every fragment must be in it."""
    with pytest.raises(InputError) as caught:
        readers.read_section(wanted_row)
    message = str(caught.value)
    assert [part for part in fragments if str(part) not in message] == [], message
    return message


# --- ST ---------------------------------------------------------------------------------------------------------------


def st_path(root, counts=None, selection=None, name="A1"):
    """HER2ST's two files: pixel_x = 50 + 40 x, pixel_y = 90 + 40 y; the first selected spot has no counts."""
    counts_path = root / "ST-cnts" / f"{name}.tsv"
    selection_path = root / "ST-spotfiles" / f"{name}_selection.tsv"
    for path in (counts_path, selection_path):
        path.parent.mkdir(exist_ok=True)
    lines = ["\tEPCAM\tDCN"] + [f"{i}\t{a}\t{b}" for i, (a, b) in zip(ST_IDS, ST_COUNTS, strict=True)]
    counts_path.write_text(counts if counts is not None else "\n".join(lines) + "\n")
    places = [(3, 3)] + [tuple(map(int, i.split("x"))) for i in reversed(ST_IDS)]
    lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    lines += [f"{x}\t{y}\t{x}.1\t{y}.1\t{50 + 40 * x}\t{90 + 40 * y}\t1" for x, y in places]
    selection_path.write_text(selection if selection is not None else "\n".join(lines) + "\n")
    return counts_path


def test_st_joins_counts_and_positions_in_the_order_of_the_counts(tmp_path):
    path = st_path(tmp_path)
    spots = readers.read_section(row("st", path, patient="P", cohort="C", image="he.jpg", image_scale="0.25"))
    assert list(spots.obs_names) == ST_IDS
    assert list(spots.var_names) == ["EPCAM", "DCN"]
    assert sparse.issparse(spots.X)
    assert spots.X.format == "csr"
    assert spots.X.dtype == np.float32
    np.testing.assert_array_equal(spots.X.toarray(), ST_COUNTS)
    np.testing.assert_array_equal(spots.obsm["spatial"][:4], [[90, 130], [130, 130], [170, 130], [90, 170]])
    section = spots.uns["section"]
    assert section.pop("um_per_px") == pytest.approx(5.0)  # 200 µm are 40 px
    assert section == {
        "section": "S1", "platform": "st", "patient": "P", "cohort": "C", "tissue": "",
        "um_per_px_from": "array pitch of 200 µm alone", "spot_um": 100.0, "image": "he.jpg", "image_scale": 0.25,
    }  # fmt: skip


def test_st_names_its_files(tmp_path):
    path = st_path(tmp_path)
    wanted = [str(path), str(tmp_path / "ST-cnts" / ".." / "ST-spotfiles" / "A1_selection.tsv")]
    assert [Path(p).resolve() for p in readers.files(row("st", path))] == [Path(p).resolve() for p in wanted]
    gzipped = readers.files(row("st", f"{path}.gz"))
    assert Path(gzipped[1]).name == "A1_selection.tsv"


def test_a_section_is_unchanged_by_writing_and_reading(tmp_path):
    spots = readers.read_section(row("st", st_path(tmp_path)))
    write_h5ad(spots, tmp_path / "spots.h5ad")
    again = anndata.read_h5ad(tmp_path / "spots.h5ad")
    assert dict(again.uns["section"]) == spots.uns["section"]
    np.testing.assert_array_equal(again.X.toarray(), ST_COUNTS)


def test_the_sheet_decides_on_scale_and_spot(tmp_path):
    section = readers.read_section(row("st", st_path(tmp_path), um_per_px="0.7", spot_um="90")).uns["section"]
    assert (section["um_per_px"], section["spot_um"]) == (0.7, 90.0)


def test_gzip_is_detected_by_content_and_the_header_may_lack_its_corner(tmp_path):
    path = st_path(tmp_path)
    path.write_bytes(gzip.compress(path.read_bytes().lstrip(b"\t")))  # named .tsv, gzipped, header one cell short
    np.testing.assert_array_equal(readers.read_section(row("st", path)).X.toarray(), ST_COUNTS)


def test_genes_named_twice_become_unique(tmp_path, caplog):
    path = st_path(tmp_path)
    path.write_text(path.read_text().replace("DCN", "EPCAM"))
    assert list(readers.read_section(row("st", path)).var_names) == ["EPCAM", "EPCAM-1"]
    assert "EPCAM" in caplog.text


@pytest.mark.parametrize(
    ("edit", "fragments"),
    [
        (lambda t: t.replace("1x1\t0\t1", "1x1\t0.5\t1"), ["A1.tsv", "spot 1x1, gene EPCAM: holds 0.5", "raw counts"]),
        (lambda t: t.replace("1x1\t0\t1", "1x1\t-1\t1"), ["A1.tsv", "spot 1x1, gene EPCAM: holds -1", "raw counts"]),
        (
            lambda t: t.replace("1x1\t0\t1", "1x1\t\t1"),
            ["A1.tsv", "spot 1x1, gene EPCAM: holds nan", "raw counts"],
        ),
        (lambda t: t.replace("2x1\t2\t3", "2x1\t2\tmany"), ["A1.tsv", "row 3", "column DCN", "many", "put the count"]),
        (lambda t: t.replace("2x1\t", "1x1\t"), ["A1.tsv", "1x1", "twice", "one row"]),
        (lambda t: "\n".join(t.splitlines()[:7]), ["A1.tsv", "6 spots", "at least 7"]),
        (lambda t: t.replace("\t", ","), ["A1.tsv", "tab-separated"]),
        (lambda t: t.replace("x", "_"), ["A1.tsv", "A1_selection.tsv", "in common", "1_1", "3x3", "one section"]),
        (lambda t: t + "9x9\t1\t1\n", ["A1.tsv", "1 of 9", "9x9", "A1_selection.tsv", "one section"]),
        (lambda t: "\t1x1\t2x1\nEPCAM\t1\t2\nDCN\t3\t4\n", ["A1.tsv", "rows are genes", "transpose"]),
        (lambda t: "", ["A1.tsv", "tab-separated"]),
        (lambda t: "\tEPCAM\tDCN\n" + "".join(f"{i}\t0\t0\n" for i in ST_IDS), ["A1.tsv", "every count is zero"]),
    ],
)
def test_a_bad_counts_table_is_reported(tmp_path, edit, fragments):
    path = st_path(tmp_path)
    path.write_text(edit(path.read_text()))
    fails(row("st", path), *fragments)


@pytest.mark.parametrize(
    ("edit", "fragments"),
    [
        (lambda t: t.replace("pixel_x", "px"), ["A1_selection.tsv", "no column pixel_x"]),
        (lambda t: t.replace("170\t210\t1", "\t210\t1"), ["A1_selection.tsv", "row 2", "pixel_x", "not a number"]),
        (lambda t: t.replace("3\t3\t", "1\t1\t", 1), ["A1_selection.tsv", "1x1", "twice"]),
    ],
)
def test_a_bad_selection_file_is_reported(tmp_path, edit, fragments):
    path = st_path(tmp_path)
    selection = tmp_path / "ST-spotfiles" / "A1_selection.tsv"
    selection.write_text(edit(selection.read_text()))
    fails(row("st", path), *fragments)


def test_st_spots_outside_the_tissue_are_left_out(tmp_path, caplog):
    """Counts may cover the whole array, and so may the list of spots, which marks those in the tissue."""
    path = st_path(tmp_path)
    path.write_text(path.read_text() + "9x9\t1\t1\n8x9\t1\t1\n")
    selection = tmp_path / "ST-spotfiles" / "A1_selection.tsv"
    text = selection.read_text().replace("3\t3\t3.1\t3.1\t170\t210\t1\n", "")  # the only one without counts
    selection.write_text(text)
    assert list(readers.read_section(row("st", path)).obs_names) == ST_IDS
    assert "2 of 10 spots have no position" in caplog.text
    selection.write_text(text.replace("\t130\t130\t1\n", "\t130\t130\t0\n"))  # 2x1
    assert list(readers.read_section(row("st", path)).obs_names) == [name for name in ST_IDS if name != "2x1"]


def test_missing_and_broken_files_are_reported(tmp_path):
    fails(row("st", tmp_path / "ST-cnts" / "Z.tsv"), "Z.tsv", "no such file", "path")
    path = st_path(tmp_path)
    path.write_bytes(gzip.compress(path.read_bytes())[:40])
    fails(row("st", path), "A1.tsv", "download it again")
    st_path(tmp_path, selection="not a table")
    fails(row("st", path), "A1_selection.tsv", "no column x", "not a table")
    (tmp_path / "ST-spotfiles" / "A1_selection.tsv").unlink()
    fails(row("st", path), "A1_selection.tsv", "no such file")


def test_an_st_array_of_another_pitch(tmp_path, caplog):
    """106 µm (Ji et al. 2020): nothing in the tables shows it, but the width of a spot, the places or the image may."""
    known = vendor_files.shuffled(vendor_files.grid(150 / math.sqrt(2), 55.0, 1.1, vendor_files.st_names))
    table = pd.DataFrame(known.counts, index=known.ids, columns=known.genes)
    vendor_files.write(tmp_path / "ST-cnts" / "A1.tsv", table.to_csv(sep="\t"))
    places = pd.DataFrame({"x": known.array[:, 1], "y": known.array[:, 0]})
    places["pixel_x"], places["pixel_y"] = known.positions.T
    vendor_files.write(tmp_path / "ST-spotfiles" / "A1_selection.tsv", places.to_csv(sep="\t", index=False))
    wanted = row("st", tmp_path / "ST-cnts" / "A1.tsv")
    fails(wanted | {"spot_um": "55"}, "do not give the pixel size", "um_per_px")
    assert "spots of 55 µm in 16 x 16 places are not on the ST array" in caplog.text
    about = readers.read_section(wanted | {"spot_um": "55", "um_per_px": "1.1"}).uns["section"]
    assert (about["um_per_px"], about["spot_um"]) == (1.1, 55.0)
    picture = tmp_path / "A1.tif"
    side = int(known.positions.max()) + 50
    tifffile.imwrite(picture, np.zeros((side, side, 3), np.uint8), photometric="rgb", resolution=(1e4 / 1.1,) * 2,
                     resolutionunit="centimeter")  # fmt: skip
    fails(wanted | {"image": str(picture)}, "array pitch of 200 µm gives 2.07", "A1.tif's own pixel size gives 1.1")
    assert readers.read_section(wanted).uns["section"]["um_per_px_from"] == "array pitch of 200 µm alone"


def test_a_store_of_another_st_array(tmp_path, caplog):
    """As from tables: an image may contradict the pitch, and a place that is no number states nothing."""
    known = vendor_files.grid(150 / math.sqrt(2), 55.0, 1.1, vendor_files.st_names)
    vendor_files.write_store(tmp_path / "S.zarr", "st", known)
    picture = tmp_path / "A1.tif"
    tifffile.imwrite(picture, np.zeros((64, 64, 3), np.uint8), photometric="rgb", resolution=(1e4 / 1.1,) * 2,
                     resolutionunit="centimeter")  # fmt: skip
    wanted = row("st", tmp_path / "S.zarr")
    assert readers.read_section(wanted).uns["section"]["um_per_px_from"] == "array pitch of 200 µm alone"
    fails(wanted | {"image": str(picture)}, "array pitch of 200 µm gives 2.07", "A1.tif's own pixel size gives 1.1")
    fails(wanted | {"spot_um": "55"}, "do not give the pixel size")


@pytest.mark.parametrize("kind", ["st", "visium", "visium_hd", "xenium"])
def test_a_store_of_another_technology_is_refused_whatever_it_says_of_itself(tmp_path, kind):
    """Not every store names the reader that made it."""
    known = {"st": vendor_files.st_grid, "xenium": lambda: vendor_files.truth("xenium")}
    truth = known.get(kind, lambda: vendor_files.truth(kind))()
    vendor_files.write_store(tmp_path / "S.zarr", kind, truth)
    for platform in {"st", "visium", "visium_hd"} - {kind}:
        for more in ({}, {"um_per_px": "0.5"}):
            fails(row(platform, tmp_path / "S.zarr", **more), "column platform")


def test_an_image_of_none_is_not_told_to_be_used(tmp_path, caplog):
    wanted, _ = vendor_files.CASES["visium_hd 3"](tmp_path)
    assert readers.read_section(wanted | {"image": "none"}).uns["section"]["image"] == ""
    assert "is used" not in caplog.text


def test_bins_without_scale_factors_have_the_scale_of_their_pitch(tmp_path):
    wanted, known = vendor_files.CASES["visium_hd 3 one square"](tmp_path)
    (Path(wanted["path"]) / "spatial" / "scalefactors_json.json").unlink()
    assert all(Path(path).is_file() for path in readers.files(wanted))
    assert readers.read_section(wanted).uns["section"]["um_per_px"] == pytest.approx(known.um_per_px, rel=2e-3)


def test_staggered_places_are_of_no_st_array(tmp_path, caplog):
    """On arrays of 150 µm every other place of a square grid is empty."""
    row_, column = (index.ravel() for index in np.indices((12, 12)))
    even = (row_ + column) % 2 == 0
    places = pd.DataFrame({"x": column[even], "y": row_[even]})
    places["pixel_x"], places["pixel_y"] = 100.0 * places["x"] + 50, 100.0 * places["y"] + 50
    ids = [f"{x}x{y}" for x, y in zip(places["x"], places["y"], strict=True)]
    counts = pd.DataFrame(np.arange(144).reshape(72, 2), index=ids, columns=["EPCAM", "DCN"])
    vendor_files.write(tmp_path / "ST-cnts" / "A1.tsv", counts.to_csv(sep="\t"))
    vendor_files.write(tmp_path / "ST-spotfiles" / "A1_selection.tsv", places.to_csv(sep="\t", index=False))
    fails(row("st", tmp_path / "ST-cnts" / "A1.tsv"), "do not give the pixel size")
    assert "12 x 12 places, every other empty, are not on the ST array" in caplog.text


def test_one_line_of_spots_has_no_scale(tmp_path):
    ids = [f"{i}x1" for i in range(1, 9)]
    counts = "\tG\n" + "".join(f"{i}\t1\n" for i in ids)
    selection = "x\ty\tpixel_x\tpixel_y\n" + "".join(f"{i}\t1\t{40 * i}\t10\n" for i in range(1, 9))
    path = st_path(tmp_path, counts, selection)
    fails(row("st", path), "A1.tsv", "column um_per_px")
    assert readers.read_section(row("st", path, um_per_px=5)).uns["section"]["um_per_px"] == 5


def test_unknown_platform_and_bad_numbers_are_reported(tmp_path):
    fails(row("cosmx", "x"), "S1", "cosmx", "st, visium, visium_hd, visium_hd_cells, xenium, h5ad")
    fails(row("st", st_path(tmp_path), um_per_px="0,5"), "column um_per_px", "0,5", "positive number")
    fails(row("st", st_path(tmp_path), spot_um="-1"), "column spot_um", "-1")


@pytest.mark.parametrize("mirror", [1, -1])
def test_the_scale_is_read_from_a_turned_and_mirrored_array(mirror):
    array_um = np.array([[0.0, 0], [100, 0], [0, 100], [300, 200], [200, 500]])
    turn = math.radians(30)
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    px = (array_um * [1, mirror]) @ rotation / 0.5 + [1000, -20]
    assert arrays.lattice_um_per_px(array_um, px) == pytest.approx(0.5)


def test_jitter_does_not_bias_the_scale():
    from scipy.spatial import KDTree

    array_um = 200.0 * np.array([(x, y) for x in range(20) for y in range(20)])
    px = array_um + np.random.default_rng(0).normal(0, 20, array_um.shape)
    nearest = np.median(KDTree(px).query(px, k=2)[0][:, 1])
    assert arrays.lattice_um_per_px(array_um, px) == pytest.approx(1, abs=0.01)
    assert 200 / nearest > 1.08  # the biased estimate from the nearest neighbour


# --- Visium -----------------------------------------------------------------------------------------------------------

VISIUM_HEADER = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"


def write_10x(path, matrix, ids, genes, kinds=None):
    """10x's HDF5 layout: genes x ids, compressed by column."""
    by_gene = sparse.csc_matrix(np.asarray(matrix).T)
    with h5py.File(path, "w") as handle:
        group = handle.create_group("matrix")
        group["barcodes"] = np.array(ids, dtype="S20")
        group["data"], group["indices"] = by_gene.data.astype(np.int32), by_gene.indices.astype(np.int64)
        group["indptr"], group["shape"] = by_gene.indptr.astype(np.int64), np.array(by_gene.shape, dtype=np.int32)
        group["features/id"] = np.array([f"ENSG{n}" for n in range(len(genes))], dtype="S20")
        group["features/name"] = np.array(genes, dtype="S20")
        group["features/feature_type"] = np.array(kinds or ["Gene Expression"] * len(genes), dtype="S40")
        group["features/genome"] = np.array(["GRCh38"] * len(genes), dtype="S20")


def visium_positions():
    """12 spots, 4 rows of 3, the last outside the tissue; 2 µm per px: x = 1000 + 25 col, y = 500 + 25 sqrt(3) row."""
    lines = []
    for array_row in range(4):
        for place in range(3):
            array_col = 2 * place + array_row % 2
            x, y = 1000 + 25 * array_col, 500 + 25 * math.sqrt(3) * array_row
            inside = int((array_row, place) != (3, 2))
            lines.append(f"BC{array_row}{place}-1,{inside},{array_row},{array_col},{y},{x}")
    return lines


def visium_folder(root, positions="tissue_positions.csv"):
    folder = root / "V1"
    (folder / "spatial").mkdir(parents=True)
    lines = visium_positions()
    ids = [line.split(",")[0] for line in lines[:-1]][::-1]  # the matrix is in another order
    write_10x(folder / "filtered_feature_bc_matrix.h5", np.arange(22).reshape(11, 2), ids, ["EPCAM", "DCN"])
    path = folder / "spatial" / positions
    if positions.endswith(".parquet"):
        table = pd.DataFrame([line.split(",") for line in lines], columns=VISIUM_HEADER.split(","))
        kinds = dict.fromkeys(["in_tissue", "array_row", "array_col"], int)
        kinds |= dict.fromkeys(["pxl_row_in_fullres", "pxl_col_in_fullres"], float)
        table.astype(kinds).to_parquet(path)
    else:
        head = [VISIUM_HEADER] if positions == "tissue_positions.csv" else []
        path.write_text("\n".join(head + lines) + "\n")
    factors = {"tissue_hires_scalef": 0.2, "tissue_lowres_scalef": 0.05, "spot_diameter_fullres": 32.5}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    return folder


@pytest.mark.parametrize("positions", ["tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.parquet"])
def test_visium_of_every_version(tmp_path, positions):
    folder = visium_folder(tmp_path, positions)
    spots = readers.read_section(row("visium", folder, image="he.tif"))
    assert spots.n_obs == 11
    assert list(spots.obs_names[:2]) == ["BC31-1", "BC30-1"]
    np.testing.assert_array_equal(spots.X.toarray(), np.arange(22).reshape(11, 2))
    # row 3, second place: column 3; rows are y
    np.testing.assert_allclose(spots.obsm["spatial"][0], [1075, 500 + 75 * math.sqrt(3)])
    section = spots.uns["section"]
    assert section["um_per_px"] == pytest.approx(UM_PER_PX)
    assert (section["spot_um"], section["image"], section["image_scale"]) == (55.0, "he.tif", 1.0)
    names = [Path(path).name for path in readers.files(row("visium", folder))]
    assert names == ["filtered_feature_bc_matrix.h5", positions, "scalefactors_json.json"]


def test_a_header_is_detected_by_content_not_by_name(tmp_path):
    folder = visium_folder(tmp_path)
    path = folder / "spatial" / "tissue_positions.csv"
    path.write_text("\n".join(visium_positions()))
    assert readers.read_section(row("visium", folder)).n_obs == 11


def test_visium_spots_outside_the_tissue_are_left_out(tmp_path):
    folder = visium_folder(tmp_path)
    path = folder / "spatial" / "tissue_positions.csv"
    path.write_text(path.read_text().replace("BC00-1,1,", "BC00-1,0,"))
    assert "BC00-1" not in readers.read_section(row("visium", folder)).obs_names
    path.write_text(path.read_text().replace("-1,1,", "-1,0,"))
    fails(row("visium", folder), "tissue_positions.csv", "in_tissue = 1")
    path.write_text(path.read_text().replace("BC32-1,0,", "BC32-1,1,"))  # tissue, but not in the matrix
    fails(row("visium", folder), "11 of 11 spots", "outside the tissue", "1 of 1 spots in the tissue have no counts")


def test_visium_image_scales(tmp_path):
    folder = visium_folder(tmp_path)
    assert readers.read_section(row("visium", folder)).uns["section"]["image"] == ""
    hires = folder / "spatial" / "tissue_hires_image.png"
    hires.write_bytes(b"png")
    section = readers.read_section(row("visium", folder)).uns["section"]
    assert (section["image"], section["image_scale"]) == (str(hires), 0.2)
    section = readers.read_section(row("visium", folder, image="X_tissue_lowres_image.png")).uns["section"]
    assert section["image_scale"] == 0.05
    section = readers.read_section(row("visium", folder, image=hires, image_scale=0.3)).uns["section"]
    assert section["image_scale"] == 0.3


def test_visium_mtx_folder(tmp_path):
    folder = visium_folder(tmp_path)
    wanted = readers.read_section(row("visium", folder))
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    mtx = folder / "filtered_feature_bc_matrix"
    mtx.mkdir()
    coo = sparse.coo_matrix(wanted.X.T)
    lines = [f"{i + 1} {j + 1} {int(v)}" for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)]
    text = "\n".join(["%%MatrixMarket matrix coordinate integer general", f"2 11 {coo.nnz}", *lines]) + "\n"
    features = "".join(f"ENSG{n}\t{gene}\tGene Expression\n" for n, gene in enumerate(wanted.var_names))
    for name, content in [
        ("matrix.mtx", text),
        ("features.tsv", features),
        ("barcodes.tsv", "\n".join(wanted.obs_names)),
    ]:
        (mtx / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    spots = readers.read_section(row("visium", folder))
    assert list(spots.obs_names) == list(wanted.obs_names)
    np.testing.assert_array_equal(spots.X.toarray(), wanted.X.toarray())
    assert str(mtx / "matrix.mtx.gz") in readers.files(row("visium", folder))
    (mtx / "features.tsv.gz").unlink()
    fails(row("visium", folder), "filtered_feature_bc_matrix", "features.tsv.gz")


def test_bad_visium_folders_are_reported(tmp_path):
    fails(row("visium", tmp_path / "none"), "none", "no such folder", "outs")
    folder = visium_folder(tmp_path)
    spatial = folder / "spatial"
    original = (spatial / "tissue_positions.csv").read_text()
    (spatial / "tissue_positions.csv").write_text(original.replace("array_col", "col"))
    fails(row("visium", folder), "tissue_positions.csv", "no column array_col")
    (spatial / "tissue_positions.csv").write_text("\n".join(line + ",9" for line in visium_positions()))
    fails(row("visium", folder), "tissue_positions.csv", "7 columns", "the original file")
    (spatial / "tissue_positions.csv").write_text(original.replace("-1,", "-2,"))
    fails(row("visium", folder), "matrix.h5", "tissue_positions.csv", "BC31-1", "BC00-2", "one section")
    (spatial / "tissue_positions.csv").write_text(original)
    (spatial / "scalefactors_json.json").write_text('{"bin_size_um": 8}')
    fails(row("visium", folder), "V1", "Visium HD", "visium_hd in column platform")
    (spatial / "scalefactors_json.json").write_text("{")
    fails(row("visium", folder), "scalefactors_json.json", "JSON", "download")
    (spatial / "scalefactors_json.json").unlink()
    (folder / "filtered_feature_bc_matrix.h5").write_text("<html>")
    fails(row("visium", folder), "filtered_feature_bc_matrix.h5", "not an HDF5 file")
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    fails(row("visium", folder), "filtered_feature_bc_matrix.h5", "no such file")
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as handle:
        handle["matrix/data"] = [1]
    fails(row("visium", folder), "filtered_feature_bc_matrix.h5", "matrix/barcodes", "vendor's file")
    write_10x(folder / "filtered_feature_bc_matrix.h5", [[1], [2]], ["a", "b"], ["CD3"], ["Antibody Capture"])
    fails(row("visium", folder), "filtered_feature_bc_matrix.h5", "Gene Expression")
    write_10x(folder / "x_filtered_feature_bc_matrix.h5", [[1], [2]], ["a", "b"], ["CD3"])
    fails(row("visium", folder), "2 matrices", "keep only one")


# --- Xenium -----------------------------------------------------------------------------------------------------------


def xenium_bundle(root, ids=None, kind="parquet"):
    folder = root / "X1"
    folder.mkdir()
    ids = ids or [f"cell-{n}" for n in range(8)]
    matrix = np.column_stack([np.arange(8), np.arange(8) + 1, np.full(8, 9)])
    types = ["Gene Expression", "Gene Expression", "Negative Control Probe"]
    names = [i.decode() if isinstance(i, bytes) else str(i) for i in ids]
    write_10x(folder / "cell_feature_matrix.h5", matrix, names, ["EPCAM", "DCN", "NegControl"], types)
    cells = pd.DataFrame({"cell_id": ids, "x_centroid": np.arange(8) * 10.0, "y_centroid": np.arange(8) * 5.0})[::-1]
    if kind == "parquet":
        cells.to_parquet(folder / "cells.parquet")
    else:
        cells.to_csv(folder / "cells.csv.gz", index=False)
    return folder


@pytest.mark.parametrize(
    ("ids", "kind", "second"),
    [
        (None, "parquet", "cell-1"),
        (None, "csv", "cell-1"),
        (list(range(1, 9)), "parquet", "2"),
        (list(range(1, 9)), "csv", "2"),
        ([f"c{n}".encode() for n in range(8)], "parquet", "c1"),
    ],
)
def test_xenium_cells(tmp_path, ids, kind, second):
    cells = readers.read_section(row("xenium", xenium_bundle(tmp_path, ids, kind)))
    assert cells.obs_names[1] == second
    assert list(cells.var_names) == ["EPCAM", "DCN"]
    np.testing.assert_array_equal(cells.X.toarray(), np.column_stack([np.arange(8), np.arange(8) + 1]))
    np.testing.assert_array_equal(cells.obsm["spatial_um"][:3], [[0, 0], [10, 5], [20, 10]])
    section = cells.uns["section"]
    assert (section["um_per_px"], section["pixel_size"], section["spot_um"]) == (0.2125, 0.2125, 55.0)
    assert "alignment" not in section


def test_xenium_alignment_and_pixel_size(tmp_path):
    folder = xenium_bundle(tmp_path)
    (folder / "experiment.xenium").write_text('{"pixel_size": 0.5}')
    alignment = tmp_path / "he_imagealignment.csv"
    alignment.write_text("0,-3,100\n3,0,20\n0,0,1\n")  # a quarter turn, three Xenium px to one H&E px
    wanted = row("xenium", folder, image="he.ome.tif", alignment=alignment)
    section = readers.read_section(wanted).uns["section"]
    assert section["um_per_px"] == pytest.approx(1.5)
    np.testing.assert_array_equal(section["alignment"], [[0, -3, 100], [3, 0, 20], [0, 0, 1]])
    assert readers.files(wanted)[-2:] == [str(folder / "experiment.xenium"), str(alignment)]
    fails(wanted | {"um_per_px": "0.2"}, "he_imagealignment.csv", "column um_per_px gives 0.2;", "gives 1.5;")
    fails(wanted | {"alignment": ""}, "X1", "column alignment", "3 x 3")
    for text, fragment in [
        ("1,0\n0,1\n", "2 rows x 2 columns"),
        ("a,b,c\n1,0,0\n0,1,0\n0,0,1\n", "4 rows"),
        ("1,0,0\n0,1,0\n1,0,1\n", "row 3"),
        ("1,2,0\n2,4,0\n0,0,1\n", "cannot be inverted"),
        ("1,x,0\n2,4,0\n0,0,1\n", "row 1"),
    ]:
        alignment.write_text(text)
        fails(wanted, "he_imagealignment.csv", fragment)
    alignment.write_text("1,0,0\n0,1,0\n0,0,1\n")
    (folder / "experiment.xenium").write_text("no json")
    fails(wanted, "experiment.xenium", "download")


def test_bad_xenium_bundles_are_reported(tmp_path):
    fails(row("xenium", tmp_path / "none"), "none", "no such folder")
    folder = xenium_bundle(tmp_path)
    (folder / "cells.parquet").write_bytes(b"PAR1")
    fails(row("xenium", folder), "cells.parquet", "parquet", "download")
    (folder / "cells.parquet").unlink()
    fails(row("xenium", folder), "cells.parquet", "no such file")


# --- h5ad -------------------------------------------------------------------------------------------------------------

VISIUM_OF_2_UM = {"spot_diameter_fullres": 32.5}
HEXAGON = np.array([(x + (y % 2) / 2, y * math.sqrt(3) / 2) for y in range(6) for x in range(6)])


def h5ad_path(root, **parts):
    """36 spots on a hexagonal layout of pitch 50 px, three genes."""
    counts = np.random.default_rng(1).integers(0, 9, (36, 3)).astype(float)
    uns = {"spatial": {"lib": {"scalefactors": VISIUM_OF_2_UM}}}
    parts = {"X": counts, "obsm": {"spatial": HEXAGON * 50.0}, "uns": uns} | parts
    obs = parts.pop("obs", pd.DataFrame(index=[f"s{n}" for n in range(36)]))
    var = parts.pop("var", pd.DataFrame(index=["EPCAM", "DCN", "LUM"]))
    raw = parts.pop("raw", None)
    adata = anndata.AnnData(obs=obs, var=var, **parts)
    if raw is not None:
        adata.raw = anndata.AnnData(raw, obs=obs[[]], var=pd.DataFrame(index=[f"R{n}" for n in range(raw.shape[1])]))
    path = root / "section.h5ad"
    adata.write_h5ad(path)
    return path, counts


def test_h5ad_of_a_visium_like_layout(tmp_path):
    obs = pd.DataFrame({"label": ["tumor"] * 36}, index=[f"s{n}" for n in range(36)])
    path, counts = h5ad_path(tmp_path, obs=obs, uns={"spatial": {"lib": {"scalefactors": VISIUM_OF_2_UM}}})
    spots = readers.read_section(row("h5ad", path))
    np.testing.assert_array_equal(spots.X.toarray(), counts)
    np.testing.assert_allclose(spots.obsm["spatial"], HEXAGON * 50)
    assert spots.uns["section"]["um_per_px"] == pytest.approx(2.0)  # 100 µm are 50 px
    assert spots.uns["section"]["spot_um"] == 55
    assert list(spots.obs.columns) == []  # labels must not be copied
    assert readers.files(row("h5ad", path)) == [str(path)]


def test_h5ad_of_hexagons_of_unknown_width(tmp_path):
    """They may be Visium's, or cells that someone pooled."""
    path, _ = h5ad_path(tmp_path, uns={})
    fails(row("h5ad", path), "would give the pixel size, 2 (a hexagonal layout with a pitch of 50 px", "um_per_px")
    assert readers.read_section(row("h5ad", path, um_per_px=2)).uns["section"]["spot_um"] == 55  # then they are
    fails(row("h5ad", path, um_per_px=0.5), "the width of a spot")


def test_h5ad_takes_the_first_raw_counts(tmp_path):
    counts = np.random.default_rng(2).integers(0, 9, (36, 3)).astype(float)
    logged = np.log1p(counts)
    path, _ = h5ad_path(tmp_path, X=logged, layers={"counts": sparse.csc_matrix(counts)}, raw=counts[:, :2] + 1)
    np.testing.assert_array_equal(readers.read_section(row("h5ad", path)).X.toarray(), counts)
    path, _ = h5ad_path(tmp_path, X=logged, raw=counts[:, :2] + 1)
    spots = readers.read_section(row("h5ad", path))
    assert list(spots.var_names) == ["R0", "R1"]
    np.testing.assert_array_equal(spots.X.toarray(), counts[:, :2] + 1)
    logged[0, 0] = np.log1p(3)
    path, _ = h5ad_path(tmp_path, X=logged)
    fails(row("h5ad", path), "section.h5ad", "holds", "expected raw counts", "layers['counts']", ".raw")
    path, _ = h5ad_path(tmp_path, X=np.full((36, 3), np.log1p(3)))
    fails(row("h5ad", path), "holds 1.386")


def test_h5ad_scale_of_each_source(tmp_path):
    square = {"spatial": 40.0 * np.array([(x, y) for y in range(6) for x in range(6)])}
    path, _ = h5ad_path(tmp_path, obsm=square)
    fails(row("h5ad", path), "section.h5ad", "column um_per_px")
    fails(row("h5ad", path, um_per_px=0.5), "section.h5ad", "column spot_um")
    section = readers.read_section(row("h5ad", path, um_per_px=0.5, spot_um=20)).uns["section"]
    assert (section["um_per_px"], section["spot_um"]) == (0.5, 20)
    fails(row("h5ad", path, um_per_px=0.5, spot_um=50), "spots of 50 µm would overlap, at 0.5 µm per px", "40 px")

    factors = {"spot_diameter_fullres": 130.0, "tissue_hires_scalef": 0.1}
    library = {"spatial": {"lib": {"scalefactors": factors}, "is_single": True}}
    path, _ = h5ad_path(tmp_path, obsm=square, uns=library)
    # spots three times as wide as their pitch are on no array
    fails(row("h5ad", path), "a square layout with a pitch of 40 px, spot_diameter_fullres of 130 px", "um_per_px")
    wanted = row("h5ad", path, image="tissue_hires_image.png", um_per_px=0.5, spot_um=20)
    assert readers.read_section(wanted).uns["section"]["image_scale"] == 0.1

    # the array decides over the diameter: 100 µm are 50 px
    array = {"array_row": np.repeat(range(6), 6), "array_col": [2 * x + y % 2 for y in range(6) for x in range(6)]}
    obs = pd.DataFrame(array, index=[f"s{n}" for n in range(36)])
    path, _ = h5ad_path(tmp_path, obs=obs, uns=library)
    assert readers.read_section(row("h5ad", path)).uns["section"]["um_per_px"] == pytest.approx(2.0)

    path, _ = h5ad_path(tmp_path, obsm=square, uns={"section": {"um_per_px": 0.3, "spot_um": 10.0}})
    section = readers.read_section(row("h5ad", path)).uns["section"]
    assert (section["um_per_px"], section["spot_um"]) == (0.3, 10)


def test_h5ad_of_visium_hd_bins(tmp_path):
    """Their `spot_diameter_fullres` is the width of a bin, not of a nominal spot of 65 µm."""
    square = {"spatial": 20.0 * np.array([(x, y) for y in range(6) for x in range(6)])}
    array = {"array_row": np.repeat(range(6), 6), "array_col": np.tile(range(6), 6)}
    obs = pd.DataFrame(array, index=[f"s_008um_{n:05d}_00000-1" for n in range(36)])
    factors = {"spot_diameter_fullres": 20.0, "bin_size_um": 8.0, "microns_per_pixel": 0.4, "tissue_hires_scalef": 0.1}
    uns = {"spatial": {"lib": {"scalefactors": factors}}, "section": "whatever its author called it"}
    path, _ = h5ad_path(tmp_path, obs=obs, obsm=square, uns=uns)
    section = readers.read_section(row("h5ad", path)).uns["section"]
    assert (section["um_per_px"], section["spot_um"]) == (0.4, 8.0)


def test_h5ad_in_tissue_and_ensembl_ids(tmp_path):
    obs = pd.DataFrame({"in_tissue": [0] * 9 + [1] * 27}, index=[f"s{n}" for n in range(36)])
    var = pd.DataFrame({"feature_name": ["EPCAM", "DCN", "LUM"]}, index=[f"ENSG0000000000{n}" for n in range(3)])
    path, counts = h5ad_path(tmp_path, obs=obs, var=var)
    spots = readers.read_section(row("h5ad", path))
    assert list(spots.var_names) == ["EPCAM", "DCN", "LUM"]
    assert spots.obs_names[0] == "s9"
    np.testing.assert_array_equal(spots.X.toarray(), counts[9:])


def test_bad_h5ad_files_are_reported(tmp_path):
    path, _ = h5ad_path(tmp_path, obsm={"X_umap": HEXAGON})
    fails(row("h5ad", path), "section.h5ad", "obsm['spatial']", "X_umap", "full-resolution px")
    positions = HEXAGON * 50.0
    positions[4, 1] = np.nan
    path, _ = h5ad_path(tmp_path, obsm={"spatial": positions})
    fails(row("h5ad", path), "section.h5ad", "no finite position", "s4")
    path, _ = h5ad_path(tmp_path, obs=pd.DataFrame(index=["a"] * 36))
    fails(row("h5ad", path), "section.h5ad", "twice", "a")
    with h5py.File(path, "w") as handle:
        handle["x"] = 1
    fails(row("h5ad", path), "section.h5ad")
    path.write_text("text")
    fails(row("h5ad", path), "section.h5ad", "not an HDF5 file")


# --- real files -------------------------------------------------------------------------------------------------------


def real(name):
    if not (DATA / name).exists():
        pytest.skip(f"the real sections are not here ({DATA / name})")
    return DATA / name


def test_real_st_section():
    path = real("her2st/ST-cnts/C1.tsv.gz")
    spots = readers.read_section(row("st", path))
    assert spots.shape == (176, 15557)
    table = pd.read_csv(path, sep="\t", index_col=0)
    assert list(spots.obs_names) == list(table.index)
    assert spots.X.sum() == table.to_numpy().sum()
    selection = pd.read_csv(path.parents[1] / "ST-spotfiles" / "C1_selection.tsv", sep="\t")
    first = selection[(selection.x == 10) & (selection.y == 16)]
    np.testing.assert_array_equal(spots.obsm["spatial"][0], first[["pixel_x", "pixel_y"]].to_numpy()[0])
    # the full-resolution images show ST's frame of 6.4 x 6.8 mm in 9,270 x 9,910 px
    assert spots.uns["section"]["um_per_px"] == pytest.approx(6400 / 9270, rel=0.01)


def test_real_counts_of_one_section_do_not_take_the_positions_of_another(tmp_path):
    for kind, name, target in [
        ("ST-cnts", "A1.tsv.gz", "A1.tsv.gz"),
        ("ST-spotfiles", "C1_selection.tsv", "A1_selection.tsv"),
    ]:
        (tmp_path / kind).mkdir()
        (tmp_path / kind / target).write_bytes(real(f"her2st/{kind}/{name}").read_bytes())
    fails(row("st", tmp_path / "ST-cnts" / "A1.tsv.gz"), "no position", "A1_selection.tsv", "one section")


def test_real_visium_folder():
    spots = readers.read_section(row("visium", real("visium_v1")))
    assert spots.shape == (100, 100)
    section = spots.uns["section"]
    assert section["um_per_px"] == pytest.approx(100 / 138, rel=0.01)  # neighbours of one row lie 138 px apart
    assert Path(section["image"]).name == "tissue_hires_image.png"
    assert section["image_scale"] == 0.150015


def test_real_xenium_bundle():
    cells = readers.read_section(row("xenium", real("xenium_toy")))
    assert cells.shape == (526, 27)
    table = pd.read_parquet(DATA / "xenium_toy" / "cells.parquet").set_index("cell_id").loc[cells.obs_names]
    np.testing.assert_array_equal(cells.obsm["spatial_um"], table[["x_centroid", "y_centroid"]].to_numpy())
    np.testing.assert_array_equal(np.asarray(cells.X.sum(axis=1)).ravel(), table["transcript_counts"].to_numpy())


def test_the_first_spot_of_a_real_visium_folder_has_the_position_of_its_line():
    """The positions have no header: a reader that takes the first line for a header loses or shifts spots."""
    folder = real("visium_v1")
    lines = (folder / "spatial" / "tissue_positions_list.csv").read_text().splitlines()
    spots = readers.read_section(row("visium", folder))
    placed = {line.split(",")[0]: line.split(",")[1:] for line in lines}
    first = placed[spots.obs_names[0]]
    assert first[0] == "1"
    assert list(spots.obsm["spatial"][0]) == [float(first[4]), float(first[3])]
    # the first line is a spot too, though not in this small matrix
    assert geometry_of_line(lines[0])[:2] == (0, 0)


def geometry_of_line(line):
    """array_row, array_col, y, x of a line without header."""
    return tuple(map(int, line.split(",")[2:]))


def test_real_sections_have_a_structure_and_shuffled_ones_have_none():
    path = real("her2st/ST-cnts/B1.tsv.gz")
    spots = readers.read_section(row("st", path))
    assert structure.structure_z(spots).max() > 20
    spots.obsm["spatial"] = np.random.default_rng(0).permutation(spots.obsm["spatial"])
    with pytest.raises(InputError, match=r"section S1: .* no more alike .* shuffled against each other"):
        readers.require_spatial_structure(spots)


# --- recognising formats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("st plain", "st"),
        ("visium 1 mtx", "visium"),
        ("visium 3 above outs", "visium"),
        ("visium GEO h5", "visium"),
        ("visium_hd 3", "visium_hd"),
        ("visium_hd 3 binned_outputs", "visium_hd"),
        ("visium_hd 3 one square", "visium_hd"),
        ("visium_hd 4 mtx, 16 um", "visium_hd"),
        ("visium_hd_cells 4", "visium_hd_cells"),
        ("visium_hd_cells 4 mtx", "visium_hd_cells"),
        ("visium_hd_cells GEO", "visium_hd_cells"),
        ("xenium 1.1", "xenium"),
        ("xenium 3 mtx", "xenium"),
        ("xenium 4", "xenium"),
        ("h5ad plain", "h5ad"),
        ("st zarr 3", "spatialdata"),
    ],
)
def test_a_format_is_recognised_by_content_and_a_wrong_platform_reported(tmp_path, case, kind):
    wanted, _ = vendor_files.CASES[case](tmp_path)
    assert readers.kind_of(wanted["path"]) == kind
    for platform in readers.platforms():
        if platform == kind or (kind == "spatialdata" and readers.platforms()[platform].in_stores):
            continue
        cure = f"write {kind} in column platform" if kind != "spatialdata" else "write the technology it holds"
        if case == "visium_hd 4 mtx, 16 um" and platform == "visium_hd_cells":  # it has the cells' folder, empty
            fails(
                wanted | {"platform": platform, "spot_um": ""}, "segmented_outputs", "no filtered_feature_cell_matrix"
            )
            continue
        fails(wanted | {"platform": platform, "spot_um": ""}, wanted["path"], f"says {platform}", cure)


def test_other_files_have_no_kind(tmp_path):
    assert readers.kind_of(tmp_path / "none") == ""
    assert readers.kind_of(tmp_path) == ""
    (tmp_path / "text.tsv").write_text("spot\tlabel\n1\t2\n")
    assert readers.kind_of(tmp_path / "text.tsv") == ""
    (tmp_path / "picture.png").write_bytes(vendor_files.png())
    assert readers.kind_of(tmp_path / "picture.png") == ""
    write_10x(tmp_path / "matrix.h5", [[1]], ["a"], ["b"])
    assert readers.kind_of(tmp_path / "matrix.h5") == "10x"
    fails(row("visium", tmp_path / "matrix.h5"), "matrix.h5", "a 10x count matrix", "the vendor's folder")


@pytest.mark.parametrize(("other", "content"), [("binned_outputs", ""), ("spatial", '{"bin_size_um": 8}')])
def test_a_xenium_bundle_with_another_format_in_its_folder_is_one(tmp_path, other, content):
    (tmp_path / "experiment.xenium").touch()
    (tmp_path / other).mkdir()
    (tmp_path / other / "scalefactors_json.json").write_text(content)
    assert readers.kind_of(tmp_path) == "xenium"


# --- folders ----------------------------------------------------------------------------------------------------------


def test_samples_that_share_a_folder_are_distinguished(tmp_path):
    wanted, _ = vendor_files.CASES["visium GEO h5"](tmp_path)
    matrix = tmp_path / "GSM7_P1_filtered_feature_bc_matrix.h5"
    (tmp_path / "GSM8_P2_filtered_feature_bc_matrix.h5").write_bytes(matrix.read_bytes())
    fails(wanted, "2 matrices", "GSM7_P1_filtered", "GSM8_P2_filtered", "keep only one")
    matrix.unlink()
    fails(wanted, "from two samples, judging by their names", "GSM8_P2_", "GSM7_P1_", "a folder of their own")


def test_prefixes_and_shadow_files_of_one_sample(tmp_path):
    """GSE203612 adds the prefix "spatial" to files of that folder; macOS leaves a "._" file next to each."""
    wanted, known = vendor_files.CASES["visium GEO h5"](tmp_path)
    for name in ("tissue_positions_list.csv.gz", "scalefactors_json.json.gz"):
        (tmp_path / f"GSM7_P1_{name}").rename(tmp_path / f"GSM7_P1_spatial_{name}")
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    spots = readers.read_section(wanted)
    assert set(spots.obs_names) == set(known.ids)
    assert spots.uns["section"]["um_per_px"] == pytest.approx(known.um_per_px, rel=2e-3)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", "P1_", True),
        ("P1_", "P1_spatial_", True),
        ("P1_", "P2_", False),
        ("GSM1_A_counts_", "GSM1_A_spatial_", True),
        ("GSM1_", "GSM12_A_", False),
    ],
)
def test_the_names_of_one_sample(one, other, same):
    for first, second in ((one, other), (other, one)):
        names = Path(f"{first}matrix.h5"), ["matrix"], Path(f"{second}positions.csv"), ["positions"]
        if same:
            folders.require_one_sample(*names)
        else:
            with pytest.raises(InputError, match="from two samples, judging by their names"):
                folders.require_one_sample(*names)


def test_a_gzipped_matrix_is_reported(tmp_path):
    folder = visium_folder(tmp_path)
    path = folder / "filtered_feature_bc_matrix.h5"
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    fails(row("visium", folder), "filtered_feature_bc_matrix.h5.gz", "gunzip")


def test_files_of_a_missing_folder_are_those_of_the_newest_version(tmp_path):
    root = tmp_path / "none"
    square = root / "binned_outputs" / "square_016um"
    wanted = ["filtered_feature_bc_matrix.h5", "spatial/tissue_positions.parquet", "spatial/scalefactors_json.json"]
    assert readers.files(row("visium_hd", root, spot_um=16)) == [str(square / name) for name in wanted]
    wanted = ["filtered_feature_bc_matrix.h5", "spatial/tissue_positions.csv", "spatial/scalefactors_json.json"]
    assert readers.files(row("visium", root)) == [str(root / name) for name in wanted]
    wanted = ["cell_feature_matrix.h5", "cells.parquet", "experiment.xenium"]
    assert readers.files(row("xenium", root)) == [str(root / name) for name in wanted]
    assert readers.files(row("xenium", "s.zarr", image="he.tif", alignment="a.csv")) == ["s.zarr", "a.csv"]
    assert readers.files(row("st", "s.zarr")) == readers.files(row("visium_hd", "s.zarr")) == ["s.zarr"]


def test_positions_of_another_section_are_reported_despite_equal_barcodes(tmp_path):
    """Every slide has the same barcodes: only the tissue differs."""
    folder = visium_folder(tmp_path)
    path = folder / "spatial" / "tissue_positions.csv"
    text = path.read_text().replace("BC32-1,0,", "BC32-1,1,")
    path.write_text(text.replace("BC00-1,1,", "BC00-1,0,"))
    fails(row("visium", folder), "tissue_positions.csv", "1 of 11 spots", "outside the tissue", "1 of 11 spots in the")


def test_a_damaged_position_is_reported(tmp_path):
    folder = visium_folder(tmp_path)
    path = folder / "spatial" / "tissue_positions.csv"
    text = path.read_text()
    path.write_text(text.replace(",1025\n", ",1125\n", 1))
    fails(row("visium", folder), "tissue_positions.csv", "1 spots lie more than 50 µm from the position", "BC10-1")
    path.write_text(text.replace("BC01-1,1,0,2,", "BC01-1,1,0,0,"))
    fails(row("visium", folder), "tissue_positions.csv", "the same row and column of the array", "BC01-1")
    path.write_text(text[: text.rindex(",")] + "\n")
    fails(row("visium", folder), "tissue_positions.csv", "last row has too few cells")


def test_a_cytassist_image_is_refused_unless_there_is_no_other(tmp_path, caplog):
    from PIL import Image

    folder = visium_folder(tmp_path)
    spatial = folder / "spatial"
    Image.new("RGB", (300, 200)).save(spatial / "cytassist_image.tiff")
    wanted = row("visium", folder, image=spatial / "cytassist_image.tiff")
    cure = "the microscope image that Space Ranger was run with"
    fails(wanted, "cytassist_image.tiff", "S1", "a CytAssist image, not", cure)
    Image.new("RGB", (600, 400)).save(spatial / "tissue_hires_image.png")  # of 3000 x 2000 px: hires is 0.2
    fails(wanted, "cytassist_image.tiff", cure)
    fails(wanted | {"image": str(spatial / "aligned_tissue_image.jpg")}, "aligned_tissue_image.jpg", cure)
    assert readers.read_section(wanted | {"image_scale": "0.1"}).uns["section"]["image_scale"] == 0.1
    Image.new("RGB", (60, 40)).save(spatial / "tissue_hires_image.png")  # of 300 x 200 px: the positions are in its px
    assert readers.read_section(wanted).uns["section"]["image"] == wanted["image"]
    assert "run without a microscope image" in caplog.text


def test_the_image_of_a_row_is_the_sheets_or_the_vendors(tmp_path):
    folder = visium_folder(tmp_path)
    assert readers.image_path(row("visium", folder)) == ""
    hires = folder / "spatial" / "tissue_hires_image.png"
    hires.write_bytes(b"png")
    assert readers.image_path(row("visium", folder)) == str(hires)
    assert readers.image_path(row("visium", folder, image="he.tif")) == "he.tif"
    assert readers.image_path(row("visium", tmp_path / "none")) == ""
    (folder / "spatial" / "scalefactors_json.json").unlink()  # of unknown scale
    assert readers.image_path(row("visium", folder)) == ""
    assert readers.image_path(row("st", "A1.tsv")) == ""
    wanted, _ = vendor_files.CASES["visium_hd 3"](tmp_path / "hd")
    assert readers.image_path(wanted) == ""
    hires = Path(wanted["path"]) / "spatial" / "tissue_hires_image.png"
    vendor_files.write(hires, "png")
    assert readers.image_path(wanted) == readers.read_section(wanted).uns["section"]["image"] == str(hires)


# --- Visium HD --------------------------------------------------------------------------------------------------------


def test_the_sheet_chooses_the_bins(tmp_path):
    wanted, _ = vendor_files.CASES["visium_hd 3"](tmp_path)
    section = readers.read_section(wanted).uns["section"]
    assert (section["spot_um"], section["um_per_px"]) == (8.0, 0.4)
    fails(wanted | {"spot_um": "2"}, "no bins of 2 µm", "write one of 8, 16 in column spot_um")
    fails(wanted | {"spot_um": "2.5"}, "column spot_um is 2.5", "2, 8 or 16")
    square = f"{wanted['path']}/binned_outputs/square_008um"
    fails(
        wanted | {"path": square, "spot_um": "16"}, "column spot_um says 16", "its name) says 8", "leave spot_um empty"
    )
    fails(wanted | {"path": str(tmp_path / "none")}, "none", "no folder of bins", "outs folder")


def test_bins_must_agree_with_their_size_and_place(tmp_path):
    wanted, _ = vendor_files.CASES["visium_hd 3 one square"](tmp_path)
    factors = Path(wanted["path"]) / "spatial" / "scalefactors_json.json"
    content = json.loads(factors.read_text())
    factors.write_text(json.dumps(content | {"bin_size_um": 16}))
    fails(wanted, "scalefactors_json.json (bin_size_um) says 16", "(its name) says 8")
    factors.write_text(json.dumps(content | {"microns_per_pixel": 0.5}))
    fails(wanted, "scalefactors_json.json gives 0.5;", "tissue_positions.parquet gives 0.4;", "contradictory")
    factors.write_text(json.dumps(content | {"microns_per_pixel": "wide"}))
    fails(wanted, "scalefactors_json.json", "JSON")
    factors.write_text(json.dumps(content | {"microns_per_pixel": -1}))
    fails(wanted, "scalefactors_json.json", "microns_per_pixel = -1", "positive")
    factors.unlink()
    assert readers.read_section(wanted).uns["section"]["um_per_px"] == pytest.approx(0.4)
    path = Path(wanted["path"]) / "spatial" / "tissue_positions.parquet"
    table = pd.read_parquet(path)
    table.assign(barcode=table["barcode"].str.replace("008um", "016um")).to_parquet(path)
    fails(wanted, "tissue_positions.parquet", "or the bin size of 8 µm", "s_016um_00001_00001-1")
    table.assign(in_tissue=0).to_parquet(path)
    fails(wanted, "tissue_positions.parquet", "no bin has in_tissue = 1")


# --- Xenium -----------------------------------------------------------------------------------------------------------


def test_a_xenium_row_allows_only_the_spot_size_of_visium(tmp_path):
    folder = xenium_bundle(tmp_path)
    assert readers.read_section(row("xenium", folder, spot_um="55")).n_obs == 8
    fails(row("xenium", folder, spot_um="100"), "column spot_um is 100", "55 µm", "leave it empty")


def test_a_cell_without_a_position_is_reported(tmp_path):
    folder = xenium_bundle(tmp_path)
    cells = pd.read_parquet(folder / "cells.parquet")
    cells.iloc[1:].to_parquet(folder / "cells.parquet")
    fails(row("xenium", folder), "1 of 8 spots have no position", "cells.parquet", "cell-7", "complete")


# --- h5ad -------------------------------------------------------------------------------------------------------------


def test_an_image_inside_the_file_has_its_own_scale(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    factors = {"spot_diameter_fullres": 32.5, "tissue_hires_scalef": 0.1}

    def scale(*libraries, **more):
        uns = {"spatial": {f"L{n}": library for n, library in enumerate(libraries)} | {"is_single": True}}
        path, _ = h5ad_path(tmp_path, uns=uns)
        return row("h5ad", path, image=f"{tmp_path}/../{tmp_path.name}/section.h5ad", **more)

    def read(wanted):
        return readers.read_section(wanted).uns["section"]["image_scale"]

    hires = {"images": {"hires": picture}, "scalefactors": factors}
    assert read(scale(hires)) == 0.1
    assert read(scale({"images": {"hires": picture, "fullres": picture}, "scalefactors": factors})) == 1.0
    assert read(scale(hires, image_scale=0.3)) == 0.3
    fails(scale({"images": {}, "scalefactors": factors}), "section.h5ad", "no image of known scale", "it has none")
    fails(scale({"images": {"hires": picture}}), "no image of known scale", "it has hires")
    fails(scale(hires, hires), "2 sections in one file, L0, L1", "column library")
    two = scale(hires, {"images": {"fullres": picture}, "scalefactors": factors}, library="L1")
    assert readers.read_section(two).uns["section"]["image"].endswith("section.h5ad#L1")
    assert (read(two), read(two | {"library": "L0"})) == (1.0, 0.1)
    fails(scale(), "no image of known scale", "it has none")


# --- geometry and structure -------------------------------------------------------------------------------------------


def test_arrays_in_micrometres():
    np.testing.assert_allclose(arrays.visium_array_um(np.array([2]), np.array([4])), [[200, 173.205081]])
    np.testing.assert_allclose(arrays.square_array_um(np.array([2]), np.array([4]), 8), [[32, 16]])


def test_a_lattice_may_be_jittered_but_not_by_half_a_pitch():
    array_um = 100.0 * np.array([(x, y) for x in range(9) for y in range(9)])
    px = array_um[:, ::-1] / 4 + [7, 9]  # mirrored: 4 µm per px
    ids = np.array([f"s{n}" for n in range(81)])
    arrays.require_lattice(array_um, px, 100, ids, "file")
    px[40, 0] += 11  # 44 µm
    arrays.require_lattice(array_um, px, 100, ids, "file")
    px[40, 0] += 2
    with pytest.raises(InputError, match=r"file: 1 spots lie more than 50 µm .*: s40;"):
        arrays.require_lattice(array_um, px, 100, ids, "file")


def test_an_image_may_be_distorted_by_more_than_a_bin():
    """A tilted camera: a projective map, 23 µm off at one corner of an array of 6.5 mm."""
    array_um = 130.0 * np.array([(x, y) for x in range(51) for y in range(51)])
    depth = 1 + 23 / 6500 * array_um.sum(axis=1) / 13000
    px = array_um / depth[:, None] / 0.25
    ids = np.arange(len(px)).astype(str)
    affine = np.column_stack([array_um, np.ones(len(px))])
    off_um = 0.25 * np.linalg.norm(px - affine @ np.linalg.lstsq(affine, px)[0], axis=1)
    assert off_um.max() > 4  # more than half of a bin of 8 µm
    arrays.require_lattice(array_um, px, 8, ids, "file")
    px[7, 1] += 60 / 0.25
    with pytest.raises(InputError, match=r"file: 1 spots lie more than 32 µm .*: 7;"):
        arrays.require_lattice(array_um, px, 8, ids, "file")
    with pytest.raises(InputError, match=r"2,\d+ spots lie more than 32 µm"):
        arrays.require_lattice(np.random.default_rng(0).permutation(array_um), px, 8, ids, "file")


def test_z_is_that_of_all_permutations():
    """Seven spots on a line, two neighbours each: mean and variance over all 5,040 orders, by brute force."""
    from itertools import permutations

    values = np.array([1.0, 2, 2, 5, 4, 9, 8])
    graph = structure.neighbour_graph(np.column_stack([[0, 1, 2.1, 3.3, 4.6, 6, 7.5], np.zeros(7)]), k=2)
    np.testing.assert_array_equal(
        [sorted(graph[spot].indices) for spot in range(7)],
        [[1, 2], [0, 2], [1, 3], [2, 4], [3, 5], [4, 6], [4, 5]],
    )
    weights = graph.toarray().astype(float)
    centred = values - values.mean()

    def moran(x):
        return 7 / weights.sum() * (x @ weights @ x) / (x @ x)

    every = np.array([moran(np.array(order)) for order in permutations(centred)])
    wanted = (moran(centred) - every.mean()) / every.std()
    columns = np.column_stack([values, np.ones(7)])
    np.testing.assert_allclose(structure.moran_z(columns, graph), [wanted, -np.inf])


def test_a_spot_is_not_its_own_neighbour_at_a_shared_position():
    graph = structure.neighbour_graph(np.zeros((9, 2)), k=6)
    assert graph.diagonal().sum() == 0
    assert (np.diff(graph.indptr) == 6).all()


def test_few_spots_are_not_checked_for_structure():
    spots = anndata.AnnData(sparse.csr_matrix(np.random.default_rng(0).poisson(5, (199, 60)).astype(np.float32)))
    spots.obsm["spatial"] = np.array([(n % 20, n // 20) for n in range(199)], float)
    readers.require_spatial_structure(spots, "file")
    spots = anndata.AnnData(sparse.csr_matrix(np.random.default_rng(0).poisson(5, (200, 60)).astype(np.float32)))
    spots.obsm["spatial"] = np.array([(n % 20, n // 20) for n in range(200)], float)
    with pytest.raises(InputError, match="file: the counts of neighbouring spots are no more alike"):
        readers.require_spatial_structure(spots, "file")


# --- SpatialData ------------------------------------------------------------------------------------------------------


def same(one, other, key="spatial"):
    """The same spots, counts and positions, in any order of spots."""
    assert set(one.obs_names) == set(other.obs_names)
    assert list(one.var_names) == list(other.var_names)
    one = one[other.obs_names]
    np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
    np.testing.assert_allclose(one.obsm[key], other.obsm[key], atol=1e-6)
    assert one.uns["section"]["um_per_px"] == pytest.approx(other.uns["section"]["um_per_px"], rel=1e-4)


def test_a_store_of_the_real_visium_folder_reads_as_the_folder(tmp_path):
    spatialdata_io = pytest.importorskip("spatialdata_io")
    folder = real("visium_v1")
    spatialdata_io.visium(folder, dataset_id="V1").write(tmp_path / "v1.zarr")
    store = readers.read_section(row("visium", tmp_path / "v1.zarr", image="V1_tissue_hires_image.png"))
    same(store, readers.read_section(row("visium", folder)))
    assert store.uns["section"]["image_scale"] == pytest.approx(0.150015)  # from the store's coordinate systems
    fails(
        row("visium_hd", tmp_path / "v1.zarr"), "v1.zarr", "made from visium files", "write visium in column platform"
    )


@pytest.mark.parametrize("circles", [True, False])
def test_a_store_of_the_real_xenium_bundle_reads_as_the_bundle(tmp_path, circles):
    import shutil

    import zarr

    spatialdata_io = pytest.importorskip("spatialdata_io")
    shutil.copytree(real("xenium_toy"), tmp_path / "bundle", copy_function=shutil.copyfile)
    (tmp_path / "bundle").chmod(0o755)
    # required by spatialdata-io; for version 1.0 it uses nothing of the second
    vendor_files.write(tmp_path / "bundle" / "experiment.xenium", vendor_files.experiment("1.0.1"))
    zarr.open_group(zarr.storage.ZipStore(tmp_path / "bundle" / "cells.zarr.zip", mode="w"), mode="w").store.close()
    left_out = dict.fromkeys(["nucleus_boundaries", "cells_labels", "nucleus_labels", "transcripts"], False)
    left_out |= dict.fromkeys(["morphology_mip", "morphology_focus", "aligned_images"], False)
    made = spatialdata_io.xenium(tmp_path / "bundle", cells_as_circles=circles, **left_out)
    made.write(tmp_path / "x.zarr")
    store = readers.read_section(row("xenium", tmp_path / "x.zarr"))
    same(store, readers.read_section(row("xenium", DATA / "xenium_toy")), "spatial_um")
    assert store.uns["section"]["pixel_size"] == pytest.approx(0.2125)


def test_a_store_of_simulated_bins_reads_as_the_folder(tmp_path):
    spatialdata_io = pytest.importorskip("spatialdata_io")
    wanted, _ = vendor_files.CASES["visium_hd 3"](tmp_path)
    outs = Path(wanted["path"])
    (outs / "binned_outputs" / "square_016um").rmdir()
    layout = {"file_format": "1.0", "transform": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
    with h5py.File(outs / "feature_slice.h5", "w") as handle:
        handle.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps(layout)})
    for squares in (True, False):
        made = spatialdata_io.visium_hd(outs, "S1", load_segmentations_only=False, bins_as_squares=squares)
        made.write(tmp_path / f"{squares}.zarr")
        store = readers.read_section(row("visium_hd", tmp_path / f"{squares}.zarr"))
        same(store, readers.read_section(wanted))
    fails(row("visium_hd", tmp_path / "True.zarr", spot_um=16), "no table square_016um", "square_008um", "spot_um")


def test_a_store_with_the_full_image_gives_positions_in_its_pixels(tmp_path):
    """The image is a part of the slide at half resolution: the spots' coordinates are shifted and halved."""
    import spatialdata
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine, set_transformation

    known = vendor_files.truth("visium")
    vendor_files.write_store(tmp_path / "a.zarr", "visium", known)
    store = spatialdata.read_zarr(tmp_path / "a.zarr")
    image = Image2DModel.parse(np.zeros((3, 64, 64), np.uint8), dims=("c", "y", "x"), scale_factors=[2])
    place = Affine([[2, 0, 100], [0, 2, 40], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    set_transformation(image, {"S1": place}, set_all=True)
    store["S1_full_image"] = image
    store.write(tmp_path / "b.zarr")
    spots = readers.read_section(row("visium", tmp_path / "b.zarr"))
    np.testing.assert_allclose(spots.obsm["spatial"], (known.positions - [100, 40]) / 2)
    assert spots.uns["section"]["um_per_px"] == pytest.approx(2 * known.um_per_px, rel=1e-3)


def test_ambiguous_stores_are_reported(tmp_path):
    import spatialdata

    known = vendor_files.truth("visium")
    vendor_files.write_store(tmp_path / "a.zarr", "visium", known)

    def written(name, edit):
        store = spatialdata.read_zarr(tmp_path / "a.zarr")
        edit(store)
        store.write(tmp_path / name)
        return row("visium", tmp_path / name)

    def two_tables(store):
        store["other"] = store["table"].copy()

    def no_table(store):
        del store.tables["table"]

    def logged(store):
        store["table"].X = store["table"].X.log1p()

    def two_systems(store):
        spatialdata.transformations.set_transformation(store["S1"], spatialdata.transformations.Identity(), "aligned")

    def no_shape(store):
        store["S1"] = store["S1"].iloc[5:]

    fails(written("two.zarr", two_tables), "two.zarr", "2 tables", "other, table", "a store with only that table")
    fails(written("none.zarr", no_table), "none.zarr", "no table")
    fails(written("log.zarr", logged), "log.zarr", "expected raw counts")
    fails(written("systems.zarr", two_systems), "2 coordinate systems", "S1, aligned", "full-resolution image")
    fails(written("shapes.zarr", no_shape), "shapes.zarr", "5 of 230 spots have no shape")
    fails(row("h5ad", tmp_path / "a.zarr"), "a SpatialData store", "visium_hd, xenium")
    fails(row("visium", tmp_path / "c.zarr"), "c.zarr", "cannot be read as a SpatialData store")
