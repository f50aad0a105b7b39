"""A simulated section in memory: tissue, image, spots (or cells) with counts and true labels."""

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ctrflow.errors import InputError
from ctrflow.simulate.expression import draw_counts, gene_names, panel
from ctrflow.simulate.histology import draw_histology, draw_stain
from ctrflow.simulate.tissue import CANCER_KINDS, CANCER_WORDS, KINDS, WORDS, Plan, Tissue, draw_tissue, look_up

# pitch and diameter of spots (µm), µm per image pixel
GEOMETRY = {"st": (200.0, 100.0, 1.1), "visium": (100.0, 55.0, 0.7), "xenium": (100.0, 55.0, 0.65)}


@dataclass
class Section:
    """A simulated section.

    Attributes
    ----------
    image : uint8 (height x width x 3), H&E; `um_per_px` is its scale
    spots : spot (id), row, col (array position), x_px, y_px (centre, image pixels), region (word), label (0, 1);
        of an imaging platform the "spots" are the cells
    outside : row, col, x_px, y_px of array positions in the image without tissue
    counts : CSR float32 of integers, spots x genes
    cells : x_um, y_um (image frame), kind (code), type (name), cluster, long_um, short_um (nucleus half axes) and more
    """

    name: str
    platform: str
    patient: str
    image: np.ndarray
    um_per_px: float
    spot_um: float
    pitch_um: float
    spots: pd.DataFrame
    outside: pd.DataFrame
    counts: object
    genes: list[str]
    cells: pd.DataFrame


def simulate_section(
    platform: str,
    spots: int = 60,
    genes: int | None = 200,
    seed: int = 0,
    *,
    name: str = "S1",
    patient: str = "P1",
    subtype: str = "her2",
    plan: Plan | None = None,
    normal: bool = False,
) -> Section:
    """Draw one section.

    Parameters
    ----------
    platform
        st, visium or xenium.
    spots
        exact number of spots in the tissue; for xenium, the number of Visium spots that would fit into the tissue,
        which has about 40 cells for each.
    genes
        how many of the simulated genes (at most 2,000; of xenium's panel of 300), from the first on.
    normal
        healthy tissue: no tumour of any kind.

    Raises
    ------
    InputError
        for an unknown platform or too many genes.
    """
    if platform not in GEOMETRY:
        raise InputError(f"platform {platform!r}: choose one of {', '.join(GEOMETRY)}")
    pitch, spot_um, um_per_px = GEOMETRY[platform]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if plan is None:
        plan = NORMAL if normal else Plan()
    share = pitch**2 * (1.0 if platform == "st" else np.sqrt(3) / 2)
    tissue = draw_tissue(max(spots, 4) * share * 1.07 / 1e6, plan, rng)
    image = draw_histology(tissue, um_per_px, draw_stain(rng), rng)
    cells = tissue.cells.copy()
    cells["type"] = np.array([kind.name for kind in KINDS])[cells["kind"]]
    cells["cluster"] = np.array([kind.cluster for kind in KINDS])[cells["kind"]]
    if platform == "xenium":
        names = panel()[:genes]
        frame, outside, cells_at = _cell_table(tissue, cells, rng)
    else:
        names = gene_names(genes) if genes else gene_names()
        frame, outside = _spot_table(tissue, platform, spots, rng)
        cells_at = _catch(frame, cells, spot_um)
    counts = draw_counts(cells_at, cells["kind"].to_numpy(), platform, patient, subtype, names, rng)
    for table in (frame, outside):
        table["x_px"], table["y_px"] = table["x_um"] / um_per_px - 0.5, table["y_um"] / um_per_px - 0.5
    shown = ["spot", "row", "col", "x_px", "y_px", "region", "label"]
    return Section(
        name, platform, patient, image, um_per_px, spot_um, pitch, frame[shown], outside, counts, names, cells
    )


NORMAL = Plan(
    invasive=0, in_situ=0, bland=0, luminal_like=0, glands=0.22, hyperplasia=0.05, active=0.06, fat=0.32, immune=0.02
)


def _lattice(tissue: Tissue, platform: str, rng) -> pd.DataFrame:
    """All array positions on the image, with row and column as the platform counts them."""
    pitch, _, _ = GEOMETRY[platform]
    margin = 0.35 * pitch
    if platform == "st":
        count = int((tissue.side_um - 2 * margin) / pitch) + 1
        col, row = np.meshgrid(np.arange(count), np.arange(count))
        start = (tissue.side_um - (count - 1) * pitch) / 2
        frame = pd.DataFrame({"row": row.ravel() + 2, "col": col.ravel() + 2})
        frame["x_um"] = start + col.ravel() * pitch + rng.normal(0, 5, col.size)
        frame["y_um"] = start + row.ravel() * pitch + rng.normal(0, 5, row.size)
        return frame
    high = pitch * np.sqrt(3) / 2
    rows = int((tissue.side_um - 2 * margin) / high) + 1
    cols = int((tissue.side_um - 2 * margin) / (pitch / 2)) + 1
    col, row = np.meshgrid(np.arange(cols), np.arange(rows))
    real = (col + row) % 2 == 0  # each row of a Visium slide uses every second column
    frame = pd.DataFrame({"row": row[real], "col": col[real]})
    frame["x_um"] = (tissue.side_um - (cols - 1) * pitch / 2) / 2 + frame["col"] * pitch / 2
    frame["y_um"] = (tissue.side_um - (rows - 1) * high) / 2 + frame["row"] * high
    return frame


