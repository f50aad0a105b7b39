"""The Mobile-UNet whose encoder reads MEATRD's patches: depthwise separable convolutions (METHODS.md 2.3)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

DOWN = (32, 64, 128, 256, 256)  # channels at full size and after each halving
UP = (128, 64, 32, 32)  # channels after each doubling
REDUCED = 2 ** (len(DOWN) - 1)  # a code has a sixteenth of the patch's height and width
CODES = DOWN[-1]  # channels of a code


class Encoder(nn.Module):
    """Patches -> codes, and the feature maps of each larger size."""

    def __init__(self):
        super().__init__()
        self.enter = _block(3, DOWN[0], DOWN[0])
        self.down = nn.ModuleList(_block(inputs, outputs, outputs) for inputs, outputs in pairwise(DOWN))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """`images` (B x 3 x px x px, in [0, 1]) -> codes (B x 256 x px/16 x px/16); skips, the largest first."""
        levels = [self.enter(images)]
        for block in self.down:
            levels.append(block(_pooled(levels[-1])))
        return levels[-1], levels[:-1]


class Decoder(nn.Module):
    """Codes and skips -> patches, linear."""

    def __init__(self):
        super().__init__()
        below, beside = (CODES, *UP), DOWN[-2::-1]
        self.up = nn.ModuleList(
            _block(low + skip, low + skip, outputs) for low, skip, outputs in zip(below, beside, UP, strict=False)
        )
        self.leave = _separable(UP[-1], 3, 1)

    def forward(self, codes: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        """The patches (B x 3 x px x px)."""
        for block, skip in zip(self.up, reversed(skips), strict=True):
            codes = block(torch.cat([skip, _doubled(codes)], dim=1))
        return self.leave(codes)


class MobileUNet(nn.Module):
    """Patches (B x 3 x px x px, in [0, 1], px a multiple of 16 and at least 32) -> the same, rebuilt."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B x 3 x px x px), not limited to [0, 1]."""
        return self.decoder(*self.encoder(images))


def _block(inputs: int, between: int, outputs: int) -> nn.Sequential:
    """Two separable convolutions, each normalised per patch and channel, without affine, and with a ReLU.

    Instance normalisation as group normalisation with one channel per group, which is faster on a CPU.
    """
    layers = []
    for start, end in ((inputs, between), (between, outputs)):
        layers += [_separable(start, end, 3), nn.GroupNorm(end, end, affine=False), nn.ReLU()]
    return nn.Sequential(*layers)


def _separable(inputs: int, outputs: int, size: int) -> nn.Sequential:
    each = nn.Conv2d(inputs, inputs, size, padding=size // 2, groups=inputs, bias=False)
    return nn.Sequential(each, nn.Conv2d(inputs, outputs, 1, bias=False))


def _pooled(maps: torch.Tensor) -> torch.Tensor:
    """Max pooling over 3 x 3 pixels with stride 2; padding never counts.

    On a GPU as the maximum of shifted maps: the gradient of torch's pooling is not deterministic there.
    """
    return _largest(maps) if maps.is_cuda else F.max_pool2d(maps, 3, stride=2, padding=1)


def _largest(maps: torch.Tensor) -> torch.Tensor:
    for axis in (2, 3):
        edge = (0, 0, 1, 1) if axis == 2 else (1, 1)
        edged = F.pad(maps, edge, value=-torch.inf).transpose(2, axis)
        shifted = [edged[:, :, shift : shift + maps.shape[axis] : 2] for shift in range(3)]
        maps = torch.maximum(torch.maximum(shifted[0], shifted[1]), shifted[2]).transpose(2, axis)
    return maps


def _doubled(maps: torch.Tensor) -> torch.Tensor:
    """Twice the height and width, bilinear, with aligned corners: by matrix products, which are deterministic."""
    rows, columns = (_doubling(side, maps) for side in maps.shape[-2:])
    return rows @ maps @ columns.T


def _doubling(side: int, like: torch.Tensor) -> torch.Tensor:
    """(2 side x side) matrix of the bilinear weights."""
    place = torch.linspace(0, side - 1, 2 * side, dtype=torch.float64)
    return (1 - (place[:, None] - torch.arange(side)).abs()).clamp(min=0).to(like)
