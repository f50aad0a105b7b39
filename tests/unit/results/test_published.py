"""The papers' printed numbers: every name has an entry, and only comparable numbers are compared."""

import logging
import re
import runpy
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ctrflow import logs, methods, schema, storage
from ctrflow.errors import InputError
from ctrflow.features import markers
from ctrflow.plan import sheet, study
from ctrflow.results import published

ROOT = Path(__file__).parents[3]
STUDY_SCHEMA = schema.read_yaml(ROOT / "workflow" / "schemas" / "study.schema.yaml")
CONFIG = schema.read_yaml(ROOT / "config" / "config.yaml")
SHEET = sheet.read_sheet([ROOT / "config" / "sections.tsv"])
LABELLED = set(SHEET.section[SHEET.labels != ""])
PRINTED = published.read_published(ROOT / "config" / "published.tsv")
NAMES_PATH = ROOT / "config" / "published_names.yaml"
NAMES = published.read_names(NAMES_PATH)
ST = [f"STHBC_{letter}" for letter in "ABCDEFGH"]
METRICS = ("auc", "ap", "f1_true_ratio", "ks")


def expand(content: dict) -> study.Study:
    checked = schema.check(content, STUDY_SCHEMA, "study")
    tissues = markers.tissues(ROOT / "config" / "markers")
    return study.expand(checked, SHEET, CONFIG["encoders"], CONFIG["seeds"], "study", marked=tissues)


@cache
def shipped(name: str) -> study.Study:
    return expand(schema.read_yaml(ROOT / "config" / "studies" / f"{name}.yaml"))


def plan_of(found: study.Study, n_genes: int = 3000, encoders=None) -> dict:
    return published.plan(found, SHEET, encoders or CONFIG["encoders"], n_genes)


def made_up(found: study.Study) -> pd.DataFrame:
    """A number for every run, section and metric, as metrics.tsv has them: NaN where a section has no labels."""
    noise = np.random.default_rng(0)
    rows = [
        {"task": run.task["name"], "encoder": run.encoder, "section": section}
        | {"variant": run.variant.name, "seed": run.seed}
        | {"metric": metric, "value": noise.random() if section in LABELLED else np.nan, "note": np.nan}
        for run in found.runs
        for section in run.fold.targets
        for metric in METRICS
    ]
    return pd.DataFrame(rows)


def compare(content, values=None, **how) -> pd.DataFrame:
    found = expand(content) if isinstance(content, dict) else content
    return published.compare(PRINTED, NAMES, plan_of(found, **how), made_up(found) if values is None else values)


def one_task(*entries, **more) -> dict:
    """Leave one ST section out with these methods."""
    task = {"name": "sections", "split": "leave_one_section_out", "source": 'cohort == "sthbc"'}
    return {"study": "s", "encoders": ["uni"], "methods": list(entries), "tasks": [task | more]}


def cell(frame, dataset, method, metric="AUC", table=None):
    rows = frame[(frame.dataset == dataset) & (frame.method == method) & (frame.metric == metric)]
    return rows if table is None else rows[rows.table == table]


# --- the names --------------------------------------------------------------------------------------------------------


def test_every_printed_name_has_an_entry_or_a_reason():
    assert published.unmapped(PRINTED, NAMES) == []
    more = pd.concat([PRINTED, PRINTED.tail(1).assign(method="NewNet")])
    assert published.unmapped(more, NAMES) == ["method NewNet"]
    with pytest.raises(InputError, match="method NewNet"):
        published.compare(more, NAMES, plan_of(shipped("small_sample")), published.section_values([]))


def test_every_entry_has_a_printed_name():
    for part in ("datasets", "methods", "metrics"):
        assert set(NAMES[part]) == set(PRINTED[part[:-1]])


def test_sections_are_those_of_the_sheet_and_reasons_are_given():
    known = set(SHEET.section)
    used = [*NAMES["groups"].values(), *([name] for name in NAMES["not_public"])]
    used += [line.get("sections", []) for line in NAMES["datasets"].values()]
    used += [one for line in NAMES["methods"].values() for one in line.get("instead", {}).values()]
    assert {name for names in used for name in names} <= known
    reasons = [line["why_not"] for part in published.LINES for line in NAMES[part].values() if "why_not" in line]
    assert len(reasons) == 2 + 3 + 3 + 2  # averaged datasets; modes; gains over the second; gains over beta 0.5
    assert all(len(reason) > 20 for reason in reasons)
    # IDC has no public labels, so the sheet has none
    assert not set(NAMES["not_public"]) & LABELLED


def test_a_printed_mean_has_the_stated_number_of_sections():
    for printed, line in NAMES["datasets"].items():
        count = re.search(r"\((mean|median)(\d+)\)", printed)
        if count:
            assert (line["over"], len(set(line["sections"]))) == (count[1], int(count[2]))
        elif "sections" in line:
            assert len(line["sections"]) == 1


