"""Graph convolution against dense products and numbers worked by hand."""

import numpy as np
import pytest
import torch
from scipy import sparse

from ctrflow.nets.graph_convolution import GraphConvolution, as_tensor, normalised, normalised_matrix

PATH = sparse.csr_matrix(np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.float32))


def test_normalised_by_the_degrees_with_the_spot_itself():
    # degrees of A + I along a path of three, and of a spot alone: 2, 3, 2, 1
    side = 6**-0.5
    expected = [[1 / 2, side, 0, 0], [side, 1 / 3, side, 0], [0, side, 1 / 2, 0], [0, 0, 0, 1]]
    assert normalised_matrix(PATH).toarray() == pytest.approx(np.array(expected))
    found = normalised(PATH)
    assert found.is_sparse
    assert found.dtype == torch.float32
    assert found.to_dense().numpy() == pytest.approx(np.array(expected))


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 5), (5, 2), (3, 3)])
def test_sum_over_neighbours_of_the_linear_map_whichever_comes_first(inputs, outputs):
    torch.manual_seed(0)
    layer = GraphConvolution(inputs, outputs)
    torch.nn.init.normal_(layer.bias)
    features, adjacency = torch.randn(4, inputs), normalised(PATH)
    found = layer(features, adjacency)
    expected = adjacency.to_dense() @ (features @ layer.weight.T) + layer.bias
    assert torch.allclose(found, expected, atol=1e-6)
    slopes = [
        torch.autograd.grad(result.square().sum(), [layer.weight, layer.bias], retain_graph=True)
        for result in (found, expected)
    ]
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(*slopes, strict=True))


def test_some_rows_of_the_adjacency_give_these_spots():
    layer, features, matrix = GraphConvolution(3, 6), torch.randn(4, 3), normalised_matrix(PATH)
    rows = np.array([2, 0])
    assert torch.allclose(layer(features, as_tensor(matrix[rows])), layer(features, as_tensor(matrix))[rows], atol=1e-6)


def test_weights_start_as_xavier_and_the_bias_at_zero():
    torch.manual_seed(0)
    layer = GraphConvolution(300, 100)
    bound = (6 / 400) ** 0.5
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert not layer.bias.any()
    assert sum(value.numel() for value in layer.parameters()) == 30_100
    assert sum(value.numel() for value in GraphConvolution(300, 100, bias=False).parameters()) == 30_000
