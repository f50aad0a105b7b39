"""TESLA: layers against the card, imputation and merging against loops, and a planted section."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ctrflow import methods
from ctrflow.methods import tesla
from ctrflow.nets import tesla as nets

OPTIONS = methods.resolve_options(tesla.SPEC, {})


def planted(n=64, seed=0, section="a"):
    """Spots every 100 µm on a grid of 8 µm; the left half is darker and rich in the markers."""
    rng = np.random.default_rng(seed)
    side = round(n**0.5)
    spots_px = np.array([(x, y) for y in range(side) for x in range(side)], float) * 100 + 50
    cells = side * 100 // 8
    row, col = np.divmod(np.arange(cells * cells), cells)
    rgb = rng.integers(180, 220, (len(row), 3))
    rgb[col < cells // 2] -= 90
    truth = (spots_px[:, 0] < side * 50).astype(float)
    counts = rng.poisson(2, (n, 10)).astype(np.float32)
    counts[:, :2] += rng.poisson(20, (n, 2)) * truth[:, None]
    view = anndata.AnnData(
        sparse.csr_matrix(np.log1p(counts)),
        obs=pd.DataFrame({"section": section}, index=[f"{section}{i}" for i in range(n)]),
        var=pd.DataFrame(index=["EPCAM", "MUC1", *(f"G{i}" for i in range(8))]),
        obsm={"spatial": spots_px},
        layers={"counts": sparse.csr_matrix(counts)},
    )
    table = pd.DataFrame(
        {"gene": ["MUC1", "EPCAM", "KRT8"], "set": ["tumour", "epithelial", "epithelial"], "source": "x"}
    )
    view.uns["markers"] = {section: table}
    view.uns["superpixels"] = {
        section: {
            "rgb": rgb.astype(np.uint8), "row": row + 3, "col": col + 5,
            "centres_px": np.column_stack([col, row]) * 8.0 + 4, "um": 8.0, "um_per_px": 1.0, "spot_um": 55.0,
        }
    }  # fmt: skip
    return view, truth


def scored(view, seed=0, **given):
    options = methods.resolve_options(tesla.SPEC, {"preset": "fast"} | given)
    return tesla.Model.from_tensors({}, options, seed).score(view)


def test_layers_and_parameters():
    net = nets.Segmenter(2)
    # 2 x 100 x 25 + 100, 100 x 100 x 25 + 100, 100 x 100 + 100, and 3 x 200 of the normalisation
    assert sum(value.numel() for value in net.parameters()) == 5_100 + 250_100 + 10_100 + 600
    answers = net(torch.rand(1, 2, 9, 7))
    assert answers.shape == (100, 9, 7)
    # normalised by the image's own statistics
    assert torch.allclose(answers.mean((1, 2)), torch.zeros(100), atol=1e-5)


def test_roughness_is_the_mean_absolute_step_down_plus_across():
    answers = torch.tensor([[[0.0, 1.0], [3.0, 3.0]]])
    assert nets.roughness(answers) == pytest.approx((3 + 2) / 2 + (1 + 0) / 2)
    assert nets.roughness(torch.zeros(4, 1, 1)) == 0


def test_small_clusters_go_to_the_large_one_most_met_around_them():
    rng = np.random.default_rng(0)
    clusters = np.where(np.arange(30)[:, None] + np.arange(40) < 30, 0, 1)
    for small in range(2, 9):
        clusters[rng.integers(0, 30, 6), rng.integers(0, 40, 6)] = small
    found = nets.merged(clusters, 10, 3)
    for small in range(2, 9):
        votes = np.zeros(2)
        for y, x in np.argwhere(clusters == small):
            window = clusters[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
            votes += [(window == large).sum() for large in (0, 1)]
        assert set(found[clusters == small]) == {votes.argmax()}
    assert (found[clusters < 2] == clusters[clusters < 2]).all()


def test_a_small_cluster_that_no_large_one_touches_stays():
    clusters = np.zeros((20, 20), int)
    clusters[12:, 12:] = 1
    clusters[15:, 15:] = 2
    assert set(np.unique(nets.merged(clusters, 100, 1))) == {0, 2}  # 1 touches 0; 2 only touches 1


def test_superpixels_are_joined_to_the_step():
    row, col = np.divmod(np.arange(6), 3)
    table = {
        "row": row + 10, "col": col + 20, "rgb": np.arange(18, dtype=np.uint8).reshape(6, 3),
        "centres_px": np.column_stack([col, row]) * 8.0, "um": 8.0, "um_per_px": 0.5,
    }  # fmt: skip
    pixels, member = tesla.binned(table, 16.0, 1000)
    assert member.tolist() == [0, 0, 1, 0, 0, 1]
    assert pixels["rgb"].tolist() == [[6.0, 7.0, 8.0], [10.5, 11.5, 12.5]]
    assert pixels["centres_px"].tolist() == [[4.0, 4.0], [16.0, 4.0]]
    assert (pixels["row"].tolist(), pixels["col"].tolist(), pixels["um"]) == ([0, 0], [0, 1], 16.0)
    assert len(tesla.binned(table, 8.0, 6)[0]["row"]) == 6
    assert len(tesla.binned(table, 8.0, 5)[0]["row"]) == 2  # made larger until they are no more


def pixels_of(view, step_um=16.0):
    return tesla.binned(view.uns["superpixels"]["a"], step_um, 10**6)[0]


def test_colour_is_the_variance_weighted_mean_around():
    view, _ = planted(16)
    pixels = pixels_of(view)
    n = len(pixels["row"])
    places = {(r, c): i for i, (r, c) in enumerate(zip(pixels["row"], pixels["col"], strict=True))}
    means = np.empty((n, 3))
    for (r, c), i in places.items():
        # 50 µm are 3.1 pixels of 16 µm: three across
        window = [places[r + y, c + x] for y in (-1, 0, 1) for x in (-1, 0, 1) if (r + y, c + x) in places]
        means[i] = pixels["rgb"][window].mean(axis=0)
    weights = means.var(axis=0)
    wanted = means @ weights / weights.sum()
    assert tesla.colours(pixels, 50.0) == pytest.approx((wanted - wanted.mean()) / wanted.std(), abs=1e-6)
    assert (tesla.colours(pixels | {"rgb": np.ones((n, 3))}, 50.0) == 0).all()


def test_imputation_against_a_loop():
    view, _ = planted(25)
    pixels, spots, values = pixels_of(view), view.obsm["spatial"], view.X[:, :3]
    found = tesla.impute(spots, values, pixels, OPTIONS)
    places = pixels["centres_px"]
    z = tesla.colours(pixels, OPTIONS["colour_um"]) * max(places[:, 0].std(), places[:, 1].std())
    z_spots = [z[np.linalg.norm(places - spot, axis=1).argmin()] for spot in spots]
    every = np.array(
        [
            [np.sqrt(((place - spot) ** 2).sum() + (a - b) ** 2) for spot, b in zip(spots, z_spots, strict=True)]
            for place, a in zip(places, z, strict=True)
        ]
    )
    assert len(places) <= tesla.SAMPLED  # so the quantile is over all
    limit = np.quantile(every, 10 / 25)
    for i in range(0, len(places), 17):
        order = np.argsort(every[i], kind="stable")[:10]
        order = [one for one in order if every[i, one] <= limit] or order[:1]
        relative = (every[i, order] + 0.1) / (every[i, order].min() + 0.1)
        weights = relative**-2 / (relative**-2).sum()
        assert found[i] == pytest.approx(weights @ values[order].toarray(), rel=1e-6)


def two_depths():
    """Two spots and three superpixels of one colour, the third between them.

    The marker has 9 of the 1,000 counts of the first spot and 4 of the 100 of the second: more counts, but less of
    them. On 10,000 counts they are 90 and 400.
    """
    counts = np.array([[9, 991], [4, 96]], np.float32)
    places = np.array([[0.0, 0.0], [200.0, 0.0], [100.0, 0.0]])
    view = anndata.AnnData(
        sparse.csr_matrix(np.log1p([[90, 9910], [400, 9600]]).astype(np.float32)),
        obs=pd.DataFrame({"section": "a"}, index=["a0", "a1"]),
        var=pd.DataFrame(index=["EPCAM", "G0"]),
        obsm={"spatial": places[:2]},
        layers={"counts": sparse.csr_matrix(counts)},
    )
    view.uns["markers"] = {"a": pd.DataFrame({"gene": ["EPCAM"], "set": ["epithelial"], "source": "x"})}
    view.uns["superpixels"] = {
        "a": {
            "rgb": np.full((3, 3), 200, np.uint8), "row": np.zeros(3, int), "col": np.array([0, 2, 1]),
            "centres_px": places, "um": 100.0, "um_per_px": 1.0, "spot_um": 55.0,
        }
    }  # fmt: skip
    return view, places


def test_the_logarithm_of_counts_is_imputed():
    view, places = two_depths()
    pixels = {"row": np.zeros(3, int), "col": np.array([0, 2, 1]), "rgb": np.full((3, 3), 200.0), "centres_px": places}
    pixels |= {"um": 100.0, "um_per_px": 1.0}
    found = tesla.impute(places[:2], tesla.expression(view[:, :1], "counts"), pixels, OPTIONS)
    far = 1 / ((200 + 0.1) / 0.1) ** 2  # weight of the other spot, 200 px away, against 1 of the nearest
    ten, five = np.log([10, 5])
    wanted = [(ten + far * five) / (1 + far), (five + far * ten) / (1 + far), (ten + five) / 2]
    assert found.ravel() == pytest.approx(wanted, rel=1e-6)
    assert tesla.meta_gene(found, 1, "min") == pytest.approx([1, 0, 0.5])
    found = tesla.impute(places[:2], tesla.expression(view[:, :1], "log"), pixels, OPTIONS)
    assert found[2] == pytest.approx((np.log(91) + np.log(401)) / 2)
    assert tesla.meta_gene(found, 1, "min") == pytest.approx([0, 1, 0.5])


def test_the_deeper_spot_scores_higher_unless_normalised(monkeypatch):
    view, _ = two_depths()
    monkeypatch.setattr(nets, "segment", lambda image, options, name: np.arange(3)[None])  # a cluster a pixel
    assert scored(view, step_um=100.0) == pytest.approx([1, 0])
    assert scored(view, step_um=100.0, expression="log") == pytest.approx([0, 1])


def test_meta_gene():
    expression = np.array([[0.0, 10.0, 5.0], [2.0, 10.0, 7.0], [4.0, 30.0, 6.0], [1.0, 10.0, 5.0]])
    # scaled: (0, 0, 0), (.5, 0, 1), (1, 1, .5), (.25, 0, 0)
    assert tesla.meta_gene(expression, 1, "min") == pytest.approx([0, 1, 1, 0.25])
    assert tesla.meta_gene(expression, 2, "min") == pytest.approx([0, 0.5, 1, 0])
    assert tesla.meta_gene(expression, 2, "mean") == pytest.approx([0, 0.75, 1, 0.125])
    assert tesla.meta_gene(expression, 9, "mean") == pytest.approx(np.array([0, 0.5, 2.5 / 3, 0.25 / 3]) / (2.5 / 3))


def test_clusters_score_by_the_best():
    clusters, gene = np.array([7, 7, 3, 3, 9]), np.array([1.0, 0.6, 0.2, 0.6, 0.0])
    assert tesla.cluster_ratios(clusters, gene) == pytest.approx([1, 1, 0.5, 0.5, 0])
    assert (tesla.cluster_ratios(clusters, gene * 0) == 0).all()


def test_training_stops_at_few_large_clusters():
    torch.manual_seed(0)
    image = torch.rand(1, 2, 40, 40)
    found = nets.segment(image, OPTIONS | {"main_clusters": 20, "minor_share": 0.02}, "s")
    assert found.shape == (40, 40)
    assert (np.bincount(found.ravel()) >= 32).sum() <= 20


def test_the_rich_half_scores_higher_and_the_seed_decides():
    view, truth = planted()
    found = scored(view)
    assert found[truth == 1].min() > found[truth == 0].max()
    assert found.max() <= 1 + 1e-9
    assert (scored(view) == found).all()
    assert (scored(view, seed=1) != found).any()


def test_each_section_by_itself():
    (first, _), (second, _) = planted(36), planted(25, seed=1, section="b")
    both = anndata.concat([first, second])
    for need in ("markers", "superpixels"):
        both.uns[need] = first.uns[need] | second.uns[need]
    found = scored(both)
    assert (found[:36] == scored(first)).all()
    assert (found[36:] == scored(second)).all()


def test_fewer_spots_than_neighbours():
    view, _ = planted(4)
    assert np.isfinite(scored(view)).all()
