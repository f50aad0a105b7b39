"""A file between two stages that changed after it was written, its date kept: told, with the cure; never used."""

import os
from pathlib import Path

import pytest

from runs import good, run

RUNS = "results/short/one/P1/hed_texture"


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file; Snakemake does not notice."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def shorten(path: Path) -> None:
    """Cut the end off a file."""
    before = path.stat()
    os.truncate(path, before.st_size * 3 // 4)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# damaged file -> what is made of it, those together that do not wait for one another
DAMAGED = {
    "sections": {
        "results/sections/P1/spots.h5ad": "results/sections/P1/labels.tsv",
        "results/embeddings/hed_texture/P2.h5ad": f"{RUNS}/labelled/train.h5ad",
        f"{RUNS}/alone/target.h5ad": f"{RUNS}/random/seed1/scores.tsv",
    },
    "models": {
        f"{RUNS}/labelled/train.h5ad": f"{RUNS}/linear/seed1/model.safetensors",
        f"{RUNS}/spacrd/seed1/model.safetensors": f"{RUNS}/spacrd/seed1/scores.tsv",
    },
    "labels": {"results/sections/P2/labels.tsv": f"{RUNS}/labelled/train.h5ad"},
    "scores": {f"{RUNS}/linear/seed1/scores.tsv": f"{RUNS}/linear/seed1/calls.tsv"},
    "calls": {f"{RUNS}/spacrd/seed1/calls.tsv": "results/short/metrics.tsv"},
}


def told_of(folder: Path, made: dict[str, str]) -> None:
    """What is made of the damaged files is made anew, and refused."""
    wanted = list(made.values())
    done = run(folder, "-k", "--cores", "2", *wanted, "--forcerun", *wanted, "--config", "study=short")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout, done.stdout
    for path in made:
        assert done.stdout.count(f"{path}: changed since ctrflow wrote it") == 1, done.stdout[-6000:]
        assert f"delete {path} and run the same command again" in done.stdout


def kinds(*short: str) -> list:
    """Every kind; the short form of the tests takes those named."""
    return [pytest.param(kind, marks=[] if kind in short else pytest.mark.slow) for kind in DAMAGED]


@pytest.mark.parametrize("kind", kinds("sections", "models", "labels"))
def test_one_bit_is_reported(kind, finished_copy, told):
    for path in DAMAGED[kind]:
        damage(finished_copy / path)
    told_of(finished_copy, DAMAGED[kind])
    told(len(DAMAGED[kind]))


@pytest.mark.parametrize("kind", kinds("calls"))
def test_what_was_cut_short_is_made_anew(kind, finished_copy, command, is_as_undisturbed, told, survived):
    folder, made = finished_copy, DAMAGED[kind]
    for path in made:
        shorten(folder / path)
    assert "Nothing to be done" in good(folder, "-n", *command)
    told_of(folder, made)
    told(len(made))
    for path in made:
        (folder / path).unlink()
    good(folder, *made.values(), *command)
    is_as_undisturbed(folder)
    survived(len(made))
