"""Exports: regions with areas worked by hand, files that read back."""

import csv
import io
import json
import uuid
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from shapely import geometry

from ctrflow import export, storage
from ctrflow.errors import InputError


def square(columns: int, rows: int, pitch_px: float = 100.0) -> np.ndarray:
    return np.array([(x, y) for y in range(rows) for x in range(columns)], dtype=float) * pitch_px + 1000


def hexagonal(columns: int, rows: int, pitch_px: float = 100.0) -> np.ndarray:
    return np.array([(x + 0.5 * (y % 2), y * np.sqrt(3) / 2) for y in range(rows) for x in range(columns)]) * pitch_px


def section(spatial_px, name="S1", um_per_px=2.0, image_scale=1.0) -> anndata.AnnData:
    n = len(spatial_px)
    counts = csr_matrix(np.arange(n * 3, dtype=np.float32).reshape(n, 3))
    spots = anndata.AnnData(
        counts,
        obs=pd.DataFrame(index=[f"s{i}" for i in range(n)]),
        var=pd.DataFrame(index=["EPCAM", "KRT8", "VIM"]),
        obsm={"spatial": np.asarray(spatial_px, dtype=np.float64)},
    )
    spots.uns["section"] = {
        "section": name, "platform": "st", "patient": "P", "cohort": "C", "tissue": "breast", "um_per_px": um_per_px,
        "spot_um": 100.0, "image": "", "image_scale": image_scale,
    }  # fmt: skip
    return spots


def series(spots, values) -> pd.Series:
    return pd.Series(np.asarray(values, dtype=float), index=spots.obs_names)


@pytest.mark.parametrize("turn", [0.0, 0.2, -0.4])
@pytest.mark.parametrize(("points", "sides", "cell"), [(square(6, 5), 4, 1e4), (hexagonal(6, 5), 6, 1e4 * 3**0.5 / 2)])
def test_lattice_is_recognised_at_any_angle(points, sides, cell, turn):
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = export.lattice(points @ rotation.T)
    assert found.sides == sides
    assert found.pitch_px == pytest.approx(100)
    assert found.cell_px2 == pytest.approx(cell)
    # the angle is one of the axes of the array
    assert np.sin(sides / 2 * (found.angle_rad - turn)) == pytest.approx(0, abs=1e-6)


def test_pitch_is_not_shortened_by_measured_positions():
    rng = np.random.default_rng(0)
    found = export.lattice(square(20, 20) + rng.normal(0, 4, (400, 2)))
    assert found.sides == 4
    assert found.pitch_px == pytest.approx(100, rel=0.01)


def test_area_of_one_spot():
    assert export.spot_area_mm2(square(4, 4), um_per_px=2.0) == pytest.approx(0.2**2)  # 200 µm squares
    assert export.spot_area_mm2(hexagonal(4, 4), um_per_px=1.0) == pytest.approx(0.1**2 * 3**0.5 / 2)


def test_one_position_has_no_area():
    with pytest.raises(InputError, match="1 spot position"):
        export.lattice([[3, 4], [3, 4]])


def test_ring_of_squares_has_a_hole():
    points = square(5, 5)
    called = np.ones(25, dtype=bool)
    called[12] = False
    [(shape, own)] = export.regions(points, called)
    # 5 x 5 cells of 100 px less the middle one; 500 px of outline on each side
    assert shape.area == pytest.approx(24 * 100**2)
    assert shape.bounds == pytest.approx((950, 950, 1450, 1450))
    assert geometry.Polygon(shape.interiors[0]).bounds == pytest.approx((1150, 1150, 1250, 1250))
    assert len(shape.exterior.coords) == 5  # no corner left along a straight side
    assert sorted(own) == [i for i in range(25) if i != 12]


def test_hexagons_join_without_gaps():
    points = hexagonal(7, 7)
    called = np.ones(49, dtype=bool)
    called[24] = False
    [(shape, own)] = export.regions(points, called)
    assert shape.area == pytest.approx(48 * 100**2 * 3**0.5 / 2)
    assert len(shape.interiors) == 1
    assert geometry.Polygon(shape.interiors[0]).area == pytest.approx(100**2 * 3**0.5 / 2)
    assert len(own) == 48


def test_regions_are_ordered_by_size_and_not_joined_across_corners():
    points = square(5, 3)
    called = np.zeros(15, dtype=bool)
    called[[0, 1, 7, 4]] = True  # two beside each other, one across the corner of them, one apart
    found = export.regions(points, called)
    assert [list(own) for _, own in found] == [[0, 1], [4], [7]]
    assert [shape.area for shape, _ in found] == pytest.approx([2e4, 1e4, 1e4])


def test_measured_positions_still_join():
    rng = np.random.default_rng(1)
    points = square(12, 12) + rng.normal(0, 4, (144, 2))
    [(shape, own)] = export.regions(points, np.ones(144, dtype=bool))
    assert len(own) == 144
    assert not shape.interiors
    assert shape.area == pytest.approx(144e4, rel=0.03)


