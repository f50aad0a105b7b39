"""M3DM: the fusion against the card, its banks and machine against the textbook, and the direction of its scores."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import SGDOneClassSVM
from sklearn.metrics import roc_auc_score

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features.memory_bank import coreset, reweighted
from ctrflow.features.neighbours import nearest_within
from ctrflow.methods import m3dm
from ctrflow.nets import m3dm as nets
from ctrflow.nets.spacrd import contrastive_loss


def section(name, seed, anomalous=0):
    """64 spots; the last `anomalous` of them have other genes up, and image features 2 sd off."""
    rng = np.random.default_rng(seed)
    off = np.repeat([0.0, 1.0], [64 - anomalous, anomalous])[:, None] * (np.arange(40) % 2)
    obs = pd.DataFrame({"section": name}, index=[f"{name}{i}" for i in range(64)])
    xy = np.column_stack([np.arange(64) % 8, np.arange(64) // 8]).astype(float)
    image = (rng.normal(size=(64, 40)) + 2 * off) * 10 ** np.linspace(-2, 2, 40) + 7
    return anndata.AnnData(
        sparse.csr_matrix(rng.poisson(1 + 2 * off).astype(np.float32)),
        obs=obs,
        obsm={"spatial": xy, "image": image.astype(np.float32)},
    )


@pytest.fixture(scope="module")
def reference():
    return anndata.concat([section("n1", 1), section("n2", 2)])


def fitted(reference, seed=1, **given):
    return m3dm.Model.fit(reference, methods.resolve_options(m3dm.SPEC, given), seed)


@pytest.fixture(scope="module")
def model(reference):
    return fitted(reference)


def test_layers_and_parameters():
    # per modality LayerNorm 2w, w x 4w + 4w, 4w x w + w, head 256 w + 256; the original's 768 and 1,152
    net = nets.FeatureFusion({"image": 768, "gene": 1152})
    expected = sum(2 * w + 4 * w * w + 4 * w + 4 * w * w + w + 256 * w + 256 for w in (768, 1152))
    assert sum(value.numel() for value in net.parameters()) == expected
    fused = net({"image": torch.zeros(3, 768), "gene": torch.zeros(3, 1152)})
    assert fused.shape == (3, 1920)


def test_fusion_is_norm_and_mlp_of_each_modality():
    torch.manual_seed(0)
    net, features = nets.FeatureFusion({"image": 6, "gene": 4}), {"image": torch.randn(5, 6), "gene": torch.randn(5, 4)}
    parts = []
    for name, value in features.items():
        _, first, _, second = net.blocks[name]
        standard = (value - value.mean(dim=1, keepdim=True)) / (
            value.var(dim=1, correction=0, keepdim=True) + 1e-5
        ).sqrt()
        parts.append(second(torch.nn.functional.gelu(first(standard))))
    assert torch.allclose(net(features), torch.cat(parts, dim=1), atol=1e-6)
    aligned = net.aligned(features)["gene"]
    assert torch.allclose(aligned, torch.nn.functional.normalize(net.heads["gene"](parts[1]), dim=1), atol=1e-6)


def test_loss_is_infonce_at_temperature_1_from_the_image_twice():
    image, gene = (torch.nn.functional.normalize(torch.randn(6, 8), dim=1) for _ in range(2))
    assert float(nets.contrastive_loss(image, gene)) == pytest.approx(
        2 * float(contrastive_loss(image, gene, 1.0, 1.0))
    )


def test_rate_rises_over_an_epoch_and_falls_to_nothing():
    assert [nets.rate(done, 3) for done in (0, 0.5, 1, 2, 3)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert nets.rate(0.5, 1) == 0.5


def test_steps_take_the_rate_at_their_start(monkeypatch):
    # 6 spots in batches of 3: rates of 0 and half a peak, then by half a cosine over two epochs
    taken, descend = [], nets.training.descend
    monkeypatch.setattr(
        nets.training,
        "descend",
        lambda optimiser, *rest: (taken.append(optimiser.param_groups[0]["lr"]), descend(optimiser, *rest)),
    )
    net, features = nets.FeatureFusion({"image": 5, "gene": 4}), {"image": torch.randn(6, 5), "gene": torch.randn(6, 4)}
    nets.train(net, features, {"epochs": 3, "batch_size": 3, "learning_rate": 0.1}, 0)
    half, quarter = 0.1 * (1 + np.cos(np.pi / 4)) / 2, 0.1 * (1 + np.cos(3 * np.pi / 4)) / 2
    assert taken == pytest.approx([0, 0.05, 0.1, half, 0.05, quarter])


def test_training_lowers_the_loss(reference):
    losses = [row["value"] for row in fitted(reference, epochs=8, batch_size=32).losses]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


def test_each_bank_is_standardised_with_its_own_statistics(reference, model):
    features = model._features(reference)
    vectors = model._vectors(features)
    assert vectors["fused"].shape == (128, 80)
    for name, matrix in vectors.items():
        standard = (matrix - matrix.mean()) / matrix.std()
        assert model.parts[f"bank.{name}"] == pytest.approx(standard, abs=1e-5)  # 128: fewer than the smallest bank


def test_each_bank_is_a_coreset_of_a_tenth(reference):
    model = fitted(reference, coreset_least=4)
    for name, matrix in model._vectors(model._features(reference)).items():
        standard = (matrix - matrix.mean()) / matrix.std()
        rows = coreset(standard, 0.1, 4, 1)
        assert len(rows) == 13
        assert model.parts[f"bank.{name}"] == pytest.approx(standard[rows], abs=1e-5)


@pytest.mark.parametrize("least", [4, 470])
def test_the_machine_learns_from_distances_to_others(reference, least):
    model = fitted(reference, coreset_least=least)
    distances = []
    for name, factor in {"image": 0.1, "gene": 1.0, "fused": 1.0}.items():
        mean, sd = model.parts[f"scale.{name}"]
        spots, bank = (model._vectors(model._features(reference))[name] - mean) / sd, model.parts[f"bank.{name}"]
        without = [bank[np.abs(bank - spot).max(axis=1) > 0] for spot in spots]
        distances.append(
            [factor * reweighted(spot[None], others)[0] for spot, others in zip(spots, without, strict=True)]
        )
    machine = SGDOneClassSVM(nu=0.5, max_iter=1000, random_state=1).fit(np.column_stack(distances))
    assert model.parts["weights"] == pytest.approx(machine.coef_.ravel(), rel=1e-4)


@pytest.mark.parametrize("width", [1152, 25])
def test_genes_are_neighbourhood_means_in_a_random_projection(reference, width):
    model = fitted(reference, projection=width)
    around = nearest_within(reference.obsm["spatial"], reference.obs["section"].to_numpy(), 6)
    genes = reference.X.toarray().astype(float)
    means = np.array([genes[rows].mean(axis=0) for rows in around])
    found = model._features(reference)["gene"].numpy()
    if width > 40:
        assert found == pytest.approx(means - means.mean(axis=0), abs=1e-5)  # no more genes than that: themselves
        return
    assert found == pytest.approx((means - means.mean(axis=0)) @ model.parts["gene.axes"], abs=1e-4)
    expected = np.random.default_rng(1).standard_normal((40, 25)) / 5
    assert model.parts["gene.axes"] == pytest.approx(expected, abs=1e-6)


def test_genes_that_normal_tissue_does_not_vary_in_are_seen(reference):
    # all normal spots have equal counts of two genes: by principal axes, spots in which they differ look normal
    bound = reference.copy()
    genes = bound.X.toarray()
    genes[:, 1] = genes[:, 0]
    bound.X = sparse.csr_matrix(genes)
    target = bound.copy()
    genes[64:, 0] += 20
    genes[64:, 1] -= 20
    target.X = sparse.csr_matrix(genes)
    model = fitted(bound, neighbours=0)
    distances = model._distances(model._vectors(model._features(target)))[:, 1]
    assert distances[:64] == pytest.approx(np.zeros(64), abs=1e-6)
    sd = model.parts["scale.gene"][1]
    # the two changes are orthogonal to all normal spots; re-weighting takes half at most
    assert distances[64:].min() >= 0.5 * np.hypot(20, 20) / sd


def test_score_is_the_weighted_sum_of_reweighted_distances(model):
    target = section("t", 3, anomalous=30)
    total = np.zeros(64)
    for weight, (name, factor) in zip(
        model.parts["weights"], {"image": 0.1, "gene": 1.0, "fused": 1.0}.items(), strict=True
    ):
        mean, sd = model.parts[f"scale.{name}"]
        matrix = (model._vectors(model._features(target))[name] - mean) / sd
        total += weight * factor * reweighted(matrix, model.parts[f"bank.{name}"])
    assert model.score(target) == pytest.approx(total)


def test_no_distance_counts_against_being_anomalous(reference):
    # the reason for the direction: weights of a one-class machine on distances are sums of distances
    for seed in range(5):
        weights = fitted(reference, seed).parts["weights"]
        assert (weights >= 0).all()
        assert weights.sum() > 0


def test_anomalous_spots_score_higher(model):
    truth = np.repeat([0, 1], [34, 30])
    assert roc_auc_score(truth, model.score(section("t", 3, anomalous=30))) > 0.95


def test_the_same_seed_the_same_scores_and_a_saved_model_too(reference, model):
    target = section("t", 3)
    same, other = fitted(reference), fitted(reference, 2)
    assert (model.score(target) == same.score(target)).all()
    assert model.losses == same.losses
    assert (model.score(target) != other.score(target)).any()
    again = m3dm.Model.from_tensors(model.tensors(), model.options, 1)
    assert (again.score(target) == model.score(target)).all()


def test_sections_do_not_touch_each_other(model, monkeypatch):
    one, other = section("t", 3, anomalous=20), section("u", 4)
    alone = model.score(one)
    monkeypatch.setattr(m3dm, "SCORED_AT_ONCE", 50)
    assert model.score(anndata.concat([one, other]))[:64] == pytest.approx(alone, abs=1e-6)


def test_image_features_left_as_they_are(reference):
    left = fitted(reference, scaling="none")._features(reference)["image"].numpy()
    assert (left == reference.obsm["image"]).all()


def test_too_few_spots_are_refused(reference):
    with pytest.raises(InputError, match="3 spots in the normal sections n1; it needs at least 4"):
        fitted(reference[:3])
