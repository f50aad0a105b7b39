"""Exports: files that read back by their libraries, numbers worked by hand."""

import csv
import io
import json
import uuid
from dataclasses import replace

import anndata
import geopandas
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix
from shapely import geometry

from ctrflow import export, storage
from ctrflow.errors import InputError
from ctrflow.export.columns import safe_names
from ctrflow.export.h5ad import section_h5ad
from ctrflow.export.loupe import loupe_csv
from ctrflow.export.qupath import qupath_geojson
from ctrflow.export.regions import section_regions
from ctrflow.export.summary import summary_row, summary_table
from ctrflow.export.xenium import cell_table, xenium_csv
from ctrflow.results import verdict
from ctrflow.rim import distance, layers
from ctrflow.sections import aggregate
from spot_arrays import hexagonal, section, series, square


def test_geojson_is_in_image_pixels_with_measurements():
    spots = section(square(5, 5), um_per_px=2.0, image_scale=0.5)
    call = np.ones(25)
    call[12] = 0
    score = np.full(25, 0.75)
    score[12] = 0.0
    content = qupath_geojson(spots, series(spots, score), series(spots, call))
    content = json.loads(json.dumps(content, allow_nan=False))
    assert content["type"] == "FeatureCollection"
    [feature] = content["features"]
    assert uuid.UUID(feature["id"])
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"] == {"name": "Cancer region", "color": [213, 94, 0]}
    shape = geometry.shape(feature["geometry"])
    assert shape.is_valid
    # 24 cells; in the image a cell is 50 px wide, and a px of the image is 4 µm
    assert shape.area == pytest.approx(24 * 50**2, rel=0.01)
    assert shape.bounds == pytest.approx((475, 475, 725, 725), abs=2.5)
    measured = feature["properties"]["measurements"]
    assert measured == {
        "Area µm^2": pytest.approx(shape.area * 4**2, abs=0.1),
        "Perimeter µm": pytest.approx((shape.exterior.length + shape.interiors[0].length) * 4, abs=0.1),
        "Spots": 24,
        "Mean score": 0.75,
    }
    # sides of 5 and of 1 cells of 200 µm, corners cut
    assert 0.85 * 4800 < measured["Perimeter µm"] < 4800
    outer, hole = feature["geometry"]["coordinates"]
    assert outer[0] == outer[-1]
    assert hole[0] == hole[-1]
    assert geometry.LinearRing(outer).is_ccw
    assert not geometry.LinearRing(hole).is_ccw


def test_geojson_is_the_same_each_time_and_may_be_empty():
    spots = section(hexagonal(4, 4))
    score, call = series(spots, np.linspace(0, 1, 16)), series(spots, [1] * 5 + [0] * 11)
    assert qupath_geojson(spots, score, call) == qupath_geojson(spots, score, call)
    assert qupath_geojson(spots, score, call * 0) == {"type": "FeatureCollection", "features": []}


def test_geojson_opens_in_geopandas(tmp_path):
    """geopandas reads valid polygons in px with holes and properties; the CRS that it assumes is wrong."""
    spots = section(hexagonal(14, 14), um_per_px=0.5)
    call = np.random.default_rng(4).random(196) < 0.6
    score = series(spots, np.where(call, 0.9, 0.1))
    storage.write_text(json.dumps(qupath_geojson(spots, score, series(spots, call))), tmp_path / "a.geojson")
    table = geopandas.read_file(tmp_path / "a.geojson")
    assert table.crs == "EPSG:4326"  # degrees, which is wrong: GeoJSON cannot express px
    table = table.set_crs(None, allow_override=True)
    assert table.crs is None
    assert table.is_valid.all()
    assert table.name.tolist() == [f"Cancer region {number}" for number in range(1, len(table) + 1)]
    measured = pd.DataFrame([json.loads(text) if isinstance(text, str) else text for text in table.measurements])
    assert measured.Spots.sum() == call.sum()
    assert table.area.to_numpy() * 0.25 == pytest.approx(measured["Area µm^2"], abs=0.06)
    cell = 100**2 * 3**0.5 / 2
    assert table.area.to_numpy() == pytest.approx(measured.Spots * cell, rel=0.01)
    # a spot that was not called is in no polygon, a called one in one
    centres = geopandas.GeoSeries.from_xy(*spots.obsm["spatial"].T)
    assert [int(table.contains(centre).sum()) for centre in centres] == list(call.astype(int))
    assert sum(len(shape.interiors) for shape in table.geometry) > 0


