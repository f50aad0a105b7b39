"""Costs of a step, and the size of a model."""

import builtins
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn

from ctrflow import methods, storage
from ctrflow.methods import simplenet, spacrd
from ctrflow.nets import istar, spatial_id, tesla
from ctrflow.nets.camlu import Autoencoder
from ctrflow.nets.dominant import GraphAutoencoder
from ctrflow.nets.fanogan import FAnoGAN
from ctrflow.nets.m3dm import FeatureFusion
from ctrflow.nets.meatrd import MEATRD
from ctrflow.nets.patch_svdd import Encoder
from ctrflow.nets.prem import Discriminator
from ctrflow.nets.simplenet import SimpleNet
from ctrflow.nets.stage import STAGE
from ctrflow.nets.stands import STANDS
from ctrflow.training import costs

ROOT = Path(__file__).parents[3]


def step(optimiser, *weights):
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimiser.step()


def test_seconds_are_those_of_the_block(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])
    with costs.measured() as cost:
        assert cost == {}
        clock[0] += 2.5
    clock[0] += 40
    assert cost["seconds"] == 2.5
    assert cost["gpu_mb"] is None
    assert cost["optimised"] == 0


def test_the_clock_runs():
    with costs.measured() as cost:
        time.sleep(0.05)
    assert cost["seconds"] >= 0.05


@pytest.mark.skipif(not costs.CLEAR.exists(), reason="the peak can be reset on Linux alone")
def test_memory_is_the_peak_above_the_start():
    held = np.ones(8 * costs.MIB)  # 64 MiB that stay
    earlier = np.ones(25 * costs.MIB)  # 200 MiB that were there once
    del earlier
    with costs.measured() as cost:
        for _ in range(2):
            passing = np.ones(12 * costs.MIB)  # 96 MiB, given back before the block ends
            del passing
    assert 90 < cost["rss_mb"] < 110
    with costs.measured() as cost:
        held += 1
    assert cost["rss_mb"] < 10


def test_memory_where_the_system_has_no_status(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "STATUS", tmp_path / "none")
    monkeypatch.setattr(costs, "CLEAR", tmp_path / "none" / "either")
    monkeypatch.delitem(sys.modules, "resource")  # and `import` is not timed by an import
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with costs.measured() as cost:
        import colorsys
    assert colorsys
    assert cost["rss_mb"] == 0.0  # the peak of the process was not raised
    now, peak = costs._resident_mb()
    assert now == peak > 10


def test_a_failing_block_is_not_measured():
    with pytest.raises(ZeroDivisionError), costs.measured() as cost:
        1 / 0  # noqa: B018
    assert cost == {}
    assert not sys.modules["torch.optim.optimizer"]._global_optimizer_pre_hooks  # and counts no further


def test_each_optimised_parameter_counts_once():
    shared, own, idle = (nn.Parameter(torch.zeros(n)) for n in (3, 4, 50))
    first, second = torch.optim.Adam([shared]), torch.optim.SGD([{"params": [shared]}, {"params": [own]}], lr=0.1)
    torch.optim.Adam([idle])  # never takes a step
    with costs.measured() as cost:
        for _ in range(3):
            step(first, shared)
            step(second, shared, own)
    assert cost["optimised"] == 7


def test_each_temporary_network_counts():
    # the second network can lie where the first one lay
    with costs.measured() as cost:
        for n in (5, 5, 6):
            net = nn.Linear(n, 1)
            step(torch.optim.SGD(net.parameters(), lr=0.1), *net.parameters())
            del net
    assert cost["optimised"] == 6 + 6 + 7


class Fake:
    """Learns a network of 3 x 2 + 2 numbers, and one of 4 + 1 for each section that it scores."""

    def __init__(self):
        self.net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False))
        self.again = self.net[0]  # the same parameters
        self.bank = np.zeros((7, 3))

    def score(self, sections):
        for _ in range(sections):
            net = nn.Linear(4, 1)
            step(torch.optim.SGD(net.parameters(), lr=0.1), *net.parameters())


def test_sizes_of_a_network_with_a_bank():
    model = Fake()
    tensors = {name: value.numpy() for name, value in model.net.state_dict().items()} | {"bank": model.bank}
    # kept: the bank, running mean and variance, and how many batches they are of
    assert costs.sizes(model, tensors) == {"params": 8, "kept_numbers": 21 + 2 + 2 + 1}
    with costs.measured() as cost:
        model.score(sections=3)
    sizes = costs.sizes(model, tensors, cost["optimised"] / 3)
    assert sizes == {"params": 8 + 5, "kept_numbers": 26}


class Bare:
    """No network."""


def test_sizes_without_a_network():
    linear = {"weights": np.zeros(11), "intercept": np.zeros(1)}
    assert costs.sizes(Bare(), linear) == {"params": 12, "kept_numbers": 0}
    bank = {"bank": np.zeros((5, 4)), "image.axes": np.zeros((3, 2))}
    assert costs.sizes(Bare(), bank) == {"params": 0, "kept_numbers": 26}
    assert costs.sizes(Bare(), {}) == {"params": 0, "kept_numbers": 0}


def documented():
    """Method -> the number that its row under "Sizes" begins with, as text."""
    text = (ROOT / "docs" / "baselines.md").read_text().partition("## Sizes")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, flags=re.MULTILINE))


