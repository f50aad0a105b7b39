"""Mean of z-scored marker genes over a spot and its neighbours: what an analyst tries first.

The mean expression of a gene set has been used as a score since microarrays (Sotiriou et al., JNCI 2006, for
proliferation). Here each marker is z-scored over the section, so that none outweighs the others, and the mean is taken
over the spot and its six neighbours, as in `linear`.
"""

import numpy as np

from ctrflow.features.blocks import section_rows
from ctrflow.features.markers import SETS, columns_of, mean_zscore
from ctrflow.features.neighbours import nearest
from ctrflow.methods import MethodSpec, Option

SPEC = MethodSpec(
    name="marker_score",
    regime="marker_prior",
    modalities=("gene",),
    needs=("markers",),
    seeded=False,
    options={
        "sets": Option(list(SETS), "marker sets to use", SETS),
        "neighbours": Option(6, "spots whose scores are averaged with the spot's own; 0 for none"),
    },
    minutes=10,
    reference="Mean z-scored log expression of cited epithelial and tumour markers",
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
        """Mean z-score of the section's markers over the spot and its neighbours, (spots,) float64.

        Raises
        ------
        InputError
            when a section has counts of none of its markers.
        """
        scores = np.empty(target.n_obs)
        for section, rows in section_rows(target.obs["section"]):
            markers = columns_of(target, section, self.options["sets"])
            own = mean_zscore(target.X[rows], markers)
            scores[rows] = own[nearest(target.obsm["spatial"][rows], self.options["neighbours"])].mean(axis=1)
        return scores
