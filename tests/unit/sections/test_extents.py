"""A drawing that was made on another picture is told; one of a part of the section is read."""

import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from shapely import affinity

import vendor_files as vendor
from ctrflow.errors import InputError
from ctrflow.sections.labels import read_labels

WORDS = {"tumor": 1.0, "stroma": 0.0}
VISIUM = vendor.truth("visium")  # 230 spots in an oval, from (77, 106) to (2291, 2333) px
ORIGIN = (0, 0)


def section(centres, **about):
    names = [f"S{n}" for n in range(len(centres))]
    spots = anndata.AnnData(np.ones((len(names), 1)), obs=pd.DataFrame(index=names), obsm={"spatial": centres})
    spots.uns["section"] = {"section": "S1", "spot_um": 55.0, "um_per_px": 0.7, "image_scale": 1.0} | about
    return spots


def read(tmp_path, areas, centres, **about) -> np.ndarray:
    """Labels (1, 0, nan) of a drawing of (shapely area, class)."""
    features = [
        f'{{"type": "Feature", "geometry": {shapely.to_geojson(area)}, "properties": {{"classification": "{word}"}}}}'
        for area, word in areas
    ]
    path = tmp_path / "drawing.geojson"
    path.write_text(f'{{"type": "FeatureCollection", "features": [{", ".join(features)}]}}')
    return read_labels(path, section(centres, **about), WORDS)["label"].astype(float).to_numpy()


def halves(centres) -> list:
    """Tumour left and stroma right of the middle of the section, in a box around it."""
    (x_min, y_min), (x_max, y_max) = centres.min(axis=0) - 50, centres.max(axis=0) + 50
    middle = (x_min + x_max) / 2
    left, right = shapely.box(x_min, y_min, middle, y_max), shapely.box(middle, y_min, x_max, y_max)
    return [(left, "tumor"), (right, "stroma")]


def scaled(areas, factor, dx=0.0, dy=0.0) -> list:
    return [(affinity.translate(affinity.scale(area, factor, factor, origin=ORIGIN), dx, dy), w) for area, w in areas]


def outline(centres, margin=50) -> tuple:
    return shapely.box(*(centres.min(axis=0) - margin), *(centres.max(axis=0) + margin)), "Ignore*"


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("shift", [0.0, 2000.0])
def test_halves_on_the_image_of_the_row_are_read(tmp_path, caplog, shift):
    centres = VISIUM.positions + shift
    middle = (centres[:, 0].min() + centres[:, 0].max()) / 2
    np.testing.assert_array_equal(read(tmp_path, halves(centres), centres), centres[:, 0] < middle)
    assert warnings(caplog) == []


@pytest.mark.parametrize("shift", [0.0, 2000.0])
@pytest.mark.parametrize(("factor", "cure"), [(0.5, "2"), (0.2, "5"), (2.0, "0.5"), (0.25, "4"), (4.0, "0.25")])
def test_a_picture_of_another_size_is_told(tmp_path, shift, factor, cure):
    centres = VISIUM.positions + shift
    with pytest.raises(InputError) as caught:
        read(tmp_path, scaled(halves(centres), factor), centres)
    message = str(caught.value)
    low, high = (centres.min(axis=0) - 50) * factor, (centres.max(axis=0) + 50) * factor
    assert f"the polygons span x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}" in message
    assert f"the spots x {centres[:, 0].min():.0f} to {centres[:, 0].max():.0f}" in message
    assert f"multiplied by {cure}, they would contain 100% of the 230 spots" in message
    assert f"as if drawn on a picture {factor:.4g} times the size; export them from the image in the section" in message
    assert "check its column image_scale" in message


def test_a_size_that_is_no_round_number_is_told(tmp_path):
    # Space Ranger's hires picture of the section in 10x's first data set, in the middle of its slide
    centres = VISIUM.positions + 2000
    with pytest.raises(InputError, match=r"multiplied by 6\.\d+, they would contain 100% of the 230 spots"):
        read(tmp_path, scaled(halves(centres), 0.150015), centres)


