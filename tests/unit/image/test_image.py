import errno
import io
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import anndata
import h5py
import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image as pil

from ctrflow import image
from ctrflow.errors import InputError

HER2ST = Path(__file__).parents[4] / "shared" / "data" / "her2st" / "ST-imgs"


def ramp(width: int = 200, height: int = 150) -> np.ndarray:
    """Red is x, green is y, blue is 7."""
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


def write_svs(path: Path, pixels: np.ndarray) -> Path:
    """As Aperio writes it: slide, thumbnail, a smaller level, label; 0.25 µm per px."""
    text = (
        "Aperio Image Library v11.2.1\r\n512x256 [0,0 512x256] (64x64) JPEG/RGB Q=95|AppMag = 40|MPP = 0.2500|Left = 3"
    )
    coded = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 98}}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, tile=(64, 64), description=text, metadata=None, software=False, **coded)
        tiff.write(pixels[::8, ::8], rowsperstrip=16, description=text, metadata=None, software=False, **coded)
        tiff.write(pixels[::4, ::4], tile=(64, 64), description=text, metadata=None, software=False, **coded)
        label = {"description": "Aperio Image Library v11.2.1\r\nlabel 90x80", "metadata": None, "software": False}
        tiff.write(flat(90, 80, 9), subfiletype=1, rowsperstrip=80, photometric="rgb", compression="lzw", **label)
    return path


def write_svs_jpeg2000(path: Path, pixels: np.ndarray, compression: int) -> Path:
    """Aperio's JPEG 2000: 33003 is YCbCr, 33005 RGB, and neither codestream declares it."""
    stored = np.asarray(pil.fromarray(pixels).convert("YCbCr")) if compression == 33003 else pixels
    height, width = pixels.shape[:2]
    corners = [(y, x) for y in range(0, height, 128) for x in range(0, width, 128)]
    tiles = [np.ascontiguousarray(stored[y : y + 128, x : x + 128]) for y, x in corners]
    coded = [imagecodecs.jpeg2k_encode(tile, level=0, codecformat="J2K", mct=False, reversible=True) for tile in tiles]
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(coded),
            shape=pixels.shape,
            dtype="uint8",
            tile=(128, 128),
            photometric="rgb",
            compression=compression,
            description="Aperio Image Library v11\r\n512x256|AppMag = 40|MPP = 0.25",
            metadata=None,
            software=False,
        )
    return path


def write_ndpi(path: Path, pixels: np.ndarray) -> Path:
    """As Hamamatsu writes it: a TIFF with offsets of 8 bytes, one JPEG with restart markers a level; 0.5 µm per px."""
    content, link = bytearray(b"II*\0" + bytes(8)), 4
    for level, lens in [(pixels, 20.0), (pixels[::2, ::2], 10.0), (flat(90, 40, 9), -1.0)]:  # the last is the macro
        jpeg = io.BytesIO()
        pil.fromarray(level).save(jpeg, "jpeg", quality=98, restart_marker_rows=1, subsampling=0)
        height, width = level.shape[:2]
        start = len(content)
        content += jpeg.getvalue() + bytes(len(jpeg.getvalue()) % 2)
        resolution, bits = len(content), len(content) + 8
        content += struct.pack("<II", 20_000, 1) + struct.pack("<4H", 8, 8, 8, 0)
        (magnification,) = struct.unpack("<I", struct.pack("<f", lens))
        tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 7), (262, 3, 1, 6)]
        tags += [(273, 4, 1, start), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(jpeg.getvalue()))]
        tags += [(282, 5, 1, resolution), (283, 5, 1, resolution), (296, 3, 1, 3), (65420, 4, 1, 1)]
        tags += [(65421, 11, 1, magnification), (65422, 9, 1, 0), (65423, 9, 1, 0), (65424, 9, 1, 0)]
        content[link : link + 8] = struct.pack("<Q", len(content))
        content += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        link = len(content)
        content += bytes(8 + 4 * len(tags))  # no next directory; high halves of the values
    path.write_bytes(content)
    return path


