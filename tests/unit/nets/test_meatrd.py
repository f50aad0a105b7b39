"""Layers, losses and parameter counts of MEATRD against METHODS.md card 2 and torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import nn

from ctrflow.features.neighbours import spot_graph
from ctrflow.methods import resolve_options
from ctrflow.methods.meatrd import SPEC
from ctrflow.nets import meatrd, mobile_unet
from ctrflow.nets.ssim import ssim
from ctrflow.nets.subgraphs import subgraphs, with_loops

BOTH = ("image", "gene")


def parameters(net):
    return sum(weight.numel() for weight in net.parameters())


def pictures(count, px=32, seed=0):
    return torch.rand(count, 3, px, px, generator=torch.Generator().manual_seed(seed))


def options(**more):
    return resolve_options(SPEC, more)


# -- structural similarity


def test_equal_pictures_are_alike():
    assert ssim(pictures(2), pictures(2)).tolist() == pytest.approx([1, 1])


def test_ssim_is_that_of_the_11_by_11_convolution():
    first, second = pictures(2, 24), pictures(2, 24, seed=1)
    line = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    window = torch.outer(line, line)
    window = (window / window.sum()).expand(3, 1, 11, 11)

    def smooth(images):
        return F.conv2d(images, window, padding=5, groups=3)

    a, b = smooth(first), smooth(second)
    va, vb, vab = smooth(first**2) - a**2, smooth(second**2) - b**2, smooth(first * second) - a * b
    expected = (2 * a * b + 1e-4) * (2 * vab + 9e-4) / ((a**2 + b**2 + 1e-4) * (va + vb + 9e-4))
    assert ssim(first, second).tolist() == pytest.approx(expected.mean(dim=(1, 2, 3)).tolist(), abs=1e-5)


def test_ssim_is_scikit_images_where_there_is_no_border():
    # a black frame around both, like the padding
    first, second = (F.pad(pictures(1, 30, seed), (12,) * 4)[0].numpy().astype(float) for seed in (0, 1))
    given = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, "full": True}
    each = [structural_similarity(a, b, **given)[1].mean() for a, b in zip(first, second, strict=True)]
    found = ssim(torch.tensor(first)[None], torch.tensor(second)[None])
    assert found.item() == pytest.approx(np.mean(each), abs=1e-9)


# -- Mobile-UNet


def test_unet_has_the_layers_of_the_card():
    net = mobile_unet.MobileUNet()
    assert parameters(net) == 725_819  # 0.726M
    codes, skips = net.encoder(pictures(2))
    assert codes.shape == (2, 256, 2, 2)
    assert [tuple(skip.shape[1:]) for skip in skips] == [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4)]
    assert net(pictures(2)).shape == (2, 3, 32, 32)


def test_doubling_is_bilinear_with_corners_on_corners():
    maps = pictures(2, 8)
    expected = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.allclose(mobile_unet._doubled(maps), expected, atol=1e-6)


def test_pooling_of_shifted_maps_is_the_usual_one():
    maps = pictures(2, 8) - 2  # a border of zeros would show
    assert torch.equal(mobile_unet._largest(maps), F.max_pool2d(maps, 3, stride=2, padding=1))


def test_unet_sees_each_patch_by_itself():
    net, images = mobile_unet.MobileUNet(), pictures(3)
    assert torch.allclose(net(images)[1:2], net(images[1:2]), atol=1e-5)


# -- parameters (METHODS.md 2.3 to 2.5, M-17), worked out layer by layer


def linear(inputs, outputs):
    return inputs * outputs + outputs


def test_parameters_of_the_published_code():
    given = options(preset="reference")
    with torch.device("meta"):
        generator, encoder = (net(BOTH, 3000, 32, given) for net in (meatrd.Generator, meatrd.SpotEncoder))
    transformer = linear(512, 1536) + 3 * linear(512, 512) + 2 * 2 * 512
    block = 2 * transformer + linear(512, 16) + 2 * linear(272, 512) + 512 + linear(512, 256)
    decoder = 2 * linear(256, 12000) + 12000 + linear(12000, 3000)
    coders = linear(3000, 512) + linear(512, 256) + linear(1024, 256) + linear(256, 1024)
    assert parameters(generator) == 2 * block + decoder + coders + 2 * 256 + 725_819 == 52_253_875  # 52.3M
    resnet = parameters(encoder.resnet)
    assert resnet < 150_000
    assert parameters(encoder) == linear(3000, 256) + resnet + linear(256 * 8 * 8, 256) + linear(512, 256)
    assert (parameters(generator) + parameters(encoder)) / 1e6 == pytest.approx(57.5, abs=0.1)


def test_parameters_of_the_paper_preset():
    given = options()
    with torch.device("meta"):
        generator = meatrd.Generator(BOTH, 3000, 32, given)
        reference = meatrd.Generator(BOTH, 3000, 32, options(preset="reference"))
    # a block more; in place of the UNet's decoder the mirrored ResNet, from codes of 256 x 8 x 8
    unet, mirrored = parameters(mobile_unet.Decoder()), parameters(generator.image_decoder)
    wider = linear(256, 256 * 8 * 8) - linear(256, 1024)
    more = parameters(generator.blocks[0]) + mirrored - unet + wider
    assert parameters(generator) == parameters(reference) + more


def test_how_far_each_block_looks():
    assert [meatrd.hops(blocks) for blocks in (0, 1, 2, 3, 4)] == [
        [1],
        [2, 1],
        [3, 2, 1],
        [3, 2, 1, 1],
        [3, 2, 1, 1, 1],
    ]


# -- transformer


def test_the_transformer_is_torchs_own_over_each_subgraph():
    torch.manual_seed(0)
    places = np.random.default_rng(1).uniform(0, 5, (30, 2))
    looped = with_loops(spot_graph(places, np.repeat("a", 30), 4))
    step = subgraphs(looped, np.array([3, 11, 20]), [2]).steps[0]
    width, count = 16, len(step.place)
    ours = meatrd.TransformerLayer(width).eval()
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    theirs = nn.TransformerEncoderLayer(
        width, 4, width, 0.0, activation=lambda rows: F.leaky_relu(rows, 0.2), batch_first=True
    ).eval()
    pairs = {
        "self_attn.in_proj_": ours.look,
        "self_attn.out_proj.": ours.looked,
        "linear1.": ours.forth,
        "linear2.": ours.back,
        "norm1.": ours.norms[0],
        "norm2.": ours.norms[1],
    }
    theirs.load_state_dict(
        {f"{name}{part}": getattr(net, part) for name, net in pairs.items() for part in ("weight", "bias")}
    )
    rows = torch.randn(count, width)
    found = ours(rows, step)
    for slots, filled in zip(step.slots, step.filled, strict=True):
        mine = slots[filled]
        assert torch.allclose(found[mine], theirs(rows[mine][None])[0], atol=1e-5)
    assert step.filled.sum(dim=1).unique().numel() > 1  # of different sizes, so slots stay empty


# -- generator


class Section:
    """A small section and an untrained generator for it."""

    def __init__(self, **more):
        self.options = options(**{"d_embed": 16, "neighbours": 4} | more)
        rng = np.random.default_rng(2)
        side = np.stack(np.meshgrid(np.arange(9), np.arange(7)), axis=-1).reshape(-1, 2)
        self.looped = with_loops(spot_graph(side, np.repeat("a", 63), self.options["neighbours"]))
        self.genes = torch.from_numpy(rng.uniform(0, 3, (63, 12)).astype(np.float32))
        self.images = pictures(63)
        torch.manual_seed(3)
        self.net = meatrd.Generator(self.options["modalities"], 12, 32, self.options).eval()
        with torch.no_grad():
            for mask in self.net.masks.values():
                mask.normal_()

    def rebuilt(self, targets, genes=None, images=None, size=32):
        genes = self.genes if genes is None else genes
        images = self.images if images is None else images
        targets, together = np.asarray(targets), self.options["attention_scope"] == "batch"
        widths = meatrd.hops(meatrd.blocks_of(self.options))
        with torch.inference_mode():
            tokens = self.net.tokens(genes, self.net.codes(images))
            parts = [
                subgraphs(self.looped, piece, widths, together)
                for piece in np.split(targets, range(size, len(targets), size))
            ]
            return self.net(tokens, torch.arange(63), parts, images[targets])

    def changed(self, spots):
        """Expression and patches, with those of `spots` replaced."""
        genes, images = self.genes.clone(), self.images.clone()
        genes[spots], images[spots] = genes[spots].flip(1) + 1, 1 - images[spots]
        return genes, images


MIDDLE = 31  # the middle of 9 x 7 spots: all of its surroundings are there


def moved(section, spots):
    """modality -> the change of the middle's reconstruction when `spots` are replaced."""
    before, after = section.rebuilt([MIDDLE]), section.rebuilt([MIDDLE], *section.changed(spots))
    return {name: (before[name] - after[name]).abs().max().item() for name in before}


