"""Swin-Tiny, its authors' ImageNet-1k weights. Liu et al., ICCV 2021. MIT, no account needed."""

from functools import partial

from ctrflow.encoders import network
from ctrflow.encoders.weights import Source

MODEL = "swin_tiny"
OPTIONS = network.OPTIONS


def _adapt(content: dict, model) -> dict:
    """The authors' and timm's older files number stages differently and contain buffers."""
    from timm.models.swin_transformer import checkpoint_filter_fn

    return checkpoint_filter_fn(content, model)


NETWORK = network.Network(
    name=MODEL,
    architecture="swin_tiny_patch4_window7_224",
    dim=768,
    side_px=224,
    **network.IMAGENET,
    source=Source(
        page="https://huggingface.co/timm/swin_tiny_patch4_window7_224.ms_in1k",
        repository="timm/swin_tiny_patch4_window7_224.ms_in1k",
        revision="4cc3a7275b50b53a7bec45f32c236ebe64227cff",
    ),
    adapt=_adapt,
)

build = partial(network.build, NETWORK)
access = partial(network.access, NETWORK)
