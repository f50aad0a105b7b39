"""The light ResNet and its mirror image, against the layers they are made of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctrflow.nets import resnet


def count(module):
    return sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("px", [32, 64])
def test_shapes_of_codes_and_images(norm, px):
    codes = resnet.LightResNet(norm)(torch.rand(2, 3, px, px))
    assert codes.shape == (2, 256, px // 4, px // 4)
    assert resnet.LightDecoder(norm)(codes).shape == (2, 3, px, px)


def test_parameters_by_hand():
    enter, levels = 3 * 8 * 9, 16 * (8 * 8 * 9) + 16 * (16 * 16 * 9)
    shrink, skip = 8 * 16 * 4 + 16 * 32 * 4, 8 * 32 * 16 + 16 * 32 * 4
    leave = 32 * 256 * 9 + 256
    encoder = enter + levels + shrink + skip + leave
    assert count(resnet.LightResNet("instance")) == encoder
    normed = 8 + 16 * 8 + 16 * 16 + 16 + 32 + 32 + 32  # channels with a scale and a shift
    assert count(resnet.LightResNet("batch")) == encoder + 2 * normed
    decoder = 256 * 32 * 9 + levels + shrink + 32 * 16 * 4 + 32 * 8 * 16 + 8 * 3 * 9 + 3
    assert count(resnet.LightDecoder("instance")) == decoder
    assert count(resnet.LightDecoder("batch")) == decoder + 2 * (32 + 16 + 8 + 16 * 16 + 16 * 8 + 16 + 8)


def test_residual_block_by_its_parts():
    torch.manual_seed(0)
    block = resnet.residual_block(8, "instance")
    images = torch.randn(2, 8, 16, 16)
    first, second = (module.weight for module in block.modules() if isinstance(module, nn.Conv2d))
    expected = images
    for weight in (first, second):
        expected = F.leaky_relu(F.instance_norm(F.conv2d(expected, weight, padding=1)), 0.2)
    assert torch.allclose(block(images), images + expected, atol=1e-5)


def test_eight_blocks_a_level():
    net = resnet.LightResNet("batch")
    assert [sum(isinstance(module, resnet.Residual) for module in level.modules()) for level in net.levels] == [8, 8]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in resnet.LightResNet("instance").modules())


def test_both_levels_are_summed_into_the_code():
    torch.manual_seed(0)
    net = resnet.LightResNet("instance")
    images = torch.rand(1, 3, 16, 16)
    first = net.levels[0](net.enter(images))
    second = net.levels[1](net.shrink[0](first))
    summed = net.shrink[1](second) + net.skip[0](first) + net.skip[1](second)
    assert torch.allclose(net(images), net.leave(summed), atol=1e-5)


def test_instance_norm_reads_an_image_alone():
    torch.manual_seed(0)
    net = resnet.LightResNet("instance")
    images = torch.rand(3, 3, 16, 16)
    assert torch.allclose(net(images)[:1], net(images[:1]), atol=1e-5)
