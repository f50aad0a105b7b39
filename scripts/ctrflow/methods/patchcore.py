"""Nearest normal spot on joint features: a plain one-class baseline, in the manner of PatchCore.

Genes and image features are z-scored, averaged over a spot and its six neighbours, and reduced to 50 principal
components of the normal reference each. Each modality gets the same weight: components are divided by their root mean
squared length in the reference. A tenth of the reference spots is kept as a memory bank, by greedy k-centre. A spot's
score is its distance to the nearest member of the bank.

Source: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022
(amazon-science/patchcore-inspection, 2022), for neighbourhood, bank and distance.

Deviations: expression beside the image, and the neighbourhood is one of spots in place of the pixels of a feature map;
components in place of channels pooled to 1,024; as in the published code the distance is not re-weighted.
Features are averaged and not, as `linear` does, the results: a distance does not average out what is noise in its
features (a simulated target of 300 spots: AUC 0.89 against 0.85, of expression alone 0.90 against 0.77).

Features are z-scored with the statistics of the reference (`scaling: reference`), because what is asked is how far a
spot lies from normal tissue. Statistics of its own section (`section`) take the shift between platforms and stains
away, and with it what all spots of the section share: where half of them are cancer, cancer and normal tissue come to
lie on either side of the mean at equal distances, and where most are, the order turns round. So that is for a target
on another platform than the reference, in which cancer is the smaller part.
"""

import numpy as np

from ctrflow.features.blocks import matrix, section_rows
from ctrflow.features.components import averaged, clipped, principal_axes
from ctrflow.features.learned_from import capped, require_spots
from ctrflow.features.memory_bank import coreset, nearest
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.scaling import section_scaled
from ctrflow.methods import MAX_REFERENCE_SPOTS, MODALITIES, MethodSpec, Option

SPEC = MethodSpec(
    name="patchcore",
    regime="normal_reference",
    modalities=MODALITIES,
    dense=4,
    options={
        "modalities": Option(list(MODALITIES), "what it reads", MODALITIES),
        "scaling": Option(
            "reference",
            "z-scores with the statistics of the reference, or of the spot's own section",
            ("reference", "section"),
        ),
        "components": Option(50, "principal components of each modality, at most", least=1),
        "coreset_share": Option(0.1, "of the reference spots kept in the memory bank", above=0, most=1),
        "neighbours": Option(6, "nearest spots that features are averaged over, with the spot itself; 0 for none"),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"full": {}},
    reference="Nearest normal spot on joint features; PatchCore, CVPR 2022",
)


class Model:
    """Each modality's way into the joint space, and the memory bank there."""

    def __init__(self, ways: dict[str, dict[str, np.ndarray]], bank: np.ndarray, options: dict):
        self.ways = ways
        self.bank = bank
        self.options = options

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Learn components and memory bank from normal spots.

        Raises
        ------
        InputError
            with fewer than 2 of them, which have no spread.
        """
        require_spots("patchcore", train.n_obs, 2, train.obs["section"])
        rows = capped(train.n_obs, options["max_reference_spots"], seed)
        around = _around(train, options)
        ways, joint = {}, []
        for name in MODALITIES:
            if name not in options["modalities"]:
                continue
            ways[name], found = _learned(train, name, rows, around[rows], options)
            joint.append(found)
        joint = np.hstack(joint)
        return cls(ways, joint[coreset(joint, options["coreset_share"], seed)], options)

    def score(self, target) -> np.ndarray:
        """Distance to the memory bank."""
        distances = np.empty(target.n_obs)
        for _, rows in section_rows(target.obs["section"]):
            view = target[rows]
            # components of averages are averages of components, and these are fewer
            own = np.hstack([_scaled(view, name, way) @ way["axes"] for name, way in self.ways.items()])
            distances[rows] = nearest(averaged(own, _around(view, self.options)), self.bank)[0][:, 0]
        return distances

    def tensors(self) -> dict[str, np.ndarray]:
        """The bank, and statistics and axes of each modality."""
        return {"bank": self.bank} | {f"{name}.{key}": way[key] for name, way in self.ways.items() for key in way}

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        ways: dict = {}
        for key in tensors:
            if key != "bank":
                name, part = key.split(".")
                ways.setdefault(name, {})[part] = tensors[key]
        return cls({name: ways[name] for name in MODALITIES if name in ways}, tensors["bank"], options)


def _learned(train, modality: str, rows: np.ndarray, around: np.ndarray, options: dict) -> tuple[dict, np.ndarray]:
    """A modality's way into the joint space, and where the reference spots `rows` come to lie."""
    way = _statistics(matrix(train, modality)[rows]) if options["scaling"] == "reference" else {}
    features = averaged(_scaled(train, modality, way), around)
    axes = principal_axes(features, options["components"])
    found = features @ axes
    length = np.sqrt(np.square(found - found.mean(axis=0)).sum(axis=1).mean())
    way["axes"] = axes / (length if length > 1e-9 else 1.0)
    return way, features @ way["axes"]


def _statistics(features: np.ndarray) -> dict[str, np.ndarray]:
    sd = features.std(axis=0, dtype=np.float64)
    return {"mean": features.mean(axis=0, dtype=np.float64), "sd": np.where(sd > 1e-9, sd, 1.0)}


def _scaled(view, modality: str, way: dict) -> np.ndarray:
    """z-scores by the statistics of the reference, where the way has them, or of each section; float32."""
    features = matrix(view, modality)
    if "mean" not in way:
        return clipped(section_scaled(features, view.obs["section"].to_numpy(), "zscore"))
    result = features - way["mean"].astype(np.float32)
    result /= way["sd"].astype(np.float32)
    return clipped(result)


def _around(view, options: dict) -> np.ndarray:
    return nearest_within(view.obsm["spatial"], view.obs["section"].to_numpy(), options["neighbours"])
