"""Estimates from a drawing alone, and where to draw next."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from ctrflow.features import drawn
from ctrflow.within import estimate

GRID = np.array([(x, y) for y in range(20) for x in range(20)], dtype=float) * 100
TRUTH = (GRID[:, 0] >= 1000).astype(float)


def view_of():
    obs = pd.DataFrame({"section": "A", "spot": [f"s{i}" for i in range(400)]})
    view = anndata.AnnData(np.zeros((400, 1)), obs=obs.set_index("A/" + obs["spot"]))
    view.obsm["spatial"] = GRID
    view.uns["section"] = {"section": "A", "um_per_px": 1.0}
    return view


def strokes(*boxes):
    """(left, top, width, height, class) in spots."""
    labels = np.full(400, np.nan)
    for left, top, width, height, value in boxes:
        inside = (GRID[:, 0] >= 100 * left) & (GRID[:, 0] < 100 * (left + width))
        inside &= (GRID[:, 1] >= 100 * top) & (GRID[:, 1] < 100 * (top + height))
        labels[inside] = value
    return labels


APART = strokes(*((x, y, 3, 2, int(x > 9)) for x in (1, 15) for y in (1, 6, 11, 16)))


def test_blocks_are_strokes_where_there_are_four():
    block = estimate.blocks(APART, GRID)
    for value in (0, 1):
        for top in (1, 6, 11, 16):
            own = (value == APART) & (GRID[:, 1] >= 100 * top) & (GRID[:, 1] < 100 * (top + 2))
            assert len(set(block[own])) == 1
        assert sorted(set(block[value == APART])) == [0, 1, 2, 3]
    assert (block[np.isnan(APART)] == -1).all()


def test_no_spot_beside_a_held_one_teaches():
    seen = []

    def learn(taught):
        seen.append(taught.obs["label"].to_numpy(dtype=float))
        return TRUTH

    labels = strokes((1, 1, 3, 12, 0), (15, 1, 3, 12, 1))
    facts, _ = estimate.estimate(estimate.Drawing(view_of(), labels, learn, "mixture"))
    held_out = [estimate.blocks(labels, GRID) == one for one in range(4)]
    for taught, held in zip(seen[:4], held_out, strict=True):
        teaching = ~np.isnan(taught)
        assert not (teaching & held).any()
        assert cdist(GRID[teaching], GRID[held]).min() > 150
        assert (taught[teaching] == labels[teaching]).all()
    assert facts["blocks"] == 4
    # the curve: four shares of what teaches, in turn
    sizes = [np.isfinite(taught).sum() for taught in seen[4:]]
    assert len(sizes) == 16
    assert sizes == sorted(sizes) or sizes[0] < sizes[-1]


def test_a_method_that_knows_is_right_and_one_that_guesses_is_not():
    known, _ = estimate.estimate(estimate.Drawing(view_of(), APART, lambda taught: TRUTH - 0.5, "zero"))
    assert (known["auc"], known["balanced_accuracy"], known["found"], known["spared"]) == (1, 1, 1, 1)
    assert known["caveat"] == ""
    assert known["spots"] == {"cancer": 24, "other": 24}
    assert known["regions"] == {"cancer": 4, "other": 4}
    always, _ = estimate.estimate(estimate.Drawing(view_of(), APART, lambda taught: 1 + GRID[:, 1] // 100 % 2, "zero"))
    assert (always["auc"], always["balanced_accuracy"], always["found"], always["spared"]) == (0.5, 0.5, 1, 0)
    assert [point["share"] for point in always["curve"]] == [0.05, 0.1, 0.2, 0.5, 1.0]


def test_one_stroke_of_a_class_is_told_to_be_too_few():
    labels = strokes((1, 1, 3, 4, 0), (15, 1, 3, 4, 1))
    facts, _ = estimate.estimate(estimate.Drawing(view_of(), labels, lambda taught: TRUTH, "mixture"))
    assert facts["caveat"].startswith("fewer than 3 regions")
    none, disagreement = estimate.estimate(
        estimate.Drawing(view_of(), strokes((1, 1, 3, 1, 0), (15, 1, 1, 1, 1)), lambda taught: TRUTH, "mixture")
    )
    assert "too little is drawn" in none["caveat"]
    assert (none["blocks"], none["auc"], disagreement.max()) == (0, None, 0)


def test_the_next_regions_are_where_blocks_disagree_and_nothing_is_drawn():
    """A method that is sure on the left, and follows the held block in one corner."""
    calls = []

    def learn(taught):
        calls.append(None)
        scores = TRUTH.copy()
        corner = (GRID >= 1400).all(axis=1)
        scores[corner] = len(calls) % 2 * 5.0
        return scores

    view = view_of()
    labels = np.where((GRID >= 1400).all(axis=1), np.nan, APART)
    _, disagreement = estimate.estimate(estimate.Drawing(view, labels, learn, "mixture"))
    spots = anndata.AnnData(np.zeros((400, 1)))
    spots.obsm["spatial"] = GRID
    found = estimate.draw_next(spots, labels, disagreement)
    near = drawn.near(labels, drawn.adjacency(GRID))
    assert found
    assert set(found[0][1]) <= set(np.flatnonzero((GRID >= 1400).all(axis=1)))
    assert not any(near[own].any() for _, own in found)
    assert estimate.draw_next(spots, labels, np.zeros(400)) == []


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_is_judged_by_its_own_share(value):
    view = view_of()
    view.obs["prior"] = TRUTH - 0.5 + GRID[:, 1] * 1e-5
    labels = np.where(value == APART, APART, np.nan)
    facts, _ = estimate.estimate(estimate.Drawing(view, labels, lambda taught: TRUTH - 0.5, "zero"))
    assert (facts["found"], facts["spared"]) == ((1, None) if value else (None, 1))
    assert facts["auc"] is None
    assert facts["balanced_accuracy"] is None