def test_a_region_of_two_parts_is_one_annotation():
    spots = section(np.vstack([square(6, 6), [[3000, 1000], [3120, 1000], [3060, 1005]]]))
    call = series(spots, np.isin(np.arange(39), [36, 37]))
    [feature] = qupath_geojson(spots, call, call)["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert len(feature["geometry"]["coordinates"]) == 2
    assert feature["properties"]["measurements"]["Spots"] == 2


def test_given_regions_are_not_recomputed():
    spots = section(square(4, 4))
    scores = pd.DataFrame({"a": np.linspace(0, 1, 16)}, index=spots.obs_names)
    calls = (scores > 0.5).astype(float)
    regions = section_regions(spots, calls)
    known = qupath_geojson(spots, scores["a"], calls["a"], None, regions["a"])
    assert known == qupath_geojson(spots, scores["a"], calls["a"])
    known, found = (summary_table(spots, scores, calls, None, given) for given in (regions, None))
    pd.testing.assert_frame_equal(known, found)


def test_h5ad_round_trip(tmp_path):
    spots = section(square(3, 3), name="my section/1")
    scores = pd.DataFrame(
        {"loo|uni|spacrd": np.linspace(0, 0.8, 9), "loo|uni|x/y z": np.ones(9)}, index=spots.obs_names
    )
    calls = pd.DataFrame({"loo|uni|spacrd": [1.0, 0.0, np.nan] * 3}, index=spots.obs_names)
    thumbnail = np.zeros((4, 5, 3), dtype=np.uint8)
    # rows in any order: they are matched by spot
    result = section_h5ad(spots, scores[::-1], calls.sample(frac=1, random_state=0), {"study": "demo"}, thumbnail, 0.01)
    storage.write_h5ad(result, tmp_path / "a.h5ad")
    back = storage.read_h5ad(tmp_path / "a.h5ad")
    assert list(back.obs) == ["score_loo_uni_spacrd", "call_loo_uni_spacrd", "score_loo_uni_x_y_z"]
    assert back.obs["score_loo_uni_spacrd"].tolist() == scores["loo|uni|spacrd"].tolist()
    call = back.obs["call_loo_uni_spacrd"]
    assert list(call.cat.categories) == ["cancer", "other", "not scored"]
    assert call.tolist() == ["cancer", "other", "not scored"] * 3
    assert back.uns["ctrflow"]["runs"]["loo_uni_x_y_z"] == "loo|uni|x/y z"
    assert back.uns["ctrflow"]["study"] == "demo"
    assert list(back.uns["call_loo_uni_spacrd_colors"]) == ["#d55e00", "#56b4e9", "#9a9a9a"]
    assert (back.X != spots.X).nnz == 0
    library = back.uns["spatial"]["my_section_1"]
    assert library["scalefactors"]["spot_diameter_fullres"] == 50.0  # 100 µm at 2 µm a px
    assert library["images"]["hires"].shape == (4, 5, 3)
    assert "ctrflow" not in spots.uns
    assert spots.obs.empty


def test_sd_over_seeds_is_exported_with_the_score(tmp_path):
    spots = section(square(3, 3))
    scores = pd.DataFrame({"t|m": np.linspace(0, 0.8, 9), "alone": np.ones(9)}, index=spots.obs_names)
    calls = (scores > 0.5).astype(float)
    sd = pd.DataFrame({"t|m": np.linspace(0.09, 0.01, 9)}, index=spots.obs_names)
    result = section_h5ad(spots, scores, calls, sd=sd[::-1])
    storage.write_h5ad(result, tmp_path / "a.h5ad")
    back = storage.read_h5ad(tmp_path / "a.h5ad")
    assert list(back.obs) == ["score_t_m", "sd_t_m", "call_t_m", "score_alone", "call_alone"]
    assert back.obs["sd_t_m"].tolist() == sd["t|m"].tolist()
    assert "population sd" in back.uns["ctrflow"]["sd"]
    table = summary_table(spots, scores, calls, sd).set_index("run")
    assert table.loc["t|m", "mean_sd"] == pytest.approx(0.05)
    assert np.isnan(table.loc["alone", "mean_sd"])


@pytest.mark.parametrize("sd", [None, pd.DataFrame(index=[f"s{i}" for i in range(9)])])
def test_one_seed_is_exported_without_sd(sd):
    spots = section(square(3, 3))
    scores = pd.DataFrame({"m": np.ones(9)}, index=spots.obs_names)
    result = section_h5ad(spots, scores, scores, sd=sd)
    assert list(result.obs) == ["score_m", "call_m"]
    assert "sd" not in result.uns["ctrflow"]
    assert "mean_sd" not in summary_table(spots, scores, scores, sd)


def test_geojson_has_the_mean_sd_of_each_region():
    spots = section(square(5, 1))
    score, call = series(spots, [0.9, 0.7, 0.1, 0.8, 0.2]), series(spots, [1, 1, 0, 1, 0])
    sd = series(spots, [0.01, 0.04, 0.9, 0.2, 0.9])
    content = qupath_geojson(spots, score, call, sd)
    found = [feature["properties"]["measurements"] for feature in content["features"]]
    assert [one["Mean sd over seeds"] for one in found] == [0.025, 0.2]
    assert [one["Mean score"] for one in found] == [0.8, 0.8]


def test_sd_of_another_section_is_refused():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"m": np.ones(9)}, index=spots.obs_names)
    with pytest.raises(InputError, match=r"^sd of section S1: 1 spots are not in its spots\.h5ad \(AAACGT-1\)"):
        section_h5ad(spots, scores, scores, sd=pd.DataFrame({"m": [0.5]}, index=["AAACGT-1"]))


