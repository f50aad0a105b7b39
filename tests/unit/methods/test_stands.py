"""STANDS' layers, stages and score on small sections and numbers worked by hand."""

import itertools

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn

from ctrflow import methods
from ctrflow.errors import InputError
from ctrflow.methods import stands
from ctrflow.nets import stands as nets
from ctrflow.nets import stands_stages as stages
from ctrflow.nets import training
from ctrflow.nets.tissue import tissue_of

GENES, PX = 12, 8
CPU = torch.device("cpu")


def options(**more):
    brief = {"preset": "fast", "patch_px": PX, "max_reference_spots": 0, "epochs_image": 1, "epochs_extractor": 1}
    return methods.resolve_options(stands.SPEC, brief | {"epochs": 1} | more)


def view(kinds, section="s", seed=0, across=6):
    """Spots on a grid: kind 0 is pale and has the first half of the genes, kind 1 is dark and has the second."""
    rng = np.random.default_rng(seed)
    kinds, n = np.asarray(kinds), len(kinds)
    level = np.where(kinds == 1, 60, 200)[:, None, None, None]
    patches = np.clip(level + rng.normal(0, 10, (n, PX, PX, 3)), 0, 255).astype(np.uint8)
    active = (np.arange(GENES) >= GENES / 2) == (kinds == 1)[:, None]
    genes = np.where(active, 2.0, 0.0) + rng.uniform(0, 0.4, (n, GENES))
    obs = pd.DataFrame({"section": section}, index=[f"{section}{i}" for i in range(n)])
    places = np.stack([np.arange(n) % across, np.arange(n) // across], axis=1) * 100.0
    return ad.AnnData(sparse.csr_matrix(genes, dtype=np.float32), obs=obs, obsm={"patches": patches, "spatial": places})


@pytest.fixture(scope="module")
def reference():
    return view([0] * 36)


@pytest.fixture(scope="module")
def trained(reference):
    return stands.Model.fit(reference, options(), 0)


def tissue(table, **more):
    return tissue_of(table, options(**more)["neighbours"], CPU)


def count(module):
    return sum(value.numel() for value in module.parameters())


def test_parameters_at_3000_genes_and_64_px_by_hand():
    def linear(inputs, outputs):
        return (inputs + 1) * outputs

    def dense(inputs, outputs):
        return linear(inputs, outputs) + 2 * outputs

    def graph(inputs, width, heads):
        return 2 * linear(inputs, heads * width) + heads * width

    reader, decoder = 129_992, 129_659  # tests/unit/nets/test_resnet.py
    block = 2 * linear(256, 256) + linear(256, 512) + linear(512, 256) + 4 * 256
    gene = graph(3000, 512, 4) + dense(2048, 512) + graph(512, 256, 1) + linear(256, 256)
    image = reader + graph(256, 256, 4) + dense(1024, 256)
    writers = dense(256, 512) + linear(512, 3000) + linear(256, 256 * 16 * 16) + decoder
    judge = linear(512, 256) + 2 * linear(256, 256) + linear(256, 16)
    with torch.device("meta"):
        net = nets.STANDS(3000, 64)
    assert count(net.generator) == gene + image + 6 * block + writers == 35_610_363
    assert count(net.critic) == dense(3000, 512) + dense(512, 256) + reader + dense(256, 256) + judge == 2_132_696


def test_cross_block_is_attention_over_one_token():
    torch.manual_seed(0)
    ours = nets.CrossBlock().eval()
    value, out = ours.attended
    theirs = nn.MultiheadAttention(256, 4, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight[512:] = value.weight
        theirs.in_proj_bias[512:] = value.bias
        theirs.out_proj.load_state_dict(out.state_dict())
        own, other = torch.randn(2, 5, 256)
        attended = theirs(own[:, None], other[:, None], other[:, None])[0][:, 0]
        seen = ours.norm[0](own + attended)
        assert torch.allclose(ours(own, other), ours.norm[1](seen + ours.feed(seen)), atol=1e-5)


def test_a_head_of_the_fusion_is_dropped_as_a_whole():
    """What dropout of the attention's weights amounts to with one token: a head's numbers are 0, or 10/9 of them."""
    torch.manual_seed(0)
    block = nets.CrossBlock().train()
    block.norm, block.dropout = nn.ModuleList([nn.Identity(), nn.Identity()]), nn.Identity()
    value, out = block.attended
    with torch.no_grad():
        for linear in (value, out):
            linear.weight.copy_(torch.eye(256))
            linear.bias.zero_()
        for linear in (block.feed[0], block.feed[2]):
            linear.weight.zero_()
            linear.bias.zero_()
        seen = block(torch.zeros(2000, 256), torch.ones(2000, 256)).view(2000, 4, 64)
        assert (seen == seen[:, :, :1]).all()
        assert seen.unique().tolist() == pytest.approx([0, 10 / 9])
        assert float((seen == 0).float().mean()) == pytest.approx(0.1, abs=0.02)
        assert (block.eval()(torch.zeros(3, 256), torch.ones(3, 256)) == 1).all()


def test_a_spot_is_rebuilt_from_two_steps_of_genes_and_one_of_pictures():
    torch.manual_seed(0)
    net = nets.STANDS(GENES, PX).eval()
    row = view([0] * 9, across=9)

    def rebuilt(genes=None, picture=None):
        table = row.copy()
        if genes is not None:
            table.X[genes] = 5.0
        if picture is not None:
            table.obsm["patches"][picture] = 0
        looked = tissue(table, neighbours=1)
        with torch.no_grad():
            return torch.cat([part.flatten() for part in stages._rebuilt(net, looked, stages._around(looked, [0]))])

    # with one neighbour, spot i of a row is linked with i + 1 and i - 1
    plain = rebuilt()
    assert not torch.equal(rebuilt(genes=2), plain)
    assert torch.equal(rebuilt(genes=3), plain)
    assert not torch.equal(rebuilt(picture=1), plain)
    assert torch.equal(rebuilt(picture=2), plain)


def test_relighting_by_hand():
    images = torch.tensor([[0.2, 0.6], [0.4, 0.4], [0.9, 0.1]]).view(1, 3, 1, 2)
    half = torch.full((1, 3), 0.5)
    assert torch.allclose(stages.relit(images, half), images)
    brighter = stages.relit(images, torch.tensor([[1.0, 0.5, 0.5]]))
    assert brighter.flatten().tolist() == pytest.approx([0.3, 0.9, 0.6, 0.6, 1, 0.15])
    grey = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in ((0.2, 0.4, 0.9), (0.6, 0.4, 0.1))]
    flatter = stages.relit(images, torch.tensor([[0.5, 0.0, 0.5]]))
    mean = sum(grey) / 2
    assert flatter.flatten().tolist() == pytest.approx([mean + (x - mean) / 2 for x in images.flatten().tolist()])
    paler = stages.relit(images, torch.tensor([[0.5, 0.5, 0.0]]))
    expected = [grey[i] + (float(images[0, c, 0, i]) - grey[i]) / 2 for c in range(3) for i in range(2)]
    assert paler.flatten().tolist() == pytest.approx(expected)


def test_rotations_by_hand():
    images = torch.rand(1, 3, 8, 8)
    assert torch.allclose(stages.turned(images, torch.tensor([[0.9, 0.0]])), images, atol=1e-5)
    assert torch.allclose(stages.turned(images, torch.tensor([[0.1, 0.0]])), images.flip(3), atol=1e-5)
    assert torch.allclose(stages.turned(images, torch.tensor([[0.9, 0.5]])), images.flip(2, 3), atol=1e-5)
    quarter = stages.turned(images, torch.tensor([[0.9, 0.25]]))
    assert any(torch.allclose(quarter, torch.rot90(images, k, (2, 3)), atol=1e-4) for k in (1, 3))


def test_augmented_patches_differ_by_seed_alone(reference):
    patches = reference.obsm["patches"]
    first = stages.augmented(patches, 1)
    assert first.dtype == np.uint8
    assert first.shape == patches.shape
    assert (first == stages.augmented(patches, 1)).all()
    assert (first != stages.augmented(patches, 2)).any(axis=(1, 2, 3)).all()
    # the light of a patch changes by up to half
    change = first.mean(axis=(1, 2, 3)) / patches.mean(axis=(1, 2, 3))
    assert change.min() < 0.7
    assert change.std() > 0.1


def test_penalty_is_of_both_modalities_together():
    class Linear(nn.Module):
        def forward(self, genes, images):
            # the mean of two numbers with slopes 6 and 8 along one gene and one pixel
            return torch.stack([6 * genes[:, 0], 8 * images[:, 2, 1, 1]], dim=1)

    real, fake = ((torch.randn(5, 4), torch.randn(5, 3, 2, 2)) for _ in range(2))
    penalty = stages.gradient_penalty(Linear(), real, fake, torch.rand(5))
    assert penalty.item() == pytest.approx((5 - 1) ** 2)


def test_penalty_is_taken_on_the_line_between():
    class Squared(nn.Module):
        def forward(self, genes, images):
            return (genes.square().sum(dim=1) + images.square().sum(dim=(1, 2, 3)))[:, None] / 2

    real = torch.tensor([[3.0]]), torch.full((1, 1, 1, 1), 4.0)
    fake = torch.tensor([[-3.0]]), torch.full((1, 1, 1, 1), -4.0)
    # at three quarters of the way the spot is (1.5, 2), and so is the slope, 2.5 long
    penalty = stages.gradient_penalty(Squared(), real, fake, torch.tensor([0.75]))
    assert penalty.item() == pytest.approx(1.5**2)


def test_critic_takes_its_steps_and_stays_while_the_generator_moves(reference, monkeypatch):
    taken, usual = [], training.descend

    def noted(optimiser, loss, terms, steps):
        before = [value.clone() for value in net.critic.parameters()]
        usual(optimiser, loss, terms, steps)
        same = all(torch.equal(*pair) for pair in zip(before, net.critic.parameters(), strict=True))
        taken.append("generator" if same else "critic")

    monkeypatch.setattr(training, "descend", noted)
    torch.manual_seed(0)
    net = nets.STANDS(GENES, PX)
    given = options(epochs=1, batch_size=18, critic_steps=3)
    losses = stages.contest(net, tissue(reference), np.arange(36), given, 0)
    assert taken == (["critic"] * 3 + ["generator"]) * 2
    assert {row["term"] for row in losses} == {"loss", "margin", "penalty", "gene", "image"}
    assert all(value.requires_grad for value in net.critic.parameters())


def test_each_step_of_the_critic_judges_spots_rebuilt_anew(reference, monkeypatch):
    pairs, usual = [], stages.gradient_penalty

    def noted(critic, real, fake, shares):
        pairs.append((real[0], fake[0]))
        return usual(critic, real, fake, shares)

    monkeypatch.setattr(stages, "gradient_penalty", noted)
    torch.manual_seed(0)
    stages.contest(
        nets.STANDS(GENES, PX),
        tissue(reference),
        np.arange(36),
        options(epochs=1, batch_size=36, critic_steps=3),
        0,
    )
    assert len(pairs) == 3
    for (real, fake), (other_real, other_fake) in itertools.combinations(pairs, 2):
        assert torch.equal(real, other_real)
        assert not torch.equal(fake, other_fake)


def test_reader_stays_while_the_extractor_learns(reference):
    torch.manual_seed(0)
    net = nets.STANDS(GENES, PX)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    losses = stages.extract(net, tissue(reference), np.arange(36), options(epochs_extractor=3), 0)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("critic.", "generator.reader.")) for name in changed)
    parts = {name.split(".")[1] for name in changed}
    assert parts == {"gene_graph", "gene_merge", "image_graph", "image_merge", "fusion", "gene_writer", "writer"}
    rows = pd.DataFrame(losses).pivot_table(index="epoch", columns="term", values="value")
    assert np.allclose(rows["loss"], rows["gene"] + rows["image"])
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]


