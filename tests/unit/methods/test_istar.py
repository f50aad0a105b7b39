"""iStar: layers against the card, its parts against loops, and a planted section."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.image.superpixels import discs
from ctrflow.methods import istar
from ctrflow.nets import istar as nets


def planted(n=36, seed=0, section="a"):
    """Spots every 100 µm on a grid of 8 µm; on the left half feature 0 is high and so are the markers."""
    rng = np.random.default_rng(seed)
    side = round(n**0.5)
    spots_px = np.array([(x, y) for y in range(side) for x in range(side)], float) * 100 + 50
    cells = side * 100 // 8
    row, col = np.divmod(np.arange(cells * cells), cells)
    cancer = col < cells // 2
    features = rng.normal(size=(len(row), 46)).astype(np.float32)
    features[:, 0] += 4 * cancer
    truth = (spots_px[:, 0] < side * 50).astype(float)
    counts = rng.poisson(2, (n, 30)).astype(np.float32)
    counts[:, :2] += rng.poisson(6, (n, 2)) * truth[:, None]
    view = anndata.AnnData(
        sparse.csr_matrix(np.log1p(counts)),
        obs=pd.DataFrame({"section": section}, index=[f"{section}{i}" for i in range(n)]),
        var=pd.DataFrame(index=["EPCAM", "MUC1", *(f"G{i}" for i in range(28))]),
        obsm={"spatial": spots_px},
        layers={"counts": sparse.csr_matrix(counts)},
    )
    table = pd.DataFrame(
        {"gene": ["MUC1", "EPCAM", "KRT8"], "set": ["tumour", "epithelial", "epithelial"], "source": "x"}
    )
    view.uns["markers"] = {section: table}
    view.uns["superpixels"] = {
        section: {
            "features": features, "rgb": np.full((len(row), 3), 200, np.uint8), "row": row, "col": col,
            "centres_px": np.column_stack([col, row]) * 8.0 + 4, "um": 8.0, "um_per_px": 1.0, "spot_um": 55.0,
        }
    }  # fmt: skip
    return view, truth


def scored(view, seed=0, **given):
    options = methods.resolve_options(istar.SPEC, {"preset": "fast", "epochs": 5} | given)
    return istar.Model.from_tensors({}, options, seed).score(view)


def test_parameters_are_the_printed_ones():
    count = sum(value.numel() for value in nets.SuperpixelExpression(579, 1000).parameters())
    assert count == 602_856  # METHODS.md 3.7; four of them make the printed 2.41 million
    assert sum(value.numel() for value in nets.SuperpixelExpression(46, 1000).parameters()) == 466_408


def test_layers_by_hand():
    torch.manual_seed(0)
    net = nets.SuperpixelExpression(46, 7)
    x = torch.randn(5, 46)
    hidden = x
    for linear in net.hidden:
        hidden = hidden @ linear.weight.T + linear.bias
        hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
    out = hidden @ net.out.weight.T + net.out.bias
    wanted = torch.where(out > 0, out, 0.01 * (out.exp() - 1)) + 0.01
    assert torch.allclose(net(x), wanted, atol=1e-6)
    assert torch.allclose(net(x, torch.tensor([6, 2])), wanted[:, [6, 2]], atol=1e-6)
    assert net(100 * x).min() >= 0


def test_the_loss_is_of_the_mean_over_the_superpixels_of_a_spot():
    torch.manual_seed(0)
    features, expression = torch.randn(9, 46), torch.rand(2, 3)
    inside = torch.tensor([[0, 1, 2], [7, 8, 0]])
    weights = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 1 / 2, 0]])
    torch.manual_seed(3)
    start = nets.SuperpixelExpression(46, 3)
    first, second = (start(features[rows]).mean(0).detach() for rows in ([0, 1, 2], [7, 8]))
    wanted = ((first - expression[0]).square().mean() + (second - expression[1]).square().mean()) / 2
    losses = []
    torch.manual_seed(3)
    options = {"learning_rate": 1e-4, "batch_size": 128, "epochs": 1}
    nets.train(features, inside, weights, expression, options, torch.Generator().manual_seed(0), "s", losses)
    assert losses == [{"stage": "s", "epoch": 1, "term": "loss", "value": pytest.approx(float(wanted), rel=1e-5)}]


def test_training_brings_the_spots_near_their_expression():
    torch.manual_seed(0)
    features = torch.randn(200, 46)
    inside = torch.arange(200).reshape(40, 5)
    expression = (features[inside][..., 0] > 0).float().mean(1, keepdim=True)
    losses = []
    options = {"learning_rate": 3e-3, "batch_size": 128, "epochs": 10}
    generator = torch.Generator().manual_seed(0)
    nets.train(features, inside, torch.full((40, 5), 0.2), expression, options, generator, "s", losses)
    assert losses[-1]["value"] < 0.2 * losses[0]["value"]


def test_the_median_of_the_networks_is_predicted_whatever_the_chunk():
    torch.manual_seed(0)
    models, features = [nets.SuperpixelExpression(46, 4) for _ in range(3)], torch.randn(50, 46)
    wanted = np.median([model(features).detach().numpy() for model in models], axis=0)[:, [3, 1]]
    genes = torch.tensor([3, 1])
    assert nets.predict(models, features, genes, 50) == pytest.approx(wanted, abs=1e-6)
    assert nets.predict(models, features, genes, 7) == pytest.approx(wanted, abs=1e-6)


def test_score_is_the_mean_of_scaled_markers():
    predicted = np.array([[1.0, 0.0005, 10.0], [3.0, 0.0, 20.0], [2.0, 0.0001, 15.0]], np.float32)
    # the second never reaches 1e-3
    assert istar.marker_score(predicted) == pytest.approx([0, 1, 0.5])
    assert (istar.marker_score(np.zeros((3, 2), np.float32)) == 0).all()


def test_spots_as_a_table_of_superpixels():
    disc = sparse.csr_matrix(np.array([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0.25, 0.25, 0.25, 0.25]]))
    inside, weights = istar.rectangular(disc, 0)
    assert inside.tolist() == [[0, 1, 0, 0], [2, 3, 4, 5]]
    assert weights.tolist() == [[0.5, 0.5, 0, 0], [0.25] * 4]
    inside, weights = istar.rectangular(disc, 2)
    assert inside.tolist() == [[0, 1], [3, 5]]  # evenly: the middles of the two halves
    assert weights.tolist() == [[0.5, 0.5]] * 2


def test_genes_are_the_most_variable_and_the_markers():
    view, _ = planted()
    dense = view.X.toarray().astype(float)
    markers = np.array([1, 0])
    columns, expression = istar._learned(view, markers, {"expression": "log", "genes": 5})
    top = set(np.argsort(-dense.var(axis=0))[:5].tolist())
    assert set(columns.tolist()) == top | {0, 1}
    assert expression == pytest.approx(dense[:, columns])
    _, counts = istar._learned(view, markers, {"expression": "counts", "genes": 5})
    assert np.array_equal(counts, counts.round())


def test_features_are_standardised():
    features = np.random.default_rng(0).normal(3, 5, (100, 4)).astype(np.float32)
    features[:, 2] = 7
    found = istar._standardised(features)
    kept = [0, 1, 3]
    assert found[:, kept] == pytest.approx((features - features.mean(0))[:, kept] / features.std(0)[kept], abs=1e-5)
    assert (found[:, 2] == 0).all()


def test_the_rich_half_scores_higher_and_the_seed_decides():
    view, truth = planted()
    found = scored(view)
    assert roc_auc_score(truth, found) > 0.95
    assert ((found >= 0) & (found <= 1)).all()
    assert (scored(view) == found).all()
    assert (scored(view, seed=1) != found).any()


def test_each_section_by_itself():
    (first, _), (second, _) = planted(25), planted(16, seed=1, section="b")
    both = anndata.concat([first, second])
    for need in ("markers", "superpixels"):
        both.uns[need] = first.uns[need] | second.uns[need]
    found = scored(both)
    assert (found[:25] == scored(first)).all()
    assert (found[25:] == scored(second)).all()


def test_the_score_of_a_spot_is_the_mean_over_its_disc(monkeypatch):
    view, _ = planted(25)
    superpixels = view.uns["superpixels"]["a"]
    values = np.random.default_rng(0).random(len(superpixels["row"]))
    monkeypatch.setattr(istar, "marker_score", lambda predicted: values)
    found = scored(view, epochs=1)
    for spot in (0, 12):
        near = np.linalg.norm(superpixels["centres_px"] - view.obsm["spatial"][spot], axis=1) <= 27.5
        assert found[spot] == pytest.approx(values[near].mean())
    assert np.diff(discs(superpixels, view.obsm["spatial"]).indptr).min() > 30


def test_one_spot_is_refused():
    view, _ = planted(25)
    with pytest.raises(InputError, match="section a has 1 spot; it needs at least 2"):
        scored(view[view.X[:, 0].toarray().ravel() > 0][:1].copy())
