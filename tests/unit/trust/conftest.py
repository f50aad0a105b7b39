"""Labelled tables with a gene that cancer expresses."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

SIDE = 15  # spots on each side of a section


def table(patients, cancer_share: float = 0.4, seed: int = 0):
    """One section of 225 spots a patient, the left part of it cancer; gene 0 is high in cancer, the rest is noise."""
    rng, parts, places = np.random.default_rng(seed), [], []
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for patient in patients:
        cancer = (across < cancer_share * SIDE).ravel()
        counts = rng.poisson(2.0, (SIDE * SIDE, 12)).astype(np.float32)
        counts[:, 0] += rng.poisson(12.0, SIDE * SIDE) * cancer
        parts.append((patient, counts, cancer))
        places.append(np.column_stack([across.ravel(), down.ravel()]) * 100.0)
    counts = np.vstack([counts for _, counts, _ in parts])
    library = counts.sum(axis=1, keepdims=True)
    names = np.repeat([patient for patient, _, _ in parts], SIDE * SIDE)
    obs = pd.DataFrame(
        {
            "section": [f"{name}1" for name in names],
            "patient": names,
            "spot": [str(i) for i in range(len(names))],
            "label": np.concatenate([cancer for _, _, cancer in parts]).astype(float),
            "total_counts": library.ravel(),
        }
    )
    return anndata.AnnData(
        sparse.csr_matrix(np.log1p(1e4 * counts / library).astype(np.float32)),
        obs=obs.set_index(obs["section"] + "/" + obs["spot"]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(12)]),
        obsm={"spatial": np.vstack(places)},
    )


@pytest.fixture
def train():
    """Three patients."""
    return table("ABC")


@pytest.fixture
def made():
    """The maker of tables."""
    return table