def test_names_that_would_collide_are_refused():
    with pytest.raises(InputError, match="rename one"):
        safe_names(["a|b", "a b"])
    with pytest.raises(InputError, match="rename one"):  # the same file on case-insensitive systems
        safe_names(["linear", "Linear"])


def test_scores_of_another_section_are_refused():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"r": [0.5]}, index=["AAACGT-1"])
    with pytest.raises(InputError, match=r"section S1: 1 spots are not in its spots\.h5ad \(AAACGT-1\)"):
        section_h5ad(spots, scores, scores)


def test_a_spot_scored_twice_is_refused():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"r": [0.5, 0.6]}, index=["s1", "s1"])
    with pytest.raises(InputError, match="s1 occur twice"):
        section_h5ad(spots, scores, scores)


def test_loupe_csv_reads_as_barcode_and_categories():
    calls = pd.DataFrame({"a|b": [1, 0], "odd, name": [np.nan, 1.0]}, index=["AAAC-1", "AAAG-1"])
    rows = list(csv.reader(io.StringIO(loupe_csv(calls))))
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
    row = summary_row(spots, series(spots, score), series(spots, call))
    outlines = [shape for shape, _ in section_regions(spots, series(spots, call).to_frame("m"))["m"]]
    assert row == {
        "section": "S1",
        "spots": 15,
        "scored": 14,
        "called": 3,
        "share": pytest.approx(3 / 14),
        "regions": 2,
        "perimeter_um": pytest.approx(sum(outline.length for outline in outlines) * 2.0),
        "area_mm2": pytest.approx(3 * 0.04),
        "tissue_mm2": pytest.approx(14 * 0.04),
        "mean_score": pytest.approx((3 * 0.9 + 11 * 0.2) / 14),
        "mean_score_called": pytest.approx(0.9),
    }


