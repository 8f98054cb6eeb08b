"""What a user must not get: excluded items, as dead nodes of the trie.

A node is dead for a user when no item under it is left: every one that the user's lists allow is
excluded. Nodes without an allowed item are known once a list (`TrieMasks.held`). The others are found
on the paths of excluded items, so what is made here for a batch of users is as large as their
histories, never users × items: it holds for catalogues of 10⁷ items.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sidrec.data.sequences import Histories, positions_within
from sidrec.decoding.filters import TrieMasks
from sidrec.decoding.recommendations import Request
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
        positions: int64[E], positions in `trie.rows` of items that the user's mask allows and that are excluded;
            ascending and without repeats for each user.
        masks: of allowed items; None where all are.
        mask_of: int64[U], the mask of each user.
    """

    trie: ItemTrie
    num_users: int
    users: IntArray
    positions: IntArray
    masks: TrieMasks | None = None
    mask_of: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

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
        return cls.none(trie, len(histories)).and_seen(histories)

    @classmethod
    def of_lists(cls, trie: ItemTrie, request: Request, num_users: int) -> "Exclusions":
        """The allow- and deny-lists of a request for all of its users, of which a batch is taken.

        Raises:
            DataError: a list is not for these users or items.
            ConstraintError: a user's lists leave no item at all.
        """
        none, filters = cls.none(trie, num_users), request.filters(num_users, trie.num_rows)
        if filters is None or filters.masks.all():
            return none
        return replace(none, masks=TrieMasks.of(trie, filters.masks), mask_of=filters.of_user)

    def of_batch(self, users: IntArray, histories: Histories, *, exclude_seen: bool) -> "Exclusions":
        """What some of the users must not get, given their histories in the same order."""
        taken = self.take(users)
        return taken.and_seen(histories) if exclude_seen else taken

    def and_seen(self, histories: Histories) -> "Exclusions":
        """Every user's own history is excluded, besides what the lists leave out, and nothing else."""
        users, positions = histories.owners, self.trie.positions[histories.rows]
        if self.masks is not None:
            allowed = self.num_listed_before(users, positions + 1) > self.num_listed_before(users, positions)
            users, positions = users[allowed], positions[allowed]
        keys = np.unique(users * self._stride + positions)
        return replace(self, users=keys // self._stride, positions=keys % self._stride)

    def take(self, users: IntArray) -> "Exclusions":
        """The exclusions of some of the users, in the given order."""
        lengths = np.diff(self._offsets)[users]
        index = np.repeat(self._offsets[users], lengths) + positions_within(lengths)
        owners = np.repeat(np.arange(len(users)), lengths)
        mask_of = self.mask_of if self.masks is None else self.mask_of[users]
        return Exclusions(self.trie, len(users), owners, self.positions[index], self.masks, mask_of)

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
        """Like `_keys`, of the number of items before each excluded one that a user may get."""
        listed = self.num_listed_before(self.users, self.positions)
        return self.users * self._stride + listed - (np.arange(len(self.users)) - self._offsets[self.users])

    def dead_nodes(self, depth: int) -> tuple[IntArray, IntArray]:
        """Pairs (users int64[P], nodes int64[P]): nodes of a depth under which all that a user's lists allow is seen.

        Nodes under which they allow nothing are not among them; see `TrieMasks.held`.
        """
        if not len(self.positions):
            return self.users, self.positions
        nodes = self.trie.nodes_at(depth, self.positions)
        changes = (np.diff(self.users) != 0) | (np.diff(nodes) != 0)
        firsts = np.flatnonzero(np.append(True, changes))
        excluded = np.diff(np.append(firsts, len(nodes)))
        users, nodes = self.users[firsts], nodes[firsts]
        items = self.trie.node_items[depth]
        listed = self.num_listed_before(users, items[nodes + 1]) - self.num_listed_before(users, items[nodes])
        dead = excluded == listed
        return users[dead], nodes[dead]

    def num_nodes(self, depth: int) -> int:
        """The most nodes of a depth that one user's lists leave; what is seen is not looked at."""
        return self.trie.num_nodes[depth] if self.masks is None else self.masks.num_held[depth]

    def num_listed_before(self, users: IntArray, positions: IntArray) -> IntArray:
        """int64[…], how many of the items before a position a user's lists allow, excluded ones among them."""
        return positions if self.masks is None else self.masks.num_before(self.mask_of[users], positions)

    def num_allowed_before(self, users: IntArray, positions: IntArray) -> IntArray:
        """int64[…], how many of the items before a position a user may get."""
        excluded = np.searchsorted(self._keys, users * self._stride + positions) - self._offsets[users]
        return self.num_listed_before(users, positions) - excluded

    def allowed_position(self, users: IntArray, ranks: IntArray) -> IntArray:
        """int64[…], position of the item of a rank (from 0) among those that a user may get.

        The inverse of `num_allowed_before` at allowed positions.
        """
        excluded = np.searchsorted(self._gap_keys, users * self._stride + ranks, side="right") - self._offsets[users]
        ranks = ranks + excluded
        return ranks if self.masks is None else self.masks.position(self.mask_of[users], ranks)
