"""SpaCRD's layers and losses on numbers worked by hand."""

import copy
import math

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features.scaling import section_scaled
from ctrflow.methods import spacrd
from ctrflow.nets import spacrd as net
from ctrflow.nets import spacrd_stages, training


def test_parameter_count_of_the_paper():
    assert spacrd.parameters(net.SpaCRD({"image": 1024, "gene": 3000})) == 8_694_913


def test_parameter_counts_by_block():
    built = net.SpaCRD({"image": 1024, "gene": 3000})
    count = spacrd.parameters
    assert count(built.encoders["image"]) == 1_840_128
    assert count(built.encoders["gene"]) == 3_863_552
    assert count(built.attention["image"]) == 1_051_648
    assert count(built.fusion) == 525_824
    assert count(built.encode) + count(built.mean) + count(built.log_variance) == 180_736
    assert count(built.decode) == 172_928
    assert count(built.classifier) == 8_321


def test_contrastive_loss_by_hand():
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    gene = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # similarities [[1, .6], [0, .8]] over a temperature of 0.5
    rows = (math.log(1 + math.exp((0.6 - 1) / 0.5)) + math.log(1 + math.exp((0 - 0.8) / 0.5))) / 2
    columns = (math.log(1 + math.exp((0 - 1) / 0.5)) + math.log(1 + math.exp((0.6 - 0.8) / 0.5))) / 2
    assert float(net.contrastive_loss(image, gene, 0.5, 1.0)) == pytest.approx(rows)
    assert float(net.contrastive_loss(image, gene, 0.5, 0.0)) == pytest.approx(columns)
    assert float(net.contrastive_loss(image, gene, 0.5, 0.25)) == pytest.approx(0.25 * rows + 0.75 * columns)


def test_class_divergence_by_hand():
    mean = torch.tensor([[0.5, 0.0], [1.0, 1.0]])
    log_variance = torch.tensor([[0.0, math.log(2)], [0.0, 0.0]])
    centres = torch.tensor([[0.5, 1.0], [1.0, 1.0]])
    # spot 1: 1/2 [(1 + 0 - 0 - 1) + (2 + 1 - ln 2 - 1)]; spot 2 sits on its centre with unit variance: 0
    assert float(net.class_divergence(mean, log_variance, centres)) == pytest.approx((2 - math.log(2)) / 4)


def test_centres_start_at_minus_and_plus_a_half():
    torch.manual_seed(0)
    centres = net.SpaCRD({"gene": 10}).centres.detach().numpy()
    assert centres.mean(axis=1) == pytest.approx([-0.5, 0.5], abs=0.005)
    assert centres.std(axis=1) == pytest.approx([0.01, 0.01], abs=0.004)


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours = net.CrossAttention().eval()
    theirs = torch.nn.MultiheadAttention(512, 8, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]),
            "in_proj_bias": torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]),
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    spots, own = torch.randn(20, 512), torch.randn(5, 512)
    around = torch.randint(0, 20, (5, 7))
    with torch.inference_mode():
        expected = ours.norm(theirs(own[:, None], spots[around], spots[around])[0][:, 0])
        assert torch.allclose(ours(own, spots[around]), expected, atol=1e-5)


def test_attention_dropout_is_that_of_values_projected_first():
    """Dropped weights no longer sum to one, so the value's bias must follow them."""
    torch.manual_seed(0)
    ours = net.CrossAttention().double()
    ours.dropout.p = 0.5
    own, around = torch.randn(3, 512).double(), torch.randn(3, 7, 512).double()
    torch.manual_seed(5)
    found = ours(own, around)
    query = ours.query(own).view(3, 8, 1, 64)
    key, value = (layer(around).view(3, 7, 8, 64).transpose(1, 2) for layer in (ours.key, ours.value))
    torch.manual_seed(5)
    weights = ours.dropout(torch.softmax(query @ key.transpose(2, 3) / 8, dim=-1).squeeze(2))[:, :, None]
    assert torch.allclose(found, ours.norm(ours.out((weights @ value).reshape(3, 512))), atol=1e-10)


