"""Views with what is drawn, and with the scores of a model from elsewhere."""

import logging

import anndata
import numpy as np
import pandas as pd
import pytest

from ctrflow.errors import InputError
from ctrflow.within import teach


def view_of(n=40, **columns):
    obs = pd.DataFrame({"section": "A", "spot": [f"s{i}" for i in range(n)], **columns})
    return anndata.AnnData(np.zeros((n, 1)), obs=obs.set_index("A/" + obs["spot"]))


def drawing(labels, near=()):
    rows = range(len(labels))
    table = pd.DataFrame({"spot": [f"s{i}" for i in rows], "label": pd.array(labels, dtype="Int64"), "near": 0})
    table.loc[list(near), "near"] = 1
    return table.iloc[::-1]  # the order of the file is of no account


def test_labels_are_those_that_are_drawn():
    labels = [1, 0, *[None] * 38]
    found = teach.taught(view_of(), drawing(labels))
    assert found.obs["label"].tolist()[:2] == [1, 0]
    assert found.obs["label"].isna().sum() == 38
    assert not found.obs["weak"].any()


@pytest.mark.parametrize(("drawn", "stands_in"), [(1, 0), (0, 1)])
def test_a_model_stands_in_for_the_class_that_is_not_drawn(drawn, stands_in, caplog):
    labels = [drawn, drawn, *[None] * 38]
    prior = np.linspace(-2, 2, 40) * (1 if stands_in == 0 else -1)
    found = teach.taught(view_of(prior=prior), drawing(labels, near=[0, 1, 2]))
    # a tenth of 40 spots: the four that lie farthest on the other side, not beside what is drawn
    assert list(np.flatnonzero(found.obs["weak"])) == [3, 4, 5, 6]
    assert (found.obs["label"][found.obs["weak"]] == stands_in).all()
    assert "the 4 spots that the model takes for it most stand in" in caplog.text


def test_one_class_without_a_model_is_refused():
    with pytest.raises(InputError, match="nothing is drawn as other tissue; draw a region of it too"):
        teach.taught(view_of(), drawing([1, 1, *[None] * 38]))
    with pytest.raises(InputError, match="no spot is drawn"):
        teach.taught(view_of(), drawing([None] * 40))


def test_one_class_over_the_whole_section_is_refused():
    with pytest.raises(InputError, match="no spot is left that a model could take for it"):
        teach.taught(view_of(prior=np.arange(40.0)), drawing([1] * 40, near=range(40)))


def test_the_prior_is_the_mean_contrast_of_the_seeds():
    """Scores around two means 0 and 10: the threshold of the mixture lies between, and each seed counts the same."""
    rng = np.random.default_rng(0)
    scores = np.r_[rng.normal(0, 1, 20), rng.normal(10, 1, 20)]
    tables = [
        pd.DataFrame({"section": "A", "spot": [f"s{i}" for i in range(40)], "score": values}).iloc[::-1]
        for values in (scores, 7 * scores + 100)
    ]
    other = pd.DataFrame({"section": "B", "spot": [f"s{i}" for i in range(40)], "score": -scores})
    tables[0] = pd.concat([other, tables[0]])
    found = teach.prior(view_of(), tables, "mixture")
    assert (found[:20] < 0).all()
    assert (found[20:] > 0).all()
    # in sd above the threshold: the same for a shifted and stretched seed
    assert found.std() == pytest.approx(1, abs=1e-6)
    assert np.diff(found) == pytest.approx(np.diff(scores) / scores.std(), abs=1e-6)


def test_scores_of_other_spots_are_refused():
    table = pd.DataFrame({"section": "A", "spot": ["s1"], "score": [1.0]})
    with pytest.raises(InputError, match="39 of its spots have no score"):
        teach.prior(view_of(), [table], "mixture")


@pytest.mark.parametrize(("sign", "warned"), [(1, False), (-1, True)])
def test_a_model_against_the_drawing_is_told(sign, warned, caplog):
    labels = [1] * 5 + [0] * 5 + [None] * 30
    view = teach.taught(view_of(prior=sign * np.linspace(2, -2, 40)), drawing(labels))
    with caplog.at_level(logging.WARNING):
        teach.warn_of_disagreement(view)
    assert ("does not tell apart what is drawn (AUC 0.00)" in caplog.text) == warned
    said = teach.disagreement(view, np.where(view.obs["weak"], np.nan, view.obs["label"]))
    assert said.startswith("the model from elsewhere does not tell apart") == warned
    assert bool(said) == warned


def test_marks_follow_the_spots_of_the_score_table():
    scored = pd.DataFrame({"spot": ["s2", "s0", "s1"]})
    table = teach.marked(scored, drawing([None, 0, 1], near=[1, 2]), learned=True)
    assert table["spot"].tolist() == ["s2", "s0", "s1"]
    assert table["near"].tolist() == [1, 0, 1]
    assert table["drawn"].fillna(-1).tolist() == [1, -1, 0]
    assert "drawn" not in teach.marked(scored, drawing([None, 0, 1]), learned=False)


def test_each_seed_has_a_drawing_of_its_own():
    both = pd.concat([drawing([1, None]).assign(seed=1), drawing([None, 0]).assign(seed=2)])
    assert teach.of_seed(both, 2)["label"].dropna().tolist() == [0]
    assert teach.of_seed(drawing([1, None]), 2)["label"].dropna().tolist() == [1]
