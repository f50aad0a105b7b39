"""The shipped models on real sections that they have not seen. Skipped where these are not."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from ctrflow import methods, storage
from ctrflow.features import gene_names
from ctrflow.folds import tables
from ctrflow.plan.load import GENES
from ctrflow.results import calls, verdict
from ctrflow.sections import aggregate, crop
from ctrflow.training import model_file
from ctrflow.trust import evidence
from runs import ROOT, SHARED, copy_beside_shared, good

HER2ST = "../shared/data/her2st"

pytestmark = pytest.mark.skipif(
    not (SHARED / "data" / "her2st").is_dir(), reason="the real sections are not here (../shared/data)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the repository with the shared data beside it, as beside a checkout."""
    return copy_beside_shared(tmp_path_factory.mktemp("shipped_models"))


def auc_of(folder: Path, study: str, section: str) -> float:
    """The AUC of the section's exported scores against the labels beside its counts."""
    spots = anndata.read_h5ad(folder / f"results/{study}/export/{section}/{section}.h5ad")
    labels = pd.read_csv(SHARED / f"data/her2st/labels/{section}.tsv", sep="\t", index_col="spot")["is_cancer"]
    truth = labels.reindex(spots.obs_names)
    known = truth.notna().to_numpy()
    return roc_auc_score(truth[known], spots.obs["score_breast_image"][known])


@pytest.mark.slow  # the same computation as the study `example`, which CI runs
def test_a_section_is_mapped_by_one_line(folder):
    given = (f"path={HER2ST}/ST-cnts/B4.tsv.gz", f"image={HER2ST}/ST-imgs/B4.jpg", "tissue=breast")
    output = good(folder, "--cores", "2", "map", "--config", *given, "models=models/without_B")
    assert "map in results/B4/figures/B4.png" in output
    assert auc_of(folder, "B4", "B4") >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("section", "image", "scale"), [("A2", "A2.png", f"{2000 / 6966:.6f}"), ("C5", "C5.jpg", "")])
def test_sections_of_the_sheet_are_mapped(folder, section, image, scale):
    files = {"path": f"{HER2ST}/ST-cnts/{section}.tsv.gz", "image": f"{HER2ST}/ST-imgs/{image}", "image_scale": scale}
    row = {"section": section, "cohort": "mine", "tissue": "breast", "platform": "st"} | files
    sheet = folder / "mine.tsv"
    sheet.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    given = ("study=my_section", "sections=[mine.tsv]", f"models=models/without_{section[0]}")
    good(folder, "maps", "--cores", "2", "--config", *given)
    assert auc_of(folder, "my_section", section) > 0.9


# --- another platform, and another tissue -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expression():
    """The shipped model of expression alone: tensors and metadata."""
    return storage.read_safetensors(ROOT / "models/breast/expression.safetensors")


def scored(spots, expression) -> tuple:
    """The scores that the model gives a section, the concerns about it, and its probability, calls and verdict."""
    tensors, metadata = expression
    view = tables.target_view({"T": spots}, {})
    human = gene_names.read(ROOT / GENES)
    table = model_file.target_table(view, metadata, "m", human=human, expression=tensors[model_file.PROFILE])
    model = methods.load("linear").Model.from_tensors(model_file.own_tensors(tensors), metadata["options"], 42)
    score = model.score(table)
    likely, facts = evidence.gather(table, score, tensors, metadata, "mixture", {"T": "st"}, {"T": spots}, human)
    frame = pd.DataFrame({"section": "T", "spot": table.obs["spot"].to_numpy(), "score": score, "probability": likely})
    called, _, said = calls.call_sections(frame, facts, {"T": spots})
    return score, table.uns["model"], called, said["T"]


