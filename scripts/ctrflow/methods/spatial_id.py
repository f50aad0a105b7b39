"""Spatial-ID: a classifier of normal tissue, refined on each section's graph; doubt is the score (METHODS.md 3.5).

Shen et al., Nature Communications 2022 (TencentAILabHealthcare/spatialID, 2022). Step 1 learns the classes of the
normal reference from the expression of single spots. Step 2 learns, on each target section by itself, to reproduce
step 1's probabilities from codes that also rebuild the expression and the spatial graph. The score of a spot is one
minus its largest class probability: a spot of no probable normal class is anomalous.

Networks, losses and step 2 are the repository's; how step 1 is trained only the package spatialid 1.0.4 says. Where the
two differ (class weight 20 and a rate that falls by 0.95 each epoch in the package) the repository decides. The running
statistics of its BatchNorm, with momentum 0.01, take all 200 epochs of step 2: `fast` has no fewer.

Deviations

- The papers used a public pretrained classifier; there is none for breast or colon. Here the classes are those of the
  normal reference: its column `cell_type` if present, else communities of spots with similar expression (`clusters`),
  after subtracting the mean of each section, so that a class is a tissue and not a section.
- What the published scripts do for only some of their data sets is an option: the logarithm before step 1 (`profile`),
  principal components in step 2 (`components`), a weight of 10 on the graph (`edge_weight`).

Doubt is not distance: cancer that resembles exactly one normal class is assigned to it without doubt.
"""

import logging

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features.blocks import section_rows
from ctrflow.features.clusters import expression_clusters
from ctrflow.features.learned_from import capped
from ctrflow.features.neighbours import nearest
from ctrflow.features.scaling import section_scaled
from ctrflow.methods import MAX_REFERENCE_SPOTS, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

CLASSIFIED_AT_ONCE = 4096  # spots

SPEC = MethodSpec(
    name="spatial_id",
    regime="normal_reference",
    modalities=("gene",),
    gpu=True,
    counts=True,
    dense=6,
    options={
        "profile": Option("counts", "input of step 1, at unit length: counts, or log(1 + counts)", ("counts", "log")),
        "epochs": Option(200, "epochs of step 1", least=1),
        "learning_rate": Option(3e-4, "step 1, Adam", above=0),
        "batch_size": Option(4096, "spots per optimiser step in step 1, at most", least=2),
        "epochs_section": Option(200, "epochs of step 2, each on the whole section", least=1),
        "learning_rate_section": Option(0.01, "step 2, Adam", above=0),
        "neighbours": Option(29, "nearest other spots of a spot in the graph; the original's 30 count itself", least=1),
        "components": Option(0, "principal components of a section for step 2; 0 for its genes"),
        "class_weight": Option(10.0, "weight of the divergence from step 1's classes"),
        "edge_weight": Option(1.0, "weight of the graph autoencoder's loss"),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"paper": {}, "fast": {"epochs": 150, "max_reference_spots": 2000}},
    reference="Spatial-ID (Shen et al., Nature Communications 2022)",
)


