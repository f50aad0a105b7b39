"""STANDS: spots that a generator of normal tissue cannot rebuild from their surroundings (METHODS.md card 3.4).

A generator of two modalities reads a spot and its neighbours by graph attention, fuses expression and image by cross
attention, and rebuilds both; a critic learns to tell rebuilt from real spots. A spot's score is 1 - cosine of the
critic's outputs for it and its rebuilt form. Xu et al., Nature Communications 2024; Catchxu/STANDS (2026).

Deviations
----------
- Higher is more anomalous, as in the paper; the newest commit returns the scaled similarity, which is normality.
- The score is not scaled to [0, 1] within the section: that changes no order within it, lets single spots set the
  scale, and makes the reference's scores, the basis of the threshold's prior, incomparable with the target's.
  `score_scale: minmax` restores it.
- Image features are averaged over the patch before the graph attention. Flattened, as in the code, a patch of 112 px
  would make it 533 million parameters, against 68.19 million printed.
- The extractor is pre-trained in two stages: reader and writer of the image first, from patches alone, so that folds
  and variants share them; then the other parts on both modalities with the reader frozen, so that it runs once.
- Fusion has no query and key projections: with one token to attend to they have no effect.
- The critic's gradient penalty is on the mean of its 16 outputs, which it is trained on, by both modalities, mixed with
  one share; the code's is on their sum, by expression alone, with a second share for the image.
- Rotated patches are filled with their mirror image, not with black corners. Augmentations are drawn once before each
  stage of pre-training and training, as in the code, not in every epoch; patches are scored without, while the code
  augments those of the target too unless told otherwise.
- Expression is that of the fold, log-normalised to 10,000 counts, without rules for single genes (MT-, ERCC).
- The last, smaller batch of an epoch is kept. The memory block, bypassed in the code, is left out.

The score is high where the critic distinguishes a spot from its rebuilt form, but the critic is trained to distinguish
those of normal spots. So nothing fixes the order: with a small reference it changes from epoch to epoch, and a critic
that wins can rank normal spots above others. No sign is flipped for that, and no epoch is picked.

Cost: linear in spots, and mostly the penalty's second derivatives through the critic's ResNet; at 64 px cap the spots
learned from (`max_reference_spots`).
"""

import logging

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features.learned_from import capped
from ctrflow.features.scaling import section_scaled
from ctrflow.methods import MODALITIES, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

SPEC = MethodSpec(
    name="stands",
    regime="normal_reference",
    modalities=MODALITIES,
    needs=("patches",),
    gpu=True,
    minutes=1440,
    memory_mb=12000,
    threshold="map_em",
    pretrain=("patch_um", "patch_px", "epochs_image", "learning_rate_pretrain", "batch_size", "max_reference_spots"),
    options={
        "patch_um": Option(100.0, "side of a patch in µm", above=0),
        "patch_px": Option(64, "side of a patch in pixels, a multiple of 4", least=8),
        "max_reference_spots": Option(
            0, "maximum number of reference spots to learn from, drawn at random; 0 for all. Others serve as neighbours"
        ),
        "neighbours": Option(4, "nearest spots linked to a spot", least=1),
        "epochs_image": Option(50, "epochs of the image's reader and writer alone", least=1),
        "epochs_extractor": Option(50, "epochs of the generator before adversarial training", least=1),
        "epochs": Option(10, "epochs of generator and critic", least=1),
        "learning_rate_pretrain": Option(1e-4, "Adam, before adversarial training", above=0),
        "learning_rate": Option(2e-4, "Adam, in adversarial training", above=0),
        "batch_size": Option(128, "spots per step, at most", least=2),
        "critic_steps": Option(3, "critic steps per generator step", least=1),
        "reconstruction_weight": Option(50.0, "weight of the rebuilt spot's error in the generator's loss"),
        "gradient_penalty": Option(10.0, "weight of the penalty on the critic's gradient"),
        "score_scale": Option("none", "1 - cosine, or [0, 1] within the section", ("none", "minmax")),
    },
    presets={
        "paper": {},
        "fast": {
            "patch_px": 32,
            "max_reference_spots": 200,
            "epochs_image": 4,
            "epochs_extractor": 6,
            "epochs": 2,
            "learning_rate_pretrain": 1e-3,
            "batch_size": 16,
            "critic_steps": 1,
        },
    },
    reference="STANDS, Nature Communications 2024",
)


