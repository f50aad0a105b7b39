"""The workflow on three small sections: what it makes, what it repeats, and what it must not see."""

import json
import os
import re
from pathlib import Path

import anndata
import pandas as pd
import pytest
import yaml

from ctrflow import storage
from runs import MINI, ROOT, add_rows, add_section, copy, good, jobs, run, st_row, write_study

RUN = ("--cores", "2", "--config", "study=mini")
SCORES = "results/mini/patients/{fold}/hed_texture/{method}/seed{seed}/scores.tsv"


def scores(folder: Path) -> dict[str, bytes]:
    """Every score table of `mini`, as bytes."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.glob("results/mini/patients/*/*/*/*/scores.tsv")
    }
    assert len(found) == 3 * (2 + 1 + 1 + 2)
    return found


# nine targets, eight healthy sections, the same for every target; twelve methods that train, `scmap` without a seed
SHARED = {
    "meatrd_breast": {
        "embed_section": 17,
        "cut_patches": 3 * 17,  # in three sizes
        "list_patches": 3,
        "build_fold": 9,
        "build_target": 9,
        "pretrain_method": 2 * 2,  # MEATRD and STANDS, each once a seed and not once a target
        "train_method": 9 * (11 * 2 + 1),
    }
}


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_can_be_planned(path, fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    if path.stem == "my_section":
        add_rows(folder, [st_row("P1", cohort="mine") | {"section": "mine1"}])
    if path.stem == "extractors":  # a file that only its authors give away
        weights = folder / "data" / "weights" / "vit256_small_dino.pth"
        weights.parent.mkdir(parents=True)
        weights.touch()
    if path.stem.startswith("meatrd"):  # healthy sections that are downloaded by hand
        by_hand = folder / "data" / "own" / "hhb"
        by_hand.mkdir(parents=True)
        for number in range(3, 11):
            (by_hand / f"HHB_v{number:02d}.h5ad").touch()
    # one seed: five say the same five times, in some minutes; two where the jobs that seeds share are counted
    seeds = [42, 43] if path.stem in SHARED else [42]
    (folder / "seeds.yaml").write_text(yaml.safe_dump({"seeds": seeds}))
    planned = jobs(good(folder, "-n", "--configfile", "seeds.yaml", "--config", f"study={path.stem}"))
    assert planned["report_study"] == 1
    assert planned["infer_scores"] >= planned["train_method"] > 0
    expected = SHARED.get(path.stem, {})
    assert {rule: planned[rule] for rule in expected} == expected


def test_every_rule_has_log_benchmark_resources_and_environment():
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        # a rule in a loop has its name from it, and goes by that of its script here
        for name, body in re.findall(r"^ *rule ?(\w*):\n((?:[ ]+.*\n|\n)+)", path.read_text(), flags=re.MULTILINE):
            name = name or re.search(r"scripts/(\w+)\.py", body)[1]
            for need in ("log:", "benchmark:", "conda:", "threads:", "mem_mb=", "runtime=", "gpu=", "script:"):
                if (name, need) == ("doctor", "benchmark:"):
                    continue  # an output would keep it from looking again
                assert need in body, f"{path.name}: rule {name} has no {need}"
            assert (ROOT / "scripts" / f"{name}.py").is_file()


def test_the_contract_files_are_there(finished):
    results = finished / "results"
    spots = anndata.read_h5ad(results / "sections" / "P1" / "spots.h5ad")
    assert "label" not in spots.obs
    target = anndata.read_h5ad(results / "mini/patients/P1/hed_texture/labelled/target.h5ad")
    train = anndata.read_h5ad(results / "mini/patients/P1/hed_texture/labelled/train.h5ad")
    assert set(train.obs["section"]) == {"P2", "P3"}
    assert set(target.obs["section"]) == {"P1"}
    assert "label" in train.obs
    assert "label" not in target.obs
    assert list(train.var_names) == list(target.var_names)
    trained = {path.parent for path in results.glob("mini/**/model.safetensors")}
    assert trained == {path.parent for path in results.glob("mini/**/losses.tsv")}
    kept = "mini/patients/P1/hed_texture/{}/seed1/losses.tsv"
    assert (results / kept.format("linear")).read_text() == "stage\tepoch\tterm\tvalue\n"
    assert pd.read_csv(results / kept.format("spacrd"), sep="\t").groupby("stage").epoch.max().tolist() == [2, 2, 2]
    assert "Loss curves of spacrd, patients, hed_texture" in (results / "mini/report.html").read_text()
    metrics = pd.read_csv(results / "mini" / "metrics.tsv", sep="\t")
    assert set(metrics[(metrics.method == "oracle") & (metrics.metric == "auc")].value) == {1.0}
    for name in ("report.html", "figures/P1.png", "export/P1/P1.h5ad", "export/P1/P1.loupe.csv", "export/summary.tsv"):
        assert (results / "mini" / name).stat().st_size > 100
    assert not list(finished.rglob("*.pkl")) + list(finished.rglob("*.pickle"))


def test_source_negatives_are_a_reference_without_labels(finished, tmp_path):
    """What a method that knows normal tissue alone is given where no healthy section exists, and that it is said."""
    folder = copy(finished, tmp_path / "repo")
    two, one = 'section in ["P2", "P3"]', 'section == "P1"'
    task = {"name": "patients", "split": "transfer", "source": two, "target": one, "normal": "source_negatives"}
    short = {f"epochs_{stage}": 1 for stage in ("unet", "rebuild", "one_class")} | {"max_reference_spots": 20}
    methods = [
        "patchcore",
        {"method": "meatrd", "options": short},
        {"id": "flat", "method": "meatrd", "options": short | {"mgdat_layers": 1}},
    ]
    study = MINI | {"study": "normals", "seeds": [1], "methods": methods, "tasks": [task]}
    name = write_study(folder, study)
    good(folder, "results/normals/report.html", "--cores", "2", "--config", f"study={name}")
    results = folder / "results"
    train = anndata.read_h5ad(results / "normals/patients/P1/hed_texture/normal/train.h5ad")
    assert "label" not in train.obs
    labels = pd.concat(
        pd.read_csv(results / f"sections/{name}/labels.tsv", sep="\t").assign(section=name) for name in ("P2", "P3")
    )
    normal = labels[labels.label == 0]
    assert list(train.obs_names) == [f"{row.section}/{row.spot}" for row in normal.itertuples()]
    assert 0 < len(normal) < len(labels)
    metrics = pd.read_csv(results / "normals/metrics.tsv", sep="\t")
    assert set(metrics.reference) == {"source_negatives"}
    assert "normal reference: source spots" in (results / "normals/report.html").read_text()
    # the first stage of both variants is learned once
    assert len(list(results.glob("normals/pretrained/meatrd-*/seed1.safetensors"))) == 1
    thresholds = json.loads((results / "normals/patients/P1/hed_texture/flat/seed1/threshold.json").read_text())
    assert thresholds["P1"]["branch"] == "map_em"
    # pictures cut again but the same teach nothing new; others do, also where a run ended right after their list
    (listed,) = (path.relative_to(folder) for path in results.glob("patches/*/*.tsv"))
    cut = folder / listed.parent / "P2.zarr"
    spots, pictures = storage.read_patches(cut)
    asked = ("results/normals/metrics.tsv", "-n", "--config", f"study={name}")
    for content, again in ((pictures, {}), (255 - pictures, {"pretrain_method": 1, "train_method": 2})):
        storage.write_patches(content, spots, 55.0, cut)
        good(folder, str(listed), "--cores", "1", "--config", f"study={name}")
        planned = jobs(good(folder, *asked))
        assert {rule: count for rule, count in planned.items() if rule in ("pretrain_method", "train_method")} == again


def test_many_runs_are_called_in_several_jobs(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    before = (folder / "results/mini/metrics.tsv").read_bytes()
    tables = folder / "scripts/ctrflow/plan/tables.py"
    tables.write_text(re.sub("CALLED_AT_ONCE = .*", "CALLED_AT_ONCE = 4", tables.read_text()))
    done = jobs(good(folder, "metrics", *RUN))
    # 6 runs of spacrd, 3 of linear, 3 of the oracle, 6 of random
    assert {rule for rule in done if "call" in rule} == {f"call_spots_{number}" for number in range(1, 6)}
    assert "infer_scores" not in done
    assert (folder / "results/mini/metrics.tsv").read_bytes() == before
    path = folder / "scripts/ctrflow/methods/linear.py"
    path.write_text(path.read_text() + "\n# edited\n")
    planned = jobs(good(folder, "metrics", "-n", *RUN))
    assert {rule for rule in planned if "call" in rule} == {"call_spots_2", "call_spots_3"}


def test_a_second_run_does_nothing(finished):
    assert "Nothing to be done" in good(finished, *RUN)


def test_snakemakes_own_report_has_the_final_files(finished, tmp_path):
    page = tmp_path / "report.html"
    good(finished, "--report", str(page), "--config", "study=mini")
    text = page.read_text()
    for name in ("metrics.tsv", "methods.tsv", "pairs.tsv", "published.tsv", "efficiency.tsv", "maps.png", "P1.png"):
        assert name in text, name
    assert "bootstrap intervals" in text  # a caption


def test_scores_do_not_need_the_targets_labels(finished, fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    sheet = folder / "config" / "sections.tsv"
    labels = "data/mini/ST-pat/lbl/P1_labeled_coordinates.tsv"
    assert labels in sheet.read_text()
    sheet.write_text(sheet.read_text().replace(labels, ""))
    (folder / labels).unlink()
    task = {"name": "patients", "split": "transfer", "source": 'section in ["P2", "P3"]', "target": 'section == "P1"'}
    write_study(folder, MINI | {"tasks": [task]})
    good(folder, *RUN)
    compared = 0
    for path in sorted((folder / "results").glob("mini/patients/P1/*/*/*/scores.tsv")):
        assert path.read_bytes() == (finished / path.relative_to(folder)).read_bytes()
        compared += 1
    assert compared == 2 + 1 + 2
    report = (folder / "results/mini/report.html").read_text()
    assert "not labelled" in report


def planned_methods(folder: Path) -> set[str]:
    """The methods that a dry run would train or score again."""
    output = good(folder, "-n", "--config", "study=mini")
    return {
        method
        for rule, method in re.findall(r"rule (train_method|infer_scores):.*?method=(\w+)", output, flags=re.DOTALL)
        if rule
    }


def test_an_edited_method_runs_again_alone(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    path = folder / "scripts/ctrflow/methods/linear.py"
    path.write_text(path.read_text() + "\n# edited\n")
    assert planned_methods(folder) == {"linear"}
    assert not {"ingest_section", "embed_section", "build_fold"} & set(
        jobs(good(folder, "-n", "--config", "study=mini"))
    )


def test_another_way_to_rank_genes_builds_the_folds_again(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    (task,) = MINI["tasks"]
    write_study(folder, MINI | {"tasks": [task | {"hvg_input": "log", "hvg_scope": "first"}]})
    planned = jobs(good(folder, "-n", *RUN))
    assert planned["build_fold"] == 3
    assert "ingest_section" not in planned
    train = "results/mini/patients/P1/hed_texture/labelled/train.h5ad"
    good(folder, train, *RUN)
    said = (folder / "logs/mini/build_fold/patients/P1/hed_texture/labelled.log").read_text()
    assert "genes are ranked on section P2 only" in said
    assert set(anndata.read_h5ad(folder / train).obs["section"]) == {"P2", "P3"}


def test_an_edited_readme_runs_nothing(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    for name in ("README.md", "config/README.md", "CHANGELOG.md"):
        (folder / name).write_text("edited")
    assert "Nothing to be done" in good(folder, "-n", "--config", "study=mini")


def test_a_new_method_is_one_file(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    (folder / "scripts/ctrflow/methods/class_means.py").write_text(
        """import numpy as np

