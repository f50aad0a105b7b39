"""The study files that re-make the papers' tables hold every row of them, under its name, and nothing by accident."""

import re
from pathlib import Path

import pandas as pd
import pytest

from ctrflow import methods, schema
from ctrflow.features import markers
from ctrflow.folds.fold import make_folds
from ctrflow.methods import meatrd, spacrd
from ctrflow.plan import sheet, study

ROOT = Path(__file__).parents[3]
SCHEMA = schema.read_yaml(ROOT / "workflow" / "schemas" / "study.schema.yaml")
CONFIG = schema.read_yaml(ROOT / "config" / "config.yaml")
SHEET = sheet.read_sheet([ROOT / "config" / "sections.tsv"])
MEATRD = methods.resolve_options(meatrd.SPEC, {})
PAPER = methods.resolve_options(spacrd.SPEC, {})
BREAST = {"STHBC_A", "STHBC_B", "STHBC_C", "STHBC_D", "STHBC_E", "STHBC_F", "STHBC_G", "STHBC_H"}
COLON = set(SHEET.section[SHEET.cohort == "crc"])


def read(name: str) -> study.Study:
    path = ROOT / "config" / "studies" / f"{name}.yaml"
    content = schema.check(schema.read_yaml(path), SCHEMA, path.name)
    assert content["study"] == name
    tissues = markers.tissues(ROOT / "config" / "markers")
    return study.expand(content, SHEET, CONFIG["encoders"], CONFIG["seeds"], path.name, marked=tissues)


def rows_of(paper: str, table: str) -> list[str]:
    """The methods of a table."""
    rows = pd.read_csv(ROOT / "config" / "published.tsv", sep="\t", dtype=str)
    return list(dict.fromkeys(rows.method[(rows.paper == paper) & (rows.table == table)]))


def printed(table: str, paper: str = "SpaCRD") -> list[str]:
    """What stands in the brackets of a table's rows, "alpha=0.5" of "SpaCRD[alpha=0.5]"."""
    return [re.search(r"\[(.*)\]", name)[1] for name in rows_of(paper, table)]


def slug(text: str) -> str:
    """ "w/o BCA" is wo_bca."""
    return re.sub(r"[^a-z0-9.]+", "_", text.lower().replace("w/o", "wo"))


def changed(variant: study.Variant, paper=PAPER) -> dict:
    """The options of a variant that are not those of the paper."""
    return {name: value for name, value in variant.options.items() if value != paper[name]}


def seen(found: study.Study, task: str) -> dict[str, set]:
    """Fold -> sections trained on."""
    return {fold: set(content.sources) for (name, fold), content in found.folds.items() if name == task}


def ran(found: study.Study, task: str) -> set[str]:
    return {run.variant.name for run in found.runs if run.task["name"] == task}


@pytest.mark.parametrize("name", ["ablation", "extractors", "sensitivity", "small_sample"])
def test_five_seeds_and_only_spacrd(name):
    found = read(name)
    assert found.not_applicable == []
    assert {run.seed for run in found.runs} == {42, 123, 456, 789, 2026}
    assert {variant.spec.name for variant in found.variants.values()} == {"spacrd"}


@pytest.mark.parametrize("name", ["ablation", "extractors"])
def test_sections_are_left_out_as_in_the_paper(name):
    found = read(name)
    assert seen(found, "sthbc") == {one: BREAST - {one} for one in BREAST}
    assert seen(found, "platforms") == {"ViHBC": BREAST, "XeHBC": BREAST}
    by_patient = {f"CRC_{letter}": {one for one in COLON if f"_{letter}" not in one} for letter in "ABCDEG"}
    assert seen(found, "crc") == by_patient
    assert {len(sections) for sections in by_patient.values()} == {10}


def test_table_3():
    found = read("extractors")
    rows = {slug(row.removeprefix("extractor=")) for row in printed("Table 3")}
    assert len(rows) == 4
    assert {run.encoder for run in found.runs} == rows
    assert [changed(variant) for variant in found.variants.values()] == [{}]


