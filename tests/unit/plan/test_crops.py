"""Tumour-free crops in the plan: which sections are cropped, by what their crops are scored, and who sees them."""

import pytest

from ctrflow.errors import InputError
from ctrflow.plan import crops, one_section, resources, sections, sheet, tables

FREE = {"crop": "tumour_free"}
# X, a section of cells, has no labels
TASK = {"name": "t", "split": "transfer", "source": 'section == "A"', "target": 'section in ["B", "X"]'} | FREE
PATIENTS = {"name": "p", "split": "leave_one_patient_out", "source": 'cohort == "lab"'} | FREE
GIVEN = {"name": "g", "split": "pretrained", "target": 'section == "C"', "model": "m.safetensors"} | FREE
MODEL = {
    "method": "linear", "variant": "mine", "options": {"modalities": ["gene"]}, "encoder": "none", "seed": 7,
    "sections": ["A"], "patients": ["A"], "modalities": ["gene"], "encoder_settings": {}, "genes": ["g"],
    "library_genes": ["g"], "code": "c", "versions": {}, "tissues": ["breast"], "platforms": ["st"], "simulated": False,
    "likeness": [], "depth": [900.0], "least_genes": 0, "gate": {}, "picture": [], "calibration": {},
}  # fmt: skip
CROP = "B.tumour_free"


@pytest.fixture(scope="module")
def plan(plan_of):
    """Two targets, one of them labelled: methods that learn from labels and from normal tissue, and a control."""
    return plan_of([TASK | {"normal": 'section == "N"'}], ["spacrd", "meatrd", "random"])


def on_crops(plan) -> list:
    return [run for run in plan.study.runs if run.fold.trained_by]


# --- the section ------------------------------------------------------------------------------------------------------


def test_a_labelled_target_gets_a_crop_after_all_sections(plan):
    assert plan.study.targets == ["B", "X", CROP]
    assert (plan.study.crops, plan.study.uncropped) == ([CROP], ["B", "X"])
    assert plan.used == ["A", "B", "N", "X", CROP]


def test_a_crop_is_what_its_section_is_but_for_id_and_note(plan):
    assert plan.row(CROP) == plan.row("B") | {"section": CROP, "note": "tumour-free crop"}
    assert sections.image(plan, CROP) == ["data/B.jpg"]
    assert plan.labels(["X", CROP]) == ["results/sections/B.tumour_free/labels.tsv"]
    assert tables.patients(plan)[CROP] == "B"


def test_a_crop_of_a_simulated_section_is_simulated(plan_of):
    rows = [row | {"note": "simulated", "platform": "xenium"} for row in labelled("A", "B")]
    made = plan_of([TASK | {"target": 'section == "B"'}], sheet=rows)
    assert made.row(CROP)["note"] == "simulated; tumour-free crop"
    assert made.of_cells == ["A", "B"]  # a crop is of spots


def labelled(*names) -> list[dict]:
    """Rows of labelled sections, each of its own patient."""
    cells = {"cohort": "lab", "tissue": "breast", "platform": "st"}
    return [
        dict.fromkeys(sheet.COLUMNS, "") | cells
        | {"section": name, "patient": name, "path": name, "image": f"{name}.jpg", "labels": f"{name}.csv"}
        for name in names
    ]  # fmt: skip


def test_nobody_may_take_the_id_of_a_crop(tmp_path):
    path = tmp_path / "sections.tsv"
    path.write_text("section\tpatient\tplatform\tpath\nB.Tumour_Free\tB.tumour_free\tst\tb.tsv\n")
    with pytest.raises(InputError) as caught:
        sheet.read_sheet([path])
    _, section, patient = str(caught.value).splitlines()
    text = "ends with .tumour_free, as the crops that the workflow makes do; choose another id"
    assert f"row 2, column section: 'B.Tumour_Free' {text}" in section
    assert f"row 2, column patient: 'B.tumour_free' {text}" in patient


# --- the runs ---------------------------------------------------------------------------------------------------------


def test_methods_score_a_crop_and_controls_do_not(plan):
    assert [(run.variant.name, run.seed, run.fold.name) for run in on_crops(plan)] == [
        (name, seed, CROP) for name in ("spacrd", "meatrd") for seed in (1, 2)
    ]
    assert {run.fold.targets for run in on_crops(plan)} == {(CROP,)}


def test_a_crop_is_scored_by_the_models_of_its_section(plan):
    for run in on_crops(plan):
        twin = next(
            one for one in plan.study.runs
            if (one.fold.name, one.variant, one.seed) == ("B", run.variant, run.seed)
        )  # fmt: skip
        assert run.model == twin.model == twin.file("model.safetensors")
        assert run.learned == twin.learned
        assert run.table("target") == twin.table("target").replace("/B/", f"/{CROP}/")
        assert run.file("scores.tsv") == twin.file("scores.tsv").replace("/B/", f"/{CROP}/")
        assert (run.trains, run.shared_weights, run.weights()) == (False, "", [])


def test_no_more_is_trained_than_without_crops(plan, plan_of):
    bare = plan_of([{key: TASK[key] for key in TASK if key != "crop"} | {"normal": 'section == "N"'}],
                   ["spacrd", "meatrd", "random"])  # fmt: skip
    assert [run.model for run in tables.trained(plan)] == [run.model for run in tables.trained(bare)]
    assert tables.exported_models(plan) == tables.exported_models(bare)
    assert plan.study.together == bare.study.together
    weights = {run.weights(): run for run in tables.trained(bare) if run.weights()}
    for path, run in weights.items():
        names = {"study": "s", "weights": run.shared_weights, "seed": run.seed}
        assert plan.study.run(names).table("train") == bare.study.run(names).table("train"), path


