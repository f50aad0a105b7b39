"""AnnData files as people bring them: what is believed of their fields, and what is told."""

import math
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import vendor_files as vendor
from ctrflow import readers
from ctrflow.errors import InputError
from ctrflow.image import open_image

VISIUM = vendor.shuffled(vendor.truth("visium"))  # 0.7 µm per px
HER2ST = Path(__file__).parents[4] / "shared" / "data" / "her2st"
SQUARES = vendor.shuffled(vendor.grid(100.0, 100.0, 0.5, vendor.st_names))


def anndata_of(known, factors=None, array=True, library="lib", **obs):
    """A section as scanpy writes it, with any columns of obs."""
    made = anndata.AnnData(
        known.counts.astype(np.float32), obs=pd.DataFrame(index=known.ids), var=pd.DataFrame(index=known.genes),
        obsm={"spatial": known.positions.copy()},
    )  # fmt: skip
    if array:
        made.obs["array_row"], made.obs["array_col"] = known.array.T
    for name, values in obs.items():
        made.obs[name] = values
    if factors is not None:
        made.uns["spatial"] = {library: {"images": {}, "scalefactors": factors}}
    return made


def written(made, folder, edit=None):
    path = folder / "section.h5ad"
    with anndata.settings.override(allow_write_nullable_strings=True):
        made.write_h5ad(path)
    if edit:
        with h5py.File(path, "a") as handle:
            edit(handle)
    return {"section": "S1", "platform": "h5ad", "path": str(path)}


def read(made, folder, edit=None, **cells):
    return readers.read_section(written(made, folder, edit) | cells)


def told(made, folder, *words, edit=None, **cells):
    with pytest.raises(InputError) as error:
        read(made, folder, edit, **cells)
    assert [word for word in words if word not in str(error.value)] == [], error.value


def as_known(section, known) -> None:
    """Counts, places and genes of every spot are those of the simulation."""
    assert list(section.var_names) == known.genes
    at = [known.ids.index(name) for name in section.obs_names]
    np.testing.assert_array_equal(section.X.toarray(), known.counts[at])
    np.testing.assert_allclose(section.obsm["spatial"], known.positions[at])


# --- scale ------------------------------------------------------------------------------------------------------------


def hest(known, um_per_px, diameter_um, array=True):
    """As HEST-1k writes `st/<id>.h5ad`: the diameter of its table over its pixel size, and a reduced picture inside."""
    made = anndata_of(known, array=array)
    if array:
        made.obs["in_tissue"] = True
        made.obs["pxl_col_in_fullres"], made.obs["pxl_row_in_fullres"] = known.positions.T
    factors = {"tissue_downscaled_fullres_scalef": 0.05, "spot_diameter_fullres": diameter_um / um_per_px}
    images = {"downscaled_fullres": np.full((50, 50, 3), 200, np.uint8)}
    made.uns["spatial"] = {"ST": {"images": images, "scalefactors": factors}}
    return made


HEST = {
    "ST": (vendor.shuffled(vendor.st_grid()), 1.1, 100.0, 100.0),
    "Visium": (VISIUM, 0.7, 55.0, 55.0),
    "Xenium in squares": (SQUARES, 0.5, 55.0, 100.0),
}


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("name", HEST)
def test_hest_1k_as_it_comes(tmp_path, name, array):
    known, um_per_px, diameter_um, spot_um = HEST[name]
    size = np.ceil(known.positions.max(axis=0)).astype(int) + 100
    picture = tmp_path / "SPA0.tif"
    resolution = (1e4 / um_per_px,) * 2
    tifffile.imwrite(
        picture, np.full((size[1], size[0], 3), 230, np.uint8), photometric="rgb", tile=(256, 256),
        compression="jpeg", resolution=resolution, resolutionunit="centimeter",
    )  # fmt: skip
    section = read(hest(known, um_per_px, diameter_um, array), tmp_path, image=str(picture))
    as_known(section, known)
    about = section.uns["section"]
    assert about["um_per_px"] == pytest.approx(um_per_px, rel=2e-3)
    assert (about["spot_um"], about["image"], about["image_scale"]) == (spot_um, str(picture), 1.0)
    assert about["um_per_px_from"].endswith("and SPA0.tif's own pixel size agree")


