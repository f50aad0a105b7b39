"""DOMINANT against its dense textbook form."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features.learned_from import capped
from ctrflow.features.neighbours import spot_graph
from ctrflow.methods import dominant
from ctrflow.nets import training
from ctrflow.nets.dominant import GraphAutoencoder, structure_error
from ctrflow.nets.graph_convolution import as_tensor


def view_of(sections, spots, genes, seed=0):
    """Poisson genes on square grids."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(spots**0.5))
    grid = np.array([(i % side, i // side) for i in range(spots)], dtype=float)
    expression = sparse.csr_matrix(np.log1p(rng.poisson(1.0, (sections * spots, genes))).astype(np.float32))
    obs = pd.DataFrame({"section": np.repeat([f"s{i}" for i in range(sections)], spots)})
    obs.index = [f"x{i}" for i in range(len(obs))]
    return anndata.AnnData(expression, obs=obs, obsm={"spatial": np.tile(grid, (sections, 1))})


def options(**given):
    return methods.resolve_options(dominant.SPEC, given)


def relu(rows):
    return np.maximum(rows, 0)


def dense_errors(weights, view, neighbours=6):
    """Both errors of each spot of one section, by dense matrices and loops."""
    a = spot_graph(view.obsm["spatial"], view.obs["section"].to_numpy(), neighbours).toarray().astype(float)
    looped = a + np.eye(len(a))
    scale = np.diag(looped.sum(axis=1) ** -0.5)
    step = scale @ looped @ scale

    def layer(rows, name):
        return step @ rows @ weights[f"{name}.weight"].T.astype(float) + weights[f"{name}.bias"]

    x = view.X.toarray().astype(float)
    code = layer(relu(layer(x, "encoder.0")), "encoder.1")
    rebuilt = layer(relu(layer(code, "expression.0")), "expression.1")
    z = layer(code, "structure")
    links = [np.linalg.norm(a[i] - z @ z[i]) for i in range(len(a))]
    return np.linalg.norm(x - rebuilt, axis=1), np.array(links)


def test_parameters_at_3000_genes():
    net = GraphAutoencoder(3000, 64)
    # encoder 3000-64-64, expression 64-64-3000, structure 64-64, each with biases
    expected = (3000 * 64 + 64) + (64 * 64 + 64) + (64 * 64 + 64) + (64 * 3000 + 3000) + (64 * 64 + 64)
    assert sum(value.numel() for value in net.parameters()) == expected == 399_544


def test_the_error_of_links_and_its_slope_are_those_of_the_dense_form():
    torch.manual_seed(0)
    view = view_of(1, 40, 3)
    graph = as_tensor(spot_graph(view.obsm["spatial"], np.zeros(40), 6)).double()
    z = torch.randn(40, 5, dtype=torch.float64, requires_grad=True)
    dense = torch.linalg.vector_norm(graph.to_dense() - z @ z.T, dim=1)
    found = structure_error(z, graph)
    assert torch.allclose(found, dense, atol=1e-10)
    slopes = [torch.autograd.grad(error.sum(), z)[0] for error in (found, dense)]
    assert torch.allclose(*slopes, atol=1e-10)


def test_links_rebuilt_exactly_have_no_error_and_a_finite_slope():
    graph = as_tensor(sparse.csr_matrix(np.array([[0.0, 1.0], [1.0, 0.0]]))).double()
    # Z Z^T of unit vectors at right angles has 1 on the diagonal and 0 beside it: both links are missed, and both spots
    # are linked with themselves
    assert structure_error(torch.eye(2, dtype=torch.float64), graph).numpy() == pytest.approx([2**0.5] * 2)
    z = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    error = structure_error(z, as_tensor(sparse.csr_matrix((2, 2))).double())
    assert error.max() <= 1e-6
    assert torch.isfinite(torch.autograd.grad(error.sum(), z)[0]).all()


@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_scores_are_the_weighted_dense_errors_section_by_section(weight, monkeypatch):
    monkeypatch.setattr(dominant, "SCORED_AT_ONCE", 17)
    view = view_of(2, 45, 12)
    model = dominant.Model.fit(view, options(epochs=3, weight=weight), 0)
    found = model.score(view)
    for section in ("s0", "s1"):
        rows = (view.obs["section"] == section).to_numpy()
        expression, links = dense_errors(model.tensors(), view[rows])
        assert found[rows] == pytest.approx(weight * expression + (1 - weight) * links, rel=1e-4)


def test_the_loss_is_the_score_of_the_spots_learned_from_and_the_others_stay_in_the_graph():
    view = view_of(1, 50, 12)
    given = options(epochs=1, max_reference_spots=20)
    model = dominant.Model.fit(view, given, 3)
    training.start(3)
    start = training.to_numpy(GraphAutoencoder(12, 64))  # the weights before the only step
    expression, links = (error[capped(50, 20, 3)].mean() for error in dense_errors(start, view))
    values = {row["term"]: row["value"] for row in model.losses}
    assert values == pytest.approx(
        {"loss": (expression + links) / 2, "expression": expression, "structure": links}, rel=1e-4
    )


def dense_loss(net, view, neighbours=6):
    """The mean loss of all spots of several sections, as one dense graph; pairs across sections are no pair."""
    sections = view.obs["section"].to_numpy()
    a = torch.from_numpy(spot_graph(view.obsm["spatial"], sections, neighbours).toarray())
    looped = a + torch.eye(len(a))
    step = looped / torch.sqrt(torch.outer(looped.sum(dim=1), looped.sum(dim=1)))

    def layer(rows, part):
        return torch.nn.functional.linear(step @ rows, part.weight) + part.bias

    x = torch.from_numpy(view.X.toarray())
    code = layer(layer(x, net.encoder[0]).clamp_min(0), net.encoder[1])
    rebuilt = layer(layer(code, net.expression[0]).clamp_min(0), net.expression[1])
    z = layer(code, net.structure)
    same = torch.from_numpy(sections[:, None] == sections[None])
    links = torch.linalg.vector_norm(torch.where(same, a - z @ z.T, 0), dim=1)
    return (torch.linalg.vector_norm(x - rebuilt, dim=1) / 2 + links / 2).mean()


def test_an_epoch_is_one_step_down_the_mean_over_the_spots_of_all_sections():
    view = view_of(3, 40, 8)
    view = view[np.r_[:40, 40:55, 80:110]].copy()  # of 40, 15 and 30 spots: the mean of means is another number
    model = dominant.Model.fit(view, options(epochs=3), 5)
    training.start(5)
    net = GraphAutoencoder(8, 64)
    optimiser = torch.optim.Adam(net.parameters(), lr=4e-3)
    expected = []
    for _ in range(3):
        loss = dense_loss(net, view)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        expected.append(loss.item())
    assert [row["value"] for row in model.losses if row["term"] == "loss"] == pytest.approx(expected, rel=1e-5)
    for name, value in training.to_numpy(net).items():
        np.testing.assert_allclose(model.tensors()[name], value, atol=1e-4)
    terms = {row["term"]: row["value"] for row in model.losses if row["epoch"] == 3}
    assert terms["loss"] == pytest.approx((terms["expression"] + terms["structure"]) / 2, rel=1e-5)


def test_the_option_scaling_reads_z_scores_of_the_reference():
    train, target = view_of(2, 30, 6), view_of(1, 30, 6, seed=1)
    genes = train.X.toarray()
    genes[:, 0] *= 50  # a gene that would be most of the error
    genes[:, 5] = 2  # without variation
    train.X = sparse.csr_matrix(genes)
    scaled = [view.copy() for view in (train, target)]
    mean, sd = genes.mean(axis=0), genes.std(axis=0)
    sd[5] = 1
    for view in scaled:
        view.X = sparse.csr_matrix((view.X.toarray() - mean) / sd)
    given = options(epochs=3, scaling="reference")
    found = dominant.Model.fit(train, given, 0).score(target)
    as_given = dominant.Model.fit(scaled[0], options(epochs=3), 0).score(scaled[1])
    np.testing.assert_allclose(found, as_given, rtol=1e-4)
    assert not np.allclose(found, dominant.Model.fit(train, options(epochs=3), 0).score(target), rtol=1e-2)


def test_expression_unlike_the_reference_scores_higher():
    train, target = view_of(2, 64, 30), view_of(1, 64, 30, seed=1)
    expression = target.X.toarray()
    expression[40:] = expression[40:][:, ::-1] + 2 * (np.arange(30) < 10)
    target.X = sparse.csr_matrix(expression)
    scores = dominant.Model.fit(train, options(preset="fast"), 0).score(target)
    assert scores[40:].min() > np.median(scores[:40])


def test_twenty_thousand_spots_are_learned_and_scored_without_the_dense_graph():
    view = view_of(1, 20_000, 4)  # all pairs of spots would be 1.6 GB
    model = dominant.Model.fit(view, options(epochs=1, width=8), 0)
    scores = model.score(view)
    assert scores.shape == (20_000,)
    assert np.isfinite(scores).all()


def test_one_spot_makes_no_graph():
    with pytest.raises(InputError, match="dominant: 1 spot of normal tissue"):
        dominant.Model.fit(view_of(1, 1, 8), options(), 0)
