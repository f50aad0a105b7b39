"""Gene selection sees training sections only."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow.errors import InputError
from ctrflow.folds import genes


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
    return dict(zip("ab", tables, strict=True))


def test_shared_genes_are_sorted_and_common():
    a, b = section([[1, 1, 1]], ["z", "b", "a"]), section([[1, 1]], ["a", "z"])
    assert genes.shared_genes({"a": a.var_names, "b": b.var_names}) == ["a", "z"]


def test_no_gene_in_common_is_an_error_with_both_names():
    with pytest.raises(InputError, match=r"sections one and two have no gene in common.*TP53.*ENSG1"):
        genes.shared_genes({"one": ["TP53"], "two": ["ENSG1"]})


def test_the_planted_genes_are_found_and_sorted(train):
    chosen = genes.variable_genes(train, 12)
    assert len(chosen) == 12
    assert chosen == sorted(chosen)
    assert {f"g{i:03d}" for i in range(10)} <= set(chosen)


def test_markers_are_kept(train):
    quiet = sorted(set(train["a"].var_names) - set(genes.variable_genes(train, 20)))[0]
    assert quiet in genes.variable_genes(train, 20, keep=[quiet, "NOT_MEASURED"])


def test_fewer_genes_than_requested_are_used_and_logged(train, caplog):
    caplog.set_level("INFO")
    counts = np.vstack([table.X.toarray() for table in train.values()])
    seen = sorted(train["a"].var_names[(counts > 0).sum(axis=0) >= 10])
    assert 250 < len(seen) < 300
    assert genes.variable_genes(train, 5000) == seen
    assert f"all {len(seen)} shared genes" in caplog.text


def test_log_normalise_by_hand():
    found = genes.log_normalise(sparse.csr_matrix([[1.0, 3.0], [0.0, 0.0]])).toarray()
    assert found == pytest.approx(np.array([[np.log1p(2500), np.log1p(7500)], [0, 0]]), rel=1e-6)


def test_small_sections_get_a_wider_loess(caplog):
    """300 spots and 20 shallow ones: the default span is singular, which is logged."""
    caplog.set_level("INFO")
    rng = np.random.default_rng(0)
    means = rng.gamma(0.3, 1.0, 400)
    names = [f"g{i:03d}" for i in range(400)]
    train = {name: section(rng.poisson(means, (n, 400)), names) for name, n in (("big", 300), ("small", 20))}
    chosen = genes.variable_genes(train, 100)
    assert len(chosen) == 100
    assert "fails with span 0.3" in caplog.text
    assert "2 sections, span 0.5" in caplog.text


@pytest.fixture(scope="module")
def unlike():
    """Two sections of 200 spots; noise everywhere, and one group of ten genes a section.

    g000 to g009 vary in section `a` alone, g010 to g019 in `b` alone.
    """
    rng = np.random.default_rng(5)
    means = rng.gamma(2.0, 4.0, 200)
    tables = []
    for i, name in enumerate("ab"):
        counts = rng.poisson(means, (200, 200)).astype(np.float32)
        group = slice(10 * i, 10 * i + 10)
        counts[:100, group], counts[100:, group] = rng.poisson(1, (100, 10)), rng.poisson(30, (100, 10))
        tables.append(section(counts, [f"g{j:03d}" for j in range(200)], name))
    return dict(zip("ab", tables, strict=True))


def test_only_the_first_section_selects_other_genes(unlike, caplog):
    caplog.set_level("INFO")
    in_a, in_b = ({f"g{i:03d}" for i in range(start, start + 10)} for start in (0, 10))
    assert set(genes.variable_genes(unlike, 20)) == in_a | in_b
    first = genes.variable_genes(unlike, 20, hvg_scope="first")
    assert in_a <= set(first)
    # nothing of `b` is seen: in `a` its ten genes are noise like the 180 others
    assert len(in_b & set(first)) <= 4
    assert "section a only" in caplog.text
    assert genes.variable_genes({"b": unlike["b"]}, 10, hvg_scope="first") == sorted(in_b)
    # exactly what the first section says when it is the only one
    assert first == genes.variable_genes({"a": unlike["a"]}, 20)


def test_the_order_of_genes_in_the_files_does_not_matter(unlike):
    order = np.random.default_rng(0).permutation(200)
    shuffled = {name: table[:, order].copy() for name, table in unlike.items()}
    assert list(shuffled["a"].var_names) != list(unlike["a"].var_names)
    for hvg_input in ("counts", "log"):
        for hvg_scope in ("all", "first"):
            chosen = genes.variable_genes(unlike, 30, hvg_input=hvg_input, hvg_scope=hvg_scope)
            assert chosen == sorted(chosen)
            assert chosen == genes.variable_genes(shuffled, 30, hvg_input=hvg_input, hvg_scope=hvg_scope)


def test_counts_and_log_values_rank_differently():
    """On counts depth is variance; log-normalised values know no depth, and a gene that does not follow it stands out.

    400 spots, the second half sequenced ten times deeper. 90 genes follow the depth, from 10 to 200 counts in the first
    half; the last ten have the same count, from 30 to 600, in every spot, so their share falls to a tenth.
    """
    follow, constant = np.geomspace(10, 200, 90), np.geomspace(30, 600, 10)
    rates = np.vstack([np.tile([*follow, *constant], (200, 1)), np.tile([*(10 * follow), *constant], (200, 1))])
    names = [f"g{i:03d}" for i in range(100)]
    train = {"s": section(np.random.default_rng(1).poisson(rates), names)}
    assert genes.variable_genes(train, 10, hvg_input="log") == names[90:]
    assert not set(names[90:]) & set(genes.variable_genes(train, 10))
    assert genes.variable_genes(train, 10) == genes.variable_genes(train, 10, hvg_input="counts", hvg_scope="all")