def test_score_is_one_minus_the_cosine_of_the_critic(trained):
    target = view([0, 1, 1, 0, 0, 1, 1, 0, 0], seed=2, across=3)
    looked, net = tissue(target), trained.net.eval()
    with torch.no_grad():
        around = stages._around(looked, np.arange(9))
        fake = net.critic(*stages._rebuilt(net, looked, around)).double().numpy()
        pictures = torch.from_numpy(target.obsm["patches"]).permute(0, 3, 1, 2) / 255
        real = net.critic(torch.from_numpy(target.X.toarray()), pictures).double().numpy()
    norms = np.linalg.norm(real, axis=1) * np.linalg.norm(fake, axis=1)
    assert trained.score(target) == pytest.approx(1 - (real * fake).sum(axis=1) / norms, abs=1e-6)


def test_a_score_does_not_depend_on_the_spots_scored_with_it(trained, monkeypatch):
    target = view([0, 1] * 10, seed=3)
    scores = trained.score(target)
    monkeypatch.setattr(stages, "AT_ONCE", 3)
    assert trained.score(target) == pytest.approx(scores, abs=1e-6)
    both = ad.concat([view([1] * 7, section="other", seed=4), target])
    assert trained.score(both)[7:] == pytest.approx(scores, abs=1e-6)


