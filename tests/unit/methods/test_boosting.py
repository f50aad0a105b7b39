"""Boosted trees: their inputs, and that our walk through them is scikit-learn's."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features.neighbours import nearest_within
from ctrflow.features.scaling import section_scaled
from ctrflow.methods import boosting


def section(name, seed):
    """64 spots, the right half cancer: 1 sd up in half of the genes and image features."""
    rng = np.random.default_rng(seed)
    truth = (np.arange(64) % 8 > 3).astype(float)
    up = truth[:, None] * (np.arange(20) % 2)
    obs = pd.DataFrame({"section": name, "label": truth}, index=[f"{name}{i}" for i in range(64)])
    xy = np.column_stack([np.arange(64) % 8, np.arange(64) // 8]).astype(float)
    return anndata.AnnData(
        sparse.csr_matrix((rng.normal(3, 1, (64, 20)) + up).astype(np.float32)),
        obs=obs,
        obsm={"spatial": xy, "image": (rng.normal(0, 1, (64, 20)) + up).astype(np.float32)},
    )


@pytest.fixture(scope="module")
def train():
    both = anndata.concat([section("a", 1), section("b", 2)])
    both.obs.loc[both.obs_names[::9], "label"] = np.nan
    return both


def fitted(train, **given):
    return boosting.Model.fit(train, methods.resolve_options(boosting.SPEC, {"rounds": 20} | given), 0)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("rounds", [1, 30])
def test_our_walk_gives_the_probabilities_of_scikit_learn(missing, rounds):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 7))
    labels = (features[:, 0] * features[:, 1] + 0.5 * rng.normal(size=500) > 0).astype(int)
    features[rng.random(features.shape) < missing] = np.nan
    classifier = HistGradientBoostingClassifier(max_iter=rounds, class_weight="balanced", early_stopping=False)
    classifier.fit(features[:300], labels[:300])
    trees = boosting.exported(classifier)
    assert expit(boosting.logits(trees, features)) == pytest.approx(classifier.predict_proba(features)[:, 1], abs=1e-12)
    assert len(trees["roots"]) == rounds


def test_a_value_on_the_threshold_goes_left():
    trees = {
        "baseline": np.array([0.5]),
        "roots": np.array([0, 3]),
        "feature": np.array([1, 0, 0, 0]),
        "threshold": np.array([2.0, 0, 0, 0]),
        "missing_left": np.array([0, 0, 0, 0], np.uint8),
        "left": np.array([1, 0, 0, 0]),
        "right": np.array([2, 0, 0, 0]),
        "leaf": np.array([0, 1, 1, 1], np.uint8),
        "value": np.array([0.0, -1, 1, 0.25]),
    }
    found = boosting.logits(trees, np.array([[9, 2.0], [9, 2.1], [9, np.nan]]))
    assert found.tolist() == [-0.25, 1.75, 1.75]


def test_few_distinct_values_are_left_and_many_become_quantiles():
    rng = np.random.default_rng(0)
    few, many = np.arange(120.0)[:, None], rng.normal(size=(2000, 1))
    assert boosting._binned(few[::-1]) == pytest.approx(few[::-1], abs=0.25)
    binned = boosting._binned(many)
    assert len(np.unique(binned)) == 255
    order = np.argsort(many[:, 0])
    assert (np.diff(binned[order, 0]) >= 0).all()
    assert np.abs(binned - many).mean() < 0.01


def test_inputs_are_components_and_their_neighbourhood_means(train):
    model = fitted(train, components=3)
    sections = train.obs["section"].to_numpy()
    own = np.hstack(
        [
            section_scaled(features, sections, "zscore") @ model.axes[name]
            for name, features in (("image", train.obsm["image"]), ("gene", train.X.toarray()))
        ]
    )
    around = nearest_within(train.obsm["spatial"], sections, 6)
    expected = np.hstack([own, [own[rows].mean(axis=0) for rows in around]])
    scaled = boosting._scaled(train, ["gene", "image"])
    assert boosting._described(train, scaled, model.axes, 6) == pytest.approx(expected, abs=1e-6)
    assert expected.shape == (128, 12)


def test_scores_are_those_of_the_classifier_it_trained(train, monkeypatch):
    seen = {}
    monkeypatch.setattr(boosting, "exported", lambda classifier: seen.update(it=classifier) or {})
    fitted(train)
    monkeypatch.undo()
    target = section("t", 3)
    model = fitted(train)
    described = boosting._described(target, boosting._scaled(target, ["image", "gene"]), model.axes, 6)
    assert model.score(target) == pytest.approx(seen["it"].predict_proba(described)[:, 1], abs=1e-12)
    assert seen["it"].n_iter_ == 20


@pytest.mark.parametrize("modalities", [["image"], ["gene"], ["image", "gene"]])
def test_cancer_scores_higher_on_another_section(train, modalities):
    target = section("t", 3)
    assert roc_auc_score(target.obs["label"], fitted(train, modalities=modalities).score(target)) > 0.9


def test_unlabelled_spots_are_not_learned_from_but_are_neighbours(train):
    model, known = fitted(train), train.obs["label"].notna().to_numpy()
    assert known.sum() == 113
    described = boosting._described(train, boosting._scaled(train, ["image", "gene"]), model.axes, 6)
    classifier = HistGradientBoostingClassifier(max_iter=20, class_weight="balanced", early_stopping=False)
    classifier.fit(described[known], train.obs["label"][known])
    assert model.score(train) == pytest.approx(classifier.predict_proba(described)[:, 1], abs=1e-9)


def test_tensors_hold_the_whole_model(train):
    target = section("t", 3)
    model = fitted(train, modalities=["gene"])
    again = boosting.Model.from_tensors(model.tensors(), model.options, 0)
    assert (again.score(target) == model.score(target)).all()


def test_sections_do_not_touch_each_other(train):
    model, one = fitted(train), section("t", 3)
    both = model.score(anndata.concat([one, section("u", 4)]))
    assert both[:64] == pytest.approx(model.score(one), abs=1e-12)


def test_one_class_is_refused(train):
    cancer = train[train.obs["label"] == 1].copy()
    with pytest.raises(InputError, match="57 cancer and 0 other labelled spots"):
        fitted(cancer)