def test_hest_1ks_visium_hd_has_its_scale_from_the_picture_alone(tmp_path):
    """Bins of 16 µm pooled to squares of 128: nothing in the file but their width in px."""
    known = vendor.grid(128.0, 128.0, 0.5, vendor.st_names)
    made = hest(known, 0.5, 128.0, array=False)
    told(made, tmp_path, "a square layout with a pitch of 256 px, spot_diameter_fullres of 256 px", "column um_per_px")
    tifffile.imwrite(tmp_path / "TENX.tif", np.full((64, 64, 3), 230, np.uint8), photometric="rgb",
                     resolution=(2e4, 2e4), resolutionunit="centimeter")  # fmt: skip
    about = read(made, tmp_path, image=str(tmp_path / "TENX.tif")).uns["section"]
    assert (about["um_per_px"], about["spot_um"]) == (pytest.approx(0.5), pytest.approx(128, rel=2e-3))


def test_bins_of_visium_hd_have_their_width_in_their_barcodes(tmp_path):
    known = vendor.shuffled(vendor.truth("visium_hd"))
    about = read(anndata_of(known), tmp_path).uns["section"]
    assert (about["um_per_px"], about["spot_um"]) == (pytest.approx(known.um_per_px, rel=2e-3), 8.0)


def test_the_picture_inside_a_file_of_hest_1k(tmp_path):
    known, um_per_px, diameter_um, _ = HEST["Visium"]
    row = written(hest(known, um_per_px, diameter_um), tmp_path)
    about = readers.read_section(row | {"image": row["path"]}).uns["section"]
    assert about["image_scale"] == 0.05
    with open_image(about["image"]) as picture:
        assert picture.size_px(0) == (50, 50)


@pytest.mark.skipif(not HER2ST.is_dir(), reason=f"no {HER2ST}")
@pytest.mark.parametrize("name", ["A1", "B4", "E2"])
def test_real_sections_in_the_form_of_hest_1k(tmp_path, name):
    """Real spots, a tenth of a pitch off their places; the library's pixel size is that of one row of spots."""
    row = {"section": name, "platform": "st", "path": str(HER2ST / f"ST-cnts/{name}.tsv.gz")}
    spots = readers.read_section(row)
    um_per_px = spots.uns["section"]["um_per_px"]
    place = np.array([name.split("x") for name in spots.obs_names], int)
    longest = place[:, 0] == np.bincount(place[:, 0]).argmax()
    ends = np.flatnonzero(longest)[[place[longest, 1].argmin(), place[longest, 1].argmax()]]
    apart_px = np.linalg.norm(np.subtract(*spots.obsm["spatial"][ends]))
    theirs = 200 * np.ptp(place[ends, 1]) / apart_px
    made = spots.copy()
    made.obs["array_row"], made.obs["array_col"], made.obs["in_tissue"] = *place.T, True
    made.obs["pxl_col_in_fullres"], made.obs["pxl_row_in_fullres"] = made.obsm["spatial"].T
    factors = {"tissue_downscaled_fullres_scalef": 0.1, "spot_diameter_fullres": 100 / theirs}
    made.uns = {"spatial": {"ST": {"images": {}, "scalefactors": factors}}}
    for columns in (made.obs, made.obs[[]]):
        made.obs = columns
        section = read(made, tmp_path)
        assert section.uns["section"]["um_per_px"] == pytest.approx(um_per_px, rel=0.01)
        assert section.uns["section"]["spot_um"] == 100.0
        np.testing.assert_array_equal(section.X.toarray(), spots.X.toarray())