def test_what_a_section_is_scored_by_reads_no_crop(plan):
    """A crop is made of the truth about a target, so it must not come near what is trained or scored without it."""
    for run in tables.uncropped(plan.study.runs):
        assert CROP not in run.sections
    assert plan.study.folds["t", "B"].targets == ("B",)


def test_the_crops_of_a_patient_are_one_fold(plan_of):
    rows = [*labelled("A1", "A2", "B"), *({**row, "labels": ""} for row in labelled("A3"))]
    for row in rows[:2] + rows[3:]:
        row["patient"] = "A"
    made = plan_of([PATIENTS | {"source": 'labels != ""', "target": 'cohort == "lab"'}], sheet=rows)
    fold = made.study.folds["p", "A.tumour_free"]
    assert (fold.targets, fold.trained_by, fold.sources) == (("A1.tumour_free", "A2.tumour_free"), "A", ("B",))
    assert made.study.uncropped == ["A1", "A2", "A3", "B"]


def test_a_given_model_scores_crops_too(plan_of):
    made = plan_of([GIVEN], read_model=lambda path: MODEL)
    run = on_crops(made)[0]
    assert (run.model, run.view, run.fold.name) == ("m.safetensors", "pretrained", "C.tumour_free")
    assert run.table("target") == "results/s/g/C.tumour_free/none/pretrained/target.h5ad"


def test_sections_that_teach_are_not_cropped(plan_of):
    made = plan_of([TASK | {"target": 'section == "B"', "source": 'section in ["A", "C"]'}])
    assert made.study.crops == [CROP]
    assert all(not name.endswith(sheet.CROP) for run in made.study.runs for name in run.learned)


@pytest.mark.parametrize(
    ("task", "names", "text"),
    [
        (TASK | {"target": 'section == "X"'}, ["linear"], "s.yaml: task t: `crop` .* no target has labels: X; fill"),
        (TASK, ["random"], "s.yaml: task t: `crop` has no method to judge, only controls"),
        (TASK | {"crop": "tumor_free"}, ["linear"], "crop: 'tumor_free' is not one of"),
    ],
)
def test_what_cannot_be_cropped_is_told(task, names, text, plan_of):
    with pytest.raises(InputError, match=text):
        plan_of([task], names)


def test_a_section_of_the_command_line_is_scored_whole():
    content = {"study": "s", "tasks": [TASK]}
    (task,) = one_section.only(content, {"section": "Q4", "drawn": ""}, "models", True)["tasks"]
    assert task == {key: TASK[key] for key in ("name", "split", "source")} | {"target": 'section == "Q4"'}
    assert "crop" in TASK


def test_a_map_that_means_nothing_says_so_on_the_crop_too(plan_of):
    rows = labelled("A", "B")
    rows[0]["note"] = "simulated"
    made = plan_of([TASK | {"target": 'section == "B"'}], sheet=rows, allow_simulated=True)
    assert made.study.cautions[CROP] == made.study.cautions["B"] != ()
    with pytest.raises(InputError, match="B is not: such a map means nothing"):
        plan_of([TASK | {"target": 'section == "B"'}], sheet=rows)


# --- what a study shows -----------------------------------------------------------------------------------------------


def test_a_crop_has_a_map_and_a_check_but_no_files_for_other_viewers(plan):
    assert tables.maps(plan)[-1] == "results/s/figures/B.tumour_free.png"
    assert [line["run"] for line in tables.on_section(plan, CROP)] == ["spacrd", "spacrd", "meatrd", "meatrd"]
    assert not any(CROP in path for path in tables.exports(plan))
    assert CROP not in {line["section"] for line in tables.targets(plan)}  # of report and figures
    assert tables.images(plan) == ["data/B.jpg", "data/X.jpg"]


def test_costs_and_doctor_leave_crops_out(plan):
    assert {line["fold"] for line in tables.costs(plan)} == {"B", "X"}
    found = tables.doctor(plan, "requirements.txt")
    assert [row["section"] for row in found["rows"]] == list(found["seen_by"]) == ["A", "B", "N", "X"]


def test_the_time_that_crops_take_is_listed(plan):
    found = {line["rule"]: line["path"] for line in tables.benchmarks(plan) if line["rule"].startswith("crop")}
    assert found == {
        "crop_section": f"benchmarks/crop_section/{CROP}.tsv",
        "crop_embedding": f"benchmarks/crop_embedding/uni/{CROP}.tsv",
    }


def test_a_task_says_that_its_targets_are_cropped(plan, plan_of):
    text = tables.tasks(plan)["t"]
    assert text.startswith("Trained on A; each of B, X is scored in turn.")
    assert text.endswith("Labelled targets are scored a second time without their tumour, where every call is wrong.")
    given = plan_of([GIVEN], read_model=lambda path: MODEL)
    assert tables.tasks(given)["g"].startswith("The model m.safetensors scores C. Labelled")


def test_a_crop_has_the_features_of_its_section_from_a_network_alone(plan_of):
    """Other encoders look at all patches of a section before they look at one."""
    made = plan_of(
        [TASK | {"encoders": ["uni", "hed", "none"]}],
        ["random", {"method": "linear", "options": {"modalities": ["gene"]}}],
    )
    assert resources.networks(made) == ["uni"]


def test_names():
    assert crops.name_of("B") == CROP
    assert crops.parent_of(CROP) == "B"
