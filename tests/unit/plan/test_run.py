"""A run: the files that it reads and writes, by what its method is; and who is given labels."""

import hashlib
import re

import pytest

from ctrflow import methods
from ctrflow.folds.fold import Fold
from runs import ROOT

TASK = {"name": "t", "split": "transfer", "source": 'section in ["A", "B"]', "target": 'section in ["C", "V"]'}
HEALTHY = 'section == "N"'
GIVEN = {"name": "given", "split": "pretrained", "target": 'section == "C"', "model": "m.safetensors"}
MODEL = {
    "method": "linear", "variant": "mine", "options": {}, "encoder": "none", "seed": 7, "sections": ["A"],
    "patients": ["A"], "modalities": ["gene"], "encoder_settings": {}, "genes": ["g"], "library_genes": ["g"],
    "tissues": ["breast"], "platforms": ["st"], "simulated": False, "likeness": [], "depth": [900.0], "least_genes": 0,
    "gate": {}, "picture": [], "calibration": {}, "code": "c", "versions": {},
}  # fmt: skip
OF_C = "results/s/t/C/uni"


@pytest.fixture(scope="module")
def every(plan_of):
    """Every method once, with what each may ask for, on one fold: learned from A and B or N, scored on C; those that
    learn from a drawing from a share of the labels of C."""
    task = TASK | {"target": 'section == "C"', "normal": HEALTHY}
    specs = [methods.load(name).SPEC for name in methods.names()]
    drawn = [spec.name for spec in specs if spec.regime == "drawn" or "prior" in spec.needs]
    earlier = {"name": "elsewhere", "methods": ["linear"]} | {key: task[key] for key in ("split", "source", "target")}
    within = {
        "name": "w",
        "split": "within",
        "target": task["target"],
        "draw": 0.1,
        "prior": "elsewhere",
        "methods": drawn,
    }
    rest = [name for name in methods.names() if name not in drawn]
    plan = plan_of([earlier, task | {"methods": rest}, within], seeds=[1])
    return {run.spec.name: run for run in plan.study.runs if run.task["name"] != "elsewhere"}


def test_the_files_of_a_run_that_learns_from_labels(every):
    run = every["linear"]
    assert run.table("train") == f"{OF_C}/labelled/train.h5ad"
    assert run.table("target") == f"{OF_C}/labelled/target.h5ad"
    assert run.file("scores.tsv") == f"{OF_C}/linear/seed1/scores.tsv"
    assert run.model == f"{OF_C}/linear/seed1/model.safetensors"
    assert run.benchmark("infer_scores") == "benchmarks/s/infer_scores/t/C/uni/linear/seed1.tsv"
    assert run.benchmark("infer_scores", together=True) == "benchmarks/s/infer_scores/t/C/uni/linear/seeds.tsv"
    assert run.exported == "results/s/model/t/uni/linear.seed1.safetensors"
    assert (run.learned, run.sections, run.reference) == (("A", "B"), ("A", "B", "C"), "")
    assert (run.weights(), run.patch_list, run.patches(["C"])) == ([], [], [])


def test_the_files_of_a_run_that_learns_from_normal_pictures(every):
    run = every["meatrd"]
    assert run.table("train") == f"{OF_C}/normal/train.h5ad"
    assert (run.learned, run.sections, run.reference) == (("N",), ("N", "C"), "normal_sections")
    # of the method's own size; named by sha256 of the sections learned from together
    assert run.patch_list == "results/patches/100um-32px/8ce86a6ae65d.tsv"
    assert run.patches(run.fold.targets) == ["results/patches/100um-32px/C.zarr"]
    assert re.fullmatch(r"results/s/pretrained/meatrd-[0-9a-f]{12}/seed1\.safetensors", run.weights())
    assert run.weights(".cost.json") == run.weights().replace(".safetensors", ".cost.json")


def test_the_files_of_a_run_that_trains_nothing(every):
    run = every["random"]
    assert run.table("target") == f"{OF_C}/alone/target.h5ad"
    assert (run.model, run.trains, run.learned, run.sections) == ([], False, (), ("C",))


