"""Spatial-ID: its classes, its two networks and losses, and the effect of a section's graph."""

import math

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import expit, rel_entr, softmax
from scipy.stats import norm

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import spatial_id
from ctrflow.nets import spatial_id as net
from ctrflow.nets.graph_convolution import normalised

GRID = np.array([(i % 8, i // 8) for i in range(48)], dtype=float) * 100
PROFILES = np.random.default_rng(9).gamma(0.4, 1.0, (4, 40)) + 0.02  # three normal tissues and a cancer


def section(name: str, seed: int, cancer: bool = False):
    """Normal tissues in bands; cancer on the right half."""
    rng = np.random.default_rng(seed)
    kind = (GRID[:, 1] // 200).astype(int)
    truth = (GRID[:, 0] >= 400) & cancer
    kind[truth] = 3
    rates = PROFILES[kind] / PROFILES[kind].sum(axis=1, keepdims=True)
    counts = rng.poisson(rates * 2000).astype(np.float32)
    genes = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    obs = pd.DataFrame({"section": name, "truth": truth}, index=[f"{name}{i}" for i in range(48)])
    return anndata.AnnData(
        sparse.csr_matrix(genes), obs=obs, obsm={"spatial": GRID.copy()}, layers={"counts": sparse.csr_matrix(counts)}
    )


def options(**given):
    return methods.resolve_options(spatial_id.SPEC, {"preset": "fast"} | given)


@pytest.fixture(scope="module")
def reference():
    return anndata.concat([section("a", 0), section("b", 1)])


@pytest.fixture(scope="module")
def model(reference):
    return spatial_id.Model.fit(reference, options(), 0)


def test_parameter_counts():
    def count(built):
        return sum(value.numel() for value in built.parameters())

    # 3000 -> 1024 -> 512 -> 512 -> 10
    assert count(net.Classifier(3000, 10)) == 3_073_024 + 524_800 + 262_656 + 5_130
    built = net.SectionNet(3000, 10)
    assert count(built.encoder) == 300_100 + 200 + 2_020 + 40
    assert count(built.hidden) + count(built.mean) + count(built.log_sd) == 672 + 264 + 264
    assert count(built.expression_head) == 1_856 + 195_000
    assert count(built.edge_head) == 1_856
    assert count(built.classifier) == 290


def test_the_logits_have_no_gelu_but_dropout():
    torch.manual_seed(0)
    built = net.Classifier(5, 30).eval()
    torch.nn.init.normal_(built.layers[-1].bias)
    profiles = torch.rand(4, 5)
    value = profiles.numpy()
    for i, layer in enumerate(built.layers):
        value = value @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        value = value * norm.cdf(value) if i < 3 else value  # GELU is x times the chance of a Gaussian below x
    assert value.min() < -0.17  # the least value of a GELU
    np.testing.assert_allclose(built(profiles).detach(), value, atol=1e-6)
    assert 0.3 < (built.train()(profiles) == 0).float().mean() < 0.7


def test_focal_loss_by_hand():
    logits = torch.log(torch.tensor([[0.8, 0.2], [0.4, 0.6]]))
    # true classes 0 and 0: p = 0.8 and 0.4
    expected = -0.25 * (0.2**2 * math.log(0.8) + 0.6**2 * math.log(0.4)) / 2
    assert float(net.focal_loss(logits, torch.tensor([0, 0]))) == pytest.approx(expected)


def test_class_divergence_is_the_kl_of_scipy():
    rng = np.random.default_rng(0)
    pseudo, logits = softmax(rng.normal(size=(5, 3)), axis=1), rng.normal(size=(5, 3))
    expected = rel_entr(pseudo, softmax(logits, axis=1)).mean()  # over spots and classes
    assert float(net.class_divergence(torch.tensor(logits), torch.tensor(pseudo))) == pytest.approx(expected)


def test_edge_loss_on_all_directed_edges():
    rng = np.random.default_rng(0)
    code = rng.normal(size=(4, 3))
    weights = {(0, 1): 0.5, (1, 3): 0.2, (3, 1): 0.2}
    targets = [(*pair, w) for pair, w in weights.items()] + [(i, i, 1.0) for i in range(4)]
    p = [(expit(code[i] @ code[j]), w) for i, j, w in targets]
    expected = -np.mean([w * np.log(q) + (1 - w) * np.log(1 - q) for q, w in p])
    pairs = torch.tensor(list(weights)).T
    none = torch.zeros(2, 0, dtype=torch.long)
    given = torch.tensor(code), pairs, torch.tensor(list(weights.values()), dtype=torch.float64)
    assert float(net.edge_loss(*given, none)) == pytest.approx(expected)
    away = -np.log(1 - expit(code[0] @ code[2]))
    assert float(net.edge_loss(*given, torch.tensor([[0], [2]]))) == pytest.approx(expected + away)


def test_latent_divergence_by_hand():
    mean, log_sd = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, math.log(2)], [0.0, 0.0]])
    # spot 1: 1/2 + (4 - 1)/2 - ln 2; spot 2: 0
    assert float(net.latent_divergence(mean, log_sd)) == pytest.approx((2 - math.log(2)) / 2)


def test_unlinked_pairs_are_neither_edges_nor_loops():
    graph = spatial_id.weighted_graph(GRID, 4).tocoo()
    linked = torch.from_numpy((graph.row * 48 + graph.col).astype(np.int64))
    found = net.unlinked_pairs(48, linked, 6000, torch.Generator().manual_seed(0)).numpy()
    edges = set(zip(graph.row, graph.col, strict=True))
    pairs = set(map(tuple, found.T))
    assert not pairs & edges
    assert pairs & {(j, i) for i, j in edges}  # an edge of one direction only
    assert all(i != j for i, j in pairs)
    assert len(pairs) > 0.7 * (48 * 47 - len(edges))  # and they cover most of the others


def test_a_complete_graph_has_no_unlinked_pair():
    linked = torch.tensor([first * 3 + second for first in range(3) for second in range(3) if first != second])
    assert net.unlinked_pairs(3, linked, 50, torch.Generator().manual_seed(0)).shape == (2, 0)
    assert net.unlinked_pairs(3, linked[:0], 50, torch.Generator().manual_seed(0)).shape[1] > 20


def test_edges_come_from_the_nearest_and_weigh_less_the_longer_they_are():
    found = spatial_id.weighted_graph(np.array([(0.0, 0), (1, 0), (3, 0), (7, 0)]), 1).toarray()
    # to 0 from 1, to 1 from 0, to 2 from 1 (2 away), to 3 from 2 (4 away, the longest)
    expected = np.zeros((4, 4))
    expected[[0, 1, 2], [1, 0, 1]] = [0.75, 0.75, 0.5]
    np.testing.assert_allclose(found, expected)
    assert spatial_id.weighted_graph(np.zeros((3, 2)), 2).toarray().tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_thirty_nearest_with_the_spot_itself_and_all_others_of_a_small_section():
    graph = spatial_id.weighted_graph(GRID, options()["neighbours"])
    distance = np.linalg.norm(GRID[:, None] - GRID[None], axis=2)
    assert (np.diff(graph.indptr) + 1 == 30).all()
    for spot in range(48):
        own = distance[spot, graph.indices[graph.indptr[spot] : graph.indptr[spot + 1]]]
        np.testing.assert_allclose(np.sort(own), np.sort(distance[spot])[1:30])
    assert spatial_id.weighted_graph(GRID[:5], options()["neighbours"]).nnz == 20


def test_step_2_ends_at_its_rate_and_is_evaluated_with_running_statistics(monkeypatch):
    kept = {}

    class Kept(net.SectionNet):
        def __init__(self, *widths):
            super().__init__(*widths)
            kept["net"] = self

    class Adam(torch.optim.Adam):
        def __init__(self, weights, **given):
            super().__init__(weights, **given)
            kept["optimiser"] = self

    monkeypatch.setattr(net, "SectionNet", Kept)
    monkeypatch.setattr(torch.optim, "Adam", Adam)
    graph = spatial_id.weighted_graph(GRID, 5)
    genes = torch.randn(48, 12, generator=torch.Generator().manual_seed(0)) * 3 + 1
    given = genes, genes[:, :3], graph, normalised(graph)
    found = net.classify_section(*given, options(epochs_section=4), 0)
    assert kept["optimiser"].param_groups[0]["lr"] == 0.01  # the repository's schedule multiplies it by 1
    first = kept["net"].encoder[:2]
    linear = genes @ first[0].weight.T + first[0].bias
    expected = (linear - first[1].running_mean) / torch.sqrt(first[1].running_var + 1e-3)
    expected = expected * first[1].weight + first[1].bias
    np.testing.assert_allclose(first(genes).detach(), expected.detach(), atol=1e-4)
    code = kept["net"].encode(genes, given[3])[0]
    np.testing.assert_allclose(found, torch.softmax(kept["net"].classifier(code), dim=1).detach(), atol=1e-6)


def test_the_code_on_a_dense_graph():
    torch.manual_seed(0)
    built = net.SectionNet(6, 3).eval()
    graph = spatial_id.weighted_graph(GRID[:10], 3)
    genes = torch.rand(10, 6)
    code, mean, log_sd = (value.detach().numpy() for value in built.encode(genes, normalised(graph)))
    looped = graph.toarray() + np.eye(10)
    scale = 1 / np.sqrt(looped.sum(axis=1))
    adjacency = scale[:, None] * looped * scale
    own = built.encoder(genes).detach().numpy()

    def layer(part, rows):
        return adjacency @ rows @ part.weight.detach().numpy().T + part.bias.detach().numpy()

    hidden = np.maximum(layer(built.hidden, own), 0)
    np.testing.assert_allclose(mean, layer(built.mean, hidden), atol=1e-5)
    np.testing.assert_allclose(log_sd, layer(built.log_sd, hidden), atol=1e-5)
    np.testing.assert_allclose(code, np.hstack([own, mean]), atol=1e-6)
    drawn = built.encode(genes, normalised(graph), torch.ones(10, 8))[0].detach().numpy()
    np.testing.assert_allclose(drawn[:, 20:], mean + np.exp(log_sd), atol=1e-5)


def test_the_epoch_of_lowest_training_loss_is_kept():
    profiles, classes = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2

    def trained(epochs):
        torch.manual_seed(0)
        built = net.Classifier(6, 2)
        given = {"epochs": epochs, "learning_rate": 3e-3, "batch_size": 8}
        return built, net.train_classifier(built, profiles, classes, given, 0)

    full, losses = trained(12)
    best = int(np.argmin([row["value"] for row in losses]))
    assert best < 11  # or the last epoch would do
    until = trained(best + 1)[0]
    for first, second in zip(full.parameters(), until.parameters(), strict=True):
        assert torch.equal(first, second)


def test_profiles_are_counts_of_unit_length():
    counts = sparse.csr_matrix(np.array([[3.0, 4.0], [0, 0], [0, 2]]))
    np.testing.assert_allclose(spatial_id._profiles(counts, "counts"), [[0.6, 0.8], [0, 0], [0, 1]], rtol=1e-6)
    logs = np.log([4, 5]) / np.hypot(*np.log([4, 5]))
    np.testing.assert_allclose(spatial_id._profiles(counts, "log"), [logs, [0, 0], [0, 1]], rtol=1e-6)


def test_classes_are_tissues_and_not_sections(reference):
    shifted = reference.copy()
    offset = (shifted.obs["section"] == "b").to_numpy(dtype=np.float32)[:, None] * np.linspace(
        0, 3, 40, dtype=np.float32
    )
    shifted.X = sparse.csr_matrix(shifted.X.toarray() + offset)
    found = spatial_id.reference_classes(shifted)
    tissue = np.tile((GRID[:, 1] // 200).astype(int), 2)
    assert len(set(zip(tissue, found, strict=True))) == len(set(tissue)) == len(set(found)) == 3


def test_cell_types_are_the_classes_where_there_are_some(reference):
    typed = reference.copy()
    typed.obs["cell_type"] = pd.Categorical(np.where(np.arange(96) % 4, "stroma", "epithelium"))
    np.testing.assert_array_equal(spatial_id.reference_classes(typed), (np.arange(96) % 4 > 0).astype(int))
    typed.obs["cell_type"] = "stroma"
    with pytest.raises(
        InputError, match=r"cell_type of the normal sections a, b has only `stroma`; .* at least 2 kinds"
    ):
        spatial_id.reference_classes(typed)
    typed.obs["cell_type"] = np.where(np.arange(96) < 3, None, "stroma")
    with pytest.raises(InputError, match="has 3 spots without one"):
        spatial_id.reference_classes(typed)


def test_a_reference_of_one_kind_is_refused(reference):
    with pytest.raises(InputError, match="the 1 normal spots of a are all of one kind"):
        spatial_id.Model.fit(reference[:1], options(), 0)


def test_cancer_scores_higher_than_any_normal_tissue(model):
    target = section("t", 2, cancer=True)
    found, truth = model.score(target), target.obs["truth"].to_numpy()
    inside = truth & (GRID[:, 0] > 400)
    assert np.median(found[inside]) > np.quantile(found[~truth], 0.9)
    assert found.min() >= 0
    assert found.max() <= 1 - 1 / 3


def test_sections_are_scored_each_by_itself_and_the_same_twice(model):
    first, second = section("t", 2, cancer=True), section("u", 3)
    alone = model.score(first)
    np.testing.assert_array_equal(model.score(anndata.concat([second, first]))[48:], alone)
    again = spatial_id.Model.from_tensors(model.tensors(), model.options, 0)
    np.testing.assert_array_equal(again.score(first), alone)
    assert (spatial_id.Model.from_tensors(model.tensors(), model.options, 1).score(first) != alone).any()


def test_a_single_spot_keeps_the_probabilities_of_step_1(model):
    spot = section("t", 2)[5]
    with torch.no_grad():
        logits = model.net.eval()(torch.from_numpy(spatial_id._profiles(spot.layers["counts"], "counts"))).numpy()
    assert model.score(spot) == pytest.approx(1 - softmax(logits, axis=1).max(), rel=1e-5)


def test_step_2_reads_components_with_the_option():
    target = section("t", 2)
    plain, reduced = (spatial_id._standardised(target, count, 0) for count in (0, 5))
    assert plain.mean(axis=0) == pytest.approx(np.zeros(40), abs=1e-5)
    assert reduced.shape == (48, 5)
    values = np.linalg.svd(plain - plain.mean(axis=0), compute_uv=False)[:5]
    assert np.linalg.norm(reduced, axis=0) == pytest.approx(values, rel=1e-2)


def test_a_cap_on_the_reference(reference):
    first, second = (spatial_id.Model.fit(reference, options(max_reference_spots=n, epochs=2), 0) for n in (60, 96))
    assert any((first.tensors()[name] != value).any() for name, value in second.tensors().items() if value.ndim == 2)
