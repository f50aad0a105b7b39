"""Clusters of spots with similar expression, without labels."""

import numpy as np

COMPONENTS = 50  # scanpy's default
NEIGHBOURS = 15  # scanpy's default
SEED = 0  # the same clusters for all seeds of the method


def expression_clusters(expression) -> np.ndarray:
    """The cluster of each spot: (spots,) int, the largest is 0.

    As PhenoGraph (Levine et al., Cell 2015): principal components, the graph of nearest spots weighted by the share of
    neighbours that two spots have in common, and its communities by Louvain (networkx). scanpy's Leiden would need
    igraph, which is not locked. Takes seconds for 3,000 spots; nearest spots by brute force, in blocks.

    Parameters
    ----------
    expression : CSR (spots x genes), log-normalised
    """
    import networkx
    from sklearn.decomposition import PCA

    spots = expression.shape[0]
    components = min(COMPONENTS, spots - 1, expression.shape[1] - 1)
    if components < 1:
        return np.zeros(spots, dtype=np.int64)
    reduced = PCA(components, svd_solver="arpack", random_state=SEED).fit_transform(expression)
    graph = networkx.from_scipy_sparse_array(shared_neighbours(reduced, min(NEIGHBOURS, spots - 1)))
    communities = networkx.community.louvain_communities(graph, seed=SEED)
    clusters = np.empty(spots, dtype=np.int64)
    for cluster, members in enumerate(sorted(communities, key=lambda members: (-len(members), min(members)))):
        clusters[list(members)] = cluster
    return clusters


def shared_neighbours(features: np.ndarray, k: int):
    """The graph of the k nearest rows: CSR, symmetric; weights are the Jaccard index of two rows' neighbours.

    A row counts as its own neighbour, so that no weight is zero.
    """
    from scipy import sparse
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=k).fit(features).kneighbors_graph().tocsr()  # without the rows themselves
    sets = (near + sparse.identity(len(features), format="csr")).tocsr()
    links = near.maximum(near.T).tocoo()
    both = np.asarray(sets[links.row].multiply(sets[links.col]).sum(axis=1)).ravel()
    return sparse.csr_matrix((both / (2 * (k + 1) - both), (links.row, links.col)), near.shape)
