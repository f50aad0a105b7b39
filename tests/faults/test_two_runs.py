"""Two runs at once in one folder: the second is rejected, the first continues."""

import subprocess
import sys
import time


def test_the_second_run_is_rejected(finished_copy, assert_error, assert_undisturbed, command, reported, recovered):
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
        assert_error(folder, command, ["Directory cannot be locked", "no other Snakemake process", str(folder)])
        assert first.poll() is None
        reported()
        assert first.wait(300) == 0
    assert_undisturbed(folder)
    recovered()
