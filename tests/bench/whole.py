"""Whole runs: what the demo and a map of one section take, and how much of it is starting jobs."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from runs import add_rows, add_section, copy_workflow, environment, good, st_row, write_study

WATCH = Path(__file__).parent / "watch"
MODEL = "results/demo/model/platforms/hed_texture/linear.seed42.safetensors"


def demo(folder: Path) -> None:
    """The demo on two cores, as `make demo` runs it once everything is installed; then the same command again."""
    repo = copy_workflow(folder / "demo")
    watched = folder / "watched"
    watched.mkdir()
    first = run(repo, [], {"PYTHONPATH": str(WATCH), "CTRFLOW_WATCHED": str(watched)})
    steps = defaultdict(list)
    for path in watched.glob("*.json"):
        step = json.loads(path.read_text())
        steps[step["step"]].append(step)
    starts = sum(step["start_s"] for found in steps.values() for step in found)
    print(
        f"{first['seconds']:.0f} s, {first['cpu_s']:.0f} CPU s, {sum(map(len, steps.values()))} jobs, {starts:.0f} "
        f"CPU s for their starts; {first['lines']} lines on the screen"
    )
    print(f"{'step':20} jobs  CPU s  start of one, CPU s: median, most")
    for name, found in sorted(steps.items(), key=lambda item: -sum(step["cpu_s"] for step in item[1])):
        own = [step["start_s"] for step in found]
        cpu_s = sum(step["cpu_s"] for step in found)
        print(f"{name:20} {len(found):4} {cpu_s:6.1f}  {statistics.median(own):.2f} {max(own):.2f}")
    again = run(repo, [])
    print(f"again, nothing to do: {again['seconds']:.1f} s, {again['cpu_s']:.1f} CPU s", flush=True)
    section(repo)


def section(repo: Path) -> None:
    """A map of one section of 300 spots with a model at hand, from its row to the report; then the same again."""
    good(repo, "--cores", "2", MODEL)
    add_section(repo, "OWN", spots=300, genes=2000)
    add_rows(repo, [st_row("OWN", cohort="own", labelled=False)])
    task = {"name": "map", "split": "pretrained", "model": MODEL, "target": 'section == "OWN"'}
    study = write_study(repo, {"study": "own", "encoders": ["hed_texture"], "tasks": [task]})
    first, again = (run(repo, ["--config", f"study={study}"]) for _ in range(2))
    print(
        f"a map, report and exports of 300 spots with a model at hand: {first['seconds']:.0f} s, {first['cpu_s']:.0f} "
        f"CPU s; again: {again['seconds']:.1f} s"
    )


def run(repo: Path, arguments: list[str], variables: dict | None = None) -> dict:
    """Seconds, CPU seconds of it and all its children, and the number of lines it prints."""
    before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=repo, env=environment() | (variables or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    seconds, after = time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_s": cpu_s, "lines": len(done.stdout.splitlines())}
