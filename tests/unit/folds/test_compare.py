"""Sections of a study held against each other: gene names, markers, depth and words of labels, worked by hand."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import doctor, storage
from ctrflow.features import copy_numbers
from ctrflow.folds import compare, genes
from ctrflow.folds.tables import require_both_classes
from ctrflow.readers.genes import of_one_species
from runs import ROOT

SYMBOLS = [f"{stem}{number}" for stem in ("KRT", "HLA-", "MUC", "COL") for number in range(1, 11)]
IDS = [f"ENSG{number:011d}" for number in range(1, 41)]
GENES = str(ROOT / "config" / "genes" / "human.tsv.gz")
BREAST = str(ROOT / "config" / "markers" / "breast.tsv")


def look(section, names, labels=None, platform="st", cohort="mini", depth=1, spots=12):
    """12 spots with `depth` counts of each gene; `labels` are (word, label) of the first spots."""
    counts = np.full((spots, len(names)), depth, np.float32)
    adata = anndata.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=list(names)))
    adata.uns["section"] = {"section": section, "platform": platform, "cohort": cohort}
    if labels is None:
        return compare.look(adata)
    words, known = zip(*(labels + [("", None)] * (spots - len(labels))), strict=True)
    return compare.look(adata, pd.DataFrame({"region": words, "label": pd.array(known, dtype="Int64")}))


def fold(learned, targets, task="map", labelled=None):
    return {"task": task, "learned": learned, "labelled": learned if labelled is None else labelled, "targets": targets}


def names_of(looks, *folds, **more):
    return compare.names(compare.Study(looks, folds), **more)


def test_what_is_kept_of_a_section():
    labels = [("Tumor", 1), ("Tumor", 1), ("fat", 0), ("edge", None)]
    one = look("S1", SYMBOLS, labels, depth=3)
    assert (one.section, one.platform, one.cohort, one.counts, one.n_spots) == ("S1", "st", "mini", 120, 12)
    assert (one.genes, one.spots.tolist()) == (tuple(SYMBOLS), [12] * 40)
    assert one.words == {("Tumor", 1): 2, ("fat", 0): 1, ("edge", None): 1, ("", None): 8}
    assert one.classes == {0, 1}


# --- gene names -------------------------------------------------------------------------------------------------------


def test_symbols_ids_and_prefixes_in_one_look():
    """The table of the study and what follows from it stand together, last on the page."""
    _, plain = of_one_species([f"GRCh38_{name}" for name in SYMBOLS], "s3.h5ad")  # as readers do
    looks = [look("S1", SYMBOLS), look("S2", IDS, platform="h5ad"), look("S3", plain[:38], platform="h5ad")]
    findings = names_of(looks, fold(["S1"], ["S2"]), fold(["S1"], ["S3"]), rows=[{"section": f"S{n}"} for n in "1234"])
    lines = doctor.page(findings).splitlines()
    assert lines[:5] == [
        "problem  study  gene names  named by            such as          genes                sections",
        "                            human gene symbols  KRT1             38 to 40, 38 in all  S1, S3",
        "                            human Ensembl ids   ENSG00000000001  40                   S2",
        "                            not compared, as not read: 1 of 4 sections (S4)",
        "problem  study  map         the run would stop: S1, S2 have no gene in common",
    ]
    assert " ".join(" ".join(lines[5:-2]).split()) == (
        "S1 and S2 share 0 of 40 genes (0%); gene symbols in S1 (KRT1, KRT2, KRT3), Ensembl ids in S2 "
        "(ENSG00000000001, ENSG00000000002, ENSG00000000003): give S2 gene symbols too (in an .h5ad as var_names or "
        "in a column gene_symbols of var, in a table of counts as the names of its genes)"
    )
    assert lines[-1] == "2 problems, 0 warnings, 0 ok"


def test_a_study_whose_names_fit():
    panel, whole = SYMBOLS[:10], SYMBOLS
    table, task = names_of([look("S1", whole), look("S2", panel), look("S3", whole)], fold(["S1", "S3"], ["S2"]))
    assert (table.level, table.check, table.subject) == ("ok", "study", "gene names")
    assert "human gene symbols  KRT1     10 to 40, 10 in all  S1, S2, S3" in table.message
    assert (task.level, task.subject) == ("ok", "map")
    assert "share 10 genes (two sections 100% of those of the smaller)" in task.message  # a panel of them is no fault
    assert names_of([look("S1", whole)], fold([], ["S1"])) == []


@pytest.mark.parametrize(
    ("names", "cause", "cure"),
    [
        (IDS, "Ensembl ids in T (ENSG00000000001, ", "give T gene symbols too"),
        (list(map(str, range(100, 140))), "Entrez numbers in T (100, 101, 102)", "give T gene symbols too"),
        ([name.title() for name in SYMBOLS], "as of human and mouse, in S1 (KRT1, ", "of one species"),
        ([f"hs_{name}" for name in SYMBOLS], "by the beginning hs_ in S1", "leave it out"),
    ],
)
def test_the_cause_of_unlike_names_is_told_with_its_cure(names, cause, cure):
    table, task = names_of([look("S1", SYMBOLS), look("S2", SYMBOLS), look("T", names)], fold(["S1", "S2"], ["T"]))
    assert (table.level, task.level) == ("problem", "problem")
    assert "S1 and T share 0 of 40 genes (0%); " in task.message
    assert cause in task.message
    assert cure in task.message
    assert "S2 and T" not in task.message  # the same again


@pytest.mark.parametrize(
    ("ours", "theirs", "cause"),
    [
        (IDS, [f"{one}.{number}" for number, one in enumerate(IDS)], "differ in their version number"),
        (IDS, [one.replace("ENSG", "ENSMUSG") for one in IDS], "Ensembl ids of two species (ENSG, ENSMUSG)"),
    ],
)
def test_ids_that_differ(ours, theirs, cause):
    _, task = names_of([look("S1", ours), look("T", theirs)], fold(["S1"], ["T"]))
    assert (task.level, cause in task.message) == ("problem", True)


def test_a_few_genes_of_another_species_are_shared_by_chance():
    mouse = [*SYMBOLS[:3], *map(str.title, SYMBOLS[3:])]
    _, task = names_of([look("S1", SYMBOLS), look("T", mouse)], fold(["S1"], ["T"]))
    assert task.level == "problem"
    assert "would stop" not in task.message
    assert "S1 and T share 3 of 40 genes (8%); names differ in upper and lower case" in task.message


def test_few_shared_genes_of_two_panels_are_a_warning():
    table, task = names_of([look("S1", SYMBOLS[:25]), look("T", SYMBOLS[15:])], fold(["S1"], ["T"]))
    assert (table.level, task.level) == ("warning", "warning")  # 10 of 25
    assert "S1 and T share 10 of 25 genes (40%); methods see these alone" in task.message


def test_sections_that_meet_in_no_fold_may_differ():
    looks = [look("S1", SYMBOLS), look("S2", SYMBOLS), look("A", IDS), look("B", IDS)]
    table, one, two = names_of(looks, fold(["S1"], ["S2"], "one"), fold(["A"], ["B"], "two"))
    assert (table.level, one.level, two.level) == ("warning", "ok", "ok")


def test_each_cause_in_a_task_is_told_once():
    looks = [look(f"S{n}", SYMBOLS) for n in range(4)] + [look("E", IDS), look("M", list(map(str.title, SYMBOLS)))]
    every = [one.section for one in looks]
    _, task = names_of(looks, *(fold([name for name in every if name != own], [own]) for own in every))
    assert [line.partition(";")[0] for line in task.message.splitlines()] == [
        "the run would stop: S1, S2, S3, E, M and 1 more have no gene in common (6 folds of 6)",
        "S0 and E share 0 of 40 genes (0%)",
        "S0 and M share 0 of 40 genes (0%)",  # so that E and M need not be told
    ]


def leave_one_out(looks, *tasks):
    every = [one.section for one in looks]
    return [fold([name for name in every if name != own], [own], task) for task in tasks for own in every]


def test_a_large_study_named_in_six_ways_has_a_short_page():
    ways = [SYMBOLS, IDS, [f"{one}.3" for one in IDS], list(map(str.title, SYMBOLS)), list(map(str, range(40)))]
    ways.append([f"hs_{name}" for name in SYMBOLS])
    looks = [look(f"patient{n:02d}", ways[n % 6]) for n in range(30)]
    table, *tasks, common = names_of(looks, *leave_one_out(looks, "a", "b", "c"))
    assert [one.subject for one in tasks] == ["a", "b", "c"]
    assert all(one.message.startswith("the run would stop: patient01") for one in tasks)
    assert [len(one.message.splitlines()) for one in tasks] == [1, 1, 1]
    assert (common.level, common.subject) == ("problem", "tasks")
    head, *pairs = common.message.splitlines()
    assert head == "a, b, c:"
    assert [line.partition(" share ")[0] for line in pairs] == [f"patient00 and patient0{n}" for n in range(1, 6)]
    assert "give patient01 gene symbols too" in pairs[0]
    assert "names differ by the beginning hs_" in pairs[4]
    assert len(doctor.page([table, *tasks, common]).splitlines()) < 50


def test_many_panels_are_few_lines():
    looks = [look(f"S{n}", [f"P{n}x{gene}" for gene in range(20)]) for n in range(30)]
    table, a, b, common = names_of(looks, *leave_one_out(looks, "a", "b"))
    assert [one.level for one in (table, a, b, common)] == ["problem", "problem", "problem", "warning"]
    assert common.message.splitlines() == [
        "a, b:",
        *(
            f"S0 and S{n} share 0 of 20 genes (0%); methods see these alone: check that both are what the study needs"
            for n in range(1, 6)
        ),
        "and 24 more such pairs of sections",
    ]


def test_what_two_tasks_share_is_told_once():
    folds = [fold(["S1"], ["T"], "one"), fold(["T"], ["S1"], "two")]
    table, common = names_of([look("S1", SYMBOLS[:25]), look("T", SYMBOLS[15:])], *folds)
    assert (table.level, common.level, common.subject) == ("warning", "warning", "tasks")
    assert common.message.startswith("one, two:\nS1 and T share 10 of 25 genes (40%); methods see these alone")


def test_each_task_tells_of_its_own_pairs():
    looks = [look("S1", SYMBOLS), look("S2", SYMBOLS), look("A", IDS), look("B", [f"{one}.1" for one in IDS])]
    folds = [fold(["S1"], ["S2"], "fine"), fold(["S1"], ["A"], "one"), fold(["A"], ["B"], "two")]
    _, fine, one, two = names_of(looks, *folds)
    assert [(own.subject, own.level) for own in (fine, one, two)] == [
        ("fine", "ok"), ("one", "problem"), ("two", "problem"),
    ]  # fmt: skip
    assert "S1 and A share 0 of 40 genes (0%); gene symbols in S1" in one.message
    assert "A and B share 0 of 40 genes (0%); names differ in their version number" in two.message


def test_the_cause_that_two_small_groups_alone_tell_is_told():
    panel = [f"Q{number}" for number in range(40)]
    looks = [look("S1", panel), look("S2", panel), look("A", SYMBOLS), look("B", list(map(str.title, SYMBOLS)))]
    _, task = names_of(looks, fold(["S1", "S2", "A"], ["B"]))
    first, *rest = [line for line in task.message.splitlines() if " share " in line]
    assert first.startswith("A and B share 0 of 40 genes (0%); names differ in upper and lower case")
    assert [line.partition(" share ")[0] for line in rest] == ["S1 and A", "S1 and B"]


@pytest.mark.parametrize("spots", [9, 10])
def test_the_run_stops_without_a_gene_in_enough_spots(spots):
    """As `variable_genes` does: counts in 10 of the training spots."""
    looks = [look("S1", SYMBOLS, spots=spots), look("T", SYMBOLS)]
    _, task = names_of(looks, fold(["S1"], ["T"]))
    train = {"S1": anndata.AnnData(sparse.csr_matrix(np.ones((spots, 40))), var=pd.DataFrame(index=SYMBOLS))}
    if spots == genes.MIN_SPOTS:
        assert (task.level, len(genes.variable_genes(train, 50))) == ("ok", 40)
        return
    assert (task.level, "none of the 40 genes that S1, T have in common" in task.message) == ("problem", True)
    with pytest.raises(compare.InputError, match="no gene has counts in 10"):
        genes.variable_genes(train, 50)


def test_models_and_marker_lists_are_in_the_table(tmp_path):
    model = tmp_path / "m.safetensors"
    storage.write_safetensors({"w": np.zeros(1, np.float32)}, {"genes": IDS}, model)
    given = [model, tmp_path / "gone.safetensors"]  # which the check of the model reports
    table, *_ = names_of([look("S1", SYMBOLS), look("S2", SYMBOLS)], given=given, lists=[BREAST])
    _, ours, theirs, listed = (line.split() for line in table.message.splitlines())
    assert ours[:4] + ours[-2:] == ["human", "gene", "symbols", "KRT1", "S1,", "S2"]
    assert theirs == ["human", "Ensembl", "ids", IDS[0], "40", str(model)]
    assert listed == ["human", "gene", "symbols", "EPCAM", str(len(compare.markers.read_markers(BREAST))), BREAST]


def test_the_message_of_a_run_has_the_same_cure():
    with pytest.raises(compare.InputError, match=r"S1 and T have no gene in common; Ensembl ids in S1 .*give S1 gene"):
        genes.shared_genes({"S1": IDS, "T": SYMBOLS})


def test_many_sections_are_wrapped_in_their_column():
    table, *_ = names_of([look(f"patient_{number}", SYMBOLS) for number in range(7)])
    assert table.message.splitlines() == [
        "named by            such as  genes         sections",
        "human gene symbols  KRT1     40, the same  patient_0, patient_1,",
        "                                           patient_2, patient_3,",
        "                                           patient_4 and 2 more",
    ]


def test_a_large_study_is_compared_in_seconds():
    rng = np.random.default_rng(0)
    all_names = np.array([f"G{number}" for number in range(36_000)])
    looks = [look(f"S{n}", all_names[np.sort(rng.permutation(36_000)[:30_000])], spots=1) for n in range(30)]
    every = [one.section for one in looks]
    study = compare.Study(looks, [fold([name for name in every if name != own], [own]) for own in every])
    assert len(study.groups) == 1
    table, task = compare.names(study)
    assert (table.level, task.level) == ("ok", "ok")


# --- markers, positions, depth ----------------------------------------------------------------------------------------


def test_markers_with_counts():
    listed = list(compare.markers.read_markers(BREAST)["gene"])
    sets = ["epithelial", "tumour"]
    looks = [
        look("S1", [*listed, "X1"]),
        look("S2", [*listed[:3], *SYMBOLS[30:]]),
        look("S3", IDS),
        look("S4", SYMBOLS[30:]),
        look("S5", IDS),
    ]
    wanted = [[one.section, BREAST, sets] for one in looks] + [["not read", BREAST, sets]]
    fine, few, ids, none = compare.marker_genes(compare.Study(looks), wanted)
    assert [one.level for one in (fine, few, ids, none)] == ["ok", "warning", "problem", "problem"]
    in_list = f"of the {len(listed)} epithelial and tumour markers in {BREAST} have counts in"
    assert fine.message == f"{len(listed)} {in_list} S1"
    assert few.message.startswith(f"3 {in_list} S2; add markers")
    assert ids.message.startswith(f"0 {in_list} S3, S5: the run would stop; Ensembl ids in section S3 ")
    assert none.message.startswith(f"0 {in_list} S4: the run would stop; add markers")


def test_a_marker_without_counts_is_none(tmp_path):
    path = tmp_path / "m.tsv"
    path.write_text("gene\tset\tsource\nKRT1\ttumour\tus\n")
    (found,) = compare.marker_genes(compare.Study([look("S1", SYMBOLS, depth=0)]), [["S1", str(path), ["tumour"]]])
    assert (found.level, "0 of the 1 tumour markers" in found.message) == ("problem", True)


def test_places_of_genes_for_copy_numbers(monkeypatch):
    known = list(compare.gene_names.read(GENES)["gene"][:60])
    looks = [look("S1", known), look("T", list(map(str.title, known)))]
    monkeypatch.setattr(copy_numbers, "LEAST_GENES", 40)
    (found,) = compare.positions(compare.Study(looks), ["S1", "T", "T", "not read"], GENES)
    assert (found.level, found.subject) == ("problem", "positions")
    assert "section T: only " in found.message


@pytest.mark.parametrize(("depth", "level"), [(1, "ok"), (16, "ok"), (17, "warning"), (0.2, "warning")])
def test_depth_beyond_what_is_learned_from(depth, level):
    """Training sections have 40 and 160 counts a spot: up to 640 and down to 10 are within a factor of 4."""
    looks = [look("S1", SYMBOLS), look("S2", SYMBOLS, depth=4), look("T", SYMBOLS, platform="visium", depth=depth)]
    *warnings, line = compare.depths(compare.Study(looks, [fold(["S1", "S2"], ["T"])] * 2), 4)
    assert [one.level for one in warnings] == ["warning"] * (level == "warning")
    assert line.message == f"median counts of a spot, st: 40 to 160 (S1, S2); visium: {40 * depth:,.0f} (T)"
    if warnings:
        assert (
            f"task map: the spots of T (visium) have {40 * depth:,.0f} counts, those learned from (st) 40 to 160: "
            in (warnings[0].message)
        )


def test_sections_of_another_depth_are_told_together():
    """15 sections with 40 counts, 15 with 360 to 920, and one of another platform, with 4."""
    looks = [look(f"S{n}", SYMBOLS, depth=1 if n < 15 else n - 6) for n in range(30)]
    looks.append(look("T", SYMBOLS, platform="visium", depth=0.1))
    every = [one.section for one in looks]
    folds = [fold(every[:15], [name], task) for task in ("map", "again") for name in every[15:]]
    more, less, _ = compare.depths(compare.Study(looks, folds), 4)  # the second task says the same
    assert [one.level for one in (more, less)] == ["warning", "warning"]
    assert more.message == (
        "task map: the spots of S15, S16, S17, S18, S19 and 10 more (st) have 360 to 920 counts, those learned from "
        "(st) 40: more than 4 times more, so that their maps may tell of depth alone; learn from sections of their "
        "platform, or do not trust them (docs/trust.md)"
    )
    assert less.message.startswith("task map: the spots of T (visium) have 4 counts, those learned from (st) 40: more ")
    assert "4 times less, so that its map may tell" in less.message


# --- words of labels --------------------------------------------------------------------------------------------------

TUMOR, FAT = ("Tumor", 1), ("fat_tissue", 0)


def test_what_the_words_mean_and_which_class_is_missing():
    looks = [
        look("S1", SYMBOLS, [TUMOR] * 3 + [FAT] * 2 + [("edge", None)]),
        look("S2", SYMBOLS, [("tumor", 1)] * 2),
        look("S3", SYMBOLS, [("", 0)] * 4),
        look("S4", SYMBOLS),
    ]
    (found,) = compare.words(compare.Study(looks))
    assert (found.level, found.subject) == ("ok", "labels")
    assert found.message.splitlines() == [
        "cancer: tumor (5 spots, 2 sections)",
        "other: by 0 or 1 alone (4 spots, 1 section), fat tissue (2 spots, 1 section)",
        "unknown: edge (1 spot, 1 section)",
        "no cancer spot in S3",
        "no other spot in S2",
    ]
    assert compare.words(compare.Study(looks[2:])) == []  # of a single section there is nothing to compare


def test_a_word_that_means_two_things():
    looks = [
        look("S1", SYMBOLS, [("DCIS", 1), FAT], cohort="one"),
        look("S2", SYMBOLS, [("DCIS", 1), FAT], cohort="one"),
        look("S3", SYMBOLS, [("dcis", None), FAT, TUMOR], cohort="two"),
    ]
    _, found = compare.words(compare.Study(looks))
    assert (found.level, found.subject) == ("warning", "labels")
    assert found.message.startswith("`dcis` is cancer in one, unknown in two: check that this is meant")


def test_training_sections_of_one_class_stop_the_run():
    looks = [
        look("S1", SYMBOLS, [FAT] * 3),
        look("S2", SYMBOLS, [FAT]),
        look("S3", SYMBOLS, [TUMOR]),
        look("T", SYMBOLS),
    ]
    folds = [fold(["S1", "S2"], ["T"]), fold(["S1", "S3"], ["T"]), fold(["S1"], ["S3"], labelled=[])]
    _, found = compare.words(compare.Study(looks, folds))
    assert found.level == "problem"
    assert "task map: S1, S2, learned from to score T: only other spots; training needs" in found.message
    with pytest.raises(compare.InputError, match="only non-cancer spots"):
        require_both_classes(np.array([0.0, 0.0]), "S1, S2")
    # what was not read may have the other class
    assert compare.words(compare.Study(looks[:1], folds[:1])) == []


def test_findings_are_plain():
    assert json.dumps([one.values for one in names_of([look("S1", SYMBOLS), look("S2", IDS)])])
