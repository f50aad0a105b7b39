"""The networks of STANDS: a generator that rebuilds a spot from its surroundings, and a critic (METHODS.md 3.4)."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ctrflow.nets.graph_attention import GATv2
from ctrflow.nets.resnet import CODES, REDUCED, LightDecoder, LightResNet
from ctrflow.nets.subgraphs import Step

WIDTH = 256  # of the code of a modality; the latent is both, 512
HIDDEN = 512
HEADS = 4
LAYERS = 3  # of the fusion
JUDGED = 16  # outputs of the critic per spot
DROPOUT = 0.3
HEAD_DROPOUT = 0.1  # of the fusion's attention weights
SLOPE = 0.2  # of the leaky ReLU


class Reader(nn.Module):
    """Patches (B x 3 x px x px, in [0, 1]) -> features (B x 256): the light ResNet, averaged over the patch."""

    def __init__(self):
        super().__init__()
        self.resnet = LightResNet("batch")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`images` (B x 3 x px x px), px a multiple of 4."""
        return self.resnet(images).mean(dim=(2, 3))


class Writer(nn.Module):
    """Codes (B x 256) -> patches (B x 3 x px x px), through tanh."""

    def __init__(self, px: int):
        super().__init__()
        self.side = px // REDUCED
        self.enter = nn.Linear(WIDTH, CODES * self.side**2)
        self.resnet = LightDecoder("batch")

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """`codes` (B x 256)."""
        return torch.tanh(self.resnet(self.enter(codes).view(-1, CODES, self.side, self.side)))


class ImageCoder(nn.Module):
    """Reader and writer without the graph, for pre-training."""

    def __init__(self, px: int):
        super().__init__()
        self.reader = Reader()
        self.between = nn.Sequential(*_dense(CODES, WIDTH))
        self.writer = Writer(px)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The rebuilt images, of the same shape."""
        return self.writer(self.between(self.reader(images)))


class CrossBlock(nn.Module):
    """A modality's code attends to the other's.

    Attention over the one token of the other modality gives it the weight 1, whatever the query and the key, so there
    are only value and output projections, and the block is linear except for its feed-forward part. Dropout of the
    weights leaves a head out as a whole.
    """

    def __init__(self):
        super().__init__()
        self.attended = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.head_dropout = nn.Dropout1d(HEAD_DROPOUT)
        self.feed = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))
        self.norm = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Both (B x 256)."""
        value, out = self.attended
        heads = self.head_dropout(value(other).unflatten(1, (HEADS, -1)))
        seen = self.dropout(self.norm[0](own + out(heads.flatten(1))))
        return self.dropout(self.norm[1](seen + self.feed(seen)))


class Generator(nn.Module):
    """Expression of the spots up to two steps away and image features up to one -> both modalities, rebuilt.

    Parameters
    ----------
    genes : genes of a spot
    px : side of a patch
    """

    def __init__(self, genes: int, px: int):
        super().__init__()
        self.gene_graph = nn.ModuleList([GATv2(genes, HIDDEN, HEADS), GATv2(HIDDEN, WIDTH, 1)])
        self.gene_merge = nn.ModuleList(
            [nn.Sequential(*_dense(HEADS * HIDDEN, HIDDEN)), nn.Sequential(nn.Linear(WIDTH, WIDTH))]
        )
        self.reader = Reader()
        self.image_graph = GATv2(CODES, WIDTH, HEADS)
        self.image_merge = nn.Sequential(*_dense(HEADS * WIDTH, WIDTH))
        self.fusion = nn.ModuleList(
            [nn.ModuleDict({"gene": CrossBlock(), "image": CrossBlock()}) for _ in range(LAYERS)]
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.gene_writer = nn.Sequential(*_dense(WIDTH, HIDDEN), nn.Linear(HIDDEN, genes), nn.ReLU())
        self.writer = Writer(px)

    def forward(
        self, genes: torch.Tensor, features: torch.Tensor, steps: tuple[Step, Step]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Expression (B x genes) and patches (B x 3 x px x px) of the targets.

        Parameters
        ----------
        genes : (spots up to two steps from the targets x genes)
        features : (spots up to one step from them x 256), from `reader`, in the order of `steps[0].onto`
        steps : from two steps away to one, and on to the targets
        """
        outer, inner = steps
        gene = self.gene_merge[0](self.gene_graph[0](genes, outer.edges, outer.onto))
        gene = self.gene_merge[1](self.gene_graph[1](gene, inner.edges, inner.onto))
        image = self.image_merge(self.image_graph(features, inner.edges, inner.onto))
        gene, image = self.dropout(gene), self.dropout(image)
        for layer in self.fusion:
            gene = layer["gene"](gene, image)
            image = layer["image"](image, gene)
        return self.gene_writer(gene), self.writer(image)


class Critic(nn.Module):
    """A spot, real or rebuilt, without its surroundings -> 16 numbers."""

    def __init__(self, genes: int):
        super().__init__()
        self.gene = nn.Sequential(*_dense(genes, HIDDEN), *_dense(HIDDEN, WIDTH), nn.ReLU())
        self.image = nn.Sequential(Reader(), *_dense(CODES, WIDTH))
        layers = []
        for inputs in (2 * WIDTH, WIDTH, WIDTH):
            layers += [spectral_norm(nn.Linear(inputs, WIDTH)), nn.LeakyReLU(SLOPE), nn.Dropout(DROPOUT)]
        self.judge = nn.Sequential(*layers, spectral_norm(nn.Linear(WIDTH, JUDGED)))

    def forward(self, genes: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """`genes` (B x genes), `images` (B x 3 x px x px) -> (B x 16)."""
        return self.judge(torch.cat([self.gene(genes), self.image(images)], dim=1))


class STANDS(nn.Module):
    """Generator and critic for spots of `genes` genes and patches of `px` pixels a side."""

    def __init__(self, genes: int, px: int):
        super().__init__()
        self.generator = Generator(genes, px)
        self.critic = Critic(genes)


def sizes(tensors: dict) -> tuple[int, int]:
    """Genes and patch side, read off the tensors of `STANDS`."""
    genes = tensors["generator.gene_graph.0.source.weight"].shape[1]
    return genes, REDUCED * round((len(tensors["generator.writer.enter.bias"]) / CODES) ** 0.5)


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.LeakyReLU(SLOPE), nn.Dropout(DROPOUT)]
