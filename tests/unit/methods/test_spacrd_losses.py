"""SpaCRD's losses against a plain computation: loops over spots, heads and tokens; the weights alone are shared."""

import math

import numpy as np
import pytest
import torch

from ctrflow import methods
from ctrflow.methods import spacrd
from ctrflow.nets import spacrd as net
from ctrflow.nets import spacrd_stages

SPOTS = 9
LABELS = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0])
AROUND = np.array([[i, *[(i + step) % SPOTS for step in (1, 8, 2, 7, 3, 6)]] for i in range(SPOTS)])
# the preset `reference` is held against the published code itself, in test_spacrd_reference.py
PRESETS = sorted(set(spacrd.SPEC.presets) - {"reference"})


class Plain:
    """The network by its weights, one spot at a time, in evaluation mode."""

    def __init__(self, model):
        self.w = {name: value.detach().numpy().astype(np.float64) for name, value in model.state_dict().items()}

    def linear(self, name, x):
        return np.array(
            [row @ x + bias for row, bias in zip(self.w[f"{name}.weight"], self.w[f"{name}.bias"], strict=True)]
        )

    def batch_norm(self, name, x):
        mean, var = self.w[f"{name}.running_mean"], self.w[f"{name}.running_var"]
        return (x - mean) / np.sqrt(var + 1e-5) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def layer_norm(self, name, x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def encoder(self, name, x):
        for layer in (0, 1):
            x = self.linear(f"encoders.{name}.linear.{layer}", x)
            x = np.maximum(self.batch_norm(f"encoders.{name}.norm.{layer}", x), 0)
        return self.linear(f"encoders.{name}.linear.2", x)

    def unit(self, name, x):
        x = self.encoder(name, x)
        return x / math.sqrt(sum(v * v for v in x))

    def attention(self, name, own, others):
        query = self.linear(f"attention.{name}.query", own)
        keys = [self.linear(f"attention.{name}.key", other) for other in others]
        values = [self.linear(f"attention.{name}.value", other) for other in others]
        out = []
        for head in range(8):
            part = slice(64 * head, 64 * head + 64)
            logits = [query[part] @ key[part] / 8 for key in keys]
            weights = [math.exp(logit) for logit in logits]
            out += list(sum(w / sum(weights) * value[part] for w, value in zip(weights, values, strict=True)))
        return self.layer_norm(f"attention.{name}.norm", self.linear(f"attention.{name}.out", np.array(out)))

    def fused(self, image, gene, around):
        looks = []
        for spot in around:
            near = AROUND[spot]
            a = self.attention("image", image[spot], [gene[j] for j in near])
            b = self.attention("gene", gene[spot], [image[j] for j in near])
            looks.append(self.layer_norm("fusion.1", self.linear("fusion.0", np.concatenate([a, b]))))
        return looks

    def chain(self, name, x, layers):
        for i, layer in enumerate(layers):
            x = self.linear(f"{name}.{layer}", x)
            if not (name in ("decode", "classifier") and i == len(layers) - 1):
                x = np.maximum(x, 0)
        return x


@pytest.fixture(params=PRESETS)
def case(request):
    """A preset's options, a network without dropout, features, and the plain tokens of every spot."""
    options = methods.resolve_options(spacrd.SPEC, {"preset": request.param})
    torch.manual_seed(3)
    model = spacrd._network({"image": 6, "gene": 11}, options).double().eval()
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.uniform_(-0.2, 0.2)
        if name.endswith("running_var"):
            value.uniform_(0.3, 1.5)
    features = {"image": torch.rand(SPOTS, 6).double(), "gene": torch.rand(SPOTS, 11).double()}
    plain = Plain(model)
    units = {name: [plain.unit(name, row) for row in features[name].numpy()] for name in ("image", "gene")}
    return options, model, features, plain, units


def test_alignment(case):
    options, model, features, _, units = case
    loss = 0.0
    for i in range(SPOTS):
        rows = [units["image"][i] @ units["gene"][j] / options["temperature"] for j in range(SPOTS)]
        columns = [units["image"][j] @ units["gene"][i] / options["temperature"] for j in range(SPOTS)]
        loss -= options["alpha"] * math.log(math.exp(rows[i]) / sum(map(math.exp, rows))) / SPOTS
        loss -= (1 - options["alpha"]) * math.log(math.exp(columns[i]) / sum(map(math.exp, columns))) / SPOTS
    aligned = model.aligned(features)
    found = net.contrastive_loss(aligned["image"], aligned["gene"], options["temperature"], options["alpha"])
    assert found.item() == pytest.approx(loss, abs=1e-6)


def test_fusion_and_discrimination(case, monkeypatch):
    options, model, features, plain, units = case
    noise = np.random.default_rng(0).normal(size=(SPOTS, 64))
    monkeypatch.setattr(torch, "randn", lambda *shape, **given: torch.from_numpy(noise))
    terms = dict.fromkeys(("reconstruction", "divergence", "classification"), 0.0)
    centres = plain.w["centres"]
    for i, fused in enumerate(plain.fused(units["image"], units["gene"], range(SPOTS))):
        hidden = plain.chain("encode", fused, (0, 2))
        mean, log_variance = plain.linear("mean", hidden), plain.linear("log_variance", hidden)
        rebuilt = plain.chain("decode", mean + np.exp(log_variance / 2) * noise[i], (0, 2, 4))
        squares = [(a - b) ** 2 for a, b in zip(rebuilt, fused, strict=True)]
        terms["reconstruction"] += sum(squares) / SPOTS / (512 if options["recon_reduction"] == "mean" else 1)
        for k in range(64):
            apart = mean[k] - centres[LABELS[i], k]
            terms["divergence"] += (math.exp(log_variance[k]) + apart**2 - log_variance[k] - 1) / 2 / SPOTS
        logit = plain.chain("classifier", np.concatenate([mean, log_variance]), (0, 2))[0]
        right = 1 / (1 + math.exp(-logit)) if LABELS[i] else 1 / (1 + math.exp(logit))
        terms["classification"] -= math.log(right) / SPOTS
    second = terms["reconstruction"] + options["beta"] * terms["divergence"]
    if options["separation_weight"]:
        distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(*centres, strict=True)))
        second -= options["separation_weight"] * distance

    labels = torch.from_numpy(LABELS).double()
    fused = model.fuse(*spacrd_stages._tokens(model, features, model.tokens(features), torch.from_numpy(AROUND)))
    loss, found = spacrd_stages._loss(model, fused, labels, options, classify=False)
    assert loss.item() == pytest.approx(second, abs=1e-6)
    loss, found = spacrd_stages._loss(model, fused, labels, options, classify=True)
    assert loss.item() == pytest.approx(terms["classification"] + options["gamma"] * second, abs=1e-6)
    assert {name: found[name].item() for name in terms} == pytest.approx(terms, abs=1e-6)
