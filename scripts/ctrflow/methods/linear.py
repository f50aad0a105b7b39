"""Logistic regression on z-scored genes and image features, averaged over a spot and its six neighbours.

The plain method that a deep one must beat (DESIGN section 5).
"""

import numpy as np

from ctrflow.features.blocks import Features, matrix
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.refit import refit
from ctrflow.features.scaling import Scaled, fits, section_scaled
from ctrflow.methods import MODALITIES, MethodSpec, Option

SPEC = MethodSpec(
    name="linear",
    regime="labelled_source",
    modalities=MODALITIES,
    seeded=False,
    options={
        "modalities": Option(list(MODALITIES), "what it reads", MODALITIES),
        "C": Option(
            1e-4,
            "inverse ridge strength; some 4,000 z-scored features times 1e-4 give the logit a prior sd near 0.6",
            above=0,
        ),
        "neighbours": Option(6, "spots whose logits are averaged with the spot's own; 0 for none"),
        "refits": Option(0, "rounds of refitting the scores to the section's own features (docs/enhanced.md)"),
    },
    minutes=30,
    reference="Logistic regression (scikit-learn, class_weight balanced); features z-scored per section.",
)


class Model:
    """A weight per feature and an intercept."""

    def __init__(self, weights: np.ndarray, intercept: float, options: dict):
        self.weights = np.asarray(weights, dtype=np.float64)
        self.intercept = float(intercept)
        self.options = options

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Fit on the labelled spots of the training view."""
        from sklearn.linear_model import LogisticRegression

        labels = train.obs["label"].to_numpy(dtype=float)
        known = ~np.isnan(labels)
        scaled = _scaled(train, options)
        if not isinstance(scaled, np.ndarray):
            return cls(*_fitted_by_products(scaled, labels, options["C"]), options)
        regression = LogisticRegression(C=options["C"], class_weight="balanced", max_iter=1000)
        regression.fit(scaled[known], labels[known].astype(int))
        return cls(regression.coef_.ravel(), regression.intercept_[0], options)

    def score(self, target) -> np.ndarray:
        """Sigmoid of the mean logit over the spot and its neighbours."""
        from scipy.special import expit

        scaled, sections = _scaled(target, self.options), target.obs["section"].to_numpy()
        logits = scaled @ self.weights + self.intercept
        around = nearest_within(target.obsm["spatial"], sections, self.options["neighbours"])
        if self.options["refits"]:
            read = scaled if isinstance(scaled, np.ndarray) else _stored(target, self.options)
            return expit(refit(logits, read, sections, around, self.options["refits"]))
        return expit(logits[around].mean(axis=1))

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights and intercept."""
        return {"weights": self.weights, "intercept": np.array([self.intercept])}

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        return cls(tensors["weights"], tensors["intercept"][0], options)


def features(view, modalities: list[str]) -> np.ndarray:
    """(spots x features), z-scored per section, as stains and depths differ between sections."""
    blocks = [np.asarray(matrix(view, name), dtype=np.float64) for name in MODALITIES if name in modalities]
    return section_scaled(np.hstack(blocks), view.obs["section"].to_numpy(), "zscore")


def _stored(view, options: dict) -> Features:
    """The same features as stored in the view."""
    return Features(view, [name for name in MODALITIES if name in options["modalities"]])


def _scaled(view, options: dict):
    """The result of `features`; for a view too large for it, a LinearOperator."""
    stored = _stored(view, options)
    if fits(stored.shape):
        return features(view, options["modalities"])
    return Scaled(stored, view.obs["section"].to_numpy(), "zscore").operator()


def _fitted_by_products(scaled, labels: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Weights and intercept of the same regression from a LinearOperator.

    Loss, solver and stopping criteria are those of scikit-learn's LogisticRegression.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    known = ~np.isnan(labels)
    truth = np.where(known, labels, 0.0)
    share = known.sum() / 2 / np.array([(labels == value).sum() for value in (0, 1)])  # class_weight balanced
    weight = np.where(known, share[truth.astype(int)], 0.0) / known.sum()
    strength = 1 / (ridge * known.sum())

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights, logits = point[:-1], scaled @ point[:-1] + point[-1]
        value = weight @ (np.logaddexp(0, logits) - truth * logits) + strength / 2 * (weights @ weights)
        slope = weight * (expit(logits) - truth)
        return value, np.append(scaled.T @ slope + strength * weights, slope.sum())

    limits = {"maxiter": 1000, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}
    optimum = minimize(loss, np.zeros(scaled.shape[1] + 1), jac=True, method="L-BFGS-B", options=limits).x
    return optimum[:-1], optimum[-1]
