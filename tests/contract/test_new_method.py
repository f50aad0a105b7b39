"""A method is one file: the example of CONTRIBUTING.md is registered, planned and fitted without a further edit.

tests/workflow has the engine run such a file, and no other job.
"""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import recipes
from ctrflow import digests, methods
from runs import ROOT, write_study

STUDY = {
    "study": "new",
    "seeds": [1, 2],
    "encoders": ["none"],
    "methods": ["class_means", {"id": "squared", "method": "class_means", "options": {"power": 2}}, "total_counts"],
    "tasks": [{"name": "t", "split": "leave_one_patient_out", "source": 'cohort == "demo_st"'}],
}
LOOK = """
import json, sys
from pathlib import Path
from ctrflow import digests, methods, schema
from ctrflow.plan import load, tables

sys.modules["torch"] = sys.modules["sklearn"] = None  # planning loads neither
settings = schema.read_yaml("config/config.yaml") | {"study": sys.argv[1]}
plan = load.load(settings, "config.yaml", Path("workflow/schemas"))
script = Path("scripts/train_method.py")
reached = digests.closure(script, "methods.class_means")
print(json.dumps({
    "names": methods.names(),
    "runs": [[run.variant.name, run.seed, run.fold.name, run.table("train"), run.model] for run in plan.study.runs],
    "not_applicable": plan.study.not_applicable,
    "options": {name: about["options"] for name, about in tables.methods(plan).items()},
    "shown": sorted({line["variant"] for line in tables.on_section(plan, "demo_A1")}),
    "compared": sorted({run["variant"] for run in tables.compared(plan)["runs"]}),
    "reached": sorted(name for name in reached if name.startswith("ctrflow.methods.")),
    "digests": {name: digests.of_code(script, f"methods.{name}") for name in methods.names()},
}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with a copy of the library that has the method."""
    folder = tmp_path_factory.mktemp("method")
    assert recipes.add("A method", "methods", folder) == "class_means"
    return folder


def test_it_is_registered_and_planned(copy):
    (copy / "config" / "studies").mkdir(parents=True)
    found = recipes.ask(copy, LOOK, copy / write_study(copy, STUDY))
    assert found["names"] == sorted([*methods.names(), "class_means"])
    new = [run for run in found["runs"] if run[0] != "total_counts"]
    assert new == [
        [name, 1, fold, f"results/new/t/{fold}/none/labelled/train.h5ad", f"{folder}/seed1/model.safetensors"]
        for name in ("class_means", "squared")
        for fold in (f"demo_{letter}" for letter in "ABC")
        for folder in [f"results/new/t/{fold}/none/{name}"]
    ]
    assert found["not_applicable"] == []
    assert found["options"] == {"class_means": {"power": 1.0}, "squared": {"power": 2.0}, "total_counts": {}}
    assert found["shown"] == ["class_means", "squared"]  # total_counts is a control
    assert found["compared"] == ["class_means", "squared", "total_counts"]
    # no other method learns of it
    assert found["reached"] == ["ctrflow.methods.class_means"]
    script = ROOT / "scripts" / "train_method.py"
    assert {name: found["digests"][name] for name in methods.names()} == {
        name: digests.of_code(script, f"methods.{name}") for name in methods.names()
    }


def test_it_is_fitted(copy):
    module = recipes.load(recipes.file(copy, "methods", "class_means"))
    options = methods.resolve_options(module.SPEC, {"power": 2})
    labels = pd.DataFrame({"label": [0.0, 0.0, 1.0, 1.0]}, index=list("abcd"))
    train = anndata.AnnData(sparse.csr_matrix(np.float32([[0, 0], [2, 0], [6, 8], [8, 8]])), obs=labels)
    target = anndata.AnnData(sparse.csr_matrix(np.float32([[1, 0], [7, 8], [4, 4]])))
    # the means are (1, 0) and (7, 8), ten apart; (4, 4) lies in the middle
    fitted = module.Model.fit(train, options, 1)
    again = module.Model.from_tensors(fitted.tensors(), options, 1)
    for model in (fitted, again):
        assert model.score(target).tolist() == [-100.0, 100.0, 0.0]
