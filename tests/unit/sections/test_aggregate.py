"""Xenium cells to spots: lattices worked by hand, a loop over all pairs, and the real bundle."""

import math
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow.errors import InputError
from ctrflow.features.neighbours import nearest
from ctrflow.readers import read_section
from ctrflow.scale.lattice import spot_area_mm2
from ctrflow.sections.aggregate import aggregate_cells, lattice, membership, places, spot_of_cells
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
    centres, row, column = lattice(np.array([[10.0, 120.0], [210.0, 20.0], [50.0, 50.0]]), 100)
    wanted = [(10, 20), (110, 20), (210, 20)]
    wanted += [(60, 20 + ROW_UM), (160, 20 + ROW_UM), (260, 20 + ROW_UM)]
    wanted += [(10, 20 + 2 * ROW_UM), (110, 20 + 2 * ROW_UM), (210, 20 + 2 * ROW_UM)]
    np.testing.assert_allclose(centres, wanted)
    assert list(row) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(column) == [0, 1, 2] * 3


@pytest.mark.parametrize("pitch_um", [100, 55])
def test_every_lattice_point_has_neighbours_at_one_pitch(pitch_um):
    from scipy.spatial import KDTree

    centres, row, column = lattice(np.array([[0.0, 0.0], [1000.0, 1000.0]]), pitch_um)
    inner = (row > 0) & (row < row.max()) & (column > 0) & (column < column.max())
    np.testing.assert_allclose(KDTree(centres).query(centres[inner], k=7)[0][:, 1:], pitch_um)


def test_a_cell_on_the_rim_of_a_disc_is_inside_and_one_beyond_is_in_none():
    centres = np.array([[0.0, 0.0], [100.0, 0.0]])
    cells = np.array([[27.5, 0], [27.6, 0], [72.5, 0], [0, 0], [100, -27.5], [50, 0]])
    assert list(places(cells, centres, "discs")) == [0, -1, 1, 0, 1, -1]


def test_sums_of_discs_worked_by_hand():
    # eight spots in two rows of four; two cells in the first, one in each other, one between the discs
    at = [(100 * c + 50 * r, ROW_UM * r) for r in (0, 1) for c in range(4)]
    counts = np.array([[n, 1] for n in range(10)])
    cells = cells_at([*at, (10, 10), (50, 0)], counts)
    spots = aggregate_cells(cells, "discs")
    assert list(spots.obs_names) == [f"r{r:03d}c{c:03d}" for r in (0, 1) for c in range(4)]
    np.testing.assert_array_equal(
        spots.X.toarray(), [[0 + 8, 2], [1, 1], [2, 1], [3, 1], [4, 1], [5, 1], [6, 1], [7, 1]]
    )
    assert spots.X.format == "csr"
    assert list(spots.obs["n_cells"]) == [2, 1, 1, 1, 1, 1, 1, 1]
    assert list(spot_of_cells(cells, spots)) == [*range(8), 0, -1]
    assert cells.obs["spot"].isna().sum() == 1
    np.testing.assert_allclose(spots.obsm["spatial_um"], at, atol=1e-9)
    np.testing.assert_allclose(spots.obsm["spatial"], 2 * np.array(at), atol=1e-9)  # 0.5 µm per px


def test_sums_of_hexagons_worked_by_hand():
    # centres 55 µm apart in rows 47.63 µm apart, the second row shifted by 27.5 µm; a cell in each, and four more:
    # left and right of the border at x = 27.5; 30 µm below the first centre, 33 from the one below; 29 and 25 µm
    at = [(55 * c + 27.5 * r, 0.55 * ROW_UM * r) for r in (0, 1) for c in range(4)]
    counts = np.array([[n, 1] for n in range(12)])
    cells = cells_at([*at, (27, 0), (28, 0), (0, 30), (14, 26)], counts)
    spots = aggregate_cells(cells)
    assert list(cells.obs["spot"].iloc[8:]) == ["r000c000", "r000c001", "r000c000", "r001c000"]
    np.testing.assert_array_equal(
        spots.X.toarray(), [[0 + 8 + 10, 3], [1 + 9, 2], [2, 1], [3, 1], [4 + 11, 2], [5, 1], [6, 1], [7, 1]]
    )
    assert list(spots.obs["n_cells"]) == [3, 2, 1, 1, 2, 1, 1, 1]
    assert (spots.uns["section"]["pool"], spots.uns["section"]["spot_um"]) == ("hexagons", 55)
    np.testing.assert_array_equal(
        membership(cells, spots).toarray()[:2], [[1, *[0] * 7, 1, 0, 1, 0], [0, 1, *[0] * 7, 1, 0, 0]]
    )


