"""Exports of one section, the viewers' programs, and a browser. `make test-viewers` installs the programs.

What a person would see is kept in the folder of the variable SHOTS, which the Makefile sets.
"""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Error, sync_playwright

import screens
from ctrflow import export

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# pictures are drawn by WebGL, here without a GPU
WEBGL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where screenshots go."""
    given = os.environ.get("SHOTS")
    folder = Path(given).resolve() if given else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def one() -> export.Section:
    return screens.made()


@pytest.fixture(scope="session")
def exported(one, tmp_path_factory) -> Path:
    """The folder of the section's exports, named as in a study."""
    folder = tmp_path_factory.mktemp("export") / "S1"
    paths = {name: folder / export.load(name).EXPORT.path.format(section="S1") for name in screens.NAMES}
    export.write(one, paths)
    return folder


@pytest.fixture(scope="session")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=program, args=WEBGL)
        except Error as error:
            pytest.skip(f"{program} does not start: {error}")
        yield found
        found.close()


@pytest.fixture
def page(browser):
    """A page that reaches this machine alone."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    context.route("**/*", lambda route: route.continue_() if "//127.0.0.1:" in route.request.url else route.abort())
    yield context.new_page()
    context.close()