def test_table_4():
    found = read("ablation")
    rows = {slug(row) for row in printed("Table 4")}
    assert len(rows) == 7
    assert {task: ran(found, task) for task in ("sthbc", "platforms", "crc")} == dict.fromkeys(
        ("sthbc", "platforms", "crc"), rows
    )
    # METHODS.md 4.1
    assert {name: changed(found.variants[name]) for name in rows} == {
        "full": {},
        "image_based": {"modalities": ["image"]},
        "st_based": {"modalities": ["gene"]},
        "wo_bca": {"fusion": "concat"},
        "wo_rvae": {"rvae": False},
        "wo_vrbca": {"fusion": "concat", "rvae": False},
        "wo_cl": {"epochs_align": 0, "finetune_encoders": True},
    }


def test_each_switch_alone_and_all_of_them():
    found = read("ablation")
    alone = {name: changed(found.variants[name]) for name in ran(found, "switches")}
    assert alone.pop("full") == {}
    reference = alone.pop("reference")
    assert reference == changed(study.parse_method({"method": "spacrd", "options": {"preset": "reference"}}, ""))
    assert len(reference) > 1
    assert [len(options) for options in alone.values()] == [1] * len(alone)
    # every switch of the published code has its row with the value it has there
    assert reference.items() <= {item for options in alone.values() for item in options.items()}
    # every name says which row of METHODS.md 1.11 it is
    assert {name[:3] for name in alone} == {"s01", "s02", "s03", "s04", "s05", "s07", "s15", "s20"}


def test_the_published_code_outside_the_network():
    found = read("ablation")
    task = found.tasks["as_published"]
    assert (task["hvg_input"], task["hvg_scope"], task["encoders"]) == ("log", "first", ["uni_bgr"])
    assert ran(found, "as_published") == {"reference"}
    uni, bgr = CONFIG["encoders"]["uni"], CONFIG["encoders"]["uni_bgr"]
    assert bgr == uni | {"channel_order": "bgr"}
    usual = [task for name, task in found.tasks.items() if name != "as_published"]
    assert {(task["hvg_input"], task["hvg_scope"]) for task in usual} == {("counts", "all")}


def test_table_5():
    found = read("sensitivity")
    by_options = {str(changed(variant)): name for name, variant in found.variants.items()}
    assert len(by_options) == len(found.variants) == 10
    for row in printed("Table 5"):
        factor, value = row.split("=")
        value = type(PAPER[factor])(value)
        name = by_options.pop(str({} if value == PAPER[factor] else {factor: value}), "full")
        assert name in (slug(row), "full")
        assert (name == "full") == (value == PAPER[factor])
    # the text of the paper has one value that the table lacks
    assert list(by_options.values()) == ["neighbours_8"]
    assert ran(found, "sthbc") == ran(found, "platforms") == set(found.variants)


def test_table_s3():
    found = read("small_sample")
    rows = [slug(re.sub(r" \(.*", "", row)) for row in printed("Table S3")]
    assert rows == ["train_c", "train_d", "train_full"]
    trained = {"train_c": {"STHBC_C"}, "train_d": {"STHBC_D"}, "train_full": BREAST}
    for row in rows:
        assert seen(found, row) == dict.fromkeys(("ViHBC", "XeHBC"), trained[row])
        assert seen(found, f"idc_{row}") == {"IDC": trained[row]}
        assert ran(found, f"idc_{row}") == {"spacrd_gene"}
    assert changed(found.variants["spacrd"]) == {}


