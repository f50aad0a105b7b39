"""The networks of Patch SVDD, their training, and the codes of squares on a grid (METHODS.md card 3.11)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import training

# card 3.11
SMALL, LARGE = 32, 64  # px, the sides of the squares
CODE = 64
SLOPE = 0.1  # of LeakyReLU
NOISE = 0.02  # sd of the colour shift and of the pixel noise, for colours in [0, 1]
CONVOLUTIONS = (3, 32, 64, 128, 128, 64, 32, 32, CODE)  # 3 x 3 without padding, the first with stride 2
DIRECTIONS = torch.tensor([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])

QUERIES, BANK = 2048, 8192  # codes compared at a time: 64 MB


class Encoder(nn.Module):
    """Squares of 32 px -> 64 numbers; and squares of 64 px -> 64 numbers, from the codes of their four quarters."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        for place, pair in enumerate(pairwise(CONVOLUTIONS)):
            layers += [nn.Conv2d(*pair, 3, stride=1 if place else 2), nn.LeakyReLU(SLOPE)]
        self.convolutions = nn.Sequential(*layers[:-1], nn.Tanh())
        self.join = nn.Sequential(nn.Conv2d(CODE, 128, 2), nn.LeakyReLU(SLOPE), nn.Conv2d(128, CODE, 1), nn.Tanh())

    def small(self, squares: torch.Tensor) -> torch.Tensor:
        """(rows x 3 x 32 x 32) -> (rows x 64)."""
        return self.convolutions(squares).flatten(1)

    def large(self, squares: torch.Tensor) -> torch.Tensor:
        """(rows x 3 x 64 x 64) -> (rows x 64)."""
        return self._joined(_tiles(squares, SMALL).flatten(0, 2), self.small).flatten(1)

    def grid(self, images: torch.Tensor, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The codes of all small squares `stride` px apart, and of large ones `large_step(stride)` apart.

        Parameters
        ----------
        images : (rows x 3 x px x px), px a multiple of 32
        stride : an even divisor of 32

        Returns
        -------
        (rows x r x r x 64) and (rows x q x q x 64), row by row from the upper left corner.
        """
        count = places(images.shape[2], SMALL, stride)
        if count * 15 < (images.shape[2] - 1) // 2:  # the widest layer of each square, and of the whole image
            small = self.small(_tiles(images, stride).flatten(0, 2)).view(len(images), count, count, CODE)
        else:  # without padding, the whole image gives the codes of all squares at once, 2 px apart
            step = stride // 2
            small = self.convolutions(images)[:, :, ::step, ::step].permute(0, 2, 3, 1)
        step, quarter = large_step(stride) // stride, SMALL // stride
        count = places(images.shape[2], LARGE, large_step(stride))
        spans = [slice(first, first + (count - 1) * step + 1, step) for first in (0, quarter)]
        quarters = torch.stack([small[:, rows, columns] for rows in spans for columns in spans], dim=3)
        joined = self._joined(quarters.flatten(0, 2).flatten(0, 1), lambda codes: codes)
        return small, joined.view(len(images), count, count, CODE)

    def _joined(self, quarters: torch.Tensor, coded) -> torch.Tensor:
        """The code of each four consecutive quarters: upper left, upper right, lower left, lower right."""
        codes = coded(quarters).view(-1, 2, 2, CODE).permute(0, 3, 1, 2)
        return self.join(codes).flatten(1)


class PositionClassifier(nn.Module):
    """The direction, one of eight, from one square to another, by the difference of their codes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(CODE, 128), nn.LeakyReLU(SLOPE), nn.Linear(128, 128), nn.LeakyReLU(SLOPE)),
            nn.Linear(128, len(DIRECTIONS)),
        )

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Logits (rows x 8) from two codes (rows x 64)."""
        return self.layers(first - second)


def places(px: int, side: int, step: int) -> int:
    """The number of squares along an axis, `step` px apart."""
    return (px - side) // step + 1


def large_step(stride: int) -> int:
    """Px between large squares: four times those between small ones, as in the original, but at most 32."""
    return min(4 * stride, SMALL)


def neighbour_pairs(rows: int, px: int, side: int, generator: torch.Generator) -> tuple:
    """Neighbouring squares: directions (rows,), and the upper left corners (rows x 2, y and x) of both.

    The second lies 3/4 to 1 side away along each axis of its direction. Both are inside the image.
    """
    directions = torch.randint(len(DIRECTIONS), (rows,), generator=generator)
    shift = DIRECTIONS[directions] * (3 * side // 4 + torch.randint(side // 4, (rows, 2), generator=generator))
    return directions, *_corners(shift, px - side, generator)


def jittered_pairs(rows: int, px: int, side: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper left corners (rows x 2) of squares moved by 1/32 of their side at most along each axis, but moved."""
    reach = side // SMALL
    steps = torch.arange(-reach, reach + 1)
    moves = torch.cartesian_prod(steps, steps)
    moves = moves[moves.any(dim=1)]
    shift = moves[torch.randint(len(moves), (rows,), generator=generator)]
    return _corners(shift, px - side, generator)


