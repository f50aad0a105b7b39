"""A disk that is full at the start, a disk that fills up during a run, and a folder that cannot be written to."""

import shutil

import pytest

from runs import good

RUN = "results/short/one/P1/hed_texture/spacrd/seed1"
MODEL = f"{RUN}/model.safetensors"  # 20 MB


def fill(folder, leave_bytes: int):
    """Fill the disk of a folder, except for some bytes; returns the file that fills it."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        remaining = shutil.disk_usage(folder).free - leave_bytes
        while remaining > 0:
            remaining -= file.write(bytes(min(remaining, 1_000_000)))
    return ballast


def test_a_full_disk(finished_copy, mounted, assert_error, assert_undisturbed, command, reported, recovered):
    folder = finished_copy
    results, kept = folder / "results", folder.parent / "kept"
    results.rename(kept)
    results.mkdir()
    with mounted(results, "mount -t tmpfs -o size=48m none {folder}"):
        shutil.copytree(kept, results, dirs_exist_ok=True)
        for path in (MODEL, f"{RUN}/scores.tsv", f"{RUN}/calls.tsv", "results/short/metrics.tsv"):
            (folder / path).unlink()
        # during the run: the trained network does not fit
        ballast = fill(results, 8_000_000)
        assert_error(folder, command, [f"{MODEL}: the disk is full", "free some space, then run again"])
        assert not list((folder / MODEL).parent.glob("*.safetensors")) + list((folder / MODEL).parent.glob(".*"))
        reported()
        # at the start
        ballast.unlink()
        ballast = fill(results, 500_000)
        assert_error(
            folder, command, [f"{results}: the disk is full", "free some space, then run the same command again"]
        )
        reported()
        ballast.unlink()
        good(folder, *command)
        assert_undisturbed(folder)
        recovered(2)


@pytest.mark.parametrize("place", ["results", "."])
def test_a_read_only_folder(
    place, finished_copy, mounted, assert_error, assert_undisturbed, command, reported, recovered
):
    folder = finished_copy
    (folder / "results/short/metrics.tsv").unlink()
    there = (folder / place).resolve()
    with mounted(there, "mount --bind {folder} {folder}", "mount -o remount,ro,bind {folder}"):
        assert_error(folder, command, [f"{folder / 'results'}: cannot be written to; make it writable"])
    reported()
    if place == "results":
        good(folder, *command)
        assert_undisturbed(folder)
        recovered()