def test_summary_table_has_a_row_per_run():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"a": np.ones(9), "b": np.zeros(9)}, index=spots.obs_names)
    table = summary_table(spots, scores, scores)
    assert table["run"].tolist() == ["a", "b"]
    assert table["called"].tolist() == [9, 0]
    assert table["share"].tolist() == [1.0, 0.0]


def xenium_section(cells_um, spots_um, of_cells, names=None):
    """Cells and spots of 55 µm at these positions, and the id of each cell's spot, None for none."""
    spots = section(np.asarray(spots_um) / 0.5, um_per_px=0.5)
    spots.uns["section"] |= {"platform": "xenium", "spot_um": 55.0}
    names = [f"cell{i}-1" for i in range(len(cells_um))] if names is None else names
    obs = pd.DataFrame({"spot": pd.Categorical(of_cells)}, index=names)
    return anndata.AnnData(obs=obs, obsm={"spatial_um": np.asarray(cells_um, dtype=float)}), spots


# inside, on the rim and just off the first disc; between; in the second, which is not scored; in the third
CELLS_UM = [(0, 0), (27.5, 0), (27.6, 0), (50, 0), (100, 10), (210, -5)]
CELL_IDS = ["aaaa-1", "aaab-1", "aaac-1", "17", "18", "019"]


def three_discs():
    centres = [(0, 0), (100, 0), (200, 0)]
    names = section(np.asarray(centres)).obs_names
    of_cells = [names[0], names[0], None, None, names[1], names[2]]
    cells, spots = xenium_section(CELLS_UM, centres, of_cells, CELL_IDS)
    return cells, spots, series(spots, [0.75, np.nan, 0.25]), series(spots, [1, np.nan, 0])


def test_xenium_csv_gives_each_cell_the_call_of_its_spot():
    cells, spots, score, call = three_discs()
    table = pd.read_csv(io.StringIO(xenium_csv(cell_table(cells, spots, score, call))), dtype=str)
    # the format that Xenium Explorer requires of cell groups
    assert list(table) == ["cell_id", "group", "color"]
    assert list(table.cell_id) == CELL_IDS
    assert list(table.group) == ["cancer", "cancer", "not scored", "not scored", "not scored", "other"]
    assert dict(zip(table.group, table.color, strict=True)) == {
        "cancer": "#d55e00", "not scored": "#9a9a9a", "other": "#56b4e9",
    }  # fmt: skip
    assert table.color.str.fullmatch("#[0-9a-f]{6}").all()


def test_the_table_of_cells_has_the_score_of_each_cell(tmp_path):
    cells, spots, score, call = three_discs()
    scores, calls = score.to_frame("a|m")[::-1], call.to_frame("a|m")[::-1]
    content = export.Section(spots, scores, calls, scores[[]], scores[[]], cells=cells)
    export.write(content, {"xenium": tmp_path / "groups"})
    assert sorted(path.name for path in (tmp_path / "groups").iterdir()) == ["a_m.cells.tsv", "a_m.csv"]
    first, second, third = spots.obs_names
    assert (tmp_path / "groups/a_m.cells.tsv").read_text() == (
        "cell_id\tspot\tscore\tcall\n"
        f"aaaa-1\t{first}\t0.75\tcancer\naaab-1\t{first}\t0.75\tcancer\n"
        "aaac-1\t\t\tnot scored\n17\t\t\tnot scored\n"
        f"18\t{second}\t\tnot scored\n019\t{third}\t0.25\tother\n"
    )