@pytest.mark.parametrize("diameter", [1.0, 0.17, 2.5, 100.0])
def test_a_dummy_for_the_diameter_changes_no_scale(tmp_path, caplog, diameter):
    """Scripts that make Visium-like files write any number; barcodes and layout say that these are Visium's spots."""
    factors = {"spot_diameter_fullres": diameter}
    for array in (True, False):
        caplog.clear()
        section = read(anndata_of(VISIUM, factors, array=array), tmp_path)
        assert section.uns["section"]["um_per_px"] == pytest.approx(0.7, rel=2e-3)
        contradicts = abs(65 / diameter / 0.7 - 1) > 0.15
        assert (f"spot_diameter_fullres of {diameter:g} px" in caplog.text) == contradicts
    # without barcodes, nothing tells these hexagons from those of another width
    anonymous = anndata_of(VISIUM, factors, array=False)
    anonymous.obs_names = [f"s{n}" for n in range(anonymous.n_obs)]
    if contradicts:
        told(anonymous, tmp_path, "contradictory µm per px", "hexagonal layout", f"of {diameter:g} px", "um_per_px")


@pytest.mark.parametrize("diameter", [None, 0.0, "NA", "", math.nan, -5.0])
def test_what_is_no_number_is_no_diameter(tmp_path, caplog, diameter):
    section = read(anndata_of(VISIUM, {"spot_diameter_fullres": diameter}), tmp_path)
    assert section.uns["section"]["um_per_px"] == pytest.approx(0.7, rel=2e-3)
    assert "not used: spot_diameter_fullres = " in caplog.text


def test_an_array_of_another_pitch_is_not_taken_for_st(tmp_path):
    """106 µm and spots of 55 µm: half a pitch, nearly."""
    known = vendor.shuffled(vendor.grid(150 / math.sqrt(2), 55.0, 1.1, vendor.st_names))
    made = hest(known, 1.1, 55.0)
    told(made, tmp_path, "do not give the pixel size", "pitch of 96.42 px", "spot_diameter_fullres of 50 px")
    about = read(made, tmp_path, um_per_px="1.1", spot_um="55").uns["section"]
    assert (about["um_per_px"], about["spot_um"]) == (1.1, 55.0)


def squares(side, pitch_px, diameter_px, **factors):
    """`side` x `side` spots of a square layout without array places, with the scale factors."""
    known = vendor.grid(pitch_px, pitch_px, 1.0, vendor.st_names)
    row, column = (index.ravel() for index in np.indices((side, side)))
    counts = np.random.default_rng(1).poisson(np.where(np.arange(60) % 2, row[:, None], column[:, None]) + 1.0)
    made = anndata.AnnData(
        counts.astype(np.float32), obs=pd.DataFrame(index=[f"s{n}" for n in range(side**2)]),
        var=pd.DataFrame(index=known.genes), obsm={"spatial": np.column_stack([column, row]) * pitch_px + 50.0},
    )  # fmt: skip
    made.uns["spatial"] = {"lib": {"images": {}, "scalefactors": {"spot_diameter_fullres": diameter_px} | factors}}
    return made


def test_squares_as_wide_as_their_gaps_are_not_the_st_array_if_they_are_too_many(tmp_path):
    """DBiT-seq: 50 x 50 pixels of 50 µm, 100 µm apart."""
    told(squares(50, 200.0, 100.0), tmp_path, "a square layout with a pitch of 200 px", "more places than the ST array")
    assert read(squares(33, 200.0, 100.0), tmp_path).uns["section"]["um_per_px"] == pytest.approx(1.0)


def test_a_bin_size_that_was_left_over_is_not_the_width(tmp_path, caplog):
    """Bins of 8 µm that someone has summed to squares of 48 µm, and bins that are as they were."""
    factors = {"bin_size_um": 8.0, "microns_per_pixel": 0.3}
    about = read(squares(20, 160.0, 160.0, **factors), tmp_path).uns["section"]
    assert (about["um_per_px"], about["spot_um"]) == (0.3, pytest.approx(48.0))
    assert "bin_size_um of 8 is not used: a square layout with a pitch of 160 px" in caplog.text
    assert read(squares(20, 8 / 0.3, 8 / 0.3, **factors), tmp_path).uns["section"]["spot_um"] == 8.0


def test_places_of_an_array_are_no_px(tmp_path):
    made = squares(20, 1.0, 0.5)
    told(made, tmp_path, "would overlap", "places of an array", um_per_px="1", spot_um="100")


