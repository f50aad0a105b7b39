"""Graph convolution over the spots of sections (METHODS.md 3.5 and 3.12)."""

import numpy as np
import torch
from torch import nn


class GraphConvolution(nn.Module):
    """A linear map of every spot, then the weighted sum over the spot and its neighbours, then a bias.

    Kipf and Welling's layer: weights (inputs x outputs) start as Xavier uniform, the bias at zero.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.xavier_uniform_(self.weight)

    def forward(self, features: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """`features` (spots x inputs), `adjacency` (spots x spots), sparse (see `normalised`) -> (spots x outputs).

        The sum over neighbours is taken where rows are shorter: the same product in another order.
        """
        outputs, inputs = self.weight.shape
        if inputs < outputs:
            summed = torch.sparse.mm(adjacency, features) @ self.weight.T
        else:
            summed = torch.sparse.mm(adjacency, features @ self.weight.T)
        return summed if self.bias is None else summed + self.bias


def normalised(graph) -> torch.Tensor:
    """D^-1/2 (A + I) D^-1/2 of a graph, D the degrees of A + I: float32 sparse COO (spots x spots), coalesced.

    Parameters
    ----------
    graph : SciPy CSR (spots x spots) without self-loops: a row has what its spot reads from the others, and its sum is
        the degree (see `neighbours.spot_graph`)
    """
    return as_tensor(normalised_matrix(graph))


def normalised_matrix(graph):
    """`normalised` as SciPy CSR float64."""
    from scipy import sparse

    looped = sparse.csr_matrix(graph, dtype=np.float64) + sparse.identity(graph.shape[0], format="csr")
    scale = sparse.diags(1 / np.sqrt(np.asarray(looped.sum(axis=1)).ravel()))
    return (scale @ looped @ scale).tocsr()


def as_tensor(matrix) -> torch.Tensor:
    """A SciPy sparse matrix as float32 sparse COO, coalesced."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    entries = matrix.tocoo()
    indices = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data.astype(np.float32))
    return torch.sparse_coo_tensor(indices, values, entries.shape, is_coalesced=True, check_invariants=False)
