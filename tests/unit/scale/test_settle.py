"""What decides µm per px: sources that agree, contradict each other, or cannot be."""

import logging
import math

import numpy as np
import pytest
import tifffile

from ctrflow.errors import InputError
from ctrflow.scale import arrays
from ctrflow.scale.settle import Claim, of_diameter, of_hexagons, of_layout, positive, settle

ROW = {"section": "S1", "path": "S1.h5ad"}
ARRAY = Claim(0.7, "array pitch", sure=True)
HEXAGON = np.array([(x + (y % 2) / 2, y * math.sqrt(3) / 2) for y in range(9) for x in range(9)])
SQUARE = np.array([(x, y) for y in range(9) for x in range(9)], float)


def picture(path, um_per_px: float | None):
    pixels = np.full((64, 64, 3), 200, np.uint8)
    resolution = {"resolution": (1e4 / um_per_px,) * 2, "resolutionunit": "centimeter"} if um_per_px else {}
    tifffile.imwrite(path, pixels, photometric="rgb", **resolution)
    return str(path)


def test_what_agrees_is_taken_and_said(tmp_path, caplog):
    image = picture(tmp_path / "he.tif", 0.35)
    with caplog.at_level(logging.INFO, "ctrflow"):
        scale = settle(ROW, [ARRAY, of_diameter(65 / 0.71)], image, image_scale=2.0)
    assert scale.um_per_px == 0.7
    assert scale.why == (
        "array pitch, spot_diameter_fullres of 91.55 px for 65 µm and he.tif's own pixel size agree"
    )  # 0.35 µm per image px are 0.7 per full-resolution px
    assert caplog.messages == [f"section S1: 0.7 µm per px: {scale.why}"]


@pytest.mark.parametrize("um_per_px", [0.35, None])
def test_an_image_alone_states_the_scale_or_nothing_does(tmp_path, caplog, um_per_px):
    image = picture(tmp_path / "he.tif", um_per_px)
    if um_per_px is None:
        with pytest.raises(InputError, match=r"S1.h5ad: section S1: .* pixel size \(cells\); fill column um_per_px"):
            settle(ROW, [], image, about="cells")
        return
    assert settle(ROW, [], image).um_per_px == pytest.approx(0.35)
    assert caplog.messages == []


def test_what_contradicts_a_sure_source_is_told_with_the_numbers(tmp_path, caplog):
    image = picture(tmp_path / "he.tif", 1.4)
    assert settle(ROW, [ARRAY, of_diameter(1.0)], image).um_per_px == 0.7
    (told,) = caplog.messages
    assert "0.7 µm per px: array pitch alone, but spot_diameter_fullres of 1 px for 65 µm gives 65; he.tif" in told
    assert "gives 1.4; check that" in told


@pytest.mark.parametrize(
    "claims",
    [
        [Claim(0.7, "one"), Claim(1.1, "other")],
        [Claim(0.7, "one", sure=True), Claim(0.75, "other", sure=True)],
    ],
)
def test_nothing_is_guessed_between_equal_sources(claims):
    with pytest.raises(InputError, match=r"contradictory µm per px: one gives 0.7; other gives .*find out which"):
        settle(ROW, claims)
    assert settle(ROW | {"um_per_px": "0.7"}, claims).um_per_px == 0.7


def test_the_sheet_decides_but_is_told_of_the_array(caplog):
    assert settle(ROW | {"um_per_px": "1.1"}, [ARRAY]).um_per_px == 1.1
    assert "1.1 µm per px: column um_per_px alone, but array pitch gives 0.7" in caplog.text


def test_a_sheet_that_decides_nothing_may_not_contradict():
    assert settle(ROW | {"um_per_px": "0.72"}, [ARRAY], binding=True).um_per_px == 0.7
    with pytest.raises(
        InputError, match=r"array pitch gives 0\.7; column um_per_px gives 1\.1; leave column um_per_px"
    ):
        settle(ROW | {"um_per_px": "1.1"}, [ARRAY], binding=True)


