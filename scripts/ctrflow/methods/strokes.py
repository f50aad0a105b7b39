"""A few strokes in a section teach the rest of it, alone or on top of a model from elsewhere.

The mean of up to three members, each z-scored, on the section's principal components (30 of each modality, of features
averaged over neighbourhoods):

- a logistic regression of the drawn labels whose offset is the model's score, trusted as far as it agrees with what is
  drawn: Somers' D of the model on the drawn spots, shrunk towards what it has elsewhere;
- `propagation`, which begins with the model's score;
- on top of a model, the regression without the offset, whose weight grows with the number of drawn regions.

Neighbours in a stroke repeat each other, so a drawn spot counts as a third of an observation and trust counts regions,
not spots. A score of 0 is the mean of the members' own thresholds. Chosen on patients A to C of HER2ST, tried on D to F
(docs/within.md). Nothing of the papers can use such labels; the idea is that of pixel classifiers (Berg et
al., ilastik, Nature Methods 16:1226, 2019).
"""

import numpy as np

from ctrflow.features import drawn
from ctrflow.features.blocks import Features, matrix
from ctrflow.features.neighbours import nearest
from ctrflow.features.scaling import Scaled, fits, section_scaled
from ctrflow.methods import MethodSpec, Option, propagation

COMPONENTS = 30  # of each modality
PRIOR = 3.0  # variance of the labels' own term: sd 1.7 logits at a spot of mean squared norm
BIAS = 0.1  # variance of the intercept: the model's threshold stays unless the labels insist
TEMPER = 0.3  # observations that a drawn spot counts as
SLOPE = 2.0  # logits per sd of a fully trusted model's score
TRUST, REGIONS = 0.8, 8  # Somers' D that a model is expected to have, worth as many drawn regions
ALONE = 6  # regions at which the labels alone have half the weight of another member

SPEC = MethodSpec(
    name="strokes",
    regime="drawn",
    modalities=("gene",),
    options={
        "image": propagation.SPEC.options["image"],
        "neighbours": Option(6, "spots whose features are averaged with the spot's own; 0 for none"),
    },
    minutes=10,
    threshold="zero",
    seeded=False,
    reference="Regression and propagation of drawn labels on a section's principal components",
)


class Model(propagation.Model):
    """A score for each spot of the section that was drawn in; it scores no other section."""

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Learn from the drawn labels of the section, obs["label"], and the model's scores, obs["prior"], if any."""
        labels = train.obs["label"].to_numpy(dtype=float)
        rows = np.flatnonzero(~np.isnan(labels))
        hers = np.where(train.obs["weak"], np.nan, labels)
        count = int(drawn.numbered(hers, drawn.adjacency(train.obsm["spatial"])).max()) + 1
        given = "prior" in train.obs
        prior = train.obs["prior"].to_numpy(dtype=float) if given else np.zeros(train.n_obs)
        trusted = trust(prior, hers, count) if given else 0.0
        read = propagation.modalities(train, options)
        described = components(train, read, options["neighbours"])
        of_labels = described, rows, labels[rows]
        with_offset = regression(*of_labels, SLOPE * trusted * prior)
        spread = propagation.spread(train, read, options["neighbours"], propagation.ROUNDS, trusted)
        members = [(with_offset, with_offset, 1.0), (spread, with_offset, 1.0)]
        if given:
            alone = regression(*of_labels, np.zeros(train.n_obs))
            members.append((alone, alone, count / (count + ALONE)))
        return cls(combined(members))


def trust(prior: np.ndarray, labels: np.ndarray, count: int) -> float:
    """How far to trust a model, 0 to 1: its Somers' D on the drawn spots, which it never saw, shrunk to `TRUST`.

    Parameters
    ----------
    prior, labels : (spots,) the model's scores; 1, 0, NaN = not drawn
    count : drawn regions
    """
    from scipy.stats import mannwhitneyu

    cancer, other = prior[labels == 1], prior[labels == 0]
    if not (len(cancer) and len(other)):
        return TRUST
    found = 2 * mannwhitneyu(cancer, other).statistic / (len(cancer) * len(other)) - 1  # Somers' D
    return max(0.0, (count * found + REGIONS * TRUST) / (count + REGIONS))


