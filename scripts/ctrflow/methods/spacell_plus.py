"""SpaCell-Plus: an autoencoder of the image, one of the expression, and a classifier on their latents (METHODS.md 3.1).

SpaCell (Tan et al., Bioinformatics 2020; BiomedicalMachineLearning/Spacell, 2019) as SpaCRD's authors adapted it: two
independent autoencoders with concatenated latents of one width, and SpaCRD's discriminator, trained with labels.

Deviations. The adaptation is not public, and widths, losses and schedule are not given: ours are in card 3.1.

- The image is the features of the study's encoder, not the tiles through ResNet50.
- Reconstruction by squared error, the default of SpaCell's function, not of its script (cross-entropy); its weight is
  `reconstruction_weight`.
- Features are always scaled to [0, 1] within each section: SpaCell's script, which reads one section, has a switch.
- One network end to end. SpaCell trains the autoencoder first; its end-to-end classifier feeds the tile branch into
  the gene branch by mistake.
- Spots without a label are not used.
"""

import numpy as np

from ctrflow.features.blocks import matrix
from ctrflow.features.learned_from import labelled_rows
from ctrflow.features.scaling import section_scaled
from ctrflow.methods import MODALITIES, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

SPEC = MethodSpec(
    name="spacell_plus",
    regime="labelled_source",
    modalities=MODALITIES,
    gpu=True,
    dense=4,
    options={
        "modalities": Option(list(MODALITIES), "modalities to read, each with an autoencoder", MODALITIES),
        "epochs": Option(100, "passes over the labelled spots", least=1),
        "learning_rate": Option(1e-4, "Adam", above=0),
        "batch_size": Option(512, "spots per step, at most", least=2),
        "latent": Option(64, "width of each latent", least=1),
        "reconstruction_weight": Option(
            1.0, "weight of each modality's squared error relative to the classification loss"
        ),
    },
    presets={"paper": {}, "fast": {"epochs": 30}},
    reference="SpaCell (Tan et al., Bioinformatics 2020), adapted as in SpaCRD, AAAI 2026",
)


class Model(NetworkModel):
    """The trained autoencoders and classifier."""

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Train on the labelled spots of the training view.

        Raises
        ------
        InputError
            where one of the classes has no spot.
        """
        import torch

        from ctrflow.nets import spacell_plus, training

        labels, rows = labelled_rows(train, SPEC.name)
        features = _features(train, options["modalities"])
        device = training.start(seed)
        net = _network({name: value.shape[1] for name, value in features.items()}, options).to(device)
        known = {name: torch.from_numpy(value[rows]).to(device) for name, value in features.items()}
        losses = spacell_plus.train(net, known, torch.from_numpy(labels[rows]).to(device), options, seed)
        return cls(net.cpu().eval(), options, seed, losses=losses)

    def score(self, target) -> np.ndarray:
        """Sigmoid of the discriminator's logit, (spots,)."""
        import torch

        device, features = self.to_device(), _features(target, self.options["modalities"])
        with torch.inference_mode():
            logits = self.net.logit({name: torch.from_numpy(value).to(device) for name, value in features.items()})
        return torch.sigmoid(logits.double()).cpu().numpy()

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of the tensors."""
        widths = {name: tensors[f"autoencoders.{name}.encode.0.weight"].shape[1] for name in options["modalities"]}
        return _network(widths, options)


def _network(widths: dict[str, int], options: dict):
    from ctrflow.nets.spacell_plus import SpaCellPlus

    return SpaCellPlus({name: widths[name] for name in MODALITIES if name in widths}, options["latent"])


def _features(view, modalities) -> dict[str, np.ndarray]:
    """Modality -> (spots x features) float32 in [0, 1] within each section (METHODS.md 1.3)."""
    sections = view.obs["section"].to_numpy()
    return {
        name: section_scaled(np.asarray(matrix(view, name), dtype=np.float32), sections, "minmax")
        for name in MODALITIES
        if name in modalities
    }
