"""STAGE: an autoencoder of the expression whose one-dimensional latent is the label (METHODS.md card 3.2).

Li et al., Nucleic Acids Research 2024 (zhanglabtools/STAGE), a method that generates expression between spots by
giving the latent the coordinates of the spot. Adapted as described by SpaCRD's authors: the latent is the label.

Deviations

- The sliced Wasserstein distance is one sort of the batch: in one dimension all 1,000 random projections are plus or
  minus the identity and give the same value. This is exact.
- The score is the latent z. Its ReLU makes z of every spot on the far side of the boundary exactly 0, equal scores
  that can be neither ranked nor cut; by default (`score: linear`) the score is the ReLU's input, which equals z
  wherever z is above 0. `score: relu` is z itself.
- Labels have far fewer values than coordinates: a bad start could leave all z at 0, where no loss has a gradient. The
  bias of the latent therefore starts at 0.5, halfway between the labels.
- Spots without a label are not used.
"""

import numpy as np

from ctrflow.features.learned_from import labelled_rows
from ctrflow.methods import MethodSpec, Option
from ctrflow.nets.model import NetworkModel

SCORED_AT_ONCE = 4096  # spots: dense, 50 MB at 3,000 genes

SPEC = MethodSpec(
    name="stage",
    regime="labelled_source",
    modalities=("gene",),
    gpu=True,
    dense=2,
    options={
        "epochs": Option(2000, "passes over the labelled spots", least=1),
        "learning_rate": Option(1e-3, "Adam", above=0),
        "batch_size": Option(512, "spots per step, at most", least=2),
        "score": Option("linear", "the latent before its ReLU, or after it", ("linear", "relu")),
    },
    presets={"paper": {}, "fast": {"epochs": 50}},
    reference="STAGE (Li et al., Nucleic Acids Research 2024), adapted as in SpaCRD, AAAI 2026",
)


class Model(NetworkModel):
    """A trained autoencoder."""

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
        genes = torch.from_numpy(_dense(train.X[rows])).to(device)
        losses = stage.train(net, genes, torch.from_numpy(labels[rows]).to(device), options, seed)
        return cls(net.cpu().eval(), options, seed, losses=losses)

    def score(self, target) -> np.ndarray:
        """The latent, (spots,); see the option `score`."""
        import torch

        def latent(rows, device):
            values = self.net.latent(torch.from_numpy(_dense(target.X[rows])).to(device)).double()
            return values.relu() if self.options["score"] == "relu" else values

        return self.in_blocks(target.n_obs, SCORED_AT_ONCE, latent)

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of the tensors."""
        from ctrflow.nets.stage import STAGE

        return STAGE(tensors["encoder.0.weight"].shape[1])


def _dense(genes) -> np.ndarray:
    return genes.toarray().astype(np.float32, copy=False)
