"""SimpleNet: layers, loss and training against the card, and the direction of its scores."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import simplenet
from ctrflow.nets import simplenet as nets


def view(n, seed, anomalous=0):
    """Features that lie on 5 of 30 directions; the last `anomalous` spots do not."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(n, 5)) @ np.random.default_rng(0).normal(size=(5, 30)) + 0.05 * rng.normal(size=(n, 30))
    image[n - anomalous :] += 3 * rng.normal(size=(anomalous, 30))
    obs = pd.DataFrame({"section": "a"}, index=[f"s{i}" for i in range(n)])
    obsm = {"image": (image * 10 ** np.linspace(-2, 2, 30)).astype(np.float32)}
    return anndata.AnnData(sparse.csr_matrix((n, 3), dtype=np.float32), obs=obs, obsm=obsm)


def options(**given):
    return methods.resolve_options(simplenet.SPEC, {"epochs": 60, "batch_size": 32} | given)


def test_layers_and_parameters():
    # 1,536 features, as the original: adapter 1536 x 1536 + 1536; 1536 x 1024 + 1024; BatchNorm 2 x 1024; tail 1024
    net = nets.SimpleNet(1536)
    assert sum(value.numel() for value in net.parameters()) == 2_360_832 + 1_573_888 + 2048 + 1024
    assert net.discriminator[3].bias is None
    assert net(torch.zeros(4, 1536)).shape == (4,)


def test_weights_start_xavier_normal():
    torch.manual_seed(0)
    net = nets.SimpleNet(500)
    assert float(net.adapter.weight.detach().std()) == pytest.approx((2 / 1000) ** 0.5, rel=0.01)
    assert float(net.discriminator[0].weight.detach().std()) == pytest.approx((2 / 1524) ** 0.5, rel=0.01)


def test_hinge_loss_by_hand():
    # real: 0.5 - 0.2 and 0; noisy: 0.5 + 0.1 and 0
    loss = nets.hinge_loss(torch.tensor([0.2, 0.9]), torch.tensor([0.1, -0.7]), 0.5)
    assert float(loss) == pytest.approx(0.3 / 2 + 0.6 / 2)


def test_a_step_is_adamw_on_the_adapter_and_adam_on_the_discriminator():
    given = options(epochs=1, batch_size=8)
    features = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    net, plain = nets.SimpleNet(4), nets.SimpleNet(4)
    plain.load_state_dict(net.state_dict())
    torch.manual_seed(2)
    (first, *_) = nets.train(net, features, given, 0)
    torch.manual_seed(2)
    plain.train()
    rows = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    adapted = plain.adapter(features[rows])
    both = plain.judged(torch.cat([adapted, adapted + 0.3 * torch.randn(8, 4)]))
    loss = torch.clip(0.5 - both[:8], min=0).mean() + torch.clip(both[8:] + 0.5, min=0).mean()
    loss.backward()
    torch.optim.AdamW(plain.adapter.parameters(), lr=1e-4).step()
    torch.optim.Adam(plain.discriminator.parameters(), lr=2e-4, weight_decay=1e-5).step()
    assert first["value"] == pytest.approx(loss.item())
    for name, value in net.state_dict().items():
        assert torch.allclose(value, plain.state_dict()[name], atol=1e-7), name


def test_anomalous_spots_score_higher():
    model = simplenet.Model.fit(view(200, 1), options(), 0)
    found = model.score(view(60, 2, anomalous=30))
    assert found.dtype == np.float64
    assert roc_auc_score(np.repeat([0, 1], 30), found) > 0.95
    losses = [row["value"] for row in model.losses]
    assert len(losses) == 60
    assert losses[-1] < 0.8 < losses[0]


def test_the_noise_of_the_original_teaches_nothing_on_z_scored_features():
    # why the default differs: 1 is the loss of a constant
    model = simplenet.Model.fit(view(200, 1), options(noise_sd=0.015), 0)
    assert model.losses[-1]["value"] == pytest.approx(1, abs=0.05)


def test_features_are_z_scored_by_the_reference_or_unscaled():
    reference = view(50, 1)
    given = options(epochs=1)
    scaled = simplenet._scaled(reference.obsm["image"], simplenet.Model.fit(reference, given, 0).parts).numpy()
    assert scaled.mean(axis=0) == pytest.approx(np.zeros(30), abs=1e-5)
    assert scaled.std(axis=0) == pytest.approx(np.ones(30), abs=1e-4)
    left = simplenet.Model.fit(reference, given | {"scaling": "none"}, 0)
    assert (simplenet._scaled(reference.obsm["image"], left.parts).numpy() == reference.obsm["image"]).all()


def test_the_same_seed_the_same_scores_and_a_saved_model_too():
    reference, target = view(60, 1), view(20, 2)
    one, same, other = (simplenet.Model.fit(reference, options(epochs=3), seed) for seed in (1, 1, 2))
    assert (one.score(target) == same.score(target)).all()
    assert one.losses == same.losses
    assert (one.score(target) != other.score(target)).any()
    again = simplenet.Model.from_tensors(one.tensors(), one.options, 1)
    assert (again.score(target) == one.score(target)).all()


def test_a_score_does_not_depend_on_the_spots_scored_with_it():
    model, target = simplenet.Model.fit(view(60, 1), options(epochs=3), 1), view(20, 2)
    assert model.score(target[3:4]) == pytest.approx(model.score(target)[3:4], abs=1e-6)


def test_reference_spots_are_capped_and_one_alone_is_refused():
    few = simplenet.Model.fit(view(60, 1), options(epochs=1, max_reference_spots=10), 0)
    rows = np.sort(np.random.default_rng(0).choice(60, 10, replace=False))
    expected = view(60, 1).obsm["image"][rows].mean(axis=0)
    assert few.parts["reference.mean"] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    with pytest.raises(InputError, match="1 spot in the normal sections a; it needs at least 2"):
        simplenet.Model.fit(view(1, 1), options(), 0)
