"""EfficientNet-Lite0, the TensorFlow authors' ImageNet-1k weights. Tan and Le, ICML 2019. Apache 2.0, no account.

Small (19 MB) and fast: for machines without a GPU.
"""

from functools import partial

from ctrflow.encoders import network
from ctrflow.encoders.weights import Source

MODEL = "efficientnet_lite0"
OPTIONS = network.OPTIONS
NETWORK = network.Network(
    name=MODEL,
    architecture="tf_efficientnet_lite0",
    dim=1280,
    side_px=224,
    **network.HALVES,
    source=Source(
        page="https://huggingface.co/timm/tf_efficientnet_lite0.in1k",
        repository="timm/tf_efficientnet_lite0.in1k",
    ),
)

build = partial(network.build, NETWORK)
access = partial(network.access, NETWORK)