def test_a_masked_target_has_no_part_in_its_own_reconstruction():
    assert moved(Section(), [MIDDLE]) == {"image": 0, "gene": 0}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_spots_three_steps_away_have(steps):
    found = moved(Section(), [MIDDLE - steps])
    assert min(found.values()) > 1e-7


def test_spots_further_away_have_none():
    assert moved(Section(), [MIDDLE - 4]) == {"image": 0, "gene": 0}


def test_without_masks_the_target_has():
    assert min(moved(Section(mask_targets=False), [MIDDLE]).values()) > 1e-6


def test_skips_show_the_target_its_own_patch():
    found = moved(Section(decoder_skips=True), [MIDDLE])
    assert found["image"] > 1e-3
    assert found["gene"] == 0


def test_what_is_rebuilt_does_not_depend_on_the_batch():
    section = Section()
    rebuilt = section.rebuilt(np.arange(63))
    order = np.random.default_rng(0).permutation(63)
    for size in (1, 7):
        other = section.rebuilt(order, size=size)
        for name in BOTH:
            assert torch.allclose(other[name], rebuilt[name][order], atol=1e-5)


def test_masks_over_the_batch_hide_its_other_targets():
    section = Section(mask_scope="batch")
    alone, with_neighbour = section.rebuilt([MIDDLE]), section.rebuilt([MIDDLE, MIDDLE + 1])
    assert (alone["gene"][0] - with_neighbour["gene"][0]).abs().max() > 1e-6
    changed = section.rebuilt([MIDDLE, MIDDLE + 1], *section.changed([MIDDLE + 1]))
    assert torch.equal(changed["gene"][0], with_neighbour["gene"][0])


