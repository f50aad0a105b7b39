"""The workflow on three small sections: what it makes, what it repeats, and what it must not see."""

import json
import os
import re
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from ctrflow import storage
from runs import MINI, ROOT, SNAKEMAKES, add_rows, add_section, copy, good, jobs, run, st_row, write_study
from studies import JOBS

RUN = ("--cores", "2", "--config", "study=mini")


# between them they take every rule: simulated, downloaded and hand-made sections, and models to export
PLANNED = {"demo": ("all", "model"), "breast_transfer": ("all",), "meatrd_breast": ("all",)}
# how a site wants to be asked for a GPU
ASKED = {"demo": "gres", "breast_transfer": "gpu", "meatrd_breast": "gpu"}


@pytest.fixture(scope="module")
def planned(fresh, tmp_path_factory):
    """Study -> what the engine plans on a machine whose jobs ask for a GPU."""
    folder = copy(fresh, tmp_path_factory.mktemp("planned") / "repo")
    for number in range(3, 11):  # healthy sections that are downloaded by hand
        path = folder / f"data/own/hhb/HHB_v{number:02d}.h5ad"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "seeds.yaml").write_text(yaml.safe_dump({"seeds": [42, 43]}))
    return {
        name: good(
            folder, "-n", *targets, "--configfile", "seeds.yaml",
            "--config", f"study={name}", "device=cuda", f"gpu_request={ASKED[name]}",
        )
        for name, targets in PLANNED.items()
    }  # fmt: skip


def of_rules(found: dict[str, int]) -> dict[str, int]:
    """Rule -> number of jobs, those of several seeds included."""
    counts = {}
    for name, count in found.items():
        rule = re.sub(r"_\d+$", "", name)
        counts[rule] = counts.get(rule, 0) + count
    return counts


@pytest.mark.parametrize("name", PLANNED)
def test_the_engine_plans_the_jobs_that_are_counted_by_hand(name, planned):
    found = of_rules(jobs(planned[name]))
    assert {rule: found[rule] for rule in JOBS[name]} == JOBS[name]
    assert found["report_study"] == 1


@pytest.fixture(scope="module")
def drawn(fresh, tmp_path_factory):
    """What the engine plans where something is drawn in a section, and where a share of its labels is."""
    folder = copy(fresh, tmp_path_factory.mktemp("drawn") / "repo")
    (folder / "drawn.tsv").write_text("spot\tlabel\n")
    task = {"name": "t", "split": "within", "target": 'cohort == "mini"', "draw": 0.1, "methods": ["strokes"]}
    write_study(folder, {"study": "shares", "tasks": [task]})
    given = ("path=data/mini/ST-cnts/P1.tsv.gz", "image=data/mini/ST-imgs/P1.jpg", "section=P7", "drawn=drawn.tsv")
    return [good(folder, "-n", "map", "--config", *given), good(folder, "-n", "--config", "study=shares")]


def test_a_drawing_is_read_taught_and_estimated_once(drawn):
    found = of_rules(jobs(drawn[0]))
    steps = ("read_drawn", "build_drawn", "train_method", "infer_scores", "estimate_drawn", "tabulate_within")
    assert [found[step] for step in steps] == [1] * 6
    assert "draw_regions" not in found
    shares = of_rules(jobs(drawn[1]))
    assert (shares["draw_regions"], shares["build_drawn"], shares["train_method"]) == (3, 3, 3)
    assert "estimate_drawn" not in shares


def test_the_planned_studies_take_every_rule(planned, drawn):
    text = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    rules = set(re.findall(r"^(?:use rule \w+ as|rule) (\w+)", text, flags=re.MULTILINE))
    taken = {rule for said in (*planned.values(), *drawn) for rule in jobs(said)}
    assert rules - taken == {"doctor"}


# what gains from one: the networks of a study, and of its encoder
NEURAL = [
    "camlu", "dominant", "fanogan", "m3dm", "meatrd", "patch_svdd", "prem", "simplenet", "spatial_id", "stands",
]  # fmt: skip
NETWORKS = {
    "demo": {
        "pretrain_method": [],
        "train_method": ["meatrd", "spacrd"],
        "infer_scores": ["meatrd", "spacrd"],
    },
    "meatrd_breast": {
        "embed_section": ["uni"],
        "pretrain_method": [],
        "train_method": NEURAL,
        "infer_scores": NEURAL,
    },
}


