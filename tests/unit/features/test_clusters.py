"""Clusters of expression on well separated groups."""

import numpy as np
from scipy import sparse

from ctrflow.features.clusters import expression_clusters, shared_neighbours


def groups(sizes, genes=30, seed=0):
    """Expression of groups with genes of their own, and the group of each spot."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    mean = 0.3 + 5 * (np.arange(genes) % len(sizes) == group[:, None])
    return sparse.csr_matrix(np.log1p(rng.poisson(mean)).astype(np.float32)), group


def test_groups_are_found_the_largest_first():
    expression, group = groups([30, 50, 40])
    shuffled = np.random.default_rng(1).permutation(120)
    found = expression_clusters(expression[shuffled])
    assert (found == np.array([2, 0, 1])[group[shuffled]]).all()


def test_the_weight_of_a_link_is_the_share_of_common_neighbours():
    features = np.random.default_rng(0).random((25, 3))
    found = shared_neighbours(features, 4).toarray()
    distance = np.linalg.norm(features[:, None] - features, axis=2)
    near = [set(np.argsort(row)[:5].tolist()) for row in distance]  # itself and four
    for i in range(25):
        for j in range(25):
            linked = i != j and (j in near[i] or i in near[j])
            assert np.isclose(found[i, j], len(near[i] & near[j]) / len(near[i] | near[j]) if linked else 0)


def test_few_spots_are_one_cluster():
    assert expression_clusters(groups([1])[0]).tolist() == [0]
    assert expression_clusters(groups([3])[0]).tolist() == [0, 0, 0]
