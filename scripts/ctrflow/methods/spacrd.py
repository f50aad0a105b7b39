"""SpaCRD: alignment, bidirectional cross-attention over the neighbourhood, class-regularised VAE (METHODS.md card 1).

Three stages: contrastive alignment of image and expression; fusion trained to reconstruct itself from a latent pulled
to its class centre; a discriminator on the latent. The preset `paper` follows the text of the paper, and the published
code where the text is silent.
"""

import logging

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features.blocks import Features, matrix, section_rows
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.refit import refit
from ctrflow.features.scaling import Scaled, fits, section_scaled
from ctrflow.methods import MODALITIES, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 1024  # spots: their neighbourhoods take less than 100 MB

SPEC = MethodSpec(
    name="spacrd",
    regime="labelled_source",
    modalities=MODALITIES,
    gpu=True,
    options={
        "modalities": Option(list(MODALITIES), "modalities to read; with only one there is no alignment", MODALITIES),
        "epochs_align": Option(100, "epochs of stage I"),
        "epochs_fuse": Option(50, "epochs of stage II"),
        "epochs_classify": Option(50, "epochs of stage III", least=1),
        "learning_rate": Option(1e-5, "Adam, all stages (S-08)", above=0),
        "batch_size": Option(512, "spots per step, at most (S-09, S-27)", least=2),
        "temperature": Option(0.07, "of the contrastive loss (S-10)", above=0),
        "alpha": Option(0.5, "weight of image -> gene in the contrastive loss", most=1),
        "beta": Option(0.5, "weight of the class divergence (S-06)"),
        "gamma": Option(0.1, "weight of the fusion loss in stage III"),
        "neighbours": Option(6, "nearest spots attended to beside the spot itself (S-23)", least=1),
        "fusion": Option(
            "attention", "attention over the neighbourhood, or the spot's own tokens", ("attention", "concat")
        ),
        "rvae": Option(True, "class-regularised VAE; without it the discriminator reads the fused vector"),
        "normalize_axis": Option(
            "feature",
            "unit vectors per spot; the published code: over the neighbourhood (S-01)",
            ("feature", "neighbour"),
        ),
        "finetune_encoders": Option(
            False, "keep training the encoders in stages II and III (S-02; the published code does)"
        ),
        "separation_weight": Option(0.0, "weight of the negative distance of the class centres (S-03)"),
        "centre_init": Option("apart", "class centres start at -0.5 and +0.5, or both at 0 (S-04)", ("apart", "zero")),
        "recon_reduction": Option(
            "mean", "of the reconstruction error over its 512 dimensions (S-05)", ("mean", "sum")
        ),
        "carry_optimizer": Option(False, "stage III continues stage II's optimiser (S-07)"),
        "scaling": Option("minmax", "of every feature within each section (S-20)", ("minmax", "zscore", "none")),
        "refits": Option(0, "rounds of refitting the scores to the section's own features (docs/enhanced.md)"),
        "score_scale": Option("sigmoid", "of the logits, or [0, 1] within the section (S-15)", ("sigmoid", "minmax")),
    },
    presets={
        "paper": {},
        "reference": {
            "normalize_axis": "neighbour",
            "finetune_encoders": True,
            "separation_weight": 0.1,
            "centre_init": "zero",
            "carry_optimizer": True,
            "score_scale": "minmax",
        },
        # chosen within the source patients (docs/enhanced.md)
        "enhanced": {
            "epochs_align": 20,
            "epochs_fuse": 10,
            "epochs_classify": 20,
            "batch_size": 128,
            "learning_rate": 3e-5,
            "refits": 4,
        },
        # half the epochs of `enhanced`
        "fast": {
            "epochs_align": 10,
            "epochs_fuse": 5,
            "epochs_classify": 10,
            "batch_size": 128,
            "learning_rate": 3e-5,
            "refits": 4,
        },
    },
    reference="SpaCRD, AAAI 2026",
)


