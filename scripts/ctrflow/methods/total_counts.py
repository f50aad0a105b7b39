"""Control: the total count of a spot. Tumour is often cell-rich, so a method must do better than counting."""

import numpy as np

from ctrflow.methods import MethodSpec

SPEC = MethodSpec(
    name="total_counts",
    regime="control",
    modalities=("gene",),
    seeded=False,
    minutes=10,
    reference="Control: library size of the spot, all genes.",
)


class Model:
    """Nothing to learn."""

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """Nothing to load."""
        return cls()

    def score(self, target) -> np.ndarray:
        """log10(1 + counts of the spot), a monotone scale that a mixture can be fitted to."""
        return np.log10(1 + target.obs["total_counts"].to_numpy(dtype=float))
