"""Studies: expanded into runs, with every mistake named at once."""

from pathlib import Path

import pandas as pd
import pytest

from ctrflow import schema
from ctrflow.errors import InputError
from ctrflow.plan import load, study

SCHEMA = load.study_schema(Path(__file__).parents[3] / "workflow" / "schemas")
SHEET = pd.DataFrame(
    {
        "section": ["a", "b", "c", "mine"],
        "patient": ["a", "b", "c", "me"],
        "cohort": ["train", "train", "train", "mine"],
        "platform": ["st"] * 4,
        "tissue": ["breast", "breast", "breast", ""],
        "labels": ["x", "x", "x", ""],
        "image": ["i", "i", "i", ""],
        "note": [""] * 4,
    }
)


ENCODERS = {"enc": {"model": "uni", "weights": "hub", "patch_um": [100, 200]}}


def expand(tasks, methods=("linear",), read_model=None, sheet=SHEET, marked=("breast",), **rest):
    content = {"study": "s", **({"methods": list(methods)} if methods else {}), "tasks": tasks, **rest}
    checked = schema.check(content, SCHEMA, "s.yaml")
    return study.expand(checked, sheet, ENCODERS, [1, 2], "s.yaml", read_model, marked)


LOPO = {"name": "t", "split": "leave_one_patient_out", "source": 'cohort == "train"', "encoders": ["enc"]}


GIVEN = {"name": "t", "split": "pretrained", "target": 'cohort == "mine"', "model": "m.safetensors"}
MODEL = {
    "method": "linear", "variant": "mylinear", "options": {"C": 1.0}, "encoder": "none", "seed": 7,
    "sections": ["a", "b"], "patients": ["a", "b"], "modalities": ["image", "gene"], "encoder_settings": {},
    "genes": ["g"], "library_genes": ["g", "h"], "code": "c", "versions": {},
    "tissues": ["breast"], "platforms": ["st"], "simulated": False, "likeness": [], "depth": [900.0], "least_genes": 0,
    "gate": {}, "picture": [], "calibration": {},
}  # fmt: skip


def test_runs_are_folds_times_encoders_times_seeds():
    found = expand([LOPO], ["linear", "random"])
    assert [(r.fold.name, r.variant.name, r.seed) for r in found.runs[:3]] == [
        ("a", "linear", 1),
        ("b", "linear", 1),
        ("c", "linear", 1),
    ]
    # linear does not depend on the seed and runs once; random runs with both
    assert len(found.runs) == 3 + 3 * 2
    assert found.targets == ["a", "b", "c"]


def test_a_task_can_have_seeds_of_its_own():
    found = expand([LOPO | {"seeds": [9]}], ["random"])
    assert {run.seed for run in found.runs} == {9}


def test_a_task_without_labelled_sections_has_methods_that_need_none():
    task = {"name": "t", "split": "transfer", "normal": 'section == "c"', "target": 'section in ["a", "b"]'}
    found = expand([task | {"encoders": ["enc"]}], ["linear", "simplenet"])
    assert {run.variant.name for run in found.runs} == {"simplenet"}
    assert [row["variant"] for row in found.not_applicable] == ["linear"]
    assert "learns from labelled sections" in found.not_applicable[0]["reason"]
    assert found.runs[0].sections == ("c", "a")
    assert study.describe("t", found) == (
        "Each of a, b is scored in turn. Methods that know normal tissue alone learn it from c."
    )


def test_the_negatives_of_the_sources_are_said_to_be_the_reference():
    found = expand([LOPO | {"normal": "source_negatives"}], ["linear", "simplenet"])
    assert found.not_applicable == []
    assert "learn it from the source sections' spots labelled 0: no healthy section" in study.describe("t", found)
    # of no interest where no method learns from it
    assert "normal tissue" not in study.describe("t", expand([LOPO | {"normal": "source_negatives"}]))
    assert next(run.sections for run in found.runs if run.spec.name == "simplenet") == ("b", "c", "a")


def test_a_tissue_without_markers_is_said():
    task = LOPO | {"split": "transfer", "target": 'cohort == "mine"', "encoders": ["none"]}
    found = expand([task], ["marker_score", "random"])
    assert found.not_applicable[0]["reason"] == (
        "needs marker genes, and there is no list for the tissue `` of its targets (config/markers)"
    )


