"""Unsupervised segmentation of a small image by a convolutional network (METHODS.md 3.8)."""

import logging
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

logger = logging.getLogger(__name__)

CHANNELS = 100
KERNEL = 5
MOMENTUM = 0.9


class Segmenter(nn.Module):
    """Two 5 x 5 convolutions and a 1 x 1, each of 100 channels with batch normalisation: an output per cluster."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv = nn.ModuleList(
            [
                nn.Conv2d(inputs, CHANNELS, KERNEL, padding=KERNEL // 2),
                nn.Conv2d(CHANNELS, CHANNELS, KERNEL, padding=KERNEL // 2),
                nn.Conv2d(CHANNELS, CHANNELS, 1),
            ]
        )
        self.norm = nn.ModuleList([nn.BatchNorm2d(CHANNELS) for _ in self.conv])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """1 x inputs x h x w -> 100 x h x w."""
        for conv, norm in zip(self.conv[:-1], self.norm[:-1], strict=True):
            image = norm(F.relu(conv(image), inplace=True))
        return self.norm[-1](self.conv[-1](image))[0]


def segment(image: torch.Tensor, options: dict, name: str) -> np.ndarray:
    """Clusters of the pixels of an image, (h x w) int64.

    The network is trained on its own strongest outputs, with small clusters merged into those around them, and on
    outputs that change little between pixels, until few large clusters are left. Normalisation is always by the image's
    own statistics, so there is no evaluation mode.

    Parameters
    ----------
    image : 1 x channels x h x w
    options : iterations, main_clusters, minor_share, merge_radius, smoothness, learning_rate
    """
    net = Segmenter(image.shape[1]).to(image.device)
    optimiser = torch.optim.SGD(net.parameters(), lr=options["learning_rate"], momentum=MOMENTUM)
    least = options["minor_share"] * image.shape[2] * image.shape[3]
    last = time.monotonic()
    for iteration in range(1, options["iterations"] + 1):
        optimiser.zero_grad(set_to_none=True)
        outputs = net(image)
        clusters = _strongest(outputs)
        target = torch.from_numpy(merged(clusters, least, options["merge_radius"])).to(image.device)
        loss = F.cross_entropy(outputs.flatten(1).T, target.flatten()) + options["smoothness"] * roughness(outputs)
        loss.backward()
        optimiser.step()
        main = int((np.bincount(clusters.ravel()) >= max(least, 1)).sum())
        enough = main <= options["main_clusters"]
        now = time.monotonic()
        if enough or now - last > 5 or iteration in (1, options["iterations"]):
            last = now
            logger.info("%s: iteration %d, loss %.4f, %d large clusters", name, iteration, float(loss.detach()), main)
        if enough:
            break
    with torch.no_grad():
        return merged(_strongest(net(image)), least, options["merge_radius"])


def roughness(outputs: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbours, down plus across; c x h x w."""
    steps = (outputs[:, 1:] - outputs[:, :-1], outputs[:, :, 1:] - outputs[:, :, :-1])
    return sum((step.abs().mean() for step in steps if step.numel()), outputs.new_zeros(()))


def merged(clusters: np.ndarray, least: float, radius: int) -> np.ndarray:
    """Clusters of fewer than `least` pixels get the number of the most frequent large cluster around their pixels.

    Around a pixel is the square of `radius` pixels to each side; every pixel votes. A small cluster that no large one
    touches stays.
    """
    sizes = np.bincount(clusters.ravel())
    large = sizes >= least
    if large[sizes > 0].all():
        return clusters
    beyond = len(sizes)
    wide = np.pad(clusters, radius, constant_values=beyond)
    width = wide.shape[1]
    steps = np.arange(-radius, radius + 1)
    window = (steps[:, None] * width + steps).ravel()
    become = np.arange(len(sizes))
    order = np.argsort(clusters, axis=None, kind="stable")
    ends = np.cumsum(sizes)
    for small in np.flatnonzero((sizes > 0) & ~large):
        y, x = np.divmod(order[ends[small] - sizes[small] : ends[small]], clusters.shape[1])
        around = wide.ravel()[((y + radius) * width + x + radius)[:, None] + window]
        votes = np.bincount(around.ravel(), minlength=beyond + 1)[:beyond] * large
        if votes.any():
            become[small] = votes.argmax()
    return become[clusters]


def _strongest(outputs: torch.Tensor) -> np.ndarray:
    return outputs.detach().argmax(dim=0).cpu().numpy()
