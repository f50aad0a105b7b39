"""Gradient-boosted trees on principal components of both modalities, of the spot and of its neighbourhood.

Genes and image features are z-scored within each section and reduced to 50 principal components of the training
sections each. A spot is described by its components and by their means over itself and its six neighbours. The trees
are scikit-learn's `HistGradientBoostingClassifier` with its defaults, balanced class weights and without early
stopping.

Source: Ke et al., LightGBM, NeurIPS 2017, as implemented in scikit-learn; a method users would try first.

It can also learn from what is drawn in a section itself (docs/within.md); the scores of a model from elsewhere are then
one more component.

The model file holds the trees as arrays of nodes, which scoring walks: no pickle, and the same scores under
another version of scikit-learn.
"""

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features.blocks import matrix
from ctrflow.features.components import clipped, principal_axes
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.scaling import section_scaled
from ctrflow.methods import MODALITIES, MethodSpec, Option

BINS = 255  # scikit-learn's `max_bins`: up to this many distinct values are used unchanged

# field of a node of scikit-learn's trees -> its name and type in the model file
NODE = {
    "feature_idx": ("feature", np.int64),
    "num_threshold": ("threshold", np.float64),
    "missing_go_to_left": ("missing_left", np.uint8),
    "left": ("left", np.int64),
    "right": ("right", np.int64),
    "is_leaf": ("leaf", np.uint8),
    "value": ("value", np.float64),
}

SPEC = MethodSpec(
    name="boosting",
    regime="labelled_source",
    modalities=MODALITIES,
    seeded=False,
    taught=True,
    dense=4,
    options={
        "modalities": Option(list(MODALITIES), "what it reads", MODALITIES),
        "components": Option(50, "principal components of each modality, at most", least=1),
        "neighbours": Option(6, "nearest spots averaged with the spot itself; 0 repeats the spot's own components"),
        "rounds": Option(100, "trees", least=1),
        "learning_rate": Option(0.1, "shrinkage of each tree", above=0),
    },
    presets={"full": {}, "fast": {"rounds": 20}},
    reference="Gradient-boosted trees (scikit-learn, class_weight balanced) on principal components",
)


class Model:
    """Axes of each modality, and the trees."""

    def __init__(self, axes: dict[str, np.ndarray], trees: dict[str, np.ndarray], options: dict):
        self.axes = axes
        self.trees = trees
        self.options = options

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Fit on the labelled spots; unlabelled ones are used for components and neighbourhoods.

        Raises
        ------
        InputError
            unless there are labelled spots of both classes.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        labels = train.obs["label"].to_numpy(dtype=float)
        known = ~np.isnan(labels)
        _require_both(labels[known], train.obs["section"])
        scaled = _scaled(train, options["modalities"])
        axes = {name: principal_axes(block, options["components"]) for name, block in scaled.items()}
        classifier = HistGradientBoostingClassifier(
            max_iter=options["rounds"],
            learning_rate=options["learning_rate"],
            class_weight="balanced",
            early_stopping=False,
            # scikit-learn's 20 leaves a few drawn spots undivided
            min_samples_leaf=max(1, min(20, int(known.sum()) // 10)),
            random_state=0,
        )
        described = _described(train, scaled, axes, options["neighbours"])[known]
        classifier.fit(_binned(described), labels[known].astype(int))
        return cls(axes, exported(classifier), options)

    def score(self, target) -> np.ndarray:
        """Probability of cancer, by the trees."""
        from scipy.special import expit

        described = _described(target, _scaled(target, list(self.axes)), self.axes, self.options["neighbours"])
        return expit(logits(self.trees, described))

    def tensors(self) -> dict[str, np.ndarray]:
        """Axes, and the trees as arrays of nodes."""
        return {f"axes.{name}": value for name, value in self.axes.items()} | {
            f"trees.{name}": value for name, value in self.trees.items()
        }

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        axes = {name: tensors[f"axes.{name}"] for name in MODALITIES if f"axes.{name}" in tensors}
        trees = {key.removeprefix("trees."): tensors[key] for key in tensors if key.startswith("trees.")}
        return cls(axes, trees, options)


def exported(classifier) -> dict[str, np.ndarray]:
    """The trees of a fitted binary `HistGradientBoostingClassifier` of numeric features, as arrays.

    Returns
    -------
    dict of baseline (1,), the initial logit; roots (trees,), the first node of each tree; and for the nodes of all
    trees in turn: feature, threshold, missing_left, left, right (child nodes), leaf, value (logit of a leaf)
    """
    parts = [predictor.nodes for (predictor,) in classifier._predictors]  # not public: only prediction is
    roots = np.cumsum([0, *(len(part) for part in parts[:-1])])
    nodes = np.concatenate(parts)
    trees = {name: nodes[key].astype(kind) for key, (name, kind) in NODE.items()}
    offsets = np.repeat(roots, [len(part) for part in parts])
    for side in ("left", "right"):
        trees[side] += offsets
    return trees | {
        "roots": roots.astype(np.int64),
        "baseline": np.ravel(classifier._baseline_prediction).astype(float),
    }


def logits(trees: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """The baseline and the leaf values of all trees, summed (n,): the classifier's `decision_function`."""
    total = np.full(len(features), trees["baseline"][0])
    spots = np.arange(len(features))
    for root in trees["roots"]:
        at = np.full(len(features), root)
        moving = spots if not trees["leaf"][root] else spots[:0]
        while len(moving):
            node = at[moving]
            value = features[moving, trees["feature"][node]]
            missing = np.isnan(value)
            left = np.where(missing, trees["missing_left"][node] > 0, value <= trees["threshold"][node])
            at[moving] = np.where(left, trees["left"][node], trees["right"][node])
            moving = moving[trees["leaf"][at[moving]] == 0]
        total += trees["value"][at]
    return total


def _scaled(view, modalities: list[str]) -> dict[str, np.ndarray]:
    sections = view.obs["section"].to_numpy()
    return {
        name: clipped(section_scaled(matrix(view, name), sections, "zscore"))
        for name in MODALITIES
        if name in modalities
    }


def _described(view, scaled: dict, axes: dict, neighbours: int) -> np.ndarray:
    """(spots x features): the components of each modality, and their means over the neighbourhood."""
    own = np.hstack([scaled[name] @ axes[name] for name in axes])
    if "prior" in view.obs:
        own = np.column_stack([own, view.obs["prior"].to_numpy(dtype=float)])
    around = nearest_within(view.obsm["spatial"], view.obs["section"].to_numpy(), neighbours)
    return np.hstack([own, own[around].mean(axis=1)])


def _binned(described: np.ndarray) -> np.ndarray:
    """Each value replaced by the nearest of `BINS` quantiles of its column; thresholds then are half-way between.

    scikit-learn would search weighted quantiles one at a time: 30 s on 600 spots, against 3 s for the trees.
    """
    result = np.empty_like(described)
    for column, values in enumerate(described.T):
        levels = np.unique(np.quantile(values, np.linspace(0, 1, BINS)))
        result[:, column] = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]
    return result


def _require_both(labels: np.ndarray, sections) -> None:
    if len(set(labels)) == 2:
        return
    raise InputError(
        f"method boosting: {int((labels == 1).sum())} cancer and {int((labels == 0).sum())} other labelled spots in "
        f"the training sections {first_few(dict.fromkeys(sections))}; it needs both: name other sections under "
        "`source` of the study, or label more spots"
    )