# with 1,024 image features and 3,000 genes
FULL_SIZE = {
    "spacrd": lambda options: spacrd._network({"image": 1024, "gene": 3000}, options),
    "meatrd": lambda options: MEATRD(3000, options),
    "m3dm": lambda options: FeatureFusion({"image": 1024, "gene": 1152}),
    "simplenet": lambda options: SimpleNet(1024),
    "stage": lambda options: STAGE(3000),
    "stands": lambda options: STANDS(3000, options["patch_px"]),
    "fanogan": lambda options: FAnoGAN(options["patch_px"], options["critic_norm"]),
    "patch_svdd": lambda options: Encoder(),
    "dominant": lambda options: GraphAutoencoder(3000, options["width"]),
    "prem": lambda options: Discriminator(3000, options["width"]),
    "camlu": lambda options: Autoencoder(3000),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_parameters_are_those_of_the_table_of_sizes(name):
    method = methods.load(name)
    options = methods.resolve_options(method.SPEC, {})
    with torch.device("meta"):  # shapes alone
        params = costs._parameters(method.Model(FULL_SIZE[name](options), options))
    assert agree(params, documented()[name])


def agree(number, text):
    """Whether a table says this: all digits, or millions to as many places as it has."""
    text = text.split(";")[0].split("(")[0].strip()
    if text.endswith(" M"):
        places = len(text[:-2].partition(".")[2])
        return f"{number / 1e6:.{places}f}" == text[:-2]
    return f"{number:,}" == text


def test_agreement_of_rounded_numbers():
    assert agree(8_694_913, "8,694,913")
    assert agree(64_727_001, "64.7 M; `reference` 57.5 M")
    assert not agree(64_777_001, "64.7 M; `reference` 57.5 M")
    assert not agree(8_694_914, "8,694,913")


def test_networks_trained_while_scoring_are_those_of_the_table_of_sizes():
    sizes = documented()
    options = methods.resolve_options(methods.load("tesla").SPEC, {"iterations": 2})
    with costs.measured() as cost:
        tesla.segment(torch.rand(1, 2, 12, 12), options, "s")
    assert agree(cost["optimised"], sizes["tesla"])
    options = methods.resolve_options(methods.load("istar").SPEC, {"epochs": 1})
    rng = torch.Generator().manual_seed(0)
    with costs.measured() as cost:
        for _ in range(options["models"]):
            istar.train(
                torch.rand(8, 46), torch.arange(8).view(4, 2), torch.full((4, 2), 0.5), torch.rand(4, options["genes"]),
                options, rng, "s", [],
            )  # fmt: skip
    assert sizes["istar"] == f"{options['models']} networks of 466,408"
    assert cost["optimised"] == 5 * 466_408
    both = [spatial_id.Classifier(3000, 10), spatial_id.SectionNet(3000, 10)]
    assert agree(sum(weight.numel() for net in both for weight in net.parameters()), sizes["spatial_id"])


def test_a_fit_and_its_scores(tmp_path):
    """SimpleNet at width w: w² + w, 1024 w + 1024, batch norm 2 x 1024, 1024; kept: means, variances, count, 2 w."""
    rng, width = np.random.default_rng(0), 12
    view = anndata.AnnData(
        sparse.csr_matrix((40, 5), dtype=np.float32),
        obs=pd.DataFrame({"section": "a"}, index=[f"s{i}" for i in range(40)]),
        obsm={"image": rng.normal(size=(40, width)).astype(np.float32)},
    )
    options = methods.resolve_options(simplenet.SPEC, {"epochs": 2, "batch_size": 16})
    costs.load(simplenet)
    with costs.measured() as cost:
        model = simplenet.Model.fit(view, options, 1)
    params = width**2 + width + 1024 * width + 1024 + 2 * 1024 + 1024
    assert cost["optimised"] == params
    tensors = model.tensors()
    loaded = simplenet.Model.from_tensors(tensors, options, 1)
    assert costs.sizes(loaded, tensors) == {"params": params, "kept_numbers": 2 * 1024 + 1 + 2 * width}
    assert costs.setting(view, 2) == {"spots": 40, "genes": 5, "threads": 2, "device": "cpu"}
    # measuring changes nothing
    again = simplenet.Model.fit(view, options, 1).tensors()
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)
    storage.write_json(cost, tmp_path / "train_cost.json")
    assert storage.read_json(tmp_path / "train_cost.json") == cost


def test_what_an_import_takes_is_not_a_cost(tmp_path, monkeypatch):
    lines = ("import time", "time.sleep(1)", "import numpy", "kept = numpy.ones(8_000_000)")
    (tmp_path / "slow_package.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    with costs.measured() as cost:
        import slow_package
    assert slow_package.kept.nbytes / 2**20 > 60
    assert cost["seconds"] < 0.5
    assert cost["rss_mb"] < 30
    monkeypatch.delitem(sys.modules, "slow_package")


def test_a_failing_import_is_left_as_it_is():
    with costs.measured(), pytest.raises(ModuleNotFoundError):
        import not_installed  # noqa: F401
    assert builtins.__import__.__name__ == "__import__"


def test_torch_is_loaded_before_a_network_is_measured():
    code = "import sys; from ctrflow.training import costs; from ctrflow import methods; "
    code += "costs.load(methods.load(sys.argv[1])); print('torch' in sys.modules, 'sklearn' in sys.modules)"
    for method, loaded in (("spacrd", "True False"), ("linear", "False False"), ("random", "False False")):
        command = [sys.executable, "-c", code, method]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, capture_output=True, text=True
        )
        assert done.stdout.strip() == loaded, done.stderr


def test_garbage_is_collected_again_once_a_method_is_loaded():
    code = "import gc; from ctrflow.training import costs; from ctrflow import methods; "
    code += "costs.load(methods.load('spacrd')); print(gc.isenabled(), gc.get_threshold())"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "True (700, 10, 10)", done.stderr
