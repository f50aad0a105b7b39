"""CAMLU: an autoencoder of normal tissue, and the genes that it rebuilds worst in one group of the section's spots.

Source: Li et al., Bioinformatics 2022, ziyili20/CAMLU 2025-05 (METHODS.md card 3.15). The autoencoder learns the
reference. In the target section the spots are split in two by their error; then, in turn, the genes whose residuals
differ most between the groups are chosen by a t-test, and the spots are grouped again by their residuals of these
genes, until the groups are stable. The score is the mean absolute residual over the genes chosen last.

Deviations
----------
- The original returns the two groups; here the mean residual ranks the spots, so that a larger residual is always
  more anomalous. The original calls the group of the first spot anomalous where its residual is larger OR its
  correlation with the reference is lower: where the two disagree, the order of the rows decides.
- The genes are those of the fold, chosen on the reference: the original takes 5,000, and only those that 10 spots of
  the target have, so it must be trained again for each target.
- Random spots of the reference are held out, not its last fifth, which would be a section of its own.
- `norm_momentum` is torch's 0.1, not Keras' 0.01: after the first epochs on a small reference the slower statistics are
  still near their start, and early stopping evaluates, and keeps, a network that uses them. On 116 spots of HER2ST it
  rebuilds the held-out spots more than three times worse than the genes' mean does.
- Complete linkage needs all pairs of spots: 8 bytes each, 100 MB and some seconds a round at 5,000 spots. Above
  `max_linkage_spots` it is run on that many spots drawn at random, and every other spot joins the group with the
  nearer mean.
- A swap of the two groups' numbers is no change; the original counts it as one.
- The first split in two is the exact one, not k-means from a random start.

Each target section is processed by itself.
"""

import logging

import numpy as np

from ctrflow.features.blocks import section_rows
from ctrflow.features.learned_from import capped, require_spots
from ctrflow.methods import MAX_REFERENCE_SPOTS, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 4096  # spots
SETTLED = 2  # iteration stops when at most this many spots change groups
LEAST_SPOTS = 10  # of the reference: enough to hold out two and to normalise batches

SPEC = MethodSpec(
    name="camlu",
    regime="normal_reference",
    modalities=("gene",),
    gpu=True,
    dense=4,
    options={
        "epochs": Option(100, "maximum number of epochs", least=1),
        "patience": Option(5, "epochs without a lower loss on the held-out spots before training stops", least=1),
        "learning_rate": Option(1e-3, "Adam", above=0),
        "batch_size": Option(32, "spots per step, at most", least=2),
        "norm_momentum": Option(
            0.1, "share of the running statistics that a batch replaces; 0.01 in the original", above=0, most=1
        ),
        "n_features": Option(500, "genes whose residuals differ most between the groups", least=1),
        "rounds": Option(10, "maximum rounds of choosing genes and grouping"),
        "max_linkage_spots": Option(
            5000, "maximum spots of a section for complete linkage; the others join the nearer group", least=2
        ),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"paper": {}, "fast": {"epochs": 20, "max_reference_spots": 2000, "max_linkage_spots": 2000}},
    reference="CAMLU, Bioinformatics 2022",
)


