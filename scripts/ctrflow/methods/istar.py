"""iStar: expression predicted for every superpixel from histology, scored by markers (METHODS.md card 3.7).

A network maps the image features of a superpixel to expression. It is trained on the section itself, so that its mean
over the superpixels of a spot matches the spot's expression. The score is the mean predicted expression of the markers,
each scaled to [0, 1] over the tissue, over the spot's superpixels. Zhang et al., Nature Biotechnology 2024;
daviddaiweizhang/istar.

Deviations
----------
- features: the 46 weight-free ones of `superpixels`, z-scored within the section, where the original has 579 of HIPT,
  which is not offered;
- `expression`: log-normalised, as for every method; the original takes raw counts (`counts`);
- predicted expression stays in the spot's units; the original divides it by the superpixels of a spot;
- `sets`: markers of the lists in config/markers; those of the comparison were not published. Markers without counts in
  the section are left out, beside those below the original's limit of 1e-3 on the largest prediction.
"""

import logging

import numpy as np

from ctrflow.errors import InputError
from ctrflow.features.blocks import section_rows
from ctrflow.features.markers import SETS, columns_of
from ctrflow.image.superpixels import discs
from ctrflow.methods import MODALITIES, MethodSpec, Option

logger = logging.getLogger(__name__)

PREDICTED_AT_ONCE = 16_384  # superpixels: the widest layer then takes 16 MB
LEAST = 1e-3  # a marker whose largest prediction is below this is left out, as in the published code

SPEC = MethodSpec(
    name="istar",
    regime="marker_prior",
    modalities=MODALITIES,
    needs=("superpixels", "markers"),
    gpu=True,
    minutes=1440,
    counts=True,
    options={
        "sets": Option(list(SETS), "marker sets to use", SETS),
        "models": Option(5, "networks from independent starts; the median of their predictions is used", least=1),
        "epochs": Option(400, "epochs of each network", least=1),
        "learning_rate": Option(1e-4, "Adam", above=0),
        "batch_size": Option(128, "spots per step, at most; and at most a sixteenth of all", least=2),
        "genes": Option(1000, "most variable genes learned beside the markers"),
        "spot_superpixels": Option(0, "maximum superpixels per spot to learn from, evenly spaced; 0 for all"),
        "expression": Option("log", "what is learned: log-normalised or raw counts", ("log", "counts")),
    },
    presets={
        "paper": {},
        "fast": {"models": 1, "epochs": 15, "learning_rate": 1e-3, "genes": 300, "spot_superpixels": 8},
    },
    reference="iStar, Zhang et al., Nature Biotechnology 2024",
)


class Model:
    """Nothing is learned before the target is seen: the networks are trained on each of its sections."""

    def __init__(self, options: dict, seed: int):
        self.options = options
        self.seed = seed

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The method; there are no tensors."""
        return cls(options, seed)

    def score(self, target) -> np.ndarray:
        """Mean of the scaled markers over a spot's superpixels, (spots,) float64 in [0, 1]; section by section.

        Raises
        ------
        InputError
            when a section has fewer than 2 spots, or counts of none of its markers.
        """
        scores = np.empty(target.n_obs)
        for section, rows in section_rows(target.obs["section"]):
            markers = columns_of(target, section, self.options["sets"])
            scores[rows] = self._section_scores(target[rows], target.uns["superpixels"][section], markers, section)
        return scores

    def _section_scores(self, view, superpixels: dict, markers: np.ndarray, section: str) -> np.ndarray:
        import torch

        from ctrflow.nets import istar, training

        if view.n_obs < 2:
            raise InputError(
                f"method istar: section {section} has {view.n_obs} spot; it needs at least 2: leave out the section or "
                "the method"
            )
        device = training.start(self.seed)
        columns, expression = _learned(view, markers, self.options)
        low, span = expression.min(axis=0), np.ptp(expression, axis=0)
        expression = (expression - low) / (span + 1e-12)
        disc = discs(superpixels, view.obsm["spatial"])
        inside, weights = rectangular(disc, self.options["spot_superpixels"])
        features, inside, weights, expression = (
            torch.from_numpy(array).to(device)
            for array in (_standardised(superpixels["features"]), inside, weights, expression.astype(np.float32))
        )
        logger.info("iStar on %s: %d spots, %d superpixels, %d genes", section, *disc.shape, len(columns))
        generator = torch.Generator().manual_seed(self.seed)
        stages = [f"{section}, network {i + 1}" for i in range(self.options["models"])]
        nets = [
            istar.train(features, inside, weights, expression, self.options, generator, stage, []) for stage in stages
        ]
        places = np.searchsorted(columns, markers)
        predicted = istar.predict(nets, features, torch.from_numpy(places).to(device), PREDICTED_AT_ONCE)
        return disc @ marker_score(predicted * span[places] + low[places])


def marker_score(predicted: np.ndarray) -> np.ndarray:
    """Mean over the markers of each scaled to [0, 1] over all superpixels, (superpixels,).

    A marker predicted below 1e-3 everywhere is left out; if all are, every score is 0.
    """
    kept = predicted[:, predicted.max(axis=0) >= LEAST].astype(np.float64)
    if not kept.shape[1]:
        return np.zeros(len(kept))
    kept -= kept.min(axis=0)
    return (kept / (kept.max(axis=0) + 1e-12)).mean(axis=1)


def rectangular(disc, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The superpixels of every spot as a table: (spots x k) int64 indices and float32 weights.

    Spots with fewer than k superpixels are padded with weight 0. `most`, unless 0, limits k: superpixels are taken
    evenly from the spot's list, which is in grid order.

    Parameters
    ----------
    disc : from `superpixels.discs`
    """
    lists = np.split(disc.indices.astype(np.int64), disc.indptr[1:-1])
    if most:
        lists = [
            one[((np.arange(most) + 0.5) * len(one) / most).astype(int)] if len(one) > most else one for one in lists
        ]
    k = max(map(len, lists))
    inside, weights = np.zeros((len(lists), k), np.int64), np.zeros((len(lists), k), np.float32)
    for spot, one in enumerate(lists):
        inside[spot, : len(one)] = one
        weights[spot, : len(one)] = 1 / len(one)
    return inside, weights


def _learned(view, markers: np.ndarray, options: dict) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the genes that are learned, ascending, and their expression (spots x genes) float64."""
    matrix = view.X if options["expression"] == "log" else view.layers["counts"]
    matrix = matrix.astype(np.float64)
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    variance = np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel() - mean**2
    top = np.argsort(-variance, kind="stable")[: options["genes"]]
    columns = np.union1d(top, markers)
    return columns, matrix[:, columns].toarray()


def _standardised(features: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and sd 1 over the tissue, float32; constant ones become 0."""
    result = np.zeros(features.shape, np.float32)
    for i in range(features.shape[1]):  # one by one: a float64 copy of all would be the largest array of the method
        column = features[:, i].astype(np.float64)
        sd = column.std()
        if sd > 1e-9:
            result[:, i] = (column - column.mean()) / sd
    return result
