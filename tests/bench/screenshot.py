"""The pictures of the README, taken of the demo's report in the machine's Chromium.

make demo && .venv/bin/python tests/bench/screenshot.py results/demo/report.html docs/images
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1180, "height": 900}
QUALITY = 72
# lassos in the demo's first section, shares of the map's width and height; the last one is still being drawn
STROKES = [
    ("cancer", [(0.62, 0.2), (0.83, 0.2), (0.85, 0.4), (0.72, 0.48), (0.6, 0.38)]),
    ("other", [(0.15, 0.22), (0.34, 0.2), (0.34, 0.42), (0.17, 0.45)]),
    ("cancer", [(0.62, 0.72), (0.76, 0.68), (0.82, 0.78), (0.7, 0.88), (0.62, 0.84)]),
]


def main(report: str, folder: str) -> None:
    """Write start.jpg, map.jpg and marks.jpg."""
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
        mark(page)
        box, buttons = (page.locator(what).first.bounding_box() for what in (".canvas", ".marks"))
        clip = box | {"height": buttons["y"] + buttons["height"] - box["y"]}
        page.screenshot(path=f"{folder}/marks.jpg", quality=QUALITY, clip=clip)
        browser.close()


def mark(page) -> None:
    """Mark spots of the first map."""
    page.locator('[data-input="mark"]').first.click()
    plot = page.locator(".plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    for word, corners in STROKES:
        page.mouse.up()
        page.locator('[data-part="pens"]').first.get_by_label(word).check()
        places = [(box["x"] + across * box["width"], box["y"] + down * box["height"]) for across, down in corners]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=4)


if __name__ == "__main__":
    main(*sys.argv[1:])
