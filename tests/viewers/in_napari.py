"""A store opened in napari-spatialdata by what a person would click; what is seen, as pictures. Needs a display.

in_napari.py STORE RUN FOLDER
"""

import os
import sys
import time
from pathlib import Path

import spatialdata
from napari_spatialdata import Interactive
from napari_spatialdata._view import QtAdataViewWidget
from PIL import Image
from qtpy.QtWidgets import QApplication

SYSTEM = "um"


def settle(done=lambda: True, seconds: float = 60) -> None:
    """Let napari draw until `done`."""
    end = time.monotonic() + seconds
    while True:
        QApplication.processEvents()
        if done():
            break
        if time.monotonic() > end:
            raise TimeoutError("napari did not finish")
        time.sleep(0.02)
    for _ in range(20):
        QApplication.processEvents()
        time.sleep(0.01)


def main(store: str, run: str, folder: str) -> None:
    """Write call.png and score.png (the canvas) and window.png."""
    shown = Interactive(spatialdata.read_zarr(store), headless=True)
    viewer = shown._viewer
    viewer.window.resize(1300, 900)
    shown.switch_coordinate_system(SYSTEM)
    regions = f"regions_{run}"
    for name in ("he", "spots", regions):
        shown.add_element(element=name, element_coordinate_system=SYSTEM)
        settle(lambda name=name: name in viewer.layers and not shown._sdata_widget.worker_thread.isRunning())
    lines = viewer.layers[regions]
    lines.edge_color, lines.edge_width, lines.opacity = "black", 12, 1.0
    viewer.layers.selection.active = viewer.layers["spots"]
    settle()
    (view,) = viewer.window._qt_window.findChildren(QtAdataViewWidget)
    for column in ("call", "score"):
        view.obs_widget._onAction([f"{column}_{run}"])
        viewer.reset_view()
        settle()
        Image.fromarray(viewer.screenshot(canvas_only=True, flash=False)).save(Path(folder) / f"{column}.png")
    Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).save(Path(folder) / "window.png")
    os._exit(0)  # Qt may fail while it is taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
