"""Positive control: the truth itself as score. Every metric must be perfect, or the evaluation is wrong."""

import numpy as np

from ctrflow.methods import MethodSpec

SPEC = MethodSpec(
    name="oracle",
    regime="control",
    modalities=(),
    needs=("truth",),
    seeded=False,
    minutes=10,
    reference="Positive control; the only method that is handed the truth.",
)


class Model:
    """Reads obs["label"] of the target, which only its rule adds."""

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """Nothing to load."""
        return cls()

    def score(self, target) -> np.ndarray:
        """1 cancer, 0 other, 0.5 unknown."""
        return np.nan_to_num(target.obs["label"].to_numpy(dtype=float), nan=0.5)
