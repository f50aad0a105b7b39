"""Plots: every panel is drawn, spots are where they should be, colours have their meaning."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctrflow import plots

GRID = np.array([(x, y) for y in range(5) for x in range(6)], dtype=float) * 200 + 300


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


def share_of(pixels: np.ndarray, colour: str) -> float:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    # spots are drawn at 92 % over the ground
    return float((np.abs(pixels - wanted).max(axis=2) < 30).mean())


def test_panels_are_side_by_side_and_he_comes_first():
    thumbnail = np.full((150, 180, 3), (230, 120, 180), dtype=np.uint8)
    one = pixels_of(plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, []))
    two = pixels_of(plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, [("call", np.ones(30), "call")]))
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
    one = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, panels[2:6]))
    two = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, panels[2:]))
    assert two.shape[:2] == (2 * one.shape[0], one.shape[1])


def test_sd_stays_beside_its_run():
    def rows(*kinds):
        return [[title for title, _, _ in row] for row in plots._panel_rows([(kind, None, kind) for kind in kinds])]

    lead, run = ["image", "label"], ["score", "call", "sd"]
    # a single run is one row with what it is compared to
    assert rows(*lead, *run) == [[*lead, *run]]
    assert rows("image", *run) == [["image", *run]]
    assert rows(*lead, *run, *run) == [lead, run, run]
    assert rows("label", *run, *run) == [["label", *run], run]
    # runs of one and of several seeds
    assert rows(*lead, "score", "call", *run) == [[*lead, "score", "call"], run]
    assert rows(*run, "score", "call", "score", "call") == [run, ["score", "call", "score", "call"]]


def test_sd_has_a_scale_of_its_own_from_zero():
    assert plots.sd_limits([0.02, 0.04, np.nan]) == pytest.approx((0, 0.0398))  # 99 % of the way from 0.02 to 0.04
    assert plots.sd_limits([0.0, 0.0]) == (0, 1)
    assert plots.sd_limits([1e-17, 0.0]) == (0, 1)
    assert plots.sd_limits([np.nan]) == (0, 1)
    colours = plots._value_colours(np.array([0.0, 0.2, np.nan]), 0.0, 0.2, plots.SD_MAP)
    light, dark = colours[:2, :3].sum(axis=1)
    assert light > 2.3  # agreement is pale, doubt is dark
    assert dark < 0.1
    assert colours[2, :3] == pytest.approx(np.full(3, 0x9A / 255))


def test_sd_panel_is_drawn_with_its_colours():
    layer = ("m: sd over seeds", np.r_[np.full(15, 0.3), np.zeros(15)], "sd")
    pixels = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, [layer]))
    score = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, [("m: score", layer[1], "score")]))
    # the darkest and the palest colour of magma; half of the spots each
    shares = [share_of(pixels, colour) for colour in ("#000004", "#fcfdbf")]
    assert min(shares) > 0.02
    assert share_of(score, "#fcfdbf") == 0
    empty = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, [("m: sd over seeds", None, "sd")]))
    assert share_of(empty, "#fcfdbf") == 0


def reliability_figure(monkeypatch, curves):
    """The figure of reliability curves, before it becomes pixels."""
    kept = []
    monkeypatch.setattr(plots, "_bytes", lambda figure, kind: kept.append(figure) or b"")
    plots.reliability_panels(curves)
    return kept[0]


def test_reliability_panels_show_what_they_are_given(monkeypatch):
    mean_score = np.r_[0.04, np.full(8, np.nan), 0.97]
    share = np.r_[0.1, np.full(8, np.nan), 0.8]
    spots = np.r_[1500, np.zeros(8, dtype=int), 30]
    curves = [("one", mean_score, share, spots), ("$ two", mean_score, share, spots)]
    curve, counts, second, _ = reliability_figure(monkeypatch, curves).axes
    assert [axes.get_title(loc="left") for axes in (curve, second)] == ["one", "$ two"]
    diagonal, line = curve.get_lines()
    assert np.array_equal(diagonal.get_xydata(), [(0, 0), (1, 1)])
    # empty bins are left out
    assert np.array_equal(line.get_xydata(), [(0.04, 0.1), (0.97, 0.8)])
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in counts.patches]
    assert bars[0] == pytest.approx((0.05, 1500))
    assert bars[9] == pytest.approx((0.95, 30))
    assert [text.get_text() for text in counts.get_yticklabels()] == ["0", "1,500"]


def test_reliability_panels_wrap(monkeypatch):
    full = np.arange(10) / 10 + 0.05
    curve = ("$ m", full, full, np.full(10, 7))
    assert plots.reliability_panels([curve]).startswith(b"\x89PNG")
    sizes = [reliability_figure(monkeypatch, [curve] * number).get_size_inches() for number in (1, 2, 6, 7)]
    (one, high), (two, _), (six, _), (seven, higher) = sizes
    assert two - one == pytest.approx((six - one) / 5)
    assert seven == six
    assert higher == pytest.approx(2 * high)
    # no panel reaches beyond the image or into another
    places = [axes.get_position() for axes in reliability_figure(monkeypatch, [curve] * 7).axes]
    assert all(place.x0 >= 0 and place.x1 <= 1 and place.y0 >= 0 and place.y1 <= 1 for place in places)
    assert not any(one.overlaps(two) for at, one in enumerate(places) for two in places[:at])


def test_he_gives_jpeg_and_none_gives_png():
    thumbnail = np.full((150, 180, 3), 200, dtype=np.uint8)
    assert plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, []).startswith(b"\xff\xd8")
    assert plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, [], lossless=True).startswith(b"\x89PNG")
    assert plots.section_panel(None, None, GRID, 100, 1.0, [("score", np.zeros(30), "score")]).startswith(b"\x89PNG")


def test_spots_have_their_true_size():
    # the spots' share of the image grows with the square of their diameter d; the window is the 1000 x 800 µm between
    # the outer centres, 1.2 d more on each side, and 9 % more below for the scale bar
    layers = [("call", np.ones(30), "call")]
    small = share_of(pixels_of(plots.section_panel(None, None, GRID, 80, 1.0, layers)), plots.CANCER)
    large = share_of(pixels_of(plots.section_panel(None, None, GRID, 160, 1.0, layers)), plots.CANCER)
    width, height = 1000, 800
    windows = [(width + 2.4 * d) * (height + 2.4 * d) * 1.09 for d in (80, 160)]
    expected = (160 / 80) ** 2 * windows[0] / windows[1]
    assert large / small == pytest.approx(expected, rel=0.12)


def test_tiles_leave_no_gap_and_discs_do():
    centres = np.array([(x, y) for y in range(20) for x in range(20)], dtype=float) * 8
    tile = np.array([(-4, -4), (4, -4), (4, 4), (-4, 4)])
    shares = []
    for tile_px in (None, tile):
        layer = [("call", np.ones(400), "call")]
        pixels = pixels_of(plots.section_panel(None, None, centres, 8, 1.0, layer, tile_px=tile_px))
        high, wide, _ = pixels.shape
        shares.append(share_of(pixels[high // 4 : high // 2, wide // 4 : wide // 2], plots.CANCER))
    assert shares[0] == pytest.approx(np.pi / 4, abs=0.1)
    assert shares[1] == 1
    calls = np.r_[np.ones(200), np.zeros(200)]
    picture = pixels_of(plots.call_picture(None, None, centres, 8, 1.0, calls, tile))
    high, wide, _ = picture.shape
    assert share_of(picture[high // 8 : high // 3, wide // 4 : wide // 2], plots.CANCER) == 1


def test_colours_of_calls_and_of_unknown_spots():
    values = np.array([1.0] * 10 + [0.0] * 10 + [np.nan] * 10)
    pixels = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, [("label", values, "label")]))
    shares = [share_of(pixels, colour) for colour in (plots.CANCER, plots.OTHER, plots.UNKNOWN)]
    assert min(shares) > 0.01
    assert max(shares) < 1.4 * min(shares)


def test_layer_without_values_is_drawn_without_spots():
    pixels = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, [("label", None, "label")]))
    assert share_of(pixels, plots.OTHER) == 0


def test_unknown_kind_is_rejected():
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


def test_scale_bar_has_its_stated_length():
    thumbnail = np.full((100, 120, 3), 255, dtype=np.uint8)
    pixels = pixels_of(plots.section_panel(thumbnail, 0.1, GRID, 100, 1.0, []))
    left, right, _, _ = plots._window(GRID * 0.1, 10.0, thumbnail.shape)
    wide_um = (right - left) * 10
    assert wide_um == pytest.approx(1120)  # from 180 to 1300: the last centre is beyond the image and is kept
    bar_um = plots.round_length_um(0.4 * wide_um)
    panel_px = pixels.shape[1] - 2 * plots._EDGE_PX
    foot = pixels[-plots._FOOT_PX + 2 :]
    dark = (foot.max(axis=2) < 110).sum(axis=1).max()
    assert dark == pytest.approx(bar_um / wide_um * panel_px, abs=4)


def losses_of(runs: dict, stage: str = "a", term: str = "loss"):
    """Losses of one term; `runs` maps a seed to its values."""
    import pandas as pd

    rows = [("A", seed, stage, i, term, value) for seed, values in runs.items() for i, value in enumerate(values, 1)]
    return pd.DataFrame(rows, columns=["fold", "seed", "stage", "epoch", "term", "value"])


def drawn_losses(monkeypatch, *parts) -> list:
    """The panels, as matplotlib's axes: their lines and bands are what is tested."""
    import pandas as pd

    figures = []
    monkeypatch.setattr(plots, "_bytes", lambda figure, kind: figures.append(figure))
    plots.loss_curves(pd.concat(parts))
    return figures[0].axes


