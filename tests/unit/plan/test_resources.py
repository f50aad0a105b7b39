"""What jobs ask of a scheduler: memory by the size of their files, minutes, a GPU, and the cluster job they share."""

import os
import shutil
from dataclasses import replace

import pytest

from ctrflow.errors import InputError
from ctrflow.plan import resources
from ctrflow.plan.sheet import COLUMNS

TASK = {
    "name": "t",
    "split": "transfer",
    "source": 'section == "A"',
    "target": 'section == "B"',
    "normal": 'section == "N"',
}
METHODS = ("linear", "patchcore", "spacrd", "marker_score", "tesla")


@pytest.fixture(scope="module")
def plan(plan_of):
    return plan_of([TASK], METHODS)


@pytest.fixture(scope="module")
def runs(plan):
    """Method -> its run with the first seed; the second one for `whole`, all that the task has."""
    return {run.spec.name: run for run in plan.study.runs if run.seed == 1}


def line(section: str, **cells) -> dict:
    """A row of the sheet, of an ST section with an image."""
    named = {"section": section, "patient": section, "cohort": "lab", "tissue": "breast", "platform": "st"}
    return dict.fromkeys(COLUMNS, "") | named | {"path": f"data/{section}.tsv", "image": f"data/{section}.jpg"} | cells


def of_size(path, n_bytes: float) -> str:
    """A file that says it is as large, and takes no room."""
    path.touch()
    os.truncate(path, int(n_bytes))
    return str(path)


def with_spec(run, **changes):
    return replace(run, variant=replace(run.variant, spec=replace(run.spec, **changes)))


@pytest.mark.parametrize(
    ("dense", "table_bytes", "pictures_bytes", "expected_mb"),
    [
        (0, 1e6, None, 6000),  # 3,002: what the method asks for at least
        (0, 2.5e9, None, 8000),  # 3 GB, and twice the file
        (1, 2.5e9, None, 18_000),  # and four times for each dense copy
        (1.5, 1e9, 500_000_000, 12_000),  # 3 + 2 + 6 GB, and the pictures twice
    ],
)
def test_memory_of_a_method_goes_by_its_view_and_pictures(
    runs, tmp_path, dense, table_bytes, pictures_bytes, expected_mb
):
    run = with_spec(runs["linear"], dense=dense, memory_mb=6000)
    table, listed = of_size(tmp_path / "train.h5ad", table_bytes), ""
    if pictures_bytes:
        listed = str(tmp_path / "list.tsv")
        (tmp_path / "list.tsv").write_text(f"section\tbytes\nA\t{pictures_bytes - 1000}\nB\t1000\n")
    assert resources.run_mb(run, table, listed) == expected_mb


def test_memory_is_what_the_method_says_before_its_files_are_there(runs):
    run = with_spec(runs["linear"], memory_mb=7000)
    assert resources.run_mb(run, "absent/train.h5ad", "absent/list.tsv") == 7000


def test_memory_of_the_tables_of_a_fold_goes_by_the_largest_file(tmp_path):
    small, large = of_size(tmp_path / "a", 5e8), of_size(tmp_path / "b", 2e9)
    assert resources.fold_mb([small, "absent"]) == 8000  # 1 GB, and 8 x 0.5 GB: less than the least
    assert resources.fold_mb([small, large]) == 17_000


def test_scoring_takes_an_hour_at_most_unless_the_method_learns_while_it_scores(runs):
    minutes = {name: (run.spec.minutes, resources.score_minutes(run)) for name, run in runs.items()}
    assert minutes == {
        "linear": (30, 30), "patchcore": (240, 60), "spacrd": (240, 60), "marker_score": (10, 10), "tesla": (240, 240),
    }  # fmt: skip


LEARN = {"linear", "boosting", "spacrd", "without_genes"}  # of labels
ENTRIES = [
    "linear",
    "boosting",
    "spacrd",
    {"id": "without_genes", "method": "linear", "options": {"modalities": ["image"]}},
    "patchcore",
    "marker_score",
    "random",
]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, {"linear"}),
        ({"calibrate": "short"}, {"linear"}),
        ({"calibrate": "all"}, {"linear", "boosting", "spacrd"}),
        ({"calibrate": "none"}, set()),
    ],
)
def test_a_probability_is_learned_where_the_study_asks_for_it(plan_of, content, expected):
    """By methods that learn from labels and read genes: there is no level without genes."""
    plan = plan_of([TASK], ENTRIES, **content)
    assert {run.variant.name for run in plan.study.runs if run.spec.regime == "labelled_source"} == LEARN
    assert {run.variant.name for run in plan.study.runs if resources.calibrates(plan, run)} == expected


