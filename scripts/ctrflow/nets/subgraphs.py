"""The neighbourhoods of spots a few steps wide, each a graph of its own (METHODS.md 2.4)."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch


@dataclass(frozen=True)
class Step:
    """One step inwards: from the spots in use before it to those in use after it.

    slots : (subgraphs x most) rows of each subgraph, padded with 0
    filled : (subgraphs x most) which slots are taken
    place : (rows,) the position of each row in the flattened slots
    onto : (rows after the step,) the rows that are kept
    edges : (2 x E) source row, and target as an index of `onto`; self-loops included, sorted by target
    """

    slots: torch.Tensor
    filled: torch.Tensor
    place: torch.Tensor
    onto: torch.Tensor
    edges: torch.Tensor


@dataclass(frozen=True)
class Subgraphs:
    """The concatenated rows of some subgraphs, and the steps to their targets.

    spots : (rows,) the spot of each row before the first step; a spot has a row in every subgraph it is in
    targets : (B,) the centre spots, in the order requested
    own : (B,) the rows of the targets, each in its own subgraph
    steps : from the widest to the targets alone
    """

    spots: torch.Tensor
    targets: torch.Tensor
    own: torch.Tensor
    steps: tuple[Step, ...]

    def innermost(self) -> torch.Tensor:
        """(rows before the last step,) their spots: the targets, and what the last step brings to them."""
        spots = self.spots
        for step in self.steps[:-1]:
            spots = spots.index_select(0, step.onto)
        return spots

    def to(self, device: torch.device) -> "Subgraphs":
        """With all tensors on `device`."""
        steps = tuple(Step(*(value.to(device) for value in vars(step).values())) for step in self.steps)
        return Subgraphs(self.spots.to(device), self.targets.to(device), self.own.to(device), steps)


def subgraphs(looped, targets: np.ndarray, hops: list[int], together: bool = False) -> Subgraphs:
    """The neighbourhoods of `targets`.

    Parameters
    ----------
    looped : CSR (spots x spots), the graph with self-loops, indices sorted
    hops : the largest distance of a spot from the target before each step, never increasing; after the last step only
        the targets are left
    together : one subgraph for all targets, in which every spot has one row
    """
    targets = np.asarray(targets, dtype=np.int64)
    rings = _rings(looped, targets, hops[0], together)
    levels = [[part[rings[2] <= most] for part in rings] for most in hops]
    if together:
        graph, spot = np.zeros_like(targets), targets
    else:
        graph, spot = np.arange(len(targets)), targets
    levels.append([graph, spot, np.zeros_like(spot)])
    count = 1 if together else len(targets)
    steps = tuple(_step(looped, *pair, count) for pair in pairwise(levels))
    own = _positions(levels[0], graph, spot, looped.shape[0])
    return Subgraphs(*map(torch.from_numpy, (levels[0][1], targets, own)), steps)


def with_loops(graph):
    """A symmetric graph (CSR) with every spot its own neighbour too."""
    from scipy import sparse

    looped = (graph + sparse.identity(graph.shape[0], dtype=graph.dtype, format="csr")).tocsr()
    looped.sort_indices()
    return looped


def _rings(looped, targets: np.ndarray, hops: int, together: bool) -> list[np.ndarray]:
    """Subgraph, spot and distance in steps of every row; sorted by subgraph, then distance, then spot."""
    from scipy import sparse

    count = len(targets)
    subgraph = np.zeros(count, dtype=np.int64) if together else np.arange(count)
    shape = (1 if together else count, looped.shape[0])
    reached = sparse.csr_matrix((np.ones(count, np.float32), (subgraph, targets)), shape)
    times = reached.copy()  # the number of growing sets that contain a spot
    for _ in range(hops):
        reached = (reached @ looped).tocsr()
        reached.data[:] = 1
        times = times + reached
    times = times.tocoo()
    apart = hops + 1 - times.data.astype(np.int64)
    order = np.lexsort((times.col, apart, times.row))
    return [part[order].astype(np.int64) for part in (times.row, times.col, apart)]


def _positions(level: list[np.ndarray], graph: np.ndarray, spot: np.ndarray, spots: int) -> np.ndarray:
    """The rows of (subgraph, spot) pairs in a level; -1 where a pair is not in it."""
    keys = level[0] * spots + level[1]
    order = np.argsort(keys)
    wanted = graph * spots + spot
    index = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    rows = order[index]
    return np.where(keys[rows] == wanted, rows, -1)


def _step(looped, before: list[np.ndarray], after: list[np.ndarray], count: int) -> Step:
    graph = before[0]
    sizes = np.bincount(graph, minlength=count)
    most = sizes.max()
    within = np.arange(len(graph)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = graph * most + within
    slots = np.zeros(count * most, dtype=np.int64)
    filled = np.zeros(count * most, dtype=bool)
    slots[place], filled[place] = np.arange(len(graph)), True
    onto = _positions(before, after[0], after[1], looped.shape[0])
    # every neighbour of the kept rows that is still in use
    degrees = np.diff(looped.indptr)[after[1]]
    target = np.repeat(np.arange(len(after[1])), degrees)
    starts = np.repeat(looped.indptr[after[1]] - (np.cumsum(degrees) - degrees), degrees)
    senders = looped.indices[starts + np.arange(len(target))].astype(np.int64)
    source = _positions(before, after[0][target], senders, looped.shape[0])
    edges = np.stack([source, target])[:, source >= 0]
    arrays = slots.reshape(count, most), filled.reshape(count, most), place, onto, edges
    return Step(*map(torch.from_numpy, arrays))
