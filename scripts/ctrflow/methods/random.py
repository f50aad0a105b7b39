"""Negative control: a uniform random score per spot."""

import numpy as np

from ctrflow.methods import MethodSpec

SPEC = MethodSpec(
    name="random",
    regime="control",
    modalities=(),
    minutes=10,
    reference="Negative control: what a score without information gets.",
)


class Model:
    """A seeded generator."""

    def __init__(self, seed: int):
        self.seed = seed

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """Nothing to load but the seed."""
        return cls(seed)

    def score(self, target) -> np.ndarray:
        """Uniform in [0, 1)."""
        return np.random.default_rng(self.seed).random(target.n_obs)
