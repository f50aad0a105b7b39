"""The light ResNet that MEATRD and STANDS read patches with, and its mirror image (METHODS.md 2.5 and 3.4)."""

import torch
from torch import nn

CODES = 256  # channels of the coded image
REDUCED = 4  # a coded image has a quarter of the patch's height and width
CHANNELS = (8, 16, 32)  # of level 0, of level 1, and of their sum
DEPTH = 8  # residual blocks a level
SLOPE = 0.2  # of the leaky ReLU


class Residual(nn.Module):
    """Layers whose output is added to their input."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B x channels x height x width), the same shape out."""
        return images + self.layers(images)


def residual_block(channels: int, norm: str) -> Residual:
    """Two 3x3 convolutions, each with normalisation and a leaky ReLU, added to the input."""
    return Residual(nn.Sequential(_convolved(channels, channels, norm), _convolved(channels, channels, norm)))


class LightResNet(nn.Module):
    """Patches (B x 3 x px x px, in [0, 1]) -> codes (B x 256 x px/4 x px/4).

    Two levels of 8 residual blocks, at full and at half size; the output of each level is also reduced straight to a
    quarter of the size and added.

    Parameters
    ----------
    norm : "instance" (without affine; MEATRD) or "batch" (STANDS)
    """

    def __init__(self, norm: str):
        super().__init__()
        first, second, third = CHANNELS
        self.enter = _convolved(3, first, norm)
        self.levels = nn.ModuleList([_level(first, norm), _level(second, norm)])
        self.shrink = nn.ModuleList([_shrunk(first, second, 2, norm), _shrunk(second, third, 2, norm)])
        self.skip = nn.ModuleList([_shrunk(first, third, 4, norm), _shrunk(second, third, 2, norm)])
        self.leave = nn.Conv2d(third, CODES, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`images` (B x 3 x px x px), px a multiple of 4."""
        codes = self.enter(images)
        skipped = []
        for level, shrink, skip in zip(self.levels, self.shrink, self.skip, strict=True):
            codes = level(codes)
            skipped.append(skip(codes))
            codes = shrink(codes)
        return self.leave(codes + skipped[0] + skipped[1])


class LightDecoder(nn.Module):
    """Codes (B x 256 x px/4 x px/4) -> images (B x 3 x px x px), linear: the mirrored light ResNet.

    Parameters
    ----------
    norm : "instance" (without affine) or "batch"
    """

    def __init__(self, norm: str):
        super().__init__()
        first, second, third = CHANNELS
        self.enter = _convolved(CODES, third, norm)
        self.grow = nn.ModuleList([_grown(third, second, 2, norm), _grown(second, first, 2, norm)])
        self.levels = nn.ModuleList([_level(second, norm), _level(first, norm)])
        self.skip = nn.ModuleList([_grown(third, second, 2, norm), _grown(third, first, 4, norm)])
        self.leave = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """`codes` (B x 256 x height x width) -> (B x 3 x 4 height x 4 width)."""
        images = top = self.enter(codes)
        for grow, level, skip in zip(self.grow, self.levels, self.skip, strict=True):
            images = level(grow(images)) + skip(top)
        return self.leave(images)


def _level(channels: int, norm: str) -> nn.Sequential:
    return nn.Sequential(*(residual_block(channels, norm) for _ in range(DEPTH)))


def _convolved(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    return _normed(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), outputs, norm)


def _shrunk(inputs: int, outputs: int, times: int, norm: str) -> nn.Sequential:
    return _normed(nn.Conv2d(inputs, outputs, times, stride=times, bias=False), outputs, norm)


def _grown(inputs: int, outputs: int, times: int, norm: str) -> nn.Sequential:
    return _normed(nn.ConvTranspose2d(inputs, outputs, times, stride=times, bias=False), outputs, norm)


def _normed(convolution: nn.Module, channels: int, norm: str) -> nn.Sequential:
    """The convolutions have no bias: the normalisation would cancel it.

    Instance normalisation as group normalisation with one channel per group, which is faster on a CPU.
    """
    normed = nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(channels, channels, affine=False)
    return nn.Sequential(convolution, normed, nn.LeakyReLU(SLOPE))
