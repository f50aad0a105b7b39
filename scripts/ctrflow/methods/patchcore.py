"""Nearest normal spot on joint features: a plain one-class baseline after PatchCore.

Genes and image features are z-scored, clipped, and averaged over a spot and its six neighbours. Each modality gets the
same weight: its features are divided by their root mean squared length in the reference. A tenth of the reference
spots, and at least 470, is kept as a memory bank, by greedy k-centre. A spot's score is its distance to the nearest
member of the bank, in all features: what normal tissue does not vary in counts as much as what it does.

Source: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022
(amazon-science/patchcore-inspection, 2022), for neighbourhood, bank and distance.

Deviations: expression beside the image, each z-scored, and the neighbourhood is one of spots in place of the pixels of
a feature map. Channels are not pooled to 1,024. As in the published code the distance is not re-weighted; it is not
squared either, as there. A tenth of a few hundred spots would not cover them: 470 members are in the smallest published
bank, and `coreset_least: 1` keeps a tenth of however few. Greedy k-centre starts with a random row; the published code
starts with the row farthest, on average, from ten random ones, and projects to 128 dimensions in place of the number
that the bound gives. Features are averaged, not the results as in `linear`: a distance does not average out the noise
of its features.

Features are z-scored with the statistics of the reference (`scaling: reference`), because the score is the distance
from normal tissue. Statistics of the spot's own section (`section`) remove the shift between platforms and stains, and
with it what all spots of the section share: where half of them are cancer, cancer and normal tissue end up at equal
distances on either side of the mean, and where most are, the order is reversed. So use `section` for a target on
another platform than the reference, in which cancer is the smaller part.
"""

import numpy as np

from ctrflow.features.blocks import matrix, section_rows
from ctrflow.features.components import averaged, clipped
from ctrflow.features.learned_from import capped, require_spots
from ctrflow.features.memory_bank import LEAST, coreset, nearest
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.scaling import reference_scaled, reference_statistics, section_scaled
from ctrflow.methods import MAX_REFERENCE_SPOTS, MODALITIES, MethodSpec, Option

SPEC = MethodSpec(
    name="patchcore",
    regime="normal_reference",
    modalities=MODALITIES,
    dense=4,
    options={
        "modalities": Option(list(MODALITIES), "modalities to read", MODALITIES),
        "scaling": Option(
            "reference",
            "z-scores with the statistics of the reference, or of the spot's own section",
            ("reference", "section"),
        ),
        "coreset_share": Option(0.1, "share of the reference spots kept in the memory bank", above=0, most=1),
        "coreset_least": Option(LEAST, "reference spots kept at least, if there are as many", least=1),
        "neighbours": Option(6, "nearest spots over which features are averaged, with the spot itself; 0 for none"),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"full": {}},
    reference="Nearest normal spot on joint features; PatchCore, CVPR 2022",
)


class Model:
    """What turns each modality into joint features, and the memory bank of them."""

    def __init__(self, scales: dict[str, dict[str, np.ndarray]], bank: np.ndarray, options: dict):
        self.scales = scales
        self.bank = bank
        self.options = options

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Learn scales and memory bank from normal spots.

        Raises
        ------
        InputError
            with fewer than 2 of them, which have no spread.
        """
        require_spots("patchcore", train.n_obs, 2, train.obs["section"])
        rows = capped(train.n_obs, options["max_reference_spots"], seed)
        around = _around(train, options)[rows]
        names = [name for name in MODALITIES if name in options["modalities"]]
        scales = {name: _scale(train, name, rows, around, options) for name in names}
        joint = _joint(train, scales, around)
        kept = coreset(joint, options["coreset_share"], options["coreset_least"], seed)
        return cls(scales, joint[kept], options)

    def score(self, target) -> np.ndarray:
        """Distance to the memory bank."""
        distances = np.empty(target.n_obs)
        for _, rows in section_rows(target.obs["section"]):
            view = target[rows]
            joint = _joint(view, self.scales, _around(view, self.options))
            distances[rows] = nearest(joint, self.bank)[0][:, 0]
        return distances

    def tensors(self) -> dict[str, np.ndarray]:
        """The bank, and statistics and length of each modality."""
        return {"bank": self.bank} | {
            f"{name}.{key}": scale[key] for name, scale in self.scales.items() for key in scale
        }

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        scales: dict = {}
        for key in tensors:
            if key != "bank":
                name, part = key.split(".")
                scales.setdefault(name, {})[part] = tensors[key]
        return cls({name: scales[name] for name in MODALITIES if name in scales}, tensors["bank"], options)


def _joint(view, scales: dict, around: np.ndarray) -> np.ndarray:
    """Features of both modalities at equal weight, means over `around`: (its rows x all features) float32."""
    return np.hstack([_averaged(view, name, scale, around) / scale["length"] for name, scale in scales.items()])


def _scale(view, modality: str, rows: np.ndarray, around: np.ndarray, options: dict) -> dict[str, np.ndarray]:
    """A modality's statistics over the reference spots `rows`, if asked for, and its length there (1,)."""
    scale = {}
    if options["scaling"] == "reference":
        scale = dict(zip(("mean", "sd"), reference_statistics(matrix(view, modality)[rows]), strict=True))
    features = _averaged(view, modality, scale, around)
    features -= features.mean(axis=0)
    length = np.sqrt(np.einsum("ij,ij->i", features, features).mean(dtype=np.float64))
    return scale | {"length": np.array([length if length > 1e-9 else 1.0], dtype=np.float32)}


def _averaged(view, modality: str, scale: dict, around: np.ndarray) -> np.ndarray:
    return averaged(_scaled(view, modality, scale), around)


def _scaled(view, modality: str, scale: dict) -> np.ndarray:
    """z-scores by the reference's statistics, where there are any, or by those of each section; clipped, float32."""
    features = matrix(view, modality)
    if "mean" not in scale:
        return clipped(section_scaled(features, view.obs["section"].to_numpy(), "zscore"))
    return clipped(reference_scaled(features, scale["mean"], scale["sd"]))


def _around(view, options: dict) -> np.ndarray:
    return nearest_within(view.obsm["spatial"], view.obs["section"].to_numpy(), options["neighbours"])
