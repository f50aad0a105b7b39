"""The networks and losses of MEATRD (METHODS.md 2.4 and 2.5)."""

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ctrflow.nets import mobile_unet, training
from ctrflow.nets.graph_attention import GATv2
from ctrflow.nets.resnet import CODES, REDUCED, LightDecoder, LightResNet
from ctrflow.nets.ssim import ssim
from ctrflow.nets.subgraphs import Step, Subgraphs

HOPS = 3  # radius of a neighbourhood
SLOPE = 0.2  # of every leaky ReLU
GENE_HIDDEN, GENE_DROPOUT = 512, 0.8
TRANSFORMER_LAYERS, TRANSFORMER_HEADS, TRANSFORMER_DROPOUT = 2, 4, 0.1
FEATURE_DROPOUT, ATTENTION_DROPOUT = 0.2, 0.1  # of the graph attention
DECODER_HEADS = 4
IMAGE_SHARE = 0.1  # weight of the image where the published code concatenates both
TOGETHER = 32  # spots whose layers are computed together: measured fastest on a CPU, as most of it stays in the cache


def hops(blocks: int) -> list[int]:
    """The largest distance of a spot from the target before each block, and before the gene decoder.

    Two blocks and the decoder step in from three hops to the target, as in the published code; further blocks work on
    the innermost ring.
    """
    return [max(1, min(HOPS, blocks + 1) - i) for i in range(blocks + 1)]


class GeneEncoder(nn.Module):
    """Expression -> embedding; normalised over the features of each spot in between."""

    def __init__(self, genes: int, width: int):
        super().__init__()
        self.hidden = nn.Linear(genes, GENE_HIDDEN)
        self.out = nn.Linear(GENE_HIDDEN, width)
        self.dropout = nn.Dropout(GENE_DROPOUT)

    def forward(self, genes: torch.Tensor) -> torch.Tensor:
        """(rows x genes) -> (rows x width)."""
        hidden = F.layer_norm(self.hidden(genes), (GENE_HIDDEN,))
        return self.out(self.dropout(F.leaky_relu(hidden, SLOPE)))


