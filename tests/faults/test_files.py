"""An intermediate file that changed after it was written, with its old date: reported with the cure, never used."""

import os
from pathlib import Path

import pytest

from runs import good, run

RUNS = "results/short/one/P1/hed_texture"


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file, unnoticed by Snakemake."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def shorten(path: Path) -> None:
    """Truncate a file."""
    before = path.stat()
    os.truncate(path, before.st_size * 3 // 4)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# damaged file -> an output that depends on it, grouped by independent outputs
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


def assert_rejected(folder: Path, made: dict[str, str]) -> None:
    """Rebuilding the outputs of damaged files must fail with one error each."""
    wanted = list(made.values())
    done = run(folder, "-k", "--cores", "2", *wanted, "--forcerun", *wanted, "--config", "study=short")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout, done.stdout
    for path in made:
        assert done.stdout.count(f"{path}: changed since ctrflow wrote it") == 1, done.stdout[-6000:]
        assert f"delete {path} and run the same command again" in done.stdout


def kinds(*short: str) -> list:
    """All kinds; the fast tests only run those named."""
    return [pytest.param(kind, marks=[] if kind in short else pytest.mark.slow) for kind in DAMAGED]


@pytest.mark.parametrize("kind", kinds("sections", "models", "labels"))
def test_a_flipped_bit_is_reported(kind, finished_copy, reported):
    for path in DAMAGED[kind]:
        damage(finished_copy / path)
    assert_rejected(finished_copy, DAMAGED[kind])
    reported(len(DAMAGED[kind]))


@pytest.mark.parametrize("kind", kinds("calls"))
def test_truncated_files_are_rebuilt(kind, finished_copy, command, assert_undisturbed, reported, recovered):
    folder, made = finished_copy, DAMAGED[kind]
    for path in made:
        shorten(folder / path)
    assert "Nothing to be done" in good(folder, "-n", *command)
    assert_rejected(folder, made)
    reported(len(made))
    for path in made:
        (folder / path).unlink()
    good(folder, *made.values(), *command)
    assert_undisturbed(folder)
    recovered(len(made))
