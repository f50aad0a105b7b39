"""scmap-cluster: a spot is anomalous where it resembles no cluster of the normal reference.

Source: Kiselev et al., Nature Methods 2018, hemberg-lab/scmap 2020-10 (METHODS.md card 3.14). The genes with more
dropout than their mean expression explains are chosen; each cluster is the median of its spots; a spot is compared with
each by cosine, Pearson and Spearman. The score is 1 minus the best of these.

Deviations
----------
- The original gives a label: the cluster that at least two of the three measures agree on, or none where they do not
  agree or the best of those that agree is below `threshold`. `score: label` gives that, 1 for none. MEATRD's Table 1
  has an AUC of 0.500 for it, because no spot gets a cluster.
- The original takes given cell types. Here they are clusters of the reference, see `clusters.expression_clusters`:
  Louvain where the card says Leiden.
- Where a measure is not defined (a spot without counts in the chosen genes) it is 0: no similarity.
- Of clusters that are equally similar the first is taken; R's `max.col` draws one.

Clustering has one fixed start, so the seed changes nothing.
"""

import logging

import numpy as np

from ctrflow.errors import InputError
from ctrflow.features.clusters import expression_clusters
from ctrflow.features.learned_from import capped
from ctrflow.methods import MAX_REFERENCE_SPOTS, MethodSpec, Option

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 4096  # spots
LEAST_GENES = 10  # below it the published code refuses to compare

SPEC = MethodSpec(
    name="scmap",
    regime="normal_reference",
    modalities=("gene",),
    seeded=False,
    counts=True,
    options={
        "n_features": Option(500, "genes with the most dropout for their expression", least=LEAST_GENES),
        "score": Option(
            "similarity", "1 minus the best similarity, or 1 for spots without a label", ("similarity", "label")
        ),
        "threshold": Option(0.7, "lowest similarity for a label, with score: label", most=1),
        "max_reference_spots": MAX_REFERENCE_SPOTS,
    },
    presets={"paper": {}, "fast": {"max_reference_spots": 2000}},
    minutes=30,
    reference="scmap, Nature Methods 2018",
)


class Model:
    """The chosen genes and the median expression of each cluster."""

    def __init__(self, genes: np.ndarray, medians: np.ndarray, options: dict):
        self.genes = np.asarray(genes, dtype=np.int64)
        self.medians = np.asarray(medians, dtype=np.float64)
        self.options = options

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Choose the genes and take the medians.

        Raises
        ------
        InputError
            with fewer than 10 genes to choose from, and when no cluster expresses any of those chosen.
        """
        train = train[capped(train.n_obs, options["max_reference_spots"], 0)]
        genes = informative_genes(train.X, train.layers["counts"], options["n_features"])
        clusters = expression_clusters(train.X)
        chosen = train.X[:, genes].toarray().astype(np.float64)
        medians = np.stack([np.median(chosen[clusters == cluster], axis=0) for cluster in range(clusters.max() + 1)])
        expressed = medians.sum(axis=1) > 0
        logger.info("scmap: %d genes, %d of %d clusters express them", len(genes), expressed.sum(), len(medians))
        if not expressed.any():
            raise InputError(
                f"method scmap: in each of the {len(medians)} clusters of the reference the median of all {len(genes)} "
                "chosen genes is 0; give a larger `n_features`"
            )
        return cls(genes, medians[expressed], options)

    def score(self, target) -> np.ndarray:
        """1 minus the best similarity to any cluster; or 1 for spots without a label and 0 for the others."""
        scores = []
        for start in range(0, target.n_obs, SCORED_AT_ONCE):
            spots = target.X[start : start + SCORED_AT_ONCE][:, self.genes].toarray().astype(np.float64)
            measures = similarities(spots, self.medians)
            if self.options["score"] == "label":
                scores.append((labels(measures, self.options["threshold"]) < 0).astype(np.float64))
            else:
                scores.append(1 - np.nan_to_num(measures).max(axis=(0, 2)))
        return np.concatenate(scores)

    def tensors(self) -> dict[str, np.ndarray]:
        """Positions of the chosen genes, medians (clusters x chosen genes)."""
        return {"genes": self.genes, "medians": self.medians}

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        return cls(tensors["genes"], tensors["medians"], options)


def informative_genes(expression, counts, n_features: int) -> np.ndarray:
    """Positions of the genes with the largest residuals of log2(% of spots without the gene) on mean log expression.

    Genes that all spots or no spot have are left out.

    Parameters
    ----------
    expression, counts : CSR (spots x genes), log-normalised and raw
    """
    spots = counts.shape[0]
    dropout = 100 * (1 - np.asarray((counts > 0).sum(axis=0)).ravel() / max(spots, 1))
    usable = np.flatnonzero((dropout > 0) & (dropout < 100))
    if len(usable) < LEAST_GENES:
        raise InputError(
            f"method scmap: {len(usable)} genes are detected in some, but not all, of the {spots} reference spots; it "
            f"needs at least {LEAST_GENES}: name more sections under `normal`, or take more genes (n_genes)"
        )
    mean = np.asarray(expression.mean(axis=0), dtype=np.float64).ravel()[usable]
    log_dropout = np.log2(dropout[usable])
    slope, intercept = np.polyfit(mean, log_dropout, 1)
    residuals = log_dropout - (slope * mean + intercept)
    return np.sort(usable[np.argsort(-residuals, kind="stable")[:n_features]])


def similarities(spots: np.ndarray, medians: np.ndarray) -> np.ndarray:
    """Cosine, Pearson and Spearman of each spot with each cluster: (3 x spots x clusters), NaN where not defined."""
    from scipy.stats import rankdata

    def cosine(left, right):
        with np.errstate(invalid="ignore", divide="ignore"):
            return _unit(left) @ _unit(right).T

    def centred(rows):
        return rows - rows.mean(axis=1, keepdims=True)

    ranks = (centred(rankdata(rows, axis=1)) for rows in (spots, medians))
    return np.stack([cosine(spots, medians), cosine(centred(spots), centred(medians)), cosine(*ranks)])


def labels(measures: np.ndarray, threshold: float) -> np.ndarray:
    """The cluster of each spot that is the best by at least two measures, or -1.

    -1 as well where the best of the measures that agree is below `threshold`, or a measure is not defined.

    Parameters
    ----------
    measures : from `similarities`
    """
    best, value = np.nan_to_num(measures, nan=-1).argmax(axis=2), measures.max(axis=2)
    # of three votes, the middle one is that of any two that agree
    agreed = np.sort(best, axis=0)[1]
    votes = best == agreed
    highest = np.where(votes, value, -1).max(axis=0)
    sure = (votes.sum(axis=0) >= 2) & (highest >= threshold) & ~np.isnan(value).any(axis=0)
    return np.where(sure, agreed, -1)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 1e-12, length, np.nan)