def test_scores_can_be_scaled_within_sections(trained):
    both = ad.concat([view([0, 1] * 5, section="a", seed=5), view([0] * 8, section="b", seed=6)])
    plain = trained.score(both)
    trained.options = options(score_scale="minmax")
    stretched = trained.score(both)
    trained.options = options()
    for rows in (slice(0, 10), slice(10, 18)):
        low, high = plain[rows].min(), plain[rows].max()
        assert stretched[rows] == pytest.approx((plain[rows] - low) / (high - low), abs=1e-6)


def test_reference_scores_are_those_of_the_spots_learned_from(trained, reference):
    assert trained.tensors()["reference_scores"] == pytest.approx(trained.score(reference), abs=1e-6)
    some = stands.Model.fit(reference, options(max_reference_spots=10), 3)
    rows = np.sort(np.random.default_rng(3).choice(36, 10, replace=False))
    assert some.parts["reference_scores"] == pytest.approx(some.score(reference)[rows], abs=1e-6)


def test_same_seed_same_model_and_back_from_tensors(trained, reference):
    target = view([0, 1] * 5, seed=2)
    scores = trained.score(target)
    pretrained, losses = stands.Model.pretrain(reference, options(), 0)
    again = stands.Model.fit(reference, options(), 0, pretrained=pretrained)
    assert (again.score(target) == scores).all()
    assert losses + again.losses == trained.losses
    loaded = stands.Model.from_tensors(trained.tensors(), options(), 1)
    assert (loaded.score(target) == scores).all()
    assert (stands.Model.fit(reference, options(), 1).score(target) != scores).all()


def test_spots_unlike_the_reference_score_higher(reference):
    """After a short contest; a critic that wins it tells rebuilt normal spots from real ones as well."""
    taught = options(epochs_image=10, epochs_extractor=15, batch_size=12, learning_rate=2e-4)
    model = stands.Model.fit(reference, taught, 0)
    kinds = np.repeat([0, 1], 18)
    scores = model.score(view(kinds, seed=7))
    assert scores[kinds == 1].min() > scores[kinds == 0].max()


def test_a_side_that_cannot_be_halved_twice_is_refused(reference):
    odd = reference.copy()
    odd.obsm["patches"] = np.zeros((36, 10, 10, 3), np.uint8)
    with pytest.raises(InputError, match="`patch_px` is 10; give a multiple of 4"):
        stands.Model.fit(odd, options(), 0)


def test_one_reference_spot_is_refused(reference):
    with pytest.raises(InputError, match="1 spot to learn from in the normal sections s; it needs at least 2"):
        stands.Model.fit(reference[:1], options(), 0)
