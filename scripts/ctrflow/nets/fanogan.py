"""The networks of f-AnoGAN and the two stages of their training (METHODS.md 3.10)."""

import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import training

LATENT = 100
CHANNELS = (16, 32, 64, 128)  # of the four convolutions that halve
HALVINGS = 2 ** len(CHANNELS)  # a patch's side must be a multiple of this
BETAS = (0.5, 0.999)
SLOPE = 0.2  # of the leaky ReLU


class Generator(nn.Module):
    """Latents (B x 100) -> images (B x 3 x px x px) in [-1, 1]."""

    def __init__(self, px: int):
        super().__init__()
        self.side = px // 4
        self.enter = nn.Linear(LATENT, 128 * self.side**2)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(128),
            *_grown(128, 128),
            *_grown(128, 64),
            nn.Conv2d(64, 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """`latents` (B x 100)."""
        return self.layers(self.enter(latents).view(-1, 128, self.side, self.side))


class Doubling(nn.Module):
    """Twice the size by repeating pixels, then a 3x3 convolution: (B x inputs x side x side) -> twice the side.

    A pixel of the result sees four of the input, some of them more than once. So their weights are summed first, one
    2x2 kernel for each of the four places in a doubled pixel: the same numbers from 4/9 of the products.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        # (place, tap of the 2, tap of the 3): which of the three rows fall on the same pixel
        taps = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`images` (B x inputs x side x side)."""
        weight, side = self.convolution.weight, images.shape[-1]
        outputs, inputs = weight.shape[:2]
        kernels = torch.einsum("aur,bvc,oirc->aboiuv", self.taps, self.taps, weight).reshape(-1, inputs, 2, 2)
        sums = F.conv2d(images, kernels, self.convolution.bias.repeat(4), padding=1)
        sums = sums.view(-1, 2, 2, outputs, side + 1, side + 1)
        places = [sums[:, a, b, :, a : a + side, b : b + side] for a in (0, 1) for b in (0, 1)]
        placed = torch.stack(places, dim=2).flatten(1, 2)  # outputs x 4 channels, as pixel_shuffle takes them
        return F.pixel_shuffle(placed, 2)


class Trunk(nn.Module):
    """Images (B x 3 x px x px) -> features (B x 128 (px / 16)^2): four convolutions that halve; and a linear layer.

    Parameters
    ----------
    norm : "batch", or "layer", which reads each image alone
    """

    def __init__(self, px: int, outputs: int, norm: str):
        super().__init__()
        layers = []
        for index, (inputs, channels) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False)):
            layers += [nn.Conv2d(inputs, channels, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE), nn.Dropout2d(0.25)]
            if index:
                layers.append(nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels))
        self.layers = nn.Sequential(*layers)
        self.leave = nn.Linear(CHANNELS[-1] * (px // HALVINGS) ** 2, outputs)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The output of the last convolution, one row per image."""
        return self.layers(images).flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B x outputs)."""
        return self.leave(self.features(images))


class FAnoGAN(nn.Module):
    """Generator, critic and encoder for patches of `px` pixels a side; the critic's norm is "layer" or "batch"."""

    def __init__(self, px: int, critic_norm: str):
        super().__init__()
        self.generator = Generator(px)
        self.critic = Trunk(px, 1, critic_norm)
        self.encoder = Trunk(px, LATENT, "batch")

    def rebuilt(self, images: torch.Tensor) -> torch.Tensor:
        """Images to the latent and back; the encoder ends in tanh, so its latents are in [-1, 1]."""
        return self.generator(torch.tanh(self.encoder(images)))

    def distances(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared difference of each image and its rebuilt one, (B,): of pixels, and of the critic's features."""
        rebuilt = self.rebuilt(images)
        pixels = (rebuilt - images).square().flatten(1).mean(dim=1)
        features = (self.critic.features(rebuilt) - self.critic.features(images)).square().mean(dim=1)
        return pixels, features


def as_images(patches: torch.Tensor) -> torch.Tensor:
    """Patches (B x px x px x 3) uint8 -> images (B x 3 x px x px) in [-1, 1]."""
    return patches.movedim(3, 1).float() / 127.5 - 1


def mirrored(images: torch.Tensor) -> torch.Tensor:
    """Images (B x 3 x px x px), each as it is or with left and right exchanged, by a fair coin."""
    flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(flipped, images.flip(3), images)


def gradient_penalty(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Mean squared distance from 1 of the norm of the critic's gradient, between real and generated images.

    `shares` (B,) in [0, 1] are the positions on the line from the generated to the real image.
    """
    shares = shares.view(-1, 1, 1, 1)
    between = (shares * real + (1 - shares) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def contest(net: FAnoGAN, patches: torch.Tensor, options: dict, seed: int) -> list[dict]:
    """First stage, WGAN-GP: the generator takes a step after every `critic_steps` of the critic.

    Parameters
    ----------
    patches : (spots x px x px x 3) uint8, on the device of the net

    Returns
    -------
    the critic's losses of each epoch (see `training.epochs`).
    """
    losses: list[dict] = []
    generating, judging = (_optimiser(part, options) for part in (net.generator, net.critic))
    order = training.orders(len(patches), options["epochs"], torch.Generator().manual_seed(seed), device=patches.device)
    net.train()
    steps = 0
    for epoch, taken in training.epochs(order, "contest", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            real = mirrored(as_images(patches[rows]))
            latents = torch.randn(len(rows), LATENT, device=patches.device)
            with torch.no_grad():
                fake = net.generator(latents)
            shares = torch.rand(len(rows), device=patches.device)
            terms = {
                "real": net.critic(real).mean(),
                "fake": net.critic(fake).mean(),
                "penalty": gradient_penalty(net.critic, real, fake, shares),
            }
            loss = terms["fake"] - terms["real"] + options["gradient_penalty"] * terms["penalty"]
            training.descend(judging, loss, terms, taken)
            steps += 1
            if steps % options["critic_steps"] == 0:
                training.descend(generating, -net.critic(net.generator(latents)).mean(), {}, [])
    return losses


def invert(net: FAnoGAN, patches: torch.Tensor, options: dict, seed: int) -> list[dict]:
    """Second stage: the encoder learns the inverse; generator and critic are frozen, in evaluation mode."""
    losses: list[dict] = []
    optimiser = _optimiser(net.encoder, options)
    order = training.orders(
        len(patches), options["epochs_encoder"], torch.Generator().manual_seed(seed + 1), device=patches.device
    )
    net.eval().requires_grad_(False)
    net.encoder.train().requires_grad_(True)
    for epoch, taken in training.epochs(order, "invert", losses):
        for rows in training.batches(epoch, options["batch_size"]):
            pixels, features = (value.mean() for value in net.distances(mirrored(as_images(patches[rows]))))
            loss = pixels + options["kappa"] * features
            training.descend(optimiser, loss, {"pixels": pixels, "features": features}, taken)
    return losses


def side(tensors: dict) -> int:
    """The patch side in pixels, read off the generator's first layer."""
    return 4 * round((len(tensors["generator.enter.bias"]) / 128) ** 0.5)


def _optimiser(net: nn.Module, options: dict) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=options["learning_rate"], betas=BETAS, fused=True)


def _grown(inputs: int, outputs: int) -> list[nn.Module]:
    """Doubling with a convolution, normalisation and a leaky ReLU."""
    return [Doubling(inputs, outputs), nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE)]
