"""Marker lists: ours, and mistakes in a user's."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow.errors import InputError
from ctrflow.features import markers

LISTS = Path(__file__).parents[3] / "config" / "markers"


def listed(tmp_path, *rows):
    path = tmp_path / "kidney.tsv"
    path.write_text("\n".join(["# ours", "gene\tset\tsource", *rows]) + "\n")
    return path


@pytest.mark.parametrize("tissue", ["breast", "colon", "liver"])
def test_our_lists_have_both_sets_and_a_dated_source_each(tissue):
    table = markers.read_markers(markers.path_of(tissue, LISTS))
    assert set(table["set"]) == set(markers.SETS)
    assert table["source"].str.fullmatch(r".+, .+ (19|20)\d\d").all()
    assert "EPCAM" in set(table["gene"])


def test_tissue_is_found_whatever_its_case():
    assert markers.path_of(" Breast", LISTS) == LISTS / "breast.tsv"
    assert markers.tissues(LISTS) == ["breast", "colon", "liver"]


@pytest.mark.parametrize("tissue", ["lung", "", "../breast"])
def test_another_tissue_is_rejected_with_the_cure(tissue):
    with pytest.raises(InputError, match=r"column tissue: .*breast, colon, liver.*add the list"):
        markers.path_of(tissue, LISTS)


def test_a_users_own_list(tmp_path):
    table = markers.read_markers(listed(tmp_path, "CA9\ttumour\tIvanov et al., PNAS 1998", "PAX8\tepithelial\tx"))
    assert table.to_dict("list") == {
        "gene": ["CA9", "PAX8"], "set": ["tumour", "epithelial"], "source": ["Ivanov et al., PNAS 1998", "x"],
    }  # fmt: skip


def test_a_list_of_other_sets(tmp_path):
    path = tmp_path / "types.tsv"
    path.write_text("gene\tset\tsource\nCD3D\tT cells\tTirosh 2016\n")
    assert markers.read_markers(path, sets=())["set"].tolist() == ["T cells"]
    with pytest.raises(InputError, match="column set: 'T cells'; valid: epithelial, tumour"):
        markers.read_markers(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["CA9\tcancer\tx"], r"kidney.tsv, row 3, column set: 'cancer'; valid: epithelial, tumour"),
        (["CA9\ttumour\tx", "CA9\tepithelial\tx"], r"row 4, column gene: CA9 is already at .*row 3; keep one row"),
        (["CA9\ttumour\t"], r"row 3, column source: empty; fill it"),
        (["CA9"], r"row 3: 1 cell, the header has 3"),
        ([], r"no marker; add a row"),
    ],
)
def test_mistakes_are_reported_with_their_place(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        markers.read_markers(listed(tmp_path, *rows))


def test_all_mistakes_are_reported_at_once(tmp_path):
    with pytest.raises(InputError, match="has 2 problems"):
        markers.read_markers(listed(tmp_path, "CA9\tcancer\tx", "PAX8\tx\tx"))


def view_of(counts, names, sections):
    obs = pd.DataFrame({"section": sections}, index=[f"s{i}" for i in range(len(sections))])
    view = anndata.AnnData(sparse.csr_matrix(np.array(counts, np.float32)), obs=obs, var=pd.DataFrame(index=names))
    table = pd.DataFrame(
        {"gene": ["EPCAM", "MUC1", "KRT8", "GONE"], "set": ["epithelial", "tumour", "epithelial", "tumour"]}
    )
    view.uns["markers"] = dict.fromkeys(sections, table.assign(source="x"))
    return view


def test_markers_that_a_section_has_counts_of():
    view = view_of([[1, 2, 0, 3], [0, 0, 1, 0]], ["KRT8", "MUC1", "EPCAM", "ACTB"], ["a", "b"])
    assert markers.columns_of(view, "a", ["epithelial", "tumour"]).tolist() == [1, 0]  # EPCAM has none there
    assert markers.columns_of(view, "a", ["tumour"]).tolist() == [1]
    assert markers.columns_of(view, "b", ["epithelial", "tumour"]).tolist() == [2]


def test_a_section_without_any_is_rejected():
    view = view_of([[0, 5]], ["ENSG1", "ENSG2"], ["a"])
    with pytest.raises(
        InputError, match=r"section a: no counts of any tumour marker .*MUC1, GONE.*ENSG1.*config/markers"
    ):
        markers.columns_of(view, "a", ["tumour"])
