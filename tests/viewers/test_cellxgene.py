"""The `.h5ad` in cellxgene: its own server, and its page in a browser."""

from dataclasses import replace

import numpy as np
import pytest

import screens
from programs import python_of, serving

HIGHEST, LOWEST = (110, 64, 170), (175, 240, 91)  # the ends of its scale, d3's interpolateCool turned round


@pytest.fixture
def opened(page, exported):
    """The section's `.h5ad` in a page."""
    python, wrong = python_of("cellxgene"), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    quiet = ("--disable-annotations", "--disable-gene-sets-save")
    command = (python, "-m", "server", "--no-upgrade-check", "launch", exported / "S1.h5ad", "--port", "{port}", *quiet)
    with serving(*command) as address:
        page.goto(address)
        yield page
    assert wrong == []


def coloured(page, column: str, path) -> np.ndarray:
    """The spots, coloured by a column, without the buttons above and below them."""
    page.get_by_test_id(f"colorby-{column}").click(timeout=60_000)
    page.mouse.move(5, 890)  # the button says what it does as long as the mouse is on it
    return screens.within(screens.taken(page, path), page.get_by_test_id("layout-graph"))[60:-60]


def test_spots_lie_as_on_the_tissue_in_the_colours_of_calls_and_scores(opened, one, shots):
    call = screens.by_spots(coloured(opened, "call_demo", shots / "cellxgene_call.png"), one)
    screens.require_spots(call, one, screens.call_colours(one), tolerance=25)
    score = replace(call, pixels=coloured(opened, "score_demo", shots / "cellxgene_score.png"))
    found, known = score.colours(one.spots.obsm["spatial"]), one.scores[screens.RUN].to_numpy()
    assert screens.alike(found[np.nanargmax(known)], HIGHEST)
    assert screens.alike(found[np.nanargmin(known)], LOWEST)
    green = found[np.argsort(known)][: np.isfinite(known).sum(), 1]
    assert (np.diff(green) <= 3).all()  # falls along the scale
    assert (np.ptp(found[np.isnan(known)], axis=1) < 25).all()  # grey, as docs/results.md says