class Model(NetworkModel):
    """A trained network, and the preparation of its inputs."""

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Train the three stages on a labelled training view.

        Raises
        ------
        InputError
            with fewer than 2 labelled spots, too few for a batch.
        """
        from ctrflow.nets import spacrd_stages, training

        labels = train.obs["label"].to_numpy(dtype=np.float32)
        _require_labelled(labels, train.obs["section"])
        if len(options["modalities"]) == 1:  # without alignment, only the later stages can train its encoder
            options = options | {"finetune_encoders": True}
        device = training.start(seed)
        model = cls(_network({name: _width(train, name) for name in options["modalities"]}, options), options, seed)
        net = model.net.to(device)
        features, around = model._features(train, device), model._neighbours(train).to(device)
        logger.info("SpaCRD on %d spots, %d parameters, %s", train.n_obs, parameters(net), device.type)
        if len(net.modalities) == 2:
            model.losses += spacrd_stages.align(net, features, options, seed)
        model.losses += spacrd_stages.fuse_and_classify(
            net, features, around, _tensor(labels).to(device), options, seed
        )
        net.cpu().eval()
        return model

    def score(self, target) -> np.ndarray:
        """The discriminator's logits as scores: evaluation mode, no sampling (METHODS.md 1.8)."""
        from scipy.special import expit

        sections = target.obs["section"].to_numpy()
        around = self._neighbours(target)
        logits = self._logits(target, around)
        if self.options["refits"]:
            features = Features(target, self.options["modalities"])
            logits = refit(logits, features, sections, around.numpy(), self.options["refits"])
        if self.options["score_scale"] == "sigmoid":
            return expit(logits)
        return _unit_range(logits, sections)

    def logits(self, target) -> np.ndarray:
        """(spots,) float64, before refits."""
        return self._logits(target, self._neighbours(target))

    def _logits(self, target, around) -> np.ndarray:
        import torch

        from ctrflow.nets import spacrd_stages

        device, net = self.to_device(), self.net
        around, features = around.to(device), self._features(target, device)
        with torch.inference_mode():
            tokens = spacrd_stages.all_tokens(net, features)
            logits = torch.cat([net.logit(net.fuse(tokens, rows)) for rows in around.split(SCORED_AT_ONCE)])
        return logits.double().cpu().numpy()

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of the tensors."""
        widths = {name: tensors[f"encoders.{name}.linear.0.weight"].shape[1] for name in options["modalities"]}
        return _network(widths, options)

    def _features(self, view, device="cpu") -> dict:
        """Modality -> tensor (spots x features), or `Rows` where that would be too large."""
        return {name: _scaled(view, name, self.options["scaling"], device) for name in self.options["modalities"]}

    def _neighbours(self, view):
        return _tensor(nearest_within(view.obsm["spatial"], view.obs["section"].to_numpy(), self.options["neighbours"]))


def parameters(net) -> int:
    """The number of parameters of a network."""
    return sum(value.numel() for value in net.parameters())


def _require_labelled(labels: np.ndarray, sections) -> None:
    known = int((~np.isnan(labels)).sum())
    if known < 2:
        raise InputError(
            f"method spacrd: {known} labelled spot{'' if known == 1 else 's'} in the training sections "
            f"{first_few(dict.fromkeys(sections))}; it needs at least 2, from both classes: name other sections under "
            "`source` of the study, or label more spots"
        )


def _network(widths: dict[str, int], options: dict):
    from ctrflow.nets.spacrd import SpaCRD

    built = {name: options[name] for name in ("fusion", "rvae", "centre_init", "normalize_axis")}
    return SpaCRD({name: widths[name] for name in MODALITIES if name in widths}, **built)


def _unit_range(logits: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Logits to [0, 1] within each section; 0.5 where they are all equal."""
    scores = np.full(len(logits), 0.5)
    for _, rows in section_rows(sections):
        low, high = logits[rows].min(), logits[rows].max()
        if high > low:
            scores[rows] = (logits[rows] - low) / (high - low)
    return scores


def _scaled(view, modality: str, scaling: str, device):
    from ctrflow.nets.spacrd_stages import Rows

    sections = view.obs["section"].to_numpy()
    if not fits((view.n_obs, _width(view, modality))):
        return Rows(Scaled(Features(view, [modality]), sections, scaling), device)
    return _tensor(section_scaled(matrix(view, modality).astype(np.float32), sections, scaling)).to(device)


def _width(view, modality: str) -> int:
    return view.obsm["image"].shape[1] if modality == "image" else view.n_vars


def _tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(array)
