"""The three stages of MEATRD's training, and its scores (METHODS.md 2.3 to 2.5)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from ctrflow.nets import training
from ctrflow.nets.meatrd import (
    MEATRD,
    TOGETHER,
    Generator,
    SpotEncoder,
    blocks_of,
    errors,
    hops,
    in_parts,
    picture_error,
    weighted,
)
from ctrflow.nets.mobile_unet import MobileUNet
from ctrflow.nets.subgraphs import Subgraphs, subgraphs
from ctrflow.nets.tissue import Tissue, pictures

CODED_AT_ONCE = 512  # spots whose tokens are computed together


def pretrain(patches: np.ndarray, options: dict, seed: int, device: torch.device) -> tuple[MobileUNet, list[dict]]:
    """Stage I: a Mobile-UNet learns to rebuild the patches of normal tissue."""
    net = MobileUNet().to(device).train()
    losses: list[dict] = []
    optimiser, annealing = training.annealed(net.parameters(), options["learning_rate_unet"], options["epochs_unet"])
    order = training.orders(len(patches), options["epochs_unet"], torch.Generator().manual_seed(seed), "cpu")
    for epoch, taken in training.epochs(order, "unet", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            images = pictures(patches, rows.numpy(), device)
            loss = picture_error(in_parts(net, images), images).mean()
            training.descend(optimiser, loss, {}, taken)
        annealing.step()
    return net.eval(), losses


def rebuild(net: Generator, tissue: Tissue, learned: np.ndarray, options: dict, seed: int) -> list[dict]:
    """Stage II: the generator learns to rebuild normal spots from their neighbourhoods.

    Parameters
    ----------
    learned : spots to rebuild; the others serve as neighbours only
    """
    losses: list[dict] = []
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    optimiser, annealing = training.annealed(weights, options["learning_rate_rebuild"], options["epochs_rebuild"])
    order = training.orders(len(learned), options["epochs_rebuild"], torch.Generator().manual_seed(seed + 1), "cpu")
    frozen = _frozen_codes(net, tissue)
    net.train()
    for epoch, taken in training.epochs(order, "rebuild", losses):
        for picked in training.batches(epoch, options["batch_size"]):
            targets = learned[picked.numpy()]
            parts = _parts(tissue, targets, options)
            known = torch.unique(torch.cat([part.spots for part in parts]))
            rows = known.cpu().numpy()
            tokens = net.tokens(
                tissue.expression(rows) if "gene" in net.modalities else None, _codes(net, tissue, frozen, rows)
            )
            real = tissue.real(targets, net.modalities)
            each = errors(net(tokens, known, parts, real.get("image")), real)
            loss = weighted(each, options["alpha"]).mean()
            terms = {name: error.mean() for name, error in each.items()} if len(each) > 1 else {}
            training.descend(optimiser, loss, terms, taken)
        annealing.step()
    net.zero_grad()  # frees memory the size of the weights
    net.eval()
    return losses


@torch.no_grad()
def rebuilt(
    net: Generator, tissue: Tissue, groups: list[np.ndarray], options: dict
) -> Iterator[tuple[np.ndarray, dict]]:
    """Each batch of targets, and modality -> their reconstruction by the trained generator, without dropout."""
    tokens = _all_tokens(net, tissue)
    known = torch.arange(tissue.looped.shape[0], device=tissue.device)
    for batch in groups:
        images = tissue.real(batch, net.modalities).get("image") if options["decoder_skips"] else None
        yield batch, net(tokens, known, _parts(tissue, batch, options), images)


def all_rebuilt(net: Generator, tissue: Tissue, groups: list[np.ndarray], options: dict) -> dict[str, torch.Tensor]:
    """modality -> the rebuilt targets of all batches, in their order."""
    each = [batch for _, batch in rebuilt(net, tissue, groups, options)]
    return {name: torch.cat([batch[name] for batch in each]) for name in net.modalities}


def scores(net: MEATRD, tissue: Tissue, groups: list[np.ndarray], options: dict) -> np.ndarray:
    """(targets,) float64: squared distance of the latent from the centre; without an encoder, the generator's error.

    Parameters
    ----------
    groups : the targets in batches; each is its own centre where there is none of the reference (M-09)
    """
    parts = []
    with torch.inference_mode():
        for batch, fake in _with_rebuilt(net.generator, tissue, groups, options):
            real = tissue.real(batch, tuple(options["modalities"]))
            if net.encoder is None:
                parts.append(weighted(errors(fake, real), options["alpha"]))
            else:
                parts.append(squares(latent(net.encoder, real, fake), net.centre).sum(dim=1))
    return torch.cat(parts).double().cpu().numpy()


def squares(latents: torch.Tensor, centre: torch.Tensor | None) -> torch.Tensor:
    """(B x d_detect) squared differences from the centre; without one, from the mean of these latents."""
    return (latents - (latents.mean(dim=0) if centre is None else centre)).square()


def reference_scores(net: MEATRD, reference: "Reference") -> np.ndarray:
    """`scores` of the reference, from its reconstructions."""
    parts = [squares(latents, net.centre).sum(dim=1) for latents in reference.latents(net.encoder)]
    return torch.cat(parts).double().cpu().numpy()


def _with_rebuilt(
    generator: Generator | None, tissue: Tissue, groups: list[np.ndarray], options: dict
) -> Iterator[tuple]:
    return ((batch, None) for batch in groups) if generator is None else rebuilt(generator, tissue, groups, options)


def batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """`rows` in their order, `size` at a time."""
    return np.split(rows, range(size, len(rows), size))


def latent(net: SpotEncoder, real: dict, rebuilt: dict | None) -> torch.Tensor:
    """(B x d_detect): difference of the codes of real and rebuilt spots; without the latter, the codes themselves."""
    return net(real) if rebuilt is None else net(real) - net(rebuilt)


@dataclass(frozen=True)
class Reference:
    """Normal spots and their reconstructions by the trained generator, computed once for all epochs.

    groups : their rows of the tissue, in batches
    rebuilt : modality -> (spots x ...), in the order of `groups`; None to read real spots alone
    """

    tissue: Tissue
    groups: list[np.ndarray]
    rebuilt: dict[str, torch.Tensor] | None

    @cached_property
    def learned(self) -> np.ndarray:
        """The rows of all batches."""
        return np.concatenate(self.groups)

    def latent(self, net: SpotEncoder, rows: torch.Tensor) -> torch.Tensor:
        """`latent` of `rows` of the learned spots."""
        fake = self.rebuilt
        if fake is not None:
            fake = {name: value.index_select(0, rows.to(value.device)) for name, value in fake.items()}
        return latent(net, self.tissue.real(self.learned[rows.numpy()], net.modalities), fake)

    def latents(self, net: SpotEncoder) -> tuple[torch.Tensor, ...]:
        """(spots x d_detect) of each batch."""
        places = torch.arange(len(self.learned)).split([len(group) for group in self.groups])
        with torch.no_grad():
            return tuple(self.latent(net, rows) for rows in places)

    def centre(self, net: SpotEncoder) -> torch.Tensor:
        """(d_detect,) the mean of all latents."""
        return torch.cat(self.latents(net)).mean(dim=0)


def one_class(
    net: SpotEncoder, reference: Reference, options: dict, seed: int
) -> tuple[torch.Tensor | None, list[dict]]:
    """Stage III: the latent errors of normal spots are pulled to their centre. Returns the centre and the losses.

    The centre is the mean over the reference, before each epoch and after the last, without gradient; or that of the
    batch, with gradient, and then there is none to keep (M-09).
    """
    losses: list[dict] = []
    optimiser, annealing = training.annealed(
        net.parameters(), options["learning_rate_one_class"], options["epochs_one_class"]
    )
    order = training.orders(
        len(reference.learned), options["epochs_one_class"], torch.Generator().manual_seed(seed + 2), "cpu"
    )
    of_batch = options["centre"] == "batch"
    net.train()
    centre = None if of_batch else reference.centre(net)
    for epoch, taken in training.epochs(order, "one_class", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            training.descend(optimiser, squares(reference.latent(net, rows), centre).mean(), {}, taken)
        annealing.step()
        centre = None if of_batch else reference.centre(net)
    net.eval()
    return centre, losses


def _parts(tissue: Tissue, targets: np.ndarray, options: dict) -> list[Subgraphs]:
    """The subgraphs of a batch; a single one where attention is over the batch (M-02)."""
    together = options["attention_scope"] == "batch"
    pieces = [targets] if together else batches(targets, TOGETHER)
    widths = hops(blocks_of(options))
    return [subgraphs(tissue.looped, piece, widths, together).to(tissue.device) for piece in pieces]


def _frozen_codes(net: Generator, tissue: Tissue) -> torch.Tensor | None:
    """The UNet's codes of all spots, once for all epochs; None where the encoder is trained, or without image."""
    if "image" not in net.modalities or any(weight.requires_grad for weight in net.unet.parameters()):
        return None
    return _all_codes(net, tissue)


