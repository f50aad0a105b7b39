"""A run that is killed and restarted gives the same bytes as an undisturbed one."""

import pytest

from interruptions import Interruptions, differing, left_behind, numbers, tables
from runs import copy, copy_workflow, run


def assert_reported(tried: Interruptions) -> None:
    """If only a job was killed, Snakemake reports which, and ends."""
    alone = [rule for moment, rule in tried.during if moment == "alone"]
    assert len(alone) == len(tried.outputs)
    for rule, output in zip(alone, tried.outputs, strict=True):
        assert "Error in rule " in output, output
        assert "SIGKILL" in output, output
        assert rule == "-" or "Removing output files of failed job" in output or "check log file" in output, output


def test_a_study_killed_five_times_on_one_core(untouched, assert_undisturbed, command, tmp_path, recovered, reported):
    """Compared with an undisturbed run on two cores: neither kills nor cores change a byte."""
    folder = copy(untouched, tmp_path / "repo")
    at = command.index("--cores") + 1
    command = (*command[:at], "1", *command[at + 1 :])
    tried = Interruptions(folder, command, seed=5)
    assert tried.kill("starting", left=4)
    # the message contains the cure
    again = run(folder, *command)
    assert again.returncode == 1
    assert "no other Snakemake process" in again.stdout
    assert "It can be removed with the --unlock argument" in again.stdout
    reported()
    tried.survive(4)
    assert len(tried.during) == 5
    assert len({rule for _, rule in tried.during}) >= 3
    assert_reported(tried)
    assert_undisturbed(folder)
    recovered(5)


@pytest.mark.slow
def test_the_demo_killed_25_times_on_one_core(demo, tmp_path, recovered):
    """As above, with the demo."""
    folder = copy_workflow(tmp_path / "repo")
    tried = Interruptions(folder, ["--cores", "1"], seed=25)
    tried.survive(25)
    assert len(tried.during) == 25
    assert len({rule for _, rule in tried.during}) >= 8
    assert_reported(tried)
    expected = numbers(demo[0])
    assert len(expected) > 200
    assert differing(numbers(folder), expected) == []
    assert differing(tables(folder), tables(demo[0])) == []
    assert left_behind(folder) == []
    recovered(25)
