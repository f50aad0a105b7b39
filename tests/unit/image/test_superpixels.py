"""Superpixels against values worked by hand, other libraries, and a loop over pixels."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import tifffile
from PIL import Image as pil
from scipy.ndimage import gaussian_filter
from skimage.color import hed_from_rgb

from ctrflow import simulate, storage
from ctrflow.errors import InputError
from ctrflow.image import open_image, superpixels

HER2ST = Path(__file__).parents[4] / "shared" / "data" / "her2st" / "ST-imgs"
F = list(superpixels.FEATURES)


def spots_on(path, xy, um_per_px=1.0, spot_um=55.0, image_scale=1.0):
    spots = anndata.AnnData(np.zeros((len(xy), 1), np.float32), obsm={"spatial": np.array(xy, float)})
    spots.uns["section"] = {
        "section": "S", "image": str(path), "um_per_px": um_per_px, "spot_um": spot_um, "image_scale": image_scale,
    }  # fmt: skip
    return spots


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(11, 256, (height, width, 3), dtype=np.uint8)


def saved(folder, pixels, name="image.png"):
    pil.fromarray(pixels).save(folder / name)
    return folder / name


def test_46_features():
    assert len(F) == len(set(F)) == 46


def test_the_grid_is_the_tissue_within_a_pitch_of_a_spot(tmp_path):
    # two spots 32 px apart: pitch 32; superpixels of 8 px, whose centres are at 4, 12, 20, ...
    table = superpixels.cut_superpixels(spots_on(saved(tmp_path, noise(160, 120)), [(60, 60), (92, 60)]))
    grid = {(r, c) for r in range(15) for c in range(20)}
    near = {
        (r, c)
        for r, c in grid
        if min(np.hypot(c * 8 + 4 - x, r * 8 + 4 - 60) for x in (60, 92)) <= 32  # on the limit counts
    }
    assert set(zip(table.obs["row"], table.obs["col"], strict=True)) == near
    assert (table.obsm["spatial"] == np.column_stack([table.obs["col"] * 8 + 4, table.obs["row"] * 8 + 4])).all()
    assert table.uns["superpixels"] == {"um": 8.0, "um_per_px": 1.0, "spot_um": 55.0}


def test_own_features_are_mean_and_sd_over_its_pixels(tmp_path):
    pixels = noise(200, 160)
    # 5.6 px a superpixel: a pixel is of the one that its centre lies in
    spots = spots_on(saved(tmp_path, pixels), [(100, 80), (140, 80)], um_per_px=8 / 5.6)
    table = superpixels.cut_superpixels(spots)
    density = -np.log((pixels.astype(float) + 1) / 256)
    stains = density @ hed_from_rgb[:, :2]
    channels = np.dstack([pixels / 255, stains])
    owner_row, owner_col = (np.floor((np.arange(n) + 0.5) / 5.6).astype(int) for n in pixels.shape[:2])
    for i in range(0, table.n_obs, 37):
        inside = channels[owner_row == table.obs["row"].iloc[i]][:, owner_col == table.obs["col"].iloc[i]].reshape(
            -1, 5
        )
        assert table.X[i, :5] == pytest.approx(inside.mean(axis=0), abs=1e-5)
        assert table.X[i, 5:10] == pytest.approx(inside.std(axis=0), abs=1e-4)
        assert (np.abs(table.obsm["rgb"][i] - inside[:, :3].mean(axis=0) * 255) <= 0.51).all()


def test_coarser_features_are_gaussian_means_over_the_superpixels(tmp_path):
    pixels = noise(400, 400)
    spots = spots_on(saved(tmp_path, pixels), [(x, y) for y in range(50, 400, 100) for x in range(50, 400, 100)])
    table = superpixels.cut_superpixels(spots)
    assert table.n_obs == 50 * 50  # all of the image
    own = np.array([pixels[r * 8 : r * 8 + 8, c * 8 : c * 8 + 8, 0].mean() / 255 for r in range(50) for c in range(50)])
    wanted = gaussian_filter(own.reshape(50, 50), 4, truncate=3, mode="nearest").ravel()
    assert table.X[:, F.index("um32.red_mean")] == pytest.approx(wanted, abs=1e-5)
    blue = table.X[:, F.index("haematoxylin_mean")].reshape(50, 50).astype(float)
    spread = gaussian_filter(blue**2, 2, truncate=3, mode="nearest")
    spread -= gaussian_filter(blue, 2, truncate=3, mode="nearest") ** 2
    assert table.X[:, F.index("um16.haematoxylin_between")] == pytest.approx(np.sqrt(spread).ravel(), abs=1e-3)


def test_bands_and_shrinking_change_nothing(tmp_path, monkeypatch):
    # each block of 4 x 4 px of one colour: reducing 32 px a superpixel to 8 loses nothing
    pixels = noise(100, 80).repeat(4, axis=0).repeat(4, axis=1)
    spots = spots_on(saved(tmp_path, pixels), [(200, 160), (300, 160)], um_per_px=0.25)
    full = superpixels.cut_superpixels(spots)
    monkeypatch.setattr(superpixels, "_BAND_PX", 1)
    banded = superpixels.cut_superpixels(spots)
    assert (full.X == banded.X).all()
    monkeypatch.setattr(superpixels, "_ACROSS_PX", 32)
    unshrunk = superpixels.cut_superpixels(spots)
    assert np.allclose(full.X, unshrunk.X, atol=1e-4)


def test_pixels_come_from_the_coarsest_level_that_is_fine_enough(tmp_path):
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as tiff:
        for size, value in ((512, 40), (256, 80), (128, 120)):
            more = {"subifds": 2} if size == 512 else {"subfiletype": 1}
            tiff.write(np.full((size, size, 3), value, np.uint8), tile=(64, 64), photometric="rgb", **more)
    # 16 px a superpixel at the finest level: 8 of the second are enough, 4 of the third are not
    table = superpixels.cut_superpixels(spots_on(path, [(200, 200), (300, 200)], um_per_px=0.5))
    assert (table.obsm["rgb"] == 80).all()


def test_pixels_larger_than_superpixels_belong_to_several(tmp_path):
    pixels = noise(40, 40)
    spots = spots_on(saved(tmp_path, pixels), [(10, 20), (30, 20)], um_per_px=20.0)
    table = superpixels.cut_superpixels(spots)
    x, y = table.obsm["spatial"].astype(int).T
    assert (table.obsm["rgb"] == pixels[y, x]).all()
    assert table.X[:, 5:10].max() < 1e-3  # one pixel has no spread


def test_image_scale_moves_centres_back_to_full_resolution(tmp_path):
    path = saved(tmp_path, noise(160, 120))
    plain = superpixels.cut_superpixels(spots_on(path, [(60, 60), (92, 60)]))
    scaled = superpixels.cut_superpixels(spots_on(path, [(600, 600), (920, 600)], um_per_px=0.1, image_scale=0.1))
    assert scaled.obsm["spatial"] == pytest.approx(plain.obsm["spatial"] * 10)
    assert np.allclose(scaled.X, plain.X, atol=1e-6)


def test_unscanned_pixels_are_glass(tmp_path):
    table = superpixels.cut_superpixels(
        spots_on(saved(tmp_path, np.zeros((80, 80, 3), np.uint8)), [(20, 40), (60, 40)])
    )
    assert (table.obsm["rgb"] == 255).all()
    assert (table.X[:, F.index("haematoxylin_mean")] == 0).all()


def test_a_spot_has_the_superpixels_whose_centres_it_covers():
    rows, cols = np.divmod(np.arange(100), 10)
    table = {"centres_px": np.column_stack([cols, rows]) * 8.0 + 4, "spot_um": 20.0, "um_per_px": 1.0}
    spots = np.array([[44.0, 44.0], [300.0, 300.0], [48.0, 48.0]])
    weights = superpixels.discs(table, spots)
    # centre and its four neighbours at 8; the diagonals at 11.3 lie outside of 10
    assert weights[0].indices.tolist() == [45, 54, 55, 56, 65]
    assert weights[0].data == pytest.approx(np.full(5, 0.2))
    assert weights[1].indices.tolist() == [99]  # none: the nearest
    assert weights[2].indices.tolist() == [55, 56, 65, 66]
    assert np.asarray(weights.sum(axis=1)).ravel() == pytest.approx(np.ones(3))


def test_writing_and_reading_keeps_the_arrays(tmp_path):
    table = superpixels.cut_superpixels(spots_on(saved(tmp_path, noise(160, 120)), [(60, 60), (92, 60)]))
    storage.write_h5ad(table, tmp_path / "s.h5ad")
    plain, again = superpixels.arrays(table), superpixels.arrays(storage.read_h5ad(tmp_path / "s.h5ad"))
    assert list(plain) == ["features", "rgb", "centres_px", "row", "col", "um", "um_per_px", "spot_um"]
    assert all(np.array_equal(plain[key], again[key]) for key in plain)
    assert again["features"].dtype == np.float32
    assert again["rgb"].dtype == np.uint8


def test_every_spot_of_a_simulated_section_is_filled(tmp_path):
    section = simulate.simulate_section("visium", 40, 50)
    path = saved(tmp_path, section.image)
    xy = section.spots[["x_px", "y_px"]].to_numpy()
    table = superpixels.cut_superpixels(spots_on(path, xy, section.um_per_px, section.spot_um))
    assert np.isfinite(table.X).all()
    inside = np.diff(superpixels.discs(superpixels.arrays(table), xy).indptr)
    # a disc of 55 µm has 37.1 squares of 8 µm
    assert 30 <= inside.min() <= 37 <= inside.max() <= 44


def test_a_section_without_image_is_rejected(tmp_path):
    spots = spots_on("", [(1, 1), (2, 2)])
    with pytest.raises(InputError, match="section S: no image to cut superpixels from; fill the column `image`"):
        superpixels.cut_superpixels(spots)


def test_spots_outside_the_image_are_rejected(tmp_path):
    with pytest.raises(InputError, match="1 of 2 spots lie outside the image"):
        superpixels.cut_superpixels(spots_on(saved(tmp_path, noise(80, 80)), [(40, 40), (90, 40)]))


@pytest.mark.skipif(not (HER2ST / "C2.jpg").is_file(), reason="HER2ST is not here")
def test_a_real_section():
    with open_image(HER2ST / "C2.jpg") as image:
        middle = np.array([image.width_px, image.height_px]) // 2
    # spots of 100 µm every 200 µm, some 0.68 µm per px
    xy = [middle + np.array([x, y]) for y in range(-1470, 1471, 294) for x in range(-1470, 1471, 294)]
    table = superpixels.cut_superpixels(spots_on(HER2ST / "C2.jpg", xy, 0.68, 100.0))
    box = ((np.ptp(xy, axis=0) + 2 * 294) * 0.68 / 8).prod()
    assert 0.9 * box < table.n_obs <= box * 1.02
    assert np.isfinite(table.X).all()
    assert (table.X[:, F.index("haematoxylin_mean")] > 0.05).mean() > 0.3  # there is stained tissue