def write_scn(path: Path, left: np.ndarray, right: np.ndarray) -> Path:
    """As Leica writes it: 0.5 µm per px; two scans of 128 x 128 px at (100, 200) and (196, 200) µm of the slide."""
    regions = [(flat(64, 64, 9), 64, 1_000_000, 0, 0)]  # the macro is as large as the slide
    regions += [(left, 128, 64_000, 100_000, 200_000), (right, 128, 64_000, 196_000, 200_000)]
    images = "".join(
        f'<image name="{ifd}"><creationDate>2020</creationDate><device model="m" version="1"/>'
        f'<pixels sizeX="{px}" sizeY="{px}"><dimension sizeX="{px}" sizeY="{px}" r="0" ifd="{ifd}"/></pixels>'
        f'<view sizeX="{nm}" sizeY="{nm}" offsetX="{x}" offsetY="{y}"/><scanSettings><objectiveSettings>'
        f"<objective>{20 if ifd else 1}</objective></objectiveSettings><illuminationSettings>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        for ifd, (_, px, nm, x, y) in enumerate(regions)
    )
    space = "http://www.leica-microsystems.com/scn/2010/10/01"
    slide = f'<scn xmlns="{space}"><collection name="c" sizeX="1000000" sizeY="1000000">{images}</collection></scn>'
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for ifd, (pixels, *_) in enumerate(regions):
            tiff.write(
                pixels,
                tile=(64, 64),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 98},
                resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER",
                description=None if ifd else slide,
                metadata=None,
                software=False,
            )
    return path


