"""The probability of cancer."""

from typing import ClassVar

import numpy as np
import pytest

from ctrflow.results.metrics import ece
from ctrflow.trust import calibration, level


class Model:
    """Scores by the first gene, and remembers the patients that it learned from."""

    seen: ClassVar[list] = []

    @classmethod
    def of(cls, train):
        cls.seen.append(set(train.obs["patient"]))
        return cls()

    def score(self, target):
        return 1 / (1 + np.exp(-(target.X.toarray()[:, 0] - 6)))


def test_contrast_is_the_distance_from_the_threshold_in_sd(monkeypatch):
    class At:
        threshold = 0.5

    monkeypatch.setattr(calibration.threshold, "fit", lambda scores, kind: At)
    scores, sections = np.array([0.5, 0.9, 0.1, 0.5]), np.array(["a", "a", "b", "b"])
    logit = np.log(9)
    expected = [0, logit / (logit / 2), -logit / (logit / 2), 0]
    assert calibration.contrast(scores, sections) == pytest.approx(expected)


def test_equal_scores_have_no_contrast():
    assert list(calibration.contrast(np.ones(4), np.array(["a"] * 4))) == [0, 0, 0, 0]


def test_scores_outside_of_0_to_1_are_taken_as_they_are():
    scores = np.r_[np.random.default_rng(0).normal(-5, 1, 50), np.random.default_rng(1).normal(5, 1, 50)]
    found = calibration.contrast(scores, np.array(["a"] * 100))
    assert np.corrcoef(found, scores)[0, 1] == pytest.approx(1)
    assert (found[:50] < 0).all()
    assert (found[50:] > 0).all()


def test_no_patient_is_scored_by_a_model_that_learned_from_it(train, made):
    Model.seen.clear()
    levels, _ = level.held_out_levels(train)
    found = calibration.fit(train, levels, Model.of)
    assert found["patients"] == ["A", "B", "C"]
    assert Model.seen == [{"B", "C"}, {"A", "C"}, {"A", "B"}]
    target = made("D", cancer_share=0.2, seed=5)
    values = level.score(target, level.fit(train))[0]
    scores, sections = Model().score(target), target.obs["section"].to_numpy()
    likely = calibration.probability(found, scores, sections, values)
    assert ece(target.obs["label"] == 1, likely) < 0.15
    # the section itself, without its tumour
    rest = target[target.obs["label"].to_numpy() == 0].copy()
    values = level.score(rest, level.fit(train))[0]
    likely = calibration.probability(found, Model().score(rest), rest.obs["section"].to_numpy(), values)
    assert likely.mean() < 0.15


def test_one_patient_gives_no_probability(made, caplog):
    train = made("AB")
    train.obs.loc[train.obs["patient"] == "A", "label"] = 0.0
    levels, _ = level.held_out_levels(train)
    assert calibration.fit(train, levels, Model.of) == {}
    assert "no probability: 1 patients could be held out" in caplog.text


def test_scores_that_fall_with_cancer_give_no_probability(train, caplog):
    class Wrong(Model):
        def score(self, target):
            return 1 - super().score(target)

    levels, _ = level.held_out_levels(train)
    assert calibration.fit(train, levels, Wrong.of) == {}
    assert "lower scores where there is cancer" in caplog.text


def test_a_patient_weighs_the_same_however_many_sections_and_spots_it_has():
    weights = calibration._weights([np.array(["a", "a", "b", "b", "b", "b"]), np.array(["c"])])
    assert weights == pytest.approx([1.5 / 4, 1.5 / 4, *[1.5 / 8] * 4, 1.5])
