"""The rows of each section, and the block of a modality."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow.features.blocks import matrix, section_rows

MIXED = ["b", "a", "b", "c", "a", "b"]
ROWS = [("b", [0, 2, 5]), ("a", [1, 4]), ("c", [3])]  # as they first come


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pd.Categorical])
def test_sections_in_order_of_appearance_with_ascending_rows(kind):
    assert [(section, rows.tolist()) for section, rows in section_rows(kind(MIXED))] == ROWS


def test_rows_are_positions_not_labels_of_an_index():
    sections = pd.Series(MIXED, index=[9, 8, 7, 6, 5, 4])
    assert [(section, rows.tolist()) for section, rows in section_rows(sections)] == ROWS


def test_one_section_has_all_rows_and_an_empty_table_has_no_section():
    ((section, rows),) = section_rows(np.zeros(4))
    assert section == 0
    assert rows.tolist() == [0, 1, 2, 3]
    assert list(section_rows(np.array([], dtype=object))) == []


def test_rows_select_and_assign_a_section_of_a_matrix():
    values, sections = np.arange(12.0).reshape(6, 2), np.array(MIXED)
    result = np.empty_like(values)
    for section, rows in section_rows(sections):
        assert (values[rows] == values[sections == section]).all()
        result[rows] = values[rows]
    assert (result == values).all()


def test_the_matrix_of_a_modality_keeps_the_views_dtype():
    genes, image = np.array([[0, 1.5, 0], [2, 0, 0.25]], np.float32), np.array([[1, 2], [3, 4]], np.float64)
    view = anndata.AnnData(sparse.csr_matrix(genes), obsm={"image": image})
    for modality, expected in (("gene", genes), ("image", image)):
        found = matrix(view, modality)
        assert isinstance(found, np.ndarray)
        assert found.dtype == expected.dtype
        assert (found == expected).all()
        assert (matrix(view[[1]], modality) == expected[1:]).all()


def test_genes_are_read_without_an_image():
    view = anndata.AnnData(sparse.csr_matrix(np.eye(2, dtype=np.float32)))
    assert (matrix(view, "gene") == np.eye(2)).all()
