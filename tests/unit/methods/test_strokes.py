"""Strokes and propagation, against independent computations and on planted tissue."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features import scaling
from ctrflow.features.neighbours import nearest
from ctrflow.methods import propagation, strokes

GRID = np.array([(x, y) for y in range(20) for x in range(20)], dtype=float) * 100
TRUTH = (GRID[:, 0] >= 1000).astype(float)


@pytest.fixture
def view():
    return tissue(0.7)


@pytest.fixture
def faint():
    """The same with differences that two strokes do not teach."""
    return tissue(0.04)


def tissue(difference):
    """Two tissues, side by side, that differ in 20 of 60 genes; one stroke in each."""
    rng = np.random.default_rng(1)
    genes = rng.normal(0, 1, (400, 60))
    genes[:, :20] += np.where(TRUTH, difference, -difference)[:, None]
    labels = np.full(400, np.nan)
    labels[[21, 22, 23, 41, 42, 43]] = 0
    labels[[36, 37, 38, 56, 57, 58]] = 1
    obs = pd.DataFrame({"section": "A", "spot": [f"s{i}" for i in range(400)], "label": labels, "weak": False})
    found = anndata.AnnData(sparse.csr_matrix(genes.astype(np.float32)), obs=obs.set_index("A/" + obs["spot"]))
    found.obsm["spatial"] = GRID
    return found


def scores_of(name, view, **options):
    module = methods.load(name)
    return module.Model.fit(view, methods.resolve_options(module.SPEC, options), 0).score(view)


@pytest.mark.parametrize("name", ["strokes", "propagation"])
def test_two_strokes_teach_the_rest(name, view):
    rest = view.obs["label"].isna().to_numpy()
    assert roc_auc_score(TRUTH[rest], scores_of(name, view)[rest]) > 0.95
    called = scores_of("strokes", view) >= 0
    assert (called[rest] == TRUTH[rest]).mean() > 0.9


@pytest.mark.parametrize("name", ["strokes", "propagation"])
def test_a_good_model_helps(name, faint):
    alone = roc_auc_score(TRUTH, scores_of(name, faint))
    faint.obs["prior"] = np.where(TRUTH, 1, -1) + np.random.default_rng(2).normal(0, 1, 400)
    assert roc_auc_score(TRUTH, scores_of(name, faint)) > alone + 0.05


def test_a_wrong_model_is_believed_less_the_more_is_drawn(view):
    view.obs["prior"] = np.where(TRUTH, -1, 1) + np.random.default_rng(2).normal(0, 1, 400)
    two = roc_auc_score(TRUTH, scores_of("strokes", view))
    corners = [(GRID[:, 0] % 500 < 200) & (GRID[:, 1] % 500 < 200) & (GRID[:, 0] // 1000 == half) for half in (0, 1)]
    view.obs["label"] = np.select(corners, [0.0, 1.0], np.nan)
    many = roc_auc_score(TRUTH, scores_of("strokes", view))
    assert many > 0.95
    assert many > two


def test_trust_is_somers_d_shrunk_by_regions(view):
    labels = np.array([1, 1, 0, 0, np.nan])
    prior = np.array([3, 1, 2, 0, 9.0])  # three of four pairs are right: D = 0.5
    assert strokes.trust(prior, labels, count=2) == pytest.approx((2 * 0.5 + 8 * 0.8) / 10)
    assert strokes.trust(-prior, labels, count=40) == 0
    assert strokes.trust(prior, np.where(labels == 0, np.nan, labels), count=3) == 0.8


def test_the_regression_is_at_its_posterior_mode():
    """Against SciPy's optimiser on the loss written out."""
    rng = np.random.default_rng(3)
    described, offset = rng.normal(size=(50, 4)), rng.normal(size=50)
    rows, labels = np.arange(12), np.r_[np.ones(4), np.zeros(8)]
    weight = 0.3 * np.r_[np.full(4, 12 / 8), np.full(8, 12 / 16)]

    def loss(point):
        logits = offset[rows] + described[rows] @ point[:4] + point[4]
        chance = 1 / (1 + np.exp(-logits))
        fit = -(weight * (labels * np.log(chance) + (1 - labels) * np.log(1 - chance))).sum()
        return fit + (point[:4] ** 2).sum() / (2 * 3.0) + point[4] ** 2 / (2 * 0.1)

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    expected = offset + described @ best[:4] + best[4]
    assert strokes.regression(described, rows, labels, offset) == pytest.approx(expected, abs=1e-5)