def test_a_picture_of_exactly_one_um_per_px_is_doubted(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a.tif", np.full((64, 64, 3), 230, np.uint8), photometric="rgb",
                     resolution=(1e4, 1e4), resolutionunit="centimeter")  # fmt: skip
    section = read(squares(20, 128.0, 128.0), tmp_path, image=str(tmp_path / "a.tif"))
    assert section.uns["section"]["um_per_px"] == 1.0
    assert "many programs write 1 µm per px without knowing it" in caplog.text


def test_text_and_missing_places_of_the_array(tmp_path, caplog):
    rows = VISIUM.array[:, 0]
    for values in (rows.astype(str), pd.array(rows, "Int64"), pd.Categorical(rows)):
        section = read(anndata_of(VISIUM, array_row=values), tmp_path)
        assert section.uns["section"]["um_per_px_from"].startswith("array pitch of 100 µm")
    for values in (["NA", *rows[1:].astype(str)], pd.array([None, *rows[1:]], "Int64")):
        caplog.clear()
        section = read(anndata_of(VISIUM, array_row=values), tmp_path)
        assert "obs['array_row'] and obs['array_col'] are not used: 1 spots have no number" in caplog.text
        assert section.uns["section"]["um_per_px"] == pytest.approx(0.7, rel=2e-3)


@pytest.mark.parametrize("kind", ["index", "column", "boolean", "library"])
def test_encodings_of_other_versions(tmp_path, kind):
    """Pandas' own strings as names and in a column, nullable booleans, and a library id with a slash."""
    made = anndata_of(VISIUM, {"spot_diameter_fullres": 65 / 0.7})
    if kind == "index":
        made.obs.index = pd.Index(VISIUM.ids, dtype="string")
        made.var.index = pd.Index(VISIUM.genes, dtype="string")
    if kind == "column":
        made.obs["n"] = pd.array(["x"] * made.n_obs, "string")
    if kind == "boolean":
        made.obs["in_tissue"] = pd.array([True] * made.n_obs, "boolean")
    if kind == "library":
        made.uns["spatial"] = {"Sample 1/left": made.uns["spatial"]["lib"]}
    section = read(made, tmp_path)
    as_known(section, VISIUM)
    assert section.uns["section"]["um_per_px"] == pytest.approx(0.7, rel=2e-3)


# --- several sections -------------------------------------------------------------------------------------------------


def two(shift, merge="unique", array=False, label="library_id"):
    """`sc.concat` of two sections of one array, the second shifted and with twice the counts."""
    parts = []
    for number, name in enumerate(("left", "right")):
        picture = np.full((40, 40 + number, 3), 0.5, np.float32)
        part = anndata_of(VISIUM, {"tissue_hires_scalef": 0.2, "spot_diameter_fullres": 65 / 0.7}, array, f"V10 {name}")
        part.uns["spatial"][f"V10 {name}"]["images"] = {"hires": picture}
        part.obsm["spatial"] = part.obsm["spatial"] + np.array(shift) * number
        part.X = part.X * (number + 1)
        parts.append(part)
    keys = ["V10 left", "V10 right"]
    both = anndata.concat(parts, label=label, keys=keys, uns_merge="unique", index_unique="-")
    if merge == "left alone":
        del both.uns["spatial"]["V10 right"]
    return both


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("merge", ["unique", "left alone"])
@pytest.mark.parametrize("shift", [(37.3, 21.7), (5000.0, 0.0)])
@pytest.mark.parametrize("label", ["library_id", "batch", "whatever"])
def test_two_libraries_are_told_and_one_is_chosen(tmp_path, shift, merge, array, label):
    both = two(shift, merge, array, label)
    told(both, tmp_path, "2 sections in one file, V10 left, V10 right", f"obs['{label}']", "column library")
    # the scale of the sheet is no answer to which section
    told(both, tmp_path, "2 sections in one file", um_per_px="0.7", spot_um="55")
    told(both, tmp_path, "no library 'V10'", "the file has V10 left, V10 right", library="V10")
    for number, name in enumerate(("V10 left", "V10 right")):
        row = written(both, tmp_path)
        for cells in ({"library": name}, {"path": f"{row['path']}#{name}"}):
            section = readers.read_section(row | cells)
            assert section.n_obs == 230
            order = [VISIUM.ids.index(spot.removesuffix(f"-{name}")) for spot in section.obs_names]
            np.testing.assert_array_equal(section.X.toarray(), VISIUM.counts[order] * (number + 1))
            np.testing.assert_allclose(section.obsm["spatial"], VISIUM.positions[order] + np.array(shift) * number)
            assert section.uns["section"]["um_per_px"] == pytest.approx(0.7, rel=2e-3)
        if merge == "unique":
            inside = readers.read_section(row | {"library": name, "image": row["path"]}).uns["section"]["image"]
            with open_image(inside) as picture:
                assert picture.size_px(0) == (40 + number, 40)