@pytest.mark.parametrize("pool", ["discs", "hexagons"])
def test_a_panel_of_another_platform(expression, pool):
    """Xenium, 380 genes, a pathologist's regions; the model saw sections of the ST platform alone."""
    path = SHARED / "data/xenium_idc/idc_window.h5ad"
    cells = anndata.read_h5ad(path)
    cells.X = sparse.csr_matrix(cells.X)
    cells.obsm["spatial_um"] = np.asarray(cells.obsm["spatial"], dtype=float)
    cells.uns["section"] = {"section": "idc", "pixel_size": 0.2125, "um_per_px": 0.2125, "spot_um": 55.0, "pool": pool}
    spots = aggregate.aggregate_cells(cells, pool)
    truth = cells.obs["is_cancer"].groupby(cells.obs["spot"], observed=True).mean().reindex(spots.obs_names) > 0.5
    score, about, called, said = scored(spots, expression)
    assert 100 < about["measured"] < 380
    assert roc_auc_score(truth, score) >= 0.92
    assert said.verdict == verdict.OPEN
    right = [(called["call"].to_numpy()[truth == one] == one).mean() for one in (0, 1)]
    assert np.mean(right) > 0.8  # the map still shows where


def test_another_tissue_is_flagged(expression):
    spots = anndata.read_h5ad(SHARED / "data/other_tissue/melanoma_thrane.h5ad")
    _, about, _, said = scored(spots, expression)
    assert about["measured"] > 2500
    assert "another tissue or platform" in about["concerns"][0]
    assert said.verdict == verdict.OPEN
    assert "another tissue or platform" in said.outside[0]


def labelled_section(name: str):
    """A section and its labels, as the workflow reads them."""
    from ctrflow import readers

    row = {"section": name, "platform": "st", "path": str(SHARED / f"data/her2st/ST-cnts/{name}.tsv.gz")}
    spots = readers.read_section(row)
    table = pd.read_csv(SHARED / f"data/her2st/labels/{name}.tsv", sep="\t", index_col="spot").reindex(spots.obs_names)
    labels = pd.DataFrame({"spot": spots.obs_names, "label": table["is_cancer"].to_numpy(), "region": table["label"]})
    return spots, labels


def test_whether_there_is_a_tumour():
    """Patient B, whom the model has not seen: sections with a tumour of a fifth, and the same without it."""
    model = storage.read_safetensors(ROOT / "models/without_B/breast/expression.safetensors")
    for name in ("B1", "B4", "B6"):
        spots, labels = labelled_section(name)
        _, _, called, said = scored(spots, model)
        assert said.verdict == verdict.FOUND
        truth = labels.set_index("spot")["label"].reindex(called["spot"]).to_numpy()
        assert (called["call"].to_numpy()[truth == 1]).mean() > 0.9
        glands = labels.set_index("spot")["region"].reindex(called["spot"]).str.contains("gland").to_numpy(bool)
        assert called["call"].to_numpy()[glands & (truth == 0)].mean() < 0.15
        free, _, _ = crop.tumour_free(spots, labels, f"{name}.tumour_free")
        _, _, called, said = scored(free, model)
        assert said.verdict == verdict.NONE
        assert called["call"].sum() == 0
        assert called["call_mixture"].mean() > 0.1  # what the threshold alone would call


def test_a_level_of_too_few_genes_says_nothing():
    """Without half of its genes a crop has the level of a tumour: they are scaled over fewer."""
    model = storage.read_safetensors(ROOT / "models/without_B/breast/expression.safetensors")
    spots, labels = labelled_section("B1")
    free, _, _ = crop.tumour_free(spots, labels, "B1.tumour_free")
    kept = np.random.default_rng(0).permutation(free.n_vars)[:8000]
    _, about, _, said = scored(free[:, np.sort(kept)].copy(), model)
    assert about["measured"] < 0.85 * about["genes"]
    assert said.verdict == verdict.OPEN
    assert "too few to say whether there is a tumour" in " ".join(said.outside)


def test_shuffled_genes_are_no_tumour():
    model = storage.read_safetensors(ROOT / "models/without_B/breast/expression.safetensors")
    spots, _ = labelled_section("B1")
    spots.var_names = np.random.default_rng(0).permutation(spots.var_names)
    assert scored(spots, model)[3].verdict == verdict.OPEN


def test_the_sections_it_learned_from_are_not_flagged(expression, folder):
    """One of each patient, as `likeness` sees it."""
    from ctrflow import readers

    for name in ("A3", "B4", "C2", "D1", "E1", "F1"):
        row = {"section": name, "platform": "st", "path": str(folder / HER2ST / f"ST-cnts/{name}.tsv.gz")}
        found = model_file.likeness(readers.read_section(row), expression[1], expression[0][model_file.PROFILE])
        assert found.concerns == []
        assert found.measured == found.genes