def test_a_size_that_is_nearly_right_is_told(tmp_path, caplog):
    read(tmp_path, scaled(halves(VISIUM.positions), 0.8), VISIUM.positions)
    (told,) = warnings(caplog)
    assert "multiplied by 1.2" in told
    assert "would contain 100% of the 230 spots" in told


@pytest.mark.parametrize(("dx", "dy"), [(900, 0), (-700, -500), (2000, 0), (0, 5000)])
def test_a_part_of_the_image_is_told(tmp_path, dx, dy):
    with pytest.raises(InputError) as caught:
        read(tmp_path, scaled(halves(VISIUM.positions), 1, dx, dy), VISIUM.positions)
    assert f"moved by x {-dx:+d}, y {-dy:+d}, they would contain 100% of the 230 spots" in str(caught.value)


def test_rows_and_columns_exchanged_are_told(tmp_path):
    centres = VISIUM.positions + np.array([3000, 0])
    turned = [(shapely.transform(area, lambda xy: xy[:, ::-1]), word) for area, word in halves(centres)]
    with pytest.raises(
        InputError, match="with x and y exchanged, they would contain 100% of the 230 spots, as if writ"
    ):
        read(tmp_path, turned, centres)


def test_micrometres_are_told(tmp_path):
    centres = VISIUM.positions + 2000
    with pytest.raises(InputError, match=r"multiplied by 1\.429, they would contain 100%"):  # 1 / 0.7 µm per px
        read(tmp_path, scaled(halves(centres), 0.7), centres)


NESTS = [(size, x, y) for size in (0.15, 0.3, 0.5) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)]


@pytest.mark.parametrize(("size", "x", "y"), NESTS)
@pytest.mark.parametrize("rim", [False, True])
def test_a_nest_in_any_corner_is_read(tmp_path, size, x, y, rim):
    centres = VISIUM.positions
    low, width = centres.min(axis=0), np.ptp(centres, axis=0)
    corner = low + np.array([x, y]) * (1 - size) * width
    nest = shapely.box(*corner, *(corner + size * width))
    spots = shapely.points(centres)
    inside = shapely.contains(nest, spots)
    if not inside.any():  # beside the oval
        nest, inside = nest.buffer(300), shapely.contains(nest.buffer(300), spots)
    around = nest.buffer(70).difference(nest)
    labels = read(tmp_path, [(nest, "tumor"), *([(around, "stroma")] if rim else [])], centres)
    expected = np.where(inside, 1.0, np.where(rim & shapely.contains(around, spots), 0.0, np.nan))
    np.testing.assert_array_equal(labels, expected)


def test_a_nest_on_tissue_gives_no_warning(tmp_path, caplog):
    low, width = VISIUM.positions.min(axis=0), np.ptp(VISIUM.positions, axis=0)
    corners = low + 0.2 * width, low + 0.5 * width
    inside = ((VISIUM.positions > corners[0]) & (VISIUM.positions < corners[1])).all(axis=1)
    labels = read(tmp_path, [(shapely.box(*corners[0], *corners[1]), "tumor")], VISIUM.positions)
    np.testing.assert_array_equal(labels, np.where(inside, 1.0, np.nan))
    assert warnings(caplog) == []


def test_a_slide_of_four_annotated_sections_is_read(tmp_path, caplog):
    step = np.ptp(VISIUM.positions, axis=0) * 1.2
    areas = [
        (affinity.translate(area, column * step[0], row * step[1]), word)
        for area, word in halves(VISIUM.positions)
        for row in (0, 1)
        for column in (0, 1)
    ]
    middle = (VISIUM.positions[:, 0].min() + VISIUM.positions[:, 0].max()) / 2
    np.testing.assert_array_equal(read(tmp_path, areas, VISIUM.positions), VISIUM.positions[:, 0] < middle)
    assert warnings(caplog) == []


def test_what_is_right_after_all_can_be_said(tmp_path):
    quarter = scaled(halves(VISIUM.positions), 0.5)
    with pytest.raises(InputError, match=r"add an outline of the whole section.* with the class Ignore\*"):
        read(tmp_path, quarter, VISIUM.positions)
    labels = read(tmp_path, [*quarter, outline(VISIUM.positions)], VISIUM.positions)
    left, right = (shapely.contains(area, shapely.points(VISIUM.positions)) for area, _ in quarter)
    np.testing.assert_array_equal(labels, np.where(left, 1.0, np.where(right, 0.0, np.nan)))
    assert np.isfinite(labels).sum() == 46
    # of two pieces, as the tissue may be, but one object
    pieces = shapely.MultiPolygon([shapely.box(27, 56, 1200, 2383), shapely.box(1201, 56, 2341, 2383)])
    np.testing.assert_array_equal(read(tmp_path, [*quarter, (pieces, "ignore")], VISIUM.positions), labels)