def test_nothing_called_is_no_region():
    assert export.regions(square(3, 3), np.zeros(9)) == []


def test_two_spots_at_one_place():
    points = np.vstack([square(3, 3), [[1000.0, 1000.0]]])
    called = np.zeros(10)
    called[[0, 9]] = 1
    [(shape, own)] = export.regions(points, called)
    assert shape.area == pytest.approx(1e4)
    assert sorted(own) == [0, 9]


def test_geojson_is_in_image_pixels_with_measurements():
    spots = section(square(5, 5), um_per_px=2.0, image_scale=0.5)
    call = np.ones(25)
    call[12] = 0
    score = np.full(25, 0.75)
    score[12] = 0.0
    content = export.qupath_geojson(spots, series(spots, score), series(spots, call))
    content = json.loads(json.dumps(content, allow_nan=False))
    assert content["type"] == "FeatureCollection"
    [feature] = content["features"]
    assert uuid.UUID(feature["id"])
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"] == {"name": "Cancer region", "color": [213, 94, 0]}
    # 24 cells of 100 px x 2 µm = 200 µm; in the image a cell is 50 px wide
    assert feature["properties"]["measurements"] == {"Area µm^2": 24 * 200.0**2, "Spots": 24, "Mean score": 0.75}
    shape = geometry.shape(feature["geometry"])
    assert shape.is_valid
    assert shape.area == pytest.approx(24 * 50**2)
    assert shape.bounds == (475, 475, 725, 725)
    outer, hole = feature["geometry"]["coordinates"]
    assert outer[0] == outer[-1]
    assert hole[0] == hole[-1]
    assert geometry.LinearRing(outer).is_ccw
    assert not geometry.LinearRing(hole).is_ccw


def test_geojson_is_the_same_each_time_and_may_be_empty():
    spots = section(hexagonal(4, 4))
    score, call = series(spots, np.linspace(0, 1, 16)), series(spots, [1] * 5 + [0] * 11)
    assert export.qupath_geojson(spots, score, call) == export.qupath_geojson(spots, score, call)
    assert export.qupath_geojson(spots, score, call * 0) == {"type": "FeatureCollection", "features": []}


def test_h5ad_round_trip(tmp_path):
    spots = section(square(3, 3), name="my section/1")
    scores = pd.DataFrame(
        {"loo|uni|spacrd": np.linspace(0, 0.8, 9), "loo|uni|x/y z": np.ones(9)}, index=spots.obs_names
    )
    calls = pd.DataFrame({"loo|uni|spacrd": [1.0, 0.0, np.nan] * 3}, index=spots.obs_names)
    thumbnail = np.zeros((4, 5, 3), dtype=np.uint8)
    # rows in any order: they are matched by spot
    result = export.section_h5ad(
        spots, scores[::-1], calls.sample(frac=1, random_state=0), {"study": "demo"}, thumbnail, 0.01
    )
    storage.write_h5ad(result, tmp_path / "a.h5ad")
    back = storage.read_h5ad(tmp_path / "a.h5ad")
    assert list(back.obs) == ["score_loo_uni_spacrd", "call_loo_uni_spacrd", "score_loo_uni_x_y_z"]
    assert back.obs["score_loo_uni_spacrd"].tolist() == scores["loo|uni|spacrd"].tolist()
    call = back.obs["call_loo_uni_spacrd"]
    assert list(call.cat.categories) == ["cancer", "other"]
    assert call[:2].tolist() == ["cancer", "other"]
    assert call.isna().tolist() == [False, False, True] * 3
    assert back.uns["ctrflow"]["runs"]["loo_uni_x_y_z"] == "loo|uni|x/y z"
    assert back.uns["ctrflow"]["study"] == "demo"
    assert list(back.uns["call_loo_uni_spacrd_colors"]) == ["#d55e00", "#56b4e9"]
    assert (back.X != spots.X).nnz == 0
    library = back.uns["spatial"]["my_section_1"]
    assert library["scalefactors"]["spot_diameter_fullres"] == 50.0  # 100 µm at 2 µm a px
    assert library["images"]["hires"].shape == (4, 5, 3)
    assert "ctrflow" not in spots.uns
    assert spots.obs.empty


def test_sd_over_seeds_stands_beside_the_score(tmp_path):
    spots = section(square(3, 3))
    scores = pd.DataFrame({"t|m": np.linspace(0, 0.8, 9), "alone": np.ones(9)}, index=spots.obs_names)
    calls = (scores > 0.5).astype(float)
    sd = pd.DataFrame({"t|m": np.linspace(0.09, 0.01, 9)}, index=spots.obs_names)
    result = export.section_h5ad(spots, scores, calls, sd=sd[::-1])
    storage.write_h5ad(result, tmp_path / "a.h5ad")
    back = storage.read_h5ad(tmp_path / "a.h5ad")
    assert list(back.obs) == ["score_t_m", "sd_t_m", "call_t_m", "score_alone", "call_alone"]
    assert back.obs["sd_t_m"].tolist() == sd["t|m"].tolist()
    assert "population sd" in back.uns["ctrflow"]["sd"]
    table = export.summary_table(spots, scores, calls, sd).set_index("run")
    assert table.loc["t|m", "mean_sd"] == pytest.approx(0.05)
    assert np.isnan(table.loc["alone", "mean_sd"])