def _all_codes(net: Generator, tissue: Tissue) -> torch.Tensor:
    rows = np.arange(len(tissue.patches))
    with torch.no_grad():
        codes = [net.codes(pictures(tissue.patches, few, tissue.device)) for few in batches(rows, TOGETHER)]
    return torch.cat(codes)


def _codes(net: Generator, tissue: Tissue, frozen: torch.Tensor | None, rows: np.ndarray) -> torch.Tensor | None:
    """The UNet's codes of spots; where it is trained, activations are recomputed for the gradient, to save memory."""
    if "image" not in net.modalities:
        return None
    if frozen is not None:
        return frozen.index_select(0, torch.from_numpy(rows).to(frozen.device))
    images = pictures(tissue.patches, rows, tissue.device)
    return torch.cat([checkpoint(net.codes, few, use_reentrant=False) for few in images.split(TOGETHER)])


def _all_tokens(net: Generator, tissue: Tissue) -> dict[str, torch.Tensor]:
    """Tokens of all spots; without dropout they do not depend on the batch."""
    codes = _all_codes(net, tissue) if "image" in net.modalities else None
    count, pieces = tissue.looped.shape[0], []
    for rows in batches(np.arange(count), CODED_AT_ONCE):
        genes = tissue.expression(rows) if "gene" in net.modalities else None
        pieces.append(net.tokens(genes, None if codes is None else codes[rows[0] : rows[-1] + 1]))
    return {name: torch.cat([piece[name] for piece in pieces]) for name in net.modalities}
