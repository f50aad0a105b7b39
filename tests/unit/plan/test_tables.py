"""The plan as plain rows: what the steps that look at a whole study get as their parameters."""

import re

import pytest

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.plan import paths, tables
from runs import ROOT

TASK = {
    "name": "t",
    "split": "transfer",
    "source": 'section == "A"',
    "target": 'section in ["B", "C"]',
    "normal": 'section == "N"',
}
GIVEN = {"name": "given", "split": "pretrained", "target": 'section == "V"', "model": "m.safetensors"}
MODEL = {
    "method": "linear", "variant": "mine", "options": {"modalities": ["gene"]}, "encoder": "none", "seed": 7,
    "sections": ["A"], "patients": ["A"], "modalities": ["gene"], "encoder_settings": {}, "genes": ["g"],
    "library_genes": ["g"], "code": "c", "versions": {},
    "tissues": ["breast", "liver"], "platforms": ["st"], "simulated": False, "likeness": [], "depth": [900.0],
    "least_genes": 0, "gate": {}, "picture": [], "calibration": {},
}  # fmt: skip
RUN = "results/s/t/{}/uni/{}/seed{}/{}"


@pytest.fixture(scope="module")
def plan(plan_of):
    """A network with two seeds, one that learns its weights once, a control; and a model that came from elsewhere."""
    return plan_of([TASK, GIVEN], ["spacrd", "meatrd", "random"], read_model=lambda path: MODEL)


def of(plan, *names):
    return [run for run in plan.study.runs if run.variant.name in names]


def test_one_job_calls_so_many_runs_and_no_more(plan, monkeypatch):
    monkeypatch.setattr(tables, "CALLED_AT_ONCE", 4)
    runs = plan.study.runs
    assert len(runs) == 3 * 2 * 2 + 1
    found = tables.batches(runs)
    assert list(found) == ["call_spots_1", "call_spots_2", "call_spots_3", "call_spots_4"]
    assert [run for batch in found.values() for run in batch] == runs
    assert {len(batch) for batch in found.values()} == {4, 1}
    assert tables.batches(runs[:4]) == {"call_spots_1": runs[:4]}


def test_rows_say_what_a_run_is(plan):
    (row,) = tables.rows(of(plan, "meatrd")[:1])
    assert row == {
        "task": "t", "fold": "B", "encoder": "uni", "variant": "meatrd", "method": "meatrd",
        "regime": "normal_reference", "reference": "normal_sections", "threshold": "map_em", "seed": 1,
    }  # fmt: skip
    (row,) = tables.rows(of(plan, "mine"))
    assert (row["task"], row["fold"], row["method"], row["reference"]) == ("given", "V", "linear", "")


def test_trained_and_given_are_apart(plan):
    assert {run.variant.name for run in tables.trained(plan)} == {"spacrd", "meatrd"}
    assert [run.variant.name for run in tables.given(plan)] == ["mine"]


def test_controls_are_shown_where_there_is_nothing_else(plan):
    assert {run.variant.name for run in tables.shown(plan.study.on("B"))} == {"spacrd", "meatrd"}
    controls = of(plan, "random")
    assert tables.shown(controls) == controls


def test_the_runs_on_a_section_share_a_column_over_seeds(plan, plan_of):
    found = tables.on_section(plan, "B")
    expected = [("spacrd", 1), ("spacrd", 2), ("meatrd", 1), ("meatrd", 2)]
    assert [(line["run"], line["seed"]) for line in found] == expected
    for name in ("calls.tsv", "evidence.json"):
        assert tables.of_runs_on(plan, "B", name) == [RUN.format("B", *one, name) for one in expected]
    # where two tasks or encoders meet on a section, the name says which
    for tasks, names in (
        ([TASK, TASK | {"name": "u"}], ["t.uni.spacrd", "u.uni.spacrd"]),
        ([TASK | {"encoders": ["uni", "hed"]}], ["t.uni.spacrd", "t.hed.spacrd"]),
    ):
        meeting = plan_of(tasks, ["spacrd"], seeds=[1])
        assert [line["run"] for line in tables.on_section(meeting, "B")] == names


def test_what_is_scored_is_listed_by_task_encoder_and_section(plan):
    found = tables.targets(plan)
    assert [(line["task"], line["encoder"], line["section"]) for line in found] == [
        ("t", "uni", "B"), ("t", "uni", "C"), ("given", "none", "V"),
    ]  # fmt: skip
    for key, file in (("calls", "calls.tsv"), ("evidence", "evidence.json")):
        assert [line[key] for line in found[1]["runs"]] == [
            RUN.format("C", name, seed, file) for name in ("spacrd", "meatrd") for seed in (1, 2)
        ]
    assert tables.patients(plan) == {"B": "B", "C": "C", "V": "V"}
    assert tables.images(plan) == ["data/B.jpg", "data/C.jpg"]  # V has none


