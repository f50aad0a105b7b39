"""CAMLU: splits, tests and linkage against SciPy and brute force."""

from itertools import pairwise

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse, stats
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import camlu
from ctrflow.nets.camlu import Autoencoder, rebuild


def view_of(spots, genes, seed=0, section="s"):
    rng = np.random.default_rng(seed)
    expression = sparse.csr_matrix(np.log1p(rng.poisson(1.0, (spots, genes))).astype(np.float32))
    obs = pd.DataFrame({"section": section}, index=[f"{section}{i}" for i in range(spots)])
    return anndata.AnnData(expression, obs=obs)


def options(**given):
    return methods.resolve_options(camlu.SPEC, given)


def planted(seed=0, spots=60, genes=30):
    """Residuals in which the last third of the spots is worse in the genes 3, 7 and 11."""
    residuals = np.abs(np.random.default_rng(seed).normal(0, 0.2, (spots, genes))).astype(np.float32)
    residuals[spots * 2 // 3 :, [3, 7, 11]] += 3
    return residuals


def test_parameters_at_3000_genes():
    net = Autoencoder(3000)
    sizes = [3000, 256, 128, 64, 128, 256, 3000]
    expected = sum(a * b + b for a, b in pairwise(sizes)) + 2 * 256
    assert sum(value.numel() for value in net.parameters()) == expected == 1_622_264


def keras_losses(weights, features, held, order, batch_size, momentum):
    """Mean losses and held-out losses of epochs, by the formulas of Keras' Dense, BatchNormalization and Adam.

    Parameters
    ----------
    weights : gamma, beta, then weight and bias of each layer
    order : of the rows in each epoch
    """
    weights = [value.detach().clone().requires_grad_() for value in weights]
    mean, variance = torch.zeros(256, dtype=torch.float64), torch.ones(256, dtype=torch.float64)
    first = [torch.zeros_like(value) for value in weights]
    second = [torch.zeros_like(value) for value in weights]
    step, learned, validation = 0, [], []

    def error(rows, mean=None, variance=None):
        hidden = (rows @ weights[2].T + weights[3]).clamp(min=0)
        if mean is None:
            mean, variance = hidden.mean(0), (hidden - hidden.mean(0)).pow(2).mean(0)
        normed = weights[0] * (hidden - mean) / (variance + 1e-3) ** 0.5 + weights[1]
        for layer in range(4, 12, 2):
            normed = (normed @ weights[layer].T + weights[layer + 1]).clamp(min=0)
        return (normed @ weights[12].T + weights[13] - rows).pow(2).mean(), mean.detach(), variance.detach()

    for rows in order:
        losses = []
        for start in range(0, len(rows), batch_size):
            loss, batch_mean, batch_variance = error(features[~held][rows[start : start + batch_size]])
            losses.append(loss.item())
            mean, variance = (
                (1 - momentum) * old + momentum * new for old, new in ((mean, batch_mean), (variance, batch_variance))
            )
            step += 1
            rate = 1e-3 * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            for i, gradient in enumerate(torch.autograd.grad(loss, weights)):
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                with torch.no_grad():
                    weights[i] -= rate * first[i] / (second[i] ** 0.5 + 1e-7)
        learned.append(np.mean(losses))
        validation.append(error(features[held], mean, variance)[0].item())
    return learned, validation


@pytest.mark.parametrize("scale", [0.02, 2.0])  # the epsilon of Adam matters to faint features, the variance to strong
def test_training_is_that_of_keras(scale):
    torch.manual_seed(0)
    net = Autoencoder(20, momentum=0.01).double()
    features = scale * torch.rand(70, 20, dtype=torch.float64)  # 50 to learn from: the last batch has two rows
    held = torch.arange(70) % 7 < 2
    draws = torch.Generator().manual_seed(3)
    order = [torch.randperm(50, generator=draws) for _ in range(4)]
    weights = [net.norm.weight, net.norm.bias, *(value for layer in net.linear for value in layer.parameters())]
    learned, validation = keras_losses(weights, features, held, order, 16, 0.01)
    given = options(epochs=4, batch_size=16, patience=4)
    losses = rebuild(net, features, held, given, torch.Generator().manual_seed(3))
    assert [row["value"] for row in losses if row["term"] == "loss"] == pytest.approx(learned, rel=1e-9)
    assert [row["value"] for row in losses if row["term"] == "validation"] == pytest.approx(validation, rel=1e-9)


def test_halves_have_the_least_squares_within():
    rng = np.random.default_rng(0)
    for spots in (2, 3, 9, 10):
        values = rng.normal(size=spots).round(1)
        found = camlu.halves(values)

        def within(upper, values=values):
            return sum(np.square(part - part.mean()).sum() for part in (values[upper], values[~upper]))

        cuts = [values > cut for cut in np.unique(values)[:-1]]
        assert within(found) == pytest.approx(min(within(cut) for cut in cuts))
        assert values[found].min() > values[~found].max()
    assert not camlu.halves(np.ones(5)).any()
    assert not camlu.halves(np.ones(1)).any()


def test_t_statistics_are_those_of_scipy():
    residuals = planted().copy()
    residuals[:, 5] = 0.5
    group = np.arange(60) % 3 == 0
    expected = np.abs(stats.ttest_ind(np.delete(residuals[group], 5, 1), np.delete(residuals[~group], 5, 1)).statistic)
    found = camlu.t_statistics(residuals, group)
    assert found[5] == 0
    assert np.delete(found, 5) == pytest.approx(expected, rel=1e-4)


def test_groups_are_those_of_complete_linkage(monkeypatch):
    residuals = np.random.default_rng(1).random((700, 6)).astype(np.float32)  # two blocks of distances
    assert camlu._distances(residuals.astype(float)) == pytest.approx(pdist(residuals.astype(float)), abs=1e-7)
    expected = fcluster(linkage(pdist(residuals), "complete"), 2, "maxclust") == 2
    found = camlu.linked(residuals, np.arange(700))
    assert (found == expected).all() or (found == ~expected).all()


def test_spots_that_are_not_linked_join_the_nearer_group():
    residuals = planted()
    sample = np.array([0, 5, 9, 30, 45, 50])
    found = camlu.linked(residuals, sample)
    worse = np.arange(60) >= 40
    assert (found == worse).all() or (found == ~worse).all()
    means = [residuals[[45, 50]].mean(axis=0), residuals[[0, 5, 9, 30]].mean(axis=0)]
    distance = np.linalg.norm(residuals[:, None] - np.array(means), axis=2)
    assert ((found == found[45]) == (distance[:, 0] < distance[:, 1])).all()
    assert not camlu.linked(np.ones((9, 4), np.float32), np.array([0, 3, 4])).any()


@pytest.mark.parametrize("most", [5000, 20])
def test_the_genes_that_tell_the_groups_apart_are_chosen(most):
    given = options(n_features=3, max_linkage_spots=most)
    assert camlu.separating_genes(planted(), given, 0).tolist() == [3, 7, 11]
    assert camlu.separating_genes(planted(), options(rounds=0), 0).tolist() == list(range(30))


def test_groups_that_swap_their_numbers_are_settled(monkeypatch):
    rounds = []

    def swapped(residuals, sample):
        rounds.append(len(residuals))
        return np.arange(60) < 40

    monkeypatch.setattr(camlu, "linked", swapped)
    camlu.separating_genes(planted(), options(n_features=3), 0)
    assert rounds == [60]  # the first split has the last third in its upper group


def test_groups_that_never_settle_stop_after_ten_rounds(monkeypatch):
    rounds = []

    def restless(residuals, sample):
        rounds.append(len(residuals))
        return np.arange(60) % (2 + len(rounds) % 2) == 0

    monkeypatch.setattr(camlu, "linked", restless)
    camlu.separating_genes(planted(), options(), 0)
    assert len(rounds) == 10


def test_one_spot_apart_makes_no_group():
    residuals = planted()[:40]
    residuals[7] += 50
    assert camlu.separating_genes(residuals, options(n_features=3), 0).tolist() == list(range(30))
    assert camlu.separating_genes(residuals[:1], options(n_features=3), 0).tolist() == list(range(30))


def test_scores_are_the_mean_residual_over_the_genes_of_each_section(monkeypatch):
    monkeypatch.setattr(camlu, "SCORED_AT_ONCE", 11)
    view = anndata.concat([view_of(30, 20, 1, "a"), view_of(25, 20, 2, "b")])
    model = camlu.Model.fit(view_of(50, 20), options(epochs=2, n_features=4), 0)
    weights, expression = model.tensors(), view.X.toarray().astype(float)
    hidden = np.maximum(expression @ weights["linear.0.weight"].T + weights["linear.0.bias"], 0)
    hidden = (hidden - weights["norm.running_mean"]) / np.sqrt(weights["norm.running_var"] + 1e-3)
    hidden = hidden * weights["norm.weight"] + weights["norm.bias"]
    for layer in range(1, 6):
        hidden = hidden @ weights[f"linear.{layer}.weight"].T + weights[f"linear.{layer}.bias"]
        hidden = np.maximum(hidden, 0) if layer < 5 else hidden
    residuals = np.abs(expression - hidden)
    scores = model.score(view)
    for section in ("a", "b"):
        rows = (view.obs["section"] == section).to_numpy()
        genes = camlu.separating_genes(residuals[rows].astype(np.float32), options(n_features=4), 0)
        assert len(genes) == 4
        assert scores[rows] == pytest.approx(residuals[rows][:, genes].mean(axis=1), abs=1e-5)


def test_the_order_of_the_spots_changes_no_score():
    """The published label does: where its two criteria disagree, the group that holds the first spot is the novel one.

    The network is made to rebuild nothing, so that the residuals are the expression. A third of the spots is faint,
    which is the smaller residual, and unlike the reference, which is the lower correlation.
    """
    profile = np.random.default_rng(0).random(30) + 1
    target = np.abs(np.random.default_rng(1).normal(0, 0.05, (60, 30))) + profile
    target[40:] = 0.2 * profile[::-1] + np.abs(np.random.default_rng(2).normal(0, 0.01, (20, 30)))

    def published(order):
        residuals = target[order]
        group = fcluster(linkage(pdist(residuals), "complete"), 2, "maxclust")
        first = group == group[0]
        likeness = [np.corrcoef(profile, np.median(residuals[rows], axis=0))[0, 1] for rows in (first, ~first)]
        error = [residuals[rows].mean(axis=0).sum() for rows in (first, ~first)]
        swapped = likeness[0] < likeness[1] or error[0] > error[1]
        label = np.empty(60, dtype=bool)
        label[order] = first == swapped
        return label

    forward, backward = np.arange(60), np.arange(60)[::-1]
    assert (published(forward) == ~published(backward)).all()
    model = camlu.Model.fit(view_of(50, 30), options(epochs=1), 0)
    with torch.no_grad():
        for value in model.net.linear[-1].parameters():
            value.zero_()
    view = view_of(60, 30)
    view.X = sparse.csr_matrix(target.astype(np.float32))
    scores = model.score(view)
    assert model.score(view[backward])[backward] == pytest.approx(scores, rel=1e-6)
    assert scores[:40].min() > scores[40:].max()  # the larger residual, whatever the likeness


def test_training_stops_when_the_held_out_spots_get_no_better():
    model = camlu.Model.fit(view_of(120, 20), options(epochs=60, patience=3), 0)
    held = [row["value"] for row in model.losses if row["term"] == "validation"]
    assert len(held) < 60
    assert len(held) - 1 - int(np.argmin(held)) == 3
    assert [row["epoch"] for row in model.losses if row["term"] == "loss"] == list(range(1, len(held) + 1))


def test_a_group_that_the_reference_lacks_scores_higher():
    target = view_of(60, 30, seed=1)
    expression = target.X.toarray()
    expression[40:, :6] += 2
    target.X = sparse.csr_matrix(expression)
    scores = camlu.Model.fit(view_of(150, 30), options(preset="fast", n_features=6), 0).score(target)
    assert scores[40:].min() > np.quantile(scores[:40], 0.9)


def test_twenty_thousand_spots_are_scored_by_linking_some():
    view = view_of(20_000, 8)  # all pairs of spots would be 1.6 GB
    given = options(epochs=1, max_reference_spots=200, max_linkage_spots=500, n_features=4)
    scores = camlu.Model.fit(view, given, 0).score(view)
    assert scores.shape == (20_000,)
    assert np.isfinite(scores).all()


def test_a_reference_of_a_few_spots_is_refused():
    with pytest.raises(InputError, match="camlu: 9 spots of normal tissue"):
        camlu.Model.fit(view_of(9, 8), options(), 0)