def test_the_table_of_cells_has_the_probability_where_there_is_one():
    cells, spots, score, call = three_discs()
    table = cell_table(cells, spots, score, call, series(spots, [0.9, np.nan, 0.1])[::-1])
    assert list(table) == ["cell_id", "spot", "score", "call", "probability"]
    np.testing.assert_array_equal(table.probability, [0.9, 0.9, np.nan, np.nan, np.nan, 0.1])


# --- probability and verdict ------------------------------------------------------------------------------------------

SAID = verdict.Verdict(verdict.FOUND, ("The level is high.", "4 of 9 spots are called."), ("it is new", "its picture"))


@pytest.fixture
def judged():
    """A section with a run that has a probability and a verdict, one that has a verdict alone, and one of neither."""
    spots = section(square(3, 3))
    names = ["t|judge", "other", "plain"]
    scores = pd.DataFrame({name: np.linspace(0, 0.8, 9) for name in names}, index=spots.obs_names)
    calls = (scores > 0.45).astype(float)
    likely = pd.DataFrame({"t|judge": np.linspace(0.1, 0.9, 9)}, index=spots.obs_names)[::-1]
    verdicts = {
        "t|judge": SAID,
        "other": verdict.Verdict(verdict.NONE, ("The level is low.",)),
        "plain": verdict.Verdict(),
    }
    regions = section_regions(spots, calls)
    return export.Section(spots, scores, calls, scores[[]], likely, verdicts, regions, provenance={"study": "s"})


def test_h5ad_has_probability_and_verdict(judged, tmp_path):
    export.write(judged, {"h5ad": tmp_path / "a.h5ad"})
    back = storage.read_h5ad(tmp_path / "a.h5ad")
    assert list(back.obs) == [
        "score_t_judge", "probability_t_judge", "call_t_judge", "score_other", "call_other", "score_plain",
        "call_plain",
    ]  # fmt: skip
    assert back.obs["probability_t_judge"].tolist() == pytest.approx(np.linspace(0.1, 0.9, 9))
    said = back.uns["ctrflow"]
    assert said["verdict"] == {"t_judge": "tumour found", "other": "no tumour found"}
    assert said["evidence"] == {"t_judge": "The level is high. 4 of 9 spots are called.", "other": "The level is low."}
    assert said["outside"] == {"t_judge": "it is new; its picture"}
    assert said["study"] == "s"


def test_h5ad_has_what_cellxgene_shows(judged, tmp_path):
    """A layout named X_..., float32, with y upwards; categories without missing values, and no empty one."""
    export.write(judged, {"h5ad": tmp_path / "a.h5ad"})
    back = storage.read_h5ad(tmp_path / "a.h5ad")
    layout = back.obsm["X_tissue"]
    assert layout.dtype == np.float32
    assert layout.tolist() == [[x, -y] for x, y in judged.spots.obsm["spatial"]]
    assert (back.obsm["spatial"] == judged.spots.obsm["spatial"]).all()
    for name in ("t_judge", "other", "plain"):
        call = back.obs[f"call_{name}"]
        assert (list(call.cat.categories), call.isna().sum()) == (["cancer", "other"], 0)
        assert list(back.uns[f"call_{name}_colors"]) == ["#d55e00", "#56b4e9"]


def test_without_verdicts_a_h5ad_has_none(judged, tmp_path):
    plain = replace(judged, probability=judged.scores[[]], verdicts=dict.fromkeys(judged.scores, verdict.Verdict()))
    export.write(plain, {"h5ad": tmp_path / "a.h5ad"})
    back = storage.read_h5ad(tmp_path / "a.h5ad")
    assert not [name for name in back.obs if name.startswith("probability")]
    assert all(back.uns["ctrflow"][key] == {} for key in ("verdict", "evidence", "outside"))