def test_barcodes_that_occur_twice_are_of_two_sections(tmp_path):
    both = two((5000.0, 0.0))
    del both.obs["library_id"], both.uns
    told(both, tmp_path, "2 sections in one file, -1-V10 left, -1-V10 right", "what follows the barcodes")
    assert read(both, tmp_path, library="-1-V10 left").n_obs == 230


def test_samples_that_lie_over_each_other_are_two_sections(tmp_path):
    both = two((37.3, 21.7), label="sample")
    both.obs_names = [f"s{n}" for n in range(both.n_obs)]
    del both.uns
    told(both, tmp_path, "V10 left, V10 right", "obs['sample'], whose spots lie on each other's places")


def test_pieces_of_one_section_are_one_section(tmp_path):
    """Two patients on one array, a subset of a concatenated file, and CELLxGENE's flag."""
    pieces = np.where(VISIUM.positions[:, 0] < np.median(VISIUM.positions[:, 0]), "P1", "P2")
    as_known(read(anndata_of(VISIUM, sample=pieces, patient=pieces), tmp_path), VISIUM)
    subset = two((5000.0, 0.0))[:230].copy()
    assert list(subset.uns["spatial"]) == ["V10 left", "V10 right"]
    assert read(subset, tmp_path).n_obs == 230
    single = anndata_of(VISIUM, {"spot_diameter_fullres": 65 / 0.7})
    single.uns["spatial"]["is_single"] = True
    as_known(read(single, tmp_path), VISIUM)
    for no in (False, "FALSE", 0, np.array([False])):
        single.uns["spatial"]["is_single"] = no
        told(single, tmp_path, "is_single: False")


def test_two_libraries_that_nothing_tells_apart(tmp_path, caplog):
    made = anndata_of(VISIUM, {"spot_diameter_fullres": 65 / 0.7})
    made.uns["spatial"]["other"] = made.uns["spatial"]["lib"]
    told(made, tmp_path, "2 sections in one file, lib, other, by uns['spatial']")
    as_known(read(made, tmp_path, library="other"), VISIUM)
    assert "nothing in obs tells its 2 libraries apart: all spots are read" in caplog.text


def test_libraries_named_as_the_tissue_is_told(tmp_path):
    """0 and 1 are libraries here, and not whether a spot is in the tissue."""
    both = two((5000.0, 0.0))
    both.uns["spatial"] = dict(zip("01", both.uns["spatial"].values(), strict=True))
    inside = np.tile(np.arange(230) >= 10, 2).astype(int)
    both.obs = pd.DataFrame({"in_tissue": inside, "batch": np.repeat(["0", "1"], 230)}, index=both.obs_names)
    section = read(both, tmp_path, library="1")
    np.testing.assert_array_equal(section.X.toarray(), VISIUM.counts[10:] * 2)


def test_a_stack_of_sections_is_told(tmp_path):
    made = anndata_of(VISIUM)
    stack = np.column_stack([VISIUM.positions, np.arange(230) % 2])
    for places in (stack, pd.DataFrame(stack, columns=["x", "y", "z"], index=VISIUM.ids)):
        made.obsm["spatial"] = places
        told(made, tmp_path, "a third coordinate of 2 values", "one file per section")


