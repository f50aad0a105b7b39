"""One small study, before and after it has run."""

from pathlib import Path

import pytest

from runs import MINI, copy, copy_with_three_patients, good


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Path:
    """A copy with three small patients in the sheet and the study `mini`, nothing run yet. Do not write into it."""
    return copy_with_three_patients(tmp_path_factory.mktemp("fresh") / "repo", MINI)


@pytest.fixture(scope="session")
def finished(fresh, tmp_path_factory) -> Path:
    """A copy in which `mini` has run. Do not write into it."""
    folder = copy(fresh, tmp_path_factory.mktemp("finished") / "repo")
    good(folder, "--cores", "2", "--config", "study=mini")
    return folder