def test_the_level_is_one_of_a_fold_for_methods_that_learn_from_labels_and_read_genes(every, plan_of):
    learned = {name for name, run in every.items() if run.spec.regime == "labelled_source"}
    assert {name for name, run in every.items() if run.level} == learned
    assert {name for name, run in every.items() if run.judges} == learned
    assert {"linear", "boosting", "spacrd"} <= learned
    assert {every[name].level for name in learned} == {f"{OF_C}/labelled/level.safetensors"}
    assert (every["meatrd"].level, every["random"].level) == ([], [])
    entries = [{"id": name, "method": "linear", "options": {"modalities": [name]}} for name in ("gene", "image")]
    study = plan_of([TASK], entries).study
    assert {run.variant.name: bool(run.level) for run in study.runs} == {"gene": True, "image": False}
    # of all that the task has
    whole = study.run({"study": "s", "task": "t", "encoder": "uni", "method": "gene", "seed": 1})
    assert whole.level == "results/s/model/t/uni/labelled/level.safetensors"


def test_a_given_model_takes_the_place_of_a_training(plan_of):
    (run,) = plan_of([GIVEN], read_model=lambda path: MODEL).study.runs
    assert (run.model, run.given_model, run.trains) == ("m.safetensors", "m.safetensors", False)
    assert run.table("target") == "results/s/given/C/none/pretrained/target.h5ad"
    assert run.file("scores.tsv") == "results/s/given/C/none/mine/seed7/scores.tsv"
    assert (run.shared_weights, run.reference, run.sections) == ("", "", ("C",))
    assert run.encoder_settings({}) == {}  # it reads no image
    # its level is in its file
    assert (run.judges, run.level) == (True, [])
    # what a model of normal tissue was trained on is in its file, not in the study
    (run,) = plan_of([GIVEN], read_model=lambda path: MODEL | {"method": "patchcore"}).study.runs
    assert (run.spec.view, run.view, run.reference) == ("normal", "pretrained", "")


# --- labels and truth -------------------------------------------------------------------------------------------------


def test_labels_come_with_the_training_table_of_a_labelled_view_alone():
    healthy = Fold("f", ("A", "B"), ("C",), ("N",))
    negatives = Fold("f", ("A", "B"), ("C",), ("A", "B"), negatives=True)
    labels = {view: (healthy.labelled(view), negatives.labelled(view)) for view in methods.VIEWS}
    assert labels == {
        "labelled": (("A", "B"), ("A", "B")),
        "normal": ((), ("A", "B")),  # which spots of the sources are normal is what their labels say
        "drawn": ((), ()),  # what is drawn in the target comes beside its table
        "alone": ((), ()),
        "pretrained": ((), ()),
    }


def test_the_truth_of_the_targets_is_scored_with_by_the_oracle_alone(every, plan_of):
    assert set(every) == set(methods.names())
    assert {name for name, run in every.items() if run.scored_with("truth")} == {"oracle"}
    assert every["oracle"].scored_with("truth") == ("C",)
    plan = plan_of([TASK])
    assert plan.labels(["A", "V"]) == ["results/sections/A/labels.tsv"]  # nobody has labelled V


# rule -> the sections whose labels it reads; every rule that is not here reads none
READS_LABELS = {
    "build_fold": "fold_of(w).labelled(w.view)",
    "build_source": "fold_of(w).labelled(w.view)",
    "infer_scores": 'run_of(w).scored_with("truth")',
    "crop_section": "[parent_of(w)]",
    "draw_regions": "fold_of(w).targets",
    "evaluate_study": "TARGETS",
    "tabulate_study": "TARGETS",
    "compare_published": "TARGETS",
    "check_section": "[w.section]",
    "export_section": "[w.section]",
    "export_cells": "[w.section]",
    "draw_study": "UNCROPPED",
    "report_study": "UNCROPPED",
}


def test_no_other_rule_reads_labels():
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    text = re.sub(r'^for jobs in seeds.jobs\("(\w+)".*\n\n    rule:$', r"    rule \1:", text, flags=re.MULTILINE)
    bodies = re.findall(r"^ *(?:use )?rule(?: \w+ as)? (\w+)(?: with)?:\n((?: +.*\n|\n)+)", text, flags=re.MULTILINE)
    found = {name: re.findall(r"PLAN\.labels\((.*)\),?$", body, flags=re.MULTILINE) for name, body in bodies}
    assert {name: lines[0] for name, lines in found.items() if lines} == READS_LABELS
    assert sum(map(len, found.values())) == text.count("PLAN.labels(") == len(READS_LABELS)
    assert re.findall(r"labels\.tsv", text) == ["labels.tsv"] * 2  # what label_section and crop_section write


