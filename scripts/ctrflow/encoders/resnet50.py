"""ResNet-50, torchvision's ImageNet-1k weights. He et al., CVPR 2016. BSD 3-clause, no account needed."""

from functools import partial

from ctrflow.encoders import network
from ctrflow.encoders.weights import Source

MODEL = "resnet50"
OPTIONS = network.OPTIONS
NETWORK = network.Network(
    name=MODEL,
    architecture="resnet50",
    dim=2048,
    side_px=224,
    **network.IMAGENET,
    source=Source(
        page="https://huggingface.co/timm/resnet50.tv_in1k",
        repository="timm/resnet50.tv_in1k",
        revision="78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
    ),
)

build = partial(network.build, NETWORK)
access = partial(network.access, NETWORK)
