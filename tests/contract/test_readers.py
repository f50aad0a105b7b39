"""Every platform, version and container fulfils the section contract, and damaged files give errors, not wrong data."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

from ctrflow import readers
from ctrflow.errors import InputError
from vendor_files import BREAKS, CASES, drop_part, ids_shuffled, parts_of, rows_shuffled

SECTION_KEYS = {
    "section",
    "platform",
    "patient",
    "cohort",
    "tissue",
    "um_per_px",
    "um_per_px_from",
    "spot_um",
    "image",
    "image_scale",
}


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """(row, truth, folder) of a case, written once."""
    done = {}

    def write(name):
        if name not in done:
            root = tmp_path_factory.mktemp(name.replace(" ", "_").replace(",", ""))
            done[name] = (*CASES[name](root), root)
        return done[name]

    return write


def key_of(section) -> str:
    return "spatial_um" if readers.platforms()[section.uns["section"]["platform"]].cells else "spatial"


def place(section) -> np.ndarray:
    return section.obsm[key_of(section)]


@pytest.mark.parametrize("name", CASES)
def test_a_case_fulfils_the_contract_and_matches_the_simulation(written, name):
    row, truth, _ = written(name)
    section = readers.read_section(row)

    assert sparse.issparse(section.X)
    assert (section.X.format, section.X.dtype) == ("csr", np.float32)
    assert section.obs_names.is_unique
    assert section.var_names.is_unique
    assert place(section).dtype == np.float64
    about = section.uns["section"]
    assert set(about) - {"pixel_size", "alignment"} == SECTION_KEYS
    assert (about["section"], about["platform"], about["spot_um"]) == ("S1", row["platform"], truth.spot_um)
    # no label, cluster or cell type is copied
    assert list(section.obs.columns) == list(section.var.columns) == []
    assert set(section.uns) == {"section"}
    assert set(section.obsm) == {key_of(section)}

    assert set(section.obs_names) == set(truth.ids)
    at = {name: place for place, name in enumerate(truth.ids)}
    order = [at[name] for name in section.obs_names]
    assert list(section.var_names) == truth.genes
    np.testing.assert_array_equal(section.X.toarray(), truth.counts[order])
    np.testing.assert_allclose(place(section), truth.positions[order], atol=0.006)
    assert about["um_per_px"] == pytest.approx(truth.um_per_px, rel=2e-3)


@pytest.mark.parametrize("name", CASES)
def test_files_are_all_that_reading_needs(written, tmp_path, name):
    row, _, root = written(name)
    for path in map(Path, readers.files(row)):
        target = tmp_path / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        assert path.exists()
        shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)
    alone = readers.read_section(row | {"path": str(tmp_path / Path(row["path"]).relative_to(root)), "image": ""})
    intact = readers.read_section(row | {"image": ""})
    np.testing.assert_array_equal(alone.X.toarray(), intact.X.toarray())
    np.testing.assert_array_equal(place(alone), place(intact))
    assert alone.uns["section"]["um_per_px"] == intact.uns["section"]["um_per_px"]


# --- damage -----------------------------------------------------------------------------------------------------------

FILES = [
    ("st plain", "ST-cnts/A1.tsv"),
    ("st plain", "ST-spotfiles/A1_selection.tsv"),
    ("visium 1 h5", "outs/filtered_feature_bc_matrix.h5"),
    ("visium 1 h5", "outs/spatial/tissue_positions_list.csv"),
    ("visium 1 h5", "outs/spatial/scalefactors_json.json"),
    ("visium 1 mtx", "outs/filtered_feature_bc_matrix/matrix.mtx.gz"),
    ("visium 1 mtx", "outs/filtered_feature_bc_matrix/barcodes.tsv.gz"),
    ("visium 1 mtx", "outs/filtered_feature_bc_matrix/features.tsv.gz"),
    ("visium mtx of version 2", "outs/filtered_feature_bc_matrix/matrix.mtx"),
    ("visium mtx of version 2", "outs/filtered_feature_bc_matrix/barcodes.tsv"),
    ("visium mtx of version 2", "outs/filtered_feature_bc_matrix/genes.tsv"),
    ("visium 2 CytAssist", "outs/spatial/tissue_positions.csv"),
    ("visium 4 parquet", "outs/spatial/tissue_positions.parquet"),
    ("visium GEO h5", "GSM7_P1_tissue_positions_list.csv.gz"),
    ("visium GEO h5", "GSM7_P1_scalefactors_json.json.gz"),
    ("visium_hd 3", "outs/binned_outputs/square_008um/filtered_feature_bc_matrix.h5"),
    ("visium_hd 3", "outs/binned_outputs/square_008um/spatial/tissue_positions.parquet"),
    ("visium_hd 3", "outs/binned_outputs/square_008um/spatial/scalefactors_json.json"),
    ("visium_hd 4 mtx, 16 um", "outs/binned_outputs/square_016um/filtered_feature_bc_matrix/barcodes.tsv.gz"),
    ("visium_hd_cells 4", "outs/segmented_outputs/filtered_feature_cell_matrix.h5"),
    ("visium_hd_cells 4", "outs/segmented_outputs/cell_segmentations.geojson"),
    ("visium_hd_cells 4", "outs/segmented_outputs/spatial/scalefactors_json.json"),
    ("visium_hd_cells GEO", "GSM9_P1_cell_segmentations.geojson.gz"),
    ("xenium 1.0", "cells.csv.gz"),
    ("xenium 1.1", "cell_feature_matrix.h5"),
    ("xenium 1.1", "cells.parquet"),
    ("xenium 1.1", "experiment.xenium"),
    ("xenium 3 mtx", "outs/cell_feature_matrix/barcodes.tsv.gz"),
    ("xenium 4", "P1_cells.csv"),
    ("h5ad plain", "section.h5ad"),
    ("h5ad CELLxGENE", "section.h5ad"),
]
WITH_IDS = [(name, file) for name, file in FILES if not any(word in file for word in ("scalef", "mtx.", "experiment"))]
WITH_IDS = [(name, file) for name, file in WITH_IDS if "features" not in file and "genes" not in file]
# nothing in the files of Visium HD's cells holds counts against polygons; after pooling the spots' structure does
WITH_IDS = [(name, file) for name, file in WITH_IDS if not name.startswith("visium_hd_cells")]
TABLES = [
    (name, file)
    for name, file in WITH_IDS
    if any(word in file for word in ("positions", "cells.", "A1")) and not file.endswith("h5")
]


@pytest.fixture
def copied(written, tmp_path):
    """(row, its intact section, the file to damage) of a copy of a case."""

    def copy(name, file):
        row, _, root = written(name)
        intact = readers.read_section(row | {"image": ""})
        shutil.copytree(root, tmp_path / "copy")
        path = tmp_path / "copy" / Path(row["path"]).relative_to(root)
        return row | {"path": str(path), "image": ""}, intact, tmp_path / "copy" / file

    return copy


def error_unless_correct(row, intact, path) -> str:
    """Read the section: "" if it is correct, else the error, which must name the file or the section's path."""
    try:
        section = readers.read_section(row)
    except InputError as error:
        message = str(error)
        if path.name not in message and row["path"] not in message:
            pytest.fail(f"names neither {path.name} nor the section's path: {message}")
        return message
    assert set(section.obs_names) == set(intact.obs_names)
    assert set(section.var_names) == set(intact.var_names)
    section = section[intact.obs_names, intact.var_names]
    np.testing.assert_array_equal(section.X.toarray(), intact.X.toarray())
    np.testing.assert_allclose(place(section), place(intact), atol=0.5)  # the last digit may be cut off
    assert section.uns["section"]["um_per_px"] == pytest.approx(intact.uns["section"]["um_per_px"], rel=1e-3)
    return ""


