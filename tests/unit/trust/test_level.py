"""The level of sections: whether there is a tumour."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ctrflow.trust import level
from ctrflow.trust.held_out import held_out


def test_the_level_tells_a_section_with_tumour_from_one_without(made):
    tensors = level.fit(made("ABC"))
    ill, well = made("D", seed=1), made("E", cancer_share=0.0, seed=2)
    values = level.score(ill, tensors)[0]
    assert roc_auc_score(ill.obs["label"], values) > 0.95
    # scaling a section by itself would make both peaks alike
    assert level.peaks(ill, values)["D1"] > 0 > level.peaks(well, level.score(well, tensors)[0])["E1"]


def test_expression_is_averaged_before_the_logarithm(made):
    view = made("A")
    around = level.nearest(view.obsm["spatial"], 6)[0]
    expected = np.log1p(np.expm1(view.X.toarray()[around]).mean(axis=0))
    assert np.allclose(level.pooled(view, np.array([0]))[0], expected, rtol=1e-5)


def test_the_origin_is_the_mean_of_the_patients_not_of_the_spots(made):
    """Three spots of A, one of B: mean (2 + 8) / 2; variances 2/3 and 0."""
    features = np.array([[1.0], [2.0], [3.0], [8.0]], dtype=np.float32)
    mean, sd = level._of_patients(features, np.array(["A", "A", "A", "B"]))
    assert (mean[0], sd[0]) == pytest.approx((5.0, np.sqrt(1 / 3)))


def test_a_gene_without_counts_has_no_effect(made):
    tensors, view = level.fit(made("ABC")), made("D", seed=1)
    lacking = view.copy()
    dense = lacking.X.toarray()
    dense[:, 5] = 0
    lacking.X = type(view.X)(dense)
    other = {name: value.copy() for name, value in tensors.items()}
    other["level.weights"][5] = 7.0
    assert np.array_equal(level.score(lacking, tensors)[0], level.score(lacking, other)[0])
    assert not np.array_equal(level.score(view, tensors)[0], level.score(view, other)[0])


def test_shuffled_positions_have_no_structure(made):
    tensors, view = level.fit(made("ABC")), made("D", seed=1)
    assert level.score(view, tensors)[1]["D1"] > 0.12
    view.obsm["spatial"] = np.random.default_rng(0).permutation(view.obsm["spatial"])
    assert abs(level.score(view, tensors)[1]["D1"]) < 0.06


def test_held_out_levels_do_not_depend_on_the_patients_own_labels(train):
    levels, sections = level.held_out_levels(train)
    lines = {one.section: one for one in sections}
    assert lines["A1"].tumour
    assert not lines["A1.tumour_free"].tumour
    assert lines["A1"].peak > lines["A1.tumour_free"].peak
    first = next(iter(held_out(train)))
    assert np.allclose(
        np.where(first.crop, levels["held_out.crop"][first.rows], levels["held_out.full"][first.rows]),
        level.score(first.sections, level.fit(first.rest))[0],
        rtol=1e-5,
    )
    other = train.copy()
    own = (other.obs["patient"] == "A").to_numpy()
    other.obs.loc[own, "label"] = np.random.default_rng(0).permutation(other.obs["label"][own].to_numpy())
    again, _ = level.held_out_levels(other)
    assert np.array_equal(levels["held_out.full"][own], again["held_out.full"][own])
    assert np.isnan(levels["held_out.crop"][(train.obs["label"] == 1).to_numpy()]).all()