def test_a_variant_is_a_line_in_the_study():
    gene = {"id": "linear_gene", "method": "linear", "options": {"modalities": ["gene"]}}
    found = expand([{**LOPO, "encoders": ["none"]}], ["linear", gene])
    assert {run.variant.name for run in found.runs} == {"linear_gene"}
    assert found.variants["linear_gene"].options["modalities"] == ["gene"]
    assert [row["variant"] for row in found.not_applicable] == ["linear"]
    assert "modalities: [gene]" in found.not_applicable[0]["reason"]


def test_two_ways_to_rank_genes_stand_in_one_study():
    published = LOPO | {"name": "published", "hvg_input": "log", "hvg_scope": "first"}
    found = expand([LOPO, LOPO | {"name": "log", "hvg_input": "log"}, published], ["linear"])
    ways = {name: (task["hvg_input"], task["hvg_scope"]) for name, task in found.tasks.items()}
    assert ways == {"t": ("counts", "all"), "log": ("log", "all"), "published": ("log", "first")}
    assert "Genes" not in study.describe("t", found)
    assert study.describe("log", found).endswith("Genes are ranked on log values of all training sections.")
    assert study.describe("published", found).endswith("on log values of the first training section alone.")
    with pytest.raises(InputError, match=r"tasks.0.hvg_scope: 'last' is not one of \['all', 'first'\]"):
        expand([LOPO | {"hvg_scope": "last"}])


def test_the_oracle_is_left_out_where_there_is_no_truth():
    task = {
        "name": "t",
        "split": "transfer",
        "source": 'cohort == "train"',
        "target": 'cohort == "mine"',
        "encoders": ["none"],
    }
    gene = {"method": "linear", "options": {"modalities": ["gene"]}}
    found = expand([task], [gene, "oracle"])
    assert {run.variant.name for run in found.runs} == {"linear"}
    assert "no labels" in found.not_applicable[0]["reason"]


def test_a_given_model_brings_method_options_and_encoder():
    found = expand([GIVEN], read_model=lambda path: MODEL)
    assert [run.file("scores.tsv") for run in found.runs] == ["results/s/t/mine/none/mylinear/seed7/scores.tsv"]


SETTINGS = {"model": "uni", "patch_um": [100.0, 200.0], "channel_order": "rgb"}
SEES = MODEL | {"encoder": "enc", "encoder_digest": "abc", "patch_px": 224, "patch_um": [[100.0, 200.0]]}
WITH_IMAGE = SHEET.assign(image="i")


def test_a_given_model_is_all_that_a_study_needs():
    found = expand([GIVEN], methods=(), read_model=lambda path: MODEL)
    assert [run.variant.name for run in found.runs] == ["mylinear"]
    with pytest.raises(InputError, match="task t: no `methods`"):
        expand([LOPO], methods=())


def test_a_given_model_needs_the_encoder_it_was_trained_with():
    found = expand([GIVEN], read_model=lambda path: SEES | {"encoder_settings": SETTINGS}, sheet=WITH_IMAGE)
    assert [run.file("scores.tsv") for run in found.runs] == ["results/s/t/mine/enc/mylinear/seed7/scores.tsv"]


def test_a_given_model_that_reads_no_image_needs_no_encoder():
    genes_alone = SEES | {"encoder": "unknown", "modalities": ["gene"]}
    assert [run.encoder for run in expand([GIVEN], read_model=lambda path: genes_alone).runs] == ["none"]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        (
            {"encoder": "uno"},
            r"trained with the encoder `uno` \(.*model: uni.*\), which the configuration does not have",
        ),
        (
            {"encoder_settings": SETTINGS | {"patch_um": [55.0]}},
            r"patch_um: \[55.0\] in the model, patch_um: \[100.0, 200.0\] in the configuration",
        ),
        (
            {"encoder_settings": SETTINGS | {"crop_px": 224}},
            "crop_px: 224 in the model, no crop_px in the configuration; configure the encoder as in",
        ),
        (
            {"options": {"strength": 1.0}},
            "is from another version of ctrflow .*unknown option `strength`.*train it again",
        ),
        ({"method": "lineal"}, "is from another version of ctrflow .*unknown method `lineal`"),
    ],
)
def test_a_given_model_that_does_not_fit_the_configuration_is_refused(changed, word):
    metadata = SEES | {"encoder_settings": SETTINGS} | changed
    with pytest.raises(InputError, match=f"s.yaml: task t: the model m.safetensors .*{word}"):
        expand([GIVEN], read_model=lambda path: metadata, sheet=WITH_IMAGE)


