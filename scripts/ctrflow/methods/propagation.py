"""Label propagation over space and features: what is drawn in a section spreads over the rest of it.

The refit of `spacrd`'s preset `enhanced` (docs/enhanced.md) with the drawn spots held: in each round the scores are
regressed on the section's principal components and averaged over neighbourhoods. On top of a model from elsewhere it
begins with that model's scores.

Source: label propagation (Zhu & Ghahramani, CMU-CALD-02-107, 2002), with the refit as its step.
"""

import numpy as np

from ctrflow.errors import InputError
from ctrflow.features.blocks import Features
from ctrflow.features.neighbours import nearest
from ctrflow.features.refit import held
from ctrflow.methods import MODALITIES, MethodSpec, Option

HOLD = 2.0  # sd of the scores at which a drawn spot is held, times its class's weight
ROUNDS = 4  # measured on patients A to C of HER2ST, tried on D to F (docs/within.md)

SPEC = MethodSpec(
    name="propagation",
    regime="drawn",
    modalities=("gene",),
    options={
        "image": Option(True, "also reads the image features, where the task has an encoder"),
        "neighbours": Option(6, "spots whose scores are averaged with the spot's own; 0 for none"),
        "rounds": Option(ROUNDS, "rounds of spreading", least=1),
    },
    minutes=10,
    seeded=False,
    reference="Label propagation over a section's principal components and neighbourhoods",
)


class Model:
    """A score for each spot of the section that was drawn in; it scores no other section."""

    def __init__(self, scores: np.ndarray):
        self.scores = np.asarray(scores, dtype=np.float64)

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Spread the drawn labels, obs["label"], over the view of the section."""
        return cls(spread(train, modalities(train, options), options["neighbours"], options["rounds"]))

    def score(self, target) -> np.ndarray:
        """The scores of the section that was learned from.

        Raises
        ------
        InputError
            for another section.
        """
        if target.n_obs != len(self.scores):
            raise InputError(
                f"a drawing of {len(self.scores)} spots scores the section that it learned from, and no other: "
                f"{target.obs['section'].iloc[0]} has {target.n_obs} spots; draw in that one too"
            )
        return self.scores

    def tensors(self) -> dict[str, np.ndarray]:
        """The scores."""
        return {"scores": self.scores}

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        return cls(tensors["scores"])


def modalities(view, options: dict) -> list[str]:
    """What is read: the genes, and the image features that the view has."""
    return [name for name in MODALITIES if name == "gene" or (options["image"] and "image" in view.obsm)]


def balance(labels: np.ndarray) -> np.ndarray:
    """The weight of each drawn spot, (drawn,): both classes weigh the same, and the mean is 1."""
    labels = labels.astype(int)
    return len(labels) / 2 / np.bincount(labels, minlength=2)[labels]


def spread(view, read: list[str], neighbours: int, rounds: int, trust: float = 1.0) -> np.ndarray:
    """The drawn labels of a view of one section spread over it, (spots,) with mean 0 and sd 1.

    `read` are the modalities; `trust` scales the scores of the model to begin with, obs["prior"].
    """
    labels = view.obs["label"].to_numpy(dtype=float)
    rows = np.flatnonzero(~np.isnan(labels))
    values = HOLD * (2 * labels[rows] - 1) * balance(labels[rows])
    start = trust * view.obs["prior"].to_numpy(dtype=float) if "prior" in view.obs else np.zeros(view.n_obs)
    return held(start, Features(view, read), nearest(view.obsm["spatial"], neighbours), rows, values, rounds)
