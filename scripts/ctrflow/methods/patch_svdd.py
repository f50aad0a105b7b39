"""Patch SVDD: the distance of small image squares from those of normal tissue (METHODS.md 3.11).

Yi and Yoon, ACCV 2020 (nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch, 2020). An encoder of squares of 32 px, and one
of 64 px on top of it, learn on normal tissue to predict the direction from one square to another, and to give
nearly the same code to squares that hardly differ. A square of the target is as anomalous as its code is far from the
nearest code of normal tissue.

Deviations

- The image of a spot is a square of 128 px and 200 µm around it (the original: 256 px of a whole photograph). Its score
  is the mean of the anomaly map over the central disc of half that width, not its largest value, which would grow with
  the context.
- An epoch shows each spot once, not 100 times: 3,000 to 15,000 spots give about as many steps as 250 photographs did.
  `spots_per_epoch` shows fewer; scoring still compares with the whole reference.
- Small squares are compared every 16 px, large ones every 32 (`stride`; the original: 4 and 16). The comparisons are
  target spots times reference spots times the square of the squares per spot: 49 and 9 here, 625 and 25 there, where
  the original's search is approximate and this one exact. Where the reference is large, `max_reference_spots` bounds
  time and the size of the model (15 kB a spot).
- Pairs of squares are drawn inside the image. The original moves a square that leaves it back inside, which can make
  its direction wrong.
- The last layer of the position classifier is an ordinary, trained one. In the published code its weights are
  normalised without gradient, and keep their initial values.
- One mean colour is subtracted, not the mean photograph. The distances of each size are divided by the spread of the
  normal codes: a constant, which keeps scores near 1 whatever the length of training.
- The last epoch is used; the published code reports each.
"""

import logging

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features.learned_from import capped
from ctrflow.methods import MAX_REFERENCE_SPOTS, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

ENCODED_AT_ONCE = 32  # spots: 120 MB of the widest two layers

SPEC = MethodSpec(
    name="patch_svdd",
    regime="normal_reference",
    modalities=("image",),
    needs=("patches",),
    gpu=True,
    minutes=1440,
    options={
        "patch_um": Option(200.0, "side of the square around a spot, µm; half of it is scored", above=0),
        "patch_px": Option(128, "side of that square, px", (128, 160, 192, 224, 256)),
        "epochs": Option(300, "passes over the reference; `fast` hardly trains", least=1),
        "spots_per_epoch": Option(0, "maximum spots per epoch, redrawn each epoch; 0 for all"),
        "learning_rate": Option(1e-4, "Adam", above=0),
        "batch_size": Option(64, "spots per step, at most", least=2),
        "jitter_weight": Option(1.0, "weight of the distance between squares that hardly differ"),
        "stride": Option(16, "px between compared small squares; large ones: 4 times that, at most 32", (4, 8, 16, 32)),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"paper": {}, "fast": {"epochs": 2, "spots_per_epoch": 300, "batch_size": 16, "stride": 32}},
    reference="Patch SVDD (Yi and Yoon, ACCV 2020)",
)


