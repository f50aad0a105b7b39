"""The demo cohort: which sections it has and how they differ."""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from ctrflow.logs import logger
from ctrflow.simulate.section import NORMAL, simulate_section
from ctrflow.simulate.tissue import Plan
from ctrflow.simulate.vendors import write_st, write_visium, write_xenium

# section (= patient), platform, the tumour's own programme, spots, what the tissue is made of
SECTIONS = (
    ("A1", "st", "her2", 300, Plan(invasive=0.64, in_situ=0.10, fat=0.07, glands=0.06)),
    ("B1", "st", "er", 290, Plan(invasive=0.18, in_situ=0.10, fat=0.26, glands=0.12)),
    ("C1", "st", "mixed", 260, Plan(invasive=0.34, in_situ=0.05)),
    ("V1", "visium", "er", 400, Plan(invasive=0.36, in_situ=0.08)),
    ("N1", "visium", "er", 350, NORMAL),
    ("X1", "xenium", "her2", 400, Plan(invasive=0.34, in_situ=0.12)),
)


def simulate_cohort(root: Path, seed: int, workers: int = 1) -> None:
    """Write the raw vendor files of the demo cohort under `root`; deterministic for a given `seed`.

    st/ (A1, B1, C1: three patients), visium/V1 (cancer) and visium/N1 (healthy), xenium/X1. About 50 MB.
    `workers` processes share the sections; each section has its own random stream, so files do not depend on `workers`.
    """
    write = partial(_write_section, Path(root), seed)
    # the largest sections first, so that they do not come last in one worker
    if workers == 1 or sys.platform == "darwin":  # a forked process may hang in Apple's libraries
        for summary in map(write, reversed(SECTIONS)):
            logger.info("%s", summary)
        return
    # fork: a spawned worker could not import a step's script
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        for summary in pool.map(write, reversed(SECTIONS)):
            logger.info("%s", summary)


def _write_section(root: Path, seed: int, recipe: tuple) -> str:
    name, platform, subtype, spots, plan = recipe
    start = time.monotonic()
    section = simulate_section(platform, spots, None, seed, name=name, patient=name, subtype=subtype, plan=plan)
    if platform == "st":
        write_st(section, root / "st", name)
    elif platform == "visium":
        write_visium(section, root / "visium" / name)
    else:
        write_xenium(section, root / "xenium" / name)
    height, width = section.image.shape[:2]
    share = 100 * section.spots["label"].mean()
    return (
        f"{name}: {platform}, {len(section.spots)} spots or cells, {share:.0f} % cancer, {width} x {height} px, "
        f"{time.monotonic() - start:.1f} s"
    )
