"""The graph autoencoder of DOMINANT and its two errors (METHODS.md 3.12)."""

import torch
from torch import nn

from ctrflow.nets.graph_convolution import GraphConvolution

LEAST = 1e-12  # lower limit of a squared error: the root has no gradient at 0


class GraphAutoencoder(nn.Module):
    """Expression -> two graph convolutions -> code; back to expression by two, and to the graph by one.

    ReLU only between the two layers of the encoder and of the expression decoder.
    """

    def __init__(self, genes: int, width: int):
        super().__init__()
        self.encoder = nn.ModuleList([GraphConvolution(genes, width), GraphConvolution(width, width)])
        self.expression = nn.ModuleList([GraphConvolution(width, width), GraphConvolution(width, genes)])
        self.structure = GraphConvolution(width, width)

    def forward(self, features: torch.Tensor, adjacency: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden values of both decoders, (spots x width) each: of the expression, and Z of Z Z^T.

        `features` (spots x genes), `adjacency` (spots x spots) of one section, sparse and normalised.
        """
        code = self.encoder[1](torch.relu(self.encoder[0](features, adjacency)), adjacency)
        return torch.relu(self.expression[0](code, adjacency)), self.structure(code, adjacency)

    def rebuilt(self, hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Expression of some spots: `rows` are their rows of the adjacency (some x spots) -> (some x genes)."""
        return self.expression[1](hidden, rows)


def expression_error(features: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
    """||x - x'|| of each spot."""
    return (features - rebuilt).square().sum(dim=1).clamp_min(LEAST).sqrt()


def structure_error(z: torch.Tensor, graph: torch.Tensor) -> torch.Tensor:
    """||A_i - (Z Z^T)_i|| of each spot, without the matrix of all pairs of spots.

    The square is z_i^T (Z^T Z) z_i - 2 sum over the neighbours of z_i . z_j + the number of neighbours: exact, as A is
    0 and 1, and linear in spots.

    Parameters
    ----------
    z : (spots x width)
    graph : A, sparse (spots x spots), of the type of `z`
    """
    all_pairs = ((z @ (z.T @ z)) * z).sum(dim=1)
    near = (torch.sparse.mm(graph, z) * z).sum(dim=1)
    degrees = torch.sparse.mm(graph, torch.ones_like(z[:, :1])).squeeze(1)
    return (all_pairs - 2 * near + degrees).clamp_min(LEAST).sqrt()
