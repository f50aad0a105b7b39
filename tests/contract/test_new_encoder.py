"""An encoder is one file: the example of CONTRIBUTING.md is registered, and planned without a further edit."""

import pytest

import recipes
from ctrflow import digests, encoders
from ctrflow.encoders import network
from runs import ROOT, write_study

STUDY = {
    "study": "new",
    "seeds": [1],
    "encoders": ["mine"],
    "methods": ["linear"],
    "tasks": [{"name": "t", "split": "leave_one_patient_out", "source": 'cohort == "demo_st"'}],
}
LOOK = """
import json, sys
from pathlib import Path
from ctrflow import digests, encoders, schema
from ctrflow.plan import load, paths, resources, tables

settings = schema.read_yaml("config/config.yaml") | {"study": sys.argv[1], "device": "cuda"}
settings["encoders"]["mine"] = {"model": "convnext_tiny", "weights": "hub"}
plan = load.load(settings, "config.yaml", Path("workflow/schemas"))
settings["encoders"]["mine"] = {"model": "convnext_tiny", "model_args": {}}
wrong = load.load(settings, "config.yaml", Path("workflow/schemas"))
script = Path("scripts/embed_section.py")
modules = [encoders.load(name).__name__.removeprefix("ctrflow.") for name in encoders.names()]
reached = digests.closure(script, f"encoders.{encoders.module_name(plan.encoders['mine'])}")
heavy = sorted({"torch", "timm", "huggingface_hub"} & set(sys.modules))
print(json.dumps({
    "names": encoders.names(),
    "problems": [plan.problems, wrong.problems],
    "embeddings": sorted({path for run in plan.study.runs for path in paths.embeddings(run.encoder, run.sections)}),
    "gpu": resources.gpus(plan, resources.is_network(plan, "mine")),
    "shown": tables.settings(plan)["encoders"],
    "heavy": heavy,
    "reached": sorted(name for name in reached if name.startswith("ctrflow.encoders.")),
    "digests": {name: digests.of_code(script, name) for name in modules},
}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with a copy of the library that has the encoder."""
    folder = tmp_path_factory.mktemp("encoder")
    assert recipes.add("An encoder", "encoders", folder) == "convnext_tiny"
    return folder


def test_it_is_registered_and_planned(copy):
    (copy / "config" / "studies").mkdir(parents=True)
    found = recipes.ask(copy, LOOK, copy / write_study(copy, STUDY))
    assert found["names"] == sorted([*encoders.names(), "convnext_tiny"])
    assert found["problems"][0] == []
    (problem,) = found["problems"][1]
    assert problem.startswith("config.yaml: encoder mine: unknown option model_args; valid for convnext_tiny: ")
    assert found["embeddings"] == [f"results/embeddings/mine/demo_{letter}1.h5ad" for letter in "ABC"]
    assert found["gpu"] is True
    assert found["shown"] == {"mine": {"model": "convnext_tiny", "weights": "hub"}}
    assert found["heavy"] == []
    # no other encoder learns of it
    of_networks = ["ctrflow.encoders.network", "ctrflow.encoders.weights"]
    assert found["reached"] == ["ctrflow.encoders.convnext_tiny", *of_networks]
    script = ROOT / "scripts" / "embed_section.py"
    before = {name: digests.of_code(script, name) for name in found["digests"] if name != "encoders.convnext_tiny"}
    assert {name: found["digests"][name] for name in before} == before
    assert len(before) == len(encoders.names())


def test_its_facts_fit_its_network(copy):
    import torch

    net = recipes.load(recipes.file(copy, "encoders", "convnext_tiny")).NETWORK
    with torch.device("meta"):  # shapes without values
        model = network.architecture(net.architecture, net.arguments)
        assert tuple(model(torch.zeros(2, 3, net.side_px, net.side_px)).shape) == (2, net.dim) == (2, 768)
