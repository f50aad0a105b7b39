from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image as pil

from ctrflow import image
from ctrflow.errors import InputError

HER2ST = Path(__file__).parents[3] / "shared" / "data" / "her2st" / "ST-imgs"


def ramp(width: int = 200, height: int = 150) -> np.ndarray:
    """Red says x, green says y, blue is 7."""
    pixels = np.full((height, width, 3), 7, np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return pixels


def flat(width: int, height: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write_pyramid(path: Path) -> Path:
    """512 x 256 px; level 0 is 10, level 1 (half) is 20, level 2 (quarter) is 40, all over."""
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(flat(512, 256, 10), subifds=2, tile=(64, 64), photometric="rgb")
        tiff.write(flat(256, 128, 20), subfiletype=1, tile=(64, 64), photometric="rgb")
        tiff.write(flat(128, 64, 40), subfiletype=1, tile=(64, 64), photometric="rgb")
    return path


def write_tiff(path: Path, pixels: np.ndarray, **options) -> Path:
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", **options})
    return path


def write_photo(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    picture = pil.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path)
    return path


LOSSLESS = {
    "tiled": {"tile": (64, 64)},
    "tiled_deflate": {"tile": (64, 64), "compression": "zlib"},
    "uncompressed": {},
    "compressed_strips": {"compression": "zlib", "rowsperstrip": 8},
    "bigtiff": {"tile": (64, 64), "bigtiff": True},
    "big_endian": {"byteorder": ">"},
    "ome": {"tile": (64, 64), "ome": True, "metadata": {"axes": "YXS"}},
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_windows_of_a_tiff_are_exact_and_white_outside(tmp_path, kind):
    pixels = ramp()
    with image.open_image(write_tiff(tmp_path / "a.tif", pixels, **LOSSLESS[kind])) as slide:
        assert (slide.width_px, slide.height_px, slide.levels) == (200, 150, [1.0])
        np.testing.assert_array_equal(slide.read(30, 60, 70, 50), pixels[60:110, 30:100])
        corner = slide.read(-2, 148, 5, 4)
    expected = np.full((4, 5, 3), 255)
    expected[:2, 2:] = pixels[148:150, 0:3]
    np.testing.assert_array_equal(corner, expected)


def test_planes_first_and_png_read_as_rgb_in_order(tmp_path):
    pixels = ramp()
    planes = np.moveaxis(pixels, -1, 0)
    paths = [
        write_tiff(tmp_path / "planar.tif", planes, planarconfig="separate", tile=(64, 64)),
        write_tiff(tmp_path / "cyx.ome.tif", planes, photometric="minisblack", metadata={"axes": "CYX"}, tile=(64, 64)),
        write_photo(tmp_path / "a.png", pixels),
    ]
    for path in paths:
        with image.open_image(path) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 200, 150), pixels)


def test_jpeg_inside_tiff_comes_back_as_rgb(tmp_path):
    path = write_tiff(tmp_path / "a.tif", flat(128, 128, 0) + np.array([200, 40, 90], np.uint8), tile=(64, 64))
    coded = tmp_path / "jpeg.tif"
    tifffile.imwrite(coded, tifffile.imread(path), photometric="rgb", compression="jpeg", tile=(64, 64))
    assert tifffile.TiffFile(coded).pages[0].photometric.name == "YCBCR"
    with image.open_image(coded) as slide:
        np.testing.assert_allclose(slide.read(10, 10, 20, 20).mean(axis=(0, 1)), [200, 40, 90], atol=3)


def test_pyramid_levels_and_windows(tmp_path):
    with image.open_image(write_pyramid(tmp_path / "p.tif")) as slide:
        assert slide.levels == [1.0, 2.0, 4.0]
        assert [slide.size_px(level) for level in range(3)] == [(512, 256), (256, 128), (128, 64)]
        assert [int(slide.read(100, 50, 10, 10, level).max()) for level in range(3)] == [10, 20, 40]


# 64 px wide at level 0: 64 px want level 0, 32 px level 1, 16 px level 2; between two levels the finer one is taken.
@pytest.mark.parametrize(("out_px", "value"), [(100, 10), (64, 10), (33, 10), (32, 20), (20, 20), (16, 40), (5, 40)])
def test_the_coarsest_level_that_is_fine_enough_is_read(tmp_path, out_px, value):
    with image.open_image(write_pyramid(tmp_path / "p.tif")) as slide:
        patches, padded = image.cut_patches(slide, np.array([[256.0, 128.0]]), 64.0, out_px)
    assert patches.shape == (1, out_px, out_px, 3)
    assert np.unique(patches).tolist() == [value]
    assert padded.tolist() == [False]


def test_levels_without_subifds_and_with_rounded_sizes(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as tiff:  # as vips writes it: one page a level, sizes rounded down
        for level, (width, height) in enumerate([(301, 203), (150, 101), (75, 50)]):
            kind = 1 if level else 0
            tiff.write(flat(width, height, level), tile=(64, 64), photometric="rgb", subfiletype=kind, metadata=None)
    with image.open_image(path) as slide:
        assert slide.levels == [1.0, 2.0, 4.0]


def test_patch_is_centred_to_the_pixel(tmp_path):
    with image.open_image(write_tiff(tmp_path / "a.tif", ramp(), tile=(64, 64))) as slide:
        whole, _ = image.cut_patches(slide, np.array([[100.0, 60.0]]), 8.0, 8)
        halved, _ = image.cut_patches(slide, np.array([[100.0, 60.0]]), 16.0, 8)
        between, _ = image.cut_patches(slide, np.array([[100.5, 60.0]]), 7.0, 7)
    # 8 px around x = 100 are [96, 104): pixels 96 to 103. Rows follow y, columns follow x.
    np.testing.assert_array_equal(whole[0, ..., 0], np.tile(np.arange(96, 104), (8, 1)))
    np.testing.assert_array_equal(whole[0, ..., 1], np.tile(np.arange(56, 64)[:, None], (1, 8)))
    assert (whole[0, ..., 2] == 7).all()
    # 16 px around x = 100 are [92, 108): the pair (92, 93) has mean 92.5, up to (106, 107).
    np.testing.assert_allclose(halved[0, 0, :, 0], np.arange(92.5, 108, 2), atol=0.51)
    # 7 px around 100.5 are [97, 104).
    np.testing.assert_array_equal(between[0, 0, :, 0], np.arange(97, 104))


def test_resampling_averages_what_it_leaves_out(tmp_path):
    checks = np.indices((128, 128)).sum(axis=0) % 2 * 255
    path = write_tiff(tmp_path / "a.tif", np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    with image.open_image(path) as slide:
        patches, _ = image.cut_patches(slide, np.array([[64.0, 64.0]]), 64.0, 16)
    np.testing.assert_allclose(patches, 127.5, atol=1.5)  # picking single pixels would give 0 and 255


def test_what_leaves_the_image_is_white_and_flagged(tmp_path):
    centres = np.array([[10.0, 10.0], [9.9, 10.0], [190.0, 140.0], [190.0, 140.5], [0.0, 75.0], [100.0, 75.0]])
    with image.open_image(write_tiff(tmp_path / "a.tif", ramp())) as slide:
        patches, padded = image.cut_patches(slide, centres, 20.0, 20)
    assert padded.tolist() == [False, True, False, True, True, False]
    assert (patches[4][:, :10] == 255).all()  # the left half is outside
    np.testing.assert_array_equal(patches[4][:, 10:, 0], np.tile(np.arange(10), (20, 1)))


def test_streaming_gives_the_same_patches_in_order(tmp_path):
    centres = np.random.default_rng(0).uniform(0, 150, (11, 2))
    with image.open_image(write_tiff(tmp_path / "a.tif", ramp())) as slide:
        patches, padded = image.cut_patches(slide, centres, 17.3, 9)
        batches = list(image.stream_patches(slide, centres, 17.3, 9, batch=4))
    assert [rows for rows, _, _ in batches] == [slice(0, 4), slice(4, 8), slice(8, 11)]
    np.testing.assert_array_equal(np.concatenate([part for _, part, _ in batches]), patches)
    np.testing.assert_array_equal(np.concatenate([part for _, _, part in batches]), padded)


def test_grey_and_transparent_images(tmp_path):
    grey = ramp()[..., 0]
    alpha = np.array([0, 51, 255], np.uint8)
    # black ink: white shows through where it is transparent, 255 * (1 - 51 / 255) = 204
    inks = np.zeros((1, 3, 4), np.uint8)
    inks[..., 3] = alpha
    paths = [write_tiff(tmp_path / "g.tif", grey, photometric="minisblack"), write_photo(tmp_path / "g.png", grey)]
    for path in paths:
        with image.open_image(path) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 200, 150), np.repeat(grey[..., None], 3, axis=2))
    paths = [write_tiff(tmp_path / "a.tif", inks, extrasamples=["unassalpha"]), write_photo(tmp_path / "a.png", inks)]
    for path in paths:
        with image.open_image(path) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 3, 1)[0, :, 1], [255, 204, 0])


