"""PREM: its two-hop operator, pairs and scores, against an independent computation."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features.neighbours import spot_graph
from ctrflow.methods import prem
from ctrflow.nets.prem import Discriminator, misfit, pair_loss, shuffled_within


def view_of(sections, spots, genes, seed=0, tissue=None):
    """Poisson genes on square grids; `tissue` (spots,) bool has its own genes."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(spots**0.5))
    grid = np.array([(i % side, i // side) for i in range(spots)], dtype=float)
    mean = np.ones((sections * spots, genes))
    if tissue is not None:
        first = np.arange(genes) < genes // 2
        mean += 4 * (np.tile(tissue, sections)[:, None] == first)
    expression = sparse.csr_matrix(np.log1p(rng.poisson(mean)).astype(np.float32))
    obs = pd.DataFrame({"section": np.repeat([f"s{i}" for i in range(sections)], spots)})
    obs.index = [f"x{i}" for i in range(len(obs))]
    return anndata.AnnData(expression, obs=obs, obsm={"spatial": np.tile(grid, (sections, 1))})


def options(**given):
    return methods.resolve_options(prem.SPEC, given)


def dense_inputs(view):
    """Spots and neighbourhoods of one section by dense matrices."""
    a = spot_graph(view.obsm["spatial"], view.obs["section"].to_numpy(), 6).toarray().astype(float)
    looped = a + np.eye(len(a))
    degrees = looped.sum(axis=1)
    twice = np.linalg.matrix_power(looped / np.sqrt(np.outer(degrees, degrees)), 2)
    x = view.X.toarray().astype(float)
    x = x / x.sum(axis=1, keepdims=True)
    return x, twice @ x - np.diag(twice)[:, None] * x


def dense_misfit(weights, spots, neighbourhoods):
    left = spots @ weights["spot.weight"].T.astype(float) + weights["spot.bias"]
    right = neighbourhoods @ weights["neighbourhood.weight"].T.astype(float) + weights["neighbourhood.bias"]
    return -(left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_two_hops_along_a_path_by_hand():
    path = sparse.csr_matrix(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32))
    # one hop: 1/2 1/sqrt(6) 0; 1/sqrt(6) 1/3 1/sqrt(6); 0 1/sqrt(6) 1/2. Ends to middle: (1/2 + 1/3) / sqrt(6)
    near = 5 / 6 / 6**0.5
    expected = [[0, near, 1 / 6], [near, 0, near], [1 / 6, near, 0]]
    assert prem.two_hops(path).toarray() == pytest.approx(np.array(expected))


def test_parameters_at_3000_genes():
    assert sum(value.numel() for value in Discriminator(3000, 128).parameters()) == 2 * (3000 * 128 + 128) == 768_256


def test_a_true_pair_should_score_minus_one_and_a_false_one_plus_one():
    scores = torch.tensor([0.0, 0.5])
    # probabilities of being false: 0.5 and 0.75
    assert pair_loss(scores, anomalous=True).item() == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)
    assert pair_loss(scores, anomalous=False).item() == pytest.approx(-(np.log(0.5) + np.log(0.25)) / 2)
    assert pair_loss(torch.tensor([-1.0000001]), anomalous=False).item() == 0
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert misfit(rows, torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])).tolist() == [-1, 0, 1]


def test_false_pairs_are_drawn_within_sections():
    sections = torch.tensor([1, 0, 0, 1, 2, 0, 1, 1])
    drawn = [shuffled_within(sections, torch.Generator().manual_seed(seed)) for seed in range(20)]
    for found in drawn:
        assert sorted(found.tolist()) == list(range(8))
        assert (sections[found] == sections).all()
    # the rows of section 0 come in different orders
    assert len({tuple(found[sections == 0].tolist()) for found in drawn}) > 3


def test_scores_are_minus_the_cosine_section_by_section(monkeypatch):
    monkeypatch.setattr(prem, "SCORED_AT_ONCE", 17)
    view = view_of(2, 40, 15)
    model = prem.Model.fit(view, options(epochs=3), 0)
    found = model.score(view)
    for section in ("s0", "s1"):
        rows = (view.obs["section"] == section).to_numpy()
        assert found[rows] == pytest.approx(dense_misfit(model.tensors(), *dense_inputs(view[rows])), abs=1e-5)


def test_the_weights_kept_are_those_with_the_lowest_loss_on_true_pairs():
    view = view_of(1, 40, 15)
    model = prem.Model.fit(view, options(epochs=15, learning_rate=0.05), 0)
    true = [row["value"] for row in model.losses if row["term"] == "true"]
    assert true.index(min(true)) < 14  # else the last weights would do
    fits = dense_misfit(model.tensors(), *dense_inputs(view))
    assert -np.log(1 - (fits + 1) / 2).mean() == pytest.approx(min(true), rel=1e-3)


def test_the_loss_adds_up_its_weighted_pairs():
    model = prem.Model.fit(view_of(2, 20, 10), options(epochs=2, alpha=0.7, gamma=0.2), 0)
    values = {row["term"]: row["value"] for row in model.losses if row["epoch"] == 2}
    expected = values["true"] + 0.7 * values["other_neighbourhood"] + 0.2 * values["other_spot"]
    assert values["loss"] == pytest.approx(expected, rel=1e-5)


def test_spots_left_out_stay_in_the_neighbourhoods():
    view = view_of(1, 50, 12)
    model = prem.Model.fit(view, options(epochs=1, max_reference_spots=20), 4)
    rows = np.sort(np.random.default_rng(4).choice(50, 20, replace=False))
    fits = dense_misfit(
        model.tensors(), *(part[rows] for part in dense_inputs(view))
    )  # one epoch: weights of its start
    true = next(row["value"] for row in model.losses if row["term"] == "true")
    assert -np.log(1 - (fits + 1) / 2).mean() == pytest.approx(true, rel=1e-4)


def test_a_spot_of_another_tissue_than_its_neighbourhood_scores_higher():
    left = np.arange(144) % 12 < 6
    train, odd = view_of(2, 144, 40, tissue=left), left.copy()
    strange = [3 * 12 + 2, 7 * 12 + 9, 9 * 12 + 3]
    odd[strange] = ~odd[strange]
    scores = prem.Model.fit(train, options(preset="fast"), 0).score(view_of(1, 144, 40, seed=1, tissue=odd))
    assert scores[strange].min() > np.quantile(np.delete(scores, strange), 0.9)


def test_spots_without_counts_or_neighbours_get_a_score():
    view = view_of(1, 20, 8)
    expression = view.X.toarray()
    expression[3] = 0
    view.X = sparse.csr_matrix(expression)
    model = prem.Model.fit(view, options(epochs=2), 0)
    assert np.isfinite(model.score(view)).all()
    assert np.isfinite(model.score(view[:1])).all()


def test_twenty_thousand_spots_are_scored():
    model = prem.Model.fit(view_of(1, 60, 5), options(epochs=2), 0)
    scores = model.score(view_of(1, 20_000, 5))
    assert scores.shape == (20_000,)
    assert (np.abs(scores) <= 1 + 1e-6).all()


def test_one_spot_makes_no_pair():
    with pytest.raises(InputError, match="prem: 1 spot of normal tissue"):
        prem.Model.fit(view_of(1, 1, 8), options(), 0)
