"""Paths of nodes, against chains of parents."""

import numpy as np
import pytest
import torch

from sidrec.recommenders.prefix_tree import PrefixTree


class Chains:
    """The same tree as dictionaries of parents."""

    def __init__(self, users: int) -> None:
        self.parents: list[list[int]] = [[-1] for _ in range(users)]

    def add(self, parents_UW: np.ndarray) -> list[list[list[int]]]:
        found = []
        for own, new in zip(self.parents, parents_UW.tolist(), strict=True):
            first = len(own)
            own.extend(new)
            found.append([self._path(own, node) for node in range(first, len(own))])
        return found

    def _path(self, own: list[int], node: int) -> list[int]:
        return [*(self._path(own, own[node]) if own[node] >= 0 else []), node]


def grown(steps: list[int], users: int, draw: np.random.Generator) -> tuple[PrefixTree, Chains, list[list[int]]]:
    """A tree with nodes of the given depths, 4 at a time, and for each depth its nodes."""
    tree, chains, at_depth = PrefixTree.at_root(users, "cpu"), Chains(users), [[0]]
    for depth in steps:
        parents = draw.choice(at_depth[depth - 1], size=(users, 4))
        first = tree.num_nodes
        assert tree.add(torch.from_numpy(parents), depth).tolist() == chains.add(parents)
        at_depth += [[]] * (depth + 1 - len(at_depth))
        at_depth[depth] = [*at_depth[depth], *range(first, tree.num_nodes)]
    return tree, chains, at_depth


@pytest.mark.parametrize("seed", range(5))
def test_depths_in_any_order(seed):
    """Shorter prefixes may come after longer ones, as in a search that turns back."""
    tree, _, at_depth = grown([1, 2, 3, 1, 2, 4, 3], users=3, draw=np.random.default_rng(seed))
    assert tree.num_nodes == 29
    for depth, nodes in enumerate(at_depth):
        assert (tree.depths_M[nodes] == depth).all()


@pytest.mark.parametrize("seed", range(5))
def test_taken_trees_grow_alone(seed):
    draw = np.random.default_rng(seed)
    tree, chains, at_depth = grown([1, 2, 3, 1], users=4, draw=draw)
    users = [2, 0, 2]
    taken, parents = tree.take(torch.tensor(users)), draw.choice(at_depth[3], size=(3, 5))
    twin = Chains(0)
    twin.parents = [list(chains.parents[user]) for user in users]
    assert taken.num_nodes == tree.num_nodes == 17
    assert taken.add(torch.from_numpy(parents), 4).tolist() == twin.add(parents)
    assert (taken.num_nodes, tree.num_nodes) == (22, 17)
    assert (len(taken.depths_M), len(tree.depths_M)) == (22, 17)
    more = draw.choice(at_depth[1], size=(4, 2))
    assert tree.add(torch.from_numpy(more), 2).tolist() == chains.add(more)