def test_the_summary_has_probability_and_verdict(judged, tmp_path):
    export.write(judged, {"summary": tmp_path / "summary.tsv"})
    table = storage.read_tsv(tmp_path / "summary.tsv").set_index("run")
    likely, table = table["mean_probability"], table.fillna("")
    assert table["verdict"].to_dict() == {"t|judge": "tumour found", "other": "no tumour found", "plain": ""}
    assert table["evidence"].to_dict() == {
        "t|judge": "The level is high. 4 of 9 spots are called.", "other": "The level is low.", "plain": "",
    }  # fmt: skip
    assert table["outside"].to_dict() == {"t|judge": "it is new; its picture", "other": "", "plain": ""}
    assert likely["t|judge"] == pytest.approx(0.5)
    assert likely[["other", "plain"]].isna().all()
    assert "caution" in table


def test_qupath_has_the_mean_probability_of_each_region(judged, tmp_path):
    export.write(judged, {"qupath": tmp_path / "regions"})
    drawn = {path.stem: json.loads(path.read_text())["features"] for path in (tmp_path / "regions").iterdir()}
    assert set(drawn) == {"t_judge", "other", "plain"}
    [feature] = drawn["t_judge"]
    # called are spots 5 to 8 of 0 to 8
    assert feature["properties"]["measurements"]["Mean probability"] == pytest.approx(0.75)
    for name in ("other", "plain"):
        assert "Mean probability" not in drawn[name][0]["properties"]["measurements"]


def test_the_zarr_store_has_the_probability(judged, tmp_path):
    import spatialdata

    export.write(judged, {"spatialdata_zarr": tmp_path / "a.zarr"})
    [table] = spatialdata.read_zarr(tmp_path / "a.zarr").tables.values()
    assert table.obs["probability_t_judge"].tolist() == pytest.approx(np.linspace(0.1, 0.9, 9))
    assert "probability_other" not in table.obs


def test_probability_of_another_section_is_refused():
    spots = section(square(3, 3))
    scores = pd.DataFrame({"m": np.ones(9)}, index=spots.obs_names)
    with pytest.raises(
        InputError, match=r"^probability of section S1: 1 spots are not in its spots\.h5ad \(AAACGT-1\)"
    ):
        section_h5ad(spots, scores, scores, probability=pd.DataFrame({"m": [0.5]}, index=["AAACGT-1"]))


# --- around the tumour ------------------------------------------------------------------------------------------------

WIDTHS = {"inner": 300, "outer": 300}


@pytest.fixture
def around():
    """Two runs on spots 200 µm apart: one calls the left half and has not scored a spot, one calls nothing."""
    spots = section(square(8, 6))
    scores = pd.DataFrame({"t|m": np.linspace(0, 1, 48), "none": 0.1}, index=spots.obs_names)
    calls = pd.DataFrame({"t|m": spots.obsm["spatial"][:, 0] < 1350, "none": False}, index=spots.obs_names) * 1.0
    scores.iloc[47, 0] = calls.iloc[47, 0] = np.nan
    regions = section_regions(spots, calls)
    rim_um = distance.of_section(spots, calls, regions)
    layer = layers.of_section(spots, calls, rim_um, WIDTHS)
    plain = scores[[]], scores[[]], dict.fromkeys(calls, verdict.Verdict()), regions
    return export.Section(spots, scores, calls, *plain, rim_um=rim_um[::-1], layer=layer[::-1])


