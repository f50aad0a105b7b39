"""The preset `reference` against figures of the published code.

`spacrd_reference.json` holds what the published code gives on an input and weights made by a formula, in float64 and
without dropout: losses of all stages, logits in training and evaluation mode, a gradient norm per tensor.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ctrflow import methods
from ctrflow.methods import spacrd
from ctrflow.nets import spacrd as net
from ctrflow.nets import spacrd_stages

TABLE = json.loads((Path(__file__).parent / "spacrd_reference.json").read_text())
EXPECTED = TABLE["outputs"]
OPTIONS = methods.resolve_options(spacrd.SPEC, {"preset": "reference"})
AROUND = torch.tensor(TABLE["neighbours"])
LABELS = torch.tensor([1.0 if (7 * i) % 5 < 2 else 0.0 for i in range(40)], dtype=torch.float64)
ENCODER = {"fc.0": "linear.0", "fc.1": "norm.0", "fc.4": "linear.1", "fc.5": "norm.1", "fc.8": "linear.2"}
ATTENTION = {"query_proj": "query", "key_proj": "key", "value_proj": "value", "output_proj": "out", "norm": "norm"}
FUSION = {"fusion_proj": "fusion.0", "fusion_norm": "fusion.1"}
VAE = {"encoder": "encode", "decoder": "decode", "fc_mu": "mean", "fc_logvar": "log_variance"}


def wave(shape, phase, scale=1.0):
    """The formula of the table's `wave`."""
    k = np.arange(1, np.prod(shape) + 1, dtype=np.float64)
    high = 43758.5453 * np.sin(12.9898 * k + 78.233 * (phase + 1))
    return torch.from_numpy((scale * (2 * (high - np.floor(high)) - 1)).reshape(shape))


def ours(theirs: str) -> str:
    """A parameter's name here."""
    block, *rest = theirs.split(".")
    if block == "CL":
        where = {"img_encoder": "image", "gene_encoder": "gene"}[rest[0]]
        return f"encoders.{where}.{ENCODER['.'.join(rest[1:3])]}.{rest[3]}"
    if block == "BCA" and rest[0].startswith("cross_attention"):
        where = {"1": "image", "2": "gene"}[rest[0][-1]]
        return f"attention.{where}.{ATTENTION[rest[1]]}.{rest[2]}"
    if block == "BCA":
        return ".".join([FUSION[rest[0]], rest[1]])
    if block == "vae_error_model":
        return ".".join([VAE[rest[0]], *rest[1:]])
    return ".".join(["classifier", *rest])


def value_of(index: int, name: str, shape: list[int]) -> torch.Tensor:
    """A parameter's value by the table's rule."""
    if len(shape) == 2:
        return wave(shape, index, 2.5 / np.sqrt(shape[1]))
    if name.startswith("target_mu"):
        return wave(shape, index, 1.0)
    return (1.0 if name.endswith("weight") else 0.0) + wave(shape, index, 0.1)


@pytest.fixture
def built():
    """The network of the preset with the table's weights, dropout off, in training mode."""
    model = spacrd._network({"image": 32, "gene": 64}, OPTIONS).double()
    values = {name: value_of(index, name, shape) for index, name, shape in TABLE["parameters"]["list"]}
    state = {ours(name): value for name, value in values.items() if not name.startswith("target_mu")}
    state["centres"] = torch.stack([values["target_mu_0"], values["target_mu_1"]])
    assert set(state) == {name for name, _ in model.named_parameters()}
    model.load_state_dict(state, strict=False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


@pytest.fixture
def features():
    return {"image": 0.5 + 0.5 * wave((40, 32), 1.0), "gene": 0.5 + 0.5 * wave((40, 64), 2.0)}


def close(value):
    return pytest.approx(value, rel=1e-8, abs=1e-8)


def test_alignment(built, features):
    aligned = built.aligned(features)
    loss = net.contrastive_loss(aligned["image"], aligned["gene"], OPTIONS["temperature"], OPTIONS["alpha"])
    assert loss.item() == close(EXPECTED["stage1_loss"])


def test_fusion_and_discrimination(built, features):
    fused = built.fuse(*spacrd_stages._tokens(built, features, None, AROUND))
    loss, terms, read = net.fused_loss(built, fused, LABELS, OPTIONS, wave((40, 64), 5.0))
    assert terms["reconstruction"].item() == close(EXPECTED["stage2_reconstruction"])
    assert terms["divergence"].item() == close(EXPECTED["stage2_kl"])
    assert terms["separation"].item() == close(EXPECTED["separation"])
    assert loss.item() == close(EXPECTED["stage2_total"])

    logits = built.classified(read)
    assert logits.tolist() == close(EXPECTED["train_logits"])
    classification = F.binary_cross_entropy_with_logits(logits, LABELS)
    total = classification + OPTIONS["gamma"] * loss
    assert classification.item() == close(EXPECTED["stage3_bce"])
    assert total.item() == close(EXPECTED["stage3_total"])

    total.backward()
    gradients = {name: value.grad for name, value in built.named_parameters()}
    centres = gradients.pop("centres")
    norms = {"target_mu_0": centres[0].norm().item(), "target_mu_1": centres[1].norm().item()}
    for name in EXPECTED["stage3_grad_norm"]:
        if name not in norms:
            gradient = gradients[ours(name)]
            # the key's bias has no effect on a softmax: none here, some 1e-17 there
            norms[name] = 0.0 if gradient is None else gradient.norm().item()
    assert norms == close(EXPECTED["stage3_grad_norm"])


def test_evaluation_mode(built, features):
    built.eval()
    with torch.inference_mode():
        logits = built.logit(built.fuse(built.tokens(features), AROUND))
    assert logits.tolist() == close(EXPECTED["eval_logits"])


def test_the_loss_of_a_step_is_the_same(built, features, monkeypatch):
    """What the training loop descends, not the pieces alone."""
    monkeypatch.setattr(torch, "randn", lambda *shape, **given: wave(shape, 5.0))
    fused = built.fuse(*spacrd_stages._tokens(built, features, None, AROUND))
    assert spacrd_stages._loss(built, fused, LABELS, OPTIONS, classify=False)[0].item() == close(
        EXPECTED["stage2_total"]
    )
    assert spacrd_stages._loss(built, fused, LABELS, OPTIONS, classify=True)[0].item() == close(
        EXPECTED["stage3_total"]
    )