@pytest.mark.parametrize(("tissue", "fits"), [(" Breast ", True), ("", True), ("liver", False)])
def test_a_given_model_is_of_the_tissue_of_its_target(tissue, fits):
    sheet = SHEET.assign(tissue=["breast", "breast", "breast", tissue])
    if fits:
        assert len(expand([GIVEN], read_model=lambda path: MODEL, sheet=sheet).runs) == 1
        return
    with pytest.raises(InputError, match=r"m.safetensors knows breast; mine is liver: correct the column tissue, or"):
        expand([GIVEN], read_model=lambda path: MODEL, sheet=sheet)


LATE = {"method": "linear", "options": {"fusion": "late"}}


def test_late_fusion_learns_also_from_sections_without_a_picture():
    task = LOPO | {"target": 'section == "a"', "split": "transfer"}
    bare = SHEET.assign(image=["i", "i", "", ""])
    assert expand([task], [LATE], sheet=bare).runs[0].learned == ("b", "c")
    for methods, missing in ((["linear"], "c"), ([LATE, "spacrd"], "c")):  # these need the picture of every section
        with pytest.raises(InputError, match=f"these sections have none: {missing};"):
            expand([task], methods, sheet=bare)
    with pytest.raises(InputError, match="these sections have none: a;"):
        expand([task], [LATE], sheet=SHEET.assign(image=["", "i", "i", ""]))
    with pytest.raises(InputError, match="these sections have none: b, c;"):
        expand([task], [LATE], sheet=SHEET.assign(image=["i", "", "", ""]))


SIMULATED = SHEET.assign(note=["simulated", "", "simulated, small", ""])
FROM_A = {"name": "t", "split": "transfer", "source": 'section == "a"', "target": 'section == "b"', "encoders": ["enc"]}


def test_places_of_genes_are_not_asked_of_simulated_sections():
    sheet = SIMULATED.assign(tissue="breast")
    found = expand([FROM_A | {"target": 'section == "c"'}], ["cnv", "linear"], sheet=sheet, marked=["breast"])
    assert [(row["variant"], row["reason"]) for row in found.not_applicable] == [
        ("cnv", "needs the places of genes on chromosomes, and most genes of a simulated section are invented")
    ]
    real = expand([FROM_A], ["cnv"], sheet=sheet, marked=["breast"])
    assert (len(real.runs), real.not_applicable) == (1, [])


def test_simulated_and_real_sections_do_not_meet():
    with pytest.raises(InputError, match=r"task t: a is simulated, b is not: such a map means.*allow_simulated"):
        expand([FROM_A], sheet=SIMULATED)
    with pytest.raises(InputError, match="task t: b is not simulated, a is: such a map"):
        expand([FROM_A | {"source": 'section == "b"', "target": 'section == "a"'}], sheet=SIMULATED)
    alike = expand([FROM_A | {"target": 'section == "c"'}], sheet=SIMULATED)
    assert alike.cautions == {}
    # what a method does not read cannot mislead it
    unread = expand([FROM_A], ["marker_score"], sheet=SIMULATED)
    assert (len(unread.runs), unread.cautions) == (1, {})


def test_a_study_can_allow_it_and_its_maps_say_so():
    found = expand([FROM_A], sheet=SIMULATED, allow_simulated=True)
    assert found.cautions == {"b": ("Learned from simulated tissue: this map of real tissue means nothing.",)}
    given = expand([GIVEN], read_model=lambda path: MODEL | {"simulated": True}, allow_simulated=True)
    assert given.cautions == {"mine": ("Learned from simulated tissue: this map of real tissue means nothing.",)}
    of_simulated = expand(
        [GIVEN], read_model=lambda path: MODEL, allow_simulated=True, sheet=SHEET.assign(note="simulated")
    )
    assert of_simulated.cautions["mine"] == (
        "Simulated section, scored by what was learned from real tissue: this map means nothing.",
    )
    with pytest.raises(InputError, match=r"m\.safetensors is simulated, mine is not"):
        expand([GIVEN], read_model=lambda path: MODEL | {"simulated": True})