def steps_from(section, spots):
    """(spots,) the steps to the nearest of `spots`, by powers of the adjacency matrix."""
    linked = (section.looped.toarray() > 0).astype(int)
    return sum(np.linalg.matrix_power(linked, n)[:, spots].sum(axis=1) == 0 for n in range(len(linked)))


@pytest.mark.parametrize("attention", ["subgraph", "batch"])
def test_masks_over_the_batch_hide_its_targets_and_all_their_neighbours(attention):
    section = Section(modalities=["gene"], mgdat_layers=2, mask_scope="batch", attention_scope=attention)
    batch, widths = np.array([MIDDLE, MIDDLE + 2, 0]), meatrd.hops(2)
    parts = [
        subgraphs(section.looped, piece, widths, attention == "batch")
        for piece in ([batch] if attention == "batch" else [batch[:2], batch[2:]])
    ]
    genes = section.genes.clone().requires_grad_()
    rebuilt = section.net(section.net.tokens(genes, None), torch.arange(63), parts)["gene"]
    rebuilt[0].square().sum().backward()
    has_part = genes.grad.abs().sum(dim=1).numpy() > 0
    reached = steps_from(section, batch if attention == "batch" else [MIDDLE]) <= 3
    masked = steps_from(section, batch) <= 1
    assert (has_part == (reached & ~masked)).all()
    assert (reached & masked).sum() > len(batch)