def test_aligned_features_are_unit_vectors_per_spot():
    built = net.SpaCRD({"image": 12, "gene": 30}).eval()
    with torch.inference_mode():
        aligned = built.aligned({"image": torch.rand(9, 12), "gene": torch.rand(9, 30)})
    assert torch.allclose(aligned["image"].norm(dim=1), torch.ones(9), atol=1e-6)


def test_scaling_is_per_section_and_column():
    matrix = np.array([[0.0, 5.0], [2.0, 5.0], [10.0, 1.0], [30.0, 3.0], [20.0, 2.0]], dtype=np.float32)
    sections = np.array(["a", "a", "b", "b", "b"])
    found = section_scaled(matrix, sections, "minmax")
    assert found.tolist() == [[0, 0], [1, 0], [0, 0], [1, 1], [0.5, 0.5]]
    found = section_scaled(matrix, sections, "zscore")
    side = math.sqrt(1.5)  # 1 over the population sd of -1, 0, 1
    assert np.allclose(found, [[-1, 0], [1, 0], [-side, -side], [side, side], [0, 0]])
    assert section_scaled(matrix, sections, "none").tolist() == matrix.tolist()


def orders(n, epochs=1, seed=0):
    return training.orders(n, epochs, torch.Generator().manual_seed(seed), torch.device("cpu"))


def test_batches_keep_the_last_but_not_a_single_spot():
    assert [len(rows) for rows in training.batches(orders(10)[0], 4)] == [4, 4, 2]
    assert [len(rows) for rows in training.batches(orders(9)[0], 4)] == [4, 4]
    first, second = orders(10, epochs=2, seed=3)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()


def test_a_batch_of_one_spot_is_none():
    for n, size in ((1, 4), (5, 1)):
        assert list(training.batches(orders(n)[0], size)) == []


def view(labels, genes=30):
    """A training view of expression alone: two sections, spots at random."""
    rng = np.random.default_rng(0)
    sections = np.where(np.arange(len(labels)) < len(labels) // 2, "a", "b")
    obs = pd.DataFrame({"section": sections, "label": labels}, index=[f"s{i}" for i in range(len(labels))])
    counts = sparse.csr_matrix(rng.random((len(labels), genes), dtype=np.float32))
    return anndata.AnnData(counts, obs=obs, obsm={"spatial": rng.random((len(labels), 2))})


def options(**given):
    return methods.resolve_options(spacrd.SPEC, {"modalities": ["gene"]} | given)


def test_the_steps_of_each_stage_are_logged_once(caplog):
    train = view([0.0, 1.0] * 9 + [np.nan] * 2)
    train.obsm["image"] = np.random.default_rng(1).random((20, 12), dtype=np.float32)
    caplog.set_level("INFO")
    given = {"epochs_align": 2, "epochs_fuse": 3, "epochs_classify": 1, "batch_size": 6}
    spacrd.Model.fit(train, options(modalities=["image", "gene"], **given), 1)
    logged = [record.getMessage() for record in caplog.records if "optimiser steps" in record.getMessage()]
    # 20 spots are 4 batches of at most 6; the 18 labelled ones are 3
    assert logged == ["align: 8 optimiser steps", "fuse: 9 optimiser steps", "classify: 3 optimiser steps"]


def test_the_parameters_of_every_stage_are_trained():
    """Stages II and III leave the encoders frozen, unless they are fine-tuned; the centres learn in both."""
    train = view([0.0, 1.0] * 9)
    train.obsm["image"] = np.random.default_rng(1).random((18, 12), dtype=np.float32)
    short = {"epochs_align": 0, "epochs_fuse": 0, "epochs_classify": 1, "modalities": ["image", "gene"]}

    def moved(**given):
        torch.manual_seed(1)
        first = dict(net.SpaCRD({"image": 12, "gene": 30}).named_parameters())
        found = spacrd.Model.fit(train, options(**short | given), 1).net.named_parameters()
        return {name.split(".")[0] for name, value in found if not torch.equal(value, first[name])}

    rest = {"attention", "fusion", "encode", "mean", "log_variance", "decode", "centres"}
    assert moved() == rest | {"classifier"}
    assert moved(epochs_fuse=1) == rest | {"classifier"}
    assert moved(finetune_encoders=True) == rest | {"classifier", "encoders"}


@pytest.mark.parametrize(("labels", "error"), [([1.0] + [np.nan] * 9, "1 labelled spot in"), ([np.nan] * 10, "0 labe")])
def test_too_few_labelled_spots_for_a_batch(labels, error):
    with pytest.raises(InputError, match=rf"method spacrd: {error}.* sections a, b; it needs at least 2"):
        spacrd.Model.fit(view(labels), options(), 1)


AROUND = torch.tensor([[3, 1, 2, 0, 4, 5, 6], [9, 3, 8, 7, 10, 11, 12]])


@pytest.mark.parametrize("train", [False, True])
def test_distinct_spots_encoded_once_are_the_flattened_neighbourhoods(train):
    """Outputs, gradients and running statistics; dropout off, since its mask is drawn once a spot."""
    torch.manual_seed(0)
    once = net.SpaCRD({"image": 12, "gene": 30})
    flat = copy.deepcopy(once)
    features = {"image": torch.rand(15, 12), "gene": torch.rand(15, 30)}
    for model in (once, flat):
        model.train(train)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    fused = once.fuse(*spacrd_stages._tokens(once, features, None, AROUND))
    rows = AROUND.reshape(-1)
    tokens = flat.aligned({name: value[rows] for name, value in features.items()})
    expected = flat.fuse(tokens, torch.arange(len(rows)).view(AROUND.shape))
    assert torch.allclose(fused, expected, atol=1e-5)
    weights = torch.randn_like(fused)
    for model, value in ((once, fused), (flat, expected)):
        (value * weights).sum().backward()
        assert model.encoders["gene"].linear[0].weight.grad.abs().sum() > 0
    for (name, ours), (_, theirs) in zip(once.named_parameters(), flat.named_parameters(), strict=True):
        if theirs.grad is not None:
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-4), name
    for name, theirs in flat.named_buffers():
        assert torch.allclose(dict(once.named_buffers())[name].float(), theirs.float(), atol=1e-6), name


