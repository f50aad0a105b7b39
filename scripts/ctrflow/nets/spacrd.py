"""The network and losses of SpaCRD (METHODS.md 1.5 and 1.6)."""

import torch
import torch.nn.functional as F
from torch import nn

WIDTH = 512
HEADS = 8
LATENT = 64
CENTRE_SD = 0.01  # S-04: the paper gives the means of the class centres, not their spread
CENTRE_MEANS = {"apart": (-0.5, 0.5), "zero": (0.0, 0.0)}


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation in which a row can count several times."""

    def forward(self, rows: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """As if row i of `rows` occurred `counts[i]` times; without counts, or in evaluation mode, the usual."""
        if counts is None or not self.training:
            return super().forward(rows)
        total = counts.sum()
        share = counts.to(rows.dtype) / total
        mean = share @ rows
        centred = rows - mean
        variance = share @ centred.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        return centred * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias


class Encoder(nn.Module):
    """Feature vector -> 512: two hidden layers of 1024 and 512 with BatchNorm, ReLU and dropout 0.2."""

    def __init__(self, inputs: int):
        super().__init__()
        self.linear = nn.ModuleList([nn.Linear(inputs, 1024), nn.Linear(1024, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.norm = nn.ModuleList([BatchNorm(1024), BatchNorm(WIDTH)])
        self.dropout = nn.Dropout(0.2)

    def forward(self, features: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """`features` (rows x inputs); `counts`, how often each row occurs in the batch."""
        for linear, norm in zip(self.linear, self.norm, strict=False):
            features = self.dropout(torch.relu(norm(linear(features), counts)))
        return self.linear[-1](features)


class CrossAttention(nn.Module):
    """A spot's token of one modality attends to its neighbourhood's tokens in the other; no residual (S-21).

    Only the spot's own output is used, so queries and outputs are computed for it alone. Keys and values are never
    computed: the key's weights are applied to the query, and the value's to the attended sum of tokens. That is the
    same product in another order, with one projection per spot in place of one per token.
    """

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, own: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        """`own` (B x 512), `around` (B x tokens x 512) -> (B x 512)."""
        batch = len(own)
        # the key's bias adds the same to all logits of a spot, so it cancels in the softmax
        query = torch.bmm(_heads(self.query(own)), self.key.weight.view(HEADS, -1, WIDTH)).transpose(0, 1)
        logits = torch.bmm(query, around.transpose(1, 2)) / (WIDTH / HEADS) ** 0.5
        weights = self.dropout(torch.softmax(logits, dim=-1))
        attended = torch.bmm(weights, around).transpose(0, 1)
        value = torch.bmm(attended, self.value.weight.view(HEADS, -1, WIDTH).transpose(1, 2)).transpose(0, 1)
        # after dropout, weights do not sum to one, and the value's bias is weighted with the tokens
        value = value + weights.sum(dim=-1, keepdim=True) * self.value.bias.view(HEADS, -1)
        return self.norm(self.out(value.reshape(batch, WIDTH)))


class SpaCRD(nn.Module):
    """Encoders, bidirectional cross-attention, class-regularised VAE and discriminator.

    Parameters
    ----------
    widths : each modality in use ("image", "gene") and its number of features. With one modality its tokens attend to
        themselves (METHODS.md 4.1, T4)
    fusion : "attention", or "concat": the spot's own tokens concatenated, no neighbours (w/o BCA)
    rvae : False: the discriminator reads the fused vector, without a latent (w/o RVAE)
    centre_init : class centres start "apart" at -0.5 and +0.5, or both at "zero" (S-04)
    normalize_axis : tokens are unit vectors per spot ("feature"), or unit per feature over the neighbourhood
        ("neighbour", S-01)
    """

    def __init__(
        self,
        widths: dict[str, int],
        fusion: str = "attention",
        rvae: bool = True,
        centre_init: str = "apart",
        normalize_axis: str = "feature",
    ):
        super().__init__()
        self.modalities = tuple(widths)
        self.normalize_axis = normalize_axis if fusion == "attention" else "feature"
        self.encoders = nn.ModuleDict({name: Encoder(width) for name, width in widths.items()})
        joined = WIDTH * len(widths)
        self.attention = nn.ModuleDict({name: CrossAttention() for name in widths} if fusion == "attention" else {})
        bare = fusion == "concat" and not rvae
        self.fusion = nn.Identity() if bare else nn.Sequential(nn.Linear(joined, WIDTH), nn.LayerNorm(WIDTH))
        self.rvae = rvae
        if rvae:
            self.encode = nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
            self.mean = nn.Linear(128, LATENT)
            self.log_variance = nn.Linear(128, LATENT)
            self.decode = nn.Sequential(
                *(nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, WIDTH))
            )
            means = torch.tensor(CENTRE_MEANS[centre_init])[:, None]
            self.centres = nn.Parameter(torch.randn(2, LATENT) * CENTRE_SD + means)
        read = 2 * LATENT if rvae else joined if bare else WIDTH
        self.classifier = nn.Sequential(nn.Linear(read, 64), nn.ReLU(), nn.Linear(64, 1))

    def aligned(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Unit vectors per spot and modality, aligned in stage I."""
        return {name: F.normalize(self.encoders[name](features[name]), dim=1) for name in self.modalities}

    def tokens(self, features: dict[str, torch.Tensor], counts: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """What the attention reads of each spot; normalised, unless that is done over neighbourhoods (S-01)."""
        encoded = {name: self.encoders[name](features[name], counts) for name in self.modalities}
        if self.normalize_axis == "neighbour":
            return encoded
        return {name: F.normalize(value, dim=1) for name, value in encoded.items()}

    def fuse(self, tokens: dict[str, torch.Tensor], around: torch.Tensor) -> torch.Tensor:
        """h* (B x 512) of the spots whose neighbourhoods are `around` (B x tokens, rows; themselves first)."""
        if not self.attention:
            return self.fusion(torch.cat([tokens[name][around[:, 0]] for name in self.modalities], dim=1))
        rows = around.reshape(-1)
        near = {name: tokens[name].index_select(0, rows).view(*around.shape, WIDTH) for name in self.modalities}
        if self.normalize_axis == "neighbour":
            near = {name: F.normalize(value, dim=1) for name, value in near.items()}
        opposite = dict(zip(self.modalities, reversed(self.modalities), strict=True))
        attended = [self.attention[name](near[name][:, 0], near[opposite[name]]) for name in self.modalities]
        return self.fusion(torch.cat(attended, dim=1))

    def posterior(self, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the latent of each spot."""
        hidden = self.encode(fused)
        return self.mean(hidden), self.log_variance(hidden)

    def logit(self, fused: torch.Tensor) -> torch.Tensor:
        """The discriminator's logit; it sees the posterior, not a sample (METHODS.md 1.8)."""
        return self.classified(torch.cat(self.posterior(fused), dim=1) if self.rvae else fused)

    def classified(self, read: torch.Tensor) -> torch.Tensor:
        """The logit of what the discriminator reads (B x 128, or the fused vector without RVAE)."""
        return self.classifier(read).squeeze(1)


def contrastive_loss(image: torch.Tensor, gene: torch.Tensor, temperature: float, alpha: float) -> torch.Tensor:
    """InfoNCE over a minibatch of unit vectors: alpha for image -> gene, 1 - alpha for gene -> image."""
    similarity = image @ gene.T / temperature
    pairs = torch.arange(len(similarity), device=similarity.device)
    return alpha * F.cross_entropy(similarity, pairs) + (1 - alpha) * F.cross_entropy(similarity.T, pairs)


def class_divergence(mean: torch.Tensor, log_variance: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """KL of each posterior from the unit Gaussian at its class centre, summed over dimensions, mean over spots."""
    each = log_variance.exp() + (mean - centres) ** 2 - log_variance - 1
    return 0.5 * each.sum(dim=1).mean()


def reconstruction(rebuilt: torch.Tensor, fused: torch.Tensor, reduction: str) -> torch.Tensor:
    """Squared error, mean over spots and over dimensions ("mean") or summed over dimensions ("sum", S-05)."""
    squared = (rebuilt - fused).square()
    return squared.mean() if reduction == "mean" else squared.sum(dim=1).mean()


def separation(centres: torch.Tensor) -> torch.Tensor:
    """Minus the distance of the class centres (S-03)."""
    return -torch.linalg.vector_norm(centres[0] - centres[1])


def fused_loss(net: SpaCRD, fused: torch.Tensor, labels: torch.Tensor, options: dict, noise: torch.Tensor):
    """Stage II's loss, its parts by name, and what the discriminator reads.

    The target of the reconstruction is not detached. `noise` (B x 64) samples the latent.
    """
    mean, log_variance = net.posterior(fused)
    sample = mean + torch.exp(0.5 * log_variance) * noise
    terms = {
        "reconstruction": reconstruction(net.decode(sample), fused, options["recon_reduction"]),
        "divergence": class_divergence(mean, log_variance, net.centres[labels.long()]),
    }
    loss = terms["reconstruction"] + options["beta"] * terms["divergence"]
    if options["separation_weight"]:
        terms["separation"] = separation(net.centres)
        loss = loss + options["separation_weight"] * terms["separation"]
    return loss, terms, torch.cat([mean, log_variance], dim=1)


def _heads(rows: torch.Tensor) -> torch.Tensor:
    """(B x 512) -> (heads x B x 64)."""
    return rows.view(len(rows), HEADS, -1).transpose(0, 1)
