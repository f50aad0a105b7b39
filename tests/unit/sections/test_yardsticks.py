"""What scores are held against: counts and darkness of spots on a drawn image."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image as pil
from scipy import sparse

from ctrflow.sections import yardsticks

DARK = -np.log10(51 / 256)  # of the value 50, where 255 lets all light through


@pytest.fixture
def section(tmp_path):
    """Seven spots on glass, seven on dark tissue, seven on the line between; 10 µm a pixel."""
    pixels = np.full((120, 400, 3), 255, np.uint8)
    pixels[:, 200:] = 50
    pil.fromarray(pixels).save(tmp_path / "a.png")
    counts = np.arange(42).reshape(21, 2)
    spots = AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(21)]))
    spots.obsm["spatial"] = np.repeat([[60.0, 60.0], [340.0, 60.0], [200.0, 60.0]], 7, axis=0)
    facts = {"section": "S", "um_per_px": 10.0, "image": str(tmp_path / "a.png"), "image_scale": 1.0}
    spots.uns["section"] = facts
    return spots


def test_counts_and_darkness_of_spots(section):
    found = yardsticks.yardsticks(section)
    assert list(found) == ["spot", "library_size", "darkness"]
    assert found["spot"].tolist() == [f"s{i}" for i in range(21)]
    assert found["library_size"].tolist() == [4 * i + 1 for i in range(21)]
    assert found["darkness"].to_numpy() == pytest.approx(np.repeat([0, DARK, DARK / 2], 7), abs=1e-6)


def test_positions_are_those_of_the_full_image(section):
    """The same slide, of which the file is an image reduced to a fifth."""
    section.obsm["spatial"] *= 5
    section.uns["section"] |= {"um_per_px": 2.0, "image_scale": 0.2}
    assert yardsticks.yardsticks(section)["darkness"].to_numpy() == pytest.approx(
        np.repeat([0, DARK, DARK / 2], 7), abs=1e-6
    )


def test_a_fine_image_is_looked_at_through_coarser_pixels(section):
    """0.5 µm a pixel: 200 µm is the whole picture, of which one half is dark; beyond its border is light."""
    section.uns["section"] |= {"um_per_px": 0.5}
    found = yardsticks.yardsticks(section)["darkness"].to_numpy()
    # 400 x 120 px are 200 x 60 µm: from the middle all of it is seen, and of the square 60 / 200 is beside the image
    assert found[14:] == pytest.approx(DARK / 2 * 60 / 200, rel=0.03)


def test_the_neighbours_share_their_darkness(section):
    section.obsm["spatial"][20, 0] = 205.0  # a square of which three quarters are dark, beside six of which half is
    own = yardsticks.yardsticks(section)["darkness"].to_numpy()
    assert own[14:] == pytest.approx(np.full(7, DARK * (6 * 0.5 + 0.75) / 7))


def test_without_an_image_there_is_no_darkness(section):
    section.uns["section"]["image"] = ""
    found = yardsticks.yardsticks(section)
    assert found["darkness"].isna().all()
    assert found["library_size"].notna().all()
