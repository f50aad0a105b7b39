"""The network and losses of SpaCRD (METHODS.md 1.5 and 1.6)."""

import torch
import torch.nn.functional as F
from torch import nn

WIDTH = 512
HEADS = 8
LATENT = 64
CENTRE_SD = 0.01  # S-04: the paper gives the means of the class centres, not their spread


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation in which a row can stand for several equal ones."""

    def forward(self, rows: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """As if row i of `rows` stood there `counts[i]` times; without counts, or in evaluation mode, the usual."""
        if counts is None or not self.training:
            return super().forward(rows)
        total = counts.sum()
        share = (counts / total)[:, None]
        mean = (share * rows).sum(dim=0)
        variance = (share * (rows - mean) ** 2).sum(dim=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        return (rows - mean) / torch.sqrt(variance + self.eps) * self.weight + self.bias


class Encoder(nn.Module):
    """Feature vector -> 512: two hidden layers of 1024 and 512 with BatchNorm, ReLU and dropout 0.2."""

    def __init__(self, inputs: int):
        super().__init__()
        self.linear = nn.ModuleList([nn.Linear(inputs, 1024), nn.Linear(1024, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.norm = nn.ModuleList([BatchNorm(1024), BatchNorm(WIDTH)])
        self.dropout = nn.Dropout(0.2)

    def forward(self, features: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """`features` (rows x inputs); `counts`, how often each row stands in the batch."""
        for linear, norm in zip(self.linear, self.norm, strict=False):
            features = self.dropout(torch.relu(norm(linear(features), counts)))
        return self.linear[-1](features)


class CrossAttention(nn.Module):
    """A spot's token of one modality looks at the tokens of its neighbourhood in the other; no residual (S-21).

    Only the spot's own output is used, so queries and outputs are computed for it alone, and keys and values once for
    each distinct spot of a batch.
    """

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, own: torch.Tensor, others: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        """`own` (B x 512), `others` (distinct spots x 512), `around` (B x tokens) rows of `others` -> (B x 512)."""
        batch, tokens = around.shape
        query = self.query(own).view(batch, HEADS, 1, -1)
        key = self.key(others)[around].view(batch, tokens, HEADS, -1).transpose(1, 2)
        value = self.value(others)[around].view(batch, tokens, HEADS, -1).transpose(1, 2)
        weights = self.dropout(torch.softmax(query @ key.transpose(2, 3) / key.shape[-1] ** 0.5, dim=-1))
        return self.norm(self.out((weights @ value).reshape(batch, WIDTH)))


class SpaCRD(nn.Module):
    """Encoders, bidirectional cross-attention, class-regularised VAE and discriminator.

    `widths` maps each modality in use ("image", "gene") to its number of features. With one modality its tokens attend
    to themselves (METHODS.md 4.1, T4).
    """

    def __init__(self, widths: dict[str, int]):
        super().__init__()
        self.modalities = tuple(widths)
        self.encoders = nn.ModuleDict({name: Encoder(width) for name, width in widths.items()})
        self.attention = nn.ModuleDict({name: CrossAttention() for name in widths})
        self.fusion = nn.Sequential(nn.Linear(WIDTH * len(widths), WIDTH), nn.LayerNorm(WIDTH))
        self.encode = nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
        self.mean = nn.Linear(128, LATENT)
        self.log_variance = nn.Linear(128, LATENT)
        self.decode = nn.Sequential(
            *(nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, WIDTH))
        )
        self.centres = nn.Parameter(torch.randn(2, LATENT) * CENTRE_SD + torch.tensor([[-0.5], [0.5]]))
        self.classifier = nn.Sequential(nn.Linear(2 * LATENT, 64), nn.ReLU(), nn.Linear(64, 1))

    def aligned(self, features: dict[str, torch.Tensor], counts: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Unit vectors per spot and modality (S-01: normalised over features)."""
        return {name: F.normalize(self.encoders[name](features[name], counts), dim=1) for name in self.modalities}

    def fuse(self, tokens: dict[str, torch.Tensor], around: torch.Tensor) -> torch.Tensor:
        """h* (B x 512) of the spots whose neighbourhoods are `around` (B x tokens, rows; themselves first)."""
        own = around[:, 0]
        opposite = dict(zip(self.modalities, reversed(self.modalities), strict=True))
        looks = [self.attention[name](tokens[name][own], tokens[opposite[name]], around) for name in self.modalities]
        return self.fusion(torch.cat(looks, dim=1))

    def posterior(self, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the latent of each spot."""
        hidden = self.encode(fused)
        return self.mean(hidden), self.log_variance(hidden)

    def logit(self, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
        """The discriminator's logit; it sees the posterior, not a sample (METHODS.md 1.8)."""
        return self.classifier(torch.cat([mean, log_variance], dim=1)).squeeze(1)


def contrastive_loss(image: torch.Tensor, gene: torch.Tensor, temperature: float, alpha: float) -> torch.Tensor:
    """InfoNCE over a minibatch of unit vectors: alpha for image -> gene, 1 - alpha for gene -> image."""
    similarity = image @ gene.T / temperature
    pairs = torch.arange(len(similarity), device=similarity.device)
    return alpha * F.cross_entropy(similarity, pairs) + (1 - alpha) * F.cross_entropy(similarity.T, pairs)


def class_divergence(mean: torch.Tensor, log_variance: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """KL of each posterior from the unit Gaussian at its class centre, summed over dimensions, mean over spots."""
    each = log_variance.exp() + (mean - centres) ** 2 - log_variance - 1
    return 0.5 * each.sum(dim=1).mean()


def fused_loss(net: SpaCRD, fused: torch.Tensor, labels: torch.Tensor, beta: float):
    """Reconstruction plus beta times the class divergence, and the posterior it came from.

    The reconstruction is the mean square over dimensions and spots (S-05), and its target is not detached.
    """
    mean, log_variance = net.posterior(fused)
    sample = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    loss = F.mse_loss(net.decode(sample), fused) + beta * class_divergence(
        mean, log_variance, net.centres[labels.long()]
    )
    return loss, mean, log_variance