class Model(NetworkModel):
    """The trained generator and critic, and the scores of the spots learned from, float64."""

    kept = ("reference_scores",)

    @classmethod
    def pretrain(cls, train, options: dict, seed: int) -> tuple[dict[str, np.ndarray], list[dict]]:
        """First stage, on the patches of the reference alone: image reader and writer, and their losses."""
        from ctrflow.nets import stands_stages, training

        device = training.start(seed)
        patches = train.obsm["patches"][_learned(train, options, seed)]
        _require_side(patches.shape[1])
        net, losses = stands_stages.pretrain(patches, options, seed, device)
        return training.to_numpy(net), losses

    @classmethod
    def fit(cls, train, options: dict, seed: int, pretrained: dict[str, np.ndarray] | None = None) -> "Model":
        """Train on the spots of normal sections; `pretrained` are the tensors from `pretrain`.

        Raises
        ------
        InputError
            with fewer than 2 reference spots, and for a patch side that is not a multiple of 4.
        """
        from ctrflow.nets import stands, stands_stages, training
        from ctrflow.nets.tissue import tissue_of

        learned, losses, side = _learned(train, options, seed), [], train.obsm["patches"].shape[1]
        _require_side(side)
        if pretrained is None:
            pretrained, losses = cls.pretrain(train, options, seed)
        device = training.start(seed)
        net = stands.STANDS(train.n_vars, side)
        for part in ("reader", "writer"):
            training.from_numpy(getattr(net.generator, part), training.under(pretrained, f"{part}."))
        net.to(device)
        logger.info("STANDS on %d spots of %d, %s", len(learned), train.n_obs, device.type)
        plain = tissue_of(train, options["neighbours"], device)
        tissue = stands_stages.with_augmented(plain, seed)
        losses += stands_stages.extract(net, tissue, learned, options, seed)
        losses += stands_stages.contest(net, tissue, learned, options, seed)
        scores = stands_stages.scores(net, plain, learned)
        parts = {"reference_scores": _scaled(scores, train.obs["section"].to_numpy()[learned], options)}
        return cls(net.cpu().eval(), options, seed, parts, losses)

    def score(self, target) -> np.ndarray:
        """1 - cosine of the critic's outputs for the real and the rebuilt spot; in [0, 1] with `score_scale` minmax."""
        from ctrflow.nets import stands_stages
        from ctrflow.nets.tissue import tissue_of

        tissue = tissue_of(target, self.options["neighbours"], self.to_device())
        scores = stands_stages.scores(self.net, tissue, np.arange(target.n_obs))
        return _scaled(scores, target.obs["section"].to_numpy(), self.options)

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network for the genes and the patch side of the tensors."""
        from ctrflow.nets import stands

        return stands.STANDS(*stands.sizes(tensors))


def _learned(train, options: dict, seed: int) -> np.ndarray:
    """The rows of the reference to learn from."""
    rows = capped(train.n_obs, options["max_reference_spots"], seed)
    if len(rows) < 2:
        raise InputError(
            f"method stands: {len(rows)} spot to learn from in the normal sections "
            f"{first_few(dict.fromkeys(train.obs['section']))}; it needs at least 2: name other sections under "
            "`normal` of the study, or raise the option `max_reference_spots`"
        )
    return rows


def _require_side(side: int) -> None:
    if side % 4:
        raise InputError(
            f"method stands: option `patch_px` is {side}; give a multiple of 4, such as 32 or 64: patches are halved "
            "twice and doubled again"
        )


def _scaled(scores: np.ndarray, sections: np.ndarray, options: dict) -> np.ndarray:
    if options["score_scale"] == "none":
        return scores
    return section_scaled(scores[:, None], sections, "minmax")[:, 0]