def components(view, read: list[str], neighbours: int) -> np.ndarray:
    """(spots x 30 for each modality read): principal components of z-scores averaged over neighbourhoods.

    The mean squared norm of a spot is 1.
    """
    from scipy.sparse import csr_matrix

    around = nearest(view.obsm["spatial"], neighbours)
    n, width = around.shape
    mean = csr_matrix((np.full(n * width, 1 / width), around.ravel(), np.arange(0, n * width + 1, width)), (n, n))
    parts = []
    for name in read:
        averaged = _averaged(view, name, mean)
        part = _leading(averaged, min(COMPONENTS, *(side - 1 for side in averaged.shape)))
        parts.append(part / max(np.sqrt((part**2).sum() / n), 1e-12))
    return np.hstack(parts) / np.sqrt(len(parts))


def _leading(matrix, count: int) -> np.ndarray:
    """The rows of a matrix, or a LinearOperator, in its leading principal axes."""
    from scipy.sparse.linalg import svds
    from sklearn.utils.extmath import randomized_svd

    if isinstance(matrix, np.ndarray):
        basis, size, _ = randomized_svd(matrix, count, random_state=0)
    else:
        basis, size, _ = svds(matrix, count, random_state=0)
    return basis * size


def _averaged(view, modality: str, mean):
    """Z-scores of a modality averaged over neighbourhoods and centred; a LinearOperator where they do not fit."""
    from scipy.sparse.linalg import LinearOperator, aslinearoperator

    sections, stored = np.zeros(view.n_obs), Features(view, [modality])
    if fits(stored.shape):
        averaged = mean @ section_scaled(np.asarray(matrix(view, modality), dtype=np.float64), sections, "zscore")
        return averaged - averaged.mean(axis=0)
    product = aslinearoperator(mean) @ Scaled(stored, sections, "zscore").operator()
    centre = product.T @ np.full(view.n_obs, 1 / view.n_obs)
    return LinearOperator(
        product.shape,
        dtype=np.float64,
        matvec=lambda right: product @ right - centre @ right,
        rmatvec=lambda right: product.T @ right - centre * right.sum(),
        matmat=lambda right: product @ right - centre @ right,
        rmatmat=lambda right: product.T @ right - np.outer(centre, right.sum(axis=0)),
    )


def regression(described: np.ndarray, rows: np.ndarray, labels: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Logits of all spots: offset + intercept + linear term at their posterior mode, given the labels of some.

    The priors are normal with the variances `PRIOR` and `BIAS`; Newton's method with step halving.
    """
    from scipy.special import expit

    columns = np.column_stack([described * np.sqrt(PRIOR), np.full(len(described), np.sqrt(BIAS))])
    known, shift, sign = columns[rows], offset[rows], 2 * labels - 1
    weight = TEMPER * propagation.balance(labels)
    point = np.zeros(columns.shape[1])

    def loss(at: np.ndarray) -> float:
        return weight @ np.logaddexp(0, -sign * (known @ at + shift)) + at @ at / 2

    for _ in range(100):
        share = expit(known @ point + shift)
        slope = known.T @ (weight * (share - labels)) + point
        curve = (known * (weight * share * (1 - share))[:, None]).T @ known + np.eye(len(point))
        step, size, now = np.linalg.solve(curve, slope), 1.0, loss(point)
        while loss(point - size * step) > now and size > 1e-4:
            size /= 2
        point = point - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return offset + columns @ point


def combined(members: list[tuple]) -> np.ndarray:
    """The weighted mean of z-scored members, z-scored, less their mean threshold.

    Parameters
    ----------
    members : of each its values (spots,), the logits whose 0 is its threshold, and its weight
    """
    total = sum(weight for *_, weight in members)
    threshold = -sum(weight * logits.mean() / max(logits.std(), 1e-12) for _, logits, weight in members) / total
    return _standard(sum(weight * _standard(values) for values, _, weight in members)) - threshold


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 1e-12)
