"""Which seeds share a job: all of a method on a fold, where each is short. Starting a job takes seconds."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ctrflow.plan import paths
from ctrflow.plan.run import Run


@dataclass(frozen=True)
class Jobs:
    """The jobs of one rule, each on a fold.

    name : of the rule
    seeds : of a job; `{seed}`, the wildcard, for jobs of one seed
    tasks : a pattern for the wildcard `task`. The methods of a task can differ in their seeds, so it looks ahead to
        `{method}` in `paths.RUN`
    file : where log and benchmark are, below `logs` and `benchmarks`
    """

    name: str
    seeds: tuple
    tasks: str
    file: str


def together(runs: Iterable[Run], short: Callable[[Run], bool]) -> dict[tuple[str, str], tuple[int, ...]]:
    """Task and variant -> the seeds that share a job on each fold; only those with two or more."""
    seeds: dict[tuple[str, str], dict] = {}
    for run in filter(short, runs):
        seeds.setdefault(_pair(run), {})[run.seed] = None
    return {pair: tuple(found) for pair, found in seeds.items() if len(found) > 1}


def jobs(rule: str, runs: Iterable[Run], short: Callable[[Run], bool]) -> list[Jobs]:
    """The jobs of a rule that trains or scores: those of one seed, then those of several, by their seeds."""
    shared = together(runs, short)
    alone = ("{seed}",)
    methods: dict[tuple, dict[str, dict]] = {alone: {}}
    for pair in map(_pair, runs):
        methods.setdefault(shared.get(pair, alone), {}).setdefault(pair[0], {})[pair[1]] = None
    return [
        Jobs(f"{rule}_{n}" if n else rule, seeds, _pattern(of), paths.job(rule, together=n > 0))
        for n, (seeds, of) in enumerate(methods.items())
    ]


def benchmarks(rule: str, runs: Iterable[Run], short: Callable[[Run], bool]) -> dict[str, str]:
    """Benchmark file -> variant, of these jobs."""
    shared = together(runs, short)
    return {run.benchmark(rule, _pair(run) in shared): run.variant.name for run in runs}


def _pair(run: Run) -> tuple[str, str]:
    return run.task["name"], run.variant.name


def _pattern(methods: dict[str, Iterable[str]]) -> str:
    lines = [
        f"{re.escape(task)}(?=/[^/]+/[^/]+/(?:{'|'.join(map(re.escape, names))})/)" for task, names in methods.items()
    ]
    return "|".join(lines) or "(?!)"