class Model(NetworkModel):
    """A trained encoder; the mean colour (3,), the codes of small and of large squares of normal tissue (each m x 64)
    and the spread of both (2,).
    """

    prefix = "encoder."
    kept = ("bank.mean", "bank.small", "bank.large", "bank.spread")

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Learn from the squares around normal spots.

        Raises
        ------
        InputError
            with fewer than 2 spots.
        """
        import torch

        from ctrflow.nets import patch_svdd, training

        if train.n_obs < 2:
            raise InputError(
                f"method patch_svdd: {train.n_obs} spot of normal tissue in {first_few(set(train.obs['section']))}; it "
                "needs at least 2: name more sections under `normal` of the study"
            )
        device = training.start(seed)
        rows = capped(train.n_obs, options["max_reference_spots"], seed)
        patches = train.obsm["patches"][rows]
        mean = torch.from_numpy(_mean_colour(patches)).to(device)
        images = torch.from_numpy(np.ascontiguousarray(patches)).to(device)
        encoder = patch_svdd.Encoder().to(device)
        losses = patch_svdd.train(encoder, images, mean, options, seed)
        encoder.eval()
        codes = _codes(encoder, images, mean, options["stride"])
        spread = torch.stack([torch.sqrt(code.var(dim=0, correction=0).sum()) for code in codes])
        bank = {name: value.cpu().numpy() for name, value in zip(cls.kept, (mean, *codes, spread), strict=True)}
        return cls(encoder.cpu(), options, seed, bank, losses)

    def score(self, target) -> np.ndarray:
        """Mean of the anomaly map over the disc in the middle, (spots,).

        A map gives a pixel the mean distance of all squares over it; those of both sizes are multiplied.
        """
        import torch

        from ctrflow.nets import patch_svdd

        device = self.to_device()
        mean, *banks = (torch.from_numpy(np.array(self.parts[name])).to(device) for name in self.kept[:3])
        small_weight, large_weight = (float(1 / max(spread, 1e-12)) for spread in self.parts["bank.spread"])
        weights = disc_weights(self.options["patch_px"], self.options["stride"]) * small_weight * large_weight
        scores = np.empty(target.n_obs)
        for start in range(0, target.n_obs, ENCODED_AT_ONCE * 8):
            rows = slice(start, start + ENCODED_AT_ONCE * 8)
            images = torch.from_numpy(np.ascontiguousarray(target.obsm["patches"][rows])).to(device)
            grids = _codes(self.net, images, mean, self.options["stride"])
            small, large = (
                patch_svdd.nearest(codes, bank).view(len(images), -1).double().cpu().numpy()
                for codes, bank in zip(grids, banks, strict=True)
            )
            scores[rows] = np.einsum("nl,ls,ns->n", large, weights, small, optimize=True)
        return scores

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained encoder; its widths are fixed."""
        from ctrflow.nets.patch_svdd import Encoder

        return Encoder()


def disc_weights(px: int, stride: int) -> np.ndarray:
    """The weight in a score of the product of a large and a small square's distances, (large x small); sums to 1.

    A pixel's value in a map is the mean over the squares that cover it, and the score the mean, over the pixels of the
    disc of half the width, of the product of two maps.
    """
    from ctrflow.nets.patch_svdd import LARGE, SMALL, large_step

    large, small = _coverage(px, LARGE, large_step(stride)), _coverage(px, SMALL, stride)
    return large.T @ small / len(small)


def _coverage(px: int, side: int, step: int) -> np.ndarray:
    """The share of each square in the map's value at each pixel of the disc, (pixels x squares)."""
    starts = np.arange(0, px - side + 1, step)
    along = np.arange(px)
    over = (along[:, None] >= starts) & (along[:, None] < starts + side)  # pixels x squares, along one axis
    y, x = np.nonzero((along[:, None] + 0.5 - px / 2) ** 2 + (along + 0.5 - px / 2) ** 2 <= (px / 4) ** 2)
    both = (over[y][:, :, None] & over[x][:, None, :]).reshape(len(y), -1)
    return both / both.sum(axis=1, keepdims=True)


def _mean_colour(patches: np.ndarray) -> np.ndarray:
    """(3,) float32 in [0, 1]."""
    total = sum(
        patches[start : start + 1024].sum(axis=(0, 1, 2), dtype=np.int64) for start in range(0, len(patches), 1024)
    )
    return (total / (patches[..., 0].size * 255)).astype(np.float32)


def _codes(encoder, images, mean, stride: int) -> tuple:
    """The codes of small and of large squares of images, uint8 (spots x px x px x 3): each (spots * squares x 64)."""
    import torch

    from ctrflow.nets.patch_svdd import CODE, scaled

    with torch.inference_mode():
        grids = [encoder.grid(scaled(block, mean), stride) for block in images.split(ENCODED_AT_ONCE)]
    return tuple(torch.cat([codes.reshape(-1, CODE) for codes in size]) for size in zip(*grids, strict=True))