@pytest.mark.parametrize(
    ("name", "asked", "other"), [("demo", "gres=gpu:1", "gpu=1"), ("meatrd_breast", "gpu=1", "gres=gpu")]
)
def test_a_gpu_is_asked_for_as_the_site_wants_it(name, asked, other, planned):
    steps = re.findall(r"^(?:local)?rule (\w+):\n((?: +.*\n)+)", planned[name], flags=re.MULTILINE)
    found = {}
    for rule, text in steps:
        rule = re.sub(r"_\d+$", "", rule)
        if asked in text and rule != "export_model":
            found.setdefault(rule, set()).update(re.findall(r"(?:method|encoder)=(\w+)", text)[-1:])
    assert {rule: sorted(names) for rule, names in found.items()} == NETWORKS[name]
    assert [rule for rule, text in steps if other in text] == []


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
    """What a method that knows normal tissue alone is given where no healthy section exists."""
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
    good(folder, "metrics", "--cores", "2", "--config", f"study={name}")
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
    done = jobs(good(folder, "metrics", *SNAKEMAKES, *RUN))
    # 6 runs of spacrd, 3 of linear, 3 of the oracle, 6 of random
    assert {rule for rule in done if "call" in rule} == {f"call_spots_{number}" for number in range(1, 6)}
    assert "infer_scores" not in done
    assert (folder / "results/mini/metrics.tsv").read_bytes() == before
    path = folder / "scripts/ctrflow/methods/linear.py"
    path.write_text(path.read_text() + "\n# edited\n")
    planned = jobs(good(folder, "metrics", "-n", *RUN))
    assert {rule for rule in planned if "call" in rule} == {"call_spots_2", "call_spots_3"}