def test_normal_colon_can_be_trained_on():
    """The comment of crc.yaml, taken at its word (METHODS.md S-24)."""
    text = (ROOT / "config" / "studies" / "crc.yaml").read_text()
    task = dict(re.findall(r"^#     (\w+): (.*)$", text, flags=re.MULTILINE))
    assert set(task) == {"source", "target"}
    with_normal = make_folds({"name": "patients", "split": "leave_one_patient_out", **task}, SHEET)
    usual = read("crc")
    assert {fold.name: set(fold.targets) for fold in with_normal} == {
        fold.name: set(fold.targets) for fold in usual.folds.values() if not fold.trained_by
    }
    for fold in with_normal:
        assert set(fold.sources) == seen(usual, "patients")[fold.name] | {"CRC_F1", "CRC_F2"}


def method_name(printed_name: str) -> str:
    """ "SpaCell-Plus" is spacell_plus, "f-AnoGAN" fanogan."""
    plain = printed_name.lower().replace("f-anogan", "fanogan")
    known = {re.sub(r"_", "", name): name for name in methods.names()}
    return known[re.sub(r"[^a-z0-9]", "", plain)]


@pytest.mark.parametrize(
    ("name", "task", "paper", "table"),
    [
        ("crc", "patients", "SpaCRD", "Table 1"),
        ("sthbc", "sections", "SpaCRD", "Table 2"),
        ("breast_transfer", "platforms", "SpaCRD", "Table 2"),
        ("meatrd_breast", "sections", "MEATRD", "Table 1"),
    ],
)
def test_every_method_of_a_table_runs_at_its_full_settings(name, task, paper, table):
    found = read(name)
    rows = {method_name(row) for row in rows_of(paper, table)}
    assert rows <= ran(found, task)
    for method in rows:
        spec = found.variants[method].spec
        assert found.variants[method].options == methods.resolve_options(spec, {})
    assert found.not_applicable == []


def test_normal_tissue_is_that_of_the_papers_or_declared():
    healthy = {f"HHB_v{number:02d}" for number in range(3, 11)}
    for fold in read("meatrd_breast").folds.values():
        assert (fold.sources, set(fold.normals), fold.negatives) == ((), healthy, False)
    for fold in read("crc").folds.values():
        assert (fold.normals, fold.negatives) == (("CRC_F1", "CRC_F2"), False)
    for name in ("sthbc", "breast_transfer"):
        assert all(fold.negatives for fold in read(name).folds.values())


def test_meatrd_table_3():
    found = read("meatrd_ablation")
    rows = {slug(row) for row in printed("Table 3", "MEATRD")}
    # METHODS.md 4.2
    assert {name: changed(found.variants[name], MEATRD) for name in rows} == {
        "full": {},
        "st_only": {"modalities": ["gene"]},
        "image_only": {"modalities": ["image"]},
        "wo_mgdat": {"fusion": "none"},
        "wo_tnm": {"mask_targets": False},
        "wo_re": {"stage3_input": "embedding"},
        "wo_oc": {"stage3": False},
    }
    # and each difference between paper and published code on its own
    alone = {name: changed(variant, MEATRD) for name, variant in found.variants.items() if name not in rows}
    reference = alone.pop("reference")
    together = alone.pop("m02_attention_scope")  # not without the masking of M-03
    assert together == {"attention_scope": "batch", **alone["m03_mask_scope"]}
    assert [len(options) for options in alone.values()] == [1] * len(alone)
    assert reference.items() <= {item for options in [*alone.values(), together] for item in options.items()}
    # the inverted score is no part of the preset: METHODS.md M-01
    assert set(alone["m01_score_flip"]) - set(reference) == {"score_flip"}


def test_meatrd_table_2():
    found = read("meatrd_sensitivity")
    names = {"embedding_dim": "d_embed", "bottleneck_dim": "d_bottleneck", "detection_dim": "d_detect"}
    by_options = {str(changed(variant, MEATRD)): name for name, variant in found.variants.items()}
    for row in printed("Table 2", "MEATRD"):
        factor, text = row.split("=")
        option = names.get(factor, factor)
        value = type(MEATRD[option])(text)
        name = by_options.pop(str({} if value == MEATRD[option] else {option: value}), "full")
        assert name == ("full" if value == MEATRD[option] else slug(row.replace("=", "_")))
    assert by_options == {}
