"""Neighbourhoods on small grids, worked by hand."""

import numpy as np

from ctrflow.features import neighbours

GRID = np.array([(x, y) for y in range(4) for x in range(4)], dtype=float) * 270


def brute(coordinates, k):
    result = []
    for spot, centre in enumerate(coordinates):
        distance = np.linalg.norm(coordinates - centre, axis=1).round(6)
        order = sorted((other for other in range(len(coordinates)) if other != spot), key=lambda i: (distance[i], i))
        result.append([spot, *order[:k]])
    return np.array(result)


def test_the_spot_itself_then_the_nearest_ties_by_index():
    found = neighbours.nearest(GRID, 6)
    # spot 5 = (1, 1): four at distance 1 (1, 4, 6, 9), then two of the four diagonals (0, 2, 8, 10) by index
    assert found[5].tolist() == [5, 1, 4, 6, 9, 0, 2]
    assert (found == brute(GRID, 6)).all()


def test_rounding_noise_does_not_break_ties():
    noisy = GRID + np.random.default_rng(0).uniform(-1e-4, 1e-4, GRID.shape)
    assert neighbours.nearest(noisy, 6)[5].tolist() == [5, 1, 4, 6, 9, 0, 2]


def test_the_spot_comes_first_where_coordinates_coincide():
    doubled = np.vstack([GRID, GRID])
    found = neighbours.nearest(doubled, 6)
    assert (found[:, 0] == np.arange(32)).all()
    assert (found[:, 1] == (np.arange(32) + 16) % 32).all()


def test_neighbours_stay_in_their_section():
    sections = np.array(["b", "a"] * 16)
    found = neighbours.nearest_within(np.vstack([GRID, GRID]), sections, 3)
    assert (sections[found] == sections[:, None]).all()


def test_a_spot_fills_its_missing_neighbours():
    found = neighbours.nearest(GRID[:3], 6)
    assert found.tolist() == [[0, 1, 2, 0, 0, 0, 0], [1, 0, 2, 1, 1, 1, 1], [2, 1, 0, 2, 2, 2, 2]]
    assert neighbours.nearest(GRID[:1], 6).tolist() == [[0] * 7]


def test_zero_neighbours_is_only_the_spot():
    assert neighbours.nearest(GRID, 0).tolist() == [[i] for i in range(16)]


def test_the_graph_connects_spots_if_either_is_near_the_other():
    # on a line: 2 is the nearest of 3, and 3 not of 2
    line = np.array([[0, 0], [1, 0], [2.1, 0], [4, 0], [0, 0], [5, 0]], dtype=float)
    graph = neighbours.spot_graph(line, np.array(["a"] * 4 + ["b"] * 2), 1)
    edges = sorted(zip(*(found.tolist() for found in graph.nonzero()), strict=True))
    assert edges == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 4)]
    assert set(graph.data) == {1.0}
    # a spot alone in its section has no edge, not even to itself
    assert neighbours.spot_graph(line[:1], np.array(["a"]), 3).nnz == 0
