"""The network of SimpleNet and its training (METHODS.md 3.6)."""

import torch
from torch import nn

from ctrflow.nets import training

WIDTH = 1024


class SimpleNet(nn.Module):
    """An adapter and a discriminator: feature vector -> how normal it is.

    The adapter is one linear layer to as many features, the discriminator Linear(-> 1024), BatchNorm, LeakyReLU 0.2,
    Linear(-> 1, no bias). Weights start Xavier-normal.
    """

    def __init__(self, inputs: int):
        super().__init__()
        self.adapter = nn.Linear(inputs, inputs)
        self.discriminator = nn.Sequential(
            nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, 1, bias=False)
        )
        for layer in (self.adapter, self.discriminator[0], self.discriminator[3]):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` (rows x inputs) -> (rows,); trained to be above the margin on normal tissue."""
        return self.judged(self.adapter(features))

    def judged(self, adapted: torch.Tensor) -> torch.Tensor:
        """The discriminator's output for adapted features (rows x inputs)."""
        return self.discriminator(adapted).squeeze(1)


def hinge_loss(real: torch.Tensor, noisy: torch.Tensor, margin: float) -> torch.Tensor:
    """Real features above the margin, noisy ones below minus the margin."""
    return torch.relu(margin - real).mean() + torch.relu(margin + noisy).mean()


def train(net: SimpleNet, features: torch.Tensor, options: dict, seed: int) -> list[dict]:
    """Train the discriminator to tell adapted features from the same with Gaussian noise.

    Real and noisy rows go through it together, so that its BatchNorm sees both. The weight decay of the adapter is
    decoupled (AdamW, at torch's default), that of the discriminator is not (Adam).

    Parameters
    ----------
    features : (spots x inputs), on the device of the net

    Returns
    -------
    the losses of each epoch (see `training.epochs`).
    """
    losses: list[dict] = []
    adapter = {
        "params": list(net.adapter.parameters()),
        "lr": options["adapter_learning_rate"],
        "weight_decay": 0.01,
        "decoupled_weight_decay": True,
    }
    discriminator = {"params": list(net.discriminator.parameters()), "lr": options["learning_rate"]}
    optimiser = torch.optim.Adam([adapter, discriminator], weight_decay=1e-5, fused=True)
    generator = torch.Generator().manual_seed(seed)
    order = training.orders(len(features), options["epochs"], generator, features.device)
    net.train()
    for epoch, taken in training.epochs(order, "discriminate", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            adapted = net.adapter(features[rows])
            noisy = adapted + options["noise_sd"] * torch.randn_like(adapted)
            real, fake = net.judged(torch.cat([adapted, noisy])).split(len(rows))
            training.descend(optimiser, hinge_loss(real, fake, options["margin"]), {}, taken)
    return losses
