"""HIPT's first level: ViT-S/16 on 256 px, DINO on 104 million patches of TCGA. Chen et al., CVPR 2022.

Not on the hub: vit256_small_dino.pth (672 MB) is in https://github.com/mahmoodlab/HIPT under HIPT_4K/Checkpoints;
Commons Clause, non-commercial academic use. Set `weights` to that file, or to a .safetensors with plain names.
"""

import math
from functools import partial

from ctrflow.encoders import network
from ctrflow.encoders.weights import Source

MODEL = "hipt"
OPTIONS = network.OPTIONS


def _adapt(content: dict, model) -> dict:
    """DINO's teacher weights without prefixes and projection head, position embeddings interpolated to 16 x 16."""
    import torch

    state = content["teacher"] if isinstance(content.get("teacher"), dict) else content
    state = {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.startswith("head.")}
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3 or positions.shape == model.pos_embed.shape:
        return state
    side, wanted = math.isqrt(positions.shape[1] - 1), math.isqrt(model.pos_embed.shape[1] - 1)
    if side**2 + 1 != positions.shape[1]:
        return state
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (wanted + 0.1) / side  # the 0.1 is DINO's, and slightly changes every value
    grid = torch.nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic")
    grid = grid.permute(0, 2, 3, 1).reshape(1, wanted**2, -1)
    return {**state, "pos_embed": torch.cat([positions[:, :1], grid], dim=1)}


NETWORK = network.Network(
    name=MODEL,
    architecture="vit_small_patch16_224",
    arguments={"img_size": 256},
    dim=384,
    side_px=256,
    **network.HALVES,
    source=Source("https://github.com/mahmoodlab/HIPT/blob/master/HIPT_4K/Checkpoints/vit256_small_dino.pth"),
    adapt=_adapt,
)

build = partial(network.build, NETWORK)
access = partial(network.access, NETWORK)
