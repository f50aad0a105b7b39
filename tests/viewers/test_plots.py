"""The `.h5ad` in squidpy, and the store in spatialdata-plot."""

import matplotlib
import numpy as np
import pytest

import screens

matplotlib.use("agg")


@pytest.fixture
def drawn(shots):
    """The pixels of the current figure, which is kept under a name and closed."""
    from matplotlib import pyplot as plt

    def take(name: str) -> screens.Shot:
        figure = plt.gcf()
        figure.savefig(shots / f"{name}.png", dpi=figure.dpi)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())
        plt.close("all")
        return screens.by_corners(pixels)

    return take


COLUMNS = {"score": screens.score_colours, "call": screens.call_colours}


@pytest.mark.parametrize("column", COLUMNS)
def test_squidpy_draws_spots_on_their_tissue(column, one, exported, drawn):
    import anndata
    import squidpy

    table = anndata.read_h5ad(exported / "S1.h5ad")
    squidpy.pl.spatial_scatter(table, color=f"{column}_{screens.RUN}", figsize=(9, 7), dpi=100)
    shot = drawn(f"squidpy_{column}")
    screens.require_spots(shot, one, COLUMNS[column](one))
    screens.require_tissue(shot, one)


def test_squidpy_finds_the_neighbours(exported):
    import anndata
    import squidpy

    table = anndata.read_h5ad(exported / "S1.h5ad")
    squidpy.gr.spatial_neighbors(table, coord_type="grid", n_neighs=4)
    # of 12 rows x 17 columns without 5 x 6: along rows 7 x 16 + 5 x 10, along columns 11 x 11 + 6 x 6
    assert table.obsp["spatial_connectivities"].nnz == 2 * (7 * 16 + 5 * 10 + 11 * 11 + 6 * 6)


@pytest.mark.parametrize("system", ["global", "um"])
@pytest.mark.parametrize("column", COLUMNS)
def test_spatialdata_plot_draws_spots_and_regions_on_their_tissue(column, system, one, exported, drawn):
    import spatialdata
    import spatialdata_plot  # noqa: F401  gives the store its `.pl`
    from matplotlib import pyplot as plt

    store = spatialdata.read_zarr(exported / "S1.spatialdata.zarr")
    _, axes = plt.subplots(figsize=(11, 7), dpi=100)
    image = store.pl.render_images("he").pl.render_shapes("spots", color=f"{column}_{screens.RUN}")
    line = {"fill_alpha": 0.0, "outline_alpha": 1.0, "outline_width": 2, "outline_color": "#000000"}
    image.pl.render_shapes(f"regions_{screens.RUN}", **line).pl.show(coordinate_systems=system, ax=axes)
    shot = drawn(f"spatialdata_plot_{column}_{system}")
    screens.require_spots(shot, one, COLUMNS[column](one))
    screens.require_tissue(shot, one)
    screens.require_outlines(shot, one, (0, 0, 0))
