"""UNI2-h: ViT-H/14 with 8 registers, DINOv2 on 200 million patches of 350,000 H&E and IHC slides. Mahmood Lab, 2025.

Gated, CC BY-NC-ND 4.0: ask for access at https://huggingface.co/MahmoodLab/UNI2-h with an institution's address.
"""

from functools import partial

from ctrflow.encoders import network
from ctrflow.encoders.weights import Source

MODEL = "uni2_h"
OPTIONS = network.OPTIONS
NETWORK = network.Network(
    name=MODEL,
    architecture="vit_giant_patch14_224",
    arguments={
        "img_size": 224,
        "patch_size": 14,
        "embed_dim": 1536,
        "depth": 24,
        "num_heads": 24,
        "mlp_ratio": 2.66667 * 2,
        "mlp_layer": "SwiGLUPacked",
        "act_layer": "silu",
        "reg_tokens": 8,
        "no_embed_class": True,
        "init_values": 1e-5,
        "dynamic_img_size": True,
    },
    dim=1536,
    side_px=224,
    **network.IMAGENET,
    source=Source(
        page="https://huggingface.co/MahmoodLab/UNI2-h",
        repository="MahmoodLab/UNI2-h",
        revision="d517a8dd47902dd7c308b3c36f63bce47e7b9a43",
        file="pytorch_model.bin",
    ),
)

build = partial(network.build, NETWORK)
access = partial(network.access, NETWORK)
