"""Exports for other viewers: one module per format.

Every module of this package that defines `EXPORT` (what is written, and for which viewer) is a format; its function
`write(section, path)` takes a `Section`. The other modules are shared by formats. Importing a format imports NumPy
only; everything else is imported inside functions.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Export:
    """A file, or a folder, that a viewer opens.

    path : relative to the folder of the section, with the wildcard `section`
    opens : the viewers that open it
    folder : whether `path` is a folder
    needs : what it needs beyond spots and results: `cells`
    """

    path: str
    opens: str
    folder: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A section and its results by run.

    A *run* is a task, an encoder and a variant of a method ("transfer|uni|spacrd"). The frames have the spot ids as
    index and one column per run.

    spots : AnnData, see the section contract
    scores : frame, the mean score over the seeds; higher = more cancer-like, NaN = not scored
    calls : frame, 1 cancer, 0 other, NaN not scored
    sd : frame, the sd of the score over seeds, for runs with two or more
    probability : frame, the probability of cancer, for runs that have one
    verdicts : run -> `results.verdict.Verdict`
    regions : run -> called spots joined to polygons, see `regions.section_regions`
    picture : the thumbnail of the H&E, (h x w x 3) uint8 or None, and its px per full-resolution px
    provenance : plain dict: study, seeds ...
    draw_here : run -> GeoJSON text of the regions in which to draw next, for runs that learn from a drawing
    cells : AnnData of a bundle's cells, for formats that need them
    rim_um : frame, the distance to the rim of the called tumour, negative inside, see `rim.distance`
    layer : frame of words, NaN = not scored, see `rim.layers`
    """

    spots: object
    scores: object
    calls: object
    sd: object
    probability: object
    verdicts: dict = field(default_factory=dict)
    regions: dict = field(default_factory=dict)
    picture: tuple = (None, 0.0)
    provenance: dict = field(default_factory=dict)
    draw_here: dict = field(default_factory=dict)
    cells: object = None
    rim_um: object = None
    layer: object = None


def names() -> list[str]:
    """The formats, sorted."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in found if hasattr(load(name), "EXPORT")]


def load(name: str):
    """The module of a format."""
    return importlib.import_module(f"{__name__}.{name}")


def formats(*needs: str) -> dict[str, Export]:
    """Name -> `EXPORT` of the formats with exactly these needs."""
    found = {name: load(name).EXPORT for name in names()}
    return {name: spec for name, spec in found.items() if spec.needs == needs}


def write(section: Section, paths: dict[str, str]) -> None:
    """Write a section in several formats: name -> path."""
    for name, path in paths.items():
        load(name).write(section, path)
