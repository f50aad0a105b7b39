"""The network of iStar and its weak supervision by spots (METHODS.md 3.7)."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from ctrflow.nets import training

WIDTH = 256
LAYERS = 4
SLOPE = 0.1  # of the LeakyReLU
FLOOR = 0.01  # alpha of the ELU, and what is added to it, so that no prediction is negative


class SuperpixelExpression(nn.Module):
    """Features of a superpixel -> expression of its genes, each in units of its range over the spots."""

    def __init__(self, inputs: int, genes: int):
        super().__init__()
        widths = [inputs] + [WIDTH] * LAYERS
        self.hidden = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(widths)])
        self.out = nn.Linear(WIDTH, genes)

    def forward(self, features: torch.Tensor, genes: torch.Tensor | None = None) -> torch.Tensor:
        """`features` (... x inputs) -> (... x genes); with `genes`, only those."""
        for linear in self.hidden:
            features = nn.functional.leaky_relu(linear(features), SLOPE)
        weight, bias = self.out.weight, self.out.bias
        if genes is not None:
            weight, bias = weight[genes], bias[genes]
        return nn.functional.elu(nn.functional.linear(features, weight, bias), FLOOR) + FLOOR


def train(
    features: torch.Tensor, inside: torch.Tensor, weights: torch.Tensor, expression: torch.Tensor, options: dict,
    generator: torch.Generator, stage: str, losses: list[dict],
) -> SuperpixelExpression:  # fmt: skip
    """A network trained so that its mean prediction over the superpixels of a spot is the spot's expression.

    Parameters
    ----------
    features : superpixels x inputs
    inside : spots x most superpixels of a spot, rows of `features`
    weights : as `inside`; sum to 1 in each spot, 0 where it has fewer
    expression : spots x genes, 0 to 1 for each gene
    generator : for the order of the spots; weights are drawn from torch's own
    """
    net = SuperpixelExpression(features.shape[1], expression.shape[1]).to(features.device)
    optimiser = torch.optim.Adam(net.parameters(), lr=options["learning_rate"])
    n = len(inside)
    size = max(2, min(options["batch_size"], n // 16))
    order = training.orders(n, options["epochs"], generator, features.device)
    for rows, taken in training.epochs(order, stage, losses):
        for batch in training.batches(rows, size):
            predicted = net(features[inside[batch]])
            mean = (weights[batch].unsqueeze(1) @ predicted).squeeze(1)
            training.descend(optimiser, (mean - expression[batch]).square().mean(), {}, taken)
    return net.eval()


def predict(nets: list, features: torch.Tensor, genes: torch.Tensor, at_once: int) -> np.ndarray:
    """Median of the networks' predictions, superpixels x genes float32; computed `at_once` superpixels at a time."""
    with torch.inference_mode():
        return np.concatenate(
            [np.median([net(chunk, genes).cpu().numpy() for net in nets], axis=0) for chunk in features.split(at_once)]
        )
