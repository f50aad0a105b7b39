"""Pictures: that every panel is there, spots lie where they should and colours mean what they say."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctrflow import plots

GRID = np.array([(x, y) for y in range(5) for x in range(6)], dtype=float) * 200 + 300


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


def share_of(pixels: np.ndarray, colour: str) -> float:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    # spots are drawn at 92 % over the ground
    return float((np.abs(pixels - wanted).max(axis=2) < 30).mean())


def test_panels_are_side_by_side_and_he_comes_first():
    thumbnail = np.full((150, 180, 3), (230, 120, 180), dtype=np.uint8)
    one = picture(plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, []))
    two = picture(plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, [("call", np.ones(30), "call")]))
    assert one.shape[0] == two.shape[0]
    assert two.shape[1] == 2 * one.shape[1] + plots._GAP_PX - 2 * plots._EDGE_PX
    left, right = two[:, : two.shape[1] // 2], two[:, two.shape[1] // 2 :]
    assert share_of(left, plots.CANCER) == 0
    assert share_of(left, "#e678b4") > 0.6
    # the ground of a layer is faded half way to white: (230 + 255) / 2, (120 + 255) / 2, (180 + 255) / 2
    assert share_of(right, "#f2bbd9") > 0.3
    assert share_of(right, plots.CANCER) > 0.05


def test_many_runs_wrap_with_score_and_call_side_by_side():
    panels = [("H&E", None, "image"), ("label", None, "label")]
    panels += [(f"{run}{kind}", None, kind) for run in "abcd" for kind in ("score", "call")]
    titles = [[title for title, _, _ in row] for row in plots._panel_rows(panels)]
    assert titles == [
        ["H&E", "label", "ascore", "acall"],
        ["bscore", "bcall", "cscore", "ccall"],
        ["dscore", "dcall"],
    ]
    assert [len(row) for row in plots._panel_rows(panels[:1] + panels[2:])] == [3, 4, 2]
    assert [len(row) for row in plots._panel_rows(panels[2:])] == [4, 4]
    one = picture(plots.section_panel(None, None, GRID, 100, 1.0, panels[2:6]))
    two = picture(plots.section_panel(None, None, GRID, 100, 1.0, panels[2:]))
    assert two.shape[:2] == (2 * one.shape[0], one.shape[1])


def test_he_gives_jpeg_and_none_gives_png():
    thumbnail = np.full((150, 180, 3), 200, dtype=np.uint8)
    assert plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, []).startswith(b"\xff\xd8")
    assert plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, [], lossless=True).startswith(b"\x89PNG")
    assert plots.section_panel(None, None, GRID, 100, 1.0, [("score", np.zeros(30), "score")]).startswith(b"\x89PNG")


def test_spots_have_their_true_size():
    # the spots' share of the picture goes with the square of their diameter d; the window is the 1000 x 800 µm between
    # the outer centres, 1.2 d more on each side, and 9 % more below for the scale bar
    layers = [("call", np.ones(30), "call")]
    small = share_of(picture(plots.section_panel(None, None, GRID, 80, 1.0, layers)), plots.CANCER)
    large = share_of(picture(plots.section_panel(None, None, GRID, 160, 1.0, layers)), plots.CANCER)
    width, height = 1000, 800
    windows = [(width + 2.4 * d) * (height + 2.4 * d) * 1.09 for d in (80, 160)]
    expected = (160 / 80) ** 2 * windows[0] / windows[1]
    assert large / small == pytest.approx(expected, rel=0.12)


def test_colours_of_calls_and_of_unknown_spots():
    values = np.array([1.0] * 10 + [0.0] * 10 + [np.nan] * 10)
    pixels = picture(plots.section_panel(None, None, GRID, 100, 1.0, [("label", values, "label")]))
    shares = [share_of(pixels, colour) for colour in (plots.CANCER, plots.OTHER, plots.UNKNOWN)]
    assert min(shares) > 0.01
    assert max(shares) < 1.4 * min(shares)


def test_layer_without_values_is_drawn_without_spots():
    pixels = picture(plots.section_panel(None, None, GRID, 100, 1.0, [("label", None, "label")]))
    assert share_of(pixels, plots.OTHER) == 0


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind"):
        plots.section_panel(None, None, GRID, 100, 1.0, [("x", np.zeros(30), "heat")])


def test_a_title_is_text_not_mathematics():
    assert plots.section_panel(None, None, GRID, 100, 1.0, [("$ <b> \\frac{", np.zeros(30), "score")])


def test_spot_beyond_the_image_is_still_shown():
    thumbnail = np.full((60, 60, 3), 200, dtype=np.uint8)
    centres = np.array([[100.0, 100.0], [900.0, 300.0], [300.0, 500.0]])
    left, right, top, bottom = plots._window(centres * 0.1, 10.0, thumbnail.shape)
    assert (left, top) == (0, 0)
    assert right >= 90
    assert bottom == 60
    assert plots.section_panel(thumbnail, 0.1, centres, 100, 1.0, [("call", np.ones(3), "call")])


@pytest.mark.parametrize(
    ("scores", "limits"),
    [
        ([0.0, 0.4, 1.0], (0.0, 1.0)),
        ([0.2, np.nan, 0.8], (0.0, 1.0)),
        ([3.0, 3.0], (2.5, 3.5)),
        ([np.nan], (0.0, 1.0)),
        (list(range(101)), (1.0, 99.0)),
        # a narrow range would be one flat colour on 0 to 1
        (list(np.linspace(0.5, 0.6, 101)), (0.501, 0.599)),
    ],
)
def test_colour_range(scores, limits):
    assert plots.score_limits(scores) == pytest.approx(limits)


@pytest.mark.parametrize(
    ("longest", "bar", "text"),
    [(1000, 1000, "1 mm"), (999, 500, "500 µm"), (2400, 2000, "2 mm"), (70, 50, "50 µm"), (19, 10, "10 µm")],
)
def test_scale_bar_is_a_round_length(longest, bar, text):
    assert plots.round_length_um(longest) == bar
    assert plots.length_text(plots.round_length_um(longest)) == text


def test_scale_bar_has_the_length_it_says():
    thumbnail = np.full((100, 120, 3), 255, dtype=np.uint8)
    pixels = picture(plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, []))
    left, right, _, _ = plots._window(GRID * 0.1, 10.0, thumbnail.shape)
    wide_um = (right - left) * 10
    assert wide_um == pytest.approx(1120)  # from 180 to 1300: the last centre lies beyond the image and is kept
    bar_um = plots.round_length_um(0.4 * wide_um)
    panel_px = pixels.shape[1] - 2 * plots._EDGE_PX
    foot = pixels[-plots._FOOT_PX + 2 :]
    dark = (foot.max(axis=2) < 110).sum(axis=1).max()
    assert dark == pytest.approx(bar_um / wide_um * panel_px, abs=4)


def test_histogram_with_and_without_mixture():
    scores = np.r_[np.linspace(0, 0.4, 60), np.linspace(0.7, 1.0, 40), np.nan]
    mixture = {"means": (0.2, 0.85), "variances": (0.01, 0.005), "weights": (0.6, 0.4)}
    drawn = picture(plots.score_histogram(scores, 0.5, mixture))
    assert share_of(drawn, plots.CANCER) > 0.001
    assert share_of(drawn, plots.OTHER) > 0.001
    bare = picture(plots.score_histogram(np.full(8, 0.3), None, {"means": (), "variances": (), "weights": ()}))
    assert share_of(bare, plots.CANCER) == 0


def overlaid(tmp_path, centres, level="ok", message="fine", **facts):
    """Spots of 100 µm at 1 µm per px on a pink image of 1600 x 1200 px that is kept at half size."""
    import pandas as pd
    from anndata import AnnData

    Image.fromarray(np.full((600, 800, 3), (230, 120, 180), np.uint8)).save(tmp_path / "he.png")
    spots = AnnData(np.ones((len(centres), 1)), obs=pd.DataFrame(index=[str(i) for i in range(len(centres))]))
    spots.obsm["spatial"] = centres
    spots.uns["section"] = {
        "section": "S", "platform": "st", "um_per_px": 1.0, "spot_um": 100.0, "image": str(tmp_path / "he.png"),
        "image_scale": 0.5,
    } | facts  # fmt: skip
    return picture(plots.overlay(spots, [{"level": level, "what": "placement", "message": message}]))


def near(pixels: np.ndarray, colour: str, slack: int = 40) -> np.ndarray:
    return np.abs(pixels - [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).max(axis=2) < slack


def test_overlay_draws_spots_in_their_true_size_and_place(tmp_path):
    pixels = overlaid(tmp_path, GRID)
    high = plots._OVERLAY_PX
    head = pixels.shape[0] - high - plots._FOOT_PX
    # left: the image's 1200 px fill the height; the outermost spots reach from 250 to 1350 and from 250 to 1150
    scale = high / 1200
    ring = near(pixels[head : head + high, : round(1600 * scale)], plots.OUTLINE)
    rows, columns = np.flatnonzero(ring.any(axis=1)), np.flatnonzero(ring.any(axis=0))
    assert [columns[0], columns[-1]] == pytest.approx([250 * scale + 2, 1350 * scale + 2], abs=3)
    assert [rows[0], rows[-1]] == pytest.approx([250 * scale, 1150 * scale], abs=3)
    # right: three pitches of 200 µm fill the square, so a spot of 100 µm is a sixth of it, and nine are whole
    close = near(pixels[head : head + high, -high - plots._EDGE_PX : -plots._EDGE_PX], plots.OUTLINE)
    middle = np.flatnonzero(close[:, round(high / 6)])
    assert middle[-1] - middle[0] == pytest.approx(high * (1 / 6 + 2 / 3), abs=4)


def test_overlay_shows_the_image_at_its_scale_and_spots_beyond_it(tmp_path):
    far = GRID + np.array([1400, 0])  # x up to 2700 where the image ends at 1600
    pixels = overlaid(tmp_path, far)
    high = plots._OVERLAY_PX
    head = pixels.shape[0] - high - plots._FOOT_PX
    left = pixels[head : head + high, : -high - plots._GAP_PX - plots._EDGE_PX]
    width = left.shape[1]
    # 2700 + 100 px to the right of the last centre are shown
    pink = np.flatnonzero(near(left, "#e678b4").any(axis=0))
    assert pink[-1] / width == pytest.approx(1600 / 2800, abs=0.01)
    assert np.flatnonzero(near(left, plots.OUTLINE).any(axis=0))[-1] / width == pytest.approx(2750 / 2800, abs=0.01)


@pytest.mark.parametrize("level", ["ok", "warning", "problem"])
def test_overlay_says_the_finding_in_its_colour(tmp_path, level):
    pixels = overlaid(tmp_path, GRID, level, "x and y look swapped " * 20)
    head = pixels[: pixels.shape[0] - plots._OVERLAY_PX - plots._FOOT_PX]
    assert head.shape[0] > 3 * plots._LINE_PX  # wrapped
    seen = {one for one, colour in plots.LEVEL_COLOURS.items() if near(head, colour, 8).sum() > 200}
    assert seen == {"ok", level}  # the facts are in ink
    # nothing is cut off at the right (the lowest rows hold the panels' frame)
    assert (head[:-4, -4:] == 255).all()


def test_overlay_without_image(tmp_path):
    pixels = overlaid(tmp_path, GRID, image="")
    assert near(pixels, "#e678b4").sum() == 0
    assert near(pixels, plots.OUTLINE).sum() > 500


def test_overlay_of_very_many_spots_draws_every_nth(tmp_path):
    x, y = np.meshgrid(np.arange(5, 1595, 5.0), np.arange(5, 1195, 5.0))
    centres = np.column_stack([x.ravel(), y.ravel()])
    assert len(centres) > 3 * plots._MOST_OUTLINES
    pixels = overlaid(tmp_path, centres, spot_um=4.0)
    assert near(pixels, plots.OUTLINE).sum() > 1000


def test_pictures_leave_pyplot_alone():
    plots.score_histogram([0.1, 0.9], 0.5, None)
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_a_real_section():
    image = Path(__file__).parents[3] / "shared" / "data" / "her2st" / "ST-imgs" / "A1.png"
    if not image.is_file():
        pytest.skip("shared/data/her2st is not here")
    import pandas as pd

    thumbnail = np.asarray(Image.open(image).convert("RGB"))
    spots = pd.read_csv(image.parents[1] / "ST-spotfiles" / "A1_selection.tsv", sep="\t")
    spatial_px = spots[["pixel_x", "pixel_y"]].to_numpy()
    scores = np.linspace(0, 1, len(spots))
    data = plots.section_panel(
        thumbnail, 2000 / 6954, spatial_px, 100, 0.75, [("score", scores, "score"), ("call", scores > 0.5, "call")]
    )
    pixels = picture(data)
    assert pixels.shape[1] > 2.5 * pixels.shape[0]
    assert len(data) < 300_000
