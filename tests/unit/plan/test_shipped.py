"""The shipped studies: how much each runs, and that a rule makes, or something fetches, all that its runs read.

tests/workflow has the engine plan some of them.
"""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from ctrflow.plan import downloads, paths, resources, sections, seeds
from runs import ROOT
from studies import JOBS

STUDIES = sorted(path.stem for path in (ROOT / "config" / "studies").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _here(repository, monkeypatch):
    monkeypatch.chdir(repository)


def files(plan) -> dict[str, set[str]]:
    """Rule -> the files of its jobs, one a job, by what the runs of a study read and write."""
    found, networks = defaultdict(set), resources.networks(plan)
    found["crop_section"].update(plan.study.crops)
    for run in plan.study.runs:
        for path in paths.embeddings(run.encoder, run.sections):
            taken = Path(path).stem in plan.study.crops and run.encoder in networks
            found["crop_embedding" if taken else "embed_section"].add(path)
        found["cut_patches"].update(run.patches(run.sections))
        found["cut_superpixels"].update(paths.superpixels(run.scored_with("superpixels")))
        found[builder(run)].add(run.table("target"))
        if run.trains:
            found["list_patches"].update([run.patch_list] if run.patch_list else [])
            found["pretrain_method"].update([run.weights()] if run.shared_weights else [])
    runs, trained = plan.study.runs, [run for run in plan.study.runs if run.trains]
    found["infer_scores"].update(seeds.benchmarks("infer_scores", runs, resources.scores_fast))
    found["train_method"].update(seeds.benchmarks("train_method", trained, resources.trains_fast))
    return found


def builder(run) -> str:
    """The rule that builds a run's target table."""
    if not run.learned:
        return "build_target"
    return "build_crop" if run.fold.trained_by else "build_fold"


def test_every_shipped_study_is_counted():
    assert sorted(JOBS) == STUDIES


@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_can_be_planned(name, shipped):
    plan = shipped(name)
    assert plan.problems == []
    assert plan.study.not_applicable == []
    assert {rule: len(made) for rule, made in files(plan).items() if made} == JOBS[name]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_with_images_is_held_against_both_library_size_and_stain(name, shipped):
    """Tumour is often rich in counts and dark: where one control is asked for, the other is."""
    found = {(run.task["name"], run.encoder, run.variant.name) for run in shipped(name).study.runs}
    counted = {(task, encoder) for task, encoder, variant in found if variant == "total_counts"}
    assert {one for one in counted if (*one, "darkness") not in found and one[1] != "none"} == set()


# --- who makes what ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_by_rules() -> re.Pattern:
    """The files that rules write, by the patterns after `output:`."""
    text = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    patterns = []
    for _, block in re.findall(r"^( +)output:\n((?:\1 {4}.*\n)+)", text, flags=re.MULTILINE):
        patterns += [eval(f'f"{one}"', vars(paths)) for one in re.findall(r'\bf"([^"]*)"', block)]
        patterns += [getattr(paths, one) for one in re.findall(r"=([A-Z]+),$", block, flags=re.MULTILINE)]
    wildcards = (re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(pattern)) for pattern in patterns)
    return re.compile("|".join(wildcards))


def read_by(plan, run) -> list[str]:
    """What the jobs of a run read of those before them."""
    read = [run.table("target"), "" if run.given_model else run.model, run.weights(), run.patch_list]
    read += [run.table("train")] if run.trains else []
    many = [
        run.patches(run.sections),
        paths.superpixels(run.scored_with("superpixels")),
        paths.embeddings(run.encoder, run.sections),
        paths.of_sections("spots.h5ad", run.sections),
        plan.labels([*run.fold.labelled(run.spec.view), *run.scored_with("truth")]),
    ]
    return [path for path in [*read, *(path for group in many for path in group)] if path]


@pytest.mark.parametrize("name", STUDIES)
def test_all_that_runs_read_is_made_by_a_rule(name, shipped, made_by_rules):
    plan = shipped(name)
    runs = {(run.variant.name, run.encoder, run.fold): run for run in plan.study.runs}.values()  # seeds read alike
    read = {path for run in runs for path in read_by(plan, run)}
    assert len(read) > len(plan.used)
    given = {run.given_model for run in runs}
    assert [path for path in read - given if not made_by_rules.fullmatch(path)] == []
    assert all((ROOT / path).is_file() for path in given - {""})


@pytest.mark.parametrize("name", STUDIES)
def test_all_raw_files_are_fetched_simulated_or_there(name, shipped):
    plan = shipped(name)
    coming = {*downloads.downloads(plan), *downloads.members(plan), *sections.demo_files(plan)}
    raw = {path for one in plan.used for path in [*sections.raw_files(plan, one), *sections.image(plan, one)]}
    raw |= {plan.row(one)["labels"] for one in plan.used} - {""}
    raw |= {sections.weights(plan, encoder) or "" for encoder in plan.encoders if encoder != "none"} - {""}
    raw |= {run.given_model for run in plan.study.runs} - {""}
    for run in plan.study.runs:
        raw.update(map(str, sections.marker_lists(plan, run.scored_with("markers"))))
    assert [path for path in raw if path not in coming and not Path(path).is_file()] == []