def crops(images: torch.Tensor, corners: torch.Tensor, side: int, mean: torch.Tensor) -> torch.Tensor:
    """One square of each image: (rows x 3 x side x side) float32 in [0, 1], minus the mean colour.

    `images` : uint8 (rows x px x px x 3)
    """
    along = torch.arange(side, device=images.device)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    squares = images[each, (corners[:, 0, None] + along)[:, :, None], (corners[:, 1, None] + along)[:, None, :]]
    return scaled(squares, mean)


def scaled(images: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """uint8 (rows x px x px x 3) -> float32 (rows x 3 x px x px) in [0, 1], minus the mean colour (3,)."""
    return (images.float() / 255 - mean).permute(0, 3, 1, 2).contiguous()


def train(encoder: Encoder, images: torch.Tensor, mean: torch.Tensor, options: dict, seed: int) -> list[dict]:
    """Train on squares of normal tissue, uint8 (spots x px x px x 3): one of each kind and side per spot and epoch.

    Returns
    -------
    the losses of each epoch (see `training.epochs`).
    """
    losses: list[dict] = []
    device = images.device
    codes = {SMALL: encoder.small, LARGE: encoder.large}
    classifiers = nn.ModuleDict({str(side): PositionClassifier() for side in codes}).to(device)
    weights = [*encoder.parameters(), *classifiers.parameters()]
    optimiser = torch.optim.Adam(weights, lr=options["learning_rate"], fused=True)
    generator = torch.Generator().manual_seed(seed)
    order = training.orders(len(images), options["epochs"], generator, device)
    order = order[:, : options["spots_per_epoch"] or None]
    encoder.train()
    for epoch, taken in training.epochs(order, "fit", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            batch, terms = images[rows], {}
            for side, code in codes.items():
                terms[f"position_{side}"] = _position_loss(code, classifiers[str(side)], batch, side, mean, generator)
                terms[f"jitter_{side}"] = _jitter_loss(code, batch, side, mean, generator)
            jitter = terms[f"jitter_{SMALL}"] + terms[f"jitter_{LARGE}"]
            loss = terms[f"position_{SMALL}"] + terms[f"position_{LARGE}"] + options["jitter_weight"] * jitter
            training.descend(optimiser, loss, terms, taken)
    return losses


def nearest(codes: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of each code (n x 64) to the nearest of the bank (m x 64): (n,).

    Exact, block by block on the device of the bank, in float32: there are some fifty codes per spot, so `memory_bank`,
    which compares all of a bank at a time in float64, would take gigabytes.
    """
    centre = bank.mean(dim=0)  # centred, so that float32 digits are not spent on what all codes share
    bank = bank - centre
    half = 0.5 * bank.square().sum(dim=1)
    distances = []
    for block in (codes - centre).split(QUERIES):
        best = torch.full((len(block),), torch.inf, device=block.device)
        place = torch.zeros(len(block), dtype=torch.long, device=block.device)
        for start in range(0, len(bank), BANK):
            rank, row = (half[start : start + BANK] - block @ bank[start : start + BANK].T).min(dim=1)
            closer = rank < best
            best, place = torch.where(closer, rank, best), torch.where(closer, row + start, place)
        distances.append(torch.linalg.vector_norm(block - bank[place], dim=1))
    return torch.cat(distances)


def _position_loss(code, classifier, images, side: int, mean, generator) -> torch.Tensor:
    directions, first, second = neighbour_pairs(len(images), images.shape[1], side, generator)
    squares = _both(images, first, second, side, mean)
    shift = torch.randn(len(squares), 3, 1, 1, generator=generator)
    noise = NOISE * (shift + torch.randn(squares.shape, generator=generator))
    logits = classifier(*code(squares + noise.to(squares.device)).chunk(2))
    return F.cross_entropy(logits, directions.to(logits.device))


def _jitter_loss(code, images, side: int, mean, generator) -> torch.Tensor:
    first, second = code(
        _both(images, *jittered_pairs(len(images), images.shape[1], side, generator), side, mean)
    ).chunk(2)
    return torch.linalg.vector_norm(first - second, dim=1).mean()


def _both(images, first, second, side: int, mean) -> torch.Tensor:
    """The first squares of all images, then the second."""
    return torch.cat([crops(images, corners.to(images.device), side, mean) for corners in (first, second)])


def _corners(shift: torch.Tensor, most: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random corners in 0..most that stay in it when shifted; and the shifted ones."""
    low, high = (-shift).clamp(min=0), most - shift.clamp(min=0)
    first = low + (torch.rand(shift.shape, generator=generator) * (high - low + 1)).long()
    return first, first + shift


def _tiles(images: torch.Tensor, step: int) -> torch.Tensor:
    """Small squares `step` px apart: (rows x r x r x 3 x 32 x 32)."""
    return images.unfold(2, SMALL, step).unfold(3, SMALL, step).permute(0, 2, 3, 1, 4, 5)
