"""The stages of STANDS' training, and its scores (METHODS.md 3.4)."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import training
from ctrflow.nets.stands import STANDS, ImageCoder
from ctrflow.nets.subgraphs import Subgraphs, subgraphs
from ctrflow.nets.tissue import Tissue, pictures

JITTER = 0.5  # brightness, contrast and saturation are multiplied by 0.5 to 1.5
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey level (ITU-R BT.601)
AT_ONCE = 128  # spots or patches in a batch outside training


def augmented(patches: np.ndarray, seed: int) -> np.ndarray:
    """Patches with changed light, mirrored and rotated, uint8 (n x px x px x 3): drawn once for the whole training.

    Brightness, contrast and saturation change by up to half, about every other patch is mirrored, and each is rotated
    by an angle of its own; the corners are filled with the mirrored patch.
    """
    draws = torch.rand(len(patches), 5, generator=torch.Generator().manual_seed(seed))
    result = np.empty_like(patches)
    for first in range(0, len(patches), AT_ONCE):
        rows = np.arange(first, min(first + AT_ONCE, len(patches)))
        images = turned(relit(pictures(patches, rows, torch.device("cpu")), draws[rows, :3]), draws[rows, 3:])
        result[rows] = (images * 255).round().to(torch.uint8).movedim(1, 3).numpy()
    return result


def with_augmented(tissue: Tissue, seed: int) -> Tissue:
    """The same spots with augmented patches."""
    return replace(tissue, patches=augmented(tissue.patches, seed))


def relit(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Images (B x 3 x px x px), their brightness, contrast and saturation times 0.5 to 1.5 by `draws` (B x 3)."""
    brightness, contrast, saturation = (1 + JITTER * (2 * draws - 1)).T[:, :, None, None, None]
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean(dim=(2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    grey = _grey(images)
    return (grey + saturation * (images - grey)).clamp(0, 1)


def turned(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Images mirrored where the first of `draws` (B x 2) is below a half, and rotated by the second, up to 360°."""
    mirror, angle = torch.where(draws[:, 0] < 0.5, -1.0, 1.0), 2 * torch.pi * draws[:, 1]
    zero = torch.zeros_like(angle)
    across = torch.stack([mirror * angle.cos(), -mirror * angle.sin(), zero], dim=1)
    down = torch.stack([angle.sin(), angle.cos(), zero], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)


def pretrain(patches: np.ndarray, options: dict, seed: int, device: torch.device) -> tuple[ImageCoder, list[dict]]:
    """First stage: reader and writer learn to rebuild patches, without genes or surroundings."""
    net = ImageCoder(patches.shape[1]).to(device).train()
    patches = augmented(patches, seed)
    losses: list[dict] = []
    optimiser, annealing = training.annealed(
        net.parameters(), options["learning_rate_pretrain"], options["epochs_image"]
    )
    order = training.orders(len(patches), options["epochs_image"], torch.Generator().manual_seed(seed), "cpu")
    for epoch, taken in training.epochs(order, "image", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            images = pictures(patches, rows.numpy(), device)
            training.descend(optimiser, F.l1_loss(net(images), images), {}, taken)
        annealing.step()
    return net.eval(), losses


def extract(net: STANDS, tissue: Tissue, learned: np.ndarray, options: dict, seed: int) -> list[dict]:
    """Second stage: the generator learns to rebuild both modalities; its reader is frozen, and runs once.

    Parameters
    ----------
    learned : spots to rebuild; the others serve as neighbours only
    """
    losses: list[dict] = []
    generator = net.generator
    features = _features(generator.reader, tissue, learned)
    weights = [weight for name, weight in generator.named_parameters() if not name.startswith("reader.")]
    optimiser, annealing = training.annealed(weights, options["learning_rate_pretrain"], options["epochs_extractor"])
    order = training.orders(len(learned), options["epochs_extractor"], torch.Generator().manual_seed(seed + 1), "cpu")
    generator.train()
    for epoch, taken in training.epochs(order, "extractor", losses):
        for picked in training.batches(epoch, options["batch_size"]):
            around = _around(tissue, learned[picked.numpy()])
            errors = _errors(_rebuilt(net, tissue, around, features), _real(tissue, around))
            training.descend(optimiser, errors["gene"] + errors["image"], errors, taken)
        annealing.step()
    return losses


def contest(net: STANDS, tissue: Tissue, learned: np.ndarray, options: dict, seed: int) -> list[dict]:
    """Third stage: the critic takes `critic_steps` to tell rebuilt spots from real ones, then the generator takes one.

    The generator rebuilds the spots for each step anew: its weights stay, but it drops other units.
    """
    losses: list[dict] = []
    generator, critic = net.generator, net.critic
    generating, slower = training.annealed(generator.parameters(), options["learning_rate"], options["epochs"])
    judging, milder = training.annealed(critic.parameters(), options["learning_rate"], options["epochs"])
    order = training.orders(len(learned), options["epochs"], torch.Generator().manual_seed(seed + 2), "cpu")
    net.train()
    for epoch, taken in training.epochs(order, "contest", losses):
        for picked in training.batches(epoch, options["batch_size"]):
            around = _around(tissue, learned[picked.numpy()])
            real = _real(tissue, around)
            for _ in range(options["critic_steps"]):
                with torch.no_grad():
                    fake = _rebuilt(net, tissue, around)
                terms = {"margin": critic(*real).mean() - critic(*fake).mean()}
                shares = torch.rand(len(picked)).to(tissue.device)
                terms["penalty"] = gradient_penalty(critic, real, fake, shares)
                loss = options["gradient_penalty"] * terms["penalty"] - terms["margin"]
                training.descend(judging, loss, {}, [])
            critic.requires_grad_(False)
            rebuilt = _rebuilt(net, tissue, around)
            errors = _errors(rebuilt, real)
            judged = critic(*rebuilt).mean()
            loss = options["reconstruction_weight"] * (errors["gene"] + errors["image"]) / 2 - judged
            training.descend(generating, loss, terms | errors, taken)
            critic.requires_grad_(True)
        slower.step()
        milder.step()
    net.eval()
    return losses


def gradient_penalty(critic: nn.Module, real: tuple, fake: tuple, shares: torch.Tensor) -> torch.Tensor:
    """Mean squared distance from 1 of the norm of the critic's gradient, between real and rebuilt spots.

    The gradient is that of the mean of the critic's outputs, by expression and patch together; `shares` (B,) in [0, 1]
    are the positions on the line from the rebuilt to the real spot.
    """
    between = [_between(*pair, shares).requires_grad_(True) for pair in zip(real, fake, strict=True)]
    gradients = torch.autograd.grad(critic(*between).mean(dim=1).sum(), between, create_graph=True)
    whole = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
    return (whole.norm(dim=1) - 1).square().mean()


@torch.inference_mode()
def scores(net: STANDS, tissue: Tissue, targets: np.ndarray) -> np.ndarray:
    """1 - cosine of the critic's outputs for the real and the rebuilt spot, (targets,) float64 in [0, 2]."""
    net.eval()
    features = _features(net.generator.reader, tissue, targets)
    parts = []
    for first in range(0, len(targets), AT_ONCE):
        around = _around(tissue, targets[first : first + AT_ONCE])
        pair = _real(tissue, around), _rebuilt(net, tissue, around, features)
        real, fake = (net.critic(*spots).double() for spots in pair)
        parts.append(1 - F.cosine_similarity(real, fake))
    return torch.cat(parts).cpu().numpy()


def _around(tissue: Tissue, targets: np.ndarray) -> Subgraphs:
    """The spots up to two steps from the targets: one row each, even if near several targets."""
    return subgraphs(tissue.looped, targets, [2, 1], together=True).to(tissue.device)


def _real(tissue: Tissue, around: Subgraphs) -> tuple[torch.Tensor, torch.Tensor]:
    targets = around.targets.cpu().numpy()
    return tissue.expression(targets), pictures(tissue.patches, targets, tissue.device)


def _rebuilt(
    net: STANDS, tissue: Tissue, around: Subgraphs, features: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The generator's output for the targets; with `features` of all spots, the reader does not run again."""
    near = around.spots[around.steps[0].onto]
    if features is None:
        read = net.generator.reader(pictures(tissue.patches, near.cpu().numpy(), tissue.device))
    else:
        read = features[near]
    return net.generator(tissue.expression(around.spots.cpu().numpy()), read, around.steps)


@torch.no_grad()
def _features(reader: nn.Module, tissue: Tissue, targets: np.ndarray) -> torch.Tensor:
    """Image features in evaluation mode, (spots x 256), of the targets and their neighbours; zeros elsewhere."""
    reader.eval()
    near = np.unique(tissue.looped[targets].indices)
    blocks = np.split(near, range(AT_ONCE, len(near), AT_ONCE))
    read = torch.cat([reader(pictures(tissue.patches, block, tissue.device)) for block in blocks])
    features = read.new_zeros(tissue.looped.shape[0], read.shape[1])
    features[torch.from_numpy(near).to(tissue.device)] = read
    return features


def _errors(rebuilt: tuple, real: tuple) -> dict[str, torch.Tensor]:
    return {
        name: F.l1_loss(*pair) for name, pair in zip(("gene", "image"), zip(rebuilt, real, strict=True), strict=True)
    }


def _between(real: torch.Tensor, fake: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    shares = shares.view(-1, *[1] * (real.dim() - 1))
    return shares * real + (1 - shares) * fake


def _grey(images: torch.Tensor) -> torch.Tensor:
    return (images * images.new_tensor(GREY)[:, None, None]).sum(dim=1, keepdim=True)
