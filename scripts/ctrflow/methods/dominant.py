"""DOMINANT: a graph autoencoder rebuilds the expression of a spot and its links; what it rebuilds badly is anomalous.

Source: Ding et al., SDM 2019; layers, loss and defaults as in pygod 1.1.0 (METHODS.md card 3.12), which differ from the
authors' own code (docs/baselines.md names where). A graph convolutional encoder, an expression decoder, and a structure
decoder whose inner products predict links. The score of a spot is the weighted sum of the two errors, which is also the
loss.

Deviations
----------
- The original scores the graph it was fitted on. Here it is fitted on the normal reference, all sections in one step,
  and scores each target section as a graph of its own. Spots of different sections are no pair, linked or not.
- Spots have no given links: two are linked where either is among the other's `neighbours` nearest.
- The error of the links is computed without the dense adjacency (`nets.dominant.structure_error`): the same number,
  linear in spots where the textbook form is quadratic.

Expression is read as it is, as pygod and the authors' code read attributes; `scaling: reference` z-scores it with the
statistics of the reference, so that every gene has the same say in the error.

The error of the links of a spot counts its products with all spots of the section, so it grows with the section: scores
are comparable within a section, not between sections.
"""

import logging

import numpy as np

from ctrflow.features.blocks import section_rows
from ctrflow.features.learned_from import capped, require_spots
from ctrflow.features.neighbours import spot_graph
from ctrflow.features.scaling import reference_scaled, reference_statistics
from ctrflow.methods import MethodSpec, Option
from ctrflow.nets.model import NetworkModel

logger = logging.getLogger(__name__)

SCORED_AT_ONCE = 4096  # spots: their rebuilt expression stays below 100 MB with 5,000 genes

SPEC = MethodSpec(
    name="dominant",
    regime="normal_reference",
    modalities=("gene",),
    gpu=True,
    dense=4,
    options={
        "epochs": Option(100, "passes over the reference, all sections in one optimiser step", least=1),
        "learning_rate": Option(4e-3, "Adam", above=0),
        "width": Option(64, "width of all hidden layers and of the code", least=1),
        "weight": Option(0.5, "weight of the expression error; the link error has 1 minus it", most=1),
        "neighbours": Option(6, "nearest spots linked to a spot", least=1),
        "scaling": Option(
            "none", "expression as it is, or z-scored with the reference's statistics", ("none", "reference")
        ),
        "max_reference_spots": Option(
            0, "maximum number of reference spots to learn from, drawn at random; 0 for all. Others stay in the graph"
        ),
    },
    presets={"paper": {}, "fast": {"max_reference_spots": 2000}},
    reference="DOMINANT, SDM 2019 (pygod 1.1.0)",
)


class Model(NetworkModel):
    """A trained graph autoencoder, and mean and sd of the genes of the reference."""

    kept = ("reference.mean", "reference.sd")

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Train on the sections of the normal reference.

        Raises
        ------
        InputError
            with fewer than 2 reference spots, too few for a graph.
        """
        import torch

        from ctrflow.nets import training
        from ctrflow.nets.dominant import GraphAutoencoder
        from ctrflow.nets.graph_convolution import as_tensor, normalised_matrix

        require_spots("dominant", train.n_obs, 2)
        device = training.start(seed)
        net = GraphAutoencoder(train.n_vars, options["width"]).to(device)
        kept = np.zeros(train.n_obs, dtype=bool)
        kept[capped(train.n_obs, options["max_reference_spots"], seed)] = True
        known = reference_statistics(train.X[kept].toarray(), options["scaling"])
        statistics = dict(zip(cls.kept, known, strict=True))
        sections = []
        for rows, graph in _graphs(train, options["neighbours"]):
            learned = np.flatnonzero(kept[rows])
            if not len(learned):
                continue
            matrix = normalised_matrix(graph)
            parts = [torch.from_numpy(learned), _scaled(train.X[rows], statistics)]
            parts += [as_tensor(matrix), as_tensor(matrix[learned]), as_tensor(graph)]
            sections.append([part.to(device) for part in parts])
        logger.info("DOMINANT on %d spots of %d sections, %s", kept.sum(), len(sections), device.type)
        losses = _train(net, sections, options)
        return cls(net.cpu().eval(), options, seed, statistics, losses)

    def score(self, target) -> np.ndarray:
        """The weighted sum of the errors of expression and links, each section as a graph of its own."""
        import torch

        device, scores = self.to_device(), np.empty(target.n_obs)
        with torch.inference_mode():
            for rows, graph in _graphs(target, self.options["neighbours"]):
                scores[rows] = self._section_scores(target.X[rows], graph, device)
        return scores

    def _section_scores(self, expression, graph, device) -> np.ndarray:
        import torch

        from ctrflow.nets.dominant import expression_error, structure_error
        from ctrflow.nets.graph_convolution import as_tensor, normalised_matrix

        features = _scaled(expression, self.parts).to(device)
        matrix = normalised_matrix(graph)
        hidden, z = self.net(features, as_tensor(matrix).to(device))
        links = structure_error(z.double(), as_tensor(graph).double().to(device))
        own = []
        for start in range(0, len(features), SCORED_AT_ONCE):
            rebuilt = self.net.rebuilt(hidden, as_tensor(matrix[start : start + SCORED_AT_ONCE]).to(device))
            own.append(expression_error(features[start : start + SCORED_AT_ONCE], rebuilt))
        errors = self.options["weight"] * torch.cat(own).double() + (1 - self.options["weight"]) * links
        return errors.cpu().numpy()

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network with the widths of the tensors."""
        from ctrflow.nets.dominant import GraphAutoencoder

        width, genes = tensors["encoder.0.weight"].shape
        return GraphAutoencoder(genes, width)


def _train(net, sections: list, options: dict) -> list[dict]:
    """The losses of each epoch, which is one step down the mean of all spots learned from.

    The gradient is summed section by section, so that one section's values are held at a time.
    """
    import torch

    from ctrflow.nets import training
    from ctrflow.nets.dominant import expression_error, structure_error

    losses: list[dict] = []
    optimiser = torch.optim.Adam(net.parameters(), lr=options["learning_rate"])
    spots = sum(len(learned) for learned, *_ in sections)
    net.train()
    for _, taken in training.epochs(range(options["epochs"]), "rebuild", losses):
        optimiser.zero_grad(set_to_none=True)
        sums = []
        for learned, features, adjacency, own, graph in sections:
            hidden, z = net(features, adjacency)
            expression = expression_error(features[learned], net.rebuilt(hidden, own)).sum() / spots
            structure = structure_error(z, graph)[learned].sum() / spots
            loss = options["weight"] * expression + (1 - options["weight"]) * structure
            loss.backward()
            sums.append(torch.stack([loss, expression, structure]).detach())
        optimiser.step()
        taken.append(dict(zip(("loss", "expression", "structure"), torch.stack(sums).sum(dim=0), strict=True)))
    return losses


def _scaled(expression, statistics: dict[str, np.ndarray]):
    import torch

    known = statistics["reference.mean"], statistics["reference.sd"]
    return torch.from_numpy(reference_scaled(expression.toarray(), *known))


def _graphs(view, neighbours: int):
    """The rows and the graph (CSR) of each section."""
    sections, coordinates = view.obs["section"].to_numpy(), np.asarray(view.obsm["spatial"])
    for _, rows in section_rows(sections):
        yield rows, spot_graph(coordinates[rows], sections[rows], neighbours)
