"""Layers: by hand, and what the tables say of them."""

import logging

import numpy as np
import pandas as pd
import pytest

from ctrflow.export.regions import section_regions
from ctrflow.rim import distance, layers
from spot_arrays import section, square

WIDTHS = {"inner": 500, "outer": 500}


def layered(call, widths=WIDTHS, columns=12, rows=8):
    """Spots 200 µm apart, and their layers by one run."""
    spots = section(square(columns, rows), um_per_px=2.0)
    calls = pd.DataFrame({"m": np.asarray(call, dtype=float)}, index=spots.obs_names)
    rim_um = distance.of_section(spots, calls, section_regions(spots, calls))
    return spots, layers.of_section(spots, calls, rim_um, widths)


def left(columns=12, rows=8, wide=6):
    return square(columns, rows)[:, 0] < 1000 + 100 * wide - 50


def test_layers_of_a_straight_rim_by_hand():
    """Six called columns: their centres are 1,100, 900 ... 100 µm inside, the other six as far outside."""
    _, layer = layered(left(), {"inner": 400, "outer": 600})
    middle = layer["m"].to_numpy().reshape(8, 12)[4]
    assert list(middle) == ["core"] * 4 + ["inner rim"] * 2 + ["outer rim"] * 3 + ["stroma"] * 3
    _, layer = layered(left(), {"inner": 150, "outer": 350})
    middle = layer["m"].to_numpy().reshape(8, 12)[4]
    assert list(middle) == ["core"] * 5 + ["inner rim"] + ["outer rim"] * 2 + ["stroma"] * 4


def test_where_the_section_ends_a_tumour_has_no_inner_rim():
    _, layer = layered(left())
    grid = layer["m"].to_numpy().reshape(8, 12)
    assert set(grid[:, 0]) == {"core"}
    assert set(grid[[0, -1], :2].ravel()) == {"core"}


def test_nothing_called_has_no_layers():
    spots, layer = layered(np.zeros(96))
    assert set(layer["m"]) == {"no tumour called"}
    assert layers.table(spots, layer).empty


def test_everything_called_is_core():
    spots, layer = layered(np.ones(96))
    assert set(layer["m"]) == {"core"}
    table = layers.table(spots, layer).set_index("layer")
    assert table["spots"].to_dict() == {"core": 96, "inner rim": 0, "outer rim": 0, "stroma": 0}
    assert table["median_counts"].isna().to_dict() == {
        "core": False, "inner rim": True, "outer rim": True, "stroma": True,
    }  # fmt: skip


def test_a_spot_that_is_not_scored_is_in_no_layer():
    call = left().astype(float)
    call[[0, 50, 95]] = np.nan
    _, layer = layered(call)
    assert layer["m"].isna().to_numpy().nonzero()[0].tolist() == [0, 50, 95]


def test_the_table_by_hand():
    call = left().astype(float)
    call[0] = np.nan
    spots, layer = layered(call, {"inner": 250, "outer": 250})
    table = layers.table(spots, layer)
    assert list(table["layer"]) == list(layers.LAYERS)
    assert set(table["run"]) == {"m"}
    assert set(table["section"]) == {"S1"}
    assert table["spots"].sum() == 95
    assert table["spots"].tolist()[1:3] == [8, 8]
    assert table["area_mm2"].to_numpy() == pytest.approx(table["spots"].to_numpy() * 0.04)
    assert table["share"].sum() == pytest.approx(1)
    # a spot n of the fixture has 9 n + 3 counts; column 5 of 12 is the inner rim
    assert table["median_counts"][1] == np.median([9 * (12 * row + 5) + 3 for row in range(8)])


def test_a_rim_thinner_than_the_pitch_is_told(caplog):
    spots = section(square(5, 5), um_per_px=2.0)
    with caplog.at_level(logging.WARNING):
        layers.warn_of_thin(spots, {"inner": 200, "outer": 500})
        assert not caplog.records
        layers.warn_of_thin(spots, {"inner": 199, "outer": 50})
    [record] = caplog.records
    assert "section S1: layers_um: inner 199 µm, outer 50 µm, but spots are 200 µm apart" in record.getMessage()
    assert set(layered(left(), {"inner": 60, "outer": 60})[1]["m"]) == {"core", "stroma"}