def test_components_are_those_of_averaged_z_scores(view):
    X = view.X.toarray().astype(float)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    averaged = np.array([scaled[around].mean(axis=0) for around in nearest(GRID, 6)])
    averaged -= averaged.mean(axis=0)
    basis, size, _ = np.linalg.svd(averaged, full_matrices=False)
    expected = (basis * size)[:, :30]
    expected /= np.sqrt((expected**2).sum() / 400)
    found = strokes.components(view, ["gene"], 6)
    # randomised: exact for the leading ones, signs free
    assert (found**2).sum(axis=1).mean() == pytest.approx(1)
    for n in range(3):
        assert abs(np.corrcoef(found[:, n], expected[:, n])[0, 1]) == pytest.approx(1, abs=1e-3)


def test_a_large_section_gives_the_same(view, monkeypatch):
    dense = scores_of("strokes", view)
    monkeypatch.setattr(scaling, "DENSE", 10)
    assert scores_of("strokes", view) == pytest.approx(dense, abs=0.05)


def test_members_weigh_as_given_and_zero_is_their_mean_threshold():
    one, two = np.array([0.0, 1, 2, 3]), np.array([3.0, 5, 5, 11])
    found = strokes.combined([(one, one - 1, 1.0), (two, two - 6, 3.0)])
    z = (one - 1.5) / one.std() + 3 * (two - 6) / two.std()
    threshold = (1 * (1 - 1.5) / one.std() + 3 * (6 - 6) / two.std()) / 4
    assert found == pytest.approx(z / z.std() - threshold)


def test_held_spots_pull_those_like_them(view):
    """Three rounds by hand: held, projected with the ridge's shrinkage, averaged, standardised."""
    from ctrflow.features.refit import RIDGE, held

    X, around = view.X.toarray().astype(float), nearest(GRID, 6)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    basis, size, _ = np.linalg.svd(scaled, full_matrices=False)
    kept = size**2 / (size**2 + RIDGE * 400 * 60 / 60)
    basis, kept = basis[:, :50], kept[:50]
    values, rows = np.zeros(400), np.array([21, 36])
    for _ in range(3):
        values[rows] = [-2, 2]
        values = (basis @ (kept * (basis.T @ (values - values.mean()))))[around].mean(axis=1)
        values = (values - values.mean()) / values.std()
    found = held(np.zeros(400), X, around, rows, np.array([-2.0, 2.0]), 3)
    assert np.corrcoef(found, values)[0, 1] == pytest.approx(1, abs=1e-3)
    assert (held(np.zeros(2), X[:2], around[:2] % 2, rows[:1] * 0, np.array([2.0]), 3) == 0).all()


def test_a_drawing_scores_no_other_section(view):
    model = propagation.Model(np.zeros(7))
    with pytest.raises(InputError, match="scores the section that it learned from, and no other: A has 400 spots"):
        model.score(view)


@pytest.mark.parametrize("fusion", ["joint", "late"])
def test_linear_takes_the_scores_of_a_model_as_a_feature(faint, fusion):
    view = faint
    options = {"modalities": ["gene"], "fusion": fusion}
    alone = scores_of("linear", view, **options)
    rng = np.random.default_rng(5)
    view.obs["prior"] = np.where(TRUTH, 1, -1) + rng.normal(0, 0.5, 400)
    both = scores_of("linear", view, **options)
    assert roc_auc_score(TRUTH, both) > roc_auc_score(TRUTH, alone)
    assert np.corrcoef(both, view.obs["prior"])[0, 1] > 0.5


def test_linear_learns_the_same_from_a_large_section(view, monkeypatch):
    view.obs["prior"] = TRUTH - 0.5
    dense = scores_of("linear", view, modalities=["gene"])
    monkeypatch.setattr(scaling, "DENSE", 10)
    assert scores_of("linear", view, modalities=["gene"]) == pytest.approx(dense, abs=1e-3)


def test_boosting_divides_a_few_drawn_spots(view):
    view.obs["prior"] = np.where(TRUTH, 1.0, -1.0)
    assert roc_auc_score(TRUTH, scores_of("boosting", view, modalities=["gene"])) > 0.9
