"""Nearest normal spot on joint features: a plain one-class baseline after PatchCore.

Genes and image features are z-scored, averaged over a spot and its six neighbours, and reduced to 50 principal
components of the normal reference each. Each modality gets the same weight: components are divided by their root mean
squared length in the reference. A tenth of the reference spots is kept as a memory bank, by greedy k-centre. A spot's
score is its distance to the nearest member of the bank.

Source: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022
(amazon-science/patchcore-inspection, 2022), for neighbourhood, bank and distance.

Deviations: expression beside the image, and the neighbourhood is one of spots in place of the pixels of a feature map;
components in place of channels pooled to 1,024; as in the published code the distance is not re-weighted.
Features are averaged, not the results as in `linear`: a distance does not average out the noise of its features (a
simulated target of 300 spots: AUC 0.89 against 0.85, of expression alone 0.90 against 0.77).

Features are z-scored with the statistics of the reference (`scaling: reference`), because the score is the distance
from normal tissue. Statistics of the spot's own section (`section`) remove the shift between platforms and stains, and
with it what all spots of the section share: where half of them are cancer, cancer and normal tissue end up at equal
distances on either side of the mean, and where most are, the order is reversed. So use `section` for a target on
another platform than the reference, in which cancer is the smaller part.
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
        "modalities": Option(list(MODALITIES), "modalities to read", MODALITIES),
        "scaling": Option(
            "reference",
            "z-scores with the statistics of the reference, or of the spot's own section",
            ("reference", "section"),
        ),
        "components": Option(50, "principal components of each modality, at most", least=1),
        "coreset_share": Option(0.1, "share of the reference spots kept in the memory bank", above=0, most=1),
        "neighbours": Option(6, "nearest spots over which features are averaged, with the spot itself; 0 for none"),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"full": {}},
    reference="Nearest normal spot on joint features; PatchCore, CVPR 2022",
)


class Model:
    """Each modality's projection into the joint space, and the memory bank in it."""

    def __init__(self, projections: dict[str, dict[str, np.ndarray]], bank: np.ndarray, options: dict):
        self.projections = projections
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
        projections, joint = {}, []
        for name in MODALITIES:
            if name not in options["modalities"]:
                continue
            projections[name], projected = _learned(train, name, rows, around[rows], options)
            joint.append(projected)
        joint = np.hstack(joint)
        return cls(projections, joint[coreset(joint, options["coreset_share"], seed)], options)

    def score(self, target) -> np.ndarray:
        """Distance to the memory bank."""
        distances = np.empty(target.n_obs)
        for _, rows in section_rows(target.obs["section"]):
            view = target[rows]
            # averaging components gives the components of averages, with fewer columns
            own = np.hstack(
                [_scaled(view, name, projection) @ projection["axes"] for name, projection in self.projections.items()]
            )
            distances[rows] = nearest(averaged(own, _around(view, self.options)), self.bank)[0][:, 0]
        return distances

    def tensors(self) -> dict[str, np.ndarray]:
        """The bank, and statistics and axes of each modality."""
        return {"bank": self.bank} | {
            f"{name}.{key}": projection[key] for name, projection in self.projections.items() for key in projection
        }

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        projections: dict = {}
        for key in tensors:
            if key != "bank":
                name, part = key.split(".")
                projections.setdefault(name, {})[part] = tensors[key]
        return cls({name: projections[name] for name in MODALITIES if name in projections}, tensors["bank"], options)


def _learned(train, modality: str, rows: np.ndarray, around: np.ndarray, options: dict) -> tuple[dict, np.ndarray]:
    """A modality's projection into the joint space, and the projected reference spots `rows`."""
    projection = _statistics(matrix(train, modality)[rows]) if options["scaling"] == "reference" else {}
    features = averaged(_scaled(train, modality, projection), around)
    axes = principal_axes(features, options["components"])
    components = features @ axes
    length = np.sqrt(np.square(components - components.mean(axis=0)).sum(axis=1).mean())
    projection["axes"] = axes / (length if length > 1e-9 else 1.0)
    return projection, features @ projection["axes"]


def _statistics(features: np.ndarray) -> dict[str, np.ndarray]:
    sd = features.std(axis=0, dtype=np.float64)
    return {"mean": features.mean(axis=0, dtype=np.float64), "sd": np.where(sd > 1e-9, sd, 1.0)}


def _scaled(view, modality: str, projection: dict) -> np.ndarray:
    """z-scores by the reference's statistics, where the projection has them, or by those of each section; float32."""
    features = matrix(view, modality)
    if "mean" not in projection:
        return clipped(section_scaled(features, view.obs["section"].to_numpy(), "zscore"))
    result = features - projection["mean"].astype(np.float32)
    result /= projection["sd"].astype(np.float32)
    return clipped(result)


def _around(view, options: dict) -> np.ndarray:
    return nearest_within(view.obsm["spatial"], view.obs["section"].to_numpy(), options["neighbours"])
