"""Patients left out in turn, and the tumour-free crops of their sections."""

import numpy as np

from ctrflow.trust.held_out import crop_rows, held_out


def test_a_crop_keeps_the_spots_labelled_other():
    labels = np.array([1.0] * 100 + [0.0] * 120 + [np.nan] * 30)
    assert list(crop_rows(labels)) == list(range(100, 220))


def test_a_crop_needs_a_hundred_spots_and_a_third_of_the_section():
    assert len(crop_rows(np.array([1.0] * 50 + [0.0] * 99))) == 0
    assert len(crop_rows(np.array([1.0] * 50 + [0.0] * 100))) == 100
    assert len(crop_rows(np.array([1.0] * 300 + [0.0] * 128))) == 0  # 29.9 %


def test_a_section_without_cancer_is_its_own_crop():
    assert len(crop_rows(np.zeros(200))) == 0


def test_each_patient_is_left_out_with_its_crop(train):
    found = list(held_out(train))
    assert [one.patient for one in found] == ["A", "B", "C"]
    first = found[0]
    assert set(first.rest.obs["patient"]) == {"B", "C"}
    assert list(dict.fromkeys(first.sections.obs["section"])) == ["A1", "A1.tumour_free"]
    assert "label" not in first.sections.obs
    assert np.array_equal(first.sections.X.toarray(), train.X[first.rows].toarray())
    crop = first.labels[first.crop]
    assert len(crop) == (train.obs["label"][:225] == 0).sum()
    assert set(crop) == {0.0}


def test_only_usable_spots_are_scored_and_all_others_teach(train):
    usable = (train.obs["patient"] == "B").to_numpy()
    (only,) = held_out(train, usable)
    assert only.patient == "B"
    assert set(only.rest.obs["patient"]) == {"A", "C"}


def test_a_patient_is_not_left_out_if_one_class_would_be_left(made):
    train = made("AB")
    train.obs.loc[train.obs["patient"] == "A", "label"] = 0.0
    assert [one.patient for one in held_out(train)] == ["A"]  # without B no cancer is left
