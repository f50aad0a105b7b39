"""M3DM: memory banks of image, expression and both fused, and a linear one-class SVM on the three distances.

METHODS.md card 3.9. A fusion network learns, on normal tissue, to pull a spot's image and expression together. Image
features, expression and the fused vector each get a memory bank of normal spots. A spot's distance to the nearest
member of each bank, re-weighted by that member's position among the others, goes into a linear one-class SVM fitted on
the distances of the reference itself, where a member is measured against the other members.

Direction: a one-class SVM of distances places its plane between them and the origin, and its weights are sums of
distances, so none is below 0. scikit-learn's inlier score therefore grows with every distance, and that score, not its
negative, is the anomaly score, as in the original.

Source: Wang et al., Multimodal Industrial Anomaly Detection via Hybrid Fusion, CVPR 2023 (nomewang/M3DM, 2023-09).
MEATRD's paper compares with an adaptation to spots that it does not describe; this one is our own.

Deviations:

- Log-normalised genes replace the features of the point cloud, in a random projection as wide as those (1,152).
  Principal axes of a small reference would leave out what is new in a target.
- They are averaged over a spot and its six neighbours, as the original averages point features over 3 x 3 positions;
  `neighbours: 0` takes the spot alone.
- One vector per spot: no interpolation between points, no blurred map, no maximum over the patches of an image.
- Image features are z-scored with the statistics of the reference, unless with `scaling: none`. Those of
  `hed_texture` differ in scale a thousandfold, and the largest would dominate a distance.
- Each bank is standardised with its own mean and sd. The original divides all three by the sd of the image bank and
  subtracts the mean of the point bank from all.
- Each coreset starts from a row drawn by the seed, not from the first. Its share is of its own bank; the original
  takes those of the image and fused banks of the point bank's coreset, 1 % in place of 10 %. It is at least
  `coreset_least` spots.
- A step contrasts `batch_size` spots, the original's all patches of 16 images (up to 50,176).
- Every spot's distances are re-weighted, as are those of an image in the original; those of its pixels are not.
"""

import logging

import numpy as np

from ctrflow.features.components import averaged, random_axes
from ctrflow.features.learned_from import capped, require_spots
from ctrflow.features.memory_bank import LEAST, REWEIGHTED_OVER, coreset, reweighted
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.scaling import reference_scaled, reference_statistics
from ctrflow.methods import MAX_REFERENCE_SPOTS, MODALITIES, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 2048  # spots: the widest layer of the fusion takes 34 MB at 1,024 image features
BANKS = {"image": 0.1, "gene": 1.0, "fused": 1.0}  # bank -> factor of its distances (METHODS.md 3.9)

SPEC = MethodSpec(
    name="m3dm",
    regime="normal_reference",
    modalities=MODALITIES,
    gpu=True,
    dense=3,
    options={
        "projection": Option(1152, "features that the genes are projected to at random, where there are more", least=1),
        "neighbours": Option(6, "nearest spots over which genes are averaged, with the spot itself; 0 for none"),
        "scaling": Option(
            "reference", "image features z-scored with the reference's statistics, or unscaled", ("reference", "none")
        ),
        "epochs": Option(3, "epochs of the contrastive training; the first rises from a rate of 0", least=2),
        "batch_size": Option(256, "spots per step, at most", least=2),
        "learning_rate": Option(3e-3, "AdamW, peak value: rises over the first epoch, then falls to 0", above=0),
        "coreset_share": Option(0.1, "share of the reference spots kept in each bank", above=0, most=1),
        "coreset_least": Option(
            LEAST, "reference spots kept in each bank at least, if there are as many", least=REWEIGHTED_OVER + 1
        ),
        "nu": Option(0.5, "of the one-class SVM: the largest share of the reference it leaves out", above=0, most=1),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"paper": {}, "fast": {"max_reference_spots": 1000}},
    reference="M3DM, CVPR 2023",
)


