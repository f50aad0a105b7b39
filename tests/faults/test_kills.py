"""A run that is killed and started again arrives at the bytes of one that was left alone."""

import pytest

from interruptions import Interruptions, differing, left_behind, numbers, tables
from runs import copy, copy_workflow, run


def assert_told(tried: Interruptions) -> None:
    """Where a job alone was killed, Snakemake says which, and ends."""
    alone = [rule for moment, rule in tried.during if moment == "alone"]
    assert len(alone) == len(tried.told)
    for rule, said in zip(alone, tried.told, strict=True):
        assert "Error in rule " in said, said
        assert "SIGKILL" in said, said
        assert rule == "-" or "Removing output files of failed job" in said or "check log file" in said, said


def test_a_study_killed_five_times_on_one_core(untouched, is_as_undisturbed, command, tmp_path, survived, told):
    """Against the study left alone on two cores: neither kills nor cores change a byte."""
    folder = copy(untouched, tmp_path / "repo")
    at = command.index("--cores") + 1
    command = (*command[:at], "1", *command[at + 1 :])
    tried = Interruptions(folder, command, seed=5)
    assert tried.kill("starting", left=4)
    # what a user sees who does not know: the cure is in the message
    again = run(folder, *command)
    assert again.returncode == 1
    assert "no other Snakemake process" in again.stdout
    assert "It can be removed with the --unlock argument" in again.stdout
    told()
    tried.survive(4)
    assert len(tried.during) == 5
    assert len({rule for _, rule in tried.during}) >= 3
    assert_told(tried)
    is_as_undisturbed(folder)
    survived(5)


@pytest.mark.slow
def test_the_demo_killed_25_times_on_one_core(demo, tmp_path, survived):
    """As above, all of the demo."""
    folder = copy_workflow(tmp_path / "repo")
    tried = Interruptions(folder, ["--cores", "1"], seed=25)
    tried.survive(25)
    assert len(tried.during) == 25
    assert len({rule for _, rule in tried.during}) >= 8
    assert_told(tried)
    expected = numbers(demo[0])
    assert len(expected) > 200
    assert differing(numbers(folder), expected) == []
    assert differing(tables(folder), tables(demo[0])) == []
    assert left_behind(folder) == []
    survived(25)
