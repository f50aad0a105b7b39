"""Control: how dark the H&E of a spot is. Tumour is often cell-rich, so a method must do better than its stain."""

import numpy as np

from ctrflow.features.neighbours import nearest_within
from ctrflow.methods import MethodSpec, Option

BLACK = 10  # darker in all channels: not scanned (some slides are cut out on black), so not stained

SPEC = MethodSpec(
    name="darkness",
    regime="control",
    modalities=("image",),
    needs=("patches",),
    seeded=False,
    options={
        "patch_um": Option(200.0, "side of the square around a spot, µm", above=0),
        "patch_px": Option(64, "side of that square, px", least=8),
        "neighbours": Option(6, "spots whose values are averaged with the spot's own, as in `linear`; 0 for none"),
    },
    minutes=10,
    reference="Control: mean optical density of the H&E around the spot.",
)


class Model:
    """Nothing to learn."""

    def __init__(self, options: dict):
        self.options = options

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """Nothing to load but the options."""
        return cls(options)

    def score(self, target) -> np.ndarray:
        """Mean optical density over the patch, red, green and blue, and over the spot and its neighbours."""
        density = np.array([optical_density(patch) for patch in target.obsm["patches"]])
        around = nearest_within(target.obsm["spatial"], target.obs["section"].to_numpy(), self.options["neighbours"])
        return density[around].mean(axis=1)


def optical_density(patch: np.ndarray) -> float:
    """Mean of -log10 of the transmitted light (Beer-Lambert), which is 1 at the value 255; uint8 h x w x 3."""
    density = -np.log10((patch.astype(np.float64) + 1) / 256)
    density[patch.max(axis=-1) <= BLACK] = 0
    return float(density.mean())
