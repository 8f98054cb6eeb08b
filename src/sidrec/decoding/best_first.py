"""Makes a beam search exact: comes back to the prefixes that it dropped, as far as one could still matter.

An item scores at most as high as any prefix of its codes, so of all that a search dropped only prefixes
above its k-th best leaf can hide a better item. They are expanded in batches, the longest first and of
one length the best first: leaves come early, raise the k-th score and rule out the rest (branch and
bound). The scorer's tree is gone on with, so nothing is scored twice.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sidrec.decoding.expansion import Children, Prefixes, Walk
from sidrec.decoding.selection import top_candidates

__all__ = ["BestFirst", "Leaves"]

AT_ONCE = 64
"""Prefixes of a user that are expanded together: of more, some would be ruled out by the leaves of others."""


@dataclass(frozen=True)
class Leaves:
    """The best leaves of some users, best first; of equal scores the lower node comes first.

    Attributes:
        nodes_UK: int64[U, K]; anything where the score is -inf.
        scores_UK: float32[U, K], -inf where a user has fewer.
    """

    nodes_UK: Tensor
    scores_UK: Tensor

    @classmethod
    def best(cls, leaves: Prefixes, scores_UM: Tensor, k: int) -> "Leaves":
        """The k best of leaves that stand in order of nodes."""
        index, scores_UK = top_candidates(scores_UM, k)
        return cls(leaves.nodes_UW.gather(1, index), scores_UK)

    def merged(self, leaves: Prefixes, scores_UM: Tensor, k: int) -> "Leaves":
        """The k best of these and of others."""
        nodes_UM = torch.cat([self.nodes_UK, leaves.nodes_UW], dim=1)
        scores_UM = torch.cat([self.scores_UK, scores_UM], dim=1)
        nodes_UM, order = nodes_UM.sort(dim=1)
        index, scores_UK = top_candidates(scores_UM.gather(1, order), k)
        return Leaves(nodes_UM.gather(1, index), scores_UK)

    def take(self, users: Tensor) -> "Leaves":
        """Those of some of the users."""
        return Leaves(self.nodes_UK[users], self.scores_UK[users])


class BestFirst:
    """The rest of a beam search of U users.

    Args:
        walk: of the beam search.
        k: leaves wanted.
        limit: prefixes of a user that are expanded at most.
    """

    def __init__(self, walk: Walk, k: int, limit: int) -> None:
        self._walk, self._k, self._limit = walk, k, limit
        self._dropped: list[Children] = []
        self._waiting: dict[int, Prefixes] = {}
        self._worst_U1 = torch.empty(0, 1)
        # Depth at which a path has its whole score: with an end step, leaves have to be scored once more.
        self._ends_at = walk.exclusions.trie.num_levels + int(walk.scorer.has_end)

    def leave(self, children: Children, kept_UW: Tensor) -> None:
        """Remember the children that the beam search drops: all but those at places int64[U, W]."""
        if children.depth < self._ends_at:
            scores_UM = children.scores_UM.scatter(1, kept_UW, -torch.inf)
            self._dropped.append(replace(children, scores_UM=scores_UM))

    def complete(self, leaves: Leaves, worst_U: Tensor) -> tuple[Leaves, Tensor]:
        """The k best leaves of the whole catalogue, given those of the beam search.

        Args:
            leaves: the best that the beam search found.
            worst_U: float32[U], score of the k-th item behind them: with several items a leaf, above the k-th leaf's.

        Returns:
            the leaves, and bool[U], whether they are known to be that; not where the limit was reached.

        Raises:
            DataError: the scorer ever gave NaN.
        """
        self._worst_U1 = worst_U.unsqueeze(1)
        for children in self._dropped:
            self._wait(children, self._worst_U1)
        self._dropped.clear()
        nodes_UK, scores_UK = leaves.nodes_UK.clone(), leaves.scores_UK.clone()
        exact_U = torch.ones(len(nodes_UK), dtype=torch.bool, device=nodes_UK.device)
        users = torch.arange(len(nodes_UK), device=nodes_UK.device)
        first = self._walk.num_nodes
        while True:
            live_U = self._is_live(self._bound(leaves))
            num_live = int(live_U.sum())
            over = self._walk.num_nodes - first >= self._limit
            if num_live == 0 or over or 2 * num_live <= len(users):
                nodes_UK[users], scores_UK[users] = leaves.nodes_UK, leaves.scores_UK
                if num_live == 0 or over:
                    self._walk.refuse_nan()  # which is above no bound, so nothing of it would be left to notice
                    exact_U[users] = ~live_U
                    return Leaves(nodes_UK, scores_UK), exact_U
                chosen = live_U.nonzero()[:, 0]
                users, leaves, self._walk = users[chosen], leaves.take(chosen), self._walk.take(chosen)
                self._worst_U1 = self._worst_U1[chosen]
                self._waiting = {depth: prefixes.take(chosen) for depth, prefixes in self._waiting.items()}
            leaves = self._expand(leaves)

    def _bound(self, leaves: Leaves) -> Tensor:
        """float32[U, 1], what a leaf must exceed to be one of the k best."""
        if leaves.scores_UK.shape[1] < self._k:
            return self._worst_U1
        return torch.maximum(self._worst_U1, leaves.scores_UK[:, self._k - 1 :])

    def _is_live(self, bound_U1: Tensor) -> Tensor:
        """bool[U], which users have a prefix that could hide a better leaf; depths without any are forgotten."""
        live_U = torch.zeros(len(bound_U1), dtype=torch.bool, device=bound_U1.device)
        for depth, prefixes in list(self._waiting.items()):
            above_U = (prefixes.scores_UW > bound_U1).any(dim=1)
            if above_U.any():
                live_U |= above_U
            else:
                del self._waiting[depth]
        return live_U

    def _expand(self, leaves: Leaves) -> Leaves:
        """Score what follows the best of the longest prefixes that wait."""
        bound_U1, depth = self._bound(leaves), max(self._waiting)
        waiting = self._waiting[depth]
        scores_UM = waiting.scores_UW.masked_fill(waiting.scores_UW <= bound_U1, -torch.inf)
        count = min(AT_ONCE, int((scores_UM > -torch.inf).sum(dim=1).max()))
        index, _ = top_candidates(scores_UM, count)
        prefixes = replace(waiting, scores_UW=scores_UM).at(index).in_order()
        self._waiting[depth] = replace(waiting, scores_UW=scores_UM.scatter(1, index, -torch.inf))
        if depth == self._walk.exclusions.trie.num_levels:
            return leaves.merged(prefixes, self._walk.finish(prefixes), self._k)
        children = self._walk.children(prefixes, depth)
        if children.depth < self._ends_at:
            self._wait(children, bound_U1)
            return leaves
        index, scores_UK = top_candidates(children.scores_UM, self._k)
        return leaves.merged(children.take(index, scores_UK), scores_UK, self._k)

    def _wait(self, children: Children, bound_U1: Tensor) -> None:
        """Keep the children that could hide a better leaf."""
        scores_UM = children.scores_UM.masked_fill(children.scores_UM <= bound_U1, -torch.inf)
        count = int((scores_UM > -torch.inf).sum(dim=1).max())
        if count:
            found = children.take(*top_candidates(scores_UM, count))
            earlier = self._waiting.get(children.depth)
            self._waiting[children.depth] = found if earlier is None else earlier.joined(found)
