"""The network and training of SpaCell-Plus (METHODS.md card 3.1)."""

import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import training

HIDDEN = 256  # card 3.1, as in the joint autoencoder of SpaCell
CLASSIFIER = 64  # the discriminator of SpaCRD (METHODS.md 1.5)


class Autoencoder(nn.Module):
    """One modality: in -> 256 -> latent (linear) -> 256 -> in (sigmoid), ReLU on the hidden layers."""

    def __init__(self, inputs: int, latent: int):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, latent))
        self.decode = nn.Sequential(nn.Linear(latent, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, inputs), nn.Sigmoid())

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`features` (rows x inputs) in [0, 1] -> the latent (rows x latent) and the features rebuilt from it."""
        latent = self.encode(features)
        return latent, self.decode(latent)


class SpaCellPlus(nn.Module):
    """An independent autoencoder per modality, and a discriminator on their concatenated latents.

    Parameters
    ----------
    widths : each modality in use ("image", "gene") and its number of features
    latent : width of each latent; equal, so that no modality outweighs the other
    """

    def __init__(self, widths: dict[str, int], latent: int):
        super().__init__()
        self.autoencoders = nn.ModuleDict({name: Autoencoder(width, latent) for name, width in widths.items()})
        joined = latent * len(widths)
        self.classifier = nn.Sequential(nn.Linear(joined, CLASSIFIER), nn.ReLU(), nn.Linear(CLASSIFIER, 1))

    def logit(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """(rows,) from modality -> (rows x features)."""
        latents = [net.encode(features[name]) for name, net in self.autoencoders.items()]
        return self.classifier(torch.cat(latents, dim=1)).squeeze(1)

    def loss(self, features: dict[str, torch.Tensor], labels: torch.Tensor, weight: float) -> tuple:
        """Classification plus `weight` times the squared error of each modality's reconstruction; and the parts."""
        outputs = {name: net(features[name]) for name, net in self.autoencoders.items()}
        logits = self.classifier(torch.cat([latent for latent, _ in outputs.values()], dim=1)).squeeze(1)
        terms = {"classification": F.binary_cross_entropy_with_logits(logits, labels)}
        terms |= {f"reconstruction_{name}": F.mse_loss(back, features[name]) for name, (_, back) in outputs.items()}
        rebuilt = sum(value for name, value in terms.items() if name != "classification")
        return terms["classification"] + weight * rebuilt, terms


def train(
    net: SpaCellPlus, features: dict[str, torch.Tensor], labels: torch.Tensor, options: dict, seed: int
) -> list[dict]:
    """Train all parts at once, on labelled spots: modality -> (spots x features), labels (spots,) 1 or 0.

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
            batch = {name: value[rows] for name, value in features.items()}
            loss, terms = net.loss(batch, labels[rows], options["reconstruction_weight"])
            training.descend(optimiser, loss, terms, taken)
    return losses
