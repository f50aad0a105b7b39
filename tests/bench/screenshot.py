"""The pictures of the README, taken of the demo's report in the machine's Chromium.

make demo && .venv/bin/python tests/bench/screenshot.py results/demo/report.html docs/images
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1180, "height": 900}
QUALITY = 72


def main(report: str, folder: str) -> None:
    """Write start.jpg and map.jpg."""
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(Path(report).resolve().as_uri())
        page.wait_for_selector(".map[data-ready]")
        page.screenshot(path=f"{folder}/start.jpg", quality=QUALITY)
        page.add_style_tag(content="nav { display: none }")
        page.locator('[data-input="layer"][value="score"]').first.check()
        page.locator(".map").first.screenshot(path=f"{folder}/map.jpg", quality=QUALITY)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
