"""SimpleNet: a discriminator between image features of normal tissue and the same with noise (METHODS.md card 3.6).

A linear adapter transforms a spot's image features, Gaussian noise is added to a copy, and a small network learns to
distinguish the two. A spot's score is minus that network's output for its adapted features without noise.

Source: Liu et al., SimpleNet: A Simple Network for Image Anomaly Detection and Localization, CVPR 2023
(DonaldRR/SimpleNet, 2023-12, MIT).

Deviations:

- The spot's cached feature vector is the only patch. The original pools two layers of a WideResNet50 over 3 x 3
  positions and takes the highest score of an image: with one vector per spot there is nothing to pool and no maximum,
  and the study chooses the image network (`encoder`).
- Features are z-scored with the statistics of the reference, because the noise has one sd for all of them, and those
  of `hed_texture` differ in scale a thousandfold; `scaling: none` turns it off.
- The noise has sd 0.3 on such features. The original's 0.015 suits the scale of its network's pooled features: on
  z-scored ones the loss stays at 1, that of a constant, and scores are chance. With 0.3 the training loss falls well
  below it within the epochs; no label was used to choose it. `noise_sd: 0.015` restores the original's.
- The weights after the last epoch are used. The original keeps the epoch with the best AUC on the test set.
- A step takes 64 spots, so that 3,000 of them make as many steps as the original takes on some 300 images, 8 at once.
"""

import logging

import numpy as np

from ctrflow.features.learned_from import capped, require_spots
from ctrflow.features.scaling import reference_scaled, reference_statistics
from ctrflow.methods import MAX_REFERENCE_SPOTS, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 4096  # spots: at 1,536 features 25 MB a layer

SPEC = MethodSpec(
    name="simplenet",
    regime="normal_reference",
    modalities=("image",),
    gpu=True,
    options={
        "epochs": Option(160, "training epochs; 40 times 4 in the original", least=1),
        "batch_size": Option(64, "spots per step, at most", least=2),
        "learning_rate": Option(2e-4, "discriminator, Adam", above=0),
        "adapter_learning_rate": Option(1e-4, "adapter, AdamW", above=0),
        "noise_sd": Option(0.3, "sd of the noise on adapted features; 0.015 in the original", above=0),
        "margin": Option(0.5, "of the hinge loss: real features above it, noisy ones below minus it", above=0),
        "scaling": Option(
            "reference", "features z-scored with the reference's statistics, or unscaled", ("reference", "none")
        ),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"paper": {}, "fast": {"epochs": 60, "max_reference_spots": 500}},
    reference="SimpleNet, CVPR 2023",
)


class Model(NetworkModel):
    """A trained network, and mean and sd of the features of the reference."""

    kept = ("reference.mean", "reference.sd")

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Train on normal spots.

        Raises
        ------
        InputError
            with fewer than 2 of them, too few for batch normalisation.
        """
        from ctrflow.nets import simplenet, training

        require_spots("simplenet", train.n_obs, 2, train.obs["section"])
        features = train.obsm["image"][capped(train.n_obs, options["max_reference_spots"], seed)]
        device = training.start(seed)
        net = simplenet.SimpleNet(features.shape[1]).to(device)
        statistics = dict(zip(cls.kept, reference_statistics(features, options["scaling"]), strict=True))
        logger.info("SimpleNet on %d spots, %s", len(features), device.type)
        losses = simplenet.train(net, _scaled(features, statistics).to(device), options, seed)
        return cls(net.cpu().eval(), options, seed, statistics, losses)

    def score(self, target) -> np.ndarray:
        """Minus the discriminator's output, which is trained to be high on normal tissue."""
        features = _scaled(target.obsm["image"], self.parts)
        return -self.in_blocks(
            target.n_obs, SCORED_AT_ONCE, lambda rows, device: self.net(features[rows].to(device)).double()
        )

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of the tensors."""
        from ctrflow.nets.simplenet import SimpleNet

        return SimpleNet(tensors["adapter.weight"].shape[0])


def _scaled(features: np.ndarray, statistics: dict[str, np.ndarray]):
    import torch

    return torch.from_numpy(reference_scaled(features, statistics["reference.mean"], statistics["reference.sd"]))
