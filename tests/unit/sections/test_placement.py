"""Whether an image is correctly matched with its spots' coordinates."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from anndata import AnnData
from PIL import Image as pil
from scipy import ndimage, sparse
from scipy.stats import spearmanr

from ctrflow.errors import InputError
from ctrflow.sections import placement
from ctrflow.sections.placement import AS_GIVEN, ORIENTATIONS

DATA = Path(__file__).parents[4] / "shared" / "data"
WIDTH, HEIGHT, PITCH = 400, 320, 20
WRONG = [orientation for orientation in ORIENTATIONS if orientation != AS_GIVEN]


def slide(seed: int = 0) -> np.ndarray:
    """An L of tissue on glass, darker in some patches than in others: uint8 HEIGHT x WIDTH x 3."""
    rng = np.random.default_rng(seed)
    tissue = np.zeros((HEIGHT, WIDTH), bool)
    tissue[20:300, 40:180] = True
    tissue[200:300, 40:340] = True
    patches = ndimage.gaussian_filter(rng.normal(size=tissue.shape), 6)
    stained = 150 - 45 * np.clip(patches / patches.std(), -2, 2)
    grey = np.where(tissue, stained, 242)
    return np.stack([grey, 0.8 * grey + 0.2 * 242 * ~tissue, grey], axis=-1).astype(np.uint8)


def centres_on(pixels: np.ndarray) -> np.ndarray:
    """A square lattice of spots, all on tissue."""
    x, y = np.meshgrid(np.arange(10.0, WIDTH, PITCH), np.arange(10.0, HEIGHT, PITCH))
    places = np.column_stack([x.ravel(), y.ravel()])
    return places[pixels[places[:, 1].astype(int), places[:, 0].astype(int), 0] < 242]


def counts_under(pixels: np.ndarray, centres: np.ndarray, seed: int = 1) -> np.ndarray:
    """Counts that rise with darkness, with noise, one total per spot."""
    dark = np.array([255 - pixels[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5].mean() for x, y in centres])
    return np.random.default_rng(seed).poisson(dark * np.exp(np.random.default_rng(seed).normal(0, 0.2, len(dark))))


def section(path: Path, pixels: np.ndarray, centres: np.ndarray, counts: np.ndarray, **facts) -> AnnData:
    """Spots of 10 px (µm), 20 px apart, and their image."""
    if not path.exists():
        pil.fromarray(pixels).save(path)
    spots = AnnData(
        sparse.csr_matrix(counts[:, None].astype(np.float32)),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(len(centres))]),
        obsm={"spatial": centres},
    )
    defaults = {"section": "S", "platform": "st", "um_per_px": 1.0, "spot_um": 10.0, "image_scale": 1.0}
    spots.uns["section"] = defaults | {"image": str(path)} | facts
    return spots


def turn(pixels: np.ndarray, orientation) -> np.ndarray:
    """The image that fits `oriented` coordinates, by a loop over its pixels."""
    swap = orientation[0]
    height, width = (pixels.shape[1], pixels.shape[0]) if swap else pixels.shape[:2]
    row, column = np.indices(pixels.shape[:2])
    places = np.column_stack([column.ravel() + 0.5, row.ravel() + 0.5])
    moved = np.floor(placement.oriented(places, orientation, width, height)).astype(int)
    turned = np.zeros((height, width, 3), np.uint8)
    turned[moved[:, 1], moved[:, 0]] = pixels.reshape(-1, 3)
    return turned


def only(findings, what: str):
    (found,) = [finding for finding in findings if finding.check == what]
    return found


@pytest.fixture(scope="module")
def right():
    pixels = slide()
    centres = centres_on(pixels)
    return pixels, centres, counts_under(pixels, centres)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_orientations_of_a_point():
    # (10, 20) in an image of 100 x 60
    places = [tuple(placement.oriented(np.array([[10.0, 20.0]]), one, 100, 60)[0]) for one in ORIENTATIONS]
    assert places == [(10, 20), (90, 20), (10, 40), (90, 40), (20, 10), (80, 10), (20, 50), (80, 50)]


def test_clockwise_is_clockwise():
    # a quarter turn clockwise brings the upper left corner to the upper right one
    (clockwise,) = [one for one, name in ORIENTATIONS.items() if name == "turned by 90 degrees clockwise"]
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 9
    np.testing.assert_array_equal(turn(pixels, clockwise), np.rot90(pixels, -1))
    assert turn(pixels, clockwise)[0, -1, 0] == 9


def test_tissue_mask_on_glass_on_black_blank_and_full():
    pixels = slide()
    tissue = pixels[..., 0] < 242
    assert (placement.tissue_mask(pixels) == tissue).mean() > 0.97
    cut_out = np.where(tissue[..., None], pixels, 0).astype(np.uint8)
    assert (placement.tissue_mask(cut_out) == tissue).mean() > 0.97
    assert placement.tissue_mask(pixels[30:290, 50:170]).all()
    for value in (0, 3, 128, 255):
        assert not placement.tissue_mask(np.full((90, 80, 3), value, np.uint8)).any()


def test_a_hole_of_fat_is_tissue():
    pixels = slide()
    pixels[230:270, 100:150] = 240
    assert placement.tissue_mask(pixels)[235:265, 105:145].all()


def test_darkness_is_optical_density():
    pixels = np.array([[[255, 255, 255], [127, 127, 127], [127, 255, 255]]], np.uint8)
    # ln(256 / 256) = 0, ln(256 / 128) = ln 2, a third of it
    np.testing.assert_allclose(placement.stain_darkness(pixels), [[0, np.log(2), np.log(2) / 3]], atol=1e-6)


def test_agreement_is_the_rank_correlation_against_the_neighbours(right):
    pixels, centres, counts = right
    fit = placement.measure(placement.survey(pixels), placement.signal_of(centres, 10, counts))
    density = -np.log((pixels + 1.0) / 256).mean(axis=2)
    dark = np.array([density[int(y) - 5 : int(y) + 5, int(x) - 5 : int(x) + 5].mean() for x, y in centres])
    excess = {"dark": [], "depth": []}
    for i, centre in enumerate(centres):
        near = np.argsort(np.hypot(*(centres - centre).T), kind="stable")[1:9]
        excess["dark"].append(dark[i] - dark[near].mean())
        excess["depth"].append(np.log1p(counts[i]) - np.log1p(counts[near]).mean())
    # ties among equally distant neighbours may be broken otherwise
    assert fit.agreement == pytest.approx(spearmanr(excess["dark"], excess["depth"])[0], abs=0.04)
    assert fit.on_tissue == 1


def test_a_slow_trend_does_not_agree():
    pixels = np.repeat(np.linspace(90, 200, 400)[None, :, None], 300, axis=0).repeat(3, axis=2)
    pixels = pixels + np.random.default_rng(0).normal(0, 12, (30, 40)).repeat(10, 0).repeat(10, 1)[..., None]
    centres = np.stack(np.meshgrid(np.arange(15.0, 400, 20), np.arange(15.0, 300, 20)), -1).reshape(-1, 2)
    counts = np.random.default_rng(1).poisson(400 - centres[:, 0])
    density = -np.log(pixels[centres[:, 1].astype(int), centres[:, 0].astype(int), 0] / 255)
    assert spearmanr(density, counts)[0] > 0.6
    fit = placement.measure(
        placement.survey(np.clip(pixels, 0, 255).astype(np.uint8)), placement.signal_of(centres, 10, counts)
    )
    assert abs(fit.agreement) < 0.2


def test_sums_at_all_shifts_match_a_loop():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(12, 16)), rng.normal(size=5)
    centres = rng.uniform([0, 0], [16, 12], (5, 2))
    sums = placement._at_all_shifts(values, centres, weights)
    for dx, dy in [(0, 0), (3, -2), (-8, -6), (7, 5)]:
        expected = 0.0
        for (x, y), weight in zip(np.floor(centres + np.array([dx, dy])).astype(int), weights, strict=True):
            if 0 <= x < 16 and 0 <= y < 12:
                expected += weight * values[y, x]
        assert sums[6 + dy, 8 + dx] == pytest.approx(expected)


def test_very_many_spots_are_pooled():
    x, y = np.meshgrid(np.arange(300.0), np.arange(200.0))
    centres = np.column_stack([x.ravel(), y.ravel()])
    signal = placement.signal_of(centres, 1.0, np.ones(60_000))
    # about 4,000 blocks of 300 * 200 / 4000 = 15 spots, each sqrt(15) = 3.9 px wide
    assert 3500 < len(signal.centres) < 4600
    assert signal.half_px == pytest.approx(np.sqrt(15) / 2, rel=0.15)
    assert signal.centres.mean(axis=0) == pytest.approx([149.5, 99.5], rel=0.02)


# --- right and wrong places -------------------------------------------------------------------------------------------


def test_the_right_image_is_accepted(tmp_path, right):
    found = placement.check_placement(section(tmp_path / "a.png", *right))
    assert [(finding.check, finding.level) for finding in found] == [("inside", "ok"), ("placement", "ok")]
    assert found[1].values["on_tissue"] == 1
    assert found[1].values["agreement"] > 0.5
    assert "100 % of the spots lie on tissue" in found[1].message


def test_tissue_that_fills_the_image_is_checked_by_the_counts(tmp_path, right):
    pixels, centres, counts = right
    inside = ((centres > [45, 25]) & (centres < [175, 295])).all(axis=1)
    cropped = pixels[20:300, 40:180]
    spots = section(tmp_path / "a.png", cropped, centres[inside] - [40, 20], counts[inside])
    found = only(placement.check_placement(spots), "placement")
    assert found.level == "ok"
    assert "tissue fills the image" in found.message
    spots = section(tmp_path / "b.png", np.ascontiguousarray(cropped[::-1]), spots.obsm["spatial"], counts[inside])
    assert only(placement.check_placement(spots), "placement").values["better"] == "mirrored top to bottom"


@pytest.mark.parametrize("orientation", WRONG, ids=[ORIENTATIONS[one] for one in WRONG])
def test_a_turned_or_mirrored_image_is_named(tmp_path, right, orientation):
    pixels, centres, counts = right
    found = only(
        placement.check_placement(section(tmp_path / "a.png", turn(pixels, orientation), centres, counts)), "placement"
    )
    assert found.level == "problem"
    assert found.values["better"] == ORIENTATIONS[orientation]
    assert found.values["better_agreement"] > found.values["agreement"] + 0.3
    assert str(tmp_path / "a.png") in found.message


def test_swapped_coordinates_are_named(tmp_path, right):
    pixels, centres, counts = right
    pixels = np.pad(pixels, ((0, WIDTH - HEIGHT), (0, 0), (0, 0)), constant_values=242)
    spots = section(tmp_path / "a.png", pixels, centres[:, ::-1].copy(), counts)
    found = only(placement.check_placement(spots), "placement")
    assert (found.level, found.values["better"]) == ("problem", "with x and y swapped")
    assert "x and y look swapped: write the column before the row" in found.message


@pytest.mark.parametrize(("factor", "image_scale"), [(2.0, 0.5), (0.5, 2.0), (0.3, 1 / 0.3)])
def test_a_wrong_scale_is_reported_with_the_right_one(tmp_path, right, factor, image_scale):
    pixels, centres, counts = right
    spots = section(tmp_path / "a.png", pixels, centres * factor, counts, um_per_px=1 / factor)
    found = placement.check_placement(spots)
    assert only(found, "inside").level == ("problem" if factor > 1 else "ok")
    scale = only(found, "placement")
    assert scale.level == "problem"
    assert scale.values["image_scale"] == pytest.approx(image_scale, rel=0.02)
    assert f"to about {image_scale:.3g}"[:-1] in scale.message


def test_spots_in_the_corner_with_uninformative_counts(tmp_path):
    pixels = np.full((300, 4000, 3), 242, np.uint8)
    pixels[100:280, 1500:3500:2] = 120
    centres = np.stack(np.meshgrid(np.arange(10.0, 200, 20), np.arange(10.0, 70, 20)), -1).reshape(-1, 2)
    found = only(placement.check_placement(section(tmp_path / "a.png", pixels, centres, np.ones(30))), "placement")
    assert found.level == "problem"
    assert found.values["image_scale"] == 2  # 4000 px / 2000 px
    assert "upper left corner" in found.message
    assert "to 2 if they are those of Space Ranger's hires image" in found.message


@pytest.mark.parametrize("shift", [(100, 0), (0, 70), (-30, 10), (60, -15)])
def test_a_shift_is_measured(tmp_path, right, shift):
    pixels, centres, counts = right
    rolled = np.full_like(pixels, 242)
    (dx, dy), (h, w) = shift, pixels.shape[:2]
    rolled[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = pixels[
        max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)
    ]
    spots = section(tmp_path / "a.png", rolled, centres, counts, um_per_px=0.5, spot_um=5.0)
    found = only(placement.check_placement(spots), "placement")
    assert (found.level, found.values["better"]) == ("problem", "shifted")
    assert found.values["shift_um"] == pytest.approx(0.5 * np.array(shift), abs=2)


def test_spots_outside_are_a_problem(tmp_path, right):
    pixels, centres, counts = right
    spots = section(tmp_path / "a.png", pixels, centres + np.array([WIDTH, 0]), counts)
    found = only(placement.check_placement(spots), "inside")
    assert found.level == "problem"
    assert "lie outside the image" in found.message


def test_unrelated_counts_are_a_warning_and_never_a_better_placement(tmp_path, right):
    pixels, centres, counts = right
    ground = placement.survey(pixels)
    for seed in range(20):
        shuffled = np.random.default_rng(seed).permutation(counts)
        signal = placement.signal_of(centres, 10, shuffled)
        given = placement.measure(ground, signal)
        assert placement.best_orientation(ground, signal, given) is None
    assert placement.best_scale(ground, signal, given) is None
    assert placement.best_shift(ground, signal, given) is None
    spots = section(tmp_path / "a.png", pixels, centres, np.random.default_rng(0).permutation(counts))
    found = only(placement.check_placement(spots), "placement")
    assert found.level == "warning"
    assert "nothing confirms that this is the section's image" in found.message


def test_another_sections_image_is_not_accepted(tmp_path, right):
    _, centres, counts = right
    found = only(placement.check_placement(section(tmp_path / "a.png", slide(seed=5), centres, counts)), "placement")
    assert found.level == "warning"  # the same outline, other tissue
    elsewhere = np.full((HEIGHT, WIDTH, 3), 242, np.uint8)
    elsewhere[10:60, 200:390] = np.random.default_rng(0).integers(60, 160, (50, 190, 1))
    found = only(placement.check_placement(section(tmp_path / "b.png", elsewhere, centres, counts)), "placement")
    assert found.level == "problem"


def test_a_blank_image_is_not_decisive(tmp_path, right):
    _, centres, counts = right
    for value in (0, 250):
        pixels = np.full((HEIGHT, WIDTH, 3), value, np.uint8)
        found = only(
            placement.check_placement(section(tmp_path / f"{value}.png", pixels, centres, counts)), "placement"
        )
        assert found.level == "warning"
        assert "nearly blank" in found.message


def test_a_section_without_image_has_nothing_to_compare(tmp_path, right):
    pixels, centres, counts = right
    spots = section(tmp_path / "a.png", pixels, centres, counts, image="")
    assert [(one.level, one.check) for one in placement.check_placement(spots)] == [("ok", "image")]


def test_spots_without_counts_are_handled(tmp_path, right):
    pixels, centres, _ = right
    found = placement.check_placement(section(tmp_path / "a.png", pixels, centres[:8], np.zeros(8)))
    assert only(found, "placement").values["agreement"] == 0


# --- pixel size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("um_per_px", "image_scale", "level", "says"),
    [
        (0.5, 1.0, "ok", "0.5 µm per px from the section"),
        (0.54, 1.0, "ok", "0.54"),
        (0.56, 1.0, "warning", "0.56 µm per px from the section (um_per_px / image_scale), 0.5 from the file;"),
        (1.0, 1.0, "warning", "2 times as much"),
        (0.25, 1.0, "warning", "0.5 times as much"),
        (2.0, 1.0, "warning", "4 times as much"),
        (0.5, 0.25, "warning", "4 times as much"),
        (0.25, 0.5, "ok", "0.5 µm per px from the section"),
    ],
)
def test_pixel_size_against_what_the_file_states(tmp_path, right, um_per_px, image_scale, level, says):
    pixels, centres, counts = right
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", resolution=(20000, 20000), resolutionunit="CENTIMETER")
    spots = section(path, pixels, centres / image_scale, counts, um_per_px=um_per_px, image_scale=image_scale)
    found = only(placement.check_placement(spots), "pixel_size")
    assert found.level == level
    assert says in found.message
    assert found.values == {"expected_um_per_px": um_per_px / image_scale, "stated_um_per_px": 0.5}


# --- the vendor's picture ---------------------------------------------------------------------------------------------


def vendor(folder: Path, pixels: np.ndarray, scale: float | None = 0.5) -> str:
    """Space Ranger's spatial folder: the image at half size, and the scale."""
    folder.mkdir()
    picture = pil.fromarray(pixels)
    picture.resize((pixels.shape[1] // 2, pixels.shape[0] // 2), pil.Resampling.BOX).save(
        folder / "tissue_hires_image.png"
    )
    if scale:
        (folder / "scalefactors_json.json").write_text(json.dumps({"tissue_hires_scalef": scale}))
    return str(folder / "tissue_hires_image.png")


@pytest.mark.parametrize("scale", [0.5, None])
def test_the_vendors_image_of_the_same_section(tmp_path, right, scale):
    spots = section(tmp_path / "a.png", *right)
    found = only(placement.check_placement(spots, vendor(tmp_path / "spatial", right[0], scale)), "vendor_image")
    assert found.level == "ok"
    assert found.values["similarity"] > 0.9


@pytest.mark.parametrize("orientation", WRONG, ids=[ORIENTATIONS[one] for one in WRONG])
def test_an_image_rotated_later_is_named(tmp_path, right, orientation):
    pixels, centres, counts = right
    spots = section(tmp_path / "a.png", turn(pixels, orientation), centres, counts)
    found = only(placement.check_placement(spots, vendor(tmp_path / "spatial", pixels)), "vendor_image")
    assert found.level == "problem"
    assert found.values["better"] == ORIENTATIONS[orientation]
    assert found.values["similarity"] < 0.3


def test_another_image_and_another_size(tmp_path, right):
    pixels, centres, counts = right
    theirs = vendor(tmp_path / "spatial", pixels)
    other = section(tmp_path / "a.png", slide(seed=7), centres, counts)
    found = only(placement.check_placement(other, theirs), "vendor_image")
    assert found.level == "problem"
    assert "nor in any other orientation" in found.message
    # the sheet says that the image is the full resolution one; it is half of it
    half = np.asarray(pil.fromarray(pixels).resize((WIDTH // 2, HEIGHT // 2), pil.Resampling.BOX))
    spots = section(tmp_path / "b.png", half, centres, counts)
    found = only(placement.check_placement(spots, theirs), "vendor_image")
    assert found.level == "problem"
    assert "multiply column `image_scale` of the section sheet by 0.5" in found.message


def test_an_extreme_scale_takes_no_memory():
    pixels = slide()
    assert placement.similarity(pixels, pixels, factor=1e5) is None  # one pixel of ours: nothing to see
    assert placement.similarity(pixels, pixels, factor=1e-3) == 0


def test_a_blank_vendor_image_is_not_decisive_and_its_own_is_not_compared(tmp_path, right):
    spots = section(tmp_path / "a.png", *right)
    blank = vendor(tmp_path / "spatial", np.full((200, 200, 3), 250, np.uint8))
    found = only(placement.check_placement(spots, blank), "vendor_image")
    assert (found.level, "nearly blank" in found.message) == ("warning", True)
    assert len(placement.check_placement(spots, str(tmp_path / "a.png"))) == 2


def test_damaged_scale_factors_are_named(tmp_path, right):
    theirs = vendor(tmp_path / "spatial", right[0])
    (tmp_path / "spatial" / "scalefactors_json.json").write_text("{")
    with pytest.raises(InputError, match=r"scalefactors_json.json: not valid JSON"):
        placement.check_placement(section(tmp_path / "a.png", *right), theirs)


# --- real sections ----------------------------------------------------------------------------------------------------


def her2st(name: str, image: str, scale: float) -> AnnData:
    """Spots of a section, with the image of that name."""
    root = DATA / "her2st"
    if not root.is_dir():
        pytest.skip("shared/data/her2st is not here")
    totals = pd.read_csv(root / f"ST-cnts/{name}.tsv.gz", sep="\t", index_col=0, engine="c").sum(axis=1)
    places = pd.read_csv(root / f"ST-spotfiles/{name}_selection.tsv", sep="\t")
    places.index = [f"{x:.0f}x{y:.0f}" for x, y in places[["x", "y"]].to_numpy()]
    both = places.join(totals.rename("total"), how="inner")
    return section(
        root / "ST-imgs" / image, None, both[["pixel_x", "pixel_y"]].to_numpy(float), both["total"].to_numpy(),
        um_per_px=0.9 if name == "A1" else 0.69, spot_um=100.0, image_scale=scale,
    )  # fmt: skip


@pytest.fixture(scope="module")
def a1():
    return her2st("A1", "A1.png", 2000 / 6954)


@pytest.fixture(scope="module")
def c2():
    return her2st("C2", "C2.jpg", 1.0)


@pytest.mark.parametrize("name", ["a1", "c2"])
def test_real_sections_fit_their_images(request, name):
    found = only(placement.check_placement(request.getfixturevalue(name)), "placement")
    assert found.level == "ok"
    assert found.values["on_tissue"] > 0.99
    assert found.values["agreement"] > 0.25


def test_a_real_section_swapped_is_caught(a1):
    swapped = a1.copy()
    swapped.obsm["spatial"] = a1.obsm["spatial"][:, ::-1].copy()
    found = only(placement.check_placement(swapped), "placement")
    assert (found.level, found.values["better"]) == ("problem", "with x and y swapped")


def test_a_real_section_on_the_next_sections_image_is_caught(c2):
    other = c2.copy()
    other.uns["section"]["image"] = str(DATA / "her2st" / "ST-imgs" / "C3.jpg")
    assert only(placement.check_placement(other), "placement").level == "problem"


def test_real_coordinates_of_another_resolution_are_caught(a1):
    full = a1.copy()
    full.uns["section"]["image_scale"] = 1.0  # full-resolution coordinates on the reduced picture
    found = placement.check_placement(full)
    assert only(found, "inside").level == "problem"
    assert only(found, "placement").values["image_scale"] == pytest.approx(2000 / 6954, rel=0.02)


def test_the_nearly_blank_image_of_a_real_folder_only_warns():
    folder = DATA / "visium_v1"
    if not folder.is_dir():
        pytest.skip("shared/data/visium_v1 is not here")
    places = pd.read_csv(folder / "spatial/tissue_positions_list.csv", header=None)
    places = places[places[1] == 1]
    path = folder / "spatial" / "tissue_hires_image.png"
    spots = section(path, None, places[[5, 4]].to_numpy(float), np.arange(len(places)), image_scale=0.150015)
    found = placement.check_placement(spots, str(path))
    assert [(one.check, one.level) for one in found] == [("inside", "ok"), ("placement", "warning")]