from ctrflow.methods import MethodSpec

SPEC = MethodSpec(name="class_means", regime="labelled_source", modalities=("gene",), seeded=False, reference="none")


class Model:
    def __init__(self, means):
        self.means = means
        self.losses = [{"stage": "means", "epoch": i, "term": "loss", "value": 0.25 * i} for i in (1, 2)]

    @classmethod
    def fit(cls, train, options, seed):
        genes, label = train.X.toarray(), train.obs["label"].to_numpy(dtype=float)
        return cls(np.stack([genes[label == value].mean(axis=0) for value in (0, 1)]))

    def score(self, target):
        other, cancer = (np.linalg.norm(target.X.toarray() - mean, axis=1) for mean in self.means)
        return other - cancer

    def tensors(self):
        return {"means": self.means}

    @classmethod
    def from_tensors(cls, tensors, options, seed):
        return cls(tensors["means"])
"""
    )
    write_study(folder, MINI | {"methods": [*MINI["methods"], "class_means"]})
    assert planned_methods(folder) == {"class_means"}
    good(folder, "results/mini/report.html", *RUN)
    assert len(list(folder.glob("results/mini/patients/*/hed_texture/class_means/*/model.safetensors"))) == 3
    metrics = pd.read_csv(folder / "results/mini/metrics.tsv", sep="\t")
    assert metrics[(metrics.method == "class_means") & (metrics.metric == "auc")].value.between(0, 1).all()
    assert "class_means" in set(metrics.method)
    kept = folder / "results/mini/patients/P1/hed_texture/class_means/seed1/losses.tsv"
    assert kept.read_text() == "stage\tepoch\tterm\tvalue\nmeans\t1\tloss\t0.25\nmeans\t2\tloss\t0.5\n"
    report = (folder / "results/mini/report.html").read_text()
    assert "Loss curves of class_means, patients, hed_texture, mean of 3 runs: means from 0.25 to 0.5." in report
    assert "means: the loss is higher at the end than at the start in 3 of 3 runs" in report
    assert (
        "the loss is higher"
        in (folder / "logs/mini/train_method/patients/P1/hed_texture/class_means/seed1.log").read_text()
    )


def test_my_own_section_gets_a_map_calls_and_exports(fresh, tmp_path):
    """What docs/own_section.md walks through: a new, unlabelled row, and one command."""
    folder = copy(fresh, tmp_path / "repo")
    add_section(folder, "biopsy7", seed=8)
    add_rows(folder, [st_row("biopsy7", cohort="mine", labelled=False)])
    path = folder / "config/studies/my_section.yaml"
    study = yaml.safe_load(path.read_text())
    # the shipped study with quick training sections under `source`, as the page says to
    study["tasks"][0]["source"] = 'cohort == "mini"'
    study["methods"] = MINI["methods"][:2]
    path.write_text(yaml.safe_dump(study))
    output = good(folder, "--cores", "2", "--config", "study=my_section")
    assert "results/my_section/report.html" in output
    results = folder / "results/my_section"
    assert (results / "figures/biopsy7.png").read_bytes()[:4] == b"\x89PNG"
    exported = anndata.read_h5ad(results / "export/biopsy7/biopsy7.h5ad")
    assert exported.obs["score_linear"].between(0, 1).all()
    assert set(exported.obs["call_spacrd"].dropna()) <= {"cancer", "other"}
    loupe = pd.read_csv(results / "export/biopsy7/biopsy7.loupe.csv")
    assert loupe.columns[0] == "Barcode"
    assert len(loupe) == exported.n_obs
    assert list((results / "export/biopsy7/qupath").glob("*.geojson"))
    metrics = pd.read_csv(results / "metrics.tsv", sep="\t")
    assert set(metrics[metrics.metric == "auc"].note) == {"not labelled"}


def test_a_trained_model_can_be_taken_elsewhere(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    model = "results/mini/patients/P1/hed_texture/linear/seed1/model.safetensors"
    task = {"name": "given", "split": "pretrained", "target": 'section == "P1"', "model": model}
    write_study(folder, MINI | {"study": "apply", "tasks": [task]})
    good(folder, "metrics", "--cores", "2", "--config", "study=apply")
    again = pd.read_csv(folder / "results/apply/given/P1/hed_texture/linear/seed1/scores.tsv", sep="\t")
    first = pd.read_csv(folder / SCORES.format(fold="P1", method="linear", seed=1), sep="\t")
    assert again.score.to_list() == first.score.to_list()


def test_a_task_of_controls_alone_has_its_pictures(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    task = {"name": "t", "split": "transfer", "source": 'section == "P2"', "target": 'section == "P1"'}
    write_study(folder, MINI | {"encoders": ["none"], "methods": ["random"], "tasks": [task]})
    good(folder, "results/mini/report.html", "results/mini/figures/P1.png", *RUN)
    assert "random" in (folder / "results/mini/report.html").read_text()
    assert (folder / "results/mini/figures/P1.png").is_file()


def test_an_encoder_without_a_network_needs_no_gpu(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    embedding = "results/embeddings/hed_texture/P1.h5ad"
    good(folder, embedding, "--cores", "1", "--config", "study=mini", "device=cuda")
    assert (folder / embedding).is_file()


@pytest.mark.parametrize(("request_", "asked"), [("gpu", "gpu=1"), ("gres", "gres=gpu:1")])
def test_a_gpu_is_asked_for_as_the_site_wants_it(fresh, tmp_path, request_, asked):
    folder = copy(fresh, tmp_path / "repo")
    said = good(folder, "-n", "--config", "study=mini", "device=cuda", f"gpu_request={request_}")
    steps = re.findall(r"^rule (\w+):\n((?: +.*\n)+)", said, flags=re.MULTILINE)
    with_gpu = {(rule, *re.findall(r"method=(\w+)", text)) for rule, text in steps if asked in text}
    assert with_gpu == {("train_method", "spacrd"), ("infer_scores", "spacrd")}
    assert not [text for _, text in steps if "gpu=1" in text and asked != "gpu=1"]


def test_two_gpus_get_two_jobs(finished, tmp_path, monkeypatch):
    """Snakemake counts GPUs and hands none out; each step takes one that no other has. Here they are names alone."""
    folder = copy(finished, tmp_path / "repo")
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\nprintf 'GPU-one\\nGPU-two\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(smi.parent), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the locks are
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    models = [f"results/mini/patients/P1/hed_texture/spacrd/seed{seed}/model.safetensors" for seed in (1, 2)]
    before = [(folder / path).read_bytes() for path in models]
    good(folder, *models, "--forcerun", *models, "--resources", "gpu=2", *RUN)
    logs = [folder / f"logs/mini/train_method/patients/P1/hed_texture/spacrd/seed{seed}.log" for seed in (1, 2)]
    taken = {re.search(r"INFO GPU (\S+) of GPU-one, GPU-two", path.read_text())[1] for path in logs}
    assert taken == {"GPU-one", "GPU-two"}
    assert [(folder / path).read_bytes() for path in models] == before


def test_a_missing_model_is_named(fresh, tmp_path):
    folder = copy(fresh, tmp_path / "repo")
    task = {"name": "given", "split": "pretrained", "target": 'section == "P1"', "model": "absent.safetensors"}
    write_study(folder, MINI | {"tasks": [task]})
    done = run(folder, "-n", "--config", "study=mini")
    assert done.returncode != 0
    assert "absent.safetensors: no such model file" in done.stdout
