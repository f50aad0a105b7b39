"""UNI: ViT-L/16, DINOv2 on 100 million patches of 100,000 H&E slides. Chen et al., Nat Med 30:850 (2024).

Gated, CC BY-NC-ND 4.0: ask for access at https://huggingface.co/MahmoodLab/UNI with an institution's address.
"""

from functools import partial

from ctrflow.encoders import network
from ctrflow.encoders.weights import Source

MODEL = "uni"
OPTIONS = network.OPTIONS
NETWORK = network.Network(
    name=MODEL,
    architecture="vit_large_patch16_224",
    arguments={"init_values": 1e-5, "dynamic_img_size": True},
    dim=1024,
    side_px=224,
    **network.IMAGENET,
    source=Source(
        page="https://huggingface.co/MahmoodLab/UNI",
        repository="MahmoodLab/uni",  # as spelt in the authors' example, so that its cache is found
        revision="b55a5ec6cade1a39edfe6534189a9b8ca7a022f0",
        file="pytorch_model.bin",
    ),
)

build = partial(network.build, NETWORK)
access = partial(network.access, NETWORK)