def test_levels_are_the_printed_ones():
    """ "MEATRD[alpha=0.9]" changes one option, to 0.9."""
    levels = {"embedding_dim": "d_embed", "bottleneck_dim": "d_bottleneck", "detection_dim": "d_detect"}
    checked = 0
    for printed, line in NAMES["methods"].items():
        found = re.fullmatch(r"\w+\[(\w+)=([\d.]+)\]", printed)
        if found:
            assert line["options"] == {levels.get(found[1], found[1]): float(found[2])}
            checked += 1
    assert checked == 12 + 21  # Table 5 of SpaCRD and Table 2 of MEATRD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: names.pop("groups"), "groups"),
        (lambda names: names["methods"]["SpaCRD"].update(option={}), "SpaCRD: unknown key option"),
        (lambda names: names["methods"]["STAGE"].update(options={"apha": 1}), "STAGE: .*unknown option `apha`"),
        (lambda names: names["methods"]["STAGE"].update(method="stag"), "unknown method `stag`"),
        (lambda names: names["datasets"]["IDC"].update(train="her2"), "IDC: unknown group her2"),
        (lambda names: names["datasets"]["IDC"].update(over="mode"), "IDC: several sections need `over`"),
        (lambda names: names["datasets"]["CRC(mean12)"].pop("over"), r"CRC\(mean12\): several"),
        (lambda names: names["metrics"].update(AUC={}), "AUC: needs exactly one of"),
        (lambda names: names["metrics"].update(AUC={"ours": "acu"}), "AUC: unknown metric acu; known: auc, ap, "),
    ],
)
def test_mistakes_in_the_names_are_reported(tmp_path, change, message):
    import yaml

    names = schema.read_yaml(NAMES_PATH)
    change(names)
    path = tmp_path / "names.yaml"
    path.write_text(yaml.safe_dump(names))
    with pytest.raises(InputError, match=message):
        published.read_names(path)


def test_a_table_without_its_columns_is_refused(tmp_path):
    (tmp_path / "p.tsv").write_text("paper\ttable\nSpaCRD\tTable 1\n")
    with pytest.raises(InputError, match="dataset, method, metric"):
        published.read_published(tmp_path / "p.tsv")


# --- the shipped studies ----------------------------------------------------------------------------------------------

