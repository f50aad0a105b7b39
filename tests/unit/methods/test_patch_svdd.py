"""Patch SVDD: its encoders on a grid, its pairs of squares, the exact search and the map."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import patch_svdd
from ctrflow.nets import patch_svdd as net

BRIEF = {"preset": "fast", "epochs": 1, "spots_per_epoch": 12, "batch_size": 8}
FAST = methods.resolve_options(patch_svdd.SPEC, BRIEF)


def view_of(section: str, seed: int, spots: int = 12, cancer: int = 0):
    """Pink noise; the last `cancer` spots are dark and blotched."""
    rng = np.random.default_rng(seed)
    patches = rng.normal((225, 180, 205), 8, (spots, 128, 128, 3))
    patches[spots - cancer :] = rng.normal((130, 80, 150), 8, (cancer, 128, 128, 3))
    patches[spots - cancer :, ::16, ::16] = 30
    obs = pd.DataFrame({"section": section}, index=[f"{section}{i}" for i in range(spots)])
    return anndata.AnnData(
        np.zeros((spots, 1), np.float32), obs=obs, obsm={"patches": patches.clip(0, 255).astype(np.uint8)}
    )


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return net.Encoder().eval()


@pytest.fixture(scope="module")
def model():
    return patch_svdd.Model.fit(view_of("a", 0), FAST, 0)


def test_parameter_counts(encoder):
    def count(built):
        return sum(value.numel() for value in built.parameters())

    # 3x3: 896 + 18,496 + 73,856 + 147,584 + 73,792 + 18,464 + 9,248 + 18,496; 2x2: 32,896; 1x1: 8,256
    assert count(encoder.convolutions) == 360_832
    assert count(encoder) == 360_832 + 32_896 + 8_256
    assert count(net.PositionClassifier()) == 8_320 + 16_512 + 1_032


def test_a_large_square_is_joined_from_its_quarters(encoder):
    squares = torch.rand(2, 3, 64, 64)
    quarters = [[encoder.small(squares[:, :, y : y + 32, x : x + 32]) for x in (0, 32)] for y in (0, 32)]
    codes = torch.stack([torch.stack(row, dim=-1) for row in quarters], dim=-2)
    assert codes.shape == (2, 64, 2, 2)
    expected = encoder.join(codes).flatten(1)
    np.testing.assert_allclose(encoder.large(squares).detach(), expected.detach(), atol=1e-6)


@pytest.mark.parametrize("stride", [16, 32])
def test_a_grid_is_its_squares_one_by_one(encoder, stride):
    images = torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        small, large = encoder.grid(images, stride)
        assert small.shape == (2, 128 // stride - 32 // stride + 1, 128 // stride - 32 // stride + 1, 64)
        assert large.shape == (2, 3, 3, 64)
        for i, j in ((0, 0), (1, 2), (small.shape[1] - 1, 1)):
            square = images[:, :, i * stride : i * stride + 32, j * stride : j * stride + 32]
            np.testing.assert_allclose(small[:, i, j], encoder.small(square), atol=1e-6)
        for i, j in ((0, 0), (1, 2), (2, 1)):
            square = images[:, :, i * 32 : i * 32 + 64, j * 32 : j * 32 + 64]
            np.testing.assert_allclose(large[:, i, j], encoder.large(square), atol=1e-6)


@pytest.mark.parametrize("side", [32, 64])
def test_neighbours_lie_in_their_direction_inside_the_image(side):
    directions, first, second = net.neighbour_pairs(2000, 128, side, torch.Generator().manual_seed(0))
    shift = (second - first).numpy()
    np.testing.assert_array_equal(np.sign(shift), net.DIRECTIONS[directions])
    moved = np.abs(shift)[shift != 0]
    assert moved.min() == 3 * side // 4
    assert moved.max() == side - 1
    for corners in (first, second):
        assert corners.min() == 0
        assert corners.max() == 128 - side
    assert np.bincount(directions).min() > 200  # of 250 expected


@pytest.mark.parametrize(("side", "reach"), [(32, 1), (64, 2)])
def test_jitter_moves_every_square_a_little(side, reach):
    first, second = net.jittered_pairs(2000, 128, side, torch.Generator().manual_seed(0))
    moves = set(map(tuple, (second - first).tolist()))
    expected = {(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)} - {(0, 0)}
    assert moves == expected
    for corners in (first, second):
        assert corners.min() == 0
        assert corners.max() == 128 - side


def test_crops_are_cut_at_their_corners():
    images = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8)
    mean = torch.tensor([0.1, 0.2, 0.3])
    found = net.crops(images, torch.tensor([[0, 8], [5, 3]]), 32, mean)
    assert found.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(found[1, 2, 4, 7], images[1, 9, 10, 2] / 255 - 0.3, atol=1e-6)
    np.testing.assert_allclose(found[0, 0, 31, 0], images[0, 31, 8, 0] / 255 - 0.1, atol=1e-6)


def test_the_nearest_code_is_found_across_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    codes, bank = rng.normal(5, 1, (50, 64)).astype(np.float32), rng.normal(5, 1, (70, 64)).astype(np.float32)
    bank[69] = codes[3]
    expected = cdist(codes, bank).min(axis=1)
    at_once = net.nearest(torch.from_numpy(codes), torch.from_numpy(bank))
    monkeypatch.setattr(net, "QUERIES", 16)
    monkeypatch.setattr(net, "BANK", 9)
    blocks = net.nearest(torch.from_numpy(codes), torch.from_numpy(bank))
    for found in (at_once, blocks):
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert float(found[3]) == 0


@pytest.mark.parametrize("stride", [16, 32])
def test_the_score_is_the_mean_of_the_map_over_the_disc(stride):
    rng = np.random.default_rng(0)
    sides = {32: stride, 64: 32}
    distances = {side: rng.random(((128 - side) // step + 1,) * 2) for side, step in sides.items()}
    maps = {}
    for side, step in sides.items():
        total, count = np.zeros((128, 128)), np.zeros((128, 128))
        for i, j in np.ndindex(distances[side].shape):
            square = np.s_[i * step : i * step + side, j * step : j * step + side]
            total[square] += distances[side][i, j]
            count[square] += 1
        maps[side] = total / count
    inside = [
        (y, x) for y in range(128) for x in range(128) if (y + 0.5 - 64) ** 2 + (x + 0.5 - 64) ** 2 <= 32**2
    ]  # fmt: skip
    expected = np.mean([maps[64][pixel] * maps[32][pixel] for pixel in inside])
    weights = patch_svdd.disc_weights(128, stride)
    assert distances[64].ravel() @ weights @ distances[32].ravel() == pytest.approx(expected)
    assert weights.sum() == pytest.approx(1)


def test_equal_squares_pull_at_nothing():
    images = torch.full((2, 128, 128, 3), 240, dtype=torch.uint8)
    built = net.Encoder()
    losses = net.train(built, images, torch.zeros(3), FAST, 0)
    assert {row["term"] for row in losses} == {"loss", "position_32", "position_64", "jitter_32", "jitter_64"}
    assert all(row["value"] == 0 for row in losses if row["term"].startswith("jitter"))
    assert all(torch.isfinite(value).all() for value in built.parameters())


def test_the_loss_is_the_sum_of_its_parts():
    built = net.Encoder()
    images = torch.from_numpy(view_of("a", 0, spots=4).obsm["patches"])
    losses = net.train(built, images, torch.zeros(3), FAST | {"jitter_weight": 3.0}, 0)
    found = {row["term"]: row["value"] for row in losses}
    expected = found["position_32"] + found["position_64"] + 3 * (found["jitter_32"] + found["jitter_64"])
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["jitter_32"] > 0


@pytest.mark.parametrize(("spots", "steps"), [(0, 5), (4, 2), (99, 5)])
def test_an_epoch_of_fewer_spots(monkeypatch, spots, steps):
    taken = []
    monkeypatch.setattr(net, "_position_loss", lambda *_: torch.zeros((), requires_grad=True))
    monkeypatch.setattr(net, "_jitter_loss", lambda code, images, *_: taken.append(len(images)) or torch.zeros(()))
    images = torch.zeros(10, 128, 128, 3, dtype=torch.uint8)
    net.train(net.Encoder(), images, torch.zeros(3), FAST | {"spots_per_epoch": spots, "batch_size": 2}, 0)
    assert taken == [2] * 2 * steps  # two sides a step


def test_cancer_scores_higher(model):
    target = view_of("t", 1, spots=8, cancer=4)
    found = model.score(target)
    assert found[4:].min() > 2 * found[:4].max()
    both = anndata.concat([view_of("u", 2, spots=4), target])
    np.testing.assert_allclose(model.score(both)[4:], found, atol=1e-6)


def test_normal_tissue_it_has_learned_scores_nothing(model):
    assert model.score(view_of("a", 0)) == pytest.approx(np.zeros(12), abs=1e-4)


def test_the_score_by_its_parts(model):
    target = view_of("t", 1, spots=2, cancer=1)
    mean = view_of("a", 0).obsm["patches"].reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(model.parts["bank.mean"], mean, rtol=1e-5)
    images = torch.from_numpy(((target.obsm["patches"] / 255) - mean).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        codes = model.net.grid(images, FAST["stride"])
    parts = []
    for code, size in zip(codes, ("small", "large"), strict=True):
        bank = model.parts[f"bank.{size}"]
        spread = np.sqrt(((bank - bank.mean(axis=0)) ** 2).sum(axis=1).mean())
        parts.append(cdist(code.reshape(-1, 64), bank).min(axis=1).reshape(2, -1) / spread)
    weights = patch_svdd.disc_weights(128, FAST["stride"])
    expected = [large @ weights @ small for small, large in zip(*parts, strict=True)]
    np.testing.assert_allclose(model.score(target), expected, rtol=1e-3)


def test_saved_and_loaded_it_scores_the_same(model):
    target = view_of("t", 1, spots=4, cancer=2)
    again = patch_svdd.Model.from_tensors(model.tensors(), FAST, 0)
    np.testing.assert_array_equal(again.score(target), model.score(target))


def test_a_cap_on_the_reference_bounds_the_bank():
    found = patch_svdd.Model.fit(view_of("a", 0), FAST | {"max_reference_spots": 3}, 0).tensors()
    assert found["bank.small"].shape == (3 * 16, 64)
    assert found["bank.large"].shape == (3 * 9, 64)


def test_one_spot_is_not_enough():
    with pytest.raises(InputError, match="method patch_svdd: 1 spot of normal tissue in a; it needs at least 2"):
        patch_svdd.Model.fit(view_of("a", 0, spots=1), FAST, 0)
