"""f-AnoGAN: patches that a generator of normal tissue cannot rebuild (METHODS.md card 3.10).

A Wasserstein GAN with gradient penalty learns to generate patches of the normal reference; an encoder learns the latent
of a patch, and the score of a spot is the difference of its patch and the rebuilt one, in pixels and in the critic's
features. Schlegl et al., Medical Image Analysis 2019; layers and training as in A03ki/f-AnoGAN (2022), a port to
PyTorch by a third party. The authors' own network (tSchlegl/f-AnoGAN, 2019) has residual blocks and a latent of 128,
and its encoder is trained with RMSProp. Both mirror patches at random in training, and so does this code.

Deviations from the port
------------------------
- The critic is normalised within each image, as the paper of the gradient penalty requires and the authors do. Over
  the batch, as in the port, the mean of its last features is the same for any batch, so the critic cannot tell real
  patches from generated ones by properties uniform over a patch, such as its colour; `critic_norm: batch` restores it.
- Patches are not mirrored while scoring; the port does it at random, the authors do not.
- Batch normalisation has PyTorch's epsilon 1e-5; the port passes 0.8 for it, meant as a momentum.
- The gradient penalty mixes real and generated images with one share per image, as in its paper and the authors'
  code, not per channel.
- Critic steps are counted across epochs, as the authors do; the port restarts the count in each and so favours the
  generator where epochs are short.

Cost: linear in spots, and dominated by the generator; `patch_px` 32 takes a quarter of the time of 64.
"""

import logging

import numpy as np

from ctrflow.errors import InputError
from ctrflow.features.learned_from import capped
from ctrflow.methods import MAX_REFERENCE_SPOTS, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 64  # patches: 128 channels of 64 x 64 pixels take 2 MB each

SPEC = MethodSpec(
    name="fanogan",
    regime="normal_reference",
    modalities=("image",),
    needs=("patches",),
    gpu=True,
    minutes=1440,
    options={
        "patch_um": Option(100.0, "side of a patch in µm", above=0),
        "patch_px": Option(64, "side of a patch in pixels, a multiple of 16", least=16),
        "epochs": Option(300, "epochs of generator and critic", least=1),
        "epochs_encoder": Option(300, "epochs of the encoder", least=1),
        "learning_rate": Option(2e-4, "Adam, both stages", above=0),
        "batch_size": Option(32, "patches per step, at most", least=2),
        "critic_steps": Option(5, "critic steps per generator step", least=1),
        "gradient_penalty": Option(10.0, "weight of the penalty on the critic's gradient"),
        "critic_norm": Option(
            "layer", "normalisation of the critic; the repository: over the batch", ("layer", "batch")
        ),
        "kappa": Option(1.0, "weight of the critic's features, in the encoder's loss and in the score"),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={
        "paper": {},
        "fast": {
            "patch_px": 32,
            "max_reference_spots": 500,
            "epochs": 10,
            "epochs_encoder": 5,
            "learning_rate": 1e-3,
            "batch_size": 16,
        },
    },
    reference="f-AnoGAN, Medical Image Analysis 2019",
)


class Model(NetworkModel):
    """Generator, critic and encoder."""

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Learn from the patches of a normal reference.

        Raises
        ------
        InputError
            for a patch side that is not a multiple of 16, and with fewer than 2 reference spots.
        """
        import torch

        from ctrflow.nets import fanogan, training

        side = _side(train)
        rows = capped(train.n_obs, options["max_reference_spots"], seed)
        if len(rows) < 2:
            raise InputError(
                f"method fanogan: {len(rows)} reference spot; it needs at least 2: name more sections under `normal` "
                "of the study, or raise the option `max_reference_spots`"
            )
        device = training.start(seed)
        net = fanogan.FAnoGAN(side, options["critic_norm"]).to(device)
        patches = torch.from_numpy(np.ascontiguousarray(train.obsm["patches"][rows])).to(device)
        logger.info("f-AnoGAN on %d patches of %d px, %s", len(rows), side, device.type)
        losses = fanogan.contest(net, patches, options, seed) + fanogan.invert(net, patches, options, seed)
        return cls(net.cpu().eval(), options, seed, losses=losses)

    def score(self, target) -> np.ndarray:
        """Mean squared difference of a patch and its rebuilt one, plus kappa times that of the critic's features."""
        import torch

        from ctrflow.nets.fanogan import as_images

        def distance(rows, device):
            patches = torch.from_numpy(np.ascontiguousarray(target.obsm["patches"][rows])).to(device)
            pixels, features = self.net.distances(as_images(patches))
            return (pixels + self.options["kappa"] * features).double()

        return self.in_blocks(target.n_obs, SCORED_AT_ONCE, distance)

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network for the patch side of the tensors."""
        from ctrflow.nets import fanogan

        return fanogan.FAnoGAN(fanogan.side(tensors), options["critic_norm"])


def _side(view) -> int:
    """The patch side in pixels, if it can be halved four times."""
    side = view.obsm["patches"].shape[1]
    if side % 16:
        raise InputError(
            f"method fanogan: option `patch_px` is {side}; give a multiple of 16, such as 32 or 64: the critic halves "
            "a patch four times"
        )
    return side
