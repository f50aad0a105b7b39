"""Gene selection sees training sections only."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import genes
from ctrflow.errors import InputError


def section(counts, names, name="s"):
    counts = np.asarray(counts, dtype=np.float32)
    obs = pd.DataFrame({"section": name}, index=[f"{name}/{i}" for i in range(len(counts))])
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names))


@pytest.fixture(scope="module")
def train():
    rng = np.random.default_rng(3)
    means = rng.gamma(1.0, 4.0, 300)
    tables = []
    for name in "ab":
        counts = rng.poisson(means, (120, 300)).astype(np.float32)
        # the first ten genes vary ten-fold between halves of each section
        counts[:60, :10] = rng.poisson(2, (60, 10))
        counts[60:, :10] = rng.poisson(20, (60, 10))
        tables.append(section(counts, [f"g{i:03d}" for i in range(300)], name))
    return ad.concat(tables)


def test_shared_genes_are_sorted_and_common():
    a, b = section([[1, 1, 1]], ["z", "b", "a"]), section([[1, 1]], ["a", "z"])
    assert genes.shared_genes({"a": a, "b": b}) == ["a", "z"]


def test_no_gene_in_common_is_an_error_with_both_names():
    with pytest.raises(InputError, match=r"sections one and two have no gene in common.*TP53.*ENSG1"):
        genes.shared_genes({"one": section([[1]], ["TP53"]), "two": section([[1]], ["ENSG1"])})


def test_the_planted_genes_are_found_and_sorted(train):
    chosen = genes.variable_genes(train, 12)
    assert len(chosen) == 12
    assert chosen == sorted(chosen)
    assert {f"g{i:03d}" for i in range(10)} <= set(chosen)


def test_markers_stay(train):
    quiet = sorted(set(train.var_names) - set(genes.variable_genes(train, 20)))[0]
    assert quiet in genes.variable_genes(train, 20, keep=[quiet, "NOT_MEASURED"])


def test_fewer_genes_than_asked_is_fine_and_said(train, caplog):
    caplog.set_level("INFO")
    seen = sorted(train.var_names[(train.X.toarray() > 0).sum(axis=0) >= 10])
    assert 250 < len(seen) < 300
    assert genes.variable_genes(train, 5000) == seen
    assert f"{len(seen)} genes" in caplog.text


def test_log_normalise_by_hand():
    found = genes.log_normalise(sparse.csr_matrix([[1.0, 3.0], [0.0, 0.0]])).toarray()
    assert found == pytest.approx(np.array([[np.log1p(2500), np.log1p(7500)], [0, 0]]), rel=1e-6)


def test_small_sections_get_a_wider_loess(caplog):
    """300 spots beside 20 shallow ones: the default span is singular there, and it is said."""
    caplog.set_level("INFO")
    rng = np.random.default_rng(0)
    means = rng.gamma(0.3, 1.0, 400)
    names = [f"g{i:03d}" for i in range(400)]
    train = ad.concat([section(rng.poisson(means, (n, 400)), names, name) for name, n in (("big", 300), ("small", 20))])
    chosen = genes.variable_genes(train, 100)
    assert len(chosen) == 100
    assert "fails with span 0.3" in caplog.text
    assert "2 sections, span 0.5" in caplog.text
