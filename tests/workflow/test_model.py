"""`model` trains on all sources of a study, and its files score sections that nobody had seen."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import logs, methods, storage
from ctrflow.folds import tables
from runs import MINI, add_rows, add_section, copy, copy_workflow, good, run, st_row, write_study

SOURCES = ("P1", "P2")
NEW = ("whole", "panel")
LEARN = {
    "study": "learn",
    "seeds": [3],
    "encoders": ["hed_texture"],
    "methods": [*MINI["methods"][:2], "random"],
    "tasks": [
        {"name": "pairs", "split": "transfer", "source": 'cohort == "learn"', "target": 'section == "P2"'},
    ],
}
MODEL = "results/learn/model/pairs/hed_texture/{method}.seed3.safetensors"
METHODS = ("spacrd", "linear")
RUN = ("--cores", "2", "--config")


def given(method: str, **task) -> dict:
    """A task: the model scores the cohort `new`."""
    model = MODEL.format(method=method)
    return {"name": method, "split": "pretrained", "target": 'cohort == "new"', "model": model} | task


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A copy in which `model` has run, and two new sections: `whole`, and `panel` of 300 of the model's genes.

    Both are scored by the study `apply`.
    """
    folder = copy_workflow(tmp_path_factory.mktemp("learnt") / "repo")
    for seed, name in enumerate((*SOURCES, *NEW)):
        add_section(folder, name, genes=500, seed=seed)
    add_rows(folder, [st_row(name, cohort="learn") for name in SOURCES])
    add_rows(folder, [st_row(name, cohort="new", labelled=False) for name in NEW])
    write_study(folder, LEARN)
    output = good(folder, "model", *RUN, "study=learn")
    assert "models for new sections in results/learn/model" in output
    genes = storage.read_safetensors_metadata(folder / MODEL.format(method="linear"))["genes"]
    counts = folder / "data/mini/ST-cnts/panel.tsv.gz"
    table = pd.read_csv(counts, sep="\t", index_col=0)
    table[sorted(np.random.default_rng(0).choice(genes, 300, replace=False))].to_csv(counts, sep="\t")
    write_study(folder, {"study": "apply", "tasks": [given(method) for method in METHODS]})
    good(folder, "results/apply/report.html", *RUN, "study=apply")
    return folder


def test_one_file_holds_all_that_a_new_section_needs(learnt):
    assert sorted(path.name for path in (learnt / "results/learn/model/pairs/hed_texture").iterdir()) == [
        "labelled", "linear.seed3.cost.json", "linear.seed3.losses.tsv", "linear.seed3.safetensors",
        "spacrd.seed3.cost.json", "spacrd.seed3.losses.tsv", "spacrd.seed3.safetensors",
    ]  # fmt: skip
    metadata = storage.read_safetensors_metadata(learnt / MODEL.format(method="spacrd"))
    # the task itself trains on P1 alone when it scores P2
    assert (metadata["sections"], metadata["patients"]) == (list(SOURCES), list(SOURCES))
    assert (metadata["method"], metadata["variant"], metadata["seed"]) == ("spacrd", "spacrd", 3)
    assert metadata["options"]["epochs_align"] == 2
    embedding = storage.read_h5ad(learnt / "results/embeddings/hed_texture/P1.h5ad").uns["encoder"]
    assert metadata["encoder"] == "hed_texture"
    assert metadata["encoder_settings"]["model"] == "hed_texture"
    assert (metadata["encoder_digest"], metadata["patch_px"]) == (embedding["digest"], embedding["patch_px"])
    assert metadata["patch_um"] == [list(embedding["patch_um"])]
    assert len(metadata["library_genes"]) == 500
    assert set(metadata["genes"]) < set(metadata["library_genes"])
    assert metadata["versions"]["ctrflow"]
    assert len(metadata["code"]) == 16
    assert not (learnt / "results/learn/pairs").exists()  # no fold was trained for it