def test_h5ad_has_distances_and_layers(around, tmp_path):
    export.write(around, {"h5ad": tmp_path / "a.h5ad"})
    back = sc.read_h5ad(tmp_path / "a.h5ad")
    assert [name for name in back.obs if name.startswith(("rim", "layer"))] == [
        "rim_um_t_m", "layer_t_m", "rim_um_none", "layer_none",
    ]  # fmt: skip
    np.testing.assert_array_equal(back.obs["rim_um_t_m"], around.rim_um["t|m"][back.obs_names])
    assert back.obs["rim_um_t_m"].isna().sum() == 1
    assert back.obs["rim_um_none"].isna().all()
    layer = back.obs["layer_t_m"]
    assert layer.notna().all()
    assert list(layer.cat.categories) == ["core", "inner rim", "outer rim", "stroma", "not scored"]
    assert layer["s47"] == "not scored"
    assert layer.tolist() == around.layer["t|m"][back.obs_names].fillna("not scored").tolist()
    assert list(back.obs["layer_none"].cat.categories) == ["no tumour called"]
    assert list(back.uns["layer_t_m_colors"]) == ["#d55e00", "#e69f00", "#f0e442", "#56b4e9", "#9a9a9a"]
    assert "negative inside" in back.uns["ctrflow"]["rim_um"]


def test_the_zarr_store_has_distances_and_layers(around, tmp_path):
    import spatialdata

    export.write(around, {"spatialdata_zarr": tmp_path / "a.zarr"})
    [table] = spatialdata.read_zarr(tmp_path / "a.zarr").tables.values()
    assert table.obs["layer_t_m"].tolist() == around.layer["t|m"][table.obs_names].fillna("not scored").tolist()
    np.testing.assert_array_equal(table.obs["rim_um_t_m"], around.rim_um["t|m"][table.obs_names])


def test_loupe_has_a_column_of_layers_for_each_run(around, tmp_path):
    export.write(around, {"loupe": tmp_path / "a.csv"})
    table = pd.read_csv(tmp_path / "a.csv", index_col="Barcode")
    assert list(table) == ["t_m", "none", "layer_t_m", "layer_none"]
    assert table.notna().all(axis=None)
    assert table.loc["s47", "layer_t_m"] == "not scored"
    assert set(table.loc[table["t_m"] == "cancer", "layer_t_m"]) == {"core", "inner rim"}


def test_the_summary_counts_the_spots_of_layers(around, tmp_path):
    export.write(around, {"summary": tmp_path / "summary.tsv", "layers": tmp_path / "layers.tsv"})
    table = storage.read_tsv(tmp_path / "summary.tsv").set_index("run")
    names = ["spots_core", "spots_inner_rim", "spots_outer_rim", "spots_stroma"]
    assert table.loc["t|m", names].sum() == 47
    assert table.loc["t|m", "spots_core"] + table.loc["t|m", "spots_inner_rim"] == table.loc["t|m", "called"]
    assert table.loc["none", names].tolist() == [0, 0, 0, 0]
    assert table.loc["none", "perimeter_um"] == 0
    of = storage.read_tsv(tmp_path / "layers.tsv")
    assert of["run"].tolist() == ["t|m"] * 4
    assert of["spots"].tolist() == table.loc["t|m", names].tolist()


def test_cells_have_the_layer_of_their_spot(tmp_path):
    cells, spots, score, call = three_discs()
    scores, calls = score.to_frame("m"), call.to_frame("m")
    rim_um = series(spots, [-12.5, np.nan, 37.5]).to_frame("m")
    layer = pd.DataFrame({"m": ["inner rim", None, "stroma"]}, index=spots.obs_names)
    content = export.Section(
        spots, scores, calls, scores[[]], scores[[]], cells=cells, rim_um=rim_um[::-1], layer=layer[::-1]
    )
    export.write(content, {"xenium": tmp_path / "groups"})
    table = storage.read_tsv(tmp_path / "groups/m.cells.tsv")
    np.testing.assert_array_equal(table["rim_um"], [-12.5, -12.5, np.nan, np.nan, np.nan, 37.5])
    words = ["inner rim", "inner rim", "not scored", "not scored", "not scored", "stroma"]
    assert table["layer"].tolist() == words
    groups = pd.read_csv(tmp_path / "groups/m.layers.csv", dtype=str)
    assert list(groups) == ["cell_id", "group", "color"]
    assert groups["group"].tolist() == words
    assert groups["color"].tolist() == ["#e69f00"] * 2 + ["#9a9a9a"] * 3 + ["#56b4e9"]
    assert set(pd.read_csv(tmp_path / "groups/m.csv")["group"]) == {"cancer", "not scored", "other"}


