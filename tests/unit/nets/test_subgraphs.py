"""The neighbourhoods of MEATRD, against a search spot by spot."""

import numpy as np
import pytest
from scipy import sparse

from ctrflow.features.neighbours import spot_graph
from ctrflow.nets.subgraphs import subgraphs, with_loops


@pytest.fixture(scope="module")
def looped():
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 10, (40, 2))
    return with_loops(spot_graph(places, np.repeat(["a", "b"], 20), 3))


@pytest.fixture(scope="module")
def line():
    """0 - 1 - 2 - ... - 8"""
    ones = np.ones(8, dtype=np.float32)
    return with_loops(sparse.diags([ones, ones], [-1, 1], format="csr", dtype=np.float32))


def apart(looped, start):
    """Steps from a spot to every other that can be reached, by breadth first search."""
    distances, edge, steps = {start: 0}, [start], 0
    while edge:
        steps += 1
        edge = sorted({n for spot in edge for n in looped[spot].indices if n not in distances})
        distances |= dict.fromkeys(edge, steps)
    return distances


def level(looped, targets, most):
    """(subgraph, spot) of every row of a level: by subgraph, then distance, then spot."""
    rows = []
    for i, target in enumerate(targets):
        steps = apart(looped, target)
        near = sorted((s, spot) for spot, s in steps.items() if s <= most)
        rows += [(i, spot) for _, spot in near]
    return rows


@pytest.mark.parametrize("hops", [[3, 2, 1], [3, 2, 1, 1], [2, 1], [1]])
def test_every_step_is_what_a_search_finds(looped, hops):
    targets = np.array([7, 21, 3, 39, 0])
    found = subgraphs(looped, targets, hops)
    levels = [level(looped, targets, most) for most in (*hops, 0)]
    assert found.spots.tolist() == [spot for _, spot in levels[0]]
    assert found.targets.tolist() == targets.tolist()
    assert [levels[0][row] for row in found.own] == list(enumerate(targets))
    assert len(found.steps) == len(hops)
    for step, before, after in zip(found.steps, levels, levels[1:], strict=False):
        assert [before[row] for row in step.onto] == after
        edges = {(before[s], after[t]) for s, t in step.edges.T.tolist()}
        assert len(edges) == step.edges.shape[1]
        inside = set(before)
        assert edges == {((i, n), (i, s)) for i, s in after for n in looped[s].indices if (i, n) in inside}
        for i in range(len(targets)):
            mine = [row for row, (graph, _) in enumerate(before) if graph == i]
            assert step.slots[i][step.filled[i]].tolist() == mine
        assert step.slots.flatten()[step.place].tolist() == list(range(len(before)))


def test_a_line_by_hand(line):
    found = subgraphs(line, np.array([0, 4]), [3, 2, 1])
    assert found.spots.tolist() == [0, 1, 2, 3, 4, 3, 5, 2, 6, 1, 7]
    assert found.own.tolist() == [0, 4]
    assert [step.slots.shape for step in found.steps] == [(2, 7), (2, 5), (2, 3)]
    assert found.steps[0].filled.sum(dim=1).tolist() == [4, 7]
    # the decoder's edges: 0 meets itself and 1; 4 meets itself, 3 and 5
    assert sorted(zip(*found.steps[2].edges.tolist(), strict=True)) == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1)]


def test_what_the_last_step_brings_to_the_targets(line):
    targets = np.array([0, 4])
    assert subgraphs(line, targets, [3, 2, 1]).innermost().tolist() == [0, 1, 4, 3, 5]
    assert subgraphs(line, targets, [3, 2, 1], together=True).innermost().tolist() == [0, 4, 1, 3, 5]
    assert subgraphs(line, targets, [1]).innermost().tolist() == [0, 1, 4, 3, 5]


def test_the_border_of_a_subgraph_has_only_the_neighbours_inside(line):
    step = subgraphs(line, np.array([4]), [1, 1]).steps[0]
    # rows 4, 3, 5: each meets itself, 4 meets both, they meet 4
    edges = sorted(zip(*step.edges.tolist(), strict=True))
    assert edges == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 2)]


def test_together_every_spot_has_one_row(line):
    found = subgraphs(line, np.array([5, 0, 4]), [2, 1], together=True)
    # 0, 4, 5 are targets; 1, 3, 6 a step away; 2, 7 two
    assert found.spots.tolist() == [0, 4, 5, 1, 3, 6, 2, 7]
    assert found.spots[found.own].tolist() == [5, 0, 4]
    assert found.steps[0].slots.shape == (1, 8)
    last = found.steps[-1]
    assert [found.spots[row].item() for row in last.onto] == [5, 0, 4]
    met = [(found.spots[s].item(), t) for s, t in last.edges.T.tolist()]
    assert sorted(met) == [(0, 1), (1, 1), (3, 2), (4, 0), (4, 2), (5, 0), (5, 2), (6, 0)]


def test_a_spot_without_neighbours_is_its_own_subgraph():
    looped = with_loops(sparse.csr_matrix((3, 3), dtype=np.float32))
    found = subgraphs(looped, np.array([2]), [3, 2, 1])
    assert found.spots.tolist() == [2]
    assert all(step.edges.tolist() == [[0], [0]] for step in found.steps)
