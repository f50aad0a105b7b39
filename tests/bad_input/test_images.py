"""Images as facilities, microscopes and image editors deliver them."""

import gzip
import io

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image as pil

from ctrflow import image

PIXELS = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)


def opened(name: str, content: bytes):
    """A fault: an image file of these bytes."""

    def fault(folder):
        path = folder / name
        path.write_bytes(content)
        return lambda: image.open_image(path).close()

    return fault


def photo(kind: str, mode: str | None = None, pixels=PIXELS, **options) -> bytes:
    content = io.BytesIO()
    picture = pil.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(content, kind, **options)
    return content.getvalue()


def tiff(pixels, **options) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, **{"photometric": "rgb", "metadata": None} | options)
    return content.getvalue()


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def turned(orientation: int) -> pil.Exif:
    exif = pil.Exif()
    exif[274] = orientation
    return exif


def spots_on(centres_px, read=image.require_spots_inside, **about):
    """A fault: spots with these centres on an image of 128 x 96 px."""

    def fault(folder):
        path = folder / "he.tif"
        path.write_bytes(tiff(PIXELS, tile=(64, 64)))
        names = [f"s{n}" for n in range(len(centres_px))]
        section = {"section": "A1", "image": str(path), "image_scale": 1.0, "um_per_px": 0.5} | about
        spots = anndata.AnnData(
            np.zeros((len(names), 1), np.float32),
            obs=pd.DataFrame(index=names),
            obsm={"spatial": np.array(centres_px, float)},
            uns={"section": section},
        )
        return lambda: read(spots)

    return fault


def patches(spots):
    return image.section_patches(spots, 55, 16)


