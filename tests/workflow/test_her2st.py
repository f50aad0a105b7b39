"""Real sections (HER2ST), the same way as the demo. Skipped where they are not."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from runs import ROOT, SHARED, copy_beside_shared, good

CONFIG = "tests/workflow/her2st"

pytestmark = pytest.mark.skipif(
    not (SHARED / "data" / "her2st").is_dir(), reason="the HER2ST sections are not here (../shared/data/her2st)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the repository with the shared data beside it, as beside a checkout."""
    repo = copy_beside_shared(tmp_path_factory.mktemp("her2st"))
    (repo / CONFIG).mkdir(parents=True)
    for path in (ROOT / CONFIG).iterdir():
        (repo / CONFIG / path.name).write_bytes(path.read_bytes())
    return repo


def run_study(folder: Path, study: str, **changes) -> pd.DataFrame:
    """Run a study, with `changes` to its file; mean AUC over patients by encoder and variant."""
    content = yaml.safe_load((ROOT / CONFIG / f"{study}.yaml").read_text())
    (folder / CONFIG / f"{study}.yaml").write_text(yaml.safe_dump(content | changes))
    # no exports, which tests/unit and the demo have
    wanted = [f"results/her2st_{study}/report.html", "checks"]
    configured = ["--configfile", f"{CONFIG}/config.yaml", "--config", f"study={CONFIG}/{study}.yaml"]
    good(folder, *wanted, "--cores", "2", *configured)
    metrics = pd.read_csv(folder / f"results/her2st_{study}/metrics.tsv", sep="\t")
    by_patient = metrics[metrics.metric == "auc"].groupby(["encoder", "variant", "patient"])["value"].mean()
    return by_patient.groupby(["encoder", "variant"]).mean()


@pytest.mark.parametrize(
    ("encoder", "least"), [("hed_texture", 0.86), pytest.param("lite0", 0.87, marks=pytest.mark.slow)]
)
def test_image_and_expression(folder, encoder, least):
    auc = run_study(folder, "paired", encoders=[encoder])
    assert auc[encoder, "oracle"] == 1.0
    assert auc[encoder, "linear"] >= least
    assert auc[encoder, "spacrd_enhanced"] >= max(0.9, auc[encoder, "linear"])
    page = (folder / "results/her2st_paired/report.html").read_text()
    assert "transferred from the annotated section" in page
    for section in ("A1", "B4", "C2", "C3"):
        told = json.loads((folder / f"results/sections/{section}/check.json").read_text())
        levels = {finding["what"]: finding["level"] for finding in told["findings"]}
        assert levels["inside"] == levels["placement"] == "ok"


def test_the_label_rule(folder):
    names = ("A1", "B1", "C1", "D1")
    files = {name: f"results/sections/{name}_expression/labels.tsv" for name in names}
    study = ("--configfile", f"{CONFIG}/config.yaml", "--config", f"study={CONFIG}/expression.yaml")
    good(folder, "--cores", "2", *files.values(), *study)
    labels = {name: pd.read_csv(folder / path, sep="\t") for name, path in files.items()}
    # positives and spots by the rule of METHODS.md section 0
    found = {name: (int(table.label.sum()), len(table)) for name, table in labels.items()}
    assert found == {"A1": (303, 346), "B1": (63, 295), "C1": (127, 176), "D1": (139, 306)}


@pytest.mark.slow
def test_expression_alone(folder):
    auc = run_study(folder, "expression")
    assert auc["none", "oracle"] == 1.0
    assert auc["none", "spacrd_enhanced_gene"] >= max(0.88, auc["none", "linear_gene"])
