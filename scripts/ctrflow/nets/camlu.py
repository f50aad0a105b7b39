"""The autoencoder of CAMLU and its training (METHODS.md 3.15)."""

import logging
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import training

logger = logging.getLogger(__name__)

WIDTHS = (256, 128, 64, 128, 256)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation with Keras' running variance: that of the batch, of which torch takes n / (n - 1)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` (rows x width) -> the same normalised: by the batch, in evaluation by the running statistics."""
        if not self.training:
            return super().forward(features)
        with torch.no_grad():
            self.running_mean.lerp_(features.mean(dim=0), self.momentum)
            self.running_var.lerp_(features.var(dim=0, correction=0), self.momentum)
        return F.batch_norm(features, None, None, self.weight, self.bias, training=True, eps=self.eps)


class Autoencoder(nn.Module):
    """Genes -> 256 -> 128 -> 64 -> 128 -> 256 -> genes; ReLU after each but the last, BatchNorm after the first ReLU.

    As in Keras it starts from Glorot uniform weights and biases of 0, and the epsilon of BatchNorm is 1e-3. `momentum`
    is the share of its running statistics that a batch replaces.
    """

    def __init__(self, genes: int, momentum: float = 0.1):
        super().__init__()
        self.linear = nn.ModuleList([nn.Linear(*sizes) for sizes in pairwise((genes, *WIDTHS, genes))])
        self.norm = BatchNorm(WIDTHS[0], eps=1e-3, momentum=momentum)
        for linear in self.linear:
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` (rows x genes) -> the same rebuilt."""
        hidden = self.norm(torch.relu(self.linear[0](features)))
        for linear in self.linear[1:-1]:
            hidden = torch.relu(linear(hidden))
        return self.linear[-1](hidden)


def rebuild(
    net: Autoencoder, features: torch.Tensor, held: torch.Tensor, options: dict, generator: torch.Generator
) -> list[dict]:
    """Train until the loss on held-out rows has not fallen for `patience` epochs; the last weights are kept.

    Parameters
    ----------
    features : (rows x genes), on the device of the net
    held : (rows,) bool, the held-out rows

    Returns
    -------
    the losses of each epoch: "loss", and "validation" of the held-out rows.
    """
    losses: list[dict] = []
    learned = torch.nonzero(~held).squeeze(1)
    optimiser = torch.optim.Adam(net.parameters(), lr=options["learning_rate"])
    lowest, waited, steps = float("inf"), 0, 0
    for epoch in range(1, options["epochs"] + 1):
        order = torch.randperm(len(learned), generator=generator).to(features.device)
        taken: list[dict] = []
        net.train()
        for picked in training.batches(order, options["batch_size"]):
            rows, steps = features[learned[picked]], steps + 1
            optimiser.param_groups[0]["eps"] = epsilon(steps)
            training.descend(optimiser, F.mse_loss(net(rows), rows), {}, taken)
        terms = {
            "loss": torch.stack([step["loss"] for step in taken]).mean(),
            "validation": _error(net, features[held]),
        }
        losses += [{"stage": "rebuild", "epoch": epoch, "term": term, "value": float(terms[term])} for term in terms]
        waited += 1
        if terms["validation"] < lowest:
            lowest, waited = terms["validation"], 0
        if waited >= options["patience"]:
            break
    logger.info("CAMLU: %d epochs, loss %.4f", epoch, terms["loss"])
    return losses


def epsilon(step: int) -> float:
    """Keras' epsilon, 1e-7, as torch's Adam needs it at a step (from 1).

    Keras adds it to the root of the mean squared gradient before that mean is corrected for its start at 0, torch
    after. The gradients of a mean over thousands of genes are so small that the first steps differ.
    """
    return 1e-7 / (1 - 0.999**step) ** 0.5


def _error(net: Autoencoder, features: torch.Tensor) -> torch.Tensor:
    net.eval()
    with torch.no_grad():
        return torch.cat([(net(rows) - rows).square().mean(dim=1) for rows in features.split(4096)]).mean()
