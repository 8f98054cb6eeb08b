"""Which items may be recommended: masks of catalogue rows, for all users or one a user.

A mask is put in the order of a trie once a call and cumulated there (`TrieMasks`). How many allowed
items any node holds is then the difference of two numbers, however long the list is: 10⁶ items cost a
few milliseconds, and a search only looks up bytes. What a user has seen is `sidrec.decoding.constraints`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sidrec.decoding.trie import ItemTrie
from sidrec.errors import ConstraintError, DataError
from sidrec.types import BoolArray, IntArray

__all__ = ["Filters", "TrieMasks", "combined"]


@dataclass(frozen=True, eq=False)
class Filters:
    """Several lists of items, and which of them each user has: markets, or categories, in one batch.

    Attributes:
        masks: bool[F, N], the items of each list.
        of_user: int[U], the list of each user.

    Raises:
        DataError: the masks are no table of booleans, or a user has a list that is not there.

    >>> Filters(np.array([[True, False], [True, True]]), np.array([1, 0, 1])).of_users(np.array([0, 1]))
    array([[ True,  True],
           [ True, False]])
    """

    masks: BoolArray
    of_user: IntArray

    def __post_init__(self) -> None:
        if self.masks.ndim != 2 or self.masks.dtype != np.bool_:
            raise DataError(
                f"masks of shape {self.masks.shape} and type {self.masks.dtype}", expected="bool[lists, items]"
            )
        if self.of_user.ndim != 1 or not np.issubdtype(self.of_user.dtype, np.integer):
            raise DataError(
                f"the users' lists have shape {self.of_user.shape} and type {self.of_user.dtype}", expected="int[users]"
            )
        outside = np.flatnonzero((self.of_user < 0) | (self.of_user >= len(self.masks)))
        if len(outside):
            raise DataError(
                f"user {outside[0]} has list {self.of_user[outside[0]]}", expected=f"0 to {len(self.masks) - 1}"
            )

    def of_users(self, users: IntArray) -> BoolArray:
        """bool[len(users), N], the masks of some users; of all of them together, bool[1, N], if there is only one."""
        return self.masks[[0] if len(self.masks) == 1 else self.of_user[users]]


def combined(
    allowed: BoolArray | Filters | None, denied: BoolArray | Filters | None, num_users: int, num_items: int
) -> Filters | None:
    """The items that each user may get; None for all. Only masks that some user has are kept.

    Args:
        allowed: items that may be recommended, bool[N] for all users or a list for each.
        denied: items that must not be, likewise.
        num_users: U.
        num_items: N.

    Raises:
        DataError: a mask has not one entry an item, or `Filters` are for another number of users.
        ConstraintError: a user's lists leave no item at all.

    >>> allowed, denied = np.array([True, True, False]), Filters(np.eye(3, dtype=np.bool_), np.array([1, 0]))
    >>> found = combined(allowed, denied, num_users=2, num_items=3)
    >>> found.of_users(np.array([0, 1])).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0]]
    """
    if allowed is None and denied is None:
        return None
    wanted = _for_users(
        "allow-list", np.ones(num_items, np.bool_) if allowed is None else allowed, num_users, num_items
    )
    other = _for_users("deny-list", np.zeros(num_items, np.bool_) if denied is None else denied, num_users, num_items)
    used, of_user = np.unique(wanted.of_user * len(other.masks) + other.of_user, return_inverse=True)
    masks = wanted.masks[used // len(other.masks)]
    if denied is not None:
        masks &= ~other.masks[used % len(other.masks)]
    empty = np.flatnonzero(~masks.any(axis=1))
    if len(empty):
        user = int(np.flatnonzero(of_user == empty[0])[0])
        raise ConstraintError(
            "the allow- and deny-lists leave no item that can be recommended",
            where="all users" if len(masks) == 1 else f"user {user + 1} of {num_users}",
            expected=f"at least one of {num_items} items",
        )
    return Filters(masks, of_user)


def _for_users(name: str, items: BoolArray | Filters, num_users: int, num_items: int) -> Filters:
    """The same as one list for each user of the call."""
    if not isinstance(items, Filters):
        if getattr(items, "dtype", None) != np.bool_ or items.ndim != 1:
            kind = f"{getattr(items, 'dtype', type(items).__name__)}{list(getattr(items, 'shape', ()))}"
            raise DataError(
                f"the {name} of a request is {kind}",
                expected="bool[items], true for the items that are meant, or Filters with such a list for each user",
                next="give item ids to Recommender.recommend, or make a mask of catalog.rows(ids)",
            )
        items = Filters(items[None], np.zeros(num_users, np.int64))
    if items.masks.shape[1] != num_items:
        raise DataError(f"the {name} has {items.masks.shape[1]} entries", expected=f"one for each of {num_items} items")
    if len(items.of_user) != num_users:
        raise DataError(f"the {name} is for {len(items.of_user)} users", expected=f"the {num_users} of the request")
    return items


@dataclass(frozen=True, eq=False)
class TrieMasks:
    """Masks in the order of a trie, cumulated.

    Attributes:
        trie: whose items they are.
        counts: int32[F, N + 1], allowed items among the first 0 … N of `trie.rows`.

    >>> trie = ItemTrie.build(np.array([[1, 0], [0, 2], [1, 1]], np.int32), (2, 3))
    >>> masks = TrieMasks.of(trie, np.array([[True, False, False]]))
    >>> masks.counts.tolist(), masks.held[1].tolist(), masks.held[2].tolist()
    ([[0, 0, 1, 1]], [[False, True]], [[False, True, False]])
    """

    trie: ItemTrie
    counts: IntArray

    @classmethod
    def of(cls, trie: ItemTrie, masks: BoolArray) -> "TrieMasks":
        """Masks bool[F, N] of catalogue rows."""
        counts = np.zeros((len(masks), len(trie.rows) + 1), np.int32)
        for mask, count in zip(masks, counts, strict=True):
            np.cumsum(mask.take(trie.rows), dtype=np.int32, out=count[1:])
        return cls(trie, counts)

    @cached_property
    def held(self) -> tuple[BoolArray, ...]:
        """For depth 0 … L bool[F, n], whether there is an allowed item under a node."""
        ends = (self.counts.take(items, axis=1) for items in self.trie.node_items)
        return tuple(ends_Fn[:, 1:] != ends_Fn[:, :-1] for ends_Fn in ends)

    @cached_property
    def num_held(self) -> tuple[int, ...]:
        """For depth 0 … L the most nodes under which one mask allows an item."""
        return tuple(int(held_Fn.sum(axis=1).max(initial=0)) for held_Fn in self.held)

    def num_before(self, masks: IntArray, positions: IntArray) -> IntArray:
        """int64[…], how many of the items before a position a mask allows."""
        return self.counts[masks, positions].astype(np.int64)

    def position(self, masks: IntArray, ranks: IntArray) -> IntArray:
        """int64[…], position of the item of a rank (from 0) among those that a mask allows.

        The inverse of `num_before` at allowed positions; N where there are not so many.
        """
        masks, out = np.broadcast_to(masks, ranks.shape), np.empty(ranks.shape, np.int64)
        for mask in np.unique(masks):
            here = masks == mask
            # Of the counts' own type: searching with another one would copy them all.
            out[here] = np.searchsorted(self.counts[mask], ranks[here].astype(np.int32), side="right") - 1
        return out

    @cached_property
    def copies(self) -> dict[tuple[int, str], Any]:
        """(depth, device) → the bytes there; kept by `sidrec.decoding.trie_tensors`."""
        return {}