class Model(NetworkModel):
    """Step 1's network; step 2 is trained on each scored section."""

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Learn the classes of the normal reference.

        Raises
        ------
        InputError
            when there is only one class, or a spot without one.
        """
        import torch

        from ctrflow.nets import spatial_id, training

        train = train[capped(train.n_obs, options["max_reference_spots"], seed)]
        classes = reference_classes(train)
        device = training.start(seed)
        net = spatial_id.Classifier(train.n_vars, int(classes.max()) + 1).to(device)
        profiles = torch.from_numpy(_profiles(train.layers["counts"], options["profile"])).to(device)
        labels = torch.from_numpy(classes).to(device)
        losses = spatial_id.train_classifier(net, profiles, labels, options, seed)
        return cls(net.cpu().eval(), options, seed, losses=losses)

    def score(self, target) -> np.ndarray:
        """One minus the largest class probability, (spots,); each section by itself, with the model's seed."""
        scores = np.empty(target.n_obs)
        for section, rows in section_rows(target.obs["section"]):
            logger.info("Spatial-ID: section %s, %d spots", section, len(rows))
            scores[rows] = 1 - self._probabilities(target[rows]).max(axis=1)
        return scores

    def _probabilities(self, section) -> np.ndarray:
        """(spots x classes) of one section; a single spot has no graph to learn from and keeps step 1's."""
        import torch

        from ctrflow.nets import spatial_id, training
        from ctrflow.nets.graph_convolution import normalised

        logits = torch.from_numpy(self._logits(section))
        if section.n_obs < 2:
            return torch.softmax(logits.double(), dim=1).numpy()
        device = training.start(self.seed)
        graph = weighted_graph(section.obsm["spatial"], self.options["neighbours"])
        genes = torch.from_numpy(_standardised(section, self.options["components"], self.seed)).to(device)
        adjacency = normalised(graph).to(device)
        probabilities = spatial_id.classify_section(genes, logits.to(device), graph, adjacency, self.options, self.seed)
        return probabilities.double().cpu().numpy()

    def _logits(self, section) -> np.ndarray:
        """Step 1's logits, (spots x classes)."""
        import torch

        def logits(rows, device):
            profiles = _profiles(section.layers["counts"][rows], self.options["profile"])
            return self.net(torch.from_numpy(profiles).to(device))

        return self.in_blocks(section.n_obs, CLASSIFIED_AT_ONCE, logits)

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of the tensors."""
        from ctrflow.nets.spatial_id import Classifier

        return Classifier(tensors["layers.0.weight"].shape[1], len(tensors["layers.3.bias"]))


def reference_classes(reference) -> np.ndarray:
    """The class of each reference spot, from 0: its `cell_type`, else its cluster of expression.

    Raises
    ------
    InputError
        where there is only one class, or a spot without one.
    """
    if "cell_type" in reference.obs:
        return _cell_types(reference)
    genes = reference.X.toarray().astype(np.float32, copy=False)
    for _, rows in section_rows(reference.obs["section"]):
        genes[rows] -= genes[rows].mean(axis=0)
    classes = expression_clusters(genes)
    if not classes.any():
        raise InputError(
            f"method spatial_id: the {reference.n_obs} normal spots of {_sections(reference)} are all of one kind; it "
            "needs at least 2 kinds: name more sections under `normal` of the study, or give them a column cell_type"
        )
    return classes


def weighted_graph(coordinates_px: np.ndarray, k: int):
    """One section's edges to each spot (row) from its k nearest, of weight 1 - d / the longest: CSR float32.

    The longest edge has weight 0 and stays in the graph.
    """
    from scipy import sparse

    spots = len(coordinates_px)
    to, start = np.repeat(np.arange(spots), k), nearest(coordinates_px, k)[:, 1:].ravel()
    to, start = (side[to != start] for side in (to, start))  # a spot fills the places of missing neighbours
    distance = np.linalg.norm(coordinates_px[to] - coordinates_px[start], axis=1)
    longest = distance.max(initial=0)
    weights = (1 - distance / longest if longest > 0 else np.ones(len(distance))).astype(np.float32)
    graph = sparse.csr_matrix((weights, (to, start)), (spots, spots))
    graph.sort_indices()
    return graph


def _cell_types(reference) -> np.ndarray:
    names = reference.obs["cell_type"]
    missing = int(names.isna().sum())
    kinds = sorted(set(names.dropna().astype(str)))
    if missing or len(kinds) < 2:
        problem = f"{missing} spots without one" if missing else f"only `{kinds[0]}`"
        raise InputError(
            f"method spatial_id: column cell_type of the normal sections {_sections(reference)} has {problem}; "
            "it needs one for every spot and at least 2 kinds: fill it, or leave the column out to cluster the spots"
        )
    return np.searchsorted(kinds, names.astype(str).to_numpy()).astype(np.int64)


def _sections(view) -> str:
    return first_few(dict.fromkeys(view.obs["section"]))


def _profiles(counts, profile: str) -> np.ndarray:
    """Counts of each spot, or log(1 + counts), at unit length, (spots x genes) float32; zeros where it has none."""
    values = counts.toarray().astype(np.float32)
    if profile == "log":
        values = np.log1p(values)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


def _standardised(section, components: int, seed: int) -> np.ndarray:
    """Genes z-scored within the section, or their principal components, float32."""
    genes = section_scaled(
        section.X.toarray().astype(np.float32, copy=False), section.obs["section"].to_numpy(), "zscore"
    )
    if not components or components >= min(genes.shape):
        return genes
    from sklearn.decomposition import PCA

    return PCA(components, svd_solver="randomized", random_state=seed).fit_transform(genes).astype(np.float32)
