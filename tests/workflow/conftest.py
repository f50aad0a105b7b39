"""One small study, before and after it has run."""

from pathlib import Path

import pytest

from runs import MINI, add_rows, add_section, copy, copy_workflow, good, st_row, write_study


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Path:
    """A copy with three small patients in the sheet and the study `mini`, nothing run yet. Do not write into it."""
    folder = copy_workflow(tmp_path_factory.mktemp("fresh") / "repo")
    for name in ("P1", "P2", "P3"):
        add_section(folder, name)
    add_rows(folder, [st_row(name) for name in ("P1", "P2", "P3")])
    write_study(folder, MINI)
    return folder


@pytest.fixture(scope="session")
def finished(fresh, tmp_path_factory) -> Path:
    """A copy in which `mini` has run. Do not write into it."""
    folder = copy(fresh, tmp_path_factory.mktemp("finished") / "repo")
    good(folder, "--cores", "2", "--config", "study=mini")
    return folder
