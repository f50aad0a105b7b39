"""Two runs at once in one folder: the second is refused, the first goes on."""

import subprocess
import sys
import time


def test_the_second_run_is_rejected(finished_copy, is_told, is_as_undisturbed, command, told, survived):
    folder = finished_copy
    for path in ["metrics.tsv", *(f"one/P1/hed_texture/linear/seed1/{name}.tsv" for name in ("calls", "scores"))]:
        (folder / "results/short" / path).unlink()
    with subprocess.Popen(
        [sys.executable, "-m", "snakemake", *command],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as first:  # fmt: skip
        deadline = time.monotonic() + 120
        while not list(folder.glob(".snakemake/locks/*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        is_told(folder, command, ["Directory cannot be locked", "no other Snakemake process", str(folder)])
        assert first.poll() is None
        told()
        assert first.wait(300) == 0
    is_as_undisturbed(folder)
    survived()
