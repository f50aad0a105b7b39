"""Graph attention of the second kind, GATv2, over a list of edges (METHODS.md 2.8)."""

import torch
import torch.nn.functional as F
from torch import nn


class GATv2(nn.Module):
    """Every row attends to the rows with an edge to it: score aT LeakyReLU(Wt h_target + Ws h_source), a softmax
    over the edges of a target, messages Ws h_source. Two projections with bias, no bias on the output, and no
    activation.

    Parameters
    ----------
    inputs : features of a row
    width : features of a head
    heads : number of heads, concatenated in the output
    feature_dropout : of the input rows, sources and targets alike
    attention_dropout : of the weights after the softmax
    slope : of the leaky ReLU inside the score
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        heads: int,
        feature_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        slope: float = 0.2,
    ):
        super().__init__()
        self.source = nn.Linear(inputs, heads * width)
        self.target = nn.Linear(inputs, heads * width)
        self.attention = nn.Parameter(torch.empty(heads, width))
        self.feature_dropout = nn.Dropout(feature_dropout)
        self.attention_dropout = nn.Dropout(attention_dropout)
        self.slope = slope
        gain = nn.init.calculate_gain("relu")  # DGL's initialisation, as in the published models
        for weight in (self.source.weight, self.target.weight, self.attention):
            nn.init.xavier_normal_(weight, gain)
        for linear in (self.source, self.target):
            nn.init.zeros_(linear.bias)

    def forward(self, features: torch.Tensor, edges: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """(rows x heads * width): the attended messages of each row; zeros where no edge arrives.

        Parameters
        ----------
        features : (rows x inputs)
        edges : (2 x E) long: source row, target row; a row sees itself only where its self-loop is among them
        onto : target rows, if not all; `edges[1]` then indexes `onto`
        """
        heads, width = self.attention.shape
        features = self.feature_dropout(features)
        wanted = features if onto is None else features.index_select(0, onto)
        sources = self.source(features).index_select(0, edges[0])
        scores = F.leaky_relu(sources + self.target(wanted).index_select(0, edges[1]), self.slope)
        scores = (scores.view(-1, heads, width) * self.attention).sum(dim=-1)
        weights = self.attention_dropout(softmax_over(scores, edges[1], len(wanted)))
        messages = sources * weights.repeat_interleave(width, dim=1)
        return messages.new_zeros(len(wanted), heads * width).index_add(0, edges[1], messages)


def softmax_over(scores: torch.Tensor, target: torch.Tensor, rows: int) -> torch.Tensor:
    """Softmax of `scores` (E x heads) over the edges with the same `target` (E,), a number below `rows`.

    Sums are taken edge by edge in the order of the list, so the result is deterministic.
    """
    index = target[:, None].expand_as(scores)
    with torch.no_grad():  # the largest score is subtracted to limit the range; it cancels
        largest = scores.new_full((rows, scores.shape[1]), -torch.inf)
        largest = largest.scatter_reduce(0, index, scores, "amax").index_select(0, target)
    powers = (scores - largest).exp()
    total = powers.new_zeros(rows, powers.shape[1]).index_add(0, target, powers)
    return powers / total.index_select(0, target)