def test_a_second_run_does_nothing(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    for name in ("README.md", "config/README.md", "CHANGELOG.md"):
        (folder / name).write_text("edited")
    assert "Nothing to be done" in good(folder, *RUN)


def test_snakemakes_own_report_has_the_final_files(finished, tmp_path):
    page = tmp_path / "report.html"
    good(finished, "--report", str(page), "--config", "study=mini")
    text = page.read_text()
    tables = ("metrics", "methods", "pairs", "published", "efficiency", "layers", "layer_genes", "layer_cells")
    for name in (*(f"{table}.tsv" for table in tables), "maps.png", "P1.png"):
        assert name in text, name
    assert "bootstrap intervals" in text  # a caption


def test_scores_do_not_need_the_targets_labels(finished, tmp_path):
    """All that is known of the target is made again without them, from its raw files to its scores."""
    folder = copy(finished, tmp_path / "repo")
    sheet = folder / "config" / "sections.tsv"
    labels = "data/mini/ST-pat/lbl/P1_labeled_coordinates.tsv"
    assert labels in sheet.read_text()
    sheet.write_text(sheet.read_text().replace(labels, ""))
    (folder / labels).unlink()
    shutil.rmtree(folder / "results/mini")
    shutil.rmtree(folder / "results/sections/P1")
    (folder / "results/embeddings/hed_texture/P1.h5ad").unlink()
    task = {"name": "patients", "split": "transfer", "source": 'section in ["P2", "P3"]', "target": 'section == "P1"'}
    write_study(folder, MINI | {"tasks": [task]})
    good(folder, "metrics", *RUN)
    assert not (folder / "results/sections/P1/labels.tsv").exists()
    compared = 0
    for path in sorted((folder / "results").glob("mini/patients/P1/*/*/*/scores.tsv")):
        assert path.read_bytes() == (finished / path.relative_to(folder)).read_bytes()
        compared += 1
    assert compared == 2 + 1 + 2
    metrics = pd.read_csv(folder / "results/mini/metrics.tsv", sep="\t")
    assert set(metrics[metrics.metric == "auc"].note) == {"not labelled"}


def methods_of(output: str) -> set[str]:
    """The methods that a dry run would train or score again."""
    rules = r"^rule (?:train_method|infer_scores)(?:_\d+)?:\n"
    return set(re.findall(rf"{rules}(?: +.*\n)*? +wildcards: .*method=(\w+)", output, re.MULTILINE))


def test_an_edited_method_runs_again_alone(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    path = folder / "scripts/ctrflow/methods/linear.py"
    path.write_text(path.read_text() + "\n# edited\n")
    output = good(folder, "-n", "--config", "study=mini")
    assert methods_of(output) == {"linear"}
    assert not {"ingest_section", "embed_section", "build_fold"} & set(jobs(output))


def test_a_gpu_is_used_by_networks_alone(finished):
    """Told to use one, everything else computes as before, where there is none: nothing of it is made again."""
    output = good(finished, "-n", "--config", "study=mini", "device=cuda")
    assert methods_of(output) == {"spacrd"}
    assert not {"embed_section", "build_fold", "build_target"} & set(jobs(output))


def test_another_way_to_rank_genes_builds_the_folds_again(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    (task,) = MINI["tasks"]
    write_study(folder, MINI | {"tasks": [task | {"hvg_input": "log", "hvg_scope": "first"}]})
    train = "results/mini/patients/P1/hed_texture/labelled/train.h5ad"
    assert jobs(good(folder, train, *SNAKEMAKES, *RUN)) == {"build_fold": 1}
    said = (folder / "logs/mini/build_fold/patients/P1/hed_texture/labelled.log").read_text()
    assert "genes are ranked on section P2 only" in said
    assert set(anndata.read_h5ad(folder / train).obs["section"]) == {"P2", "P3"}


def test_crops_are_scored_by_the_models_that_are_there(finished, tmp_path):
    folder = copy(finished, tmp_path / "repo")
    (task,) = MINI["tasks"]
    write_study(folder, MINI | {"tasks": [task | {"crop": "tumour_free"}]})
    planned = of_rules(jobs(good(folder, "metrics", "-n", *RUN)))
    # three patients, two methods; the oracle and `random` score no crop
    crops = {"crop_section": 3, "embed_section": 3, "build_crop": 3, "infer_scores": 3 * 2}
    assert planned == crops | {"call_spots": 1, "evaluate_study": 1, "metrics": 1}


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
    # and no other method runs again
    of_folds = {"train_method": 3, "infer_scores": 3}
    done = jobs(good(folder, "metrics", *SNAKEMAKES, *RUN))
    assert done == of_folds | {"call_spots_1": 1, "evaluate_study": 1, "metrics": 1}
    assert len(list(folder.glob("results/mini/patients/*/hed_texture/class_means/*/model.safetensors"))) == 3
    metrics = pd.read_csv(folder / "results/mini/metrics.tsv", sep="\t")
    assert metrics[(metrics.method == "class_means") & (metrics.metric == "auc")].value.between(0, 1).all()
    assert "class_means" in set(metrics.method)
    kept = folder / "results/mini/patients/P1/hed_texture/class_means/seed1/losses.tsv"
    assert kept.read_text() == "stage\tepoch\tterm\tvalue\nmeans\t1\tloss\t0.25\nmeans\t2\tloss\t0.5\n"
    assert (
        "the loss is higher"
        in (folder / "logs/mini/train_method/patients/P1/hed_texture/class_means/seed1.log").read_text()
    )


def test_my_own_section_gets_a_map_calls_and_exports(finished, tmp_path):
    """What docs/own_section.md walks through: a new, unlabelled row, and one command. Nothing is trained."""
    folder = copy(finished, tmp_path / "repo")
    add_section(folder, "biopsy7", seed=8, genes=2000)  # some hundred of these are genes of the shipped model
    row = st_row("biopsy7", cohort="mine", labelled=False) | {"tissue": "breast", "note": ""}
    add_rows(folder, [row])
    output = good(folder, "--cores", "2", "--config", "study=my_section")
    assert "results/my_section/report.html" in output
    results = folder / "results/my_section"
    assert (results / "figures/biopsy7.png").read_bytes()[:4] == b"\x89PNG"
    exported = anndata.read_h5ad(results / "export/biopsy7/biopsy7.h5ad")
    assert exported.obs["score_breast_image"].between(0, 1).all()
    assert set(exported.obs["call_breast_image"].dropna()) <= {"cancer", "other"}
    loupe = pd.read_csv(results / "export/biopsy7/biopsy7.loupe.csv")
    assert loupe.columns[0] == "Barcode"
    assert len(loupe) == exported.n_obs
    assert list((results / "export/biopsy7/qupath").glob("*.geojson"))
    metrics = pd.read_csv(results / "metrics.tsv", sep="\t")
    assert set(metrics[metrics.metric == "auc"].note) == {"not labelled"}
    # drawn by a program, which the model tells from real tissue
    page = (results / "report.html").read_text()
    assert "<b>Cannot tell</b>" in page
    assert "Outside of what the model knows: its genes correlate" in page
    summary = pd.read_csv(results / "export/summary.tsv", sep="\t")
    assert summary.verdict.tolist() == ["cannot tell"]
    assert "its genes correlate" in summary.outside[0]
    assert exported.uns["ctrflow"]["verdict"] == {"breast_image": "cannot tell"}
    assert exported.obs["probability_breast_image"].between(0, 1).all()


def test_a_map_that_means_nothing_says_so_in_red(finished, tmp_path):
    """A real model on simulated tissue: refused; where the study allows it, map, tables and report warn."""
    folder = copy(finished, tmp_path / "repo")
    add_section(folder, "drawn", seed=8, genes=2000)
    add_rows(folder, [st_row("drawn", cohort="mine", labelled=False) | {"tissue": "breast", "image": ""}])
    failed = run(folder, "--cores", "2", "--config", "study=my_section")
    assert failed.returncode
    assert "models/breast/expression.safetensors is not simulated, drawn is: such a map means nothing" in failed.stdout
    path = folder / "config/studies/my_section.yaml"
    path.write_text(path.read_text() + "allow_simulated: true\n")
    good(folder, "--cores", "2", "--config", "study=my_section")
    results = folder / "results/my_section"
    text = "Simulated section, scored by what was learned from real tissue: this map means nothing."
    summary = pd.read_csv(results / "export/summary.tsv", sep="\t")
    assert summary.caution.tolist() == [text]
    assert anndata.read_h5ad(results / "export/drawn/drawn.h5ad").uns["ctrflow"]["caution"] == text
    assert (results / "report.html").read_text().count(f'role="alert">drawn: {text}') == 1
    red = np.asarray(Image.open(results / "figures/drawn.png").convert("RGB")).astype(int)[:40]
    assert ((red[..., 0] > 150) & (red[..., 1] < 80)).sum() > 200


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
