"""Copy-number profile of a spot: how like it is to that of the most epithelial spots.

As inferCNV is used on tumours: non-epithelial cells are the reference, and a cell whose profile correlates with that of
presumed cancer cells is called malignant (Tirosh et al., Nature 2016). Here the third of a section with the least
marker expression is the reference, the third with the most is presumed cancer.
"""

import numpy as np

from ctrflow.features import copy_numbers
from ctrflow.features.blocks import section_rows
from ctrflow.features.markers import SETS, columns_of, mean_zscore
from ctrflow.features.neighbours import nearest
from ctrflow.methods import MethodSpec, Option

SPEC = MethodSpec(
    name="cnv",
    regime="marker_prior",
    modalities=("gene",),
    needs=("markers", "positions"),
    seeded=False,
    options={"neighbours": Option(6, "spots whose scores are averaged with the spot's own; 0 for none")},
    minutes=10,
    reference="Copy-number profiles as in inferCNV: Tirosh et al., Science 2016 and Nature 2016",
)


class Model:
    """Nothing is learned."""

    def __init__(self, options: dict):
        self.options = options

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The method; there are no tensors."""
        return cls(options)

    def score(self, target) -> np.ndarray:
        """Mean likeness over the spot and its neighbours, (spots,) float64 in [-1, 1].

        Raises
        ------
        InputError
            when a section has counts of none of its markers, or too few genes with a known position.
        """
        scores = np.empty(target.n_obs)
        for section, rows in section_rows(target.obs["section"]):
            around = nearest(target.obsm["spatial"][rows], self.options["neighbours"])
            markers = columns_of(target, section, list(SETS))
            X = target.X[rows]
            columns, chromosomes = copy_numbers.usable(X, target.var_names, target.uns["positions"])
            copy_numbers.require_genes(section, len(columns), target.var_names)
            epithelial = mean_zscore(X, markers)[around].mean(axis=1)
            low, high = np.quantile(epithelial, [1 / 3, 2 / 3])
            found = copy_numbers.profiles(X[:, columns], chromosomes, epithelial <= low)
            scores[rows] = copy_numbers.likeness(found, epithelial >= high)[around].mean(axis=1)
        return scores
