"""The network, losses and training of STAGE with a label in place of coordinates (METHODS.md card 3.2)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import training

HIDDEN = (1000, 500, 50, 10)  # of the encoder; the decoder mirrors them
# card 3.2
LATENT_WEIGHT = 0.1
RECONSTRUCTION_WEIGHT = 0.01
WASSERSTEIN_WEIGHT = 0.1  # beside the L1 distance of the latent
L1_WEIGHT = 0.1  # beside the squared error of the reconstruction


class STAGE(nn.Module):
    """genes -> 1000 -> 500 -> 50 -> 10 -> 1 and back; BatchNorm and ReLU on hidden layers, ReLU on both outputs."""

    def __init__(self, genes: int):
        super().__init__()
        widths = (genes, *HIDDEN, 1)
        self.encoder = _layers(widths)
        self.decoder = _layers(widths[::-1])
        # a latent that starts below 0 for all spots would stay there: its ReLU passes no gradient
        nn.init.constant_(self.encoder[-1].bias, 0.5)

    def latent(self, genes: torch.Tensor) -> torch.Tensor:
        """(rows,) before the output's ReLU, from expression (rows x genes)."""
        return self.encoder(genes).squeeze(1)

    def forward(self, genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The latent z (rows,) and the expression rebuilt from it (rows x genes)."""
        latent = torch.relu(self.latent(genes))
        return latent, torch.relu(self.decoder(latent[:, None]))


def wasserstein(latent: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared 2-Wasserstein distance of two samples of one size on the line: sorted, they are matched in order.

    The unit vectors of one dimension are +1 and -1, and both give this value: it is the mean over any number of random
    projections.
    """
    return (latent.sort().values - target.sort().values).square().mean()


def latent_loss(latent: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 plus 0.1 times the squared Wasserstein distance."""
    return F.l1_loss(latent, target) + WASSERSTEIN_WEIGHT * wasserstein(latent, target)


def reconstruction_loss(rebuilt: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
    """Squared error plus 0.1 times L1."""
    return F.mse_loss(rebuilt, genes) + L1_WEIGHT * F.l1_loss(rebuilt, genes)


def train(net: STAGE, genes: torch.Tensor, labels: torch.Tensor, options: dict, seed: int) -> list[dict]:
    """Train on labelled spots: genes (spots x genes), labels (spots,) 1 or 0.

    The original's two Adam optimisers, of encoder and decoder with one learning rate, are one: Adam treats every weight
    by itself.

    Returns
    -------
    the losses of each epoch (see `training.epochs`).
    """
    losses: list[dict] = []
    optimiser = torch.optim.Adam(net.parameters(), lr=options["learning_rate"], fused=True)
    generator = torch.Generator().manual_seed(seed)
    order = training.orders(len(labels), options["epochs"], generator, labels.device)
    net.train()
    for epoch, taken in training.epochs(order, "fit", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            latent, rebuilt = net(genes[rows])
            terms = {
                "latent": latent_loss(latent, labels[rows]),
                "reconstruction": reconstruction_loss(rebuilt, genes[rows]),
            }
            loss = LATENT_WEIGHT * terms["latent"] + RECONSTRUCTION_WEIGHT * terms["reconstruction"]
            training.descend(optimiser, loss, terms, taken)
    return losses


def _layers(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them; the last is linear."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))