def test_attention_over_the_batch_sees_spots_of_others():
    # a spot two steps from the corner is none of those around the middle, and yet has a part
    section = Section(attention_scope="batch", mask_scope="batch")
    of_corner = np.flatnonzero((steps_from(section, [0]) == 2) & (steps_from(section, [MIDDLE]) > 3))[0]
    batch = [MIDDLE, 0]
    before, after = section.rebuilt(batch), section.rebuilt(batch, *section.changed([of_corner]))
    assert (before["gene"][0] - after["gene"][0]).abs().max() > 1e-7


def test_without_fusion_the_image_is_rebuilt_from_the_mask_alone():
    section = Section(fusion="none")
    assert len(section.net.blocks) == 0
    found = section.rebuilt([3, MIDDLE])
    assert torch.allclose(found["image"][0], found["image"][1], atol=1e-6)
    assert (found["gene"][0] - found["gene"][1]).abs().max() > 1e-6


def test_both_modalities_share_the_graph_attention():
    section = Section(modalities=["gene", "image"])
    block = section.net.blocks[0]
    assert block.attention.source.in_features == 16 + 16  # a token and the bottleneck
    assert block.bottleneck.in_features == 2 * 16
    assert len([net for net in block.modules() if isinstance(net, meatrd.GATv2)]) == 1


# -- losses


def test_errors_by_hand():
    real = {"gene": torch.tensor([[1.0, 0.0], [3.0, 4.0]]), "image": pictures(2)}
    rebuilt = {"gene": torch.tensor([[0.0, 2.0], [6.0, 8.0]]), "image": pictures(2, seed=1)}
    found = meatrd.errors(rebuilt, real)
    assert found["gene"].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)  # at right angles; twice as long
    l1 = (real["image"] - rebuilt["image"]).abs().mean(dim=(1, 2, 3))
    assert torch.allclose(found["image"], l1 - ssim(real["image"], rebuilt["image"]))
    both = meatrd.weighted(found, 0.9)
    assert torch.allclose(both, 0.9 * found["image"] + 0.1 * found["gene"])
    assert torch.equal(meatrd.weighted({"gene": found["gene"]}, 0.9), found["gene"])


# -- stage III's encoder


def test_the_mean_of_unit_vectors_is_weighted_by_beta():
    torch.manual_seed(0)
    net = meatrd.SpotEncoder(BOTH, 12, 32, options(d_detect=8, beta=0.9))
    spots = {"gene": torch.rand(3, 12), "image": pictures(3)}
    gene = net.gene[2](F.leaky_relu(net.gene[0](spots["gene"]), 0.2))
    image = net.image(net.resnet(spots["image"]).flatten(1))
    joined = 0.9 * image / image.norm(dim=1, keepdim=True) + 0.1 * gene / gene.norm(dim=1, keepdim=True)
    assert torch.allclose(net(spots), net.fuse(joined), atol=1e-6)


def test_the_codes_concatenation_has_a_tenth_of_the_image_and_no_sign():
    torch.manual_seed(0)
    net = meatrd.SpotEncoder(BOTH, 12, 32, options(d_detect=8, svdd_fusion="concat", svdd_gene="linear"))
    spots = {"gene": torch.rand(3, 12), "image": pictures(3)}
    image = net.image(net.resnet(spots["image"]).flatten(1))
    joined = torch.cat([net.gene(spots["gene"]), 0.1 * image], dim=1)
    found = net(spots)
    assert torch.allclose(found, net.fuse(joined).abs(), atol=1e-6)
    assert (net.fuse(joined) < 0).any()
