"""A disk that is full from the start, that fills up in the middle, and a folder that cannot be written to."""

import shutil

import pytest

from runs import good

RUN = "results/short/one/P1/hed_texture/spacrd/seed1"
MODEL = f"{RUN}/model.safetensors"  # 20 MB


def fill(folder, leave_bytes: int):
    """Leave that much room on the disk of a folder; the file that takes up the rest."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        left = shutil.disk_usage(folder).free - leave_bytes
        while left > 0:
            left -= file.write(bytes(min(left, 1_000_000)))
    return ballast


def test_a_full_disk(finished_copy, mounted, is_told, is_as_undisturbed, command, told, survived):
    folder = finished_copy
    results, kept = folder / "results", folder.parent / "kept"
    results.rename(kept)
    results.mkdir()
    with mounted(results, "mount -t tmpfs -o size=48m none {folder}"):
        shutil.copytree(kept, results, dirs_exist_ok=True)
        for path in (MODEL, f"{RUN}/scores.tsv", f"{RUN}/calls.tsv", "results/short/metrics.tsv"):
            (folder / path).unlink()
        # in the middle: the network is trained, and does not fit
        ballast = fill(results, 8_000_000)
        is_told(folder, command, [f"{MODEL}: the disk is full", "free some space, then run again"])
        assert not list((folder / MODEL).parent.glob("*.safetensors")) + list((folder / MODEL).parent.glob(".*"))
        told()
        # from the start
        ballast.unlink()
        ballast = fill(results, 500_000)
        is_told(folder, command, [f"{results}: the disk is full", "free some space, then run the same command again"])
        told()
        ballast.unlink()
        good(folder, *command)
        is_as_undisturbed(folder)
        survived(2)


@pytest.mark.parametrize("place", ["results", "."])
def test_a_read_only_folder(place, finished_copy, mounted, is_told, is_as_undisturbed, command, told, survived):
    folder = finished_copy
    (folder / "results/short/metrics.tsv").unlink()
    there = (folder / place).resolve()
    with mounted(there, "mount --bind {folder} {folder}", "mount -o remount,ro,bind {folder}"):
        is_told(folder, command, [f"{folder / 'results'}: cannot be written to; make it writable"])
    told()
    if place == "results":
        good(folder, *command)
        is_as_undisturbed(folder)
        survived()