def test_a_subset_keeps_its_picture_among_others(tmp_path):
    """`adata[adata.obs.library_id == ...]` keeps all of `uns["spatial"]`."""
    subset = two((5000.0, 0.0))[230:].copy()
    row = written(subset, tmp_path)
    section = readers.read_section(row | {"image": row["path"]})
    assert section.n_obs == 230
    with open_image(section.uns["section"]["image"]) as picture:
        assert picture.size_px(0) == (41, 40)


def test_libraries_named_in_another_way_in_obs(tmp_path):
    both = two((5000.0, 0.0))
    both.obs["library_id"] = both.obs["library_id"].cat.rename_categories(["s1", "s2"])
    told(both, tmp_path, "no library 'V10 left': the file has s1, s2", library="V10 left")
    row = written(both, tmp_path)
    with pytest.raises(InputError, match="names the library 's1', column library 's2'; keep one"):
        readers.read_section(row | {"path": f"{row['path']}#s1", "library": "s2"})


def test_libraries_told_apart_by_numbers(tmp_path):
    both = two((5000.0, 0.0))
    both.uns["spatial"] = dict(zip("12", both.uns["spatial"].values(), strict=True))
    both.obs = pd.DataFrame({"slide_nr": np.repeat([1, 2], 230)}, index=[f"s{n}" for n in range(460)])
    told(both, tmp_path, "2 sections in one file, 1, 2, by obs['slide_nr']")
    np.testing.assert_array_equal(read(both, tmp_path, library="2").X.toarray(), VISIUM.counts * 2)


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        ["pxl_row_in_fullres", "pxl_col_in_fullres"],
        ["y", "x"],
        ["imagerow", "imagecol"],
        ["Y_centroid", "X_centroid"],
        ["pixel_y", "pixel_x"],
        ["axis_y", "axis_x"],
        ["array_row", "array_col"],
    ],
)
def test_named_coordinates_are_believed(tmp_path, columns):
    made = anndata_of(VISIUM)
    made.obsm["spatial"] = pd.DataFrame(VISIUM.positions[:, ::-1], columns=columns, index=VISIUM.ids)
    as_known(read(made, tmp_path), VISIUM)


def test_coordinates_of_unknown_names_are_told(tmp_path):
    made = anndata_of(VISIUM)
    made.obsm["spatial"] = pd.DataFrame(VISIUM.positions, columns=["first", "second"], index=VISIUM.ids)
    told(made, tmp_path, "obsm['spatial']", "first, second", "name them x and y")


@pytest.mark.parametrize(
    ("spoil", "word"), [(lambda p: p[:, ::-1], "exchanges x and y"), (lambda p: p / 4, "contradi")]
)
def test_px_columns_are_believed_over_unnamed_coordinates(tmp_path, caplog, spoil, word):
    made = anndata_of(VISIUM)
    made.obs["pxl_col_in_fullres"], made.obs["pxl_row_in_fullres"] = VISIUM.positions.T
    made.obsm["spatial"] = spoil(VISIUM.positions).copy()
    as_known(read(made, tmp_path), VISIUM)
    assert word in caplog.text
    assert VISIUM.ids[0] in caplog.text
    del made.obsm["spatial"]
    as_known(read(made, tmp_path), VISIUM)


@pytest.mark.parametrize(
    ("word", "outside"),
    [("TRUE", "FALSE"), ("true", "false"), ("in tissue", "not in tissue"), ("1", "0"), (1, 0), (1.0, 0.0),
     (True, False), ("Yes", "No")],
)  # fmt: skip
def test_spots_in_the_tissue(tmp_path, word, outside):
    values = [outside] * 10 + [word] * 220
    assert list(read(anndata_of(VISIUM, in_tissue=values), tmp_path).obs_names) == VISIUM.ids[10:]


def test_unknown_words_for_in_tissue_are_told(tmp_path):
    told(anndata_of(VISIUM, in_tissue=["perhaps"] * 5 + ["1"] * 225), tmp_path, "in_tissue", "perhaps", "5 spots")


# --- counts and genes -------------------------------------------------------------------------------------------------


def corrected(counts):
    return np.rint(np.minimum(counts, 40) * 0.8)


