"""Sections for the tests of exports: spots on square and hexagonal arrays."""

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix


def square(columns: int, rows: int, pitch_px: float = 100.0) -> np.ndarray:
    return np.array([(x, y) for y in range(rows) for x in range(columns)], dtype=float) * pitch_px + 1000


def hexagonal(columns: int, rows: int, pitch_px: float = 100.0) -> np.ndarray:
    return np.array([(x + 0.5 * (y % 2), y * np.sqrt(3) / 2) for y in range(rows) for x in range(columns)]) * pitch_px


def section(spatial_px, name="S1", um_per_px=2.0, image_scale=1.0) -> anndata.AnnData:
    n = len(spatial_px)
    counts = csr_matrix(np.arange(n * 3, dtype=np.float32).reshape(n, 3))
    spots = anndata.AnnData(
        counts,
        obs=pd.DataFrame(index=[f"s{i}" for i in range(n)]),
        var=pd.DataFrame(index=["EPCAM", "KRT8", "VIM"]),
        obsm={"spatial": np.asarray(spatial_px, dtype=np.float64)},
    )
    spots.uns["section"] = {
        "section": name, "platform": "st", "patient": "P", "cohort": "C", "tissue": "breast", "um_per_px": um_per_px,
        "spot_um": 100.0, "image": "", "image_scale": image_scale,
    }  # fmt: skip
    return spots


def series(spots, values) -> pd.Series:
    return pd.Series(np.asarray(values, dtype=float), index=spots.obs_names)