def values_of(line) -> list:
    return line.get_ydata().tolist()


def test_loss_curves_are_every_run_and_the_mean_of_the_total(monkeypatch):
    [axes] = drawn_losses(monkeypatch, losses_of({1: [4.0, 2.0, 1.0], 2: [2.0, 2.0, 0.5]}))
    mean, first, second, lost = axes.get_lines()
    assert mean.get_xdata().tolist() == [1, 2, 3]
    assert values_of(mean) == [3.0, 2.0, 0.75]
    assert [values_of(first), values_of(second)] == [[4.0, 2.0, 1.0], [2.0, 2.0, 0.5]]
    assert mean.get_linewidth() > 2 * first.get_linewidth()
    assert values_of(lost) == []
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss, mean of an epoch")


def test_the_terms_of_a_loss_are_means_in_a_band(monkeypatch):
    runs = {1: [4.0, 2.0], 2: [2.0, 1.0]}
    [axes] = drawn_losses(monkeypatch, losses_of(runs), losses_of({1: [1.0, 0.6], 2: [3.0, 0.2]}, term="divergence"))
    [mean] = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert values_of(mean) == pytest.approx([2.0, 0.4])
    [band] = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert corners == {(1.0, 1.0), (1.0, 3.0), (2.0, 0.2), (2.0, 0.6)}
    [legend] = axes.get_figure().legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "total, mean of 2 runs", "total, each run", "divergence",
    ]  # fmt: skip


