"""The three stages of SpaCRD's training (METHODS.md 1.6 and 1.7)."""

import numpy as np
import torch
import torch.nn.functional as F

from ctrflow.nets import training
from ctrflow.nets.spacrd import WIDTH, SpaCRD, contrastive_loss, fused_loss

ENCODED_AT_ONCE = 16384  # spots: the encoders' output for them stays below 0.5 GB


class Rows:
    """Features (spots x features) made dense, and moved to the device, only for the spots requested."""

    def __init__(self, scaled, device):
        self.scaled, self.device = scaled, torch.device(device)

    def __len__(self) -> int:
        return self.scaled.shape[0]

    def __getitem__(self, rows: torch.Tensor | slice) -> torch.Tensor:
        rows = np.arange(len(self))[rows] if isinstance(rows, slice) else rows.cpu().numpy()
        return torch.from_numpy(self.scaled[rows]).to(self.device)


def all_tokens(net: SpaCRD, features: dict[str, torch.Tensor | Rows]) -> dict[str, torch.Tensor]:
    """`net.tokens` of all spots, in evaluation mode: modality -> (spots x 512)."""
    count = len(next(iter(features.values())))
    all_spots = {}
    for start in range(0, count, ENCODED_AT_ONCE):
        rows = slice(start, start + ENCODED_AT_ONCE)
        for name, tokens in net.tokens({name: value[rows] for name, value in features.items()}).items():
            if name not in all_spots:
                all_spots[name] = tokens.new_empty((count, WIDTH))
            all_spots[name][rows] = tokens
    return all_spots


def align(net: SpaCRD, features: dict[str, torch.Tensor], options: dict, seed: int) -> list[dict]:
    """Stage I: pull a spot's image and expression together, away from those of the other spots of the batch.

    Parameters
    ----------
    features : modality -> (spots x features), all on the device of the net; `Rows` where too large

    Returns
    -------
    the losses of each epoch (see `training.epochs`).
    """
    losses: list[dict] = []
    optimiser = _optimiser(net.encoders.parameters(), options)
    generator = torch.Generator().manual_seed(seed)
    device = features["gene"].device
    order = training.orders(len(features["gene"]), options["epochs_align"], generator, device)
    net.train()
    for epoch, taken in training.epochs(order, "align", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            aligned = net.aligned({name: value[rows] for name, value in features.items()})
            loss = contrastive_loss(aligned["image"], aligned["gene"], options["temperature"], options["alpha"])
            training.descend(optimiser, loss, {}, taken)
    return losses


def fuse_and_classify(
    net: SpaCRD,
    features: dict[str, torch.Tensor],
    around: torch.Tensor,
    labels: torch.Tensor,
    options: dict,
    seed: int,
) -> list[dict]:
    """Stages II and III, on the labelled spots; their unlabelled neighbours are read as well.

    Frozen encoders run once, in evaluation mode, and their tokens are looked up afterwards (S-02).

    Parameters
    ----------
    around : (spots x tokens) rows of the neighbourhoods, the spot itself first
    labels : (spots,) 1, 0, NaN
    """
    losses: list[dict] = []
    finetune = options["finetune_encoders"]
    frozen = None
    if not finetune:
        net.eval()
        with torch.no_grad():
            frozen = all_tokens(net, features)
    inner = [weight for name, weight in net.named_parameters() if not name.startswith(("encoders.", "classifier."))]
    fusing = inner + (list(net.encoders.parameters()) if finetune else [])
    labelled = torch.nonzero(~torch.isnan(labels)).squeeze(1)
    generator = torch.Generator().manual_seed(seed + 1)
    everything = [*fusing, *net.classifier.parameters()]
    # stage II gives the classifier no gradients, so its optimiser can hold all weights (S-07)
    carried = _optimiser(everything, options) if options["carry_optimizer"] else None
    stages = [("classify", options["epochs_classify"], everything)]
    if net.rvae:
        stages.insert(0, ("fuse", options["epochs_fuse"], fusing))
    for stage, count, weights in stages:
        optimiser = carried or _optimiser(weights, options)
        order = training.orders(len(labelled), count, generator, labels.device)
        net.train()
        if not finetune:
            net.encoders.eval()
        for epoch, taken in training.epochs(order, stage, losses):
            for picked in training.batches(epoch, options["batch_size"]):
                rows = labelled[picked]
                fused = net.fuse(*_tokens(net, features, frozen, around[rows]))
                loss, terms = _loss(net, fused, labels[rows], options, classify=stage == "classify")
                training.descend(optimiser, loss, terms, taken)
    return losses


def _loss(net: SpaCRD, fused: torch.Tensor, labels: torch.Tensor, options: dict, classify: bool) -> tuple:
    """L_fused, or in stage III the classification loss plus gamma times it; and their parts."""
    loss, terms, read = 0.0, {}, fused
    if net.rvae:
        noise = torch.randn(len(fused), net.mean.out_features, dtype=fused.dtype, device=fused.device)
        loss, terms, read = fused_loss(net, fused, labels, options, noise)
    if not classify:
        return loss, terms
    terms["classification"] = F.binary_cross_entropy_with_logits(net.classified(read), labels.to(fused.dtype))
    return terms["classification"] + options["gamma"] * loss, terms


def _tokens(net: SpaCRD, features: dict, frozen: dict | None, around: torch.Tensor) -> tuple:
    """Tokens, and the neighbourhoods of a batch as rows of them.

    Encoders in training see each distinct spot once, and their BatchNorm counts it as often as it occurs in the
    flattened neighbourhoods (METHODS.md 1.5); its dropout mask is drawn once.
    """
    if frozen is not None:
        return frozen, around
    if not net.attention:
        around = around[:, :1]
    distinct, local, counts = torch.unique(around, return_inverse=True, return_counts=True)
    return net.tokens({name: value[distinct] for name, value in features.items()}, counts), local


def _optimiser(weights, options: dict) -> torch.optim.Optimizer:
    return torch.optim.Adam(weights, lr=options["learning_rate"], fused=True)
