"""Seeds that share a job, and the rules that do such jobs: each run is one rule's."""

import re

import pytest

from ctrflow.plan import paths, resources, seeds

TASKS = [
    {"name": "t", "split": "transfer", "source": 'section == "A"', "target": 'section in ["B", "C"]'},
    {"name": "once", "split": "transfer", "source": 'section == "A"', "target": 'section == "B"', "seeds": [2]},
    {"name": "t_more", "split": "transfer", "source": 'section == "A"', "target": 'section == "B"', "seeds": [2, 3]},
]
ENTRIES = ["spacrd", {"id": "quick", "method": "spacrd", "options": {"preset": "fast"}}, "linear", "random", "oracle"]


@pytest.fixture
def study(plan_of):
    return plan_of(TASKS, ENTRIES).study


def pairs(shared, seeds_of_job):
    return {pair for pair, found in shared.items() if found == seeds_of_job}


def test_short_runs_that_differ_by_seed_share_a_job(study):
    trained = seeds.together(study.runs, resources.trains_fast)
    assert trained == {("t", "quick"): (1, 2), ("t_more", "quick"): (2, 3)}  # `linear` has no seed, `once` has one
    scored = seeds.together(study.runs, resources.scores_fast)
    assert pairs(scored, (1, 2)) == {("t", "spacrd"), ("t", "quick"), ("t", "random")}
    assert pairs(scored, (2, 3)) == {("t_more", "spacrd"), ("t_more", "quick"), ("t_more", "random")}


@pytest.mark.parametrize(("rule", "short"), [("train_method", "trains_fast"), ("infer_scores", "scores_fast")])
def test_every_file_of_a_run_is_made_by_one_rule(study, rule, short):
    short = getattr(resources, short)
    jobs = seeds.jobs(rule, study.runs, short)
    assert [job.name for job in jobs] == [rule, f"{rule}_1", f"{rule}_2"]
    shared = seeds.together(study.runs, short)
    for run in study.runs:
        file, makers = run.file("scores.tsv"), []
        for job in jobs:
            for seed in job.seeds:
                pattern = re.escape(f"{paths.RUN}/scores.tsv".replace("seed{seed}", f"seed{seed}"))
                pattern = pattern.replace(r"\{task\}", f"(?:{job.tasks})").replace(r"\{seed\}", r"\d+")
                makers += [job] if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", pattern), file) else []
        expected = shared.get((run.task["name"], run.variant.name), ("{seed}",))
        assert [job.seeds for job in makers] == [expected], file


def test_the_runs_of_a_job_are_named_by_its_wildcards(study):
    of = {"study": "s", "task": "t", "fold": "C", "encoder": "uni", "method": "quick"}
    assert [(run.seed, run.fold.name) for run in study.named(of)] == [(1, "C"), (2, "C")]
    assert [run.seed for run in study.named(of | {"seed": "2"})] == [2]
    assert study.run(of).seed == 1


def test_logs_and_benchmarks_of_shared_jobs_are_those_of_all_seeds(study):
    files = [job.file for job in seeds.jobs("train_method", study.runs, resources.trains_fast)]
    folder = "{study}/train_method/{task}/{fold}/{encoder}/{method}"
    assert files == [f"{folder}/seed{{seed}}", f"{folder}/seeds", f"{folder}/seeds"]
    listed = seeds.benchmarks("train_method", [run for run in study.runs if run.trains], resources.trains_fast)
    base = "benchmarks/s/train_method/t/B/uni"
    assert [path for path in listed if path.startswith(base)] == [
        f"{base}/spacrd/seed1.tsv", f"{base}/spacrd/seed2.tsv", f"{base}/quick/seeds.tsv", f"{base}/linear/seed1.tsv",
    ]  # fmt: skip
