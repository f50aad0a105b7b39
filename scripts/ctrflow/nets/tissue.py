"""The spots of sections as networks of both modalities read them."""

from dataclasses import dataclass

import numpy as np
import torch

from ctrflow.features.neighbours import spot_graph
from ctrflow.nets.subgraphs import with_loops


@dataclass(frozen=True)
class Tissue:
    """The spots of one or several sections.

    genes : CSR float32 (spots x genes)
    patches : uint8 (spots x px x px x 3), or None where the image is not read
    looped : CSR (spots x spots), the graph with self-loops
    device : that of the networks
    """

    genes: object
    patches: np.ndarray | None
    looped: object
    device: torch.device

    def real(self, rows: np.ndarray, modalities: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """modality -> the expression (B x genes) or the patches (B x 3 x px x px, in [0, 1]) of spots."""
        read = {"gene": self.expression, "image": lambda rows: pictures(self.patches, rows, self.device)}
        return {name: read[name](rows) for name in modalities}

    def expression(self, rows: np.ndarray) -> torch.Tensor:
        """(B x genes)."""
        return torch.from_numpy(self.genes[rows].toarray()).to(self.device)


def tissue_of(view, neighbours: int, device: torch.device, pictured: bool = True) -> Tissue:
    """The spots of a view, each linked with its nearest `neighbours`; without patches unless `pictured`."""
    graph = spot_graph(view.obsm["spatial"], view.obs["section"].to_numpy(), neighbours)
    patches = np.asarray(view.obsm["patches"]) if pictured else None
    return Tissue(view.X.tocsr(), patches, with_loops(graph), device)


def pictures(patches: np.ndarray, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Patches of spots as the networks read them: (B x 3 x px x px) in [0, 1]."""
    chosen = torch.from_numpy(patches[rows]).to(device)
    return chosen.permute(0, 3, 1, 2).float().div(255).contiguous()