def test_hexagons_leave_no_cell_out():
    rng = np.random.default_rng(3)
    # with a hole, and cells on the edge of their box
    positions = rng.uniform(0, 600, (900, 2))
    positions = np.vstack([positions[np.hypot(*(positions - 300).T) > 120], [[0, 0], [0, 600], [600, 0], [600, 600]]])
    counts = rng.poisson(1, (len(positions), 4))
    cells = cells_at(positions, counts)
    spots = aggregate_cells(cells, "hexagons")
    np.testing.assert_array_equal(spots.X.sum(axis=0), counts.sum(axis=0, keepdims=True))
    assert spots.obs["n_cells"].sum() == len(positions)
    assert spots.obs["n_cells"].min() > 0
    spot = spot_of_cells(cells, spots)
    assert spot.min() == 0
    # each in the hexagon that it lies in: none of the infinite lattice has a nearer centre
    away = np.hypot(*(positions - spots.obsm["spatial_um"][spot]).T)
    row, column = np.indices((40, 40)).reshape(2, -1) - 10
    everywhere = np.column_stack([55 * column + 27.5 * (row % 2), 0.55 * ROW_UM * row])
    nearest = np.hypot(*(positions[:, None] - everywhere).transpose(2, 0, 1)).min(axis=1)
    np.testing.assert_allclose(away, nearest, atol=1e-9)
    assert away.max() <= 55 / math.sqrt(3) + 1e-9


def test_the_area_and_the_neighbours_of_a_hexagon():
    positions = np.random.default_rng(1).uniform(0, 1000, (9000, 2))
    spots = aggregate_cells(cells_at(positions))
    # 55² sqrt(3) / 2 µm²
    assert spot_area_mm2(spots.obsm["spatial"], 0.5) == pytest.approx(0.00261972, rel=1e-5)
    middle = np.argmin(np.hypot(*(spots.obsm["spatial_um"] - 500).T))
    around = spots.obsm["spatial_um"][nearest(spots.obsm["spatial"], 6)[middle, 1:]]
    np.testing.assert_allclose(np.hypot(*(around - spots.obsm["spatial_um"][middle]).T), 55)


def test_sums_of_discs_equal_a_loop_over_all_pairs():
    rng = np.random.default_rng(3)
    positions = rng.uniform(0, 600, (500, 2))
    counts = rng.poisson(1, (500, 4))
    spots = aggregate_cells(cells_at(positions, counts), "discs")
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
    spots = aggregate_cells(cells_at(positions, alignment=alignment, image="he.tif", um_per_px=1.5), "discs")
    x, y = spots.obsm["spatial"].T
    np.testing.assert_allclose(0.5 * (3 * y + 100), spots.obsm["spatial_um"][:, 0])
    np.testing.assert_allclose(0.5 * (-3 * x + 4000), spots.obsm["spatial_um"][:, 1])
    # so the pitch is 100 µm / 1.5 µm per H&E px
    first = spots.obsm["spatial"][:2]
    assert np.linalg.norm(first[1] - first[0]) == pytest.approx(100 / 1.5)
    assert spots.uns["section"]["um_per_px"] == 1.5
    assert not {"alignment", "pixel_size"} & set(spots.uns["section"])


@pytest.mark.parametrize("pool", ["hexagons", "discs"])
def test_too_few_spots_are_reported(pool):
    with pytest.raises(InputError, match=r"section X1.*2 cells fill 2 spots.*at least 7.*in µm"):
        aggregate_cells(cells_at([[0, 0], [100, 0]]), pool)


def test_real_bundle(tmp_path):
    path = DATA / "xenium_toy"
    if not path.exists():
        pytest.skip(f"the real sections are not here ({path})")
    cells = read_section({"section": "toy", "platform": "xenium", "path": str(path)})
    whole = aggregate_cells(cells)
    assert (whole.X.sum(), whole.obs["n_cells"].sum()) == (cells.X.sum(), cells.n_obs)
    spots = aggregate_cells(cells, "discs")
    offsets = cells.obsm["spatial_um"][:, None, :] - spots.obsm["spatial_um"][None, :, :]
    inside = np.hypot(offsets[..., 0], offsets[..., 1]) <= 27.5
    np.testing.assert_array_equal(spots.obs["n_cells"], inside.sum(axis=0))
    assert spots.X.sum() == cells.X[inside.any(axis=1)].sum() > 0
    np.testing.assert_allclose(spots.obsm["spatial"] * 0.2125, spots.obsm["spatial_um"])
    write_h5ad(spots, tmp_path / "spots.h5ad")
    assert anndata.read_h5ad(tmp_path / "spots.h5ad").uns["section"]["um_per_px"] == 0.2125
