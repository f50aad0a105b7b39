"""The store in napari with napari-spatialdata, on a display of Xvfb."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import screens
from programs import python_of

XVFB = ("xvfb-run", "-a", "-s", "-screen 0 1400x1000x24")


@pytest.fixture(scope="module")
def seen(exported, shots, tmp_path_factory):
    """Name -> pixels: the canvas coloured by call and by score, and the window."""
    python = python_of("viewers")
    if not all(map(shutil.which, ("xvfb-run", "Xvfb", "xauth"))):
        pytest.skip("no display without a screen: install xvfb and xauth (apt-get)")
    folder = tmp_path_factory.mktemp("napari")
    script = Path(__file__).with_name("in_napari.py")
    command = [*XVFB, python, script, exported / "S1.spatialdata.zarr", screens.RUN, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    for path in folder.iterdir():
        shutil.copy(path, shots / f"napari_{path.name}")
    return {path.stem: np.asarray(Image.open(path)) for path in folder.iterdir()}


def test_spots_have_the_colour_of_their_call(seen, one):
    shot = screens.by_corners(seen["call"])
    screens.require_spots(shot, one, screens.call_colours(one))
    screens.require_tissue(shot, one)


def test_spots_have_the_colour_of_their_score(seen, one):
    shot = screens.by_corners(seen["score"])
    screens.require_spots(shot, one, screens.score_colours(one))
    screens.require_tissue(shot, one)


def test_a_spot_without_score_is_drawn_like_the_lowest(seen, one):
    """As docs/results.md warns."""
    unscored = one.scores[screens.RUN].isna().to_numpy()
    found = screens.by_corners(seen["score"]).colours(one.spots.obsm["spatial"][unscored])
    assert screens.alike(found, screens.score_colours(one)[one.scores[screens.RUN].argmin()], 12).all()


def test_regions_are_outlined(seen, one):
    screens.require_outlines(screens.by_corners(seen["call"]), one, (0, 0, 0))
