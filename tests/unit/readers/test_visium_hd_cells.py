"""Visium HD of Space Ranger 4: cells read and pooled, worked by hand; and each part of a run under each platform."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vendor_files as vendor
from ctrflow import readers
from ctrflow.errors import InputError
from ctrflow.sections.aggregate import aggregate_cells

# centres of the lattice of seven spots, in pitches: r000c000, r000c001, r000c002, r001c000, ...
LATTICE = np.array([(0, 0), (1, 0), (2, 0), (0.5, 0.75**0.5), (1.5, 0.75**0.5), (0, 3**0.5), (1, 3**0.5)])


def row(path, platform="visium_hd_cells", **more):
    return {"section": "S1", "platform": platform, "path": str(path)} | more


def told(wanted) -> str:
    with pytest.raises(InputError) as caught:
        readers.read_section(wanted)
    return str(caught.value)


def fails(wanted, *fragments):
    message = told(wanted)
    for fragment in fragments:
        assert fragment in message


def write_cells(root: Path, positions_um, counts, um_per_px: float = 0.25) -> Path:
    """The `segmented_outputs` of cells at these places."""
    ids, genes = list(map(str, range(len(counts)))), ["EPCAM", "CD3E"]
    known = vendor.Truth(ids, genes, np.array(counts), np.array(positions_um), um_per_px, 55.0, None, None)
    known = replace(vendor.hd_cells(known), um_per_px=um_per_px)
    inside = root / "segmented_outputs"
    vendor.write_h5(inside / "filtered_feature_cell_matrix.h5", known, {"CD3": "Antibody Capture"})
    vendor.write_polygons(inside / "cell_segmentations.geojson", known)
    vendor.write(inside / "spatial/scalefactors_json.json", vendor.hd_scalefactors(known))
    return inside


@pytest.fixture
def inside(tmp_path) -> Path:
    """Nine cells 10 µm apart; cell n has n + 1 of EPCAM and 1 of CD3E."""
    places = [(250 + 10 * (n % 3), 500 + 10 * (n // 3)) for n in range(9)]
    return write_cells(tmp_path / "outs", places, [(n + 1, 1) for n in range(9)])


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --- read -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [".", "outs", "outs/segmented_outputs"])
def test_cells_have_the_centre_of_their_polygon(inside, part):
    cells = readers.read_section(row(inside.parent.parent / part))
    assert list(cells.var_names) == ["EPCAM", "CD3E"]  # no antibodies
    assert list(cells.obs_names[:2]) == ["cellid_000000001-1", "cellid_000000002-1"]
    assert cells["cellid_000000006-1"].X.toarray().tolist() == [[6, 1]]
    np.testing.assert_allclose(cells["cellid_000000006-1"].obsm["spatial_um"], [[270, 510]])
    about = cells.uns["section"]
    assert (about["um_per_px"], about["pixel_size"], about["spot_um"]) == (0.25, 0.25, 55.0)
    assert "alignment" not in about


def test_the_centre_is_that_of_the_area(inside):
    """Of an L of three squares of 8 px it is 20/3 px from the corner; the mean of its corners is elsewhere."""
    corner = [(0, 0), (16, 0), (16, 8), (8, 8), (8, 16), (0, 16), (0, 0)]

    def change(content):
        (own,) = [one for one in content["features"] if one["properties"]["cell_id"] == 4]
        own["geometry"] = {"type": "MultiPolygon", "coordinates": [[corner]]}

    edit(inside / "cell_segmentations.geojson", change)
    cells = readers.read_section(row(inside))
    np.testing.assert_allclose(cells["cellid_000000004-1"].obsm["spatial_um"], [[5 / 3, 5 / 3]])


@pytest.mark.parametrize(("pool", "pitch"), [("", 55), ("hexagons", 55), ("discs", 100)])
def test_cells_are_summed_into_spots(tmp_path, pool, pitch):
    """One cell at each centre with 2^n of EPCAM, another beside the second, and one beyond the rim of a disc."""
    places = np.vstack([pitch * LATTICE, [(pitch + 6, 5), (pitch, 30)]]) + np.array([250, 500])
    counts = [*((2**n, 1) for n in range(7)), (100, 0), (0, 7)]
    cells = readers.read_section(row(write_cells(tmp_path, places, counts)))
    spots = aggregate_cells(cells, pool)
    assert list(spots.obs_names) == [
        f"r{r:03d}c{c:03d}" for r, c in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1))
    ]
    # 30 µm below its centre a cell is beyond the rim of a disc, 27.5 µm; of the hexagons' centres this is the nearest:
    # those of the next row are sqrt(27.5² + 17.6²) = 32.7 µm away
    assert spots["r000c001"].X.toarray().tolist() == [[2 + 100, 1 if pool == "discs" else 1 + 7]]
    assert spots.obs.loc["r000c001", "n_cells"] == (2 if pool == "discs" else 3)
    assert spots.X.sum() == cells.X.sum() - (7 if pool == "discs" else 0)
    # full-resolution px of 0.25 µm
    np.testing.assert_allclose(spots["r000c001"].obsm["spatial"], [[(250 + pitch) / 0.25, 500 / 0.25]])
    np.testing.assert_allclose(spots["r000c001"].obsm["spatial_um"], [[250 + pitch, 500]])
    about = spots.uns["section"]
    assert (about["um_per_px"], about["platform"]) == (0.25, "visium_hd_cells")
    assert "pixel_size" not in about


@pytest.mark.parametrize("name", [int, str, float, "cellid_{:09d}".format, "cellid_{:09d}-1".format])
def test_polygons_name_their_cell_in_several_ways(inside, name):
    path = inside / "cell_segmentations.geojson"

    def change(content):
        for one in content["features"]:
            one["properties"]["cell_id"] = name(one["properties"]["cell_id"])

    edit(path, change)
    cells = readers.read_section(row(inside))
    np.testing.assert_allclose(cells["cellid_000000009-1"].obsm["spatial_um"], [[270, 520]])


def test_polygons_of_the_cells_come_first(inside, caplog):
    """The four files of a run are told apart by name; the nuclei are off by 4 px, 1 µm, here."""
    cells, wanted = inside / "cell_segmentations.geojson", row(inside)
    annotated = cells.with_name("graphclust_annotated_cell_segmentations.geojson")
    nuclei = cells.with_name("nucleus_segmentations.geojson")
    shutil.copy(cells, annotated)

    def moved(content):
        for one in content["features"]:
            one["geometry"]["coordinates"] = (np.array(one["geometry"]["coordinates"]) + np.array([4, 0])).tolist()

    shutil.copy(cells, nuclei)
    edit(nuclei, moved)

    def first() -> float:
        return readers.read_section(wanted).obsm["spatial_um"][0, 0]

    assert readers.files(wanted)[1] == str(cells)
    assert first() == pytest.approx(250)
    cells.unlink()
    assert readers.files(wanted)[1] == str(annotated)
    assert first() == pytest.approx(250)
    annotated.unlink()
    assert not caplog.records
    assert first() == pytest.approx(251)
    assert "the centres of the nuclei are used: nucleus_segmentations.geojson" in caplog.text
    edit(nuclei, lambda content: content["features"].pop())  # the first cell
    fails(wanted, "1 of 9 spots have no position", "nucleus_segmentations.geojson", "cellid_000000001-1")


def test_the_image_is_the_runs_reduced_one_or_the_sheets(inside, tmp_path):
    outs = inside.parent
    assert readers.image_path(row(outs)) == ""
    reduced = [folder / "spatial/tissue_hires_image.png" for folder in (outs, inside)]
    for hires in reduced:
        hires.parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 60)).save(hires)
        about = readers.read_section(row(outs)).uns["section"]
        assert readers.image_path(row(outs)) == about["image"] == str(hires)
        assert about["image_scale"] == 0.12
    given = readers.read_section(row(outs, image="he.tif")).uns["section"]
    assert (given["image"], given["image_scale"]) == ("he.tif", 1.0)
    assert readers.read_section(row(outs, image="none")).uns["section"]["image"] == ""


def test_the_scale_is_stated_or_the_sheets(inside):
    path = inside / "spatial/scalefactors_json.json"
    fails(
        row(inside, um_per_px="0.5"),
        "microns_per_pixel in scalefactors_json.json gives 0.25; column um_per_px gives 0.5",
    )
    edit(path, lambda content: content.pop("microns_per_pixel"))
    fails(row(inside), "do not give the pixel size", "um_per_px")
    cells = readers.read_section(row(inside, um_per_px="0.5"))
    np.testing.assert_allclose(cells.obsm["spatial_um"][0], [500, 1000])
    # the run's own folder has the same factors
    path.unlink()
    vendor.write(inside.parent / "spatial/scalefactors_json.json", json.dumps({"microns_per_pixel": 0.25}))
    assert readers.read_section(row(inside)).uns["section"]["um_per_px"] == 0.25


# --- what is told -----------------------------------------------------------------------------------------------------


def test_bad_folders_of_cells_are_told(inside, tmp_path):
    polygons, matrix = inside / "cell_segmentations.geojson", inside / "filtered_feature_cell_matrix.h5"
    content = polygons.read_text()
    fails(row(inside, spot_um="8"), "column spot_um is 8", "55 µm", "leave it empty")
    edit(polygons, lambda part: part["features"].append(part["features"][-1]))
    fails(row(inside), "cell_segmentations.geojson", "twice", "cellid_000000001-1")
    edit(polygons, lambda part: [one["properties"].clear() for one in part["features"]])
    fails(row(inside), "cell_segmentations.geojson", "cell_id", "copy it again")
    polygons.write_text(content)
    edit(polygons, lambda part: part["features"][-1].update(geometry=None))
    fails(row(inside), "no finite position for 1 spots", "cellid_000000001-1")
    polygons.write_text(content)
    shutil.copy(polygons, inside / "P2_cell_segmentations.geojson")
    fails(row(inside), "2 files of polygons", "P2_cell_segmentations.geojson", "keep only one")
    polygons.rename(inside / "P1_cell_segmentations.geojson")
    (inside / "P2_cell_segmentations.geojson").unlink()
    matrix.rename(inside / "P2_filtered_feature_cell_matrix.h5")
    fails(row(inside), "from two samples", "P1_", "P2_")
    (inside / "P1_cell_segmentations.geojson").unlink()
    fails(row(inside), "the cells have no geometry: no cell_segmentations.geojson; copy it from the run's segmented_")
    vendor.write(polygons, content)
    (inside / "P2_filtered_feature_cell_matrix.h5").unlink()
    (inside / "raw_feature_cell_matrix.h5").touch()
    fails(row(inside), "no filtered_feature_cell_matrix.h5", "copy it from the run's segmented_outputs")


def test_cells_of_aggregated_runs_are_told(inside):
    def second(ids):
        return np.array([*ids[:-1], b"cellid_000000001-2"])

    vendor.edit_ids(inside / "filtered_feature_cell_matrix.h5", second)
    fails(row(inside), "several cells of one number, cellid_000000001-1, cellid_000000001-2", "outs folder of one run")


def test_counts_of_another_run_do_not_pass(tmp_path):
    """Every run numbers its cells from 1, so the files join; neighbouring spots are then no more alike than others."""
    known = vendor.shuffled(vendor.truth("visium"))
    um = known.positions * known.um_per_px
    inside = write_cells(tmp_path, um - um.min(axis=0), known.counts[:, :2])
    known = vendor.hd_cells(known)
    matrix = inside / "filtered_feature_cell_matrix.h5"
    vendor.write_h5(matrix, known)
    spots = aggregate_cells(readers.read_section(row(inside)))
    assert spots.n_obs == len(known.ids)  # 100 µm apart
    readers.require_spatial_structure(spots, str(inside))
    vendor.ids_shuffled(matrix, np.random.default_rng(0))
    spots = aggregate_cells(readers.read_section(row(inside)))
    with pytest.raises(InputError, match="no more alike"):
        readers.require_spatial_structure(spots, str(inside))


def test_a_store_of_cells_does_not_pass_for_bins(inside, tmp_path):
    spatialdata_io = pytest.importorskip("spatialdata_io")
    import h5py

    layout = {"file_format": "1.0", "transform": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
    with h5py.File(inside.parent / "feature_slice.h5", "w") as handle:
        handle.attrs["metadata_json"] = json.dumps({"hd_layout_json": json.dumps(layout)})
    spatialdata_io.visium_hd(inside.parent, "S1", load_segmentations_only=True).write(tmp_path / "cells.zarr")
    wanted = row(tmp_path / "cells.zarr", um_per_px="0.25")
    cure = "write visium_hd_cells in column platform"
    fails(wanted | {"platform": "visium_hd"}, "cells.zarr", "cells without bins", "load_segmentations_only=False", cure)
    fails(wanted, "cells.zarr", "a SpatialData store", "or give a Space Ranger 4 folder of Visium HD cells")


# --- parts of a run ---------------------------------------------------------------------------------------------------

PARTS = ("binned_outputs", "segmented_outputs")
PLATFORMS = ("visium", "visium_hd", "visium_hd_cells")
INNER = (".", "outs", "outs/binned_outputs", "outs/binned_outputs/square_008um", "outs/segmented_outputs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with bins and cells, and beside them what Space Ranger 4 writes into every run."""
    root = tmp_path_factory.mktemp("run")
    vendor.hd_3(root)
    vendor.hd_cells_4(root)
    outs = root / "outs"
    vendor.write(outs / "spatial/scalefactors_json.json", vendor.hd_scalefactors(vendor.truth("visium_hd")))
    for name in ("feature_slice.h5", "molecule_info.h5", "web_summary.html", "spatial/cytassist_image.tiff"):
        (outs / name).write_bytes(b"not read")
    return root


