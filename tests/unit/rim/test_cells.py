"""Cell types of layers: scores by hand, genes that are missing, and the list that comes with ctrflow."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow.features import gene_names, markers
from ctrflow.rim import cells
from runs import ROOT

TYPES = markers.read_markers(ROOT / "config/cell_types.tsv", sets=())


def spots_of(names):
    counts = np.random.default_rng(0).poisson(4, (6, len(names))).astype(np.float32)
    counts[:3, 0] += 20
    return anndata.AnnData(
        sparse.csr_matrix(counts), obs=pd.DataFrame(index=list("abcdef")), var=pd.DataFrame(index=names)
    )


def test_the_score_is_the_mean_of_z_scores():
    spots = spots_of(["CD3D", "REST", "CD3E", "EPCAM"])
    scores, genes = cells.scores(spots, TYPES)
    counts = spots.X.toarray().astype(float)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[:, [0, 2]]
    expected = ((values - values.mean(axis=0)) / values.std(axis=0)).mean(axis=1)
    assert scores["T cells"].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert genes["T cells"] == (["CD3D", "CD3E"], ["CD2"])
    assert genes["epithelium"] == (["EPCAM"], ["KRT8", "KRT18"])
    assert scores["B cells"].isna().all()
    assert genes["B cells"] == ([], ["MS4A1", "CD79A", "CD79B"])


def test_the_table_has_the_mean_of_each_layer():
    scored = cells.scores(spots_of(["CD3D", "REST"]), TYPES)
    layer = pd.Series(["core", "core", "inner rim", "stroma", "stroma", None], index=list("abcdef"))
    table = cells.table("S1", layer, scored)
    assert set(table["layer"]) == {"core", "inner rim", "stroma"}
    own = table.set_index(["layer", "cell_type"])
    assert own.loc[("core", "T cells"), "score"] == pytest.approx(scored[0]["T cells"][:2].mean())
    assert own.loc[("stroma", "T cells"), "spots"] == 2
    assert own.loc[("core", "T cells"), "genes"] == "CD3D"
    assert own.loc[("core", "B cells"), "missing"] == "MS4A1 CD79A CD79B"
    assert np.isnan(own.loc[("core", "B cells"), "score"])


def test_genes_named_by_ids_are_found():
    table = gene_names.read(ROOT / "config/genes/human.tsv.gz")
    ids = table.set_index("gene")["ensembl"]
    spots = spots_of([ids["CD3D"], ids["EPCAM"], ids["ACTB"]])
    named = gene_names.translated(spots, "S1", list(TYPES["gene"]), table)
    assert cells.scores(named, TYPES)[1]["T cells"] == (["CD3D"], ["CD2", "CD3E"])
    # Entrez numbers are translated by nothing, and said to be missing
    numbered = gene_names.translated(spots_of(["915", "4072", "60"]), "S1", list(TYPES["gene"]), table)
    assert cells.scores(numbered, TYPES)[1]["T cells"] == ([], ["CD2", "CD3D", "CD3E"])


def test_the_list_names_genes_of_today_with_a_source_each():
    table = gene_names.read(ROOT / "config/genes/human.tsv.gz")
    assert set(TYPES["gene"]) <= set(table["gene"])
    assert TYPES["source"].str.contains(r"\d{4}$").all()
    assert (TYPES.groupby("set").size() >= 2).all()
    assert TYPES["set"].nunique() == 9
