"""Check that counts and positions of a section match: neighbours must be more alike than distant spots."""

import numpy as np

from ctrflow.errors import InputError

MIN_STRUCTURED = 200  # with fewer spots the test has too little power
N_GENES = 50
N_NEIGHBOURS = 6
# The largest of 51 standard normal values is 2.3 on average and above 4 once in 600 draws, but Moran's I has a heavier
# right tail: of 10,000 shuffles of four HER2ST sections' ids 62 exceed 4 and 2 exceed 5 (mean 2.3). The seven sections
# themselves reach 13 to 26, simulated ones of 250 spots 9 to 12; 200 neighbouring spots of A1, nearly all tumour, 8 to
# 15, and 3.7 to 9 with counts thinned to 430 per spot. Refusing a correct section is the worse mistake.
MIN_Z = 4.0


def require_spatial_structure(spots, path: str = "") -> None:
    """Refuse spots whose counts are shuffled against their positions, which no format check detects.

    Parameters
    ----------
    spots
        AnnData: X counts, `obsm["spatial"]`. Sections of fewer than 200 spots pass.
    path
        For the message; the section's id if empty.

    Raises
    ------
    InputError
        if neither the library size nor any of the 50 most expressed genes is alike among neighbours.
    """
    # the library size is nearly always enough, and cheap for millions of bins
    if spots.n_obs < MIN_STRUCTURED or any(structure_z(spots, n).max() > MIN_Z for n in (0, N_GENES)):
        return
    raise InputError(
        f"{path or 'section ' + spots.uns['section']['section']}: the counts of neighbouring spots are no more alike "
        "than those of distant ones: the ids of counts and positions are probably shuffled against each other; "
        "check that the matrix and the positions are complete and from one section"
    )


def structure_z(spots, n_genes: int = N_GENES) -> np.ndarray:
    """Moran's I of the ranks of library size and of the `n_genes` most expressed genes' shares of it, as z-scores.

    Ranks, because a few spots with many counts make the tail of a gene's z-score heavy. Only the columns of these genes
    are converted to dense. A column without variation has -inf.
    """
    from scipy import sparse, stats

    matrix = spots.X if sparse.issparse(spots.X) else sparse.csr_matrix(spots.X)
    library = np.asarray(matrix.sum(axis=1)).ravel()
    totals = np.asarray(matrix.sum(axis=0)).ravel()
    top = np.sort(np.argsort(-totals, kind="stable")[:n_genes])
    share = matrix[:, top].toarray() / np.maximum(library, 1)[:, None]
    values = np.column_stack([library, share])
    ranks = np.column_stack([stats.rankdata(column) for column in values.T])
    return moran_z(ranks, neighbour_graph(np.asarray(spots.obsm["spatial"], np.float64)))


def neighbour_graph(positions: np.ndarray, k: int = N_NEIGHBOURS):
    """CSR of ones (n x n): the `k` nearest others of each spot."""
    from scipy import sparse
    from scipy.spatial import KDTree

    n = len(positions)
    nearest = KDTree(positions).query(positions, k=k + 1)[1]
    # the nearest of coinciding spots need not be the spot itself
    is_self = nearest == np.arange(n)[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    others = nearest[~is_self]
    return sparse.csr_matrix((np.ones(n * k, np.float32), others, np.arange(0, n * k + 1, k)), shape=(n, n))


def moran_z(values: np.ndarray, graph) -> np.ndarray:
    """z-scores of Moran's I under randomisation: the moments over all permutations of the values.

    Parameters
    ----------
    values
        n x columns.
    graph
        Weights, CSR n x n, not necessarily symmetric.

    Source: Cliff and Ord, "Spatial Processes" (1981), as in R's spdep::moran.test(randomisation = TRUE).
    """
    n = len(values)
    deviations = values - values.mean(axis=0)
    spread = (deviations**2).sum(axis=0)
    usable = spread > 0
    deviations, spread = deviations[:, usable], spread[usable]
    both = graph + graph.T
    s0, s1 = float(graph.sum()), float(both.multiply(both).sum()) / 2
    s2 = float((np.asarray(both.sum(axis=1)).ravel().astype(np.float64) ** 2).sum())
    kurtosis = n * (deviations**4).sum(axis=0) / spread**2
    moran = n / s0 * (deviations * (graph @ deviations)).sum(axis=0) / spread
    expected = -1 / (n - 1)
    square = n * ((n * n - 3 * n + 3) * s1 - n * s2 + 3 * s0**2)
    square = square - kurtosis * ((n * n - n) * s1 - 2 * n * s2 + 6 * s0**2)
    variance = square / ((n - 1.0) * (n - 2.0) * (n - 3.0) * s0**2) - expected**2
    z = np.full(len(usable), -np.inf)
    z[usable] = (moran - expected) / np.sqrt(variance)
    return z