@pytest.mark.parametrize("spoil", [corrected, lambda c: c > 0, lambda c: np.rint(np.log1p(c)), np.log1p])
@pytest.mark.parametrize("place", ["counts", "raw_counts", "raw.counts", "UMI counts", "RNA_counts", "raw"])
def test_what_is_named_counts_comes_before_whole_numbers_in_x(tmp_path, caplog, spoil, place):
    made = anndata_of(VISIUM)
    if place == "raw":
        made.raw = made.copy()
    else:
        made.layers[place] = made.X.copy()
    made.X = spoil(made.X).astype(np.float32)
    as_known(read(made, tmp_path), VISIUM)
    assert ("and X both hold whole numbers, but not the same" in caplog.text) == (spoil is not np.log1p)


def test_more_genes_come_before_fewer(tmp_path, caplog):
    made = anndata_of(VISIUM)
    few = made[:, :10].copy()
    few.raw = made
    as_known(read(few, tmp_path), VISIUM)
    few.layers["counts"] = few.X.copy()
    as_known(read(few, tmp_path), VISIUM)
    assert caplog.text == ""  # they agree


def test_rounded_logs_alone_are_doubted(tmp_path, caplog):
    made = anndata_of(VISIUM)
    made.X, made.uns["log1p"] = np.rint(np.log1p(made.X)), {"base": None}
    read(made, tmp_path)
    assert "uns['log1p'] says that X was logged" in caplog.text
    caplog.clear()
    made.X = (made.X > 0).astype(np.float32)
    read(made, tmp_path)
    assert "every count is 0 or 1" in caplog.text


@pytest.mark.parametrize("gene", ["Gene Expression", "gene_expression", "Gene"])
def test_features_that_are_no_genes_are_left_out(tmp_path, caplog, gene):
    made = anndata_of(VISIUM)
    made.var["feature_types"] = [gene] * 57 + ["Antibody Capture", "Negative Control Probe", "Blank Codeword"]
    section = read(made, tmp_path)
    assert list(section.var_names) == VISIUM.genes[:57]
    np.testing.assert_array_equal(section.X.toarray(), VISIUM.counts[:, :57])
    assert "3 of 60 features are no genes and are left out: Antibody Capture, Negative Control Probe" in caplog.text
    for name, kind in (
        ("feature_types", "Antibody Capture"),
        ("feature.types", "ADT"),
        ("Feature Type", "Protein Expression"),
    ):
        only = anndata_of(VISIUM)
        only.var[name] = kind
        told(only, tmp_path, "no feature of type 'Gene Expression'", kind)


def test_types_in_other_spellings_and_columns(tmp_path):
    """R's dots, and CELLxGENE's feature_biotype beside another column of types."""
    made = anndata_of(VISIUM)
    made.var["feature.types"] = ["Gene.Expression"] * 55 + ["Antibody.Capture"] * 5
    assert list(read(made, tmp_path).var_names) == VISIUM.genes[:55]
    made = anndata_of(VISIUM)
    made.var["feature_type"], made.var["feature_biotype"] = "protein_coding", ["gene"] * 58 + ["spike-in"] * 2
    assert list(read(made, tmp_path).var_names) == VISIUM.genes[:58]


def test_controls_are_told_by_their_names_where_there_is_no_type(tmp_path, caplog):
    made = anndata_of(VISIUM)
    names = ["NegControlProbe_0001", "BLANK_0006", "UnassignedCodeword_12", "Negative1", "NegPrb4"]
    made.var_names = [*VISIUM.genes[:55], *names]
    assert list(read(made, tmp_path).var_names) == VISIUM.genes[:55]
    assert "5 of 60 features are no genes" in caplog.text


def test_encodings_of_no_anndata_are_told(tmp_path):
    def of_a_newer_version(handle):
        handle["uns"].create_group("new").attrs.update({"encoding-type": "awkward-quilt", "encoding-version": "9.0.0"})

    told(anndata_of(VISIUM), tmp_path, "not an AnnData file", "write it with anndata again", edit=of_a_newer_version)


# --- metadata of any kind ---------------------------------------------------------------------------------------------

