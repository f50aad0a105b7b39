"""The project of TissUUmaps: files that it names exist, and what they hold; opened by itself in tests/viewers."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from shapely import geometry

from ctrflow import export
from ctrflow.export.regions import section_regions
from ctrflow.results import verdict
from spot_arrays import section, square

# left red, right blue; 0.25 px of it per full-resolution px
PICTURE = (
    np.where(np.arange(700)[None, :, None] < 350, [200, 40, 40], [40, 40, 200]).repeat(600, axis=0).astype(np.uint8)
)
SCALE = 0.25


def results(picture=PICTURE, scale=SCALE, name="S1"):
    """5 x 5 spots, 100 px apart from (1000, 1000), 2 µm a px; one not scored, two runs, of which one calls nothing."""
    spots = section(square(5, 5), name=name, image_scale=2.0)
    scores = pd.DataFrame({"t|m": np.linspace(0, 1, 25), "t|none": 0.1}, index=spots.obs_names)
    scores.iloc[3, 0] = np.nan
    calls = (scores > 0.5).astype(float).where(scores.notna())
    sd = pd.DataFrame({"t|m": np.full(25, 1.5e-9)}, index=spots.obs_names)
    probability = pd.DataFrame({"t|none": 0.25}, index=spots.obs_names)
    regions = section_regions(spots, calls)
    said = dict.fromkeys(scores, verdict.Verdict())
    return export.Section(spots, scores, calls, sd, probability, said, regions, (picture, scale), {"study": "s"})


def written(folder, one):
    """The project, and the files of its folder by name."""
    export.write(one, {"tissuumaps": folder})
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    [project] = [json.loads(text) for name, text in files.items() if name.endswith(".tmap")]
    return project, files


@pytest.fixture
def made(tmp_path):
    return written(tmp_path / "tissuumaps", results())


def frame(files, name):
    return pd.read_csv(io.BytesIO(files[name]), index_col="spot")


def test_the_folder_is_complete(made):
    project, files = made
    assert set(files) == {"S1.tmap", "he.tif", "spots.csv", "score_t_m.csv", "t_m.json"}
    [markers] = project["markerFiles"]
    named = {one["path"] for one in (markers, *markers["dropdownOptions"], *project["regionFiles"])}
    assert named | {"he.tif"} == set(files) - {"S1.tmap"}
    assert (project["schemaVersion"], project["filename"]) == ("1.3", "S1")


def test_the_picture_is_a_pyramid(made):
    project, files = made
    assert project["layers"] == [{"name": "H&E", "tileSource": "he.tif.dzi"}]
    assert project["mpp"] == 8.0  # a px of the picture is 4 full-resolution px of 2 µm
    with tifffile.TiffFile(io.BytesIO(files["he.tif"])) as tiff:
        assert [page.shape for page in tiff.pages] == [(600, 700, 3), (300, 350, 3), (150, 175, 3)]
        assert all(page.is_tiled for page in tiff.pages)
        for page in tiff.pages:
            pixels = page.asarray().astype(int)
            middle = pixels.shape[1] // 2
            # away from where blocks of JPEG meet another colour
            assert np.abs(pixels[:-16, : middle - 16] - [200, 40, 40]).max() < 8
            assert np.abs(pixels[:-16, middle + 16 : -16] - [40, 40, 200]).max() < 8


def test_spots_have_positions_and_all_results(made):
    project, files = made
    one, table = results(), frame(files, "spots.csv")
    assert list(table) == [
        "x", "y", "score_t_m", "sd_t_m", "call_t_m", "score_t_none", "probability_t_none", "call_t_none",
    ]  # fmt: skip
    assert list(table.index) == list(one.spots.obs_names)
    assert table[["x", "y"]].to_numpy().tolist() == one.spots.obsm["spatial"].tolist()
    assert table["score_t_m"].to_numpy() == pytest.approx(one.scores["t|m"].to_numpy(), abs=1e-6, nan_ok=True)
    assert table["sd_t_m"].tolist() == [1.5e-9] * 25
    assert table["call_t_m"].value_counts().to_dict() == {"other": 12, "cancer": 12, "not scored": 1}
    [markers] = project["markerFiles"]
    header = markers["expectedHeader"]
    assert (header["X"], header["Y"], header["coord_factor"]) == ("x", "y", 0.25)
    assert header["scale_factor"] == 12.5  # 100 µm are 50 full-resolution px


def test_a_number_is_shown_where_it_is_known(made):
    """TissUUmaps draws a missing number like the lowest."""
    project, files = made
    options = {one["name"]: one for one in project["markerFiles"][0]["dropdownOptions"]}
    assert options["score_t_m"]["path"] == "score_t_m.csv"
    table = frame(files, "score_t_m.csv")
    assert list(table) == ["x", "y", "score_t_m"]
    assert list(table.index) == [f"s{i}" for i in range(25) if i != 3]
    assert {one["path"] for name, one in options.items() if name != "score_t_m"} == {"spots.csv"}


def test_each_column_has_its_colours(made):
    options = {one["name"]: one for one in made[0]["markerFiles"][0]["dropdownOptions"]}
    assert next(iter(options)) == "score_t_m"  # shown first
    number, call = options["score_t_m"], options["call_t_m"]
    assert (number["expectedHeader.cb_col"], number["expectedHeader.gb_col"]) == ("score_t_m", "")
    assert (number["expectedRadios.cb_col"], number["expectedRadios.cb_gr"]) == (True, False)
    assert call["expectedHeader.gb_col"] == "call_t_m"
    assert (call["expectedRadios.cb_col"], call["expectedRadios.cb_gr"]) == (False, True)
    assert json.loads(call["expectedHeader.cb_gr_dict"]) == {
        "cancer": "#d55e00", "other": "#56b4e9", "not scored": "#9a9a9a",
    }  # fmt: skip
    scored = json.loads(options["call_t_none"]["expectedHeader.cb_gr_dict"])
    assert scored == {"cancer": "#d55e00", "other": "#56b4e9"}


def test_regions_are_in_px_of_the_picture(made):
    project, files = made
    assert project["regionFiles"] == [{"title": "Regions t_m", "path": "t_m.json", "autoLoad": False}]
    [feature] = json.loads(files["t_m.json"])["features"]
    shape = geometry.shape(feature["geometry"])
    one = results()
    inside = [shape.contains(geometry.Point(place * SCALE)) for place in one.spots.obsm["spatial"]]
    assert inside == (one.calls["t|m"] == 1).tolist()
    assert feature["properties"]["classification"]["color"] == [213, 94, 0]
    assert feature["properties"]["measurements"]["Area µm^2"] == pytest.approx(12 * 200**2, rel=0.01)


def test_a_section_without_picture_is_shown_in_its_own_px(tmp_path):
    project, files = written(tmp_path, results(picture=None, scale=0.0, name="my section/1"))
    assert "my_section_1.tmap" in files
    assert "he.tif" not in files
    assert (project["layers"], project["mpp"]) == ([], 2.0)
    header = project["markerFiles"][0]["expectedHeader"]
    assert (header["coord_factor"], header["scale_factor"]) == (1.0, 50.0)
    [feature] = json.loads(files["t_m.json"])["features"]
    assert geometry.shape(feature["geometry"]).contains(geometry.Point(1400, 1400))


def test_a_second_export_is_the_same_to_the_byte(made, tmp_path):
    assert written(tmp_path / "again", results())[1] == made[1]