def readable(platform: str, place: str, kept: tuple) -> bool:
    if place in (".", "outs"):
        return {"visium_hd": PARTS[0], "visium_hd_cells": PARTS[1]}.get(platform) in kept
    part = place.split("/")[1]
    return part in kept and platform == {PARTS[0]: "visium_hd", PARTS[1]: "visium_hd_cells"}[part]


@pytest.mark.parametrize("emptied", [False, True], ids=["left out", "empty"])
@pytest.mark.parametrize("kept", [PARTS, PARTS[:1], PARTS[1:], ()], ids=["both", "bins", "cells", "neither"])
@pytest.mark.parametrize("place", INNER)
def test_no_message_sends_the_user_in_a_circle(whole, tmp_path, place, kept, emptied):
    root = shutil.copytree(whole, tmp_path / "run")
    for part in set(PARTS) - set(kept):
        shutil.rmtree(root / "outs" / part)
        if emptied:
            (root / "outs" / part).mkdir()
    for platform in PLATFORMS:
        tried, now = [], platform
        while True:
            assert now not in tried, tried
            tried.append(now)
            if readable(now, place, kept):
                section = readers.read_section(row(root / place, now))
                assert section.uns["section"]["um_per_px"] == {"visium_hd": 0.4}.get(now, vendor.HD_UM_PER_PX)
                break
            message = told(row(root / place, now))
            assert str(root / place) in message
            assert message.count("column path") + message.count("copy") >= 1
            found = re.search(r"write (\w+) in column platform", message)
            if not found or "copy" in message:
                break
            now = found[1]
        # whoever is sent to a platform can read the section there, unless the part is not in the folder at all
        if any(readable(one, place, kept) for one in PLATFORMS):
            assert readable(now, place, kept), tried
        assert len(tried) <= 3


@pytest.mark.parametrize("platform", ["visium", "visium_hd"])
@pytest.mark.parametrize("place", ["outs", "outs/segmented_outputs"])
def test_cells_without_bins_are_named_at_once(whole, tmp_path, platform, place):
    root = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(root / "outs/binned_outputs")
    assert readers.kind_of(root / place) == "visium_hd_cells"
    fails(
        row(root / place, platform),
        f"says {platform}, but this is a Space Ranger 4 folder of Visium HD cells (segmented_outputs)",
        "write visium_hd_cells in column platform, or give a Space Ranger folder of Visium",
    )


def test_polygons_beside_visium_spots_do_not_make_them_cells(tmp_path):
    """People segment cells on a Visium section's image too."""
    wanted, known = vendor.CASES["visium 4 parquet"](tmp_path)
    vendor.write(tmp_path / "outs/P1_cell_segmentations.geojson", "{}")
    assert readers.kind_of(wanted["path"]) == "visium"
    assert readers.read_section(wanted).n_obs == len(known.ids)