class Model(NetworkModel):
    """The fusion network, and the arrays for its inputs, the banks and the SVM.

    parts : image.mean, image.sd, gene.mean (each a row); gene.axes (genes x projected features); for each of the banks
        image, gene and fused, its standardised members (bank.*), and mean and sd to standardise with (scale.*);
        weights (3,) of the three distances
    """

    prefix = "net."
    kept = (
        *("image.mean", "image.sd", "gene.mean", "gene.axes", "weights"),
        *(f"{part}.{name}" for part in ("scale", "bank") for name in BANKS),
    )

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Train the fusion, fill the banks and fit the SVM, on normal spots.

        Raises
        ------
        InputError
            with fewer than 4 of them, the number over which a member's distance to the others is re-weighted.
        """
        from ctrflow.nets import m3dm, training

        require_spots("m3dm", train.n_obs, REWEIGHTED_OVER + 1, train.obs["section"])
        rows = capped(train.n_obs, options["max_reference_spots"], seed)
        parts = _preparation(train, rows, options, seed)
        device = training.start(seed)
        model = cls(cls.network(parts, options), options, seed, parts)
        net = model.net.to(device)
        features = {name: value[rows] for name, value in model._features(train).items()}
        logger.info("M3DM on %d spots, %s", len(rows), device.type)
        model.losses = m3dm.train(net, {name: value.to(device) for name, value in features.items()}, options, seed)
        net.cpu().eval()
        model._remember(model._vectors(features), seed)
        return model

    def _remember(self, vectors: dict[str, np.ndarray], seed: int) -> None:
        """Fill the banks and fit the SVM on the distances of the reference itself."""
        from sklearn.linear_model import SGDOneClassSVM

        own = {}
        for name, matrix in vectors.items():
            sd = matrix.std()
            self.parts[f"scale.{name}"] = np.array([matrix.mean(), sd if sd > 1e-9 else 1.0])
            standard = self._standard(matrix, name)
            kept = coreset(standard, self.options["coreset_share"], self.options["coreset_least"], seed)
            self.parts[f"bank.{name}"] = standard[kept]
            own[name] = np.full(len(matrix), -1)
            own[name][kept] = np.arange(len(kept))
        machine = SGDOneClassSVM(nu=self.options["nu"], max_iter=1000, random_state=seed)
        self.parts["weights"] = machine.fit(self._distances(vectors, own)).coef_.ravel().astype(np.float64)

    def score(self, target) -> np.ndarray:
        """The SVM's weighted sum of the distances to the three banks."""
        return self._distances(self._vectors(self._features(target))) @ self.parts["weights"]

    def _distances(self, vectors: dict[str, np.ndarray], own: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """(spots x 3): to the banks of `BANKS`, times their factors.

        own : of each bank, the member that each spot is itself (see `reweighted`)
        """
        own = own or dict.fromkeys(BANKS)
        each = [
            factor * reweighted(self._standard(vectors[name], name), self.parts[f"bank.{name}"], own[name])
            for name, factor in BANKS.items()
        ]
        return np.column_stack(each)

    def _standard(self, matrix: np.ndarray, name: str) -> np.ndarray:
        mean, sd = self.parts[f"scale.{name}"]
        return (matrix - mean) / sd

    def _vectors(self, features: dict) -> dict[str, np.ndarray]:
        """Bank -> vectors (spots x width), float32."""

        def fused(rows, device):
            return self.net({name: value[rows].to(device) for name, value in features.items()})

        joint = self.in_blocks(len(features["image"]), SCORED_AT_ONCE, fused)
        return {name: value.numpy() for name, value in features.items()} | {"fused": joint}

    def _features(self, view) -> dict:
        """Modality -> tensor (spots x width): z-scored image features, projected genes of the neighbourhood."""
        import torch

        image = reference_scaled(view.obsm["image"], self.parts["image.mean"], self.parts["image.sd"])
        gene = _projected(view, self.parts["gene.axes"], self.options) - self.parts["gene.mean"]
        return {"image": torch.from_numpy(image), "gene": torch.from_numpy(gene)}

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of its prepared inputs."""
        from ctrflow.nets.m3dm import FeatureFusion

        return FeatureFusion({"image": len(tensors["image.mean"]), "gene": tensors["gene.axes"].shape[1]})


def _preparation(train, rows: np.ndarray, options: dict, seed: int) -> dict[str, np.ndarray]:
    """The arrays that prepare the network's inputs: statistics of the image features, projection of the genes."""
    image = np.asarray(train.obsm["image"][rows], dtype=np.float32)
    mean, sd = reference_statistics(image, options["scaling"])
    axes = random_axes(train.n_vars, options["projection"], seed)
    return {
        "image.mean": mean,
        "image.sd": sd,
        "gene.mean": _projected(train, axes, options)[rows].mean(axis=0),
        "gene.axes": axes,
    }


def _projected(view, axes: np.ndarray, options: dict) -> np.ndarray:
    """Genes of the neighbourhood (spots x axes) float32."""
    around = nearest_within(view.obsm["spatial"], view.obs["section"].to_numpy(), options["neighbours"])
    return averaged(view.X @ axes, around)  # equal to a projection of averages, with fewer columns