ANYTHING = st.one_of(
    st.none(), st.just(math.nan), st.just(0), st.integers(-5, 5), st.floats(allow_nan=False, width=32), st.booleans(),
    st.text(max_size=5), st.just(np.arange(3)), st.just(np.zeros((2, 2))), st.just(["a", "b"]), st.just({}),
    st.just({"a": 1}),
)  # fmt: skip
FACTORS = ("spot_diameter_fullres", "tissue_hires_scalef", "microns_per_pixel", "bin_size_um")
FIELDS = [
    *(("uns", "spatial", "lib", "scalefactors", name) for name in FACTORS),
    ("uns", "spatial", "lib", "scalefactors"), ("uns", "spatial", "lib", "images"), ("uns", "spatial", "lib"),
    ("uns", "spatial", "is_single"), ("uns", "spatial"), ("uns", "section"), ("uns", "section", "um_per_px"),
    ("uns", "section", "spot_um"), ("uns", "log1p"),
]  # fmt: skip
COLUMNS = ("array_row", "array_col", "in_tissue", "pxl_col_in_fullres", "library_id", "sample")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(field=st.sampled_from(FIELDS), value=ANYTHING, image=st.booleans())
def test_any_value_in_any_field_is_read_rightly_or_told(tmp_path_factory, field, value, image):
    made = anndata_of(VISIUM, {"spot_diameter_fullres": 65 / 0.7, "tissue_hires_scalef": 0.2})
    made.uns["section"] = {}
    place = made.uns
    for name in field[1:-1]:
        place = place[name]
    place[field[-1]] = value
    try:
        row = written(made, tmp_path_factory.mktemp("any"))
    except (TypeError, ValueError, OverflowError):
        return  # no file can hold this
    checked_or_told(row | ({"image": row["path"]} if image else {}), field, value)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(column=st.sampled_from(COLUMNS), value=ANYTHING.filter(np.isscalar), everywhere=st.booleans())
def test_any_value_in_any_column_is_read_rightly_or_told(tmp_path_factory, column, value, everywhere):
    made = anndata_of(VISIUM, in_tissue=1, library_id="lib", sample="S")
    made.obs["pxl_col_in_fullres"], made.obs["pxl_row_in_fullres"] = VISIUM.positions.T
    values = made.obs[column].astype(object)
    values.iloc[slice(None) if everywhere else slice(3)] = value
    made.obs[column] = values
    try:
        row = written(made, tmp_path_factory.mktemp("any"))
    except (TypeError, ValueError, OverflowError):
        return
    checked_or_told(row, (column,), value)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(column=st.sampled_from(("feature_types", "gene_symbols", "gene_ids")), value=ANYTHING.filter(np.isscalar))
def test_any_value_in_any_column_of_genes_is_read_rightly_or_told(tmp_path_factory, column, value):
    made = anndata_of(VISIUM)
    usual = {"feature_types": "Gene Expression", "gene_symbols": VISIUM.genes, "gene_ids": "ENSG00000000001"}
    for name, values in usual.items():
        made.var[name] = values
    values = made.var[column].astype(object)
    values.iloc[:3] = value
    made.var[column] = values
    try:
        row = written(made, tmp_path_factory.mktemp("any"))
    except (TypeError, ValueError, OverflowError):
        return
    section = readers.read_section(row)
    genes = VISIUM.genes[3:] if column == "feature_types" else VISIUM.genes
    assert list(section.var_names) == genes


def checked_or_told(row, field, value) -> None:
    """Either an InputError, or a section with the right scale, positions and counts."""
    try:
        section = readers.read_section(row)
    except InputError:
        return
    order = [VISIUM.ids.index(name) for name in section.obs_names]
    np.testing.assert_array_equal(section.X.toarray(), VISIUM.counts[order])
    np.testing.assert_allclose(section.obsm["spatial"], VISIUM.positions[order])
    # a plausible number in so many words is believed: the file says what it is
    if field[-1] not in ("um_per_px", "microns_per_pixel"):
        assert section.uns["section"]["um_per_px"] == pytest.approx(0.7, rel=0.01), (field, value)