CENTRES = np.array([[10, 20], [50, 80], [120, 90]])
JPEG, PNG = photo("JPEG"), photo("PNG")
TILED = tiff(PIXELS, tile=(64, 64))
AGAIN = "export or download it again"
FAULTS = {
    "a JPEG for the printer (CMYK)": (
        opened("he.jpg", photo("JPEG", "CMYK")),
        ["he.jpg: pixel mode CMYK", "8-bit RGB"],
    ),
    "a PNG of 16 bits": (
        opened("he.png", photo("PNG", pixels=PIXELS[..., 0].astype(np.uint16))),
        ["he.png: pixel mode I;16", "8-bit RGB"],
    ),
    "a TIFF of 16 bits": (
        opened("he.tif", tiff(PIXELS.astype(np.uint16))),
        ["he.tif: pixels of type uint16", "8-bit RGB"],
    ),
    "a TIFF of fractions": (
        opened("he.tif", tiff(PIXELS.astype(np.float32))),
        ["he.tif: pixels of type float32", "8-bit RGB"],
    ),
    "a TIFF of labels": (
        opened("mask.tif", tiff(PIXELS[..., 0].astype(np.int32), photometric="minisblack")),
        ["mask.tif: pixels of type int32", "correct column `image`"],
    ),
    "a TIFF of four dyes": (
        opened("he.tif", tiff(np.zeros((4, 64, 64), np.uint8), photometric="minisblack", planarconfig="separate")),
        ["he.tif: ", "8-bit RGB TIFF"],
    ),
    "a TIFF with a palette": (
        opened("he.tif", tiff(PIXELS[..., 0], photometric="palette", colormap=np.zeros((3, 256), np.uint16))),
        ["he.tif: colours stored as PALETTE", "8-bit RGB TIFF"],
    ),
    "a TIFF in CIELAB": (
        opened("he.tif", tiff(PIXELS, photometric="cielab")),
        ["he.tif: colours stored as CIELAB", "RGB"],
    ),
    "a z-stack": (
        opened("he.tif", tiff(np.zeros((3, 64, 64, 3), np.uint8), metadata={"axes": "ZYXS"}, imagej=False, ome=True)),
        ["he.tif: a stack or a set of channels", "8-bit RGB TIFF"],
    ),
    "a JPEG cut short": (opened("he.jpg", cut(JPEG, 0.7)), ["he.jpg: damaged or truncated image", AGAIN]),
    "a JPEG with only its header": (opened("he.jpg", JPEG[:30]), ["he.jpg: damaged or truncated image", AGAIN]),
    "a PNG cut short": (opened("he.png", cut(PNG, 0.7)), ["he.png: damaged or truncated image", AGAIN]),
    "a TIFF cut short": (opened("he.tif", cut(TILED, 0.7)), ["he.tif", "truncated", AGAIN]),
    "a TIFF with only its header": (opened("he.tif", TILED[:8]), ["he.tif: truncated image", AGAIN]),
    "a TIFF without pixels": (opened("he.tif", b"II*\0" + bytes(64)), ["he.tif", "damaged or truncated image", AGAIN]),
    "an empty file": (opened("he.tif", b""), ["he.tif: not a TIFF, JPEG or PNG image", "column `image`"]),
    "a file of zeros": (opened("he.tif", bytes(5000)), ["he.tif: not a TIFF, JPEG or PNG image", AGAIN]),
    "a login page": (opened("he.jpg", b"<!DOCTYPE html>"), ["he.jpg: not a TIFF, JPEG or PNG image", AGAIN]),
    "a pointer of Git LFS": (
        opened("he.tif", b"version https://git-lfs.github.com/spec/v1\n"),
        ["he.tif: not a TIFF, JPEG or PNG image", AGAIN],
    ),
    "a PDF": (opened("he.pdf", b"%PDF-1.7\n"), ["he.pdf: not a TIFF, JPEG or PNG image", "column `image`"]),
    "a bitmap of Windows": (opened("he.tif", photo("BMP")), ["he.tif: not a TIFF, JPEG or PNG image", "export"]),
    "a GIF": (opened("he.tif", photo("GIF")), ["he.tif: not a TIFF, JPEG or PNG image", "export"]),
    "a gzipped TIFF": (
        opened("he.tif", gzip.compress(TILED)),
        ["he.tif: not a TIFF, JPEG or PNG image", "export"],
    ),
    "a MIRAX slide without its folder": (
        opened("he.mrxs", JPEG),
        ["he.mrxs: a MIRAX slide without its folder", "Slidedat.ini next to it"],
    ),
    "a reduced image for the full one": (
        spots_on(CENTRES * 10),
        ["he.tif: 3 of 3 spots lie outside the image", "128 x 96 px", "`image_scale`"],
    ),
    "x and y swapped": (
        spots_on(CENTRES[:, ::-1]),
        ["he.tif: 1 of 3 spots lie outside the image (s2)", "y 10 to 120", "section sheet"],
    ),
    "y counted upwards": (
        spots_on(CENTRES * [1, -1]),
        ["he.tif: 3 of 3 spots lie outside the image", "y -90 to -20"],
    ),
    "a spot without a position": (
        spots_on([[10, 20], [np.nan, np.nan]]),
        ["he.tif: 1 of 2 spots lie outside the image (s1)", "section sheet"],
    ),
    "patches without an image": (
        spots_on(CENTRES, patches, image=""),
        ["section A1: no image to cut patches from", "fill column `image`"],
    ),
    "patches without a scale": (
        spots_on(CENTRES, patches, um_per_px=float("nan")),
        ["section A1: um_per_px is nan", "fill column `um_per_px`"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_reported(name, tmp_path, assert_error):
    fault, words = FAULTS[name]
    assert_error(fault(tmp_path), words)


WARNINGS = {
    "a photo that viewers rotate": (
        opened("he.jpg", photo("JPEG", exif=turned(6))),
        ["he.jpg", "viewers rotate", "orientation 6", "save the image again"],
    ),
    "a PNG that viewers mirror": (
        opened("he.png", photo("PNG", exif=turned(2))),
        ["he.png", "viewers rotate", "orientation 2", "save the image again"],
    ),
    "a TIFF that viewers rotate": (
        opened("he.tif", tiff(PIXELS, extratags=[(274, 3, 1, 8, True)])),
        ["he.tif", "viewers rotate", "orientation 8", "save the image again"],
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_it_gives_a_warning(name, tmp_path, assert_warning):
    fault, words = WARNINGS[name]
    assert_warning(fault(tmp_path), words)


ALPHA = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])
HARMLESS = {
    "another suffix": ("he.jpg", TILED),
    "an opaque alpha channel": ("he.tif", tiff(ALPHA, extrasamples=["unassalpha"])),
    "compressed strips": ("he.tif", tiff(PIXELS, compression="zlib", rowsperstrip=8)),
    "big-endian": ("he.tif", tiff(PIXELS, byteorder=">")),
    "BigTIFF": ("he.svs", tiff(PIXELS, bigtiff=True)),
    "upright by its tag": ("he.tif", tiff(PIXELS, extratags=[(274, 3, 1, 1, True)])),
    "a PNG with alpha": ("he.png", photo("PNG", pixels=ALPHA)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_it_is_read_correctly(name, tmp_path, caplog):
    file, content = HARMLESS[name]
    (tmp_path / file).write_bytes(content)
    with image.open_image(tmp_path / file) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 128, 96), PIXELS)
    assert not caplog.records
