"""Views of one depth: the counts of every spot thinned to a common number, to see what a method is without it."""

import logging
import zlib

import numpy as np

from ctrflow.folds.genes import LIBRARY_SIZE

logger = logging.getLogger(__name__)


def thinned(view, depth: int, seed: int):
    """A view in which no spot has more than `depth` counts, over all genes of its section.

    Of a spot's counts `depth` are drawn without replacement, as if it had been sequenced less deeply. The genes that
    the view lacks are drawn along, in two parts: those that it was normalised over, and those that only its section
    measures. X, the layer `counts` and `total_counts` follow; spots with fewer counts keep theirs.

    Parameters
    ----------
    view : as methods get it (`tables.with_genes`), with the layer `counts`
    depth : counts of a spot; 0 for the view as it is
    seed : a spot's draw depends on it and on the spot's name, not on the spots and sections beside it
    """
    import anndata
    from scipy import sparse

    if not depth:
        return view
    counts = sparse.csr_matrix(view.layers["counts"], dtype=np.int64, copy=True)
    counts.sort_indices()
    total = np.rint(view.obs["total_counts"].to_numpy(dtype=np.float64)).astype(np.int64)
    library, kept = _library_sizes(view, counts, total), np.asarray(counts.sum(axis=1)).ravel()
    deep = total > depth
    for row in np.flatnonzero(deep):
        own = counts.data[counts.indptr[row] : counts.indptr[row + 1]]
        rng = np.random.default_rng([seed, zlib.crc32(view.obs_names[row].encode())])
        absent = [total[row] - library[row], library[row] - kept[row]]
        drawn = rng.multivariate_hypergeometric([*own, *absent], depth, method="marginals")
        own[:] = drawn[: len(own)]
        library[row] = depth - drawn[-2]
    counts.eliminate_zeros()
    scaled = (sparse.diags(LIBRARY_SIZE / np.maximum(library, 1)) @ counts).log1p().astype(np.float32)
    is_deep = sparse.diags(deep.astype(np.float32))
    few = int((total < depth).sum())
    level = logging.WARNING if 2 * few > view.n_obs else logging.INFO  # then the depth is not equal
    logger.log(level, "thinned to %d counts a spot; %d of %d spots have fewer and keep theirs", depth, few, view.n_obs)
    own_total = view.obs["total_counts"]
    return anndata.AnnData(
        sparse.csr_matrix(is_deep @ scaled + (sparse.identity(view.n_obs, np.float32) - is_deep) @ view.X),
        obs=view.obs.assign(total_counts=np.where(deep, depth, own_total).astype(own_total.dtype)),
        var=view.var,
        obsm=dict(view.obsm),
        layers={"counts": counts.astype(view.layers["counts"].dtype)},
        uns=view.uns,
    )


def _library_sizes(view, counts, total: np.ndarray) -> np.ndarray:
    """The counts that each spot was normalised over, by its X: a view has a part of these genes alone."""
    scaled = np.asarray(view.X.expm1().sum(axis=1, dtype=np.float64)).ravel()
    kept = np.asarray(counts.sum(axis=1)).ravel()
    found = np.rint(LIBRARY_SIZE * kept / np.where(scaled > 0, scaled, 1)).astype(np.int64)
    return np.where(kept > 0, np.clip(found, kept, total), total)