@pytest.mark.parametrize("sd", [None, pd.DataFrame(index=[f"s{i}" for i in range(9)])])
def test_one_seed_is_exported_without_sd(sd):
    spots = section(square(3, 3))
    scores = pd.DataFrame({"m": np.ones(9)}, index=spots.obs_names)
    result = export.section_h5ad(spots, scores, scores, sd=sd)
    assert list(result.obs) == ["score_m", "call_m"]
    assert "sd" not in result.uns["ctrflow"]
    assert "mean_sd" not in export.summary_table(spots, scores, scores, sd)


def test_geojson_has_the_mean_sd_of_each_region():
    spots = section(square(5, 1))
    score, call = series(spots, [0.9, 0.7, 0.1, 0.8, 0.2]), series(spots, [1, 1, 0, 1, 0])
    sd = series(spots, [0.01, 0.04, 0.9, 0.2, 0.9])
    content = export.qupath_geojson(spots, score, call, sd)
    found = [feature["properties"]["measurements"] for feature in content["features"]]
    assert [one["Mean sd over seeds"] for one in found] == [0.025, 0.2]
    assert [one["Mean score"] for one in found] == [0.8, 0.8]


def test_sd_of_another_section_is_refused():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"m": np.ones(9)}, index=spots.obs_names)
    with pytest.raises(InputError, match=r"^sd of section S1: 1 spots are not in its spots\.h5ad \(AAACGT-1\)"):
        export.section_h5ad(spots, scores, scores, sd=pd.DataFrame({"m": [0.5]}, index=["AAACGT-1"]))


def test_names_that_would_collide_are_refused():
    with pytest.raises(InputError, match="rename one"):
        export.safe_names(["a|b", "a b"])


def test_scores_of_another_section_are_refused():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"r": [0.5]}, index=["AAACGT-1"])
    with pytest.raises(InputError, match=r"section S1: 1 spots are not in its spots\.h5ad \(AAACGT-1\)"):
        export.section_h5ad(spots, scores, scores)


def test_a_spot_scored_twice_is_refused():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"r": [0.5, 0.6]}, index=["s1", "s1"])
    with pytest.raises(InputError, match="s1 twice"):
        export.section_h5ad(spots, scores, scores)


def test_loupe_csv_reads_as_barcode_and_categories():
    calls = pd.DataFrame({"a|b": [1, 0], "odd, name": [np.nan, 1.0]}, index=["AAAC-1", "AAAG-1"])
    rows = list(csv.reader(io.StringIO(export.loupe_csv(calls))))
    assert rows == [
        ["Barcode", "a_b", "odd_name"],
        ["AAAC-1", "cancer", "not scored"],
        ["AAAG-1", "other", "cancer"],
    ]


def test_summary_row_by_hand():
    spots = section(square(5, 3), um_per_px=2.0)
    call = np.zeros(15)
    call[[0, 1, 4]] = 1
    call[14] = np.nan
    score = np.where(call == 1, 0.9, 0.2)
    score[14] = np.nan
    row = export.summary_row(spots, series(spots, score), series(spots, call))
    assert row == {
        "section": "S1",
        "spots": 15,
        "scored": 14,
        "called": 3,
        "share": pytest.approx(3 / 14),
        "regions": 2,
        "area_mm2": pytest.approx(3 * 0.04),
        "mean_score": pytest.approx((3 * 0.9 + 11 * 0.2) / 14),
        "mean_score_called": pytest.approx(0.9),
    }


def test_summary_table_has_a_row_per_run():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"a": np.ones(9), "b": np.zeros(9)}, index=spots.obs_names)
    table = export.summary_table(spots, scores, scores)
    assert table["run"].tolist() == ["a", "b"]
    assert table["called"].tolist() == [9, 0]
    assert table["share"].tolist() == [1.0, 0.0]


def test_real_positions_join_to_whole_cells():
    path = Path(__file__).parents[3] / "shared" / "data" / "her2st" / "ST-spotfiles" / "B4_selection.tsv"
    if not path.is_file():
        pytest.skip("shared/data/her2st is not here")
    points = pd.read_csv(path, sep="\t")[["pixel_x", "pixel_y"]].to_numpy()
    found = export.regions(points, np.ones(len(points)))
    area = sum(shape.area for shape, _ in found)
    assert sum(len(own) for _, own in found) == len(points)
    assert export.lattice(points).sides == 4
    assert area == pytest.approx(len(points) * export.lattice(points).cell_px2, rel=0.03)