def test_frozen_tokens_are_looked_up():
    torch.manual_seed(0)
    built = net.SpaCRD({"image": 12, "gene": 30}).eval()
    features = {"image": torch.rand(15, 12), "gene": torch.rand(15, 30)}
    with torch.inference_mode():
        frozen = built.aligned(features)
        looked_up, local = spacrd_stages._tokens(built, features, frozen, AROUND)
        assert torch.allclose(
            built.fuse(looked_up, local), built.fuse(*spacrd_stages._tokens(built, features, None, AROUND)), atol=1e-5
        )


@pytest.mark.parametrize(("preset", "scaling"), [("fast", "minmax"), ("reference", "zscore")])
def test_a_view_too_large_to_be_dense_gives_the_same_model_and_scores(monkeypatch, preset, scaling):
    """To the last bit, in batches made dense one by one."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"section": np.repeat(["a", "b"], [50, 40]), "label": np.arange(90) % 2.0})
    obs.index = obs.index.astype(str)
    obs.loc["7", "label"] = np.nan
    features = {"image": rng.random((90, 5), dtype=np.float32), "spatial": rng.random((90, 2))}
    genes = sparse.random(90, 30, 0.2, format="csr", dtype=np.float32, random_state=0)
    view = anndata.AnnData(genes, obs=obs, obsm=features)
    epochs = {"epochs_align": 1, "epochs_fuse": 1, "epochs_classify": 2, "batch_size": 32}
    options = methods.resolve_options(spacrd.SPEC, {"preset": preset, "scaling": scaling, **epochs})
    dense = spacrd.Model.fit(view, options, 3)
    scores = dense.score(view)
    monkeypatch.setattr(spacrd, "fits", lambda shape: False)
    assert isinstance(dense._features(view)["gene"], spacrd_stages.Rows)
    found = spacrd.Model.fit(view, options, 3)
    assert all((dense.tensors()[name] == value).all() for name, value in found.tensors().items())
    assert (found.score(view) == scores).all()
