"""The scores of the model that a task with the split `within` builds on, unchanged: what drawing must improve on."""

import numpy as np

from ctrflow.methods import MethodSpec

SPEC = MethodSpec(
    name="prior",
    regime="control",
    modalities=(),
    needs=("prior",),
    threshold="zero",
    minutes=5,
    seeded=False,
    reference="Control: the model from elsewhere, without what is drawn",
)


class Model:
    """Nothing to learn."""

    def score(self, target) -> np.ndarray:
        """The model's scores, in sd above its threshold."""
        return target.obs["prior"].to_numpy(dtype=float)

    def tensors(self) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        return cls()
