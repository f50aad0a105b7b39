"""Views thinned to one depth: exact sums, the hypergeometric law, and draws that depend on a spot alone."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow.folds import depth, tables

SECTION = np.array([[60, 30, 10, 80, 20], [3, 0, 2, 1, 0], [0, 0, 0, 400, 5], [500, 0, 1, 0, 0]])  # of five genes
LIBRARY = ["a", "b", "c", "d"]  # those that all sections measure, of which a fold takes three
GENES = ["a", "b", "c"]


def view_of(counts=SECTION, genes=GENES, library=LIBRARY, names=None):
    """The view of a section that measures the genes a to e."""
    names = names or [f"S/{i}" for i in range(len(counts))]
    obs = pd.DataFrame({"section": "S", "total_counts": np.asarray(counts).sum(axis=1).astype(np.float32)}, index=names)
    place = np.arange(2.0 * len(names)).reshape(-1, 2)
    raw = anndata.AnnData(
        sparse.csr_matrix(counts, dtype=np.float32), obs, pd.DataFrame(index=list("abcde")), obsm={"spatial": place}
    )
    return tables.with_genes(raw[:, library], genes)


def test_every_spot_has_as_many_counts_and_fewer_are_kept():
    everything = list("abcde")
    found = depth.thinned(view_of(genes=everything, library=everything), 50, 1)
    counts = found.layers["counts"].toarray()
    assert counts.sum(axis=1).tolist() == [50, 6, 50, 50]
    assert found.obs["total_counts"].tolist() == [50, 6, 50, 50]
    assert (counts <= SECTION).all()
    assert counts[1].tolist() == SECTION[1].tolist()
    # normalised as every view is: to 10,000 counts over the genes of the library
    assert found.X.toarray() == pytest.approx(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 10_000), rel=1e-6)
    assert found.X.dtype == np.float32
    assert (found.X.toarray() > 0).tolist() == (counts > 0).tolist()


def test_the_genes_that_a_view_lacks_are_drawn_along():
    """Of the 200 counts of the first spot 180 are of the library and 100 of the fold."""
    names = [f"S/{i}" for i in range(4000)]
    found = depth.thinned(view_of(SECTION[[0] * 4000], names=names), 40, 7)
    counts = found.layers["counts"].toarray()
    assert set(found.obs["total_counts"]) == {40}
    library = np.rint(counts / np.where(counts > 0, np.expm1(found.X.toarray().astype(float)), 1) * 10_000)
    of_spot = library.max(axis=1)
    assert ((library == of_spot[:, None]) | (counts == 0)).all()
    assert ((of_spot <= 40) & (of_spot >= counts.sum(axis=1))).all()
    # hypergeometric: of 200 counts 40 are drawn, of which a gene has `own`; 4,000 spots, five standard errors
    drawn = np.column_stack([counts, of_spot])
    for values, own in zip(drawn.T, (60, 30, 10, 180), strict=True):
        share = own / 200
        variance = 40 * share * (1 - share) * (200 - 40) / (200 - 1)
        assert values.mean() == pytest.approx(40 * share, abs=5 * np.sqrt(variance / 4000))
        assert values.var() == pytest.approx(variance, rel=0.12)  # with replacement it would be 1.24 times this
    # what one gene has, another lacks
    assert np.corrcoef(counts[:, 0], counts[:, 1])[0, 1] == pytest.approx(
        -np.sqrt(0.3 * 0.15 / (0.7 * 0.85)), abs=5 / np.sqrt(4000)
    )


def test_spots_with_fewer_counts_are_the_same_to_the_bit(caplog):
    caplog.set_level("INFO")
    view = view_of()
    found = depth.thinned(view, 200, 1)  # the first spot has just these, the second 6, the others more
    for one, other in ((found.X, view.X), (found.layers["counts"], view.layers["counts"])):
        assert (one[:2].toarray() == other[:2].toarray()).all()
        assert one.dtype == other.dtype
    assert found.obs["total_counts"].tolist() == [200, 6, 200, 200]
    assert "thinned to 200 counts a spot; 1 of 4 spots have fewer and keep theirs" in caplog.text
    assert found.obs["total_counts"].dtype == view.obs["total_counts"].dtype
    assert (found.obsm["spatial"] == view.obsm["spatial"]).all()


def test_a_depth_that_most_spots_do_not_reach_is_a_warning(caplog):
    """The figures beside the method's own would hardly differ, and say nothing about depth."""
    depth.thinned(view_of(), 100_000, 1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "4 of 4 spots have fewer" in record.getMessage()


def test_a_view_is_left_as_it_is_and_without_a_depth_nothing_is_done():
    view = view_of()
    before = view.layers["counts"].toarray(), view.X.toarray(), view.obs.copy()
    assert depth.thinned(view, 0, 1) is view
    depth.thinned(view, 10, 1)
    assert (view.layers["counts"].toarray() == before[0]).all()
    assert (view.X.toarray() == before[1]).all()
    assert view.obs.equals(before[2])


def test_a_draw_depends_on_seed_and_spot_alone():
    rng = np.random.default_rng(0)
    names, counts = [f"S/{i}" for i in range(30)], rng.integers(0, 40, (30, 5))

    def drawn(rows, seed=3):
        view = view_of(counts[rows], names=[names[row] for row in rows])
        found = depth.thinned(view, 20, seed)
        return pd.DataFrame(np.hstack([found.layers["counts"].toarray(), found.X.toarray()]), index=found.obs_names)

    every = drawn(range(30))
    assert drawn(range(30)).equals(every)
    assert drawn(range(29, -1, -1)).equals(every[::-1])  # another order
    assert drawn([4, 17]).equals(every.iloc[[4, 17]])  # fewer spots beside it
    assert not drawn(range(30), seed=4).equals(every)
    alike = depth.thinned(view_of(SECTION[[0] * 20], names=names[:20]), 20, 3).layers["counts"].toarray()
    assert len(np.unique(alike, axis=0)) > 10  # each spot has its own draw


def test_spots_without_a_count_of_the_folds_genes():
    found = depth.thinned(view_of(), 100, 1)
    assert found.layers["counts"][2].nnz == found.X[2].nnz == 0
    assert found.obs["total_counts"].iloc[2] == 100
    empty = depth.thinned(view_of(np.zeros((2, 5))), 100, 1)
    assert empty.obs["total_counts"].tolist() == [0, 0]
    assert empty.X.nnz == 0
