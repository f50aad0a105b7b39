"""Logistic regression on z-scored genes and image features, averaged over a spot and its six neighbours.

The plain method that a deep one must beat (DESIGN section 5). With `fusion: late` each modality has a regression of its
own, so that training sections without a picture still teach the genes; it is the method of the shipped models.

It can also learn from what is drawn in a section itself (docs/within.md); the scores of a model from elsewhere are then
one more feature.

A gene that a section does not measure is constant there and so 0 after z-scoring: it has no effect on the scores.
"""

import numpy as np

from ctrflow.features.blocks import Features, matrix
from ctrflow.features.learned_from import labelled_rows
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.refit import refit
from ctrflow.features.scaling import Scaled, fits, section_scaled
from ctrflow.methods import MODALITIES, MethodSpec, Option

PRIOR_LOGITS = (
    2.0  # prior sd of the weight of a model's score, in sd above its threshold: that of `strokes` at full trust
)

SPEC = MethodSpec(
    name="linear",
    regime="labelled_source",
    modalities=MODALITIES,
    seeded=False,
    options={
        "modalities": Option(list(MODALITIES), "what it reads", MODALITIES),
        "fusion": Option(
            "joint",
            "joint: one regression on all features; late: one for each modality, on the training spots that have it, "
            "whose logits are z-scored in each section and added (models/breast/README.md)",
            ("joint", "late"),
        ),
        "C": Option(
            1e-4,
            "inverse ridge strength; some 4,000 z-scored features times 1e-4 give the logit a prior sd near 0.6",
            above=0,
        ),
        "neighbours": Option(6, "spots whose logits are averaged with the spot's own; 0 for none"),
        "refits": Option(0, "rounds of refitting the scores to the section's own features (docs/enhanced.md)"),
    },
    taught=True,
    minutes=30,
    partial={"fusion": "late"},
    # HER2ST, one of six patients left out: 0.86 with 3,000 genes, 0.81, 0.75, 0.68 with 100, 60, 30 of them at random
    least_genes=60,
    reference="Logistic regression (scikit-learn, class_weight balanced); features z-scored per section.",
)


class Model:
    """A weight per feature, and an intercept, which late fusion does not use."""

    def __init__(self, weights: np.ndarray, intercept: float, options: dict):
        self.weights = np.asarray(weights, dtype=np.float64)
        self.intercept = float(intercept)
        self.options = options

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Fit on the labelled spots of the training view."""
        modalities = _ordered(options["modalities"])
        if options["fusion"] == "joint":
            return cls(*_regressed(train, modalities, options["C"], with_prior="prior" in train.obs), options)
        parts = [_regressed(train[_with(train, name)], [name], options["C"])[0] for name in modalities]
        return cls(np.concatenate(parts), 0.0, options)

    def score(self, target) -> np.ndarray:
        """Sigmoid of the mean logit over the spot and its neighbours."""
        from scipy.special import expit

        sections, stored = target.obs["section"].to_numpy(), _stored(target, self.options["modalities"])
        scaled = _scaled(target, self.options["modalities"])
        if self.options["fusion"] == "late":
            logits = self._late(scaled, stored, sections)
            logits = logits + target.obs["prior"].to_numpy(dtype=float) if "prior" in target.obs else logits
        else:
            columns = _with_prior(scaled, target, self.options["C"]) if "prior" in target.obs else scaled
            logits = columns @ self.weights + self.intercept
        around = nearest_within(target.obsm["spatial"], sections, self.options["neighbours"])
        if self.options["refits"]:
            read = scaled if isinstance(scaled, np.ndarray) else stored
            return expit(refit(logits, read, sections, around, self.options["refits"]))
        return expit(logits[around].mean(axis=1))

    def _late(self, scaled, stored: Features, sections: np.ndarray) -> np.ndarray:
        """The sum of the modalities' logits, each z-scored in its section: none outweighs another by its spread."""
        from scipy.linalg import block_diag

        ends = np.cumsum([part.shape[1] for part in stored.parts])[:-1]
        columns = block_diag(*np.split(self.weights[:, None], ends))  # a column of logits for each modality
        return section_scaled(scaled @ columns, sections, "zscore").sum(axis=1)

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights and intercept."""
        return {"weights": self.weights, "intercept": np.array([self.intercept])}

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from."""
        return cls(tensors["weights"], tensors["intercept"][0], options)


def features(view, modalities: list[str]) -> np.ndarray:
    """(spots x features), z-scored per section, as stains and depths differ between sections."""
    blocks = [np.asarray(matrix(view, name), dtype=np.float64) for name in _ordered(modalities)]
    return section_scaled(np.hstack(blocks), view.obs["section"].to_numpy(), "zscore")


def _ordered(modalities: list[str]) -> list[str]:
    """The modalities in the order of the features."""
    return [name for name in MODALITIES if name in modalities]


def _with(view, modality: str) -> np.ndarray:
    """The rows of a training view whose section has a modality: a section without a picture has NaN for it."""
    return np.flatnonzero(np.isfinite(view.obsm["image"][:, 0])) if modality == "image" else np.arange(view.n_obs)


def _stored(view, modalities: list[str]) -> Features:
    """The same features as stored in the view."""
    return Features(view, _ordered(modalities))


def _scaled(view, modalities: list[str]):
    """The result of `features`; for a view too large for it, a LinearOperator."""
    stored = _stored(view, modalities)
    if fits(stored.shape):
        return features(view, modalities)
    return Scaled(stored, view.obs["section"].to_numpy(), "zscore").operator()


def _with_prior(scaled, view, ridge: float):
    """The features and, as the last one, the scores of a model from elsewhere, scaled so that the prior sd of its
    weight is `PRIOR_LOGITS`."""
    from scipy.sparse.linalg import LinearOperator

    column = view.obs["prior"].to_numpy(dtype=np.float64) * PRIOR_LOGITS / np.sqrt(ridge)
    if isinstance(scaled, np.ndarray):
        return np.column_stack([scaled, column])
    return LinearOperator(
        (scaled.shape[0], scaled.shape[1] + 1),
        dtype=np.float64,
        matvec=lambda right: scaled @ right.ravel()[:-1] + column * right.ravel()[-1],
        rmatvec=lambda right: np.append(scaled.T @ right.ravel(), column @ right.ravel()),
    )


def _regressed(view, modalities: list[str], ridge: float, with_prior: bool = False) -> tuple[np.ndarray, float]:
    """Weights and intercept of the regression of known labels on the modalities' features."""
    from sklearn.linear_model import LogisticRegression

    labels, known = labelled_rows(view, SPEC.name)
    scaled = _scaled(view, modalities)
    scaled = _with_prior(scaled, view, ridge) if with_prior else scaled
    if not isinstance(scaled, np.ndarray):
        return _fitted_by_products(scaled, labels.astype(float), ridge)
    regression = LogisticRegression(C=ridge, class_weight="balanced", max_iter=1000)
    regression.fit(scaled[known], labels[known].astype(int))
    return regression.coef_.ravel(), regression.intercept_[0]


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