def test_it_is_made_and_used_once(learnt):
    assert "Nothing to be done" in good(learnt, "-n", "model", *RUN, "study=learn")
    assert "Nothing to be done" in good(learnt, "-n", "results/apply/report.html", *RUN, "study=apply")


def test_it_scores_as_fit_and_score_do(learnt):
    """The sections of the run, from raw files, against the same in Python from the section contract."""
    sections = learnt / "results/sections"
    names = (*SOURCES, *NEW)
    spots = {name: storage.read_h5ad(sections / name / "spots.h5ad") for name in names}
    images = {name: storage.read_h5ad(learnt / f"results/embeddings/hed_texture/{name}.h5ad") for name in names}
    labels = {name: storage.read_tsv(sections / name / "labels.tsv") for name in SOURCES}
    logs.limit_threads(1)
    sources = tables.train_view({n: spots[n] for n in SOURCES}, {n: images[n] for n in SOURCES}, labels)
    train = tables.together(tables.build_train(sources, 3000))
    for method, entry in zip(METHODS, LEARN["methods"], strict=False):
        module = methods.load(method)
        options = methods.resolve_options(module.SPEC, {} if entry == method else entry["options"])
        fitted = module.Model.fit(train, options, 3)
        for name in NEW:
            path = learnt / f"results/apply/{method}/{name}/hed_texture/{method}/seed3/scores.tsv"
            by_hand = fitted.score(seen(spots[name], images[name], name, train))
            assert storage.read_tsv(path).score.to_numpy() == pytest.approx(by_hand, abs=1e-6)
            assert np.ptp(by_hand) > 1e-4  # or anything would equal anything


def test_the_report_says_how_much_of_a_model_a_section_measures(learnt):
    total = len(storage.read_safetensors_metadata(learnt / MODEL.format(method="linear"))["genes"])
    assert 300 < total < 500
    report = (learnt / "results/apply/report.html").read_text()
    assert f"Of its {total} genes panel measures 300 ({100 * 300 / total:.3g} %), the others all." in report
    log = (learnt / "logs/apply/build_target/linear/panel/hed_texture/pretrained.log").read_text()
    assert f"section panel measures 300 of the model's {total} genes, and 300 of the 500 of its library size" in log


def seen(spots, images, name: str, train):
    """A section as the model sees it, worked out anew: counts over their sum in the section, what is missing zero."""
    counts = spots.to_df().reindex(columns=train.uns["library_genes"], fill_value=0)
    scaled = np.log1p(counts.div(counts.sum(axis=1), axis=0) * 1e4)[list(train.var_names)]
    obs = pd.DataFrame({"section": name}, index=[f"{name}/{spot}" for spot in spots.obs_names])
    view = anndata.AnnData(sparse.csr_matrix(scaled.to_numpy(np.float32)), obs=obs)
    view.obsm["spatial"], view.obsm["image"] = spots.obsm["spatial"], np.asarray(images.X, np.float32)
    return view


def test_a_section_with_too_few_of_its_genes_is_refused(learnt, tmp_path):
    folder = copy(learnt, tmp_path / "repo")
    write_study(folder, {"study": "apply", "tasks": [given("linear", min_gene_share=0.9)]})
    done = run(folder, "maps", *RUN, "study=apply")
    assert done.returncode != 0
    assert "section panel measures 300 of the model's" in done.stdout
    assert "min_gene_share is 90 %; missing: " in done.stdout
    log = (folder / "logs/apply/build_target/linear/panel/hed_texture/pretrained.log").read_text()
    assert "Traceback" not in log


def test_a_study_that_trains_nothing_has_no_model_to_export(learnt, tmp_path):
    folder = copy(learnt, tmp_path / "repo")
    write_study(folder, LEARN | {"methods": ["random"]})
    done = run(folder, "-n", "model", *RUN, "study=learn")
    assert done.returncode != 0
    assert "study learn: none of its methods trains a model, so there is nothing to export" in done.stdout
