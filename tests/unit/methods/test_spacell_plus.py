"""SpaCell-Plus: its layers, its loss, and the spots it learns from."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.features.learned_from import labelled_rows
from ctrflow.methods import spacell_plus
from ctrflow.nets.spacell_plus import SpaCellPlus


def view_of(seed: int, spots: int = 40, section: str = "a"):
    """Cancer raises the first genes and image features."""
    rng = np.random.default_rng(seed)
    labels = np.arange(spots) % 2.0
    genes = rng.random((spots, 20)) + np.outer(labels, np.arange(20) < 5)
    image = rng.random((spots, 8)) + np.outer(labels, np.arange(8) < 3)
    obs = pd.DataFrame({"section": section, "label": labels}, index=[f"{section}{i}" for i in range(spots)])
    return anndata.AnnData(
        sparse.csr_matrix(genes.astype(np.float32)), obs=obs, obsm={"image": image.astype(np.float32)}
    )


def fitted(view, seed=0, **given):
    return spacell_plus.Model.fit(view, methods.resolve_options(spacell_plus.SPEC, {"preset": "fast"} | given), seed)


def test_parameter_counts():
    def count(net):
        return sum(value.numel() for value in net.parameters())

    net = SpaCellPlus({"image": 1024, "gene": 3000}, 64)
    # in -> 256 -> 64 -> 256 -> in with biases: 513 in + 33,344
    assert count(net.autoencoders["image"]) == 558_656
    assert count(net.autoencoders["gene"]) == 1_572_344
    assert count(net.classifier) == 8_321
    assert count(net) == 2_139_321


def test_the_loss_by_numpy():
    torch.manual_seed(0)
    net = SpaCellPlus({"image": 3, "gene": 5}, 4)
    features = {"image": torch.rand(6, 3), "gene": torch.rand(6, 5)}
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    with torch.no_grad():
        loss, terms = net.loss(features, labels, 0.5)
    latents, errors = [], {}
    for name, value in features.items():
        weights = [part.detach().numpy() for part in net.autoencoders[name].parameters()]
        hidden = np.maximum(value.numpy() @ weights[0].T + weights[1], 0)
        latents.append(hidden @ weights[2].T + weights[3])
        hidden = np.maximum(latents[-1] @ weights[4].T + weights[5], 0)
        back = 1 / (1 + np.exp(-(hidden @ weights[6].T + weights[7])))
        errors[name] = np.mean((back - value.numpy()) ** 2)
    weights = [part.detach().numpy() for part in net.classifier.parameters()]
    logits = (np.maximum(np.hstack(latents) @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3]).ravel()
    p = 1 / (1 + np.exp(-logits))
    classification = -np.mean(labels.numpy() * np.log(p) + (1 - labels.numpy()) * np.log(1 - p))
    assert net.logit(features).detach().numpy() == pytest.approx(logits, abs=1e-6)
    assert float(terms["classification"]) == pytest.approx(classification, rel=1e-5)
    assert float(terms["reconstruction_image"]) == pytest.approx(errors["image"], rel=1e-5)
    assert float(terms["reconstruction_gene"]) == pytest.approx(errors["gene"], rel=1e-5)
    assert float(loss) == pytest.approx(classification + 0.5 * (errors["image"] + errors["gene"]), rel=1e-5)


@pytest.mark.parametrize("modalities", [["image", "gene"], ["image"], ["gene"]])
def test_cancer_of_another_section_scores_higher(modalities):
    view = view_of(0)
    found = fitted(view, modalities=modalities, epochs=60).score(view_of(1, section="b"))
    labels = view.obs["label"].to_numpy()
    assert found[labels == 1].min() > found[labels == 0].max()
    assert ((found > 0) & (found < 1)).all()


def test_a_scale_of_the_section_does_not_matter():
    view, other = view_of(0), view_of(1, section="b")
    model = fitted(view)
    plain = model.score(other)
    other.obsm["image"] = other.obsm["image"] * 3 + 7
    assert model.score(other) == pytest.approx(plain, abs=1e-5)


def test_unlabelled_spots_are_not_learned_from():
    view = view_of(0)
    more = view[:6].copy()
    more.obs["label"] = np.nan
    more.obs_names = [f"unknown{i}" for i in range(6)]
    first, second = fitted(view), fitted(anndata.concat([more, view]))
    for name, value in first.tensors().items():
        np.testing.assert_array_equal(value, second.tensors()[name])


def test_the_order_of_the_modalities_does_not_matter():
    view = view_of(0)
    first, second = (fitted(view, modalities=order).score(view) for order in (["image", "gene"], ["gene", "image"]))
    np.testing.assert_array_equal(first, second)


def test_labels_of_one_class_are_refused():
    view = view_of(0)
    view.obs.loc[view.obs["label"] == 1, "label"] = np.nan
    with pytest.raises(
        InputError, match=r"method spacell_plus: the training sections a have no spot labelled as cancer;"
    ):
        fitted(view)
    view.obs["label"] = np.nan
    with pytest.raises(InputError, match="labelled as cancer or other tissue"):
        labelled_rows(view, "m")


def test_labelled_rows():
    view = view_of(0, spots=4)
    view.obs["label"] = [np.nan, 1, 0, np.nan]
    labels, rows = labelled_rows(view, "m")
    assert labels.dtype == np.float32
    assert labels[rows].tolist() == [1, 0]
    assert rows.tolist() == [1, 2]