def _spot_table(tissue: Tissue, platform: str, spots: int, rng) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The `spots` array positions deepest in the tissue with region and label, and the other positions."""
    frame = _lattice(tissue, platform, rng)
    if len(frame) < spots:
        raise InputError(f"spots={spots}: the simulated array has room for {len(frame)}; ask for fewer or many more")
    depth = look_up(tissue.maps["tissue"], frame[["x_um", "y_um"]].to_numpy())
    inside = np.zeros(len(frame), bool)
    inside[np.argsort(-depth, kind="stable")[:spots]] = True
    outside = frame[~inside].reset_index(drop=True)
    frame = frame[inside].reset_index(drop=True)
    frame["region"] = _read_region(tissue, frame, GEOMETRY[platform][1] / 2)
    frame["label"] = frame["region"].isin(CANCER_WORDS).astype(int)
    if platform == "st":
        frame["spot"] = frame["col"].astype(str) + "x" + frame["row"].astype(str)
    else:
        frame["spot"] = _barcodes(len(frame), rng)
    return frame, outside


def _read_region(tissue: Tissue, frame: pd.DataFrame, radius_um: float) -> list[str]:
    """The word that covers most of each spot; undetermined where none covers 45 % of it."""
    turn = np.arange(60) * np.pi * (3 - np.sqrt(5))
    reach = radius_um * np.sqrt((np.arange(60) + 0.5) / 60)
    dots = np.stack([reach * np.cos(turn), reach * np.sin(turn)], axis=1)
    points = frame[["x_um", "y_um"]].to_numpy()[:, None] + dots
    words = look_up(tissue.maps["word"], points.reshape(-1, 2)).reshape(len(frame), -1)
    share = np.stack([(words == code).mean(axis=1) for code in range(len(WORDS))], axis=1)
    share[:, 0] = np.where(share[:, 1:].max(axis=1) < 0.45, 1, 0)
    return [WORDS[code] for code in share.argmax(axis=1)]


def _catch(frame: pd.DataFrame, cells: pd.DataFrame, spot_um: float):
    """Sparse spots x cells: 1 for a cell in the spot's disc, a little for one just outside (RNA wanders)."""
    from scipy import sparse
    from scipy.spatial import cKDTree

    tree = cKDTree(cells[["x_um", "y_um"]].to_numpy())
    centres = frame[["x_um", "y_um"]].to_numpy()
    distances = cKDTree(centres).sparse_distance_matrix(tree, spot_um / 2 + 25, output_type="coo_matrix")
    share = np.where(distances.data <= spot_um / 2, 1.0, 0.10)
    return sparse.csr_matrix((share, (distances.row, distances.col)), shape=(len(centres), len(cells)))


def _cell_table(tissue: Tissue, cells: pd.DataFrame, rng) -> tuple[pd.DataFrame, pd.DataFrame, object]:
    """Cells as the observed units, each catching its own RNA and a little of its neighbours' (bad outlines)."""
    from scipy import sparse

    points = cells[["x_um", "y_um"]].to_numpy()
    frame = pd.DataFrame(
        {"spot": _cell_ids(len(cells), rng), "row": 0, "col": 0, "x_um": points[:, 0], "y_um": points[:, 1]}
    )
    frame["region"] = [WORDS[code] for code in look_up(tissue.maps["word"], points)]
    frame["label"] = cells["kind"].isin(CANCER_KINDS).astype(int).to_numpy()
    around = _catch(frame, cells, 0.0)
    own = sparse.identity(len(cells), format="csr")
    return frame, frame.iloc[:0][["row", "col", "x_um", "y_um"]].copy(), own + 0.3 * around


def _barcodes(count: int, rng) -> list[str]:
    """Distinct Visium-like barcodes."""
    letters = np.array(list("ACGT"))
    barcodes: dict[str, None] = {}
    while len(barcodes) < count:
        barcodes["".join(letters[rng.integers(0, 4, 16)]) + "-1"] = None
    return list(barcodes)


def _cell_ids(count: int, rng) -> list[str]:
    """Distinct Xenium-like cell names: eight letters a to p and the data set's suffix."""
    letters = np.array(list("abcdefghijklmnop"))
    ids: dict[str, None] = {}
    while len(ids) < count:
        ids.update(dict.fromkeys("".join(row) + "-1" for row in letters[rng.integers(0, 16, (count, 8))]))
    return list(ids)[:count]