def pooled(pool):
    """800 cells, the spots they are summed into, and the result of a run that scores all of them."""
    rng = np.random.default_rng(0)
    cells = anndata.AnnData(
        csr_matrix(np.ones((800, 2), dtype=np.float32)),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(800)]),
        obsm={"spatial_um": rng.uniform(0, 700, (800, 2))},
        uns={"section": {"section": "X1", "um_per_px": 0.5, "spot_um": 55.0, "pixel_size": 0.5, "image_scale": 1.0}},
    )
    spots = aggregate.aggregate_cells(cells, pool)
    return cells, spots, series(spots, rng.random(spots.n_obs)), series(spots, rng.integers(0, 2, spots.n_obs))


def test_cells_in_discs_have_the_call_of_the_disc_around_them():
    cells, spots, score, call = pooled("discs")
    table = cell_table(cells, spots, score[::-1], call[::-1]).set_index("cell_id")
    assert list(table.index) == list(cells.obs_names)
    words = {}
    for name, centre in zip(spots.obs_names, spots.obsm["spatial_um"], strict=True):
        for cell, place in zip(cells.obs_names, cells.obsm["spatial_um"], strict=True):
            if np.hypot(*(place - centre)) <= 27.5:
                words[cell] = "cancer" if call[name] == 1 else "other"
    assert table.call.to_dict() == {cell: words.get(cell, "not scored") for cell in cells.obs_names}
    assert (table.call != "not scored").sum() == spots.obs["n_cells"].sum()


def test_in_hexagons_no_cell_of_a_scored_spot_is_left_out(tmp_path):
    cells, spots, score, call = pooled("hexagons")
    storage.write_h5ad(cells, tmp_path / "cells.h5ad")
    cells = storage.read_h5ad(tmp_path / "cells.h5ad", with_x=False)
    whole = cell_table(cells, spots, score, call)
    assert set(whole.call) == {"cancer", "other"}
    distance = np.hypot(*(cells.obsm["spatial_um"][:, None] - spots.obsm["spatial_um"]).transpose(2, 0, 1))
    closest = spots.obs_names[distance.argmin(axis=1)]
    assert list(whole.spot) == list(closest)
    np.testing.assert_array_equal(whole.score, score[closest])
    # a spot that is not scored, and one that was left out of the section after its cells were summed
    score.iloc[0] = call.iloc[0] = np.nan
    part = cell_table(cells, spots[:-1].copy(), score.iloc[:-1], call.iloc[:-1])
    unscored = closest.isin(spots.obs_names[[0, -1]])
    assert 0 < unscored.sum() < 10
    np.testing.assert_array_equal(part.call == "not scored", unscored)


def test_the_area_of_hexagons_called_is_theirs():
    _, spots, score, call = pooled("hexagons")
    hexagon_um2 = 55**2 * np.sqrt(3) / 2
    row = summary_row(spots, score, call)
    assert row["area_mm2"] == pytest.approx(call.sum() * hexagon_um2 / 1e6)
    drawn = qupath_geojson(spots, score, call)["features"]
    measured = sum(one["properties"]["measurements"]["Area µm^2"] for one in drawn)
    assert measured == pytest.approx(call.sum() * hexagon_um2, rel=0.006)
    assert sum(one["properties"]["measurements"]["Spots"] for one in drawn) == call.sum()


def test_cells_of_another_section_are_refused():
    cells, spots = xenium_section([(9000, 0)], [(0, 0), (100, 0)], ["r999c999"])
    with pytest.raises(InputError, match=r"section S1: no cell of its cells\.h5ad lies in a spot"):
        cell_table(cells, spots, series(spots, [1, 0]), series(spots, [1, 0]))
