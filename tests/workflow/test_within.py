"""A drawing teaches the map of a section, end to end, and is counted in none of its metrics."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from runs import copy, good

STROKES = (("tumor", 1), ("stroma", 0))


@pytest.fixture(scope="module")
def mapped(fresh, tmp_path_factory):
    """A simulated section, mapped by a drawing of QuPath's form in it: three squares of each class."""
    folder = copy(fresh, tmp_path_factory.mktemp("within") / "repo")
    given = ("--config", "path=data/mini/ST-cnts/P1.tsv.gz", "image=data/mini/ST-imgs/P1.jpg", "section=P7")
    labels = "labels=data/mini/ST-pat/lbl/P1_labeled_coordinates.tsv"
    of_sheet = ("results/sections/P1/labels.tsv", "results/sections/P1/spots.h5ad")
    good(folder, *of_sheet, "--cores", "1", "--config", "study=mini")
    spots = anndata.read_h5ad(folder / of_sheet[1])
    truth = pd.read_csv(folder / of_sheet[0], sep="\t").set_index("spot")["label"]
    truth = truth.loc[spots.obs_names].to_numpy()
    features, drawn = [], np.full(len(truth), np.nan)
    for word, value in STROKES:
        for spot in np.flatnonzero(truth == value)[[1, 9, 16]]:
            x, y = spots.obsm["spatial"][spot]
            half = 0.3 * spots.uns["section"]["spot_um"] / spots.uns["section"]["um_per_px"]
            ring = [[x - half, y - half], [x + half, y - half], [x + half, y + half], [x - half, y + half]]
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                    "properties": {"objectType": "annotation", "classification": {"name": word}},
                }
            )
            drawn[spot] = value
    (folder / "drawn.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    good(folder, "map", "--cores", "1", *given, labels, "drawn=drawn.geojson")
    return folder, spots, truth, drawn


def test_what_was_drawn_is_what_teaches(mapped):
    folder, spots, _, drawn = mapped
    table = pd.read_csv(folder / "results/sections/P7/drawn.tsv", sep="\t").set_index("spot").loc[spots.obs_names]
    assert np.array_equal(table["label"].to_numpy(), drawn, equal_nan=True)


def test_no_drawn_spot_nor_its_neighbours_are_counted(mapped):
    """The eight spots around a drawn one, by their places alone."""
    folder, spots, truth, drawn = mapped
    place = spots.obsm["spatial"]
    between = cdist(place, place)
    pitch = np.sort(between, axis=1)[:, 1].mean()
    close = (between[:, ~np.isnan(drawn)] < 1.6 * pitch).any(axis=1)
    calls = pd.read_csv(folder / "results/P7/drawn/P7/hed_texture/strokes/seed42/calls.tsv", sep="\t")
    calls = calls.set_index("spot").loc[spots.obs_names]
    near = calls["near"].to_numpy() == 1
    assert near[close].all()
    assert np.array_equal(calls["call"][~np.isnan(drawn)], drawn[~np.isnan(drawn)])
    metrics = pd.read_csv(folder / "results/P7/metrics.tsv", sep="\t")
    assert set(metrics["reference"]) == {"drawn"}
    found = metrics.set_index("metric")["value"]
    judged = ~near & ~np.isnan(truth)
    assert found["n_spots"] == judged.sum() <= (~close & ~np.isnan(truth)).sum()
    assert found["auc"] == pytest.approx(roc_auc_score(truth[judged], calls["score"][judged]))


def test_the_drawing_says_how_good_its_map_is_and_where_to_draw_next(mapped):
    folder, _spots, _, _drawn = mapped
    (row,) = pd.read_csv(folder / "results/P7/tables/within.tsv", sep="\t").to_dict("records")
    assert (row["section"], row["cancer_spots"], row["other_spots"]) == ("P7", 3, 3)
    assert "Maps taught by drawings" in (folder / "results/P7/report.html").read_text()
    path = folder / "results/P7/export/P7/qupath/strokes.draw_here.geojson"
    assert json.loads(path.read_text())["type"] == "FeatureCollection"