SAME, OTHER = published.AS_PRINTED, published.OTHER
# counted by hand: methods x sections x metrics
CELLS = {
    "crc": {("SpaCRD", "Table 1", SAME): 9 * 12 * 3, ("SpaCRD", "Table 3", SAME): 3, ("SpaCRD", "Table 4", SAME): 3},
    "sthbc": {
        ("SpaCRD", "Table 2", SAME): 5 * 8 * 3,
        ("SpaCRD", "Table 2", OTHER): 4 * 8 * 3,  # normal tissue is not HHB
        ("SpaCRD", "Table 3", SAME): 3,
        ("SpaCRD", "Text S8.2", SAME): 5,
        ("SpaCRD", "Text S8.2", OTHER): 4,
        ("MEATRD", "Table 1", OTHER): 3 * 9 * 2,
        ("MEATRD", "Table 2", OTHER): 7 * 2,
        ("MEATRD", "Table 3", OTHER): 2,
    },
    "breast_transfer": {
        ("SpaCRD", "Table 2", SAME): 5 * 2 * 3,
        ("SpaCRD", "Table 2", OTHER): 4 * 2 * 3,
        ("SpaCRD", "Table 3", SAME): 2 * 3,
        ("SpaCRD", "Table S3", SAME): 2 * 3,
    },
    "ablation": {
        ("SpaCRD", "Table 1", SAME): 12 * 3,
        ("SpaCRD", "Table 2", SAME): 10 * 3,
        ("SpaCRD", "Table 2", OTHER): 2 * 8 * 3,  # the published code, with UNI and as it was
        ("SpaCRD", "Table 3", SAME): 4 * 3,
        ("SpaCRD", "Table 3", OTHER): 2 * 3,
        ("SpaCRD", "Table 4", SAME): 7 * 2 * 3,
        ("SpaCRD", "Table 5", SAME): 4 * 3,
        ("SpaCRD", "Table S3", SAME): 2 * 3,
        ("SpaCRD", "Text S8.2", SAME): 1,
        ("SpaCRD", "Text S8.2", OTHER): 2,
    },
    "extractors": {
        ("SpaCRD", "Table 1", SAME): 12 * 3,
        ("SpaCRD", "Table 2", SAME): 10 * 3,
        ("SpaCRD", "Table 3", SAME): 4 * 4 * 3,
        ("SpaCRD", "Table 4", SAME): 2 * 3,
        ("SpaCRD", "Table 5", SAME): 4 * 3,
        ("SpaCRD", "Table S3", SAME): 2 * 3,
        ("SpaCRD", "Text S8.2", SAME): 1,
    },
    "sensitivity": {
        ("SpaCRD", "Table 2", SAME): 10 * 3,
        ("SpaCRD", "Table 3", SAME): 3 * 3,
        ("SpaCRD", "Table 4", SAME): 3,
        ("SpaCRD", "Table 5", SAME): 12 * 3,
        ("SpaCRD", "Table S3", SAME): 2 * 3,
        ("SpaCRD", "Text S8.2", SAME): 1,
    },
    "small_sample": {
        ("SpaCRD", "Table 2", SAME): 2 * 3,
        ("SpaCRD", "Table 3", SAME): 2 * 3,
        ("SpaCRD", "Table S3", SAME): 3 * 2 * 3,
    },
    "meatrd_breast": {
        ("SpaCRD", "Table 2", SAME): 3 * 8 * 3,
        ("SpaCRD", "Table 2", OTHER): 8 * 3,  # STANDS knows eight healthy sections here, three in the paper
        ("SpaCRD", "Text S8.2", SAME): 3,
        ("SpaCRD", "Text S8.2", OTHER): 1,
        ("MEATRD", "Table 1", SAME): 10 * 9 * 2,
        ("MEATRD", "Table 2", SAME): 7 * 2,
        ("MEATRD", "Table 3", SAME): 2,
    },
    "meatrd_ablation": {
        ("SpaCRD", "Table 2", SAME): 8 * 3,
        ("SpaCRD", "Table 2", OTHER): 8 * 3,
        ("SpaCRD", "Text S8.2", SAME): 1,
        ("SpaCRD", "Text S8.2", OTHER): 1,
        ("MEATRD", "Table 1", SAME): 9 * 2,
        ("MEATRD", "Table 1", OTHER): 9 * 2,
        ("MEATRD", "Table 2", SAME): 8 * 2,  # the defaults, and two MGDAT layers as in the code
        # the published code has other values of alpha than the three printed
        ("MEATRD", "Table 2", OTHER): 6 * 2,
        ("MEATRD", "Table 3", SAME): 7 * 2,
        ("MEATRD", "Table 3", OTHER): 2,
    },
    "meatrd_sensitivity": {
        ("SpaCRD", "Table 2", SAME): 8 * 3,
        ("SpaCRD", "Text S8.2", SAME): 1,
        ("MEATRD", "Table 1", SAME): 9 * 2,
        ("MEATRD", "Table 2", SAME): 21 * 2,
        ("MEATRD", "Table 3", SAME): 2,
    },
    "demo": {},
    "demo_methods": {},
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_of_the_shipped_studies(name):
    compared = compare(shipped(name))
    assert dict(Counter(zip(compared.paper, compared.table, compared.settings, strict=True))) == CELLS[name]
    assert list(compared.columns) == list(published.COMPARED)
    if CELLS[name]:
        assert set(compared.seeds) == {1 if variant == "scmap" else 5 for variant in compared.variant}
        assert set(compared.note[compared.settings == OTHER].str.contains("not the paper's settings")) <= {True}
        assert not compared.note[compared.settings == SAME].str.contains("not the paper's settings").any()


def test_all_shipped_studies_but_those_of_given_models_are_counted():
    given = {"example", "my_section"}
    assert {path.stem for path in (ROOT / "config" / "studies").glob("*.yaml")} - given == set(CELLS)


@pytest.mark.parametrize(
    ("name", "paper", "table"),
    [
        ("ablation", "SpaCRD", "Table 4"),
        ("sensitivity", "SpaCRD", "Table 5"),
        ("meatrd_ablation", "MEATRD", "Table 3"),
        ("meatrd_sensitivity", "MEATRD", "Table 2"),
    ],
)
def test_rows_match_the_variant_of_their_name(name, paper, table):
    found = compare(shipped(name))
    found = found[(found.paper == paper) & (found.table == table) & (found.settings == SAME)]
    for row in found.itertuples():
        inside = re.search(r"\[(.*)\]", row.method)[1].lower().replace("w/o", "wo")
        assert row.variant in (re.sub(r"[^a-z0-9.]+", "_", inside), "full")
    assert set(found.variant) > {"full"}


def test_small_training_sets_do_not_match_the_full_one():
    found = compare(shipped("small_sample"))
    by_method = found.groupby("method").task.agg(set).to_dict()
    assert by_method == {
        "SpaCRD": {"train_full"},
        "SpaCRD[extractor=UNI]": {"train_full"},
        "SpaCRD[train=C (176 spots)]": {"train_c"},
        "SpaCRD[train=D (306 spots)]": {"train_d"},
        "SpaCRD[train=Full (3,481 spots)]": {"train_full"},
    }


# --- comparison -------------------------------------------------------------------------------------------------------


def test_mean_and_sd_over_seeds_by_hand():
    found = expand(one_task("spacrd"))
    values = made_up(found)
    mine = (values.section == "STHBC_B") & (values.metric == "auc")
    values.loc[mine, "value"] = [0.80, 0.82, 0.84, 0.86, 0.88]
    row = cell(compare(found, values), "STHBC_B", "SpaCRD", table="Table 2").iloc[0]
    assert row.ours == pytest.approx(0.84)
    assert row.ours_sd == pytest.approx(np.sqrt((0.04**2 + 0.02**2) * 2 / 5))  # population
    printed = PRINTED[(PRINTED.table == "Table 2") & (PRINTED.dataset == "STHBC_B") & (PRINTED.method == "SpaCRD")]
    assert (row.published, row.published_sd) == tuple(printed.iloc[0][["mean", "sd"]].astype(float))
    assert row.difference == pytest.approx(0.84 - row.published)
    assert (row.seeds, row.sections, row.sections_printed, row.uncertain) == (5, 1, 1, "no")


def test_mean_over_sections_is_computed_per_seed():
    found = shipped("ablation")
    values = made_up(found)
    row = cell(compare(found, values), "HBC(mean11)", "SpaCRD[w/o BCA]").iloc[0]
    mine = values[
        (values.variant == "wo_bca") & (values.metric == "auc") & values.section.isin([*ST, "ViHBC", "XeHBC"])
    ]
    means = [mine.value[mine.seed == seed].mean() for seed in sorted(set(mine.seed))]
    assert len(mine) == 50
    assert row.ours == pytest.approx(np.mean(means), abs=1e-12)
    assert row.ours_sd == pytest.approx(np.std(means), abs=1e-12)
    assert (row.sections, row.sections_printed, row.task) == (10, 11, "sthbc, platforms")
    assert "mean of 10 of 11 sections (IDC: neither" in row.note


def test_median_over_sections():
    found = expand(one_task("spacrd") | {"seeds": [1]})
    values = made_up(found)
    of_ks = values.metric == "ks"
    level = dict(zip(ST, [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], strict=True))
    values.loc[of_ks, "value"] = values.section[of_ks].map(level)
    row = cell(compare(found, values), "STHBC(median8)", "SpaCRD", "KS").iloc[0]
    assert row.ours == pytest.approx(0.5)
    assert np.isnan(row.ours_sd)
    assert (row.seeds, row.sections) == (1, 8)


def test_a_mean_that_lacks_a_public_section_is_not_compared():
    found = expand(one_task("spacrd"))
    values = made_up(found)
    values.loc[values.section == "STHBC_D", "value"] = np.nan
    compared = compare(found, values)
    assert "STHBC(mean8)" not in set(compared.dataset)
    assert set(compared.dataset) == set(ST) - {"STHBC_D"}


def test_only_seeds_common_to_all_sections_are_used():
    found = expand(one_task("spacrd"))
    values = made_up(found)
    values.loc[(values.section == "STHBC_D") & (values.seed == 42), "value"] = np.nan
    compared = compare(found, values)
    assert set(compared.seeds[compared.dataset == "STHBC_D"]) == {4}
    assert set(compared.seeds[compared.dataset == "STHBC(mean8)"]) == {4}
    assert set(compared.seeds[compared.dataset == "STHBC_A"]) == {5}


def test_a_users_idc_completes_the_mean():
    found = shipped("sensitivity")
    planned, values = plan_of(found), made_up(found)
    to_idc = [run | {"section": "IDC", "fold": "IDC"} for run in planned["runs"] if run["section"] == "ViHBC"]
    planned["runs"] += to_idc
    values = pd.concat([values, values[values.section == "ViHBC"].assign(section="IDC")])
    row = cell(published.compare(PRINTED, NAMES, planned, values), "HBC(mean11)", "SpaCRD[alpha=1.0]").iloc[0]
    assert (row.sections, row.sections_printed) == (11, 11)
    assert "of 11 sections" not in row.note


def test_another_preset_is_noted_and_only_used_without_the_papers():
    fast = {"id": "quick", "method": "spacrd", "options": {"preset": "fast"}}
    rows = cell(compare(one_task(fast)), "STHBC_A", "SpaCRD")
    assert list(rows.settings) == [OTHER]
    assert "not the paper's settings: preset fast" in rows.note.iloc[0]
    both = cell(compare(one_task(fast, "spacrd")), "STHBC_A", "SpaCRD")
    assert list(both.variant) == ["spacrd"]


def test_the_published_code_is_listed_with_the_papers_settings():
    code = {"id": "code", "method": "spacrd", "options": {"preset": "reference"}}
    rows = cell(compare(one_task("spacrd", code)), "STHBC_A", "SpaCRD")
    assert list(zip(rows.variant, rows.settings, strict=True)) == [("spacrd", SAME), ("code", OTHER)]


def test_a_switch_under_another_preset():
    fast = {"id": "quick", "method": "spacrd", "options": {"preset": "fast", "fusion": "concat"}}
    content = one_task(fast, source='cohort == "crc"') | {"study": "c"}
    content["tasks"][0]["split"] = "leave_one_patient_out"
    rows = compare(content)
    assert set(rows.method) == {"SpaCRD[w/o BCA]"}
    assert set(rows.settings) == {OTHER}


def test_other_options_are_another_method():
    odd = {"id": "odd", "method": "spacrd", "options": {"alpha": 0.3}}
    assert compare(one_task(odd)).empty


def test_another_encoder_is_noted():
    content = one_task("spacrd", "stage") | {"encoders": ["hed_texture"]}
    compared = compare(content)
    rows = cell(compared, "STHBC_A", "SpaCRD")
    assert "encoder hed_texture, not uni" in rows.note.iloc[0]
    # which reads no image
    assert set(cell(compared, "STHBC_A", "STAGE").settings) == {SAME}
    # rows of different encoders are not mixed
    assert not compared.method.str.contains("extractor").any()


def test_random_weights_are_noted():
    encoders = CONFIG["encoders"] | {"uni": {"model": "uni", "weights": "random"}}
    rows = cell(compare(one_task("spacrd"), encoders=encoders), "STHBC_A", "SpaCRD")
    assert "encoder uni with weights random" in rows.note.iloc[0]


def test_fewer_genes_are_noted():
    rows = cell(compare(one_task("spacrd"), n_genes=1000), "STHBC_A", "SpaCRD")
    assert "1,000 genes, not 3,000" in rows.note.iloc[0]


def test_genes_ranked_otherwise_are_noted():
    rows = cell(compare(one_task("spacrd", hvg_input="log", hvg_scope="first")), "STHBC_A", "SpaCRD")
    assert "genes ranked on log values and on the first section alone" in rows.note.iloc[0]


def test_normal_tissue_of_another_kind_is_noted():
    negatives = compare(one_task("meatrd", "stands", normal="source_negatives"))
    assert set(negatives.settings) == {OTHER}
    assert negatives.note.str.contains("normal tissue: the source sections' spots labelled 0, not HHB_v0").all()
    three = 'section in ["HHB_v05", "HHB_v06", "HHB_v07"]'
    rows = compare(one_task("meatrd", "stands", normal=three))
    assert set(cell(rows, "STHBC_A", "STANDS").settings) == {SAME}
    assert set(cell(rows, "STHBC_A", "MEATRD").settings) == {OTHER}
    assert cell(rows, "STHBC_A", "MEATRD").note.str.contains("normal tissue: HHB_v05, HHB_v06, HHB_v07, not").all()


def test_other_training_sections_are_another_experiment():
    fewer = 'section in ["STHBC_A", "STHBC_B", "STHBC_C"]'
    assert compare(one_task("spacrd", source=fewer)).empty


def test_additional_training_on_normal_sections_is_noted():
    task = {"source": 'cohort in ["crc", "crc_normal"]', "target": 'cohort == "crc"', "split": "leave_one_patient_out"}
    compared = compare(one_task("spacrd", **task))
    assert len(compared) == 12 * 3 + 3 + 3
    assert set(compared.settings) == {OTHER}
    assert compared.note.str.contains("also trained on CRC_F1, CRC_F2").all()


def test_a_cell_with_a_note_or_that_cannot_be_read_is_uncertain():
    compared = compare(shipped("crc"))
    cut = cell(compared, "CRC_G2", "SimpleNet", "AP").iloc[0]
    assert (cut.uncertain, np.isnan(cut.published), np.isnan(cut.difference)) == ("yes", True, True)
    assert cut.note.startswith("print: cell cut off")
    assert Counter(compared.uncertain) == {"no": 330 - 2, "yes": 2}


def test_a_study_without_labels_or_of_other_sections_gives_a_header():
    found = expand(one_task("spacrd"))
    empty = compare(found, made_up(found).assign(value=np.nan))
    assert empty.empty
    assert list(empty.columns) == list(published.COMPARED)
    assert published.paper_tables(PRINTED, empty) == {}


# --- our numbers that are not in metrics.tsv --------------------------------------------------------------------------


def test_spots_and_cancer_share():
    checks = [
        {"section": "STHBC_A", "spots": 346, "cancer_share": 0.87572},
        {"section": "IDC", "spots": 4727, "cancer_share": None},
        {"section": "mine", "spots": 10, "cancer_share": 0.5},
    ]
    compared = published.compare(PRINTED, NAMES, plan_of(expand(one_task("linear"))), published.section_values(checks))
    assert list(zip(compared.dataset, compared.metric, strict=True)) == [
        ("STHBC_A", "n_spots"),
        ("STHBC_A", "cancer_ratio"),
        ("IDC", "n_spots"),
    ]
    assert list(compared.ours) == [346, 0.87572, 4727]
    assert compared.seeds.isna().all()
    assert list(compared.difference) == pytest.approx([0, 0.87572 - 0.899, 0])


def test_costs():
    planned = plan_of(shipped("breast_transfer"))
    run = {"task": "platforms", "fold": "ViHBC", "encoder": "uni", "seed": 42, "threads": 1.0}
    empty = {"pretrain_s": np.nan, "gpu_mb": np.nan}
    costs = pd.DataFrame(
        [
            run | empty | {"variant": "spacrd", "params": 8694913, "train_s": 100.0, "infer_s": 2.0}
            | {"train_rss_mb": 300.0, "infer_rss_mb": 50.0, "device": "cpu"},
            run | {"variant": "meatrd", "params": 57e6, "train_s": 60.0, "infer_s": 9.0, "train_rss_mb": 900}
            | {"infer_rss_mb": 80.0, "device": "H200", "pretrain_s": 40.0, "gpu_mb": 5000.0},
            # which does not train
            run | empty | {"variant": "istar", "params": 1e6, "train_s": np.nan, "infer_s": 7.0, "train_rss_mb": np.nan}
            | {"infer_rss_mb": 70.0, "device": "cpu"},
        ]
    )  # fmt: skip
    compared = published.compare(PRINTED, NAMES, planned, published.cost_values(costs, planned))
    assert set(compared.table) == {"Table S2"}
    found = {(row.method, row.metric): row.ours for row in compared.itertuples()}
    assert found == pytest.approx(
        {
            ("SpaCRD", "params_million"): 8.694913,
            ("SpaCRD", "train_seconds"): 100,
            ("SpaCRD", "inference_seconds"): 2,
            ("SpaCRD", "memory_MB"): 300,
            ("MEATRD", "params_million"): 57,
            ("MEATRD", "train_seconds"): 100,
            ("MEATRD", "inference_seconds"): 9,
            ("MEATRD", "memory_MB"): 5000,
            ("iStar", "params_million"): 1,
            ("iStar", "inference_seconds"): 7,
            ("iStar", "memory_MB"): 70,
        }
    )
    notes = {(row.method, row.metric): row.note for row in compared.itertuples()}
    assert "on cpu, 1 thread; printed: one RTX 3090; resident memory" in notes["SpaCRD", "memory_MB"]
    assert "resident" not in notes["MEATRD", "memory_MB"]
    assert "on cpu, 1 thread; printed: one RTX 3090" in notes["SpaCRD", "train_seconds"]


def test_mean_scores_by_region():
    calls = pd.DataFrame(
        {
            "section": "ViHBC",
            "spot": list("abcdefg"),
            "score": [0.1, 0.3, 0.5, 0.7, 0.8, 1.0, 0.9],
            "call_mixture": [0, 0, 0, 1, 1, 1, 1],
        }
    )
    # in another order, and one spot that no method scored
    labels = pd.DataFrame(
        {
            "spot": list("gfedcbax"),
            "label": pd.array([None, 1, 1, 0, 0, 0, 0, 1], dtype="Int64"),
            "region": ["", "IDC_4", "DCIS/LCIS_1", "Tumor_edge_2", "Tumor_edge_1", "Healthy_2", "Healthy_1", "IDC_1"],
        }
    )
    run = {"task": "platforms", "encoder": "uni", "variant": "spacrd", "seed": 42}
    wanted = published.call_sections(PRINTED, NAMES)
    assert wanted == {"ViHBC", "XeHBC", "hBC_I1"}
    values = published.call_values([run], [calls], {"ViHBC": labels}, NAMES, wanted)
    found = dict(zip(values.metric, values.value, strict=True))
    assert found == pytest.approx(
        {
            "score_mean_healthy": 0.2,
            "score_mean_tumor-edge": 0.6,
            "score_mean_tumor": 0.9,
            # of the label 0, whatever the word
            "score_mean_normal": 0.4,
            # d is called and 0, g is called and unknown
            "precision": 2 / 3,
            "recall": 1.0,
        }
    )
    planned = plan_of(shipped("breast_transfer"))
    compared = published.compare(PRINTED, NAMES, planned, values)
    assert list(compared.metric) == ["score_mean_healthy", "score_mean_tumor-edge", "score_mean_tumor"]
    assert list(compared.published) == [0.35, 0.70, 0.94]
    # other sections and unlabelled ones are ignored
    assert published.call_values([run], [calls], {"ViHBC": labels}, NAMES, {"XeHBC"}).empty
    assert published.call_values([run], [calls], {}, NAMES, wanted).empty


def test_severity_of_cell_types():
    calls = pd.DataFrame(
        {"section": "XeHBC", "spot": list("abcde"), "score": [0.9, 0.8, 0.6, 0.4, 0.2], "call_mixture": [1, 1, 1, 0, 0]}
    )
    labels = pd.DataFrame(
        {
            "spot": list("abcde"),
            "label": pd.array([1, 1, 1, 1, 0], dtype="Int64"),
            "region": ["Invasive_Tumor", "Prolif_Invasive_Tumor", "DCIS_1", "DCIS_2", "Stromal"],
        }
    )
    run = {"task": "platforms", "encoder": "uni", "variant": "spacell_plus", "seed": 42}
    values = published.call_values([run], [calls], {"XeHBC": labels}, NAMES, {"XeHBC"})
    compared = published.compare(PRINTED, NAMES, plan_of(shipped("breast_transfer")), values)
    found = dict(zip(compared.metric, compared.ours, strict=True))
    assert found == pytest.approx({"score_mean_invasive": 0.85, "score_mean_in_situ": 0.5, "score_mean_normal": 0.2})


def test_tumour_edge_of_figure_3():
    """Precision and recall of MEATRD with beta 0.1, for who runs it on the section."""
    content = {
        "study": "edge",
        "encoders": ["uni"],
        "methods": [{"id": "beta_0.1", "method": "meatrd", "options": {"beta": 0.1}}],
        "tasks": [
            {"name": "edge", "split": "transfer", "normal": 'cohort == "hhb"', "target": 'cohort == "hbc_i1"'},
        ],
    }
    calls = pd.DataFrame({"section": "hBC_I1", "spot": list("abc"), "score": [3.0, 2.0, 1.0], "call_mixture": [1, 1, 0]})
    labels = pd.DataFrame({"spot": list("abc"), "label": pd.array([1, 0, 1], dtype="Int64"), "region": "edge"})
    run = {"task": "edge", "encoder": "uni", "variant": "beta_0.1", "seed": 42}
    values = published.call_values([run], [calls], {"hBC_I1": labels}, NAMES, {"hBC_I1"})
    compared = published.compare(PRINTED, NAMES, plan_of(expand(content)), values)
    assert list(zip(compared.metric, compared.ours, compared.published, strict=True)) == [
        ("precision", 0.5, 0.693),
        ("recall", 0.5, 0.895),
    ]


# --- the papers' layout -----------------------------------------------------------------------------------------------


def test_layouts_are_those_of_the_papers():
    found = shipped("ablation")
    tables = published.paper_tables(PRINTED, compare(found))
    assert set(tables) == {
        "SpaCRD_Table_1", "SpaCRD_Table_2", "SpaCRD_Table_3", "SpaCRD_Table_4", "SpaCRD_Table_5", "SpaCRD_Table_S3",
        "SpaCRD_Text_S8.2",
    }  # fmt: skip
    first = tables["SpaCRD_Table_1"]
    assert list(first.columns) == ["metric", "method", *NAMES["groups"]["crc"]]
    assert len(first) == 3 * 9
    fourth = tables["SpaCRD_Table_4"]
    assert list(fourth.method) == ["Image-based", "ST-based", "w/o BCA", "w/o RVAE", "w/o VRBCA", "w/o CL", "full"]
    assert list(fourth.columns[1:4]) == ["HBC(mean11) AUC", "HBC(mean11) AP", "HBC(mean11) F1"]
    fifth = tables["SpaCRD_Table_5"]
    assert (list(fifth.metric), fifth.columns[1], fifth.shape) == (["AUC", "AP", "F1"], "alpha=0.0", (3, 13))
    median = tables["SpaCRD_Text_S8.2"]
    assert median.columns[1] == "STHBC(median8) KS"
    assert median["STHBC(median8) KS"].str.contains("printed").all()
    # every printed cell has its place
    for name, table in tables.items():
        printed = PRINTED[PRINTED.table == re.sub("_", " ", name.removeprefix("SpaCRD_"))]
        printed = printed[printed.paper == "SpaCRD"]
        assert sum(text.count("(printed ") for text in table.to_numpy().ravel()) == len(printed)


def test_meatrd_has_methods_in_columns():
    tables = published.paper_tables(PRINTED, compare(shipped("meatrd_breast")))
    first = tables["MEATRD_Table_1"]
    assert list(first.columns[:4]) == ["dataset", "metric", "MEATRD", "M3DM"]
    assert list(first.dataset[-2:]) == ["10x-hBC(mean8)"] * 2
    assert set(tables) >= {"MEATRD_Table_2", "MEATRD_Table_3"}


def test_text_of_a_cell():
    found = shipped("sthbc")
    values = made_up(found)
    for section, numbers in {"STHBC_A": [0.951, 0.953, 0.955], "STHBC_B": [0.5, 0.5, 0.5]}.items():
        mine = (values.section == section) & (values.metric == "auc") & values.seed.isin([42, 123, 456])
        values.loc[mine, "value"] = values.seed[mine].map(dict(zip([42, 123, 456], numbers, strict=True)))
    compared = compare(found, values[values.seed.isin([42, 123, 456])])
    table = published.paper_tables(PRINTED, compared)["SpaCRD_Table_2"].set_index(["metric", "method"])
    # the sd of .951, .953, .955 is .0016
    assert table.loc[("AUC", "SpaCRD"), "STHBC_A"] == "0.953 ± 0.002 (printed 0.979 ± 0.002)"
    # normal tissue is not the paper's, and the print repeats another row
    assert table.loc[("AUC", "SimpleNet"), "STHBC_B"] == "0.500 ± 0.000 * (printed 0.468 ± 0.157 ?)"
    assert table.loc[("AUC", "SpaCRD"), "ViHBC"] == "– (printed 0.900 ± 0.029)"
    assert table.loc[("AP", "SimpleNet"), "IDC"] == "– (printed – ?)"


def test_text_of_a_mean_that_lacks_a_section_and_of_a_count():
    found = shipped("ablation")
    values = pd.concat(
        [made_up(found), published.section_values([{"section": "XeHBC", "spots": 4000, "cancer_share": 0.5}])]
    )
    values.loc[values.metric == "ap", "value"] = 0.25
    tables = published.paper_tables(PRINTED, compare(found, values))
    assert tables["SpaCRD_Table_4"].set_index("method").loc["w/o CL", "HBC(mean11) AP"] == (
        "0.250 ± 0.000 † (printed 0.886)"
    )
    counts = tables["SpaCRD_Table_S1"].set_index("dataset")
    printed = PRINTED[(PRINTED.table == "Table S1") & (PRINTED.dataset == "XeHBC")].set_index("metric")["mean"]
    assert list(counts.loc["XeHBC"]) == [f"4000 (printed {printed['n_spots']})", "0.500 (printed 0.349)"]
    assert counts.loc["CRC_A1", "n_spots"].startswith("– (printed ")


def test_the_papers_settings_come_first_in_a_table():
    code = {"id": "code", "method": "spacrd", "options": {"preset": "reference"}}
    found = expand(one_task(code, "spacrd"))
    values = made_up(found)
    values["value"] = values.variant.map({"code": 0.1, "spacrd": 0.9})
    table = published.paper_tables(PRINTED, compare(found, values))["SpaCRD_Table_2"].set_index(["metric", "method"])
    assert table.loc[("AUC", "SpaCRD"), "STHBC_A"].startswith("0.900 ± 0.000 (printed")


def test_tables_are_written_atomically_and_again(tmp_path):
    folder = tmp_path / "tables" / "papers"
    published.write_tables({"SpaCRD_Table_1": pd.DataFrame({"method": ["a"]})}, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.txt", "SpaCRD_Table_1.tsv"]
    assert "*" in (folder / "README.txt").read_text()
    published.write_tables({}, folder)
    assert [path.name for path in folder.iterdir()] == ["README.txt"]
    assert [path.name for path in folder.parent.iterdir()] == ["papers"]


# --- the step ---------------------------------------------------------------------------------------------------------


def test_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "setup", lambda path: logging.getLogger("ctrflow"))
    found = shipped("breast_transfer")
    planned = plan_of(found)
    runs = [
        {"task": run.task["name"], "fold": run.fold.name, "encoder": run.encoder}
        | {"variant": run.variant.name, "seed": run.seed}
        for run in found.runs
        if (run.variant.name, run.fold.name, run.seed) == ("spacrd", "ViHBC", 42)
    ]
    metrics = made_up(found)
    storage.write_tsv(metrics[(metrics.variant == "spacrd") & (metrics.section == "ViHBC")], tmp_path / "metrics.tsv")
    calls = pd.DataFrame({"section": "ViHBC", "spot": ["a", "b"], "score": [0.1, 0.9], "call_mixture": [0, 1]})
    storage.write_tsv(calls, tmp_path / "calls.tsv")
    labels = pd.DataFrame({"spot": ["a", "b"], "label": [0, 1], "region": ["Healthy_1", "IDC_1"]})
    storage.write_tsv(labels, tmp_path / "ViHBC" / "labels.tsv")
    storage.write_json({"section": "ViHBC", "spots": 2, "cancer_share": 0.5}, tmp_path / "ViHBC" / "check.json")
    cost = runs[0] | {"params": 8694913, "pretrain_s": None, "train_s": 1.0, "infer_s": 1.0, "train_rss_mb": 1.0}
    cost |= {"infer_rss_mb": 1.0, "gpu_mb": None, "threads": 1, "device": "cpu"}
    storage.write_tsv(pd.DataFrame([cost]), tmp_path / "efficiency.tsv")
    given = SimpleNamespace(
        log=[str(tmp_path / "log")],
        input=SimpleNamespace(
            metrics=tmp_path / "metrics.tsv",
            calls=[str(tmp_path / "calls.tsv")],
            labels=[str(tmp_path / "ViHBC" / "labels.tsv")],
            checks=[str(tmp_path / "ViHBC" / "check.json")],
            costs=tmp_path / "efficiency.tsv",
            published=ROOT / "config" / "published.tsv",
            names=NAMES_PATH,
        ),
        params=SimpleNamespace(runs=runs, plan=planned),
        output=SimpleNamespace(published=tmp_path / "published.tsv", papers=tmp_path / "papers"),
    )
    runpy.run_path(str(ROOT / "scripts" / "compare_published.py"), init_globals={"snakemake": given})
    compared = storage.read_tsv(tmp_path / "published.tsv")
    assert Counter(compared.table) == {
        "Table 2": 3, "Table 3": 3, "Table S1": 2, "Table S2": 4, "Table S3": 3, "Text S8.2": 2,
    }  # fmt: skip
    assert (tmp_path / "papers" / "SpaCRD_Table_S2.tsv").is_file()
    table = storage.read_tsv(tmp_path / "papers" / "SpaCRD_Table_S2.tsv").set_index("method")
    assert table.loc["SpaCRD", "params_million"] == "8.69 (printed 8.70)"


def test_names_include_every_method_of_the_papers():
    mapped = {line["method"] for line in NAMES["methods"].values() if "method" in line}
    ours_alone = {
        "linear", "boosting", "patchcore", "marker_score", "cnv", "oracle", "random", "total_counts", "darkness", "strokes",
        "propagation", "prior",
    }  # fmt: skip
    assert mapped == set(methods.names()) - ours_alone
