"""Copy numbers in expression: a gain of an arm that is planted in some spots, and the windows against plain loops."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow.errors import InputError
from ctrflow.features import copy_numbers, gene_names
from runs import ROOT

GENES = [f"G{n}" for n in range(4400)]  # 200 on each autosome
GAINED = np.arange(1000, 1200)  # chromosome 6
CALLED = np.arange(120) < 60


def table(rows):
    return pd.DataFrame(rows, columns=list(gene_names.COLUMNS))


def dealt(order):
    """Positions of GENES, in this order along the autosomes."""
    return table(
        [
            (f"ENSG{place:011d}", GENES[gene], str(1 + place // 200), 1 + place, 2 + place, "")
            for place, gene in enumerate(order)
        ]
    )


ALONG = dealt(range(len(GENES)))


@pytest.fixture(scope="module")
def section():
    """Log-normalised Poisson counts of 120 spots; half of them have twice the counts of the genes of chromosome 6."""
    rng = np.random.default_rng(0)
    rate = np.tile(rng.gamma(2, 0.5, len(GENES)), (len(CALLED), 1))
    rate[np.ix_(CALLED, GAINED)] *= 2
    counts = rng.poisson(rate)
    return sparse.csr_matrix(np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).astype(np.float32))


def test_genes_are_placed_by_any_name_and_ordered():
    positions = table(
        [
            ("ENSG01", "LAST", "10", 5, 6, ""),
            ("ENSG02", "SECOND", "2", 50, 60, "OLD|LAST"),  # LAST was its name, and is another gene's today
            ("ENSG03", "FIRST", "2", 7, 8, ""),
            ("ENSG04", "SEX", "X", 1, 2, ""),
        ]
    )
    columns, chromosomes = copy_numbers.placed(["LAST", "SEX", "OLD", "unknown", "ENSG03.4"], positions)
    assert columns.tolist() == [4, 2, 0]
    assert chromosomes.tolist() == [1, 1, 9]
    assert copy_numbers.placed(["unknown"], positions)[0].tolist() == []


def test_the_shipped_table_places_known_genes():
    shipped = gene_names.read(ROOT / "config" / "genes" / "human.tsv.gz")
    names = ["ERBB2", "MYC", "GRB7", "XIST", "MT-CO1", "C1orf112", "ENSG00000141736.14"]
    columns, chromosomes = copy_numbers.placed(names, shipped)
    # ERBB2, by symbol and by id, is before GRB7 on 17q12
    assert [names[i] for i in columns] == ["C1orf112", "MYC", "ERBB2", "ENSG00000141736.14", "GRB7"]
    assert (chromosomes + 1).tolist() == [1, 8, 17, 17, 17]


def test_a_gene_of_few_spots_is_left_out():
    X = sparse.csr_matrix(np.array([[1, 0, 1]] + [[1, 0, 0]] * 39, np.float32))
    positions = dealt(range(len(GENES)))
    assert copy_numbers.usable(X, GENES[:3], positions)[0].tolist() == [0]  # 1 of 40 spots is too few
    assert copy_numbers.usable(X[:20], GENES[:3], positions)[0].tolist() == [0, 2]


def test_profiles_are_weighted_means_of_clipped_ratios():
    rng = np.random.default_rng(1)
    values = rng.gamma(1, 2, (30, 170)).astype(np.float32)
    chromosomes = np.repeat([0, 3], [125, 45])
    reference = np.arange(30) < 10
    found = copy_numbers.profiles(sparse.csr_matrix(values), chromosomes, reference)
    ratios = np.clip(values - values[reference].mean(axis=0, dtype=float), -3, 3)
    weights = np.convolve(np.ones(50), np.ones(51))  # 1, 2, ... 50, 50, ... 2, 1
    long = [np.average(ratios[:, start : start + 100], axis=1, weights=weights) for start in (0, 10, 20)]
    plain = np.stack([*long, ratios[:, 125:].mean(axis=1)], axis=1)
    assert found == pytest.approx(plain - np.median(plain, axis=1, keepdims=True), abs=1e-6)


def test_profiles_do_not_depend_on_the_blocks(section, monkeypatch):
    chromosomes = np.repeat(np.arange(22), 200)
    whole = copy_numbers.profiles(section, chromosomes, ~CALLED)
    monkeypatch.setattr(copy_numbers, "AT_ONCE", 7)
    assert copy_numbers.profiles(section, chromosomes, ~CALLED) == pytest.approx(whole, abs=1e-12)


def test_likeness_leaves_the_spot_itself_out():
    found = np.random.default_rng(2).normal(size=(8, 20))
    typical = np.arange(8) < 4
    found[7] = 1.0
    plain = [
        np.corrcoef(found[i], found[[j for j in range(4) if j != i]].mean(axis=0))[0, 1] if i < 7 else 0.0
        for i in range(8)
    ]
    assert copy_numbers.likeness(found, typical) == pytest.approx(plain)
    # noise alone is like nothing: a spot's own noise does not count
    noise = np.random.default_rng(3).normal(size=(200, 300))
    of_noise = copy_numbers.likeness(noise, np.arange(200) < 20)
    assert abs(of_noise[:20].mean() - of_noise[20:].mean()) < 0.05


def test_spots_with_a_gain_are_alike(section):
    found = copy_numbers.profiles(section, np.repeat(np.arange(22), 200), np.arange(120) >= 90)
    gained = slice(5 * 11, 6 * 11)  # 11 windows a chromosome
    assert found[CALLED, gained].mean() > found[~CALLED, gained].mean() + 0.2
    score = copy_numbers.likeness(found, np.arange(120) < 30)
    assert score[CALLED].min() > score[~CALLED].max()


def test_a_gain_is_evidence_and_anything_off_the_chromosomes_is_not(section):
    # one of 22 chromosomes is gained: three segments, so one product of segments, against the noise of all
    assert copy_numbers.evidence(section, GENES, ALONG, CALLED, 0) > 10
    shuffled = np.random.default_rng(4).permutation(len(GENES))
    assert abs(copy_numbers.evidence(section, GENES, dealt(shuffled), CALLED, 0)) < 3
    other = np.random.default_rng(5).permutation(CALLED)[: (~CALLED).sum()]
    normal = section[~CALLED]
    assert abs(copy_numbers.evidence(normal, GENES, ALONG, other, 0)) < 3


def test_a_cluster_of_neighbouring_genes_is_no_evidence(section):
    values = section.toarray()
    values[np.ix_(CALLED, GAINED)] = values[np.ix_(np.flatnonzero(~CALLED), GAINED)]
    values[np.ix_(CALLED, GAINED[:40])] += 2  # 40 neighbours of one segment
    assert copy_numbers.evidence(sparse.csr_matrix(values), GENES, ALONG, CALLED, 0) < 3


def test_evidence_follows_from_the_seed(section):
    first = [copy_numbers.evidence(section, GENES, ALONG, CALLED, seed) for seed in (1, 1, 2)]
    assert first[0] == first[1] != first[2]


@pytest.mark.parametrize(
    ("spots", "genes", "why"),
    [(9, 4400, "spots of a class"), (111, 4400, "spots of the other class"), (60, 1999, "genes")],
)
def test_too_little_is_no_number(section, spots, genes, why):
    called = np.arange(120) < spots
    assert np.isnan(copy_numbers.evidence(section[:, :genes], GENES[:genes], ALONG, called, 0)), why


def test_too_few_genes_are_refused_with_their_number():
    copy_numbers.require_genes("a", 2000, GENES)
    with pytest.raises(InputError, match=r"section a: only 310 of its 4,400 genes .*need 2,000.*not like G0, G1, G2"):
        copy_numbers.require_genes("a", 310, GENES)
