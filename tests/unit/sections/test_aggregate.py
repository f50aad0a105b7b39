"""Xenium cells to spots: a lattice worked by hand, a loop over all pairs, and the real bundle."""

import math
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow.errors import InputError
from ctrflow.readers import read_section
from ctrflow.sections.aggregate import aggregate_cells, lattice, membership
from ctrflow.storage import write_h5ad

DATA = Path(__file__).parents[4] / "shared" / "data"
ROW_UM = 86.60254037844386  # 100 sqrt(3) / 2


def cells_at(positions_um, counts=None, **section):
    positions_um = np.asarray(positions_um, dtype=float)
    counts = np.ones((len(positions_um), 1)) if counts is None else counts
    section = {"section": "X1", "platform": "xenium", "um_per_px": 0.5, "spot_um": 55.0, "pixel_size": 0.5} | section
    return anndata.AnnData(
        sparse.csr_matrix(counts, dtype=np.float32),
        obs=pd.DataFrame(index=[f"cell{n}" for n in range(len(positions_um))]),
        var=pd.DataFrame(index=[f"G{n}" for n in range(counts.shape[1])]),
        obsm={"spatial_um": positions_um},
        uns={"section": section},
    )


def test_lattice_worked_by_hand():
    # a box of 200 x 100 µm from (10, 20): three columns; rows at 0 and 86.6 do not reach 100, so a third is needed
    centres, row, column = lattice(np.array([[10.0, 120.0], [210.0, 20.0], [50.0, 50.0]]))
    wanted = [(10, 20), (110, 20), (210, 20)]
    wanted += [(60, 20 + ROW_UM), (160, 20 + ROW_UM), (260, 20 + ROW_UM)]
    wanted += [(10, 20 + 2 * ROW_UM), (110, 20 + 2 * ROW_UM), (210, 20 + 2 * ROW_UM)]
    np.testing.assert_allclose(centres, wanted)
    assert list(row) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(column) == [0, 1, 2] * 3


def test_every_lattice_point_has_neighbours_at_one_pitch():
    from scipy.spatial import KDTree

    centres, row, column = lattice(np.array([[0.0, 0.0], [1000.0, 1000.0]]))
    inner = (row > 0) & (row < row.max()) & (column > 0) & (column < column.max())
    np.testing.assert_allclose(KDTree(centres).query(centres[inner], k=7)[0][:, 1:], 100)


def test_a_cell_on_the_rim_is_inside_and_one_beyond_is_not():
    spots = np.array([[0.0, 0.0], [100.0, 0.0]])
    cells = np.array([[27.5, 0], [27.6, 0], [72.5, 0], [0, 0], [100, -27.5], [50, 0]])
    found = membership(cells, spots)
    assert found.shape == (2, 6)
    np.testing.assert_array_equal(found.toarray(), [[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 1, 0]])


def test_discs_that_overlap_share_their_cells():
    found = membership(np.array([[50.0, 0]]), np.array([[0.0, 0], [100, 0]]), spot_um=120)
    np.testing.assert_array_equal(found.toarray(), [[1], [1]])


def test_sums_worked_by_hand():
    # eight spots in two rows of four; two cells in the first, one in each other, one between the discs
    places = [(100 * c + 50 * r, ROW_UM * r) for r in (0, 1) for c in range(4)]
    positions = [*places, (10, 10), (50, 0)]
    counts = np.array([[n, 1] for n in range(10)])
    spots = aggregate_cells(cells_at(positions, counts))
    assert list(spots.obs_names) == [f"r{r:03d}c{c:03d}" for r in (0, 1) for c in range(4)]
    np.testing.assert_array_equal(
        spots.X.toarray(), [[0 + 8, 2], [1, 1], [2, 1], [3, 1], [4, 1], [5, 1], [6, 1], [7, 1]]
    )
    assert spots.X.format == "csr"
    assert list(spots.obs["n_cells"]) == [2, 1, 1, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(spots.obsm["spatial_um"], places, atol=1e-9)
    np.testing.assert_allclose(spots.obsm["spatial"], 2 * np.array(places), atol=1e-9)  # 0.5 µm per px


def test_sums_equal_a_loop_over_all_pairs():
    rng = np.random.default_rng(3)
    positions = rng.uniform(0, 600, (500, 2))
    counts = rng.poisson(1, (500, 4))
    spots = aggregate_cells(cells_at(positions, counts))
    seen = 0
    for number in range(spots.n_obs):
        x, y = spots.obsm["spatial_um"][number]
        inside = [n for n in range(500) if math.hypot(positions[n, 0] - x, positions[n, 1] - y) <= 27.5]
        assert spots.obs["n_cells"].iloc[number] == len(inside) > 0
        np.testing.assert_array_equal(spots.X[number].toarray()[0], counts[inside].sum(axis=0))
        seen += len(inside)
    # the discs cover pi 27.5^2 of each 100 x 86.6 µm
    assert seen / 500 == pytest.approx(math.pi * 27.5**2 / (100 * ROW_UM), abs=0.08)


def test_positions_go_back_through_the_alignment():
    # H&E px -> Xenium px: three times as many, a quarter turn, a shift; so x_um = 0.5 (3 y_he + 100) and so on
    alignment = np.array([[0.0, 3, 100], [-3, 0, 4000], [0, 0, 1]])
    positions = np.random.default_rng(0).uniform(100, 1500, (900, 2))
    spots = aggregate_cells(cells_at(positions, alignment=alignment, image="he.tif", um_per_px=1.5))
    x, y = spots.obsm["spatial"].T
    np.testing.assert_allclose(0.5 * (3 * y + 100), spots.obsm["spatial_um"][:, 0])
    np.testing.assert_allclose(0.5 * (-3 * x + 4000), spots.obsm["spatial_um"][:, 1])
    # so the pitch is 100 µm / 1.5 µm per H&E px
    first = spots.obsm["spatial"][:2]
    assert np.linalg.norm(first[1] - first[0]) == pytest.approx(100 / 1.5)
    assert spots.uns["section"]["um_per_px"] == 1.5
    assert not {"alignment", "pixel_size"} & set(spots.uns["section"])


def test_too_few_spots_are_reported():
    with pytest.raises(InputError, match=r"section X1.*2 cells fill 2 spots.*at least 7.*in µm"):
        aggregate_cells(cells_at([[0, 0], [100, 0]]))


def test_real_bundle(tmp_path):
    path = DATA / "xenium_toy"
    if not path.exists():
        pytest.skip(f"the real sections are not here ({path})")
    cells = read_section({"section": "toy", "platform": "xenium", "path": str(path)})
    spots = aggregate_cells(cells)
    offsets = cells.obsm["spatial_um"][:, None, :] - spots.obsm["spatial_um"][None, :, :]
    inside = np.hypot(offsets[..., 0], offsets[..., 1]) <= 27.5
    np.testing.assert_array_equal(spots.obs["n_cells"], inside.sum(axis=0))
    assert spots.X.sum() == cells.X[inside.any(axis=1)].sum() > 0
    np.testing.assert_allclose(spots.obsm["spatial"] * 0.2125, spots.obsm["spatial_um"])
    write_h5ad(spots, tmp_path / "spots.h5ad")
    assert anndata.read_h5ad(tmp_path / "spots.h5ad").uns["section"]["um_per_px"] == 0.2125