@pytest.mark.parametrize(("um_per_px", "refused"), [(0.049, True), (0.05, False), (20.0, False), (20.1, True)])
def test_no_microscope_has_such_pixels(um_per_px, refused):
    for row, claims in ((ROW, [Claim(um_per_px, "file", sure=True)]), (ROW | {"um_per_px": str(um_per_px)}, [])):
        if refused:
            with pytest.raises(InputError, match=f"gives {um_per_px:g} µm per px, which no microscope"):
                settle(row, claims)
        else:
            assert settle(row, claims).um_per_px == um_per_px


@pytest.mark.parametrize(
    ("layout", "pitch_px", "diameter_px", "array", "um_per_px"),
    [
        (HEXAGON, 50.0, 32.5, arrays.VISIUM, 2.0),  # Space Ranger's nominal 65 of 100 µm
        (HEXAGON, 50.0, 27.5, arrays.VISIUM, 2.0),  # HEST-1k's 55 of 100 µm
        (SQUARE, 200 / 1.1, 100 / 1.1, arrays.ST, 1.1),
        (SQUARE, 200.0, 110.0, arrays.HEST_XENIUM, 0.5),
    ],
)
def test_a_layout_and_a_diameter_show_the_array(layout, pitch_px, diameter_px, array, um_per_px):
    jitter = np.random.default_rng(3).normal(0, 0.01 * pitch_px, layout.shape)
    found = of_layout(layout * pitch_px + jitter, diameter_px)
    assert found.array is array
    assert [one.um_per_px for one in found.claims] == pytest.approx([um_per_px] * 2, rel=0.01)
    assert settle(ROW, found.claims).um_per_px == pytest.approx(um_per_px, rel=0.01)


@pytest.mark.parametrize(
    ("layout", "share", "filled"),
    [
        (SQUARE, 55 / (150 / math.sqrt(2)), False),  # of Ji et al. 2020, taken for ST by a tolerance of 4 %
        (SQUARE, 0.733, False),
        (SQUARE, 1.36, False),  # HEST-1k's numbers for Ji et al.: spots wider than their pitch
        (SQUARE, 1.0, True),  # bins
        (np.random.default_rng(1).random((80, 2)) * 9, 0.55, False),  # cells
    ],
)
def test_no_other_layout_is_taken_for_a_known_array(layout, share, filled):
    found = of_layout(layout * 100, share * 100)
    assert (found.array, found.claims) == (None, [])
    assert found.filled == filled
    assert f"spot_diameter_fullres of {share * 100:.4g} px" in found.about


def test_hexagons_of_unknown_width_are_not_sure():
    layout = of_layout(HEXAGON * 50, None)
    assert (layout.array, layout.claims) == (None, [])
    with pytest.raises(InputError, match=r"if it is Visium's of 100 µm gives 2; spot_diam.* gives 65"):
        settle(ROW, of_hexagons(layout, 1.0, sure=False))
    assert settle(ROW, of_hexagons(layout, 1.0, sure=True)).um_per_px == pytest.approx(2.0)


NUMBERS = [
    (1, 1.0), ("92.8", 92.8), (b"5", 5.0), (np.float32(2), 2.0), (np.array(3.0), 3.0), (np.array([4.0]), 4.0),
    ([6], 6.0),
]  # fmt: skip
NONE = [True, np.True_, None, 0, -1, math.nan, math.inf, "NA", "", [1, 2], np.ones(2), {}]


@pytest.mark.parametrize(("value", "number"), [*NUMBERS, *((value, None) for value in NONE)])
def test_numbers_of_metadata(value, number):
    assert positive(value) == number


def test_rows_and_columns_of_another_array_give_no_scale(caplog):
    """Staggered places of a square array have even sums, as Visium's, but other proportions."""
    row, column = (index.ravel() for index in np.indices((9, 9)))
    even = (row + column) % 2 == 0
    px = np.column_stack([column, row])[even] * 100.0
    assert arrays.lattice_um_per_px(arrays.visium_array_um(row[even], column[even]), px) is None
    assert "stretched by 73 %" in caplog.text
