"""The control that scores by the stain alone."""

import anndata
import numpy as np
import pandas as pd
import pytest

from ctrflow.methods import darkness


def test_the_optical_density_of_known_light():
    # 255 lets all light through, 24 about a tenth of it: 25 / 256
    assert darkness.optical_density(np.full((4, 4, 3), 255, np.uint8)) == 0
    assert darkness.optical_density(np.full((4, 4, 3), 24, np.uint8)) == pytest.approx(-np.log10(25 / 256))
    half = np.full((4, 4, 3), 255, np.uint8)
    half[:2] = 24
    assert darkness.optical_density(half) == pytest.approx(-np.log10(25 / 256) / 2)


def test_what_was_not_scanned_is_not_dark():
    assert darkness.optical_density(np.zeros((4, 4, 3), np.uint8)) == 0


def test_it_is_averaged_over_the_neighbours():
    patches = np.full((8, 2, 2, 3), 255, np.uint8)
    patches[0] = 24
    view = anndata.AnnData(
        np.zeros((8, 1)),
        obs=pd.DataFrame({"section": "a"}, index=map(str, range(8))),
        obsm={"spatial": np.column_stack([np.arange(8.0), np.zeros(8)]), "patches": patches},
    )
    dark = -np.log10(25 / 256)
    score = darkness.Model({"neighbours": 6}).score(view)
    # the first spot is among the six nearest of the next three
    assert score == pytest.approx([dark / 7] * 4 + [0] * 4)
    assert darkness.Model({"neighbours": 0}).score(view) == pytest.approx([dark] + [0] * 7)
