"""The demo, from nothing to the report."""

import json
import re

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

from ctrflow.simulate import simulate_section
from ctrflow.simulate.cohort import SECTIONS
from runs import ROOT, good

DEMO_SEED = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["demo_seed"]


@pytest.fixture(scope="module")
def auc(demo):
    """AUC by task, section and method, mean over seeds."""
    metrics = pd.read_csv(demo[0] / "results/demo/metrics.tsv", sep="\t")
    return metrics[metrics.metric == "auc"].groupby(["task", "section", "method"])["value"].mean().unstack()


def test_it_says_where_the_report_is_and_does_nothing_twice(demo):
    folder, output = demo
    assert "results/demo/report.html" in output
    assert len(output.splitlines()) <= 60
    assert max(map(len, output.splitlines())) < 300
    assert "Nothing to be done" in good(folder, "--cores", "2")


def test_the_oracle_is_perfect(auc):
    labelled = auc.dropna(subset=["oracle"])
    assert len(labelled) == 5
    assert (labelled["oracle"] == 1.0).all()


@pytest.mark.parametrize("method", ["linear", "spacrd"])
def test_methods_beat_random_clearly(auc, method):
    labelled = auc.dropna(subset=["oracle"])
    assert (labelled[method] > labelled["random"] + 0.1).all()
    assert labelled[method].mean() > 0.8
    assert abs(labelled["random"].mean() - 0.5) < 0.1


def test_methods_without_labels_learn_from_the_healthy_section_or_from_markers(demo, auc):
    without = auc.loc["without_labels"].dropna(axis=1)
    assert set(without) == {"meatrd", "patchcore", "marker_score"}
    assert (without["patchcore"] > 0.55).all()
    metrics = pd.read_csv(demo[0] / "results/demo/metrics.tsv", sep="\t")
    reference = metrics[metrics.task == "without_labels"].fillna("").groupby("method")["reference"].unique()
    healthy, nothing = ["normal_sections"], [""]
    assert reference.map(list).to_dict() == {
        "meatrd": healthy, "patchcore": healthy, "marker_score": nothing
    }  # fmt: skip
    # what is learned from pictures of the healthy section alone, for whatever target comes
    assert len(list((demo[0] / "results/demo/pretrained").glob("*/seed42.safetensors"))) == 1


def test_the_report_stands_alone_and_shows_every_target(demo, auc):
    page = (demo[0] / "results/demo/report.html").read_text()
    for section in auc.index.get_level_values("section"):
        assert section in page
    assert "imulated" in page
    assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=[\"']https?:", page)


def test_all_platforms_went_the_whole_way(demo):
    folder = demo[0]
    summary = pd.read_csv(folder / "results/demo/export/summary.tsv", sep="\t")
    assert {"demo_A1", "demo_B1", "demo_C1", "demo_visium", "demo_xenium"} <= set(summary.section)
    assert (summary.spots >= 250).all()
    for name in set(summary.section):
        assert (folder / f"results/demo/figures/{name}.png").is_file()
        assert (folder / f"results/demo/export/{name}/{name}.spatialdata.zarr/zarr.json").is_file()
    cells = pd.read_csv(folder / "results/demo/export/demo_xenium/demo_xenium.xenium_groups/linear.csv")
    assert set(cells["group"]) == {"cancer", "other", "not scored"}


def test_a_section_is_scored_again_without_its_tumour(demo, auc):
    folder, results = demo[0], demo[0] / "results/demo"
    for name in ("demo_visium", "demo_xenium"):
        crop = folder / f"results/sections/{name}.tumour_free"
        labels = pd.read_csv(folder / f"results/sections/{name}/labels.tsv", sep="\t")
        spots = anndata.read_h5ad(crop / "spots.h5ad")
        assert list(spots.obs_names) == list(labels.spot[labels.label == 0])
        facts = json.loads((crop / "crop.json").read_text())
        assert (facts["crop_of"], facts["spots"], facts["judged"]) == (name, spots.n_obs, True)
        assert (results / f"figures/{name}.tumour_free.png").is_file()
        assert not (results / f"export/{name}.tumour_free").exists()
        # the model of the section, and its genes, over the same library
        table, whole = (
            anndata.read_h5ad(results / f"platforms/{fold}/hed_texture/labelled/target.h5ad")
            for fold in (f"{name}.tumour_free", name)
        )
        assert list(table.var_names) == list(whole.var_names)
        assert (table.X != whole[[f"{name}/{spot}" for spot in spots.obs_names]].X).nnz == 0
        assert not (results / f"platforms/{name}.tumour_free/hed_texture/linear/seed42/model.safetensors").exists()
        # colours are scaled anew
        assert not np.allclose(table.obsm["image"], whole[whole.obs.spot.isin(spots.obs_names)].obsm["image"])
    metrics = pd.read_csv(results / "metrics.tsv", sep="\t")
    cropped = metrics[metrics.section.str.endswith(".tumour_free")]
    assert set(cropped.method) == {"spacrd", "linear"}
    assert (cropped[cropped.metric == "prevalence"].value == 0).all()
    # the means of the task are those of its sections
    methods = pd.read_csv(results / "tables/methods.tsv", sep="\t")
    mean = methods[(methods.task == "platforms") & (methods.metric == "auc")].set_index("variant")["mean"]
    assert mean["linear"] == pytest.approx(auc.loc["platforms", "linear"].mean(), abs=1e-9)