def write_h5ad(path: Path, **images: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["uns/spatial/is_single"] = True  # as CELLxGENE has it beside the library
        for name, pixels in images.items():
            file.create_dataset(f"uns/spatial/lib/images/{name}", data=pixels, compression="gzip")
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
        exact, _ = image.cut_patches(slide, np.array([[100.0, 60.0]]), 8.0, 8)
        halved, _ = image.cut_patches(slide, np.array([[100.0, 60.0]]), 16.0, 8)
        between, _ = image.cut_patches(slide, np.array([[100.5, 60.0]]), 7.0, 7)
    # 8 px around x = 100 are [96, 104): pixels 96 to 103. Rows follow y, columns follow x.
    np.testing.assert_array_equal(exact[0, ..., 0], np.tile(np.arange(96, 104), (8, 1)))
    np.testing.assert_array_equal(exact[0, ..., 1], np.tile(np.arange(56, 64)[:, None], (1, 8)))
    assert (exact[0, ..., 2] == 7).all()
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


def test_a_large_image_is_not_taken_for_a_bomb_and_the_limit_is_restored(tmp_path, monkeypatch):
    monkeypatch.setattr(pil, "MAX_IMAGE_PIXELS", 100)
    with image.open_image(write_photo(tmp_path / "a.png", flat(50, 50, 3))) as slide:
        assert slide.width_px == 50
    assert pil.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(image.slide, "_MAX_DECODED_PX", 2499)
    with pytest.raises(InputError, match=r"50 x 50 px is too large.*tiled TIFF"):
        image.open_image(tmp_path / "a.png")


def test_compressed_strips_are_decoded_only_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(image.slide, "_MAX_DECODED_PX", 29_999)
    path = write_tiff(tmp_path / "a.tif", ramp(), **LOSSLESS["compressed_strips"])
    cure = r"a\.tif: 200 x 150 px is too large to decode at once; save it as a tiled TIFF"
    with image.open_image(path) as slide, pytest.raises(InputError, match=cure):
        slide.read(0, 0, 5, 5)
    with image.open_image(write_tiff(tmp_path / "a.tif", ramp(), tile=(64, 64))) as slide:
        assert slide.read(3, 0, 1, 1).tolist() == [[[3, 0, 7]]]


def test_a_failing_disk_is_not_a_damaged_image(tmp_path):
    def window(*_):
        raise OSError(errno.EIO, "Input/output error")

    slide = image.Image(tmp_path / "a.tif", [image.slide.Level(9, 9, 1.0, window)])
    with pytest.raises(InputError, match=r"a\.tif: cannot be read \(Input/output error\); check its permissions"):
        slide.read(0, 0, 5, 5)


def test_thumbnail_returns_its_scale(tmp_path):
    with image.open_image(write_pyramid(tmp_path / "p.tif")) as slide:
        small, scale = image.thumbnail(slide, 100)
        assert (small.shape, scale) == ((50, 100, 3), 100 / 512)
        assert np.unique(small).tolist() == [40]  # from the quarter level
        full, scale = image.thumbnail(slide, 5000)
        assert (full.shape, scale) == ((256, 512, 3), 1.0)  # never enlarged


def test_thumbnail_keeps_positions(tmp_path):
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
def test_an_image_that_is_not_rgb_is_rejected(tmp_path, name, pixels, options, message):
    with pytest.raises(InputError, match=f"{name}.*{message}.*8-bit RGB"):
        image.open_image(write_tiff(tmp_path / name, pixels, **options))


def test_four_dyes_are_not_rgba(tmp_path):
    dyes = np.zeros((4, 64, 64), np.uint8)
    path = write_tiff(tmp_path / "dyes.ome.tif", dyes, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="set of channels"):
        image.open_image(path)


def test_sixteen_bit_png_is_rejected(tmp_path):
    path = write_photo(tmp_path / "deep.png", ramp()[..., 0].astype(np.uint16))
    with pytest.raises(InputError, match=r"deep\.png: pixel mode I;16.*8-bit"):
        image.open_image(path)


@pytest.mark.parametrize("name", ["a.tif", "strips.tif", "a.jpg", "a.png"])
def test_truncated_images_are_rejected_when_opened(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    path = tmp_path / name
    if name == "a.tif":
        write_tiff(path, pixels, tile=(64, 64))
    elif name == "strips.tif":
        write_tiff(path, pixels, compression="zlib", rowsperstrip=16)
    else:
        write_photo(path, pixels)
    intact = path.read_bytes()
    image.open_image(path).close()
    for share in (0.9, 0.5, 0.01):
        path.write_bytes(intact[: int(len(intact) * share)])
        with pytest.raises(InputError, match=f"{name}.*truncated.*again"):
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
        np.testing.assert_array_equal(slide.read(64, 64, 64, 64), pixels[64:, 64:])  # the other tiles are intact
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


def test_spots_outside_the_image_are_reported(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ramp())
    names = ["s1", "s2", "s3", "s4"]
    with image.open_image(path) as slide:
        image.require_inside(np.array([[0.0, 0.0], [200.0, 150.0]]), slide, names[:2])
        centres = np.array([[20.0, 30.0], [201.0, 30.0], [40.0, -5.0], [np.nan, 3.0]])
        with pytest.raises(InputError) as caught:
            image.require_inside(centres, slide, names)
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


def spots_at(image_path, centres_px, image_scale=1.0):
    section = {"section": "A1", "image": str(image_path), "image_scale": image_scale}
    names = [f"s{i}" for i in range(len(centres_px))]
    return anndata.AnnData(
        np.zeros((len(centres_px), 1), np.float32),
        obs=pd.DataFrame(index=names),
        obsm={"spatial": np.array(centres_px, float)},
        uns={"section": section},
    )


def test_an_image_of_a_part_of_the_slide_leaves_the_other_spots_out(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ramp())  # 200 x 150 px
    spots = spots_at(path, [[20, 30], [410, 30], [380, 290]], image_scale=0.5)
    assert list(image.pictured_spots(spots).obs_names) == ["s0", "s2"]
    covered = spots[["s0", "s2"]].copy()
    assert image.pictured_spots(covered) is covered
    assert image.pictured_spots(spots_at("", [[-5, 0]])).n_obs == 1  # no image
    with pytest.raises(InputError, match="2 of 3 spots lie outside"):
        image.pictured_spots(spots_at(path, [[20, 30], [410, 30], [20, 400]]))


def test_the_patches_of_a_section_are_so_many_um_wide_in_the_order_of_its_spots(tmp_path):
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(120), np.arange(80)[:, None]
    pil.fromarray(pixels).save(tmp_path / "a.png")
    centres = np.array([[50.0, 30.0], [100.0, 10.0], [0.0, 40.0]])
    spots = spots_at(tmp_path / "a.png", centres / 2, image_scale=2.0)
    spots.uns["section"]["um_per_px"] = 5.0  # 2.5 µm per image px, so 20 µm are 8 px of it
    patches = image.section_patches(spots, 20.0, 8)
    assert patches.shape == (3, 8, 8, 3)
    assert patches[0, 0, :, 0].tolist() == list(range(46, 54))
    assert patches[0, :, 0, 1].tolist() == list(range(26, 34))
    assert patches[1, 0, :, 0].tolist() == list(range(96, 104))
    assert (patches[2, :, :4] == 255).all()  # beyond the border
    spots.uns["section"]["image"] = ""
    with pytest.raises(InputError, match="no image to cut patches from; fill column `image`"):
        image.section_patches(spots, 20.0, 8)


def test_an_aperio_slide_is_the_slide_and_not_its_label(tmp_path):
    pixels = ramp(512, 256)
    pixels[..., 0] //= 2  # smooth: JPEG keeps it
    path = write_svs(tmp_path / "a.svs", pixels)
    with image.open_image(path.rename(tmp_path / "a.tif")) as slide:  # content counts
        assert (slide.levels, slide.um_per_px) == ([1.0, 4.0], 0.25)
        np.testing.assert_allclose(slide.read(30, 60, 150, 100).astype(int), pixels[60:160, 30:180], atol=4)
        np.testing.assert_allclose(slide.read(10, 20, 50, 30, 1).astype(int), pixels[80:200:4, 40:240:4], atol=8)


@pytest.mark.parametrize("compression", [33003, 33005])
def test_aperio_jpeg_2000_has_its_colours(tmp_path, compression):
    pixels = ramp(512, 256) // 2 + np.array([100, 0, 20], np.uint8)
    with image.open_image(write_svs_jpeg2000(tmp_path / "a.svs", pixels, compression)) as slide:
        assert (slide.width_px, slide.height_px, slide.um_per_px) == (512, 256, 0.25)
        np.testing.assert_allclose(slide.read(100, 50, 60, 90).astype(int), pixels[50:140, 100:160], atol=3)


def test_a_hamamatsu_slide(tmp_path):
    pixels = flat(512, 256, 60)
    pixels[:, 256:] = [200, 30, 90]
    with image.open_image(write_ndpi(tmp_path / "a.ndpi", pixels)) as slide:
        assert slide.levels[:2] == [1.0, 2.0]
        assert [slide.size_px(level) for level in (0, 1)] == [(512, 256), (256, 128)]
        assert slide.um_per_px == pytest.approx(0.5)
        edge = slide.read(250, 100, 12, 4)
        np.testing.assert_allclose(edge[:, :6].astype(int), 60, atol=3)
        np.testing.assert_allclose(edge[:, 6:].astype(int) - [200, 30, 90], 0, atol=3)
        np.testing.assert_array_equal(slide.read(510, 254, 4, 4)[2:], 255)


def test_the_scanned_part_is_the_image_and_gaps_are_white(tmp_path):
    path = write_scn(tmp_path / "a.scn", flat(128, 128, 50), flat(128, 128, 120))
    with image.open_image(path) as slide:
        # The slide is 2000 x 2000 px. The scans span 100 to 260 µm, 320 px; between 164 and 196 µm, that is px 128 to
        # 192, is nothing.
        assert (slide.width_px, slide.height_px) == (320, 128)
        assert slide.um_per_px == pytest.approx(0.5)
        row = slide.read(0, 64, 320, 1)[0].astype(int)
        patches, padded = image.cut_patches(slide, np.array([[160.0, 64.0], [10.0, 64.0]]), 40.0, 20)
    np.testing.assert_allclose(row[:128], 50, atol=2)
    np.testing.assert_array_equal(row[129:191], 255)
    np.testing.assert_allclose(row[192:], 120, atol=2)
    assert (patches[0] == 255).all()
    assert padded.tolist() == [False, True]


@pytest.mark.parametrize("name", ["a.svs", "a.ndpi", "a.scn", "a.h5ad"])
def test_truncated_slides_are_rejected_when_opened(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    path = tmp_path / name
    write = {"a.svs": write_svs, "a.ndpi": write_ndpi, "a.scn": lambda path, px: write_scn(path, px, px)}
    write.get(name, lambda path, px: write_h5ad(path, hires=px))(path, pixels)
    intact = path.read_bytes()
    image.open_image(path).close()
    for share in (0.9, 0.5, 0.01):
        path.write_bytes(intact[: int(len(intact) * share)])
        with pytest.raises(InputError, match=f"{name}.*(truncated|not a TIFF).*again"):
            image.open_image(path)


def test_a_damaged_slide_of_openslide_is_an_input_error(tmp_path):
    path = write_svs_jpeg2000(tmp_path / "a.svs", ramp(512, 256), 33005)
    with tifffile.TiffFile(path) as tiff:
        start, length = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    with image.open_image(path) as slide, pytest.raises(InputError, match=r"a\.svs: damaged") as caught:
        slide.read(0, 0, 64, 64)
    assert str(caught.value).count("download it again") == 1  # wrapped once


def test_a_slide_openslide_cannot_read_is_reported_with_a_cure(tmp_path):
    path = write_scn(tmp_path / "a.scn", flat(128, 128, 50), flat(128, 128, 50))
    path.write_bytes(path.read_bytes().replace(b'sizeX="64000"', b'sizeX="6a000"'))
    with pytest.raises(
        InputError, match=r"a\.scn: OpenSlide cannot read this leica slide.*all files that belong to it.*tiled RGB TIFF"
    ):
        image.open_image(path)


def test_mirax_without_its_folder_is_not_its_preview(tmp_path):
    path = write_photo(tmp_path / "a.jpg", ramp()).rename(tmp_path / "s.mrxs")
    with pytest.raises(InputError, match=r"s\.mrxs: a MIRAX slide without its folder; put s/ with Slidedat\.ini"):
        image.open_image(path)


def test_images_inside_an_h5ad(tmp_path):
    pixels = ramp()
    alpha = np.dstack([np.zeros_like(pixels), np.full(pixels.shape[:2], 51, np.uint8)])
    cases = {
        "fullres": ({"fullres": pixels, "hires": pixels[::4, ::4]}, pixels),
        "hires": ({"lowres": pixels[::4, ::4], "hires": pixels}, pixels),
        "share": ({"hires": (pixels / 255).astype(np.float32)}, pixels),
        "overshoot": ({"hires": np.clip(pixels / 127, -0.001, 1.0001)}, np.rint(np.clip(pixels / 127, 0, 1) * 255)),
        "floats": ({"hires": pixels.astype(np.float64)}, pixels),
        "clear": ({"hires": alpha}, flat(200, 150, 204)),  # black at a fifth: 255 * 0.8
    }
    for name, (images, expected) in cases.items():
        with image.open_image(write_h5ad(tmp_path / f"{name}.h5ad", **images)) as slide:
            assert (slide.width_px, slide.height_px, slide.levels, slide.um_per_px) == (200, 150, [1.0], None)
            np.testing.assert_array_equal(slide.read(-1, 60, 71, 50)[:, 1:], expected[60:110, :70], err_msg=name)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "without images"),
        ({"lowres": ramp()}, "no image `fullres` or `hires`.*lowres"),
        ({"hires": ramp()[..., 0]}, "hires is not an RGB image"),
        ({"hires": np.zeros((3, 20, 20), np.uint8)}, "hires is not an RGB image"),
        ({"hires": ramp().astype(np.uint16)}, "is uint16, not 8 bits"),
        ({"hires": ramp() * 10.0}, "values from 0 to 1990"),
        ({"hires": np.full((9, 9, 3), np.nan)}, "values from nan"),
    ],
)
def test_an_h5ad_without_a_usable_image_is_rejected(tmp_path, images, message):
    with pytest.raises(InputError, match=f"a.h5ad: .*{message}"):
        image.open_image(write_h5ad(tmp_path / "a.h5ad", **images))


