"""STAGE: an autoencoder of the expression whose one-dimensional latent is the label (METHODS.md card 3.2).

Li et al., Nucleic Acids Research 2024 (zhanglabtools/STAGE), a method that generates expression between spots by
giving the latent the coordinates of the spot. Adapted as SpaCRD's authors say they did: the latent is the label.

Deviations

- The sliced Wasserstein distance is one sort of the batch: in one dimension all 1,000 random projections are plus or
  minus the identity and give the same value. This is exact.
- The score is the latent z. Its ReLU makes z of every spot on the far side of the boundary exactly 0, equal scores
  that can be neither ranked nor cut; by default (`score: linear`) such a spot has what the ReLU was given, so that z is
  as it is wherever it is above 0. `score: relu` gives z itself.
- Labels are far fewer values than coordinates: a wrong start could leave all z at 0, where no loss has a gradient. The
  bias of the latent therefore starts at 0.5, halfway between the labels.
- Spots without a label take part in nothing.
"""

import numpy as np

from ctrflow.features.learned_from import labelled_rows
from ctrflow.methods import MethodSpec, Option

SCORED_AT_ONCE = 4096  # spots: dense, 50 MB of 3,000 genes

SPEC = MethodSpec(
    name="stage",
    regime="labelled_source",
    modalities=("gene",),
    gpu=True,
    dense=2,
    options={
        "epochs": Option(2000, "passes over the labelled spots", least=1),
        "learning_rate": Option(1e-3, "Adam", above=0),
        "batch_size": Option(512, "spots a step, at most", least=2),
        "score": Option("linear", "the latent before its ReLU, or after it", ("linear", "relu")),
    },
    presets={"paper": {}, "fast": {"epochs": 50}},
    reference="STAGE (Li et al., Nucleic Acids Research 2024), adapted as in SpaCRD, AAAI 2026",
)


class Model:
    """A trained network and the losses of its training."""

    def __init__(self, net, options: dict):
        self.net = net
        self.options = options
        self.losses: list[dict] = []

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Train on the labelled spots of the training view.

        Raises
        ------
        InputError
            where one of the classes has no spot.
        """
        import torch

        from ctrflow.nets import stage, training

        labels, rows = labelled_rows(train, SPEC.name)
        device = training.start(seed)
        net = stage.STAGE(train.n_vars).to(device)
        model = cls(net, options)
        genes = torch.from_numpy(_dense(train.X[rows])).to(device)
        model.losses = stage.train(net, genes, torch.from_numpy(labels[rows]).to(device), options, seed)
        net.cpu().eval()
        return model

    def score(self, target) -> np.ndarray:
        """The latent, (spots,); see the option `score`."""
        import torch

        from ctrflow.nets import training

        device = training.start(0)
        net = self.net.to(device).eval()
        found = []
        with torch.inference_mode():
            for start in range(0, target.n_obs, SCORED_AT_ONCE):
                genes = torch.from_numpy(_dense(target.X[start : start + SCORED_AT_ONCE])).to(device)
                found.append(net.latent(genes).double().cpu())
        latent = torch.cat(found)
        return (latent.relu() if self.options["score"] == "relu" else latent).numpy()

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights and running statistics."""
        from ctrflow.nets import training

        return training.to_numpy(self.net)

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from; layer widths are read off the tensors."""
        from ctrflow.nets import training
        from ctrflow.nets.stage import STAGE

        net = STAGE(tensors["encoder.0.weight"].shape[1])
        training.from_numpy(net, tensors)
        return cls(net.eval(), options)


def _dense(genes) -> np.ndarray:
    return genes.toarray().astype(np.float32, copy=False)
