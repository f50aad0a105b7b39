"""The runs that many tests look at, each done once; and which tests one process takes when several share the work."""

from pathlib import Path

import pytest

from runs import MINI, copy, copy_with_three_patients, copy_workflow, good

# fixture that runs the workflow -> who shares it, costliest first
COSTLY = {"demo": "demo", "finished": "mini", "on_slurm": "short", "undisturbed": "short", "learnt": "model"}
# files that take a minute or more; as the last one, such a file would leave the other process without work
LONG = ("test_her2st", "test_check_gpu", "test_example", "test_within", "test_methods", "test_fuzz")


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A fresh copy in which the default command has run, and its output. Do not write into it."""
    folder = copy_workflow(tmp_path_factory.mktemp("demo") / "repo")
    return folder, good(folder, "--cores", "2")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Path:
    """A copy with three small patients in the sheet and the study `mini`, nothing run yet. Do not write into it."""
    return copy_with_three_patients(tmp_path_factory.mktemp("fresh") / "repo", MINI)


@pytest.fixture(scope="session")
def finished(fresh, tmp_path_factory) -> Path:
    """A copy in which `mini` has run, with its output in `screen.txt`. Do not write into it."""
    folder = copy(fresh, tmp_path_factory.mktemp("finished") / "repo")
    (folder / "screen.txt").write_text(good(folder, "--cores", "2", "--config", "study=mini"))
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """For pytest-xdist: tests of one run, else of one file, go to one process; the longest start first."""
    order = [*dict.fromkeys(COSTLY.values()), *LONG]
    groups = {}
    for item in items:
        groups[item] = next((COSTLY[name] for name in COSTLY if name in item.fixturenames), item.path.stem)
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: order.index(groups[item]) if groups[item] in order else len(order))
