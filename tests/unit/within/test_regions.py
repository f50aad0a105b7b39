"""What is drawn as a table, and regions drawn at random."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from ctrflow.errors import InputError
from ctrflow.within import regions

GRID = np.array([(x, y) for y in range(12) for x in range(12)], dtype=float) * 100


def section(spatial_px=GRID):
    spots = anndata.AnnData(np.ones((len(spatial_px), 1)))
    spots.obs_names = [f"s{n}" for n in range(len(spatial_px))]
    spots.obsm["spatial"] = spatial_px
    spots.uns["section"] = {"section": "A", "cohort": "", "image_scale": 1.0}
    return spots


def test_two_strokes_of_a_class_are_two_regions_and_their_ring_is_near():
    label = np.full(144, np.nan)
    label[[0, 1, 12]] = 1  # a corner
    label[[6 * 12 + 6, 6 * 12 + 7]] = 1  # the middle
    label[[143]] = 0
    table = regions.table(section(), pd.DataFrame({"label": label}))
    assert table["region"][[0, 1, 12]].nunique() == table["region"][[78, 79]].nunique() == 1
    assert sorted(table["region"].unique()) == [-1, 0, 1, 2]
    # within one step of a drawn spot, diagonals too; at the edge the eight nearest reach further
    steps = cdist(GRID, GRID[~np.isnan(label)]).min(axis=1) / 100
    inner = ((GRID > 0) & (GRID < 1100)).all(axis=1)
    assert table["near"][steps < 1.5].all()
    assert not table["near"][inner & (steps > 2.9)].any()
    assert set(table["near"]) == {0, 1}


def test_a_drawing_leaves_unknown_what_is_not_drawn_even_if_outside_is_a_word(tmp_path):
    (tmp_path / "words.tsv").write_text("word\tlabel\ntumor\t1\nstroma\t0\noutside\t0\n")
    square = {"type": "Polygon", "coordinates": [[[-50, -50], [250, -50], [250, 150], [-50, 150], [-50, -50]]]}
    drawing = {"type": "Feature", "geometry": square, "properties": {"classification": {"name": "Tumor"}}}
    pd.Series({"type": "FeatureCollection", "features": [drawing]}).to_json(tmp_path / "d.geojson")
    table = regions.read(str(tmp_path / "d.geojson"), section(), str(tmp_path / "words.tsv"))
    assert list(table["spot"][table["label"] == 1]) == ["s0", "s1", "s2", "s12", "s13", "s14"]
    assert table["label"].isna().sum() == 144 - 6


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_a_share_of_each_class_is_drawn_as_compact_regions(share):
    truth = (GRID[:, 0] >= 500).astype(float)  # 84 of 144
    truth[5] = np.nan
    drawn = regions.draw(truth, GRID, share, seed=3)
    for value in (0, 1):
        own = drawn == value
        assert own.sum() == int(np.ceil(share * (truth == value).sum()))
        assert (truth[own] == value).all()
        close = cdist(GRID[own], GRID[own]) < 150
        assert connected_components(close)[0] <= regions.REGIONS
    assert np.isnan(drawn[5])
    assert not np.array_equal(drawn, regions.draw(truth, GRID, share, seed=4), equal_nan=True)
    assert np.array_equal(drawn, regions.draw(truth, GRID, share, seed=3), equal_nan=True)


def test_a_class_in_pieces_is_drawn_in_full():
    truth = np.zeros(144)
    truth[::7] = 1
    drawn = regions.draw(truth, GRID, 0.99, seed=0)
    assert (drawn == 1).sum() == (truth == 1).sum()


def test_a_class_with_one_spot_is_refused():
    with pytest.raises(InputError, match="1 spots labelled cancer: a drawing of both classes needs two of each"):
        regions.draw(np.r_[1.0, np.zeros(143)], GRID, 0.1, seed=0)
