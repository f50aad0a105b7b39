"""What real runs show: on a terminal and elsewhere, of a failing step, and with Snakemake's own switches."""

import os
import pty
import re
import subprocess
import sys

import pytest

from runs import copy, environment, good, run

SPOTS = [f"results/sections/{name}/spots.h5ad" for name in ("P1", "P2", "P3")]
RUN = (*SPOTS, "--cores", "1", "--keep-going", "--config", "study=mini")
FAILS = "data/mini/ST-spotfiles/P2_selection.tsv"
FAILED = """Error in rule ingest_section (P2):
    data/mini/ST-spotfiles/P2_selection.tsv: """


@pytest.fixture(scope="module")
def spoilt(fresh, tmp_path_factory):
    """A copy where one of three sections cannot be read, and reading any warns."""
    folder = copy(fresh, tmp_path_factory.mktemp("spoilt") / "repo")
    (folder / FAILS).write_text((folder / FAILS).read_text().replace("pixel_x", "px"))
    script = folder / "scripts/ingest_section.py"
    setup = "logger = logs.setup(snakemake.log[0])\n"
    assert setup in script.read_text()
    script.write_text(script.read_text().replace(setup, f'{setup}logger.warning("seen in a run")\n'))
    return folder


@pytest.fixture(scope="module")
def plain(spoilt):
    return run(spoilt, *RUN)


def on_terminal(folder, *arguments: str) -> str:
    """What `snakemake` writes to a terminal, without colours and movements."""
    ours, theirs = pty.openpty()
    os.set_inheritable(theirs, True)
    command = [sys.executable, "-m", "snakemake", *arguments]
    variables = environment() | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=folder, env=variables, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 4096):
                parts.append(part)
        except OSError:  # how Linux tells that nobody writes any more
            os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(parts).decode()).replace("\r", "")


def test_a_failing_step_is_shown_once_with_its_message_and_its_log(plain):
    assert plain.returncode == 1
    assert plain.stdout.count(FAILED) == 1, plain.stdout
    assert plain.stdout.count(FAILS) == 1
    assert plain.stdout.count("logs/ingest_section/P2.log") == 1
    assert "\nstopped: 2 of 3 steps in " in plain.stdout
    assert len(plain.stdout.splitlines()) < 20
    assert "Traceback" not in plain.stdout


def test_warnings_are_shown_once_and_information_is_in_the_log_alone(plain, spoilt):
    assert len(re.findall(r"^ingest_section \(P\d\): seen in a run$", plain.stdout, re.M)) == 1
    assert plain.stdout.count("warned 3 times, see the logs: seen in a run") == 1
    told = (spoilt / "logs/ingest_section/P1.log").read_text()
    assert " INFO P1: 60 spots" in told
    assert "60 spots" not in plain.stdout


def test_snakemakes_own_log_is_complete(plain, spoilt):
    (path,) = re.findall(r"^Complete log\(s\): (.*)", plain.stdout, re.M)
    with open(path) as file:
        text = file.read()
    for words in ("Job stats:", "    reason: Missing output files: ", "3 of 3 steps", "Error in rule ingest_section:"):
        assert (words in text) is (words != "3 of 3 steps"), words


def test_on_a_terminal_the_failing_step_is_shown_once_above_a_bar(plain, spoilt):
    said = on_terminal(spoilt, "--force", *RUN)
    assert said.count(FAILED) == 1, said
    assert said.count("logs/ingest_section/P2.log") == 1
    assert "━" in said
    assert "  ingest_section (P1)" in said
    assert "\nstopped: 2 of 3 steps in " in said


def test_verbose_is_snakemakes_own_screen_with_the_logs_of_the_steps(plain, spoilt):
    said = good(spoilt, SPOTS[0], "--force", "--verbose", "--cores", "1", "--config", "study=mini")
    assert "    reason: " in said
    assert "1 of 1 steps (100%) done" in said
    assert re.search(r"^\d\d:\d\d:\d\d INFO P1: 60 spots", said, re.M)
    assert said.count("WARNING seen in a run") == 1
    assert "steps in" not in said


def test_a_dry_run_gives_its_reasons_in_short(fresh):
    said = good(fresh, "-n", "--config", "study=mini")
    lines = said.splitlines()
    assert "    reason: Missing output files: results/sections/P1/spots.h5ad" in lines
    assert max(map(len, lines)) < 350
    assert any(line.endswith(" more characters with --verbose)") for line in lines)
    assert max(map(len, good(fresh, "-n", "--verbose", "--config", "study=mini").splitlines())) > 1000


def test_a_whole_run_is_a_few_lines(finished):
    lines = (finished / "screen.txt").read_text().splitlines()
    assert "55 steps" in lines
    assert any(re.match(r"\d+ of 55 steps in .*, about .* left", line) for line in lines)
    assert any(line.startswith("55 of 55 steps in ") for line in lines)
    assert "report in results/mini/report.html" in "\n".join(lines[-4:])
    assert len(lines) < 40, "\n".join(lines)