def test_a_study_calibrates_in_no_other_way(plan_of):
    with pytest.raises(InputError, match="calibrate"):
        plan_of([TASK], calibrate="some")


def test_a_training_that_learns_a_probability_takes_longer_by_its_patients(plan_of):
    sheet = [line(name, labels=f"data/{name}.csv") for name in "ABCT"]
    sheet[1]["patient"] = "A"  # two sections of one patient: three sections, two patients
    task = {"name": "t", "split": "transfer", "source": 'section in ["A", "B", "C"]', "target": 'section == "T"'}

    def minutes(seeds, **content):
        plan = plan_of([task], ["linear", "spacrd"], sheet=sheet, **content)
        return {run.spec.name: resources.train_minutes(plan, run, seeds) for run in plan.study.runs}

    assert minutes(1) == {"linear": 30 * 3, "spacrd": 240}
    assert minutes(4) == {"linear": 30 * 4 * 3, "spacrd": 240 * 4}
    assert minutes(2, calibrate="all") == {"linear": 30 * 2 * 3, "spacrd": 240 * 2 * 3}
    assert minutes(2, calibrate="none") == {"linear": 30 * 2, "spacrd": 240 * 2}


def test_short_jobs_share_that_of_their_fold(plan, runs):
    train = {name: resources.train_group(run, gpu=False) for name, run in runs.items() if run.trains}
    score = {name: resources.score_group(run, gpu=False) for name, run in runs.items()}
    assert train == {"linear": "fold.t.B.uni", "patchcore": "", "spacrd": ""}
    assert score == {
        "linear": "fold.t.B.uni",
        "patchcore": "scores.t.B.uni",  # after long trainings
        "spacrd": "scores.t.B.uni",
        "marker_score": "fold.t.B.uni",
        "tesla": "",  # learns while it scores
    }
    # the fold's other jobs need no GPU
    assert resources.train_group(runs["linear"], gpu=True) == resources.score_group(runs["linear"], gpu=True) == ""
    whole = plan.study.run({"task": "t", "encoder": "uni", "method": "linear", "seed": 1})
    assert resources.train_group(whole, gpu=False) == ""


def test_what_is_short_is_said_by_the_method_or_its_preset(plan_of):
    entries = [
        "spacrd",
        {"id": "quick", "method": "spacrd", "options": {"preset": "fast"}},
        {"id": "longer", "method": "spacrd", "options": {"preset": "fast", "epochs_align": 999}},
        "boosting",  # has no presets
        "linear",
        "tesla",
        {"id": "tesla_quick", "method": "tesla", "options": {"preset": "fast"}},
        "random",
    ]
    runs = {run.variant.name: run for run in plan_of([TASK], entries).study.runs}
    assert {name for name, run in runs.items() if resources.trains_fast(run)} == {"quick", "linear"}
    assert {name for name, run in runs.items() if not resources.scores_fast(run)} == {"tesla"}


@pytest.mark.parametrize(
    ("device", "here", "asked"),
    [("cuda", False, True), ("cuda", True, True), ("auto", False, False), ("auto", True, True), ("cpu", True, False)],
)
def test_a_gpu_is_asked_for_by_what_gains_from_one(plan_of, monkeypatch, device, here, asked):
    plan = plan_of([TASK], ["spacrd", "linear"], settings={"device": device})
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if here else None)
    found = {run.spec.name: resources.gpus(plan, run.spec.gpu) for run in plan.study.runs}
    assert found == {"spacrd": asked, "linear": False}
    computes = {run.spec.name: resources.device(plan, run.spec.gpu) for run in plan.study.runs}
    assert computes == {"spacrd": device, "linear": "cpu"}


def test_an_encoder_gains_from_a_gpu_where_it_is_a_network(plan):
    assert {name: resources.is_network(plan, name) for name in ("uni", "hed")} == {"uni": True, "hed": False}