def test_a_stage_has_a_panel_and_a_lone_run_one_line(monkeypatch):
    stages = [losses_of({1: [2.0, 1.0]}, stage=name) for name in ("align", "$x^", "classify", "more")]
    panels = drawn_losses(monkeypatch, *stages)
    assert [axes.get_title("left") for axes in panels] == ["align", "$x^", "classify", "more"]
    assert [len(axes.get_lines()) for axes in panels] == [2] * 4  # the total, and no crosses
    # three in a row
    assert [round(axes.get_position().y0, 3) for axes in panels[:3]] == [round(panels[0].get_position().y0, 3)] * 3
    assert panels[3].get_position().y1 < panels[0].get_position().y0
    assert panels[3].get_position().x0 == panels[0].get_position().x0


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([11.0, 1.0], "log"),
        ([10.0, 1.0], "linear"),
        ([11.0, 0.0], "linear"),
        ([11.0, -0.1], "linear"),
        ([np.inf, 11.0, 1.0], "log"),
        ([np.nan, np.nan], "linear"),
    ],
)
def test_the_axis_of_losses_is_logarithmic_where_they_span_much(monkeypatch, values, scale):
    [axes] = drawn_losses(monkeypatch, losses_of({1: values}))
    assert axes.get_yscale() == scale
    assert axes.get_title("right") == ("log axis" if scale == "log" else "")


