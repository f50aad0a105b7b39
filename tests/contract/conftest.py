"""One small fold for every method: three simulated patients, expression and weight-free image features."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from ctrflow import folds, simulate
from ctrflow.encoders import embed_section
from ctrflow.logs import limit_threads


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    limit_threads(1)


def as_spots(section, tmp_path):
    """A simulated section as the section contract has it."""
    from PIL import Image

    path = tmp_path / f"{section.name}.png"
    Image.fromarray(section.image).save(path)
    spots = ad.AnnData(
        section.counts,
        obs=pd.DataFrame(index=section.spots["spot"].to_numpy()),
        var=pd.DataFrame(index=section.genes),
        obsm={"spatial": section.spots[["x_px", "y_px"]].to_numpy(dtype=float)},
    )
    spots.uns["section"] = {
        "section": section.name, "um_per_px": section.um_per_px, "spot_um": section.spot_um,
        "image": str(path), "image_scale": 1.0,
    }  # fmt: skip
    labels = pd.DataFrame({"spot": spots.obs_names, "label": section.spots["label"].to_numpy(), "region": ""})
    return spots, labels


@pytest.fixture(scope="session")
def fold(tmp_path_factory):
    """(train view, target view, the target's truth) with label and target spots of both kinds."""
    folder = tmp_path_factory.mktemp("images")
    parts = {
        name: as_spots(
            simulate.simulate_section("st", 60, 300, seed=5, name=name, patient=name, subtype=subtype), folder
        )
        for name, subtype in (("P1", "her2"), ("P2", "er"), ("P3", "her2"))
    }
    images = {name: embed_section(spots, "hed", {"model": "hed_texture"}) for name, (spots, _) in parts.items()}
    train = folds.train_view(
        {name: parts[name][0] for name in ("P1", "P2")},
        {name: images[name] for name in ("P1", "P2")},
        {name: parts[name][1] for name in ("P1", "P2")},
    )
    target = folds.target_view({"P3": parts["P3"][0]}, {"P3": images["P3"]})
    train, target = folds.build_views(train, target, n_genes=200)
    return train, target, parts["P3"][1]["label"].to_numpy(dtype=float)


@pytest.fixture(scope="session")
def unmistakable(fold):
    """A fold in which the target's cancer spots are copies of training cancer, its others of training non-cancer."""
    train = fold[0]
    rng = np.random.default_rng(0)
    labels = train.obs["label"].to_numpy()
    truth = np.repeat([1.0, 0.0], 21)
    rows = [rng.choice(np.flatnonzero(labels == label)) for label in truth]
    copy = train[rows]
    copy.obs_names_make_unique()
    copy = copy.copy()
    copy.obs = copy.obs.drop(columns="label").assign(section="T", spot=[f"t{i}" for i in range(len(truth))])
    copy.obs_names = "T/" + copy.obs["spot"]
    # the classes lie apart, so that neighbourhoods are of one kind
    copy.obsm["spatial"] = np.array([(i % 7 + 20 * (label == 0), i // 7) for i, label in enumerate(truth)], dtype=float)
    return train, copy, truth