def test_tables_and_figures_are_of_this_study(demo, auc):
    results = demo[0] / "results/demo"
    methods = pd.read_csv(results / "tables/methods.tsv", sep="\t")
    of = methods[(methods.task == "patients") & (methods.metric == "auc")].set_index("variant")
    # three patients with a section each: the mean over patients is that over sections
    assert of.loc["linear", "mean"] == pytest.approx(auc.loc["patients", "linear"].mean(), abs=1e-9)
    assert of.loc["linear", "low"] <= of.loc["linear", "mean"] <= of.loc["linear", "high"]
    costs = pd.read_csv(results / "tables/efficiency.tsv", sep="\t")
    assert (costs[costs.variant == "spacrd"].train_s > 0).all()
    assert (costs.infer_s > 0).all()
    # none of the papers' sections is simulated
    assert pd.read_csv(results / "tables/published.tsv", sep="\t").empty
    listed = json.loads((results / "figures/study/figures.json").read_text())
    drawn = {line["kind"] for line in listed if line["file"] and (results / "figures/study" / line["file"]).is_file()}
    assert {"maps", "ks", "severity", "edge", "discordant", "calls"} <= drawn


def simulated(name):
    """A section of the demo cohort as the simulator draws it, before any file is written."""
    recipe = {line[0]: line[1:] for line in SECTIONS}
    platform, subtype, spots, plan = recipe[name]
    return simulate_section(platform, spots, None, DEMO_SEED, name=name, patient=name, subtype=subtype, plan=plan)


def test_the_visium_section_is_that_of_the_simulator(demo):
    spots = anndata.read_h5ad(demo[0] / "results/sections/demo_visium/spots.h5ad")
    truth = simulated("V1")
    row = {name: i for i, name in enumerate(truth.spots["spot"])}
    order = [row[name] for name in spots.obs_names]
    assert sorted(order) == list(range(len(truth.spots)))
    assert list(spots.var_names) == truth.genes
    assert (truth.counts.tocsr()[order] != spots.X).nnz == 0
    away = spots.obsm["spatial"] - truth.spots[["x_px", "y_px"]].to_numpy()[order]
    assert np.abs(away).max() <= 0.5  # Space Ranger writes whole pixels
    assert spots.uns["section"]["um_per_px"] == pytest.approx(truth.um_per_px, rel=1e-3)


def test_the_xenium_section_is_that_of_the_simulator(demo):
    spots = anndata.read_h5ad(demo[0] / "results/sections/demo_xenium/spots.h5ad")
    truth = simulated("X1")
    # through the alignment and back: in pixels of the H&E each spot holds the cells that were drawn there
    cells_px = truth.spots[["x_px", "y_px"]].to_numpy()
    radius_px = 55 / 2 / truth.um_per_px
    counts = truth.counts.tocsr()
    distances = np.hypot(*(spots.obsm["spatial"][:, None] - cells_px[None]).transpose(2, 0, 1))
    inside = distances <= radius_px
    assert (np.abs(distances - radius_px) > 1e-6).all()  # no cell on a rim, where rounding would decide
    assert list(spots.var_names) == truth.genes
    assert (inside.sum(axis=1) == spots.obs["n_cells"]).all()
    assert (inside.astype(np.float32) @ counts == spots.X.toarray()).all()
    covered = inside.any(axis=0).mean()
    assert 0.2 < covered < 0.35  # discs of 55 µm, 100 µm apart, cover 27 % of the plane


def test_every_section_fits_its_image(demo):
    for path in sorted((demo[0] / "results/sections").glob("*/check.json")):
        found = json.loads(path.read_text())["findings"]
        assert {one["what"] for one in found} >= {"inside", "placement", "counts"}
        assert [one["message"] for one in found if one["level"] != "ok"] == []
        assert path.with_name("overlay.png").stat().st_size > 100_000
