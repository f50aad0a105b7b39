"""docs/lists.md says what the code registers: a new method, encoder, platform, metric or export needs `make lists`."""

import subprocess
import sys
from pathlib import Path

from ctrflow import encoders, export, methods, readers
from ctrflow.results import metrics

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_one_that_the_code_gives():
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_everything_registered_is_on_the_page():
    page = (ROOT / "docs" / "lists.md").read_text(encoding="utf-8")
    names = [*methods.names(), *encoders.names(), *readers.platforms(), *export.names()]
    names += [metric.name for metric in metrics.METRICS]
    assert [name for name in names if f"\n| `{name}` |" not in page] == []
