"""What a user must not get: excluded items, as dead nodes of the trie.

A node is dead for a user when every item under it is excluded. Only the paths of excluded items can
hold dead nodes, so everything here is as large as the histories, never users × items: it holds for
catalogues of 10⁷ items. Allow-lists, which are the same for all users, restrict the trie instead
(`ItemTrie.restrict`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sidrec.data.sequences import Histories, positions_within
from sidrec.decoding.trie import ItemTrie
from sidrec.types import IntArray

__all__ = ["Exclusions"]


@dataclass(frozen=True)
class Exclusions:
    """Items that each of a batch of users must not get.

    Attributes:
        trie: the items there are.
        num_users: U.
        users: int64[E], ascending.
        positions: int64[E], positions in `trie.rows`; ascending and without repeats for each user.
    """

    trie: ItemTrie
    num_users: int
    users: IntArray
    positions: IntArray

    @classmethod
    def none(cls, trie: ItemTrie, num_users: int) -> "Exclusions":
        """Nothing is excluded."""
        empty = np.empty(0, dtype=np.int64)
        return cls(trie, num_users, empty, empty)

    @classmethod
    def of_seen(cls, trie: ItemTrie, histories: Histories) -> "Exclusions":
        """Every user's own history is excluded.

        >>> trie = ItemTrie.build(np.array([[0, 0], [0, 1], [1, 0]], np.int32), (2, 2))
        >>> seen = Exclusions.of_seen(trie, Histories.of([[1, 0, 1], [2]]))
        >>> [pairs.tolist() for pairs in seen.dead_nodes(1)]
        [[0, 1], [0, 1]]
        """
        users = histories.owners
        positions = trie.positions[histories.rows]
        held = positions >= 0
        stride = len(trie.rows) + 1
        keys = np.unique(users[held] * stride + positions[held])
        return cls(trie, len(histories), keys // stride, keys % stride)

    def take(self, users: IntArray) -> "Exclusions":
        """The exclusions of some of the users, in the given order."""
        lengths = np.diff(self._offsets)[users]
        index = np.repeat(self._offsets[users], lengths) + positions_within(lengths)
        return Exclusions(self.trie, len(users), np.repeat(np.arange(len(users)), lengths), self.positions[index])

    @cached_property
    def _stride(self) -> int:
        """One more than any position, so that user × stride + position orders by (user, position)."""
        return len(self.trie.rows) + 1

    @cached_property
    def _offsets(self) -> IntArray:
        """int64[U + 1]; user u owns `positions[offsets[u]:offsets[u + 1]]`."""
        return np.searchsorted(self.users, np.arange(self.num_users + 1))

    @cached_property
    def _keys(self) -> IntArray:
        return self.users * self._stride + self.positions

    @cached_property
    def _gap_keys(self) -> IntArray:
        """Like `_keys`, of the number of allowed items before each excluded one."""
        return self._keys - (np.arange(len(self.users)) - self._offsets[self.users])

    def dead_nodes(self, depth: int) -> tuple[IntArray, IntArray]:
        """Pairs (users int64[P], nodes int64[P]): the nodes of a depth under which a user is left no item."""
        nodes = self.trie.nodes_at(depth, self.positions)
        if not len(nodes):
            return nodes, nodes
        changes = (np.diff(self.users) != 0) | (np.diff(nodes) != 0)
        firsts = np.flatnonzero(np.append(True, changes))
        excluded = np.diff(np.append(firsts, len(nodes)))
        users, nodes = self.users[firsts], nodes[firsts]
        items = self.trie.node_items[depth]
        dead = excluded == items[nodes + 1] - items[nodes]
        return users[dead], nodes[dead]

    def num_allowed_before(self, users: IntArray, positions: IntArray) -> IntArray:
        """int64[…], how many of the items before a position a user may get."""
        excluded = np.searchsorted(self._keys, users * self._stride + positions) - self._offsets[users]
        return positions - excluded

    def allowed_position(self, users: IntArray, ranks: IntArray) -> IntArray:
        """int64[…], position of the item of a rank (from 0) among those that a user may get.

        The inverse of `num_allowed_before` at allowed positions.
        """
        excluded = np.searchsorted(self._gap_keys, users * self._stride + ranks, side="right") - self._offsets[users]
        return ranks + excluded
