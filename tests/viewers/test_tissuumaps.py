"""The project in TissUUmaps: its own server, and its page in a browser."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

import screens
from ctrflow import export
from programs import python_of, serving

DRAWN = """([column, spots]) => document.querySelector('#spots_tab-name')?.value == column
    && glUtils._numPoints['spots'] == spots"""
FADING_MS = 5000  # until the small map on the picture is gone


@pytest.fixture
def opened(page):
    """Opens the project of a folder in a page."""
    python, wrong = python_of("viewers"), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda said: wrong.append(said.url) if said.status >= 400 else None)

    @contextmanager
    def opening(folder):
        command = (python, "-m", "tissuumaps", "--readonly", "--port", "{port}", folder / "S1.tmap")
        with serving(*command) as address:
            page.goto(address)
            yield page
        assert wrong == []

    return opening


def wait_for(page, column: str, spots: int) -> None:
    """Until so many spots are drawn by a column."""
    page.wait_for_function(DRAWN, arg=[column, spots], timeout=60_000)
    page.wait_for_timeout(FADING_MS)


def choose(page, column: str, spots: int) -> None:
    """Pick a column from the list of results."""
    page.locator("#divMarkersDownloadButtons .select2-selection").click()
    page.locator(".select2-results__option", has_text=column).click()
    wait_for(page, column, spots)


def show_regions(page) -> None:
    """Load those of the run."""
    page.locator("#title-tab-regions").click()
    page.get_by_text("Regions demo").click()
    page.wait_for_function("Object.values(regionUtils._regions).map(one => one.regionName) == 'Cancer region 1'")


def test_results_and_regions_lie_on_the_picture(opened, exported, one, shots):
    scored, spots = int(one.scores[screens.RUN].notna().sum()), one.spots.n_obs
    with opened(exported / "tissuumaps") as page:
        wait_for(page, "score_demo", scored)  # the first of the list
        shot = screens.by_corners(screens.taken(page, shots / "tissuumaps_score.png"))
        screens.require_spots(shot, one, screens.score_colours(one))
        screens.require_tissue(shot, one)
        choose(page, "call_demo", spots)
        shot = screens.by_corners(screens.taken(page, shots / "tissuumaps_call.png"))
        screens.require_spots(shot, one, screens.call_colours(one))
        screens.require_tissue(shot, one)
        choose(page, "score_demo", scored)
        show_regions(page)
        shot = screens.by_corners(screens.taken(page, shots / "tissuumaps_regions.png"))
        screens.require_outlines(shot, one, (213, 94, 0))


def test_a_section_without_picture(opened, one, shots, tmp_path):
    """Spots alone, in their own order of rows and columns."""
    export.write(replace(one, picture=(None, 0.0)), {"tissuumaps": tmp_path})
    with opened(tmp_path) as page:
        wait_for(page, "score_demo", int(one.scores[screens.RUN].notna().sum()))
        choose(page, "call_demo", one.spots.n_obs)
        pixels = screens.taken(page, shots / "tissuumaps_no_picture.png")
        shot = screens.by_spots(screens.within(pixels, page.locator("#ISS_viewer")), one)
        screens.require_spots(shot, one, screens.call_colours(one))
        show_regions(page)