class TransformerLayer(nn.Module):
    """Every row attends to the rows of its subgraph; then two linear maps of each row; both added and normalised."""

    def __init__(self, width: int):
        super().__init__()
        self.look = nn.Linear(width, 3 * width)
        self.looked = nn.Linear(width, width)
        self.forth, self.back = nn.Linear(width, width), nn.Linear(width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(TRANSFORMER_DROPOUT)
        nn.init.xavier_uniform_(self.look.weight)
        for linear in (self.look, self.looked):
            nn.init.zeros_(linear.bias)

    def forward(self, rows: torch.Tensor, step: Step) -> torch.Tensor:
        """(rows x width), the same out. Linear maps run on rows; rows are placed in slots only for the attention."""
        subgraphs, most = step.slots.shape
        looks = self.look(rows).index_select(0, step.slots.flatten())
        looks = looks.view(subgraphs, most, 3, TRANSFORMER_HEADS, -1).permute(2, 0, 3, 1, 4)
        dropout = TRANSFORMER_DROPOUT if self.training else 0.0
        seen = F.scaled_dot_product_attention(*looks, attn_mask=step.filled[:, None, None], dropout_p=dropout)
        seen = seen.transpose(1, 2).reshape(subgraphs * most, -1).index_select(0, step.place)
        rows = self.norms[0](rows + self.dropout(self.looked(seen)))
        return self.norms[1](rows + self.dropout(self.back(F.leaky_relu(self.forth(rows), SLOPE))))


class Block(nn.Module):
    """MGDAT: a transformer over the subgraph joins the modalities, and a bottleneck condenses its output; then each
    modality, with that appended, attends along the edges, with the same weights for both.

    Parameters
    ----------
    modalities : number of modalities
    width : of a token
    bottleneck : width of the bottleneck
    heads : of the graph attention
    activation : "leaky_relu" after the graph attention, or "none" (M-06)
    """

    def __init__(self, modalities: int, width: int, bottleneck: int, heads: int, activation: str):
        super().__init__()
        joined = modalities * width
        self.transformer = nn.ModuleList(TransformerLayer(joined) for _ in range(TRANSFORMER_LAYERS))
        self.bottleneck = nn.Linear(joined, bottleneck)
        self.attention = GATv2(width + bottleneck, width, heads, FEATURE_DROPOUT, ATTENTION_DROPOUT, SLOPE)
        self.merge = nn.Linear(heads * width, width)
        self.activation = activation

    def forward(self, tokens: dict[str, torch.Tensor], step: Step) -> dict[str, torch.Tensor]:
        """modality -> (rows x width) before the step, (rows x width) after it."""
        joined = torch.cat(list(tokens.values()), dim=1)
        for layer in self.transformer:
            joined = layer(joined, step)
        shared = self.bottleneck(joined)
        return {name: self._attended(torch.cat([value, shared], dim=1), step) for name, value in tokens.items()}

    def _attended(self, rows: torch.Tensor, step: Step) -> torch.Tensor:
        looked = self.attention(rows, step.edges, step.onto)
        return self.merge(F.leaky_relu(looked, SLOPE) if self.activation == "leaky_relu" else looked)


class Generator(nn.Module):
    """Rebuilds a spot's expression and patch, from its neighbourhood alone where targets are masked.

    Parameters
    ----------
    modalities : which of "gene" and "image" it reads and rebuilds
    genes : width of the expression
    px : side of a patch
    options : of the method (see `methods.meatrd`)
    """

    def __init__(self, modalities: Iterable[str], genes: int, px: int, options: dict):
        super().__init__()
        width = options["d_embed"]
        self.modalities = tuple(modalities)
        self.mask_targets, self.mask_scope = options["mask_targets"], options["mask_scope"]
        self.masks = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in self.modalities})
        built = width, options["d_bottleneck"], options["gat_heads"], options["gat_activation"]
        self.blocks = nn.ModuleList(Block(len(self.modalities), *built) for _ in range(blocks_of(options)))
        if "gene" in self.modalities:
            self.gene_encoder = GeneEncoder(genes, width)
            self.gene_attention = GATv2(width, genes, DECODER_HEADS, FEATURE_DROPOUT, ATTENTION_DROPOUT, SLOPE)
            self.gene_decoder = nn.Linear(DECODER_HEADS * genes, genes)
        if "image" in self.modalities:
            self.skips = options["decoder_skips"]
            self.unet = mobile_unet.Encoder()
            side = px // (mobile_unet.REDUCED if self.skips else REDUCED)
            self.coded = (mobile_unet.CODES if self.skips else CODES), side, side
            self.image_encoder = nn.Linear(mobile_unet.CODES * (px // mobile_unet.REDUCED) ** 2, width)
            self.image_code = nn.Linear(width, math.prod(self.coded))
            self.image_decoder = mobile_unet.Decoder() if self.skips else LightDecoder("instance")

    def load_pretrained(self, pretrained: dict[str, np.ndarray], freeze: str) -> None:
        """Load the weights of stage I.

        `freeze` is the part of the encoder to freeze: the whole "encoder", or its "down" blocks (M-13).
        """
        training.from_numpy(self.unet, training.under(pretrained, "encoder."))
        if self.skips:
            training.from_numpy(self.image_decoder, training.under(pretrained, "decoder."))
        (self.unet if freeze == "encoder" else self.unet.down).requires_grad_(False)

    def codes(self, images: torch.Tensor) -> torch.Tensor:
        """The UNet's codes of patches (B x 3 x px x px), flattened."""
        return self.unet(images)[0].flatten(1)

    def tokens(self, genes: torch.Tensor | None, codes: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """modality -> (rows x d_embed)."""
        encode = {"image": lambda: self.image_encoder(codes), "gene": lambda: self.gene_encoder(genes)}
        return {name: encode[name]() for name in self.modalities}

    def forward(
        self, tokens: dict, known: torch.Tensor, parts: list[Subgraphs], images: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """modality -> the rebuilt targets of all parts, in order.

        Parameters
        ----------
        tokens : modality -> (rows x d_embed)
        known : (rows,) the spots whose tokens these are, sorted
        parts : subgraphs of the targets; a few at a time, so that intermediate results stay in the cache
        images : patches of the targets, for a decoder with skips (M-04)
        """
        of_batch = self.mask_targets and self.mask_scope == "batch"
        masked = torch.cat([part.innermost() for part in parts]).unique() if of_batch else None
        inputs = [self._decoder_inputs(tokens, torch.searchsorted(known, part.spots), part, masked) for part in parts]
        rebuilt = {}
        if "image" in self.modalities:
            rebuilt["image"] = self._picture(torch.cat([part["image"] for part in inputs]), images)
        if "gene" in self.modalities:
            attended = torch.cat([part["gene"] for part in inputs])
            rebuilt["gene"] = F.leaky_relu(self.gene_decoder(attended), SLOPE)
        return rebuilt

    def _decoder_inputs(self, tokens: dict, place: torch.Tensor, part: Subgraphs, masked: torch.Tensor | None) -> dict:
        """modality -> the decoder's input for the targets of one part."""
        rows = {name: value.index_select(0, place) for name, value in tokens.items()}
        if self.mask_targets:
            hidden = _hidden(part, masked)[:, None]
            rows = {name: torch.where(hidden, self.masks[name], value) for name, value in rows.items()}
        for block, step in zip(self.blocks, part.steps, strict=False):
            rows = block(rows, step)
        last = part.steps[-1]
        if "gene" in rows:
            rows["gene"] = self.gene_attention(rows["gene"], last.edges, last.onto)
        if "image" in rows:
            rows["image"] = rows["image"].index_select(0, last.onto)
        return rows

    def _picture(self, looked: torch.Tensor, images: torch.Tensor | None) -> torch.Tensor:
        codes = self.image_code(looked).view(-1, *self.coded)
        if not self.skips:
            return in_parts(self.image_decoder, codes)
        return self.image_decoder(codes, self.unet(images)[1])


def _hidden(part: Subgraphs, masked: torch.Tensor | None) -> torch.Tensor:
    """(rows,) which are masked: the target of each subgraph, or the spots `masked` in all of them (M-03)."""
    if masked is not None:
        return torch.isin(part.spots, masked)
    hidden = torch.zeros(len(part.spots), dtype=torch.bool, device=part.spots.device)
    hidden[part.own] = True
    return hidden


class SpotEncoder(nn.Module):
    """Stage III's encoder: a spot's expression and patch, real or rebuilt -> (B x d_detect).

    Parameters
    ----------
    modalities, genes, px, options : as of the `Generator`
    """

    def __init__(self, modalities: Iterable[str], genes: int, px: int, options: dict):
        super().__init__()
        width = options["d_detect"]
        self.modalities = tuple(modalities)
        self.fusion = options["svdd_fusion"]
        self.shares = {"image": options["beta"], "gene": 1 - options["beta"]}
        if "image" in self.modalities:
            self.resnet = LightResNet("instance")
            self.image = nn.Linear(CODES * (px // REDUCED) ** 2, width)
        if "gene" in self.modalities:
            deeper = [nn.LeakyReLU(SLOPE), nn.Linear(width, width)] if options["svdd_gene"] == "mlp" else []
            self.gene = nn.Sequential(nn.Linear(genes, width), *deeper)
        if self.fusion == "mean":
            self.fuse = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width))
        else:
            self.fuse = nn.Linear(width * len(self.modalities), width)

    def forward(self, spots: dict[str, torch.Tensor]) -> torch.Tensor:
        """`spots`: modality -> (B x genes) or (B x 3 x px x px)."""
        codes = {}
        if "gene" in self.modalities:
            codes["gene"] = self.gene(spots["gene"])
        if "image" in self.modalities:
            codes["image"] = self.image(in_parts(self.resnet, spots["image"]).flatten(1))
        if self.fusion == "mean":
            shares = self.shares if len(codes) > 1 else dict.fromkeys(codes, 1.0)
            return self.fuse(sum(shares[name] * F.normalize(code, dim=1) for name, code in codes.items()))
        scales = {"gene": 1.0, "image": IMAGE_SHARE if len(codes) > 1 else 1.0}
        return self.fuse(torch.cat([scales[name] * code for name, code in codes.items()], dim=1)).abs()


class MEATRD(nn.Module):
    """Generator, encoder, and the centre (d_detect,) of the codes of normal spots.

    Without stage III there is no encoder and no centre; no generator where stage III reads real spots alone; no centre
    where it is that of each batch (M-09).
    """

    def __init__(self, genes: int, options: dict):
        super().__init__()
        built = options["modalities"], genes, options["patch_px"], options
        self.generator = Generator(*built) if rebuilds(options) else None
        self.encoder = SpotEncoder(*built) if options["stage3"] else None
        kept = options["stage3"] and options["centre"] == "reference"
        self.register_buffer("centre", torch.zeros(options["d_detect"]) if kept else None)


def rebuilds(options: dict) -> bool:
    """Whether the generator's output is used."""
    return not options["stage3"] or options["stage3_input"] == "difference"


def blocks_of(options: dict) -> int:
    """The number of MGDAT blocks: none without fusion."""
    return options["mgdat_layers"] if options["fusion"] == "attention" else 0


def errors(rebuilt: dict[str, torch.Tensor], real: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Per spot (B,): `image`, mean absolute error minus structural similarity; `gene`, the scaled cosine error."""
    each = {}
    if "image" in rebuilt:
        each["image"] = picture_error(rebuilt["image"], real["image"])
    if "gene" in rebuilt:
        each["gene"] = (1 - F.cosine_similarity(rebuilt["gene"], real["gene"], dim=1)) ** 3
    return each


def picture_error(rebuilt: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(B,) mean absolute error minus structural similarity, of patches in [0, 1]."""
    return (rebuilt - real).abs().mean(dim=(1, 2, 3)) - ssim(rebuilt, real)


def weighted(each: dict[str, torch.Tensor], alpha: float) -> torch.Tensor:
    """Per spot: alpha times the image's error and 1 - alpha times that of the genes; of one modality, its own."""
    if len(each) == 1:
        return next(iter(each.values()))
    return alpha * each["image"] + (1 - alpha) * each["gene"]


def in_parts(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The output of an image network without batch statistics, a few images at a time."""
    return torch.cat([net(few) for few in images.split(TOGETHER)])
