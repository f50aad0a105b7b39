"""The plain one-class baseline: its joint space, its distances, its scaling."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features.memory_bank import coreset
from ctrflow.features.neighbours import nearest_within
from ctrflow.methods import patchcore


def section(name, seed, anomalous=0, shift=0.0):
    """49 spots; the last `anomalous` of them lie 2 sd off in every other feature, all of them `shift` off in all."""
    rng = np.random.default_rng(seed)
    off = np.repeat([0.0, 2.0], [49 - anomalous, anomalous])[:, None] * (np.arange(30) % 2) + shift
    genes = rng.normal(5, 1, (49, 30)) + off
    image = rng.normal(0, 100, (49, 30)) + 100 * off
    obs = pd.DataFrame({"section": name}, index=[f"{name}{i}" for i in range(49)])
    xy = np.column_stack([np.arange(49) % 7, np.arange(49) // 7]).astype(float)
    return anndata.AnnData(
        sparse.csr_matrix(genes.astype(np.float32)),
        obs=obs,
        obsm={"spatial": xy, "image": image.astype(np.float32)},
    )


@pytest.fixture(scope="module")
def reference():
    return anndata.concat([section("n1", 1), section("n2", 2)])


def fitted(reference, seed=0, **given):
    return patchcore.Model.fit(reference, methods.resolve_options(patchcore.SPEC, given), seed)


def joint(reference, target, neighbours=6):
    """z-score, clip, mean over the neighbourhood, equal length; modality by modality."""
    parts = [], []
    for features in (lambda v: v.obsm["image"].astype(float), lambda v: v.X.toarray().astype(float)):
        mean, sd = features(reference).mean(axis=0), features(reference).std(axis=0)
        own = []
        for view in (reference, target):
            around = nearest_within(view.obsm["spatial"], view.obs["section"].to_numpy(), neighbours)
            z = np.clip((features(view) - mean) / sd, -10, 10)
            own.append(np.array([z[rows].mean(axis=0) for rows in around]))
        length = np.sqrt(own[0].var(axis=0).sum())
        for part, values in zip(parts, own, strict=True):
            part.append(values / length)
    return [np.hstack(part) for part in parts]


def test_score_is_the_distance_to_the_nearest_reference_spot_in_the_joint_space(reference):
    target = section("t", 3, anomalous=20)
    near, far = joint(reference, target)
    model = fitted(reference)
    assert len(model.bank) == 98  # fewer than the smallest bank: all of them
    assert model.score(target) == pytest.approx(cdist(far, near).min(axis=1), rel=1e-4)


def test_a_tenth_of_them_is_a_coreset(reference):
    target = section("t", 3, anomalous=20)
    near, far = joint(reference, target)
    rows = coreset(near, 0.1, 1, 0)
    assert len(rows) == 10
    model = fitted(reference, coreset_least=1)
    assert model.score(target) == pytest.approx(cdist(far, near[rows]).min(axis=1), rel=1e-4)


def test_a_difference_in_which_normal_tissue_does_not_vary_is_seen():
    # genes 0 and 1 are equal in every normal spot: by principal axes, spots in which they differ look normal
    genes = np.repeat(np.random.default_rng(0).normal(5, 1, (60, 1)), 2, axis=1).astype(np.float32)
    xy = np.column_stack([np.arange(60), np.zeros(60)])
    obs = pd.DataFrame({"section": "n"}, index=[f"n{i}" for i in range(60)])
    normal = anndata.AnnData(sparse.csr_matrix(genes), obs=obs, obsm={"spatial": xy})
    target = normal.copy()
    displaced = genes + [[4, -4]] * (np.arange(60) % 2)[:, None]
    target.X = sparse.csr_matrix(displaced.astype(np.float32))
    found = fitted(normal, modalities=["gene"], neighbours=0).score(target)
    assert found[::2] == pytest.approx(np.zeros(30), abs=1e-6)
    # 4 of either, across the line on which all normal spots lie, in units of the length of normal spots
    assert found[1::2].min() > 0.99 * np.sqrt(32) / np.sqrt(genes.var(axis=0).sum())


def test_each_modality_weighs_the_same(reference):
    model = fitted(reference)
    squares = np.square(model.bank - model.bank.mean(axis=0)).sum(axis=0)
    assert model.bank.shape == (98, 60)
    assert squares[:30].sum() == pytest.approx(98, rel=1e-3)
    assert squares[30:].sum() == pytest.approx(98, rel=1e-3)


@pytest.mark.parametrize("modalities", [["image"], ["gene"], ["gene", "image"]])
def test_anomalous_spots_are_farther(reference, modalities):
    truth = np.repeat([0, 1], [29, 20])
    model = fitted(reference, modalities=modalities)
    assert roc_auc_score(truth, model.score(section("t", 3, anomalous=20))) > 0.95


def test_a_shift_of_the_section_counts_unless_it_is_scaled_by_itself(reference):
    plain, shifted = section("t", 3), section("t", 3, shift=3.0)
    by_reference, by_section = fitted(reference), fitted(reference, scaling="section")
    assert by_reference.score(shifted).min() > by_reference.score(plain).max()
    assert by_section.score(shifted) == pytest.approx(by_section.score(plain), rel=1e-3)


def test_sections_do_not_touch_each_other(reference):
    one, other = section("t", 3, anomalous=20), section("u", 4, shift=1.0)
    for scaling in ("reference", "section"):
        model = fitted(reference, scaling=scaling)
        both = model.score(anndata.concat([one, other]))
        assert both[:49] == pytest.approx(model.score(one), abs=1e-9)
        assert both[49:] == pytest.approx(model.score(other), abs=1e-9)


def test_tensors_hold_the_whole_model(reference):
    target = section("t", 3)
    for given in ({}, {"scaling": "section"}, {"modalities": ["gene"]}):
        model = fitted(reference, **given)
        again = patchcore.Model.from_tensors(model.tensors(), model.options, 0)
        assert (again.score(target) == model.score(target)).all()


def test_expression_alone_needs_no_image(reference):
    bare, target = reference.copy(), section("t", 3)
    del bare.obsm["image"], target.obsm["image"]
    assert np.isfinite(fitted(bare, modalities=["gene"]).score(target)).all()


def test_constant_features_say_nothing(reference):
    flat = reference.copy()
    flat.obsm["image"] = np.zeros_like(flat.obsm["image"])
    target = section("t", 3)
    target.obsm["image"] = np.zeros_like(target.obsm["image"])
    found = fitted(flat).score(target)
    assert found == pytest.approx(fitted(flat, modalities=["gene"]).score(target), rel=1e-6)


def test_the_bank_is_bounded_by_the_reference_spots_asked_for(reference):
    assert len(fitted(reference, max_reference_spots=50).bank) == 50


def test_one_spot_is_refused(reference):
    with pytest.raises(InputError, match="1 spot in the normal sections n1; it needs at least 2"):
        fitted(reference[:1])