# --- which run wildcards name -----------------------------------------------------------------------------------------


def test_wildcards_name_a_run(plan_of):
    study = plan_of([TASK], ["linear", "random"]).study
    names = {"study": "s", "task": "t", "fold": "V", "encoder": "uni", "method": "random", "seed": "2"}
    run = study.run(names)
    assert run is next(one for one in study.runs if (one.fold.name, one.seed) == ("V", 2))
    assert run.file("scores.tsv") == "results/s/t/V/uni/random/seed2/scores.tsv"


def test_without_a_fold_it_is_the_run_that_learns_from_all_that_the_task_has(plan_of):
    by_patient = {"name": "t", "split": "leave_one_patient_out", "source": 'cohort == "lab"', "normal": HEALTHY}
    study = plan_of([by_patient], ["linear", "meatrd"]).study
    whole = {
        name: study.run({"study": "s", "task": "t", "encoder": "uni", "method": name, "seed": 1})
        for name in ("linear", "meatrd")
    }
    run = whole["linear"]
    assert (run.learned, run.fold.targets) == (("A", "B", "C"), ())
    assert {one.learned for one in study.runs if one.spec.name == "linear"} == {("B", "C"), ("A", "C"), ("A", "B")}
    assert run.table("train") == "results/s/model/t/uni/labelled/train.h5ad"
    assert run.exported == "results/s/model/t/uni/linear.seed1.safetensors"
    assert whole["meatrd"].table("train") == "results/s/model/t/uni/normal/train.h5ad"


def test_shared_weights_are_one_for_each_reference_and_seed(plan_of):
    """What decides: method, sections learned from, whether their negatives alone, and the options named for it."""
    other = TASK | {"name": "other", "target": 'section == "X"', "normal": HEALTHY}
    negatives = TASK | {"name": "negatives", "normal": "source_negatives"}
    all_spots = TASK | {"name": "all_spots", "normal": TASK["source"]}
    deeper = {"id": "deeper", "method": "meatrd", "options": {"mgdat_layers": 2}}
    wider = {"id": "wider", "method": "meatrd", "options": {"patch_um": 50.0}}
    tasks = [TASK | {"normal": HEALTHY}, other, negatives, all_spots]
    study = plan_of(tasks, ["meatrd", deeper, wider, "stands"]).study
    reached = {}
    for run in study.runs:
        reached.setdefault((run.shared_weights, run.seed), set()).add((run.task["name"], run.variant.name))
    of = {"meatrd": {"meatrd", "deeper"}, "wider": {"wider"}, "stands": {"stands"}}
    expected = [
        {(task, name) for task in alike for name in names}
        for alike in (("t", "other"), ("negatives",), ("all_spots",))
        for names in of.values()
    ]
    assert sorted(map(sorted, reached.values())) == sorted(map(sorted, expected * 2))  # two seeds
    for (weights, seed), runs in reached.items():
        run = study.run({"study": "s", "weights": weights, "seed": str(seed)})
        assert (run.task["name"], run.variant.name) in runs
        assert run.pretrain_options == {name: run.options[name] for name in run.spec.pretrain}


def test_lists_of_pictures_are_named_by_the_sections_learned_from_together(plan_of):
    task = {"name": "t", "split": "leave_one_patient_out", "source": 'cohort == "lab"', "normal": "source_negatives"}
    study = plan_of([task], ["meatrd", "stands", "linear"]).study
    named = {"B\nC": ("B", "C"), "A\nC": ("A", "C"), "A\nB": ("A", "B"), "A\nB\nC": ("A", "B", "C")}  # the last: export
    assert study.together == {hashlib.sha256(text.encode()).hexdigest()[:12]: names for text, names in named.items()}
    of_c = {run.variant.name: run.patch_list for run in study.runs if run.fold.name == "C"}
    name = hashlib.sha256(b"A\nB").hexdigest()[:12]
    assert of_c == {
        "meatrd": f"results/patches/100um-32px/{name}.tsv",
        "stands": f"results/patches/100um-64px/{name}.tsv",
        "linear": [],
    }
