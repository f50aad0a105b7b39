"""The two networks of Spatial-ID and their training (METHODS.md card 3.5)."""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import training
from ctrflow.nets.graph_convolution import GraphConvolution

# card 3.5
HIDDEN = (1024, 512, 512)
DROPOUT = 0.5
FOCAL_GAMMA = 2.0
FOCAL_ALPHA = 0.25
ENCODED = (100, 20)  # of the denoising autoencoder
GRAPH = (32, 8)  # of the variational graph autoencoder
HEAD = 64


class Classifier(nn.Module):
    """genes -> 1024 -> 512 -> 512 -> classes; GELU and dropout after each hidden layer, dropout on the logits."""

    def __init__(self, genes: int, classes: int):
        super().__init__()
        widths = (genes, *HIDDEN, classes)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, profiles: torch.Tensor) -> torch.Tensor:
        """Logits (rows x classes) of profiles of unit length (rows x genes)."""
        for layer in self.layers[:-1]:
            profiles = F.dropout(F.gelu(layer(profiles)), DROPOUT, self.training)
        return F.dropout(self.layers[-1](profiles), DROPOUT, self.training)


def focal_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """-0.25 (1 - p)^2 log p, p the probability of the true class; mean over rows."""
    log_p = F.log_softmax(logits, dim=1).gather(1, classes[:, None]).squeeze(1)
    return -(FOCAL_ALPHA * (1 - log_p.exp()) ** FOCAL_GAMMA * log_p).mean()