def test_an_h5ad_of_two_libraries_is_rejected(tmp_path):
    path = write_h5ad(tmp_path / "a.h5ad", hires=ramp())
    with h5py.File(path, "a") as file:
        file["uns/spatial/other/images/hires"] = ramp()
    with pytest.raises(InputError, match=r"images of 2 libraries \(lib, other\).*column `image`"):
        image.open_image(path)


# 20,000 px per cm are 0.5 µm per px; 72 dpi would be 353 µm, 1270 dpi are 20 µm.
@pytest.mark.parametrize(
    ("options", "um_per_px"),
    [
        ({}, None),
        ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (20_000, 20_300), "resolutionunit": "CENTIMETER"}, (0.5 + 10_000 / 20_300) / 2),
        ({"resolution": (20_000, 20_500), "resolutionunit": "CENTIMETER"}, None),  # 2.5 % apart
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1), "resolutionunit": "NONE"}, None),
        ({"resolution": (2, 2), "imagej": True, "metadata": {"unit": "micron"}}, 0.5),
        ({"resolution": (2, 2), "imagej": True, "metadata": {"unit": "inch"}}, None),
    ],
)
def test_pixel_size_of_a_tiff(tmp_path, options, um_per_px):
    with image.open_image(write_tiff(tmp_path / "a.tif", ramp(), **options)) as slide:
        assert slide.um_per_px == (None if um_per_px is None else pytest.approx(um_per_px, rel=1e-6))


