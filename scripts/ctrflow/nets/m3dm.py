"""The feature fusion of M3DM and its contrastive training (METHODS.md 3.9)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import training

HEAD = 256


class FeatureFusion(nn.Module):
    """LayerNorm and a two-layer MLP (4 times as wide inside, GELU) per modality, concatenated to the fused vector.

    For the contrastive loss only, a linear head maps each to 256.

    Parameters
    ----------
    widths : each modality and its number of features; they keep their width
    """

    def __init__(self, widths: dict[str, int]):
        super().__init__()
        self.blocks = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
                )
                for name, width in widths.items()
            }
        )
        self.heads = nn.ModuleDict({name: nn.Linear(width, HEAD) for name, width in widths.items()})

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Modality -> (rows x width) in, (rows x all widths) out."""
        return torch.cat([block(features[name]) for name, block in self.blocks.items()], dim=1)

    def aligned(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Unit vectors (rows x 256) of each modality: what the training pulls together."""
        projected = {name: self.heads[name](block(features[name])) for name, block in self.blocks.items()}
        return {name: F.normalize(value, dim=1) for name, value in projected.items()}


def contrastive_loss(image: torch.Tensor, gene: torch.Tensor) -> torch.Tensor:
    """InfoNCE at temperature 1 from image to gene over a minibatch of unit vectors, times 2 as in the original."""
    return 2 * F.cross_entropy(image @ gene.T, torch.arange(len(image), device=image.device))


def rate(progress: float, epochs: int) -> float:
    """Share of the learning rate after `progress` epochs: rising over the first, then half a cosine to 0."""
    if progress < 1:
        return progress
    return 0.5 * (1 + math.cos(math.pi * (progress - 1) / max(epochs - 1, 1)))


def train(net: FeatureFusion, features: dict[str, torch.Tensor], options: dict, seed: int) -> list[dict]:
    """Pull a spot's image and expression together, away from those of the other spots of the batch.

    AdamW as in the original: betas 0.9 and 0.95, weight decay 0.01 (torch's default), rates by `rate`.

    Parameters
    ----------
    features : modality ("image", "gene") -> (spots x width), on the device of the net

    Returns
    -------
    the losses of each epoch (see `training.epochs`).
    """
    losses: list[dict] = []
    optimiser = torch.optim.AdamW(net.parameters(), lr=options["learning_rate"], betas=(0.9, 0.95), fused=True)
    generator = torch.Generator().manual_seed(seed)
    n, device = len(features["image"]), features["image"].device
    order = training.orders(n, options["epochs"], generator, device)
    net.train()
    for done, (epoch, taken) in enumerate(training.epochs(order, "fuse", losses)):
        batches = list(training.batches(epoch, options["batch_size"]))
        for step, rows in enumerate(batches):
            # at the start of the step, as in the original: the first of all changes nothing but the moments
            share = rate(done + step / len(batches), options["epochs"])
            optimiser.param_groups[0]["lr"] = options["learning_rate"] * share
            aligned = net.aligned({name: value[rows] for name, value in features.items()})
            training.descend(optimiser, contrastive_loss(aligned["image"], aligned["gene"]), {}, taken)
    return losses