def test_a_slide_that_looks_like_a_larger_picture_is_read_with_an_outline(tmp_path):
    centres = VISIUM.positions
    # two columns and two rows of sections, 2314 x 2327 px from (27, 56), and bands over both rows
    bands = [(shapely.box(27, 56, 1050, 4720), "tumor"), (shapely.box(1318, 56, 2341, 4720), "stroma")]
    areas = [*bands, *((affinity.translate(area, 2320.0), word) for area, word in bands)]
    with pytest.raises(InputError, match=r"multiplied by 0\.5.*with the class Ignore\*"):
        read(tmp_path, areas, centres)
    labels = np.where(centres[:, 0] < 1050, 1.0, np.where(centres[:, 0] > 1318, 0.0, np.nan))
    np.testing.assert_array_equal(read(tmp_path, [*areas, outline(centres)], centres), labels)
    box, word = outline(centres)
    # of another section of the slide, and of a picture that is larger, it says nothing
    with pytest.raises(InputError, match=r"multiplied by 0\.5"):
        read(tmp_path, [*areas, (affinity.translate(box, 2320, 2335), word)], centres)
    with pytest.raises(InputError, match=r"multiplied by 0\.5"):
        read(tmp_path, scaled([*halves(centres), outline(centres)], 2), centres)


def test_a_generous_drawing_beyond_the_image_is_read_with_an_outline(tmp_path):
    tifffile.imwrite(tmp_path / "he.tif", np.zeros((2440, 2400, 3), np.uint8), photometric="rgb")
    image = {"image": str(tmp_path / "he.tif")}
    centres = VISIUM.positions
    areas = [(shapely.box(-200, -200, 2700, 2700), "stroma"), (shapely.box(800, 800, 1200, 1200), "tumor")]
    with pytest.raises(InputError, match=r"30% of the drawn area is beyond.*outline of the whole section"):
        read(tmp_path, areas, centres, **image)
    labels = read(tmp_path, [*areas, outline(centres, 350)], centres, **image)
    np.testing.assert_array_equal(labels, ((centres > 800) & (centres < 1200)).all(axis=1))


def test_scattered_regions_of_a_smaller_picture_give_a_warning(tmp_path, caplog):
    centres = vendor.st_grid().positions
    width = np.ptp(centres, axis=0)
    places = [(0.0, 0.0), (0.75, 0.1), (0.1, 0.75), (0.75, 0.75), (0.35, 0.35)]
    corners = [centres.min(axis=0) + np.array(place) * width for place in places]
    areas = [(shapely.box(*low, *(low + 0.22 * width)), ("tumor", "stroma")[n % 2]) for n, low in enumerate(corners)]
    read(tmp_path, areas, centres)
    assert warnings(caplog) == []
    read(tmp_path, scaled(areas, 0.5), centres)
    (told,) = warnings(caplog)
    assert "multiplied by 2, they would contain" in told


def test_a_drawing_beyond_the_image_is_told(tmp_path):
    tifffile.imwrite(tmp_path / "he.tif", np.zeros((2440, 2400, 3), np.uint8), photometric="rgb")
    image = {"image": str(tmp_path / "he.tif")}
    centres = VISIUM.positions
    # of a nest alone nothing but the image's border tells
    nest = [(shapely.box(1000, 900, 1400, 1500), "tumor")]
    assert np.nansum(read(tmp_path, nest, centres, **image)) == 15
    with pytest.raises(InputError, match=r"\d\d% of the drawn area is beyond the image of 2400 x 2440 px"):
        read(tmp_path, scaled(nest, 2), centres, **image)
    read(tmp_path, scaled(nest, 2), centres, image=str(tmp_path / "not_yet_fetched.tif"))
