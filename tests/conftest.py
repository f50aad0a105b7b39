"""The demo, run once for all who compare with it; and which tests one process takes when several share the work."""

import pytest

from runs import copy_workflow, good

# fixture that runs the workflow -> who shares it, costliest first
COSTLY = {"demo": "demo", "on_slurm": "demo", "finished": "mini", "undisturbed": "short", "learnt": "model"}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A fresh copy in which the default command has run, and what it said. Do not write into it."""
    folder = copy_workflow(tmp_path_factory.mktemp("demo") / "repo")
    return folder, good(folder, "--cores", "2")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """For pytest-xdist: tests that look at one run, else those of one file, go to one process; the longest begin."""
    order = list(dict.fromkeys(COSTLY.values()))
    groups = {}
    for item in items:
        groups[item] = next((COSTLY[name] for name in COSTLY if name in item.fixturenames), item.path.stem)
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: order.index(groups[item]) if groups[item] in order else len(order))