@pytest.mark.parametrize("damage", BREAKS)
@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_broken_file_is_reported(copied, name, file, damage):
    row, intact, path = copied(name, file)
    BREAKS[damage](path, np.random.default_rng(0))
    message = error_unless_correct(row, intact, path)
    # only the last line break of a text file may be cut off without an error
    assert message or damage == "cut at the end"


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_missing_part_is_reported_or_not_needed(copied, name, file):
    row, intact, path = copied(name, file)
    content = path.read_bytes()
    messages = []
    for part in parts_of(path):
        path.write_bytes(content)
        drop_part(path, part)
        messages.append(error_unless_correct(row, intact, path))
    assert any(messages) or "scalefactors" in file or file == "experiment.xenium"


@pytest.mark.parametrize(("name", "file"), WITH_IDS)
def test_ids_shuffled_against_the_rest_are_reported(copied, name, file):
    row, intact, path = copied(name, file)
    ids_shuffled(path, np.random.default_rng(0))
    assert error_unless_correct(row, intact, path)


@pytest.mark.parametrize(("name", "file"), TABLES)
def test_shuffling_complete_rows_changes_nothing(copied, name, file):
    row, intact, path = copied(name, file)
    before = path.read_bytes()
    rows_shuffled(path, np.random.default_rng(0))
    assert path.read_bytes() != before
    assert error_unless_correct(row, intact, path) == ""