def test_all_that_a_task_can_train_on_is_known():
    found = expand([LOPO, GIVEN | {"name": "given"}], read_model=lambda path: MODEL)
    assert found.whole.keys() == {"t"}
    assert (found.whole["t"].sources, found.whole["t"].targets) == (("a", "b", "c"), ())


def test_a_model_file_that_lacks_something_is_refused():
    lacking = {key: value for key, value in MODEL.items() if key not in ("versions", "modalities")}
    with pytest.raises(InputError, match=r"missing metadata: modalities, versions\); train it again"):
        expand([GIVEN], read_model=lambda path: lacking)


@pytest.mark.parametrize("seen", [{"sections": ["mine"]}, {"patients": ["me"]}])
def test_a_given_model_must_not_have_seen_its_target(seen):
    with pytest.raises(InputError, match="was trained on sections of the same patient as mine"):
        expand([GIVEN], read_model=lambda path: MODEL | seen)


@pytest.mark.parametrize(
    ("tasks", "methods", "word"),
    [
        ([LOPO], ["lineal"], "unknown method `lineal`, did you mean `linear`"),
        ([LOPO], [{"method": "linear", "options": {"c": 1}}], "unknown option `c`; valid: C, fusion, modalities"),
        ([LOPO], [{"method": "linear", "options": {"modalities": ["smell"]}}], "give a list of: image, gene"),
        ([LOPO], [{"method": "linear", "options": {"C": "big"}}], "option `C` is 'big'"),
        ([LOPO], [{"method": "spacrd", "options": {"epochs_fuse": 1.5}}], "option `epochs_fuse` is 1.5"),
        ([LOPO], [{"method": "spacrd", "options": {"batch_size": 1}}], "option `batch_size` is 1; give .* at least 2"),
        ([LOPO], [{"method": "spacrd", "options": {"preset": "best"}}], "valid: paper"),
        ([LOPO], [{"method": "linear", "id": "alone"}], "cannot have the id `alone`"),
        ([LOPO], ["linear", "linear"], "two methods have the id `linear`"),
        ([{**LOPO, "encoders": ["uno"]}], ["linear"], "unknown encoder `uno`; valid: enc, none"),
        ([LOPO, LOPO], ["linear"], "two tasks are named `t`"),
        ([LOPO | {"split": "transfer", "target": 'cohort == "mine"'}], ["linear"], "these sections have none: mine"),
        ([{"name": "t", "split": "pretrained", "target": 'cohort == "mine"'}], ["linear"], "needs `model`"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tasks, methods, word):
    with pytest.raises(InputError, match=word):
        expand(tasks, methods)


@pytest.mark.parametrize(("platform", "refused"), [("st", True), ("xenium", True), ("h5ad", True), ("visium", False)])
def test_an_image_encoder_needs_images(platform, refused):
    """Only a Space Ranger folder may bring an image of its own."""
    sheet = SHEET.assign(platform=["st", "st", "st", platform])
    task = LOPO | {"split": "transfer", "target": 'cohort == "mine"'}
    if refused:
        with pytest.raises(InputError, match="encoder `enc` reads the image, but these sections have none: mine; fill"):
            expand([task], sheet=sheet)
    else:
        assert [run.fold.name for run in expand([task], sheet=sheet).runs] == ["mine"]
    without = expand([task | {"encoders": ["none"]}], ["random"], sheet=sheet)
    assert [run.fold.name for run in without.runs] == ["mine"] * 2


def test_all_mistakes_at_once():
    with pytest.raises(InputError) as error:
        expand([{**LOPO, "encoders": ["uno"]}, {**LOPO, "name": "u", "source": "nope == 1"}])
    assert "unknown encoder" in str(error.value)
    assert "not a query" in str(error.value)


def test_unknown_keys_are_refused_with_the_closest():
    with pytest.raises(InputError) as error:
        expand([{**LOPO, "sorce": "x", "split": "leave_one_out"}], methds=["a"])
    text = str(error.value)
    assert "s.yaml: 3 problems" in text
    assert "tasks.0.sorce: unknown key; did you mean `source`?" in text
    assert "methds: unknown key; did you mean `methods`?" in text
    assert "tasks.0.split: 'leave_one_out' is not one of" in text