class Model(NetworkModel):
    """A trained autoencoder, and the seed for sampling large sections."""

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Train the autoencoder on the normal reference, a fifth of its spots held out.

        Raises
        ------
        InputError
            with fewer than 10 reference spots.
        """
        import torch

        from ctrflow.nets import camlu, training

        rows = capped(train.n_obs, options["max_reference_spots"], seed)
        require_spots("camlu", len(rows), LEAST_SPOTS, cure=", or give a larger `max_reference_spots`")
        device = training.start(seed)
        net = camlu.Autoencoder(train.n_vars, options["norm_momentum"]).to(device)
        features = torch.from_numpy(train.X[rows].toarray()).to(device)
        generator = torch.Generator().manual_seed(seed)
        held = torch.zeros(len(rows), dtype=torch.bool)
        held[torch.randperm(len(rows), generator=generator)[: len(rows) // 5]] = True
        logger.info("CAMLU on %d spots, %d held out, %s", len(rows), int(held.sum()), device.type)
        losses = camlu.rebuild(net, features, held.to(device), options, generator)
        return cls(net.cpu().eval(), options, seed, losses=losses)

    def score(self, target) -> np.ndarray:
        """The mean absolute residual over the genes chosen in each section."""
        scores = np.empty(target.n_obs)
        for section, rows in section_rows(target.obs["section"]):
            residuals = self._residuals(target.X[rows])
            genes = separating_genes(residuals, self.options, self.seed)
            scores[rows] = residuals[:, genes].mean(axis=1, dtype=np.float64)
            logger.info("CAMLU: section %s, %d genes", section, len(genes))
        return scores

    def _residuals(self, expression) -> np.ndarray:
        """|x - x'|, float32 (spots x genes)."""
        import torch

        def residuals(rows, device):
            spots = torch.from_numpy(expression[rows].toarray()).to(device)
            return (spots - self.net(spots)).abs()

        return self.in_blocks(expression.shape[0], SCORED_AT_ONCE, residuals)

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of the tensors."""
        from ctrflow.nets.camlu import Autoencoder

        return Autoencoder(tensors["linear.0.weight"].shape[1])


def separating_genes(residuals: np.ndarray, options: dict, seed: int) -> np.ndarray:
    """Positions of the genes whose residuals differ most between the two groups of a section's spots; all if one group.

    Parameters
    ----------
    residuals : absolute, (spots x genes)
    """
    spots, all_genes = residuals.shape
    genes = np.arange(all_genes)
    group = halves(np.square(residuals, dtype=np.float64).sum(axis=1))
    sample = capped(spots, options["max_linkage_spots"], seed)
    for _ in range(options["rounds"]):
        if min(group.sum(), (~group).sum()) < 2:  # a t-test needs two spots in each group
            break
        genes = np.argsort(-t_statistics(residuals, group), kind="stable")[: options["n_features"]]
        before, group = group, linked(residuals[:, genes], sample)
        moved = int((group != before).sum())
        if min(moved, spots - moved) <= SETTLED:
            break
    return np.sort(genes)


def halves(values: np.ndarray) -> np.ndarray:
    """Exact 2-means of numbers: the members of the upper group, bool; none if all numbers are equal."""
    order = np.sort(values)
    lower = np.arange(1, len(order))
    sums = np.cumsum(order)[:-1]
    upper = len(order) - lower
    between = lower * upper * (sums / lower - (order.sum() - sums) / upper) ** 2
    if not between.any():
        return np.zeros(len(values), dtype=bool)
    return values > order[between.argmax()]


def t_statistics(residuals: np.ndarray, group: np.ndarray) -> np.ndarray:
    """|t| of each gene between the group and the other spots, with a common variance; 0 where the variance is 0.

    The degrees of freedom are those of all genes, so the order is that of the p-values.
    """
    parts = [residuals[group], residuals[~group]]
    means = [part.mean(axis=0, dtype=np.float64) for part in parts]
    squares = sum(np.square(part - mean).sum(axis=0, dtype=np.float64) for part, mean in zip(parts, means, strict=True))
    error = np.sqrt(squares / (len(residuals) - 2) * (1 / len(parts[0]) + 1 / len(parts[1])))
    return np.abs(means[0] - means[1]) / np.where(error > 0, error, np.inf)


def linked(residuals: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Complete linkage on Euclidean distance, cut into two groups: the members of one of them, bool.

    Parameters
    ----------
    residuals : (spots x genes)
    sample : the rows that are linked; the others join the group with the nearer mean
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    taken = residuals[sample].astype(np.float64)
    second = fcluster(linkage(_distances(taken), "complete"), 2, "maxclust") == 2
    if len(sample) == len(residuals):
        return second
    if not second.any():
        return np.zeros(len(residuals), dtype=bool)
    means = [taken[~second].mean(axis=0), taken[second].mean(axis=0)]
    # nearer to the second mean than to the first
    group = residuals @ (means[1] - means[0]) > (means[1] @ means[1] - means[0] @ means[0]) / 2
    group[sample] = second
    return group


def _distances(rows: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs, in SciPy's condensed form; by matrix products of blocks, which is faster."""
    n = len(rows)
    squares = np.einsum("ij,ij->i", rows, rows)
    condensed = np.empty(n * (n - 1) // 2)
    start = 0
    for low in range(0, n, 512):
        block = squares[low : low + 512, None] + squares - 2 * rows[low : low + 512] @ rows.T
        for row, squared in enumerate(block, low):
            condensed[start : start + n - row - 1] = squared[row + 1 :]
            start += n - row - 1
    return np.sqrt(np.maximum(condensed, 0, out=condensed), out=condensed)
