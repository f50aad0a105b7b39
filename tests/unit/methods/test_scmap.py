"""scmap-cluster: genes, similarities and labels, against SciPy."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from scipy.spatial.distance import cosine

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.folds.genes import log_normalise
from ctrflow.methods import scmap


def view_of(sizes, genes=40, seed=0):
    """Groups of spots with genes of their own, raw and log-normalised."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    mean = 0.4 + 4 * (np.arange(genes) % len(sizes) == group[:, None])
    counts = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    obs = pd.DataFrame({"section": "s"}, index=[f"x{i}" for i in range(len(group))])
    view = anndata.AnnData(log_normalise(counts), obs=obs)
    view.layers["counts"] = counts
    return view


def options(**given):
    return methods.resolve_options(scmap.SPEC, given)


def test_genes_with_the_largest_residuals_of_dropout_on_expression():
    view = view_of([30, 30], genes=60)
    counts, expression = view.layers["counts"].toarray(), view.X.toarray().astype(float)
    counts[:, 7], counts[:, 8] = 0, 1  # in no spot, in all spots: left out
    dropout = (counts == 0).mean(axis=0) * 100
    usable = [gene for gene in range(60) if 0 < dropout[gene] < 100]
    line = stats.linregress(expression.mean(axis=0)[usable], np.log2(dropout[usable]))
    residuals = {
        gene: np.log2(dropout[gene]) - line.slope * expression[:, gene].mean() - line.intercept for gene in usable
    }
    expected = sorted(sorted(usable, key=lambda gene: -residuals[gene])[:12])
    assert scmap.informative_genes(view.X, sparse.csr_matrix(counts), 12).tolist() == expected
    everything = scmap.informative_genes(view.X, sparse.csr_matrix(counts), 500)
    assert everything.tolist() == usable


def test_similarities_are_those_of_scipy():
    rng = np.random.default_rng(0)
    spots, medians = rng.poisson(1.0, (6, 15)).astype(float), rng.poisson(1.0, (3, 15)).astype(float)
    found = scmap.similarities(spots, medians)
    for i, spot in enumerate(spots):
        for j, median in enumerate(medians):
            expected = [1 - cosine(spot, median), *(f(spot, median)[0] for f in (stats.pearsonr, stats.spearmanr))]
            assert found[:, i, j] == pytest.approx(expected)


def test_without_counts_no_measure_is_defined_and_without_spread_no_correlation():
    found = scmap.similarities(np.array([[0.0, 0, 0], [2, 2, 2]]), np.array([[1.0, 2, 4]]))
    assert np.isnan(found[:, 0]).all()
    assert found[0, 1, 0] == pytest.approx(7 / (3 * 21) ** 0.5)
    assert np.isnan(found[1:, 1]).all()


def test_a_label_is_what_two_measures_agree_on():
    votes = np.array(
        [  # cosine, Pearson, Spearman of a spot with the clusters 0, 1, 2
            [[0.9, 0.1, 0.2], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1]],  # all say 0
            [[0.9, 0.1, 0.2], [0.1, 0.75, 0.1], [0.1, 0.6, 0.1]],  # two say 1 and reach 0.75
            [[0.9, 0.1, 0.2], [0.1, 0.65, 0.1], [0.1, 0.6, 0.1]],  # two say 1 and do not reach 0.7
            [[0.9, 0.1, 0.2], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]],  # each says another
            [[0.1, 0.2, 0.9], [0.9, 0.1, 0.2], [0.1, 0.2, 0.71]],  # first and last say 2
            [[0.9, 0.1, 0.2], [0.9, 0.1, 0.2], [np.nan, np.nan, np.nan]],  # one is not defined
        ]
    )
    assert scmap.labels(votes.transpose(1, 0, 2), 0.7).tolist() == [0, 1, -1, -1, 2, -1]


def test_scores_are_one_minus_the_best_similarity_to_the_medians_of_clusters(monkeypatch):
    monkeypatch.setattr(scmap, "SCORED_AT_ONCE", 7)
    train, target = view_of([40, 30]), view_of([10, 10], seed=1)
    model = scmap.Model.fit(train, options(n_features=25), 0)
    expression = train.X.toarray().astype(float)[:, model.genes]
    medians = [np.median(expression[:40], axis=0), np.median(expression[40:], axis=0)]
    assert model.medians == pytest.approx(np.array(medians))
    best = scmap.similarities(target.X.toarray().astype(float)[:, model.genes], np.array(medians)).max(axis=(0, 2))
    assert model.score(target) == pytest.approx(1 - best)


def test_a_spot_without_counts_is_like_nothing_and_has_no_label():
    train, target = view_of([40, 30]), view_of([10, 10], seed=1)
    expression = target.X.toarray()
    expression[4] = 0
    target.X = sparse.csr_matrix(expression)
    assert scmap.Model.fit(train, options(), 0).score(target)[4] == 1
    found = scmap.Model.fit(train, options(score="label", threshold=0.3), 0).score(target)
    assert np.flatnonzero(found).tolist() == [4]
    assert scmap.Model.fit(train, options(score="label", threshold=1.0), 0).score(target).all()


def test_a_group_that_the_reference_lacks_scores_higher():
    train, target = view_of([40, 30, 1]), view_of([20, 20, 20], seed=1)
    scores = scmap.Model.fit(train[:70], options(), 0).score(target)
    assert scores[40:].min() > np.median(scores[:40])


def test_twenty_thousand_spots_are_scored():
    scores = scmap.Model.fit(view_of([40, 30]), options(), 0).score(view_of([10_000, 10_000], seed=1))
    assert scores.shape == (20_000,)
    assert np.isfinite(scores).all()


def test_a_reference_that_gives_no_genes_or_no_medians_is_refused(monkeypatch):
    with pytest.raises(InputError, match="scmap: 9 genes are detected in some, but not all, of the 70"):
        scmap.Model.fit(view_of([40, 30])[:, :9], options(), 0)
    monkeypatch.setattr(scmap, "expression_clusters", lambda expression: np.zeros(70, dtype=int))
    rare = view_of([40, 30])
    counts = sparse.csr_matrix((np.random.default_rng(0).random((70, 40)) < 0.05).astype(np.float32))
    rare.X, rare.layers["counts"] = counts, counts
    with pytest.raises(InputError, match=r"median of all \d+ chosen genes is 0"):
        scmap.Model.fit(rare, options(), 0)
