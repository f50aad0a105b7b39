"""Every row of METHODS.md 1.11 that is an option of the method, and extreme inputs."""

import math

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ctrflow import methods
from ctrflow.features.refit import refit
from ctrflow.methods import spacrd
from ctrflow.nets import spacrd as net
from ctrflow.nets import spacrd_stages, training

SHORT = {"epochs_align": 1, "epochs_fuse": 1, "epochs_classify": 2, "learning_rate": 1e-3}


def options(**given):
    return methods.resolve_options(spacrd.SPEC, given)


def section_view(spots=40, genes=30, labels=None, xy=None, seed=0, name="a"):
    """A view with image and expression, one section; alternating labels unless given."""
    rng = np.random.default_rng(seed)
    labels = np.arange(spots) % 2.0 if labels is None else labels
    obs = pd.DataFrame({"section": name, "label": labels, "patient": name}, index=[f"{name}{i}" for i in range(spots)])
    obs["spot"] = obs.index
    xy = np.column_stack([np.arange(spots) % 7, np.arange(spots) // 7]) if xy is None else xy
    counts = sparse.csr_matrix(rng.random((spots, genes), dtype=np.float32))
    return anndata.AnnData(counts, obs=obs, obsm={"spatial": xy.astype(float), "image": rng.random((spots, 12))})


def test_the_defaults_are_those_of_the_table():
    found = options()
    assert found == options(preset="paper")
    # S-08, S-09, S-10, S-06 and the weights of METHODS.md 1.6; S-07 and S-23
    assert (found["learning_rate"], found["batch_size"], found["temperature"]) == (1e-5, 512, 0.07)
    assert (found["alpha"], found["beta"], found["gamma"], found["neighbours"]) == (0.5, 0.5, 0.1, 6)
    assert (found["epochs_align"], found["epochs_fuse"], found["epochs_classify"]) == (100, 50, 50)
    assert not found["finetune_encoders"]
    assert not found["carry_optimizer"]


def test_the_reference_differs_in_the_switches_of_the_table_alone():
    paper, reference = options(), options(preset="reference")
    assert {name: value for name, value in reference.items() if value != paper[name]} == {
        "normalize_axis": "neighbour",  # S-01
        "finetune_encoders": True,  # S-02
        "separation_weight": 0.1,  # S-03
        "centre_init": "zero",  # S-04
        "carry_optimizer": True,  # S-07
        "score_scale": "minmax",  # S-15
    }


class Seen(torch.nn.Module):
    """Stands in for an attention and records its input."""

    def forward(self, own, around):
        self.own, self.around = own, around
        return own


@pytest.mark.parametrize(("axis", "near", "far"), [("feature", (0.6, 0.8), (1, 0)), ("neighbour", (0.6, 1), (0.8, 0))])
def test_axis_of_the_normalisation(axis, near, far):
    """S-01. A spot (3, 4), its neighbour (4, 0): (.6, .8) and (1, 0) over features, (.6, 1) and (.8, 0) over spots."""
    model = net.SpaCRD({"gene": 5}, normalize_axis=axis).eval()
    model.attention["gene"] = Seen()
    rows = torch.zeros(2, 512)
    rows[0, :2], rows[1, 0] = torch.tensor([3.0, 4.0]), 4.0
    model.encoders["gene"] = torch.nn.Identity()
    model.encoders["gene"].forward = lambda features, counts=None: features
    model.fuse(model.tokens({"gene": rows}), torch.tensor([[0, 1]]))
    seen = model.attention["gene"].around[0, :, :2]
    assert torch.allclose(seen, torch.tensor([near, far], dtype=torch.float32))
    assert torch.equal(model.attention["gene"].own[0, :2], seen[0])


def test_the_contrastive_loss_is_of_unit_vectors_whatever_the_axis():
    aligned = (
        net.SpaCRD({"image": 4, "gene": 5}, normalize_axis="neighbour")
        .eval()
        .aligned({"image": torch.rand(6, 4), "gene": torch.rand(6, 5)})
    )
    assert torch.allclose(aligned["gene"].norm(dim=1), torch.ones(6), atol=1e-6)


def test_separation_by_hand():
    """S-03: centres (1, 2) and (4, 6) are 5 apart."""
    assert net.separation(torch.tensor([[1.0, 2.0], [4.0, 6.0]])).item() == -5
    model = spacrd._network({"gene": 5}, options()).eval()
    fused, labels, noise = torch.rand(4, 512), torch.tensor([0.0, 1, 1, 0]), torch.zeros(4, 64)
    without, terms, _ = net.fused_loss(model, fused, labels, options(), noise)
    assert "separation" not in terms
    with_it, _, _ = net.fused_loss(model, fused, labels, options(separation_weight=0.3), noise)
    distance = (model.centres[0] - model.centres[1]).norm()
    assert with_it.item() == pytest.approx((without - 0.3 * distance).item(), rel=1e-6)


@pytest.mark.parametrize(("start", "means"), [("apart", (-0.5, 0.5)), ("zero", (0, 0))])
def test_start_of_the_class_centres(start, means):
    """S-04: sd 0.01 about the means."""
    torch.manual_seed(0)
    centres = net.SpaCRD({"gene": 5}, centre_init=start).centres.detach().numpy()
    assert centres.mean(axis=1) == pytest.approx(means, abs=0.005)
    assert centres.std(axis=1) == pytest.approx([0.01, 0.01], abs=0.004)


def test_reconstruction_by_hand():
    """S-05: squares 1 + 4 and 0 + 9 over two dimensions."""
    rebuilt, fused = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.zeros(2, 2)
    assert net.reconstruction(rebuilt, fused, "mean").item() == 14 / 4
    assert net.reconstruction(rebuilt, fused, "sum").item() == 14 / 2


def test_a_carried_optimiser_keeps_its_moments(monkeypatch):
    """S-07: one optimiser for both stages, or a fresh one for each."""
    made = []
    kept = spacrd_stages._optimiser
    monkeypatch.setattr(spacrd_stages, "_optimiser", lambda *given: made.append(kept(*given)) or made[-1])
    view = section_view()

    def steps_of_a_centre(**given):
        made.clear()
        model = spacrd.Model.fit(view, options(**SHORT | {"epochs_align": 0} | given), 1)
        return [int(optimiser.state[model.net.centres]["step"]) for optimiser in made[1:]]  # the first is stage I's

    assert steps_of_a_centre() == [1, 2]
    assert steps_of_a_centre(carry_optimizer=True) == [3]


def test_score_scales():
    """S-15: a probability, or [0, 1] within each section; the order is the same."""
    view = anndata.concat([section_view(name="a"), section_view(seed=1, name="b")])
    model = spacrd.Model.fit(view, options(**SHORT), 1)
    logits = model.logits(view)
    assert model.score(view) == pytest.approx(1 / (1 + np.exp(-logits)))
    model.options = model.options | {"score_scale": "minmax"}
    scores = model.score(view)
    for name in "ab":
        rows = (view.obs["section"] == name).to_numpy()
        low, high = logits[rows].min(), logits[rows].max()
        assert scores[rows] == pytest.approx((logits[rows] - low) / (high - low))
    assert spacrd._unit_range(np.full(3, 2.0), np.array(["a"] * 3)).tolist() == [0.5] * 3


def test_attention_drops_a_tenth_and_adds_nothing():
    """S-21. Values and outputs of zero leave the norm's bias: the query is not added."""
    attention = net.CrossAttention().eval()
    assert attention.dropout.p == 0.1
    for layer in (attention.value, attention.out):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    assert torch.equal(attention(torch.rand(2, 512), torch.rand(2, 7, 512)), torch.zeros(2, 512))


@pytest.mark.parametrize("count", [4, 6, 8, 10])
def test_neighbours_and_the_spot_itself(count):
    """S-23."""
    model = spacrd.Model(None, options(neighbours=count))
    assert model._neighbours(section_view()).shape == (40, count + 1)


def test_a_small_training_set_is_one_batch(caplog):
    """S-27: 40 spots in one step per epoch, and the steps are logged."""
    caplog.set_level("INFO")
    spacrd.Model.fit(section_view(), options(**SHORT), 1)
    assert "classify: 2 optimiser steps" in caplog.messages


def test_without_attention_no_neighbour_is_looked_at():
    """T4, w/o BCA: the tokens of the spot side by side through the fusion layer."""
    model = net.SpaCRD({"image": 4, "gene": 5}, fusion="concat").eval()
    tokens = model.tokens({"image": torch.rand(9, 4), "gene": torch.rand(9, 5)})
    around = torch.tensor([[3, 1, 2], [5, 0, 8]])
    expected = model.fusion(torch.cat([tokens["image"][[3, 5]], tokens["gene"][[3, 5]]], dim=1))
    assert torch.allclose(model.fuse(tokens, around), expected)
    assert not any(name.startswith("attention") for name, _ in model.named_parameters())


@pytest.mark.parametrize(("fusion", "read"), [("attention", 512), ("concat", 1024)])
def test_without_rvae_the_discriminator_reads_what_is_fused(fusion, read):
    """T4, w/o RVAE and w/o VRBCA: binary cross-entropy alone, no stage II."""
    model = spacrd.Model.fit(section_view(), options(**SHORT, fusion=fusion, rvae=False), 1)
    assert model.net.classifier[0].in_features == read
    assert {row["stage"] for row in model.losses} == {"align", "classify"}
    last = {row["term"]: row["value"] for row in model.losses if row["stage"] == "classify" and row["epoch"] == 2}
    assert last["loss"] == last["classification"]
    assert np.isfinite(model.score(section_view(seed=2))).all()


def test_losses_of_every_epoch():
    model = spacrd.Model.fit(section_view(), options(**SHORT), 1)
    table = pd.DataFrame(model.losses)
    assert table.groupby("stage")["epoch"].max().to_dict() == {"align": 1, "fuse": 1, "classify": 2}
    row = table.pivot(index=["stage", "epoch"], columns="term", values="value").loc[("classify", 2)]
    fused = row["reconstruction"] + 0.5 * row["divergence"]
    assert row["loss"] == pytest.approx(row["classification"] + 0.1 * fused, rel=1e-5)


def test_time_left_is_logged(caplog):
    caplog.set_level("INFO")
    losses = []
    order = training.orders(4, 3, torch.Generator().manual_seed(0), torch.device("cpu"))
    for epoch, taken in training.epochs(order, "fuse", losses, every_s=0):
        taken += [{"loss": value.double()} for value in epoch]
    assert caplog.messages[0].startswith("fuse: epoch 1 of 3, loss 1.5000, ")
    assert caplog.messages[2].endswith(" 0 s left")
    assert losses == [{"stage": "fuse", "epoch": epoch, "term": "loss", "value": 1.5} for epoch in (1, 2, 3)]


# --- at the edge -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["paper", "reference", "enhanced"])
def trained(request):
    return spacrd.Model.fit(section_view(), options(**SHORT, preset=request.param), 1)


@pytest.mark.parametrize("spots", [1, 2, 6])
def test_sections_smaller_than_a_neighbourhood(trained, spots):
    scores = trained.score(section_view(spots))
    assert scores.shape == (spots,)
    assert np.isfinite(scores).all()
    small = spacrd.Model.fit(section_view(6), options(**SHORT), 1)
    assert np.isfinite(small.score(section_view())).all()


def test_duplicate_coordinates(trained):
    """All spots in one place: every neighbourhood is the spot itself and the first others."""
    view = section_view(10, xy=np.zeros((10, 2)))
    assert trained._neighbours(view)[3].tolist()[:3] == [3, 0, 1]
    assert np.isfinite(trained.score(view)).all()


def test_constant_genes_and_image_features(trained):
    view = section_view()
    view.X[:, 3] = 2.0
    view.obsm["image"][:, 2] = 7.0
    before = trained.score(view)
    view.X[:, 3] = 0.0  # a constant is nothing, whatever its value
    view.obsm["image"][:, 2] = -1.0
    assert trained.score(view) == pytest.approx(before, abs=1e-12)


def test_a_panel_of_300_genes():
    model = spacrd.Model.fit(section_view(genes=300), options(**SHORT), 1)
    assert model.net.encoders["gene"].linear[0].in_features == 300
    assert np.isfinite(model.score(section_view(genes=300, seed=3))).all()


def test_a_spot_without_counts():
    view = section_view()
    view.X[5] = 0
    view.X = sparse.csr_matrix(view.X)
    assert np.isfinite(spacrd.Model.fit(view, options(**SHORT), 1).score(view)).all()


def test_the_logit_can_be_had_from_the_score(trained):
    view = section_view(seed=4)
    plain = spacrd.Model(trained.net, trained.options | {"score_scale": "sigmoid", "refits": 0})
    assert plain.logits(view) == pytest.approx([math.log(s / (1 - s)) for s in plain.score(view)], abs=1e-6)


def test_refits_are_of_the_logits_and_the_section(trained):
    view = section_view(seed=4)
    model = spacrd.Model(trained.net, trained.options | {"score_scale": "sigmoid", "refits": 2})
    features = np.hstack([view.obsm["image"], view.X.toarray()])
    expected = refit(model.logits(view), features, np.repeat("a", 40), model._neighbours(view).numpy(), 2)
    assert model.score(view) == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-5)
