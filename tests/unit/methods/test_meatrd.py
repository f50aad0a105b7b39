"""MEATRD as a method: direction, switches, trained and frozen parts."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import meatrd
from ctrflow.nets import meatrd as networks
from ctrflow.nets import meatrd_stages, mobile_unet, training
from ctrflow.nets.tissue import pictures
from ctrflow.training import losses

GENES = 12
SMALL = {"d_embed": 16, "d_detect": 64, "epochs_unet": 1, "epochs_rebuild": 2, "epochs_one_class": 2, "batch_size": 16}


def options(**more):
    return methods.resolve_options(meatrd.SPEC, SMALL | more)


def gene_only(**more):
    """Without pictures a training takes a fraction of a second."""
    return options(modalities=["gene"], **more)


def view(name, columns, rows, anomalous=(), seed=0):
    """A section; spots in the columns `anomalous` have other genes and another grain.

    Not quite on a grid: where distances are equal, which spots are the nearest is a matter of their order.
    """
    rng = np.random.default_rng(seed)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(columns), np.arange(rows)))
    odd = np.isin(x, list(anomalous))
    rate = np.where(np.arange(GENES) < GENES // 2, 20.0, 1.0)
    counts = rng.poisson(np.where(odd[:, None], rate[::-1], rate)).astype(np.float32)
    scaled = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    # instance normalisation takes out how dark a patch is, so they differ in grain
    grain = np.sin(np.arange(32) / np.where(odd, 1.0, 4.0)[:, None])
    patches = np.clip(150 + 70 * grain[:, :, None, None] + rng.normal(0, 20, (len(x), 32, 32, 3)), 0, 255).astype(
        np.uint8
    )
    spots = [f"{i}x{j}" for i, j in zip(x, y, strict=True)]
    obs = pd.DataFrame({"section": name, "patient": name, "spot": spots}, index=[f"{name}/{spot}" for spot in spots])
    return ad.AnnData(
        sparse.csr_matrix(scaled),
        obs=obs,
        obsm={"spatial": np.c_[x, y] * 100 + rng.normal(0, 5, (len(x), 2)), "patches": patches},
    ), odd


@pytest.fixture(scope="module")
def train():
    return ad.concat([view("N1", 5, 4, seed=1)[0], view("N2", 4, 4, seed=2)[0]])


@pytest.fixture(scope="module")
def few(train):
    """For trainings with pictures, which take longer."""
    return train[train.obs["section"] == "N2"]


@pytest.fixture(scope="module")
def target():
    return view("T", 8, 4, anomalous=range(4, 8), seed=3)


@pytest.fixture(scope="module")
def model(few):
    return meatrd.Model.fit(few, options(), 1)


@pytest.fixture(scope="module")
def gene_model(train):
    return meatrd.Model.fit(train, gene_only(), 1)


def test_anomalous_spots_score_higher(model, gene_model, target):
    table, odd = target
    for trained in (model, gene_model):
        found = trained.score(table)
        assert found.shape == (32,)
        assert found.dtype == np.float64
        assert roc_auc_score(odd, found) > 0.9


def test_scores_are_in_sd_of_the_reference(gene_model, train):
    found = gene_model.score(train)
    assert found.mean() == pytest.approx(0, abs=1e-4)
    assert found.std() == pytest.approx(1, abs=1e-4)
    assert len(gene_model.parts["reference_scores"]) == train.n_obs


@pytest.mark.parametrize("size", [2, 5, 128])
def test_a_score_does_not_depend_on_its_batch(gene_model, target, size):
    table = target[0]
    other = meatrd.Model.from_tensors(gene_model.tensors(), gene_only(batch_size=size), 1)
    order = np.random.default_rng(0).permutation(table.n_obs)
    found = other.score(table[order])
    assert found == pytest.approx(gene_model.score(table)[order], rel=1e-5, abs=1e-5)


def test_nor_does_it_with_pictures(model, target):
    table = target[0]
    other = meatrd.Model.from_tensors(model.tensors(), options(batch_size=7), 1)
    assert other.score(table[::-1])[::-1] == pytest.approx(model.score(table), rel=1e-4, abs=1e-4)


def test_sections_are_scored_each_by_itself(gene_model, target):
    table = target[0]
    again = view("U", 5, 3, anomalous=[0], seed=4)[0]
    both = ad.concat([table, again])[np.random.default_rng(1).permutation(47)]
    found = gene_model.score(both)
    for section, alone in (("T", table), ("U", again)):
        rows = (both.obs["section"] == section).to_numpy()
        assert found[rows] == pytest.approx(gene_model.score(alone[both.obs_names[rows]]), abs=1e-12)


def test_the_same_seed_is_the_same_training(train, target, gene_model):
    again, other = meatrd.Model.fit(train, gene_only(), 1), meatrd.Model.fit(train, gene_only(), 2)
    assert again.losses == gene_model.losses
    assert (again.score(target[0]) == gene_model.score(target[0])).all()
    assert (other.score(target[0]) != gene_model.score(target[0])).any()


def test_saved_and_loaded_it_scores_the_same(model, target):
    tensors = model.tensors()
    assert all(isinstance(value, np.ndarray) for value in tensors.values())
    again = meatrd.Model.from_tensors(tensors, options(), 9)
    assert (again.score(target[0]) == model.score(target[0])).all()


def test_pretrained_weights_are_those_that_fit_learns_itself(few, target, model):
    decides = {name: options()[name] for name in meatrd.SPEC.pretrain}
    tensors, pretraining = meatrd.Model.pretrain(few, decides, 1)
    again = meatrd.Model.fit(few, options(), 1, pretrained=tensors)
    assert (again.score(target[0]) == model.score(target[0])).all()
    assert pretraining + again.losses == model.losses
    # and the encoder is frozen (M-13)
    state = again.net.generator.unet.state_dict()
    assert all((tensors[f"encoder.{name}"] == value.numpy()).all() for name, value in state.items())


def test_losses_of_all_stages(model):
    table = losses.table(model.losses, "meatrd")
    total = table[table["term"] == "loss"].groupby("stage", sort=False)["epoch"].max()
    assert total.to_dict() == {"unet": 1, "rebuild": 2, "one_class": 2}
    parts = table[(table["stage"] == "rebuild") & (table["epoch"] == 1)].set_index("term")["value"]
    assert parts["loss"] == pytest.approx((parts["image"] + parts["gene"]) / 2)


def test_only_down_blocks_are_frozen_with_the_option(few):
    given = options(freeze="down", epochs_rebuild=1, epochs_one_class=1, neighbours=1)
    tensors, _ = meatrd.Model.pretrain(few, given, 1)
    state = meatrd.Model.fit(few, given, 1, pretrained=tensors).net.generator.unet.state_dict()
    same = {name: (tensors[f"encoder.{name}"] == value.numpy()).all() for name, value in state.items()}
    assert all(kept == name.startswith("down.") for name, kept in same.items())


@pytest.mark.parametrize(
    "more",
    [
        {"mask_scope": "batch"},
        {"mask_scope": "batch", "attention_scope": "batch"},
        {"mask_targets": False},
        {"mgdat_layers": 2},
        {"mgdat_layers": 4},
        {"gat_activation": "none"},
        {"gat_heads": 1},
        {"neighbours": 4},
        {"fusion": "none"},
        {"d_bottleneck": 64},
        {"svdd_fusion": "concat"},
        {"svdd_gene": "linear"},
        {"centre": "batch"},
        {"stage3": False},
        {"stage3_input": "embedding"},
        {"max_reference_spots": 20},
    ],
    ids=lambda more: "-".join(f"{name}={value}" for name, value in more.items()),
)
def test_every_switch_trains_and_changes_the_scores(train, target, gene_model, more):
    table = target[0]
    trained = meatrd.Model.fit(train, gene_only(**more), 1)
    found = trained.score(table)
    assert np.isfinite(found).all()
    assert (found != gene_model.score(table)).any()
    again = meatrd.Model.from_tensors(trained.tensors(), gene_only(**more), 1)
    assert (again.score(table) == found).all()


def test_the_published_code_trains(few, target):
    given = options(preset="reference", epochs_rebuild=1, epochs_one_class=1)
    trained = meatrd.Model.fit(few, given, 1)
    assert np.isfinite(trained.score(target[0])).all()
    assert isinstance(trained.net.generator.image_decoder, mobile_unet.Decoder)
    assert len(trained.net.generator.blocks) == 2
    assert not given["score_flip"]


def test_one_modality_is_enough(train, few, target):
    picture_only = options(modalities=["image"], epochs_rebuild=1, epochs_one_class=1)
    found = meatrd.Model.fit(few, picture_only, 1).score(target[0])
    assert np.isfinite(found).all()
    blind, blind_target = train.copy(), target[0].copy()
    del blind.obsm["patches"], blind_target.obsm["patches"]
    assert roc_auc_score(target[1], meatrd.Model.fit(blind, gene_only(), 1).score(blind_target)) > 0.9


def test_the_inverted_score_of_the_published_code(gene_model, target):
    flipped = meatrd.Model.from_tensors(gene_model.tensors(), gene_only(score_flip=True), 1)
    d, f = gene_model.score(target[0]), flipped.score(target[0])
    # (max - d) / (max - min) in other units
    assert (d.max() - d) / (d.max() - d.min()) == pytest.approx((f - f.min()) / (f.max() - f.min()))


def tissue_of(table, given):
    return meatrd._tissue(table, given, torch.device("cpu"))


def test_without_stage_three_the_score_is_the_error(train, target):
    given = gene_only(stage3=False)
    trained = meatrd.Model.fit(train, given, 1)
    assert trained.net.encoder is None
    tissue, rows = tissue_of(target[0], given), np.arange(32)
    rebuilt = meatrd_stages.all_rebuilt(trained.net.generator, tissue, [rows], given)["gene"].numpy()
    real = target[0].X.toarray()
    cosine = (rebuilt * real).sum(axis=1) / np.linalg.norm(rebuilt, axis=1) / np.linalg.norm(real, axis=1)
    reference = trained.parts["reference_scores"]
    expected = ((1 - cosine) ** 3 - reference.mean()) / reference.std()
    assert trained.score(target[0]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_centre_is_the_mean_over_the_reference(train, gene_model):
    given = gene_only()
    apart = latents(gene_model, train, given)
    assert torch.allclose(gene_model.net.centre, apart.mean(dim=0), atol=1e-6)
    distances = (apart - gene_model.net.centre).square().sum(dim=1)
    assert gene_model.parts["reference_scores"] == pytest.approx(distances.numpy(), rel=1e-3)


def latents(trained, table, given):
    tissue, rows = tissue_of(table, given), np.arange(table.n_obs)
    rebuilt = meatrd_stages.all_rebuilt(trained.net.generator, tissue, [rows], given)
    with torch.no_grad():
        real = trained.net.encoder({"gene": torch.from_numpy(table.X.toarray())})
        return real - trained.net.encoder(rebuilt)


def distances_in_batches(codes, starts):
    """Squared distances to the mean of each batch, which begin at `starts`."""
    codes = codes.numpy().astype(float)
    return np.concatenate([((few - few.mean(axis=0)) ** 2).sum(axis=1) for few in np.split(codes, starts)])


def test_the_centre_of_the_published_code_is_that_of_each_scored_batch(train, target):
    given = gene_only(centre="batch")
    trained = meatrd.Model.fit(train, given, 1)
    # N1 has 20 spots and N2 16, in batches of 16
    reference = distances_in_batches(latents(trained, train, given), [16, 20])
    assert trained.parts["reference_scores"] == pytest.approx(reference, rel=1e-3)
    assert trained.net.centre is None
    again = meatrd.Model.from_tensors(trained.tensors(), given, 1)
    order = np.random.default_rng(0).permutation(32)
    for table in (target[0], target[0][order]):
        found = distances_in_batches(latents(trained, table, given), [16])
        expected = (found - reference.mean()) / reference.std()
        assert again.score(table) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    # another order, other batches, other scores
    assert (abs(again.score(target[0][order]) - again.score(target[0])[order]) > 0.01).any()
    # a batch of one spot is its own centre
    last = again.score(target[0][:17])[-1]
    assert last == pytest.approx(-reference.mean() / reference.std())


def test_reference_sections_need_not_be_contiguous(train):
    given = gene_only(centre="batch")
    order = np.random.default_rng(0).permutation(train.n_obs)
    shuffled = train[order]
    trained = meatrd.Model.fit(shuffled, given, 1)
    codes, names = latents(trained, shuffled, given), shuffled.obs["section"].to_numpy()
    sections = [codes[names == name] for name in dict.fromkeys(names)]
    found = [distances_in_batches(own, range(16, len(own), 16)) for own in sections]
    assert trained.parts["reference_scores"] == pytest.approx(np.concatenate(found), rel=1e-3)


def test_the_former_name_of_the_centre_is_refused():
    with pytest.raises(InputError, match="reference, batch"):
        gene_only(centre="last_batch")


def test_the_embedding_alone_needs_no_reconstruction(train):
    trained = meatrd.Model.fit(train, gene_only(stage3_input="embedding"), 1)
    assert trained.net.generator is None
    assert {row["stage"] for row in trained.losses} == {"one_class"}


def test_the_learning_rate_falls_along_a_cosine():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser, schedule = training.annealed([weight], 0.1, 4)
    rates = []
    for _ in range(4):
        rates.append(optimiser.param_groups[0]["lr"])
        weight.grad = torch.ones(1)
        optimiser.step()
        schedule.step()
    assert rates == pytest.approx([0.1 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)])
    assert optimiser.param_groups[0]["betas"] == (0.5, 0.999)


def test_pictures_are_channels_first_between_0_and_1():
    patches = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    found = pictures(patches, np.array([1]), torch.device("cpu"))
    assert found.shape == (1, 3, 4, 4)
    assert found[0, 2, 1, 3].item() == pytest.approx(patches[1, 1, 3, 2] / 255)


def test_too_few_spots_are_refused(train):
    with pytest.raises(InputError, match="1 spot in the normal sections N1; it needs at least 2"):
        meatrd.Model.fit(train[:1], gene_only(), 1)
    with pytest.raises(InputError, match="`max_reference_spots` is 1"):
        meatrd.Model.fit(train, gene_only(max_reference_spots=1), 1)


def test_a_mask_that_the_batch_bypasses_is_refused(train):
    with pytest.raises(InputError, match="set mask_scope: batch"):
        meatrd.Model.fit(train, gene_only(attention_scope="batch"), 1)


def test_a_mask_that_leaves_nothing_to_rebuild_from_is_refused(train):
    with pytest.raises(InputError, match="set mask_scope: own"):
        meatrd.Model.fit(train, gene_only(fusion="none", mask_scope="batch"), 1)
    meatrd.Model.fit(train, gene_only(fusion="none", mask_scope="batch", mask_targets=False), 1)


def test_the_paper_is_the_default():
    assert methods.resolve_options(meatrd.SPEC, {}) == {
        name: option.default for name, option in meatrd.SPEC.options.items()
    }
    fast = methods.resolve_options(meatrd.SPEC, {"preset": "fast"})
    built = networks.Generator(fast["modalities"], 20, 32, fast)
    assert [len(built.blocks), built.image_encoder.out_features] == [3, 256]
