"""Genes of layers: a gene that follows the layers is found where it is, one that does not is not."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from ctrflow.rim import genes
from ctrflow.rim.layers import LAYERS

# how often a spot of each layer counts the gene, from core to stroma
PROFILES = {
    "DEEP": (8, 3, 1, 1),
    "INSIDE": (1, 8, 2, 1),
    "AROUND": (1, 2, 8, 1),
    "AFAR": (1, 1, 2, 8),
    "FLAT": (5, 5, 5, 5),
    "RARE": (0.02, 0.02, 0.02, 0.02),
}
OWN = dict(zip(("DEEP", "INSIDE", "AROUND", "AFAR"), LAYERS, strict=True))


def simulated(name="S1", seed=0, each=40, depth=1.0, flat=150):
    """A section of `each` spots a layer: Poisson counts around `PROFILES`, and many genes that are alike everywhere."""
    rng = np.random.default_rng(seed)
    layer = np.repeat(LAYERS, each)
    number = np.repeat(np.arange(4), each)
    rates = np.array([np.array(of)[number] for of in PROFILES.values()]).T
    rates = np.hstack([rates, np.full((len(layer), flat), 3.0)])
    # spots differ in depth by a factor of two, layers do not
    rates *= depth * rng.uniform(0.7, 1.4, (len(layer), 1))
    names = [*PROFILES, *(f"G{place}" for place in range(flat))]
    spots = anndata.AnnData(
        sparse.csr_matrix(rng.poisson(rates).astype(np.float32)),
        obs=pd.DataFrame(index=[f"{name}_{place}" for place in range(len(layer))]),
        var=pd.DataFrame(index=names),
    )
    spots.uns["section"] = {"section": name}
    return spots, pd.Series(layer, index=spots.obs_names, dtype=object)


def cohort(patients):
    """The table of sections of these patients."""
    bulks = []
    for place, patient in enumerate(patients):
        spots, layer = simulated(f"S{place}", seed=place, depth=1 + 0.3 * place)
        bulks.append(genes.bulk(spots, layer, patient))
    return bulks, genes.differing(bulks)


def of_one():
    spots, layer = simulated()
    return genes.differing([genes.bulk(spots, layer, "P")], genes.of_spots(spots, layer))


def found(table):
    """Gene -> the layers that it is higher in, at 5 %."""
    of = table[(table["p_adjusted"] < 0.05) & (table["log2_fold_change"] > 0.5)]
    return of.groupby("gene")["layer"].agg(set).to_dict()


@pytest.mark.parametrize("make", [of_one, lambda: cohort("ABCDE")[1]])
def test_a_gene_that_follows_the_layers_is_found_in_its_layer(make):
    table = make()
    where = found(table)
    for gene, layer in OWN.items():
        assert layer in where[gene], gene
        rows = table[table["gene"] == gene].set_index("layer")["log2_fold_change"]
        assert rows.idxmax() == layer
        assert rows[layer] > 1.5
    assert where["DEEP"] == {"core"}
    assert "FLAT" not in where
    # of 150 genes that are alike everywhere, hardly any in any layer
    assert len([gene for gene in where if gene.startswith("G")]) <= 3


def test_a_gene_that_few_spots_count_is_not_tested():
    assert "RARE" not in set(of_one()["gene"])
    assert "RARE" not in set(cohort("ABC")[1]["gene"])


def test_a_gene_of_a_few_spots_of_a_small_layer_is_not_tested():
    spots, layer = simulated()
    layer[(layer == "stroma") & (np.arange(160) >= 140)] = "core"  # 20 are left
    counts = spots.X.tolil()
    column = spots.var_names.get_loc("RARE")
    counts[:, column] = 0
    counts[np.flatnonzero(layer == "stroma")[:9], column] = 5
    spots.X = counts.tocsr()
    table = genes.differing([genes.bulk(spots, layer, "P")], genes.of_spots(spots, layer))
    assert "RARE" not in set(table["gene"])
    counts[np.flatnonzero(layer == "stroma")[9], column] = 5
    spots.X = counts.tocsr()
    table = genes.differing([genes.bulk(spots, layer, "P")], genes.of_spots(spots, layer))
    assert found(table)["RARE"] == {"stroma"}


def test_one_section_says_what_its_p_is_worth():
    table = of_one()
    assert set(table["unit"]) == {"spot"}
    assert set(table["units"]) == {160}
    assert set(table["sections"]) == {1}
    for text in table["caveat"]:
        assert "neighbours and not independent" in text
        assert "the map read these genes" in text
        assert "times the counts" not in text


def test_a_method_of_the_image_alone_has_read_no_gene():
    spots, layer = simulated()
    table = genes.differing([genes.bulk(spots, layer, "P")], genes.of_spots(spots, layer), reads_genes=False)
    assert set(table["caveat"]) == {genes.OF_SPOTS}


def test_another_depth_is_told():
    spots, layer = simulated()
    deep = sparse.diags(np.where(layer == "core", 9.0, 1.0)) @ spots.X
    spots.X = sparse.csr_matrix(deep, dtype=np.float32)
    table = genes.differing([genes.bulk(spots, layer, "P")], genes.of_spots(spots, layer)).set_index("layer")
    assert "its spots have 9." in table.loc["core", "caveat"].iloc[0]
    assert "times the counts" not in table.loc["outer rim", "caveat"].iloc[0]


def test_p_of_spots_is_that_of_a_rank_sum_test():
    spots, layer = simulated()
    p = genes.of_spots(spots, layer)["outer rim"]
    counts = spots.X.toarray().astype(float)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    for gene in ("AROUND", "FLAT", "G7"):
        of = values[:, spots.var_names.get_loc(gene)]
        inside = (layer == "outer rim").to_numpy()
        expected = stats.mannwhitneyu(of[inside], of[~inside], method="asymptotic", use_continuity=False).pvalue
        assert p[gene] == pytest.approx(expected, rel=1e-3)


def test_pseudo_bulks_of_patients_by_hand():
    """Two patients, one of them with two sections, which are summed."""
    bulks, table = cohort("AAB")
    assert set(table["unit"]) == {"patient"}
    assert set(table["units"]) == {2}
    assert set(table["sections"]) == {3}
    assert table["caveat"].str.contains("2 units: after correction").all()
    row = table.set_index(["layer", "gene"]).loc[("inner rim", "INSIDE")]
    differences = []
    for own in (bulks[:2], bulks[2:]):
        sums = sum(one.sums for one in own)
        inside, rest = sums[1], sums[[0, 2, 3]].sum(axis=0)
        place = list(bulks[0].genes).index("INSIDE")
        million = [np.log2((of[place] + 0.5) / (of.sum() + 1) * 1e6) for of in (inside, rest)]
        differences.append(million[0] - million[1])
    assert row["log2_fold_change"] == pytest.approx(np.mean(differences))
    t = np.mean(differences) / (np.std(differences, ddof=1) / np.sqrt(2))
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(t), 1))


def test_few_units_are_ordered_by_clear_differences():
    """Three patients: by p alone, genes that differ by little and alike come before those that follow the layers."""
    bulks, table = cohort("ABC")
    for gene, layer in OWN.items():
        own = table[table["layer"] == layer]
        assert list(own["gene"]).index(gene) < 3
    own = table[table["layer"] == "core"]
    columns = [list(bulks[0].genes).index(gene) for gene in own["gene"]]
    of = [genes.log2_cpm(np.stack([one.sums[0], one.sums[1:].sum(axis=0)]))[:, columns] for one in bulks]
    differences = np.array([inside - rest for inside, rest in of])
    assert len(own) == 155  # all genes that are counted often enough
    error = differences.std(axis=0, ddof=1) / np.sqrt(3)
    clear = np.abs(differences.mean(axis=0)) / (error + np.percentile(error, 90))
    assert (np.diff(clear) <= 1e-12).all()


def test_sections_of_one_patient_are_the_units_and_said_to_be():
    table = cohort("AAA")[1]
    assert set(table["unit"]) == {"section"}
    assert set(table["units"]) == {3}
    assert table["caveat"].str.contains("sections of one patient").all()


def test_p_is_adjusted_over_the_genes_of_a_layer():
    spots, layer = simulated(flat=20)
    table = genes.differing([genes.bulk(spots, layer, "P")], genes.of_spots(spots, layer))
    own = table[table["layer"] == "core"]
    count, p = len(own), own["p"].to_numpy()
    assert (np.diff(p) >= 0).all()
    expected = [min(p[later] * count / (later + 1) for later in range(place, count)) for place in range(count)]
    assert own["p_adjusted"].to_numpy() == pytest.approx(np.minimum(expected, 1))


def test_a_layer_of_few_spots_is_left_out():
    spots, layer = simulated()
    layer[(layer == "core") & (np.arange(160) >= 9)] = "stroma"
    assert "core" not in genes.of_spots(spots, layer)
    assert set(genes.differing([genes.bulk(spots, layer, "P")], genes.of_spots(spots, layer))["layer"]) == {
        "inner rim", "outer rim", "stroma",
    }  # fmt: skip


def test_a_layer_in_one_section_of_several_is_not_tested():
    bulks = []
    for place in range(2):
        spots, layer = simulated(f"S{place}", seed=place)
        if place:
            layer[layer == "core"] = "inner rim"
        bulks.append(genes.bulk(spots, layer, f"P{place}"))
    table = genes.differing(bulks).set_index("layer")
    assert table.loc["core", "p"].isna().all()
    assert table.loc["core", "caveat"].str.contains("not tested").all()
    assert table.loc["inner rim", "p"].notna().all()


def test_sections_need_not_measure_the_same_genes():
    bulks = []
    for place in range(5):
        spots, layer = simulated(f"S{place}", seed=place)
        kept = [gene for gene in spots.var_names[::-1] if gene != f"G{place}"]
        bulks.append(genes.bulk(spots[:, kept].copy(), layer, f"P{place}"))
    table = genes.differing(bulks)
    assert not set(table["gene"]) & {f"G{place}" for place in range(5)}
    assert "outer rim" in found(table)["AROUND"]


def test_spots_without_a_layer_count_nowhere():
    spots, layer = simulated()
    layer[::7] = None
    bulk = genes.bulk(spots, layer, "P")
    assert bulk.spots.sum() == layer.notna().sum()
    assert bulk.sums.sum() == spots.X[layer.notna().to_numpy()].sum()


def test_many_spots_are_drawn_and_it_is_said(monkeypatch):
    monkeypatch.setattr(genes, "MOST_SPOTS", 100)
    spots, layer = simulated()
    tested = genes.of_spots(spots, layer)
    pd.testing.assert_series_equal(tested["core"], genes.of_spots(spots, layer)["core"])
    table = genes.differing([genes.bulk(spots, layer, "P")], tested)
    assert table["caveat"].str.contains("drawn at random").all()
    assert "core" in found(table)["DEEP"]


def test_nothing_to_compare():
    spots, layer = simulated(each=3)
    assert genes.of_spots(spots, layer) == {}
    table = genes.differing([genes.bulk(spots, layer, "P")], {})
    assert table.empty
    assert list(table) == list(genes.COLUMNS)