def _edit_matrix(path, edit):
    with h5py.File(path, "r+") as handle:
        matrix = handle["matrix"]
        for name, values in edit(
            {name: matrix[name][:] for name in ("indptr", "indices", "data", "shape", "barcodes")}
        ):
            del matrix[name]
            matrix[name] = values


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (lambda m: [("indptr", m["indptr"][[0, 2, 1, *range(3, len(m["indptr"]))]])], "indptr does not rise"),
        (lambda m: [("indptr", m["indptr"][:-1])], "entries of indptr"),
        (lambda m: [("indptr", m["indptr"] + 1)], "indptr does not rise"),
        (lambda m: [("indices", m["indices"] + 1)], "feature indices from"),
        (lambda m: [("indices", m["indices"] - 1)], "feature indices from"),
        (lambda m: [("indices", m["indices"][:-1])], "indices of shape"),
        (lambda m: [("shape", m["shape"][::-1])], "shape"),
        (lambda m: [("shape", m["shape"] + 1)], "shape"),
        (lambda m: [("barcodes", m["barcodes"][:-1])], "barcodes"),
        (lambda m: [("barcodes", np.concatenate([m["barcodes"][:1], m["barcodes"][:-1]]))], "twice"),
        (lambda m: [("data", m["data"] * 0.5)], "whole numbers"),
        (lambda m: [("data", -m["data"])], "whole numbers"),
        (lambda m: [("data", np.where(np.arange(len(m["data"])) == 3, np.nan, m["data"]))], "whole numbers"),
        (lambda m: [("data", m["data"].astype("S"))], "data of type"),
    ],
)
@pytest.mark.parametrize("name", ["visium 1 h5", "xenium 1.1"])
def test_a_matrix_whose_parts_disagree_is_reported(copied, name, edit, fragment):
    row, intact, path = copied(
        name, "outs/filtered_feature_bc_matrix.h5" if "visium" in name else "cell_feature_matrix.h5"
    )
    _edit_matrix(path, edit)
    assert fragment in error_unless_correct(row, intact, path)


STORE_FILES = ["zarr.json", "tables/*/X/data/c/0", "tables/*/X/indices/c/0", "tables/*/X/indptr/c/0"]
STORE_FILES += ["tables/*/obs/spot_id/c/0", "tables/*/var/_index/c/0", "tables/*/obs/_index/c/0"]
STORE_FILES += ["shapes/*/shapes.parquet", "tables/*/zarr.json", "shapes/*/zarr.json"]


@pytest.mark.parametrize("name", ["visium zarr 3", "xenium zarr 3"])
def test_a_damaged_store_is_reported(copied, name):
    row, intact, root = copied(name, "section.zarr")
    for pattern in STORE_FILES:
        (path,) = root.glob(pattern)
        content = path.read_bytes()
        for damage in ("cut in half", "empty", "a picture", "missing"):
            path.write_bytes(content)
            path.unlink() if damage == "missing" else BREAKS[damage](path, None)
            assert error_unless_correct(row, intact, root) or damage == "missing", (pattern, damage)
        path.write_bytes(content)
    assert error_unless_correct(row, intact, root) == ""
