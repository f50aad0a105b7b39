"""GATv2 against a computation edge by edge, and its invariances."""

import numpy as np
import pytest
import torch

from ctrflow.nets.graph_attention import GATv2, softmax_over

# a small directed graph with self-loops; row 4 has only its self-loop, row 5 no incoming edge
EDGES = torch.tensor([[0, 1, 2, 1, 0, 2, 3, 3, 4, 5], [0, 0, 0, 1, 1, 2, 2, 3, 4, 3]])


@pytest.fixture
def features():
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def layer():
    torch.manual_seed(1)
    return GATv2(5, 3, 2, 0.2, 0.1).eval()


def by_loop(layer, features, edges, slope):
    """Row by row and head by head, in NumPy."""
    heads, width = layer.attention.shape
    numbers = {name: value.detach().double().numpy() for name, value in layer.state_dict().items()}
    rows = features.double().numpy()
    source = rows @ numbers["source.weight"].T + numbers["source.bias"]
    target = rows @ numbers["target.weight"].T + numbers["target.bias"]
    out = np.zeros((len(rows), heads * width))
    for row in range(len(rows)):
        senders = [int(s) for s, t in edges.T if t == row]
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = []
            for sender in senders:
                mixed = source[sender, part] + target[row, part]
                scores.append(numbers["attention"][head] @ np.where(mixed > 0, mixed, slope * mixed))
            powers = np.exp(scores)
            for sender, power in zip(senders, powers, strict=True):
                out[row, part] += power / powers.sum() * source[sender, part]
    return out


@pytest.mark.parametrize("slope", [0.2, 0.01])
def test_it_is_the_sum_over_edges(layer, features, slope):
    layer.slope = slope
    with torch.no_grad():  # biases start at 0, which would hide a missing one
        layer.source.bias.normal_()
        layer.target.bias.normal_()
    expected = by_loop(layer, features, EDGES.numpy(), slope)
    found = layer(features, EDGES).detach().numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.abs(expected[:5]).min() > 0
    assert (found[5] == 0).all()


def test_a_lone_self_loop_gives_the_rows_own_message(layer, features):
    assert layer(features, EDGES)[4].tolist() == pytest.approx(layer.source(features)[4].tolist(), abs=1e-6)


def test_the_order_of_edges_does_not_matter(layer, features):
    assert torch.allclose(layer(features, EDGES.flip(1)), layer(features, EDGES), atol=1e-6)


def test_only_the_target_rows(layer, features):
    onto = torch.tensor([2, 0])
    met = (EDGES[1] == 2) | (EDGES[1] == 0)
    local = torch.stack([EDGES[0, met], (EDGES[1, met] == 0).long()])
    assert torch.allclose(layer(features, local, onto), layer(features, EDGES)[onto], atol=1e-6)


def test_weights_over_a_target_sum_to_one_and_large_scores_do_not_overflow():
    scores = torch.tensor([[1000.0], [999.0], [-2000.0], [5.0]])
    weights = softmax_over(scores, torch.tensor([0, 0, 0, 2]), 3).squeeze(1)
    assert weights.tolist() == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0.0, 1.0])


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(2)
    layer = GATv2(3, 2, 2).double()
    rows = torch.randn(6, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: layer(rows, EDGES), rows)


def test_the_same_twice_with_dropout(layer, features):
    layer.train()
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(layer(features, EDGES))
    assert torch.equal(*found)
    assert not torch.allclose(found[0], layer.eval()(features, EDGES))


def test_parameters_of_the_card():
    # METHODS.md 2.4: the 272 -> 256 layer of two heads, and the gene decoder's 256 -> 3000 of four
    with torch.device("meta"):
        small, large = GATv2(272, 256, 2), GATv2(256, 3000, 4)
    assert sum(weight.numel() for weight in small.parameters()) == 2 * (272 * 512 + 512) + 512
    assert sum(weight.numel() for weight in large.parameters()) == 2 * (256 * 12000 + 12000) + 12000