def train_classifier(net: Classifier, profiles: torch.Tensor, classes: torch.Tensor, options: dict, seed: int) -> list:
    """Step 1: profiles (spots x genes) of unit length, classes (spots,). The epoch of lowest training loss is kept.

    Returns
    -------
    the losses of each epoch (see `training.epochs`).
    """
    losses: list[dict] = []
    optimiser = torch.optim.Adam(net.parameters(), lr=options["learning_rate"], weight_decay=1e-6, fused=True)
    generator = torch.Generator().manual_seed(seed)
    order = training.orders(len(classes), options["epochs"], generator, classes.device)
    best, kept = float("inf"), None
    net.train()
    for epoch, taken in training.epochs(order, "classify", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            training.descend(optimiser, focal_loss(net(profiles[rows]), classes[rows]), {}, taken)
        loss = float(torch.stack([step["loss"] for step in taken]).mean())
        if loss < best:
            best, kept = loss, copy.deepcopy(net.state_dict())
    if kept is not None:
        net.load_state_dict(kept)
    return losses


class SectionNet(nn.Module):
    """Denoising autoencoder of the expression, variational graph autoencoder on its code, and a classifier of both.

    genes -> 100 -> 20 (BatchNorm, ELU, dropout 0.2); 20 -> 32 -> 8 on the graph; the 28 together go through a layer of
    64 to the expression, through another to the edges, and directly to the classes.
    """

    def __init__(self, genes: int, classes: int):
        super().__init__()
        code, latent = ENCODED[-1], GRAPH[-1]
        self.encoder = nn.Sequential(*_block(genes, ENCODED[0]), *_block(*ENCODED))
        self.hidden = GraphConvolution(code, GRAPH[0])
        self.mean = GraphConvolution(*GRAPH)
        self.log_sd = GraphConvolution(*GRAPH)
        self.expression_head = nn.Sequential(nn.Linear(code + latent, HEAD), nn.ELU(), nn.Linear(HEAD, genes))
        self.edge_head = nn.Sequential(nn.Linear(code + latent, HEAD), nn.ELU())
        self.classifier = nn.Linear(code + latent, classes)

    def encode(self, genes: torch.Tensor, adjacency: torch.Tensor, noise: torch.Tensor | None = None) -> tuple:
        """The code (spots x 28), and mean and log sd of its last 8; without `noise` (spots x 8) these are the mean."""
        code = self.encoder(genes)
        hidden = torch.relu(self.hidden(code, adjacency))
        mean, log_sd = self.mean(hidden, adjacency), self.log_sd(hidden, adjacency).clamp(max=10)
        latent = mean if noise is None else mean + noise * log_sd.exp()
        return torch.cat([code, latent], dim=1), mean, log_sd


def class_divergence(logits: torch.Tensor, pseudo: torch.Tensor) -> torch.Tensor:
    """KL(pseudo || softmax(logits)) in nats, mean over spots and classes; `pseudo` are probabilities."""
    return F.kl_div(F.log_softmax(logits, dim=1), pseudo, reduction="none").mean()


def edge_loss(code: torch.Tensor, pairs: torch.Tensor, weights: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """How well inner products tell edges from other pairs, each a mean.

    Parameters
    ----------
    code : (spots x 64)
    pairs, weights : the directed edges (2 x edges) and their weights in [0, 1], the targets of a cross-entropy; beside
        them counts each spot's edge to itself, of weight 1
    others : (2 x any number) pairs without an edge, whose target is 0; may be empty
    """
    own = F.softplus(-code.square().sum(dim=1)).sum()
    edges = F.binary_cross_entropy_with_logits(_inner(code, pairs), weights, reduction="sum")
    loss = (own + edges) / (len(code) + len(weights))
    return loss + F.softplus(_inner(code, others)).mean() if others.shape[1] else loss


def latent_divergence(mean: torch.Tensor, log_sd: torch.Tensor) -> torch.Tensor:
    """KL of the latent from the unit Gaussian, mean over spots."""
    return -0.5 * (1 + 2 * log_sd - mean.square() - (2 * log_sd).exp()).sum(dim=1).mean()


def unlinked_pairs(spots: int, linked: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Pairs of different spots without an edge, (2 x at most `count`): `count` drawn, without those that have an edge.

    `linked` : sorted keys first * spots + second of the edges.
    """
    first, second = drawn = torch.randint(spots, (2, count), generator=generator)
    keys = first * spots + second
    place = torch.searchsorted(linked, keys).clamp(max=max(len(linked) - 1, 0))
    free = (first != second) & (linked[place] != keys if len(linked) else True)
    return drawn[:, free]


def classify_section(
    genes: torch.Tensor, logits: torch.Tensor, graph, adjacency: torch.Tensor, options: dict, seed: int
) -> torch.Tensor:
    """Step 2: learn one section's classes from step 1's and the neighbours; probabilities (spots x classes).

    Parameters
    ----------
    genes : (spots x genes) z-scored expression
    logits : (spots x classes) of step 1
    graph : SciPy CSR (spots x spots): the weights of the edges, from the columns to the rows
    adjacency : the same normalised, with self-loops, on the device of `genes`
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    device, spots = genes.device, len(genes)
    entries = graph.tocoo()
    pairs = torch.stack([torch.from_numpy(side).long() for side in (entries.row, entries.col)])
    linked = pairs[0] * spots + pairs[1]  # sorted, as the entries of a CSR matrix are
    weights = torch.from_numpy(entries.data).to(device)
    net = SectionNet(genes.shape[1], logits.shape[1]).to(device)
    optimiser = torch.optim.Adam(net.parameters(), lr=options["learning_rate_section"], weight_decay=1e-4, fused=True)
    pseudo, edges = torch.softmax(logits, dim=1), pairs.to(device)
    net.train()
    for _ in range(options["epochs_section"]):
        noise = torch.randn(spots, GRAPH[-1], generator=generator).to(device)
        code, mean, log_sd = net.encode(genes, adjacency, noise)
        others = unlinked_pairs(spots, linked, spots + len(weights), generator).to(device)
        graph_loss = edge_loss(net.edge_head(code), edges, weights, others) + latent_divergence(mean, log_sd) / spots
        loss = options["class_weight"] * class_divergence(net.classifier(code), pseudo)
        loss = loss + F.mse_loss(net.expression_head(code), genes) + options["edge_weight"] * graph_loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    net.eval()
    with torch.no_grad():
        return torch.softmax(net.classifier(net.encode(genes, adjacency)[0]), dim=1)


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, eps=1e-3, momentum=0.01), nn.ELU(), nn.Dropout(0.2)


def _inner(code: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    return (code[pairs[0]] * code[pairs[1]]).sum(dim=1)