def test_the_sections_that_runs_score_come_once_with_their_platform(plan):
    assert tables.scored(plan.study.runs) == ["B", "C", "V"]
    assert tables.scored(of(plan, "spacrd")[:1]) == ["B"]
    assert tables.scored([]) == []
    assert tables.platforms(plan, ["V", "B"]) == {"V": "visium", "B": "st"}


def test_a_run_costs_what_its_steps_wrote(plan):
    lines = {(line["variant"], line["seed"]): line for line in tables.costs(plan) if line["fold"] in ("B", "V")}
    shared = of(plan, "meatrd")[1].weights(".cost.json")
    assert shared.endswith("/seed2.cost.json")
    files = ("infer", "train", "pretrain", "embedding", "embed")
    found = {name: [lines[name, seed][key] for key in files] for name, seed in lines if seed != 1}
    embedding = ["results/embeddings/uni/B.h5ad", ["benchmarks/embed_section/uni/B.tsv"]]
    infer, train = "infer_cost.json", "train_cost.json"
    assert found == {
        "spacrd": [*(RUN.format("B", "spacrd", 2, name) for name in (infer, train)), "", *embedding],
        "meatrd": [*(RUN.format("B", "meatrd", 2, name) for name in (infer, train)), shared, *embedding],
        "random": [RUN.format("B", "random", 2, infer), "", "", *embedding],
        "mine": [f"results/s/given/V/none/mine/seed7/{infer}", "", "", "", []],
    }
    # both targets learn from the same pictures
    assert len(tables.once(tables.costs(plan), "pretrain")) == 2
    assert tables.once(tables.costs(plan), "train", "pretrain")[0] == RUN.format("B", "spacrd", 1, "train_cost.json")


# --- benchmarks -------------------------------------------------------------------------------------------------------

WILDCARD = re.compile(r"\\\{\w+\\\}")