@pytest.mark.parametrize(
    ("sizes", "um_per_px"),
    [
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}, 0.25),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.26}, None),
        ({"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}, 0.25),
        ({"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1, "PhysicalSizeYUnit": "pixel"}, None),
        ({}, 0.5),  # the tags then
    ],
)
def test_pixel_size_of_an_ome_tiff(tmp_path, sizes, um_per_px):
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    path = write_tiff(tmp_path / "a.ome.tif", ramp(), metadata={"axes": "YXS", **sizes}, **tags)
    with image.open_image(path) as slide:
        assert slide.um_per_px == um_per_px


def test_pixel_size_of_a_photo(tmp_path):
    for dpi, um_per_px in [(72, None), (300, None), (25_400, 1.0)]:
        for name in ("a.jpg", "a.png"):
            pil.fromarray(ramp()).save(tmp_path / name, dpi=(dpi, dpi))
            with image.open_image(tmp_path / name) as slide:
                assert slide.um_per_px == (None if um_per_px is None else pytest.approx(um_per_px, rel=1e-4))


def test_jpegs_as_pillow_decodes_them(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.asarray(pil.fromarray(rng.integers(0, 255, (20, 25, 3), np.uint8)).resize((200, 160)))
    path = tmp_path / "a.jpg"
    for mode, options in [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("RGB", {"keep_rgb": True})]:
        pil.fromarray(pixels).convert(mode).save(path, **options)
        with image.open_image(path) as slide, pil.open(path) as picture:
            np.testing.assert_array_equal(slide.read(0, 0, 200, 160), np.asarray(picture.convert("RGB")))


def test_a_jpeg_is_complete_if_it_has_its_end(tmp_path):
    path = write_photo(tmp_path / "a.jpg", ramp())
    content = path.read_bytes()
    path.write_bytes(content + b"appended by a scanner")
    image.open_image(path).close()
    path.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"a\.jpg.*truncated"):
        image.open_image(path)
    pil.fromarray(ramp()).convert("CMYK").save(path)
    with pytest.raises(InputError, match=r"a\.jpg: pixel mode CMYK"):
        image.open_image(path)


def test_tiles_the_writer_left_out_are_white(tmp_path):
    tile = flat(64, 64, 30)
    path = tmp_path / "sparse.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(iter([tile, None, None, tile]), shape=(128, 128, 3), dtype="uint8", tile=(64, 64), photometric="rgb")
    with image.open_image(path) as slide:
        corners = slide.read(0, 0, 128, 128)[::127, ::127, 0]
    assert corners.tolist() == [[30, 255], [255, 30]]


def test_the_tile_cache_is_bounded():
    decoded = []

    def decode(key):
        decoded.append(key)
        return np.full(10, key, np.uint8)

    tile = image.tiff._tile_cache(limit_bytes=25)
    for key in (1, 2, 1, 3, 1, 2):  # two fit: 3 drives 2 out, since 1 was used after it
        assert tile(key, lambda key=key: decode(key))[0] == key
    assert decoded == [1, 2, 3, 2]
    large = image.tiff._tile_cache(limit_bytes=5)
    assert [len(large(key, lambda: np.zeros(10, np.uint8))) for key in (1, 1)] == [10, 10]


@pytest.mark.parametrize("kind", ["tiled_deflate", "compressed_strips", "uncompressed"])
def test_threads_may_share_an_image(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(image.tiff, "CACHE_BYTES", 5 * 64 * 64 * 3)  # far less than the image
    pixels = np.random.default_rng(0).integers(0, 255, (320, 320, 3), np.uint8)
    corners = np.random.default_rng(1).integers(0, 250, (400, 2)).tolist()
    path = write_tiff(tmp_path / "a.tif", pixels, **LOSSLESS[kind])
    with image.open_image(path) as slide, ThreadPoolExecutor(4) as pool:
        windows = list(pool.map(lambda corner: slide.read(*corner, 70, 70), corners))
    for (x, y), window in zip(corners, windows, strict=True):
        np.testing.assert_array_equal(window, pixels[y : y + 70, x : x + 70])


def test_two_batches_are_cut_ahead_and_no_more(tmp_path, monkeypatch):
    started = threading.Semaphore(0)
    threads, cut = [], image.cut_patches

    def watched(*arguments):
        threads.append(threading.current_thread())
        result = cut(*arguments)
        started.release()
        return result

    monkeypatch.setattr(image.patches, "cut_patches", watched)
    with image.open_image(write_tiff(tmp_path / "a.tif", ramp())) as slide:
        batches = image.stream_patches(slide, np.full((50, 2), 60.0), 10.0, 5, batch=5)
        next(batches)
        assert all(started.acquire(timeout=10) for _ in range(3))  # the next two, ahead of their use
        assert not started.acquire(timeout=0.05)
        assert threading.current_thread() not in threads
        batches.close()
    assert not any(thread.is_alive() for thread in threads)
    assert len(threads) == 3


def test_errors_of_reading_ahead_arrive_with_their_batch(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 256, 3), np.uint8)
    path = write_tiff(tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        start, length = tiff.pages[0].dataoffsets[3], tiff.pages[0].databytecounts[3]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    centres = np.array([[20.0, 30.0], [90.0, 30.0], [140.0, 30.0], [220.0, 30.0]])
    with image.open_image(path) as slide:
        batches = image.stream_patches(slide, centres, 10.0, 5, batch=1)
        assert [next(batches)[0].start for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InputError, match=r"a\.tif: damaged"):
            next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patches")]


def test_reading_order_goes_along_bands():
    # bands of 10 px: y 0 to 10 holds 0, 2, 4 by x 50, 5, 30; y 10 to 20 holds 3 and 1 by x 1 and 2
    centres = np.array([[50.0, 9.0], [2.0, 10.0], [5.0, 3.0], [1.0, 19.9], [30.0, 0.0]])
    assert image.reading_order(centres, 10.0).tolist() == [2, 4, 0, 3, 1]


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
