"""STAGE: its layers, its losses in one dimension, and its score."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import stage
from ctrflow.nets import stage as net
from ctrflow.nets import training


def view_of(seed: int, spots: int = 60, section: str = "a"):
    """Cancer raises the first genes."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(spots) % 3 == 0).astype(float)
    genes = rng.random((spots, 30)) + 2 * np.outer(labels, np.arange(30) < 8)
    obs = pd.DataFrame({"section": section, "label": labels}, index=[f"{section}{i}" for i in range(spots)])
    return anndata.AnnData(sparse.csr_matrix(genes.astype(np.float32)), obs=obs)


def fitted(view, seed=0, **given):
    return stage.Model.fit(view, methods.resolve_options(stage.SPEC, {"epochs": 30} | given), seed)


def test_layers_and_their_parameters():
    built = net.STAGE(3000)
    shapes = [tuple(layer.weight.shape) for layer in built.encoder if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(1000, 3000), (500, 1000), (50, 500), (10, 50), (1, 10)]
    shapes = [tuple(layer.weight.shape) for layer in built.decoder if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(10, 1), (50, 10), (500, 50), (1000, 500), (3000, 1000)]
    # linear 2 x 3,526,560 of weights without the last pair's biases, 3,121 in all; BatchNorm 2 x 2 x 1,560
    weights = 2 * (3000 * 1000 + 1000 * 500 + 500 * 50 + 50 * 10 + 10)
    biases = (1000 + 500 + 50 + 10 + 1) + (10 + 50 + 500 + 1000 + 3000)
    assert sum(value.numel() for value in built.parameters()) == weights + biases + 2 * 2 * 1560 == 7_063_381


def test_the_latent_starts_between_the_labels():
    assert float(net.STAGE(5).encoder[-1].bias.detach()) == 0.5


def test_wasserstein_by_hand():
    # sorted 0, 1, 3 against 0, 0, 1: (0 + 1 + 4) / 3
    found = net.wasserstein(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0]))
    assert float(found) == pytest.approx(5 / 3)


def test_one_sort_is_the_mean_over_random_projections():
    rng = np.random.default_rng(0)
    latent, target = rng.random(40), rng.integers(0, 2, 40).astype(float)
    projections = rng.normal(size=(1000, 1))
    projections /= np.linalg.norm(projections, axis=1, keepdims=True)
    sliced = np.mean([
        np.mean((np.sort(latent * p) - np.sort(target * p)) ** 2) for p in projections[:, 0]
    ])  # fmt: skip
    assert float(net.wasserstein(torch.tensor(latent), torch.tensor(target))) == pytest.approx(sliced)


def test_losses_by_hand():
    latent, target = torch.tensor([0.5, 0.0]), torch.tensor([0.0, 1.0])
    # L1 (0.5 + 1) / 2; sorted 0, 0.5 against 0, 1: 0.25 / 2
    assert float(net.latent_loss(latent, target)) == pytest.approx(0.75 + 0.1 * 0.125)
    rebuilt, genes = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 1.0]])
    assert float(net.reconstruction_loss(rebuilt, genes)) == pytest.approx((1 + 4) / 2 + 0.1 * (1 + 2) / 2)


def test_one_optimiser_does_what_two_of_the_original_do():
    options = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3}
    rng = np.random.default_rng(1)
    # in float64: the gradient of a bias before BatchNorm is rounding noise, which Adam blows up to a step
    genes, labels = torch.tensor(rng.random((20, 6))), torch.arange(20, dtype=torch.float64) % 2
    torch.manual_seed(0)
    ours = net.STAGE(6).double()
    net.train(ours, genes, labels, options, 4)
    torch.manual_seed(0)
    theirs = net.STAGE(6).double().train()
    optimisers = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in (theirs.encoder, theirs.decoder)]
    for epoch in training.orders(20, 3, torch.Generator().manual_seed(4), torch.device("cpu")):
        for rows in epoch.split(8):
            latent = torch.relu(theirs.encoder(genes[rows]))
            back = torch.relu(theirs.decoder(latent))
            error, gap = back - genes[rows], (latent[:, 0] - labels[rows]).abs().mean()
            sliced = (latent[:, 0].sort()[0] - labels[rows].sort()[0]).pow(2).mean()
            loss = 0.1 * (gap + 0.1 * sliced) + 0.01 * (error.pow(2).mean() + 0.1 * error.abs().mean())
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.detach(), other.detach(), atol=1e-9)


def test_cancer_of_another_section_scores_higher():
    view = view_of(0)
    found = fitted(view).score(view_of(1, section="b"))
    labels = view.obs["label"].to_numpy()
    assert found[labels == 1].min() > found[labels == 0].max()


def test_the_score_is_the_latent_and_orders_what_its_relu_makes_equal(monkeypatch):
    view = view_of(0)
    model = fitted(view)
    with torch.no_grad():
        model.net.encoder[-1].bias -= 0.1
    linear = model.score(view)
    model.options = model.options | {"score": "relu"}
    latent = model.score(view)
    with torch.inference_mode():
        expected = model.net(torch.from_numpy(view.X.toarray()))[0].numpy()
    assert latent == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(latent, np.maximum(linear, 0))
    assert (latent == 0).sum() > 1  # or this would show nothing
    monkeypatch.setattr(stage, "SCORED_AT_ONCE", 7)
    assert model.score(view) == pytest.approx(latent, abs=1e-6)


def test_unlabelled_spots_are_not_learned_from():
    view = view_of(0)
    more = view_of(5, spots=10, section="b")
    more.obs["label"] = np.nan
    first, second = fitted(view), fitted(anndata.concat([more, view]))
    for name, value in first.tensors().items():
        np.testing.assert_array_equal(value, second.tensors()[name])


def test_labels_of_one_class_are_refused():
    view = view_of(0)
    view.obs["label"] = 1.0
    with pytest.raises(InputError, match="method stage: the training sections a have no spot labelled as other tissue"):
        fitted(view)
