"""The discriminator of PREM (METHODS.md 3.13)."""

import torch
import torch.nn.functional as F
from torch import nn


class Discriminator(nn.Module):
    """How badly a spot fits a neighbourhood: minus the cosine of two linear maps, -1 (fits) to 1."""

    def __init__(self, genes: int, width: int):
        super().__init__()
        self.spot = nn.Linear(genes, width)
        self.neighbourhood = nn.Linear(genes, width)

    def forward(self, spots: torch.Tensor, neighbourhoods: torch.Tensor) -> torch.Tensor:
        """`spots`, `neighbourhoods` (rows x genes) -> (rows,)."""
        return misfit(self.spot(spots), self.neighbourhood(neighbourhoods))


def misfit(spots: torch.Tensor, neighbourhoods: torch.Tensor) -> torch.Tensor:
    """Minus the cosine, row by row."""
    return -F.cosine_similarity(spots, neighbourhoods, dim=1)


def pair_loss(scores: torch.Tensor, anomalous: bool) -> torch.Tensor:
    """Binary cross-entropy of (s + 1) / 2 as the probability that a pair is false."""
    probability = ((scores + 1) / 2).clamp(0, 1)  # rounding can take a cosine out of its range
    return F.binary_cross_entropy(probability, torch.full_like(probability, float(anomalous)))


def shuffled_within(sections: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For every row a row of the same section, each drawn once: (rows,) indices.

    Parameters
    ----------
    sections : (rows,) number of the section of each row
    """
    keys = torch.rand(len(sections), generator=generator, dtype=torch.float64)
    drawn = torch.empty_like(sections)
    drawn[torch.argsort(sections, stable=True)] = torch.argsort(sections + keys)
    return drawn