def benchmark_patterns() -> list[str]:
    """What rules write under `benchmark:`, as regular expressions."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    found = re.findall(r'^ *benchmark:\n +"(.*)"$', text, flags=re.MULTILINE)
    assert (
        len(found) == text.count(" benchmark:") - 4
    )  # those in loops: call_spots, and where seeds share a job; estimate_drawn
    found += [
        f"benchmarks/{paths.job(rule, seeds)}.tsv" for rule in ("train_method", "infer_scores") for seeds in (0, 1)
    ]
    return [WILDCARD.sub("[^/]+", re.escape(pattern)) for pattern in found]


def test_every_listed_benchmark_is_one_that_a_rule_writes(plan_of):
    plan = plan_of([TASK], methods.names())
    patterns = benchmark_patterns()
    found = tables.benchmarks(plan)
    assert [line["path"] for line in found if not any(re.fullmatch(one, line["path"]) for one in patterns)] == []
    assert len({line["path"] for line in found}) == len(found)


def test_the_listed_benchmarks_are_of_all_that_costs(plan):
    found = {}
    for line in tables.benchmarks(plan):
        found.setdefault((line["rule"], line["variant"]), []).append(line["path"])
    assert {path.split("/")[1] for path in found["ingest", ""]} == {
        "ingest_section", "ingest_cells", "label_section", "check_section",
    }  # fmt: skip
    assert found["embed_section", "uni"] == [f"benchmarks/embed_section/uni/{name}.tsv" for name in "ABCNV"]
    assert found["cut_patches", ""] == [f"benchmarks/cut_patches/100um-32px/{name}.tsv" for name in "NBC"]
    shared = of(plan, "meatrd")[0].shared_weights
    assert found["pretrain_method", "meatrd"] == [f"benchmarks/s/pretrain_method/{shared}/seed{n}.tsv" for n in (1, 2)]
    assert len(found["train_method", "spacrd"]) == 2 * 2
    assert len(found["infer_scores", "spacrd"]) == len(found["infer_scores", "random"]) == 2  # both seeds in one job


# --- files of a study -------------------------------------------------------------------------------------------------


def test_every_target_has_a_map_and_exports(plan_of):
    task = {"name": "t", "split": "transfer", "source": 'section == "A"', "target": 'section in ["V", "X"]'}
    plan = plan_of([task], ["random"], encoders=["none"])
    assert tables.maps(plan) == ["results/s/figures/V.png", "results/s/figures/X.png"]
    kinds = ("h5ad", "layers.tsv", "loupe.csv", "spatialdata.zarr", "summary.tsv")
    assert tables.exports(plan) == [
        *(f"results/s/export/V/V.{kind}" for kind in kinds),
        *(f"results/s/export/X/X.{kind}" for kind in (*kinds, "xenium_groups")),  # cells, for Xenium Explorer
        "results/s/export/summary.tsv",
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (500, 500)), ({"layers_um": {"outer": 250}}, (500, 250)), ({"layers_um": {"inner": 55.5}}, (55.5, 500))],
)
def test_layers_are_as_wide_as_the_study_says(plan_of, given, expected):
    found = plan_of([TASK], **given).content["layers_um"]
    assert (found["inner"], found["outer"]) == expected


@pytest.mark.parametrize("widths", [{"inner": 0}, {"outer": -5}, {"iner": 100}, 500])
def test_other_widths_are_refused(plan_of, widths):
    with pytest.raises(InputError, match="layers_um"):
        plan_of([TASK], layers_um=widths)


def test_which_variants_read_genes(plan_of):
    only = [
        {"id": f"linear_{what}", "method": "linear", "options": {"modalities": [what]}} for what in ("gene", "image")
    ]
    plan = plan_of([TASK], ["linear", *only, "darkness", "total_counts"])
    assert tables.read_genes(plan) == {
        "linear": True, "linear_gene": True, "linear_image": False, "darkness": False, "total_counts": True,
    }  # fmt: skip


def test_a_model_is_exported_for_each_method_and_seed_not_for_each_fold(plan):
    assert tables.exported_models(plan) == [
        f"results/s/model/t/uni/{name}.seed{seed}.safetensors" for name in ("spacrd", "meatrd") for seed in (1, 2)
    ]


def test_a_study_that_trains_nothing_has_no_model_to_export(plan_of):
    plan = plan_of([TASK], ["random", "marker_score"])
    with pytest.raises(InputError, match="study s: none of its methods trains a model, so there is nothing to export"):
        tables.exported_models(plan)


def test_the_report_shows_encoders_and_options_of_the_study(plan):
    shown = tables.settings(plan)
    assert (shown["n_genes"], list(shown["encoders"])) == (3000, ["uni", "none"])
    assert list(shown["methods"]) == ["spacrd", "meatrd", "mine"]  # random has no option
    assert shown["methods"]["mine"]["modalities"] == ["gene"]
    about = {name: (line["regime"], line["options"]) for name, line in tables.methods(plan).items()}
    assert about["random"] == ("control", {})
    assert about["mine"] == ("labelled_source", shown["methods"]["mine"])


def test_the_doctor_looks_at_what_the_study_reads(plan):
    found = tables.doctor(plan, "requirements.txt")
    assert [row["section"] for row in found["rows"]] == ["A", "B", "C", "N", "V"]
    # an image is looked at where an encoder does: V is scored by its genes alone
    assert found["seen_by"] == {"A": ["uni"], "B": ["uni"], "C": ["uni"], "N": ["uni"], "V": []}
    assert list(found["encoders"]) == ["uni"]
    gain = {name: method["gpu"] for name, method in found["methods"].items()}
    assert gain == {"spacrd": True, "meatrd": True, "random": False, "mine": False}
    assert (found["folds"], found["device"], found["lock"]) == (3, "cpu", "requirements.txt")


def test_the_doctor_compares_what_the_folds_join(plan, plan_of):
    found = tables.doctor(plan, "requirements.txt")
    every = [
        [*map("".join, (one["task"], one["learned"], one["labelled"], one["targets"]))] for one in found["compared"]
    ]
    # each once for all methods and seeds: learned with labels, without, not at all; the given model has its own check
    assert every == [
        [*"tAAB"],
        [*"tAAC"],
        ["t", "N", "", "B"],
        ["t", "N", "", "C"],
        ["t", "", "", "B"],
        ["t", "", "", "C"],
    ]
    assert (found["markers"], found["positions"], found["genes"]) == ([], [], "config/genes/human.tsv.gz")
    one = {"method": "marker_score", "id": "one", "options": {"sets": ["tumour"]}}
    found = tables.doctor(plan_of([TASK], ["marker_score", one, "cnv"]), "requirements.txt")
    both, breast = ("epithelial", "tumour"), "config/markers/breast.tsv"
    assert found["markers"] == [
        ["B", breast, both],
        ["C", breast, both],
        ["B", breast, ["tumour"]],
        ["C", breast, ["tumour"]],
    ]
    assert found["positions"] == ["B", "C"]


def test_the_doctor_examines_each_given_model_once(plan_of):
    tasks = [
        GIVEN,
        GIVEN | {"name": "again"},
        GIVEN | {"name": "other", "model": "n.safetensors"},
        GIVEN | {"name": "both", "target": 'section in ["B", "V"]', "model": "n.safetensors", "min_gene_share": 0.2},
    ]
    table, found = "config/genes/human.tsv.gz", plan_of(tasks, ["random"], read_model=lambda path: MODEL)
    given = tables.doctor(found, "requirements.txt")["given"]
    assert given["V"] == [["m.safetensors", None, table], ["n.safetensors", None, table], ["n.safetensors", 0.2, table]]
    assert given["B"] == [["n.safetensors", 0.2, table]]


def test_the_doctor_leaves_out_simulated_sections(shipped):
    found = tables.doctor(shipped("demo"), "requirements.txt")
    assert found["rows"] == []
    assert "demo_A1" in found["seen_by"]