def test_a_run_that_stops_being_finite_is_crossed_and_a_shorter_one_is_not(monkeypatch):
    runs = {1: [4.0, 3.0, 2.0, 1.0], 2: [4.0, np.inf, np.nan, np.nan], 3: [4.0, np.nan, 2.0], 4: [np.nan] * 4}
    [axes] = drawn_losses(monkeypatch, losses_of(runs))
    *_, crosses = axes.get_lines()
    assert list(crosses.get_xdata()) == [2, 1]
    # over the runs that have a value, and no further than run 3, so that the mean does not jump where a run ends
    assert values_of(axes.get_lines()[0]) == [4.0, 3.0, 2.0]
    [legend] = axes.get_figure().legends
    assert legend.get_texts()[-1].get_text() == "not finite from here on"


def test_loss_curves_are_drawn():
    pixels = pixels_of(plots.loss_curves(losses_of({1: [4.0, 2.0, 1.0], 2: [3.0, 2.0, 0.5]})))
    assert (pixels.max(axis=2) < 60).mean() > 0.004  # ink of curves and axes
    assert (pixels[:, [0, -1]] == 255).all()  # nothing is cut off at the sides
    assert (pixels[[0, -1]] == 255).all()


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
    return pixels_of(plots.overlay(spots, [{"level": level, "what": "placement", "message": message}]))


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
    # right: three pitches of 200 µm fill the square, so a spot of 100 µm is a sixth of it, and nine are complete
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
def test_overlay_shows_the_finding_in_its_colour(tmp_path, level):
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


def test_plots_leave_pyplot_alone():
    plots.section_panel(None, None, GRID, 100, 1.0, [("call", np.ones(30), "call")])
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_a_real_section():
    image = Path(__file__).parents[3] / "shared" / "data" / "her2st" / "ST-imgs" / "A1.png"
    if not image.is_file():
        pytest.skip("shared/data/her2st is missing")
    import pandas as pd

    thumbnail = np.asarray(Image.open(image).convert("RGB"))
    spots = pd.read_csv(image.parents[1] / "ST-spotfiles" / "A1_selection.tsv", sep="\t")
    spatial_px = spots[["pixel_x", "pixel_y"]].to_numpy()
    scores = np.linspace(0, 1, len(spots))
    data = plots.section_panel(
        thumbnail, 2000 / 6954, spatial_px, 100, 0.75, [("score", scores, "score"), ("call", scores > 0.5, "call")]
    )
    pixels = pixels_of(data)
    assert pixels.shape[1] > 2.5 * pixels.shape[0]
    assert len(data) < 300_000


def test_a_caution_is_red_above_the_panels():
    layer = ("m: score", np.linspace(0, 1, 30), "score")
    plain = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, [layer]))
    warned = pixels_of(plots.section_panel(None, None, GRID, 100, 1.0, [layer], caution="This map means nothing. " * 3))
    extra = warned.shape[0] - plain.shape[0]
    assert extra >= 2 * 22  # more than one line
    assert np.array_equal(warned[extra:], plain)
    red = (warned[:extra, :, 0] > 150) & (warned[:extra, :, 1] < 80)
    assert red.sum() > 200
    assert not red[:, -1].any()  # wrapped, not cut off
