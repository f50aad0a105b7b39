"""f-AnoGAN's layers, losses and score on numbers worked by hand."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import fanogan
from ctrflow.nets import fanogan as nets
from ctrflow.nets import training

BRIEF = {
    "preset": "fast",
    "patch_px": 16,
    "batch_size": 8,
    "epochs": 10,
    "epochs_encoder": 5,
    "learning_rate": 2e-3,
    "critic_steps": 1,
}


def options(**more):
    return methods.resolve_options(fanogan.SPEC, BRIEF | more)


def view(levels, px=16, seed=0):
    """Spots whose patches are of one grey level each, with some noise."""
    noise = np.random.default_rng(seed).normal(0, 8, (len(levels), px, px, 3))
    patches = np.clip(np.array(levels)[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    obs = pd.DataFrame({"section": "s"}, index=[f"spot{i}" for i in range(len(levels))])
    return ad.AnnData(np.zeros((len(levels), 1), np.float32), obs=obs, obsm={"patches": patches})


@pytest.fixture(scope="module")
def trained():
    return fanogan.Model.fit(view([220] * 24), options(), 0)


def count(module):
    return sum(value.numel() for value in module.parameters())


def test_parameters_at_64_px_by_hand():
    net = nets.FAnoGAN(64, "layer")
    generator = 101 * 128 * 16 * 16 + 2 * 128 + (128 * 9 + 1) * 128 + 2 * 128 + (128 * 9 + 1) * 64 + 2 * 64
    assert count(net.generator) == generator + (64 * 9 + 1) * 3
    trunk = sum((a * 9 + 1) * b for a, b in ((3, 16), (16, 32), (32, 64), (64, 128))) + 2 * (32 + 64 + 128)
    assert count(net.critic) == trunk + 128 * 4 * 4 + 1
    assert count(net.encoder) == trunk + (128 * 4 * 4 + 1) * 100
    assert count(net.critic) == count(nets.FAnoGAN(64, "batch").critic)


@pytest.mark.parametrize("side", [1, 4, 7])
def test_doubling_is_repeating_and_convolving(side):
    torch.manual_seed(0)
    layer = nets.Doubling(5, 3)
    images = torch.randn(2, 5, side, side)
    convolution = layer.convolution
    expected = F.conv2d(F.interpolate(images, scale_factor=2), convolution.weight, convolution.bias, padding=1)
    assert torch.allclose(layer(images), expected, atol=1e-5)


def test_images_span_minus_one_to_one():
    patches = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    patches[0, 0, 1] = torch.tensor([255, 0, 51], dtype=torch.uint8)
    images = nets.as_images(patches)
    assert images[0, :, 0, 1].tolist() == pytest.approx([1, -1, -0.6])
    assert images[0, :, 1, 1].tolist() == [-1, -1, -1]


def test_training_sees_about_every_other_patch_mirrored(monkeypatch):
    """Left half dark, right half bright; neither up nor down nor the colours change."""
    seen = {"contest": [], "invert": []}
    penalty, distances = nets.gradient_penalty, nets.FAnoGAN.distances

    def noted_penalty(critic, real, fake, shares):
        seen["contest"].append(real)
        return penalty(critic, real, fake, shares)

    def noted_distances(net, images):
        seen["invert"].append(images)
        return distances(net, images)

    monkeypatch.setattr(nets, "gradient_penalty", noted_penalty)
    monkeypatch.setattr(nets.FAnoGAN, "distances", noted_distances)
    torch.manual_seed(0)
    net = nets.FAnoGAN(16, "layer")
    patches = torch.zeros(40, 16, 16, 3, dtype=torch.uint8)
    patches[:, :, 8:, 0], patches[:, :4, 8:, 1] = 255, 255
    brief = options(epochs=3, epochs_encoder=3, batch_size=40)
    nets.contest(net, patches, brief, 0)
    nets.invert(net, patches, brief, 0)
    plain = nets.as_images(patches[:1])
    for images in map(torch.cat, seen.values()):
        same = (images == plain).flatten(1).all(dim=1)
        other = (images == plain[..., range(15, -1, -1)]).flatten(1).all(dim=1)
        assert len(images) == 120
        assert (same ^ other).all()
        assert 40 <= int(other.sum()) <= 80


def test_penalty_of_a_linear_critic_is_its_slope():
    class Linear(nn.Module):
        def forward(self, images):
            return 3 * images[:, 0, 0, 0] + 4 * images[:, 2, 1, 1]

    real, fake = torch.randn(2, 6, 3, 2, 2)
    # the gradient has norm 5 everywhere
    assert float(nets.gradient_penalty(Linear(), real, fake, torch.rand(6))) == pytest.approx(16)


def test_penalty_is_taken_between_real_and_fake():
    class Squared(nn.Module):
        def forward(self, images):
            return images.square().sum(dim=(1, 2, 3)) / 2

    real, fake = torch.full((1, 1, 1, 1), 5.0), torch.full((1, 1, 1, 1), 1.0)
    # at 1 + 0.25 (5 - 1) = 2 the slope is 2
    penalty = nets.gradient_penalty(Squared(), real, fake, torch.tensor([0.25]))
    assert penalty.item() == pytest.approx(1)


def test_why_the_critic_is_not_normalised_over_the_batch():
    torch.manual_seed(0)
    critic = nets.FAnoGAN(16, "batch").critic.train()
    bright, dark = (critic(torch.randn(8, 3, 16, 16) + level).mean() for level in (2.0, -2.0))
    assert (bright - dark).item() == pytest.approx(0, abs=1e-5)
    critic = nets.FAnoGAN(16, "layer").critic.train()
    bright, dark = (critic(torch.randn(8, 3, 16, 16) + level).mean() for level in (2.0, -2.0))
    assert abs((bright - dark).item()) > 0.01


def test_critic_takes_its_steps_before_the_generator(monkeypatch):
    taken = []
    usual = training.descend

    def noted(optimiser, loss, terms, steps):
        taken.append(sum(weight.numel() for group in optimiser.param_groups for weight in group["params"]))
        usual(optimiser, loss, terms, steps)

    monkeypatch.setattr(training, "descend", noted)
    torch.manual_seed(0)
    net = nets.FAnoGAN(16, "layer")
    patches = torch.randint(0, 255, (8, 16, 16, 3), dtype=torch.uint8)
    # 4 batches an epoch: the generator's turn comes after the steps 3 and 6, counted through the epochs
    losses = nets.contest(net, patches, options(epochs=2, batch_size=2, critic_steps=3), 0)
    critic, generator = count(net.critic), count(net.generator)
    assert taken == [critic] * 3 + [generator] + [critic] * 3 + [generator] + [critic] * 2
    assert {row["term"] for row in losses} == {"loss", "real", "fake", "penalty"}


def test_loss_of_the_critic_is_the_sum_of_its_terms(trained):
    rows = pd.DataFrame(trained.losses).pivot_table(index=["stage", "epoch"], columns="term", values="value")
    contest, invert = rows.loc["contest"], rows.loc["invert"]
    assert np.allclose(contest["loss"], contest["fake"] - contest["real"] + 10 * contest["penalty"], atol=1e-4)
    assert np.allclose(invert["loss"], invert["pixels"] + invert["features"], atol=1e-5)
    assert invert["loss"].iloc[-1] < invert["loss"].iloc[0]


def test_encoder_learns_alone():
    torch.manual_seed(0)
    net = nets.FAnoGAN(16, "layer")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    patches = torch.randint(0, 255, (8, 16, 16, 3), dtype=torch.uint8)
    nets.invert(net, patches, options(epochs_encoder=1, batch_size=4), 0)
    changed = {name.split(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"encoder"}


def test_score_is_the_squared_difference_of_pixels_and_features(trained):
    target = view([220, 128, 40], seed=1)
    images = nets.as_images(torch.from_numpy(target.obsm["patches"]))
    net = trained.net.eval()
    with torch.no_grad():
        for spot, image in enumerate(images[:, None]):
            rebuilt = net.generator(torch.tanh(net.encoder.leave(net.encoder.features(image))))
            pixels = float(((rebuilt - image) ** 2).mean())
            features = float(((net.critic.features(rebuilt) - net.critic.features(image)) ** 2).mean())
            assert trained.score(target[spot])[0] == pytest.approx(pixels + features, rel=1e-4)
            trained.options = options(kappa=0.0)
            assert trained.score(target[spot])[0] == pytest.approx(pixels, rel=1e-4)
            trained.options = options()


def test_patches_unlike_the_reference_score_higher(trained):
    """Normal is white; an untrained generator draws grey, so without training grey would score as normal."""
    scores = trained.score(view([220] * 20 + [128] * 20, seed=1))
    assert scores[:20].max() < scores[20:].min()


def test_a_score_does_not_depend_on_the_spots_beside_it(trained, monkeypatch):
    target = view(np.linspace(30, 230, 11), seed=2)
    scores = trained.score(target)
    monkeypatch.setattr(fanogan, "SCORED_AT_ONCE", 3)
    assert trained.score(target[::-1])[::-1] == pytest.approx(scores, abs=1e-6)


def test_same_seed_same_model_and_back_from_tensors():
    target, brief = view([220, 128, 40], seed=1), options(epochs=1, epochs_encoder=1)
    first, again, other = (fanogan.Model.fit(view([220] * 16), brief, seed) for seed in (0, 0, 1))
    scores = first.score(target)
    assert first.losses == again.losses
    assert (again.score(target) == scores).all()
    assert (fanogan.Model.from_tensors(first.tensors(), brief, 1).score(target) == scores).all()
    assert (other.score(target) != scores).all()


def test_reference_is_capped():
    train = view([220] * 20)
    brief = options(epochs=1, epochs_encoder=1, max_reference_spots=4)
    some = fanogan.Model.fit(train, brief, 3)
    rows = np.sort(np.random.default_rng(3).choice(20, 4, replace=False))
    same = fanogan.Model.fit(train[rows], brief | {"max_reference_spots": 0}, 3)
    assert some.losses == same.losses


def test_a_side_that_cannot_be_halved_is_refused():
    with pytest.raises(InputError, match="`patch_px` is 24; give a multiple of 16"):
        fanogan.Model.fit(view([220] * 4, px=24), options(), 0)


def test_one_reference_spot_is_refused():
    with pytest.raises(InputError, match="1 reference spot; it needs at least 2"):
        fanogan.Model.fit(view([220]), options(), 0)
