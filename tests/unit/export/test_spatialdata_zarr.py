"""The SpatialData store: what spatialdata reads back, positions of its elements, and atomic writing."""

import anndata
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata
from spatialdata.models import get_channel_names
from spatialdata.transformations import get_transformation

from ctrflow.export.regions import section_regions
from ctrflow.export.spatialdata_zarr import section_spatialdata, write_spatialdata
from spot_arrays import section, square

PICTURE = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)


def results(spots):
    """Two runs; the second calls nothing, one spot is not scored."""
    scores = pd.DataFrame({"t|m": np.linspace(0, 1, spots.n_obs), "t|none": 0.1}, index=spots.obs_names)
    scores.iloc[3] = np.nan
    calls = (scores > 0.5).astype(float).where(scores.notna())
    sd = pd.DataFrame({"t|m": 0.05}, index=spots.obs_names)
    return scores, calls, sd


def stored(tmp_path, picture=PICTURE, **facts):
    """A section of 5 x 5 squares of 100 px from (1000, 1000), 2 µm a px, as it is read back."""
    spots = section(square(5, 5), **facts)
    scores, calls, sd = results(spots)
    found = section_regions(spots, calls)
    content = section_spatialdata(spots, scores, calls, found, {"study": "demo"}, picture, 0.25, sd)
    path = tmp_path / "S1.spatialdata.zarr"
    write_spatialdata(content, path)
    (path / ".snakemake_timestamp").touch()  # Snakemake leaves one in every folder that a rule makes
    return spots, scores, calls, found, spatialdata.read_zarr(path)


def test_all_elements_are_there(tmp_path):
    *_, store = stored(tmp_path)
    assert list(store.images) == ["he"]
    assert set(store.shapes) == {"spots", "regions_t_m"}  # a run without calls has no regions to draw
    assert list(store.tables) == ["table"]
    assert sorted(store.coordinate_systems) == ["global", "um"]
    for name in ("he", "spots", "regions_t_m"):
        assert set(get_transformation(store[name], get_all=True)) == {"global", "um"}


def test_the_table_annotates_the_spots(tmp_path):
    spots, scores, calls, _, store = stored(tmp_path)
    table = store["table"]
    assert isinstance(table, anndata.AnnData)
    assert table.uns["spatialdata_attrs"] == {"region": "spots", "region_key": "region", "instance_key": "spot"}
    assert list(store["spots"].index) == list(table.obs["spot"]) == list(spots.obs_names)
    assert set(table.obs["region"]) == {"spots"}
    joined, matched = spatialdata.join_spatialelement_table(
        sdata=store, spatial_element_names="spots", table_name="table", how="inner"
    )
    assert len(joined["spots"]) == matched.n_obs == 25
    assert table.obs["score_t_m"].to_numpy() == pytest.approx(scores["t|m"].to_numpy(), nan_ok=True)
    assert table.obs["call_t_m"].tolist() == (
        calls["t|m"].map({1.0: "cancer", 0.0: "other"}).fillna("not scored").tolist()
    )
    assert list(table.uns["call_t_m_colors"]) == ["#d55e00", "#56b4e9", "#9a9a9a"]
    assert list(table.obsm) == ["spatial"]
    assert table.obs["sd_t_m"].tolist() == [0.05] * 25
    assert (table.X != spots.X).nnz == 0
    assert table.uns["ctrflow"]["study"] == "demo"
    assert table.uns["ctrflow"]["runs"]["t_m"] == "t|m"
    assert "spatial" not in table.uns  # the picture is stored once


def test_spots_are_circles_of_their_size(tmp_path):
    spots, *_, store = stored(tmp_path)
    circles = store["spots"]
    assert shapely.get_coordinates(circles.geometry).tolist() == spots.obsm["spatial"].tolist()
    assert set(circles["radius"]) == {25.0}  # 100 µm across at 2 µm a px
    extent = spatialdata.get_extent(store["spots"], coordinate_system="um")
    assert extent["x"] == pytest.approx(((1000 - 25) * 2, (1400 + 25) * 2))


def test_the_picture_lies_under_the_spots(tmp_path):
    *_, store = stored(tmp_path)
    picture = store["he"]
    assert [picture[f"scale{level}"]["image"].shape for level in range(3)] == [
        (3, 300, 400),
        (3, 150, 200),
        (3, 75, 100),
    ]
    assert (picture["scale0"]["image"].transpose("y", "x", "c").values == PICTURE).all()
    assert picture["scale2"]["image"].dtype == np.uint8
    assert get_channel_names(picture) == ["r", "g", "b"]  # as napari-spatialdata knows a colour picture
    # 0.25 px of the picture a full-resolution px, which is 2 µm wide
    extent = spatialdata.get_extent(picture, coordinate_system="global")
    assert (extent["x"], extent["y"]) == (pytest.approx((0, 1600)), pytest.approx((0, 1200)))
    assert spatialdata.get_extent(picture, coordinate_system="um")["x"] == pytest.approx((0, 3200))


def test_regions_are_the_polygons_of_each_run(tmp_path):
    _, scores, _, found, store = stored(tmp_path)
    [(shape, own)] = found["t|m"]
    table = store["regions_t_m"]
    assert table.geometry.is_valid.all()
    assert table.geometry.iloc[0].equals(shape)
    assert table.geometry.iloc[0].contains(store["spots"].geometry.iloc[20])
    assert not table.geometry.iloc[0].contains(store["spots"].geometry.iloc[0])
    assert table["spots"].tolist() == [len(own)] == [12]
    assert table["area_um2"].tolist() == pytest.approx([12 * 200**2], rel=0.01)
    assert table["mean_score"].tolist() == pytest.approx([scores["t|m"].iloc[13:].mean()])


def test_a_section_without_picture_has_no_image(tmp_path):
    *_, store = stored(tmp_path, picture=None)
    assert not store.images
    assert set(store.shapes) == {"spots", "regions_t_m"}


def test_a_small_picture_has_one_level(tmp_path):
    *_, store = stored(tmp_path, picture=PICTURE[:100, :90])
    assert store["he"].shape == (3, 100, 90)


def test_a_second_export_is_the_same_to_the_byte(tmp_path):
    content = []
    for name in ("first", "second"):
        stored(tmp_path / name)
        folder = tmp_path / name / "S1.spatialdata.zarr"
        content.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert content[0] == content[1]


def test_an_older_store_is_only_replaced_by_a_complete_one(tmp_path, monkeypatch):
    path = tmp_path / "S1.spatialdata.zarr"
    path.mkdir()
    (path / "old").write_text("old")
    spots = section(square(3, 3))
    scores, calls, sd = results(spots)
    content = section_spatialdata(spots, scores, calls, section_regions(spots, calls), sd=sd)

    def full_disk(self, part, *args, **kwargs):
        part.mkdir()
        (part / "zarr.json").write_text("{}")
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(spatialdata.SpatialData, "write", full_disk)
        with pytest.raises(OSError, match="No space"):
            write_spatialdata(content, path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert (path / "old").read_text() == "old"
    write_spatialdata(content, path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert not (path / "old").exists()
    assert spatialdata.read_zarr(path)["table"].n_obs == 9