def test_opaque_black_stays_black(tmp_path):
    with image.open_image(write_photo(tmp_path / "a.png", flat(20, 20, 0))) as slide:
        assert slide.read(0, 0, 20, 20).max() == 0


def test_a_large_picture_is_no_bomb_and_the_limit_is_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(pil, "MAX_IMAGE_PIXELS", 100)
    with image.open_image(write_photo(tmp_path / "a.png", flat(50, 50, 3))) as slide:
        assert slide.width_px == 50
    assert pil.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(image, "_MAX_DECODED_PX", 2499)
    with pytest.raises(InputError, match=r"50 x 50 px is too large.*tiled TIFF"):
        image.open_image(tmp_path / "a.png")


def test_thumbnail_says_its_scale(tmp_path):
    with image.open_image(write_pyramid(tmp_path / "p.tif")) as slide:
        small, scale = image.thumbnail(slide, 100)
        assert (small.shape, scale) == ((50, 100, 3), 100 / 512)
        assert np.unique(small).tolist() == [40]  # from the quarter level
        full, scale = image.thumbnail(slide, 5000)
        assert (full.shape, scale) == ((256, 512, 3), 1.0)  # never enlarged


def test_thumbnail_keeps_places(tmp_path):
    # 2100 rows are three bands; row y has the grey value y / 10, so thumbnail row j (scale 1 / 7) the value 0.7 j + 0.3
    pixels = np.repeat((np.arange(2100) // 10)[:, None, None], 70, axis=1).repeat(3, axis=2).astype(np.uint8)
    with image.open_image(write_tiff(tmp_path / "a.tif", pixels, compression="zlib")) as slide:
        small, scale = image.thumbnail(slide, 300)
    assert small.shape == (300, 10, 3)
    assert scale == 1 / 7
    np.testing.assert_allclose(small[:, 5, 0], 0.7 * np.arange(300) + 0.3 - 0.45, atol=1.2)


def test_thumbnail_of_a_section_is_scaled_to_its_spots(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ramp())
    # the image has a quarter of the spots' resolution and is halved: a spot at x = 400 is at x = 50 of the thumbnail
    spots = SimpleNamespace(uns={"section": {"image": str(path), "image_scale": 0.25}})
    small, scale = image.section_thumbnail(spots, 100)
    assert small.shape == (75, 100, 3)
    assert 400 * scale == 50
    assert int(small[0, 50, 0]) in (100, 101)  # the mean of image px 100 and 101
    spots.uns["section"]["image"] = ""
    assert image.section_thumbnail(spots, 100) == (None, 0.0)


@pytest.mark.parametrize(
    ("name", "pixels", "options", "message"),
    [
        ("u16.tif", ramp().astype(np.uint16), {}, "uint16"),
        ("stack.tif", np.zeros((5, 64, 64), np.uint8), {"photometric": "minisblack"}, "stack or a set of channels"),
        ("cmyk.tif", np.zeros((64, 64, 4), np.uint8), {"photometric": "separated"}, "SEPARATED"),
    ],
)
def test_what_is_no_rgb_picture_is_refused(tmp_path, name, pixels, options, message):
    with pytest.raises(InputError, match=f"{name}.*{message}.*8-bit RGB"):
        image.open_image(write_tiff(tmp_path / name, pixels, **options))


def test_four_dyes_are_not_rgba(tmp_path):
    dyes = np.zeros((4, 64, 64), np.uint8)
    path = write_tiff(tmp_path / "dyes.ome.tif", dyes, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="set of channels"):
        image.open_image(path)


def test_sixteen_bit_png_is_refused(tmp_path):
    path = write_photo(tmp_path / "deep.png", ramp()[..., 0].astype(np.uint16))
    with pytest.raises(InputError, match=r"deep\.png: pixels of kind I;16.*8-bit"):
        image.open_image(path)


@pytest.mark.parametrize("name", ["a.tif", "strips.tif", "a.jpg", "a.png"])
def test_truncated_images_are_refused_when_opened(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    path = tmp_path / name
    if name == "a.tif":
        write_tiff(path, pixels, tile=(64, 64))
    elif name == "strips.tif":
        write_tiff(path, pixels, compression="zlib", rowsperstrip=16)
    else:
        write_photo(path, pixels)
    whole = path.read_bytes()
    image.open_image(path).close()
    for share in (0.9, 0.5, 0.01):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=f"{name}.*cut short.*again"):
            image.open_image(path)


def test_a_damaged_tile_is_an_input_error(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    path = write_tiff(tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        start, length = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    with image.open_image(path) as slide:
        np.testing.assert_array_equal(slide.read(64, 64, 64, 64), pixels[64:, 64:])  # the other tiles are whole
        with pytest.raises(InputError, match=r"a\.tif: damaged"):
            slide.read(0, 0, 64, 64)


def test_text_and_missing_files_name_the_column(tmp_path):
    text = tmp_path / "slide.tif"
    text.write_text("<html>404</html>")
    with pytest.raises(InputError, match=r"slide\.tif: not a TIFF, JPEG or PNG image.*column `image`"):
        image.open_image(text)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match=r"empty\.jpg: not a TIFF, JPEG or PNG"):
        image.open_image(tmp_path / "empty.jpg")
    with pytest.raises(InputError, match=r"gone\.tif: no such image.*column `image`"):
        image.open_image(tmp_path / "gone.tif")


def test_content_counts_not_the_name(tmp_path):
    path = write_photo(tmp_path / "a.png", ramp())
    with image.open_image(path.rename(tmp_path / "a.tif")) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 200, 150), ramp())


def test_spots_outside_the_image_are_told(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ramp())
    names = ["s1", "s2", "s3", "s4"]
    with image.open_image(path) as slide:
        image.require_inside(np.array([[0.0, 0.0], [200.0, 150.0]]), slide, names[:2], path)
        centres = np.array([[20.0, 30.0], [201.0, 30.0], [40.0, -5.0], [np.nan, 3.0]])
        with pytest.raises(InputError) as caught:
            image.require_inside(centres, slide, names, path)
    message = str(caught.value)
    for part in (
        "3 of 4 spots",
        "s2, s3, s4",
        "200 x 150 px",
        "x 20 to 201",
        "y -5 to 30",
        "`image_scale`",
        "um_per_px",
    ):
        assert part in message


def test_real_slide():
    path = HER2ST / "B4.jpg"
    if not path.is_file():
        pytest.skip(f"no real sections: {path} is absent")
    with image.open_image(path) as slide:
        assert (slide.width_px, slide.height_px) == (9272, 9923)
        small, scale = image.thumbnail(slide, 500)
        patches, padded = image.cut_patches(slide, np.array([[5000.0, 6000.0], [50.0, 50.0]]), 272.0, 64)
    assert small.shape == (500, 467, 3)
    assert scale == 500 / 9923
    assert padded.tolist() == [False, True]
    # the same place seen twice: 272 px are 13.7 px of the thumbnail around (251.9, 302.3)
    around = small[296:310, 245:259].mean(axis=(0, 1))
    np.testing.assert_allclose(patches[0].mean(axis=(0, 1)), around, atol=4)
