"""Structural similarity of two pictures (METHODS.md 2.3)."""

import torch

WINDOW, SIGMA = 11, 1.5  # a Gaussian of 11 x 11 pixels
STEADY = 0.01**2, 0.03**2  # C1 and C2, for pictures in [0, 1]


def ssim(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(B,) mean structural similarity over the pixels and channels of each pair of pictures; 1 for equal ones.

    Padded with black, as in the published code, so the border counts a little less.

    Parameters
    ----------
    first, second : (B x channels x height x width), in [0, 1]
    """
    rows, columns = (_smoothing(side, first) for side in first.shape[-2:])

    def smooth(pictures):
        return rows @ pictures @ columns.T  # the window is separable: the same as one 11 x 11 convolution

    mean, other = smooth(first), smooth(second)
    variance = smooth(first * first) - mean * mean
    other_variance = smooth(second * second) - other * other
    covariance = smooth(first * second) - mean * other
    c1, c2 = STEADY
    alike = (2 * mean * other + c1) * (2 * covariance + c2)
    alike = alike / ((mean * mean + other * other + c1) * (variance + other_variance + c2))
    return alike.mean(dim=(1, 2, 3))


def _smoothing(side: int, like: torch.Tensor) -> torch.Tensor:
    """(side x side) matrix that smooths a line of pixels, padded with 0, with the Gaussian."""
    reach = WINDOW // 2
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    window = torch.exp(-(steps**2) / (2 * SIGMA**2))
    window = window / window.sum()
    place = torch.arange(side)
    apart = place[:, None] - place
    weights = torch.where(apart.abs() <= reach, window[apart.clamp(-reach, reach) + reach], 0.0)
    return weights.to(like)
