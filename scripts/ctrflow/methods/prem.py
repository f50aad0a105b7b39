"""PREM: a spot is anomalous where it does not fit its neighbourhood.

Source: Pan et al., ICDM 2023, CampanulaBells/PREM-GAD 2024-05 (METHODS.md card 3.13). Expression is averaged over two
hops of the graph once, before training, without the spot's own part; then two linear maps learn to tell a spot with
its own neighbourhood from a spot with that of another. The score is s = -cos of the two maps, as the paper defines it.

Deviations
----------
- The original scores the graph it was fitted on. Here it is fitted on the normal reference and scores each target
  section as a graph of its own.
- Spots have no given links: two are linked where either is among the other's `neighbours` nearest.
- False pairs are drawn within the section, so that the network does not learn to distinguish sections. As in the
  original, one shuffle serves both kinds of pairs, and a spot can draw itself.
- The spot's own part of the two hops is the diagonal of the squared sparse operator; the published code takes it from a
  dense identity matrix, which is quadratic in spots. The values are the same.

The options are those of the original's script, its recipe for Flickr.
As in the original each step uses all spots, and the weights with the lowest loss on true pairs are kept: those that
gave this loss, before the step that followed. It is a training loss; no target is read.
A region that is anomalous as a whole fits itself, so PREM can miss it: in MEATRD's Table 1 its AUC is below 0.5.
"""

import logging

import numpy as np

from ctrflow.features.learned_from import capped, require_spots
from ctrflow.features.neighbours import spot_graph
from ctrflow.methods import MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 4096  # spots: their two feature matrices stay below 200 MB with 5,000 genes

SPEC = MethodSpec(
    name="prem",
    regime="normal_reference",
    modalities=("gene",),
    gpu=True,
    dense=6,
    options={
        "epochs": Option(1500, "steps, each on all reference spots", least=1),
        "learning_rate": Option(5e-4, "Adam", above=0),
        "width": Option(128, "width of the two linear maps", least=1),
        "alpha": Option(0.3, "weight of pairs of a spot and another's neighbourhood"),
        "gamma": Option(0.4, "weight of pairs of a spot and another spot"),
        "neighbours": Option(6, "nearest spots linked to a spot", least=1),
        "max_reference_spots": Option(
            0, "maximum number of reference spots to learn from, drawn at random; 0 for all. Others stay in the graph"
        ),
    },
    presets={"paper": {}, "fast": {"epochs": 200, "max_reference_spots": 1000}},
    reference="PREM, ICDM 2023",
)


class Model(NetworkModel):
    """A trained discriminator."""

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Learn to distinguish true from false pairs of the normal reference.

        Raises
        ------
        InputError
            with fewer than 2 reference spots, too few for a false pair.
        """
        import torch

        from ctrflow.nets import training
        from ctrflow.nets.prem import Discriminator, misfit, pair_loss, shuffled_within

        require_spots("prem", train.n_obs, 2)
        device = training.start(seed)
        net = Discriminator(train.n_vars, options["width"]).to(device)
        rows = capped(train.n_obs, options["max_reference_spots"], seed)
        _, sections = np.unique(train.obs["section"].to_numpy()[rows], return_inverse=True)
        sections = torch.from_numpy(sections)
        spots, neighbourhoods = (part.to(device) for part in _inputs(*_operators(train, options), rows))
        logger.info("PREM on %d spots, %s", len(rows), device.type)
        optimiser = torch.optim.Adam(net.parameters(), lr=options["learning_rate"])
        generator = torch.Generator().manual_seed(seed)
        lowest, best, losses = float("inf"), None, []
        net.train()
        for _, taken in training.epochs(range(options["epochs"]), "pairs", losses):
            drawn = shuffled_within(sections, generator).to(device)
            own, around, alone = net.spot(spots), net.neighbourhood(neighbourhoods), net.neighbourhood(spots)
            terms = {
                "true": pair_loss(misfit(own, around), anomalous=False),
                "other_neighbourhood": pair_loss(misfit(own, around[drawn]), anomalous=True),
                "other_spot": pair_loss(misfit(own, alone[drawn]), anomalous=True),
            }
            loss = terms["true"] + options["alpha"] * terms["other_neighbourhood"]
            loss = loss + options["gamma"] * terms["other_spot"]
            if (value := terms["true"].item()) < lowest:
                lowest = value
                best = {name: value.detach().clone() for name, value in net.state_dict().items()}
            training.descend(optimiser, loss, terms, taken)
        if best is not None:  # None if the loss was never finite
            net.load_state_dict(best)
        return cls(net.cpu().eval(), options, seed, losses=losses)

    def score(self, target) -> np.ndarray:
        """s of each spot with its own neighbourhood."""
        operators = _operators(target, self.options)

        def misfit(rows, device):
            return self.net(*(part.to(device) for part in _inputs(*operators, rows))).double()

        return self.in_blocks(target.n_obs, SCORED_AT_ONCE, misfit)

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of the tensors."""
        from ctrflow.nets.prem import Discriminator

        width, genes = tensors["spot.weight"].shape
        return Discriminator(genes, width)


def two_hops(graph):
    """(D^-1/2 (A + I) D^-1/2)^2 without its diagonal: the weight of each spot within two hops. CSR float64."""
    from scipy import sparse

    from ctrflow.nets.graph_convolution import normalised_matrix

    once = normalised_matrix(graph)
    twice = (once @ once).tocsr()
    return (twice - sparse.diags(twice.diagonal())).tocsr()


def _operators(view, options: dict) -> tuple:
    """Features with rows that sum to one (a spot without counts stays zero), and the two-hop operator. Both CSR."""
    from scipy import sparse

    totals = np.asarray(view.X.sum(axis=1), dtype=np.float64).ravel()
    features = (sparse.diags(1 / np.where(totals > 0, totals, 1)) @ view.X).tocsr()
    graph = spot_graph(view.obsm["spatial"], view.obs["section"].to_numpy(), options["neighbours"])
    return features, two_hops(graph)


def _inputs(features, operator, rows: np.ndarray | slice) -> tuple:
    """The spots and their neighbourhoods, dense float32 (rows x genes) each."""
    import torch

    return tuple(
        torch.from_numpy(matrix.toarray().astype(np.float32)) for matrix in (features[rows], operator[rows] @ features)
    )
