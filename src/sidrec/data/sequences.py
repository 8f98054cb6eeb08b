"""Interactions in order: one flat array of item rows, cut into users by offsets."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sidrec.errors import DataError
from sidrec.types import BoolArray, IntArray

__all__ = ["Histories", "Sequences", "positions_within", "user_keys"]


def positions_within(counts: IntArray) -> IntArray:
    """int64[sum of counts], the numbers 0 … count-1 of every group, one group after the other.

    >>> positions_within(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    ends = np.cumsum(counts, dtype=np.int64)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def user_keys(ids: Iterable[str | None]) -> IntArray:
    """int64[U], a number for each user id, the same on every machine (CRC-32 of its UTF-8); -1 where there is no id.

    >>> user_keys(["user-1", None, "user-1"]).tolist()
    [2116437524, -1, 2116437524]
    """
    return np.array([-1 if name is None else zlib.crc32(name.encode()) for name in ids], dtype=np.int64)


@dataclass(frozen=True)
class Histories:
    """A batch of item lists of different lengths, oldest item first: what a recommender reads.

    Attributes:
        rows: int32[T], item rows of all histories one after the other.
        offsets: int64[U+1]; history u is `rows[offsets[u]:offsets[u + 1]]`. May be empty.
        users: int64[U], `user_keys` of the users whose histories they are, -1 where that is not known; None where it is
            known of none.
    """

    rows: IntArray
    offsets: IntArray
    users: IntArray | None = None

    def __post_init__(self) -> None:
        if self.users is not None and len(self.users) != len(self):
            raise DataError(f"{len(self.users)} users for {len(self)} histories", expected="one a history")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.rows) or (np.diff(self.offsets) < 0).any():
            raise DataError("offsets do not cut the rows", expected="0 = first ≤ … ≤ last = number of rows")

    @classmethod
    def of(cls, lists: Iterable[Sequence[int] | IntArray], users: Iterable[str | None] | None = None) -> "Histories":
        """Histories from lists of rows, and the ids of their users where they are known.

        >>> Histories.of([[3, 1], []]).lengths.tolist()
        [2, 0]
        """
        arrays = [np.asarray(items, dtype=np.int32) for items in lists]
        offsets = np.cumsum([0, *(len(items) for items in arrays)], dtype=np.int64)
        keys = None if users is None else user_keys(users)
        return cls(np.concatenate([np.empty(0, np.int32), *arrays]), offsets, keys)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> IntArray:
        return self.rows[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> IntArray:
        """int64[U], number of items in each history."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> IntArray:
        """int64[T], for each item of `rows` the number of the history it stands in.

        >>> Histories.of([[3, 1], [], [2]]).owners.tolist()
        [0, 0, 2]
        """
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, index: IntArray | slice) -> "Histories":
        """The histories at the given positions."""
        positions = np.arange(len(self))[index]
        starts, lengths = self.offsets[:-1][positions], self.lengths[positions]
        return Histories(*_gather(self.rows, starts, lengths), None if self.users is None else self.users[positions])

    def where(self, kept: BoolArray) -> "Histories":
        """Each history without the items for which `kept`, bool[T], is false.

        >>> Histories.of([[3, 1], [2]]).where(np.array([False, True, False])).padded(-1).tolist()
        [[1], [-1]]
        """
        before = np.concatenate([[0], np.cumsum(kept)])
        return Histories(self.rows[kept], before[self.offsets], self.users)

    def last(self, max_items: int) -> "Histories":
        """Each history cut to its newest `max_items` items; 0 means no cut."""
        if max_items <= 0 or not len(self) or self.lengths.max() <= max_items:
            return self
        lengths = np.minimum(self.lengths, max_items)
        return Histories(*_gather(self.rows, self.offsets[1:] - lengths, lengths), self.users)

    def padded(self, fill: int) -> IntArray:
        """int32[U, T]: histories side by side, short ones filled up with `fill` on the right.

        >>> Histories.of([[3, 1], []]).padded(-1).tolist()
        [[3, 1], [-1, -1]]
        """
        out = np.full((len(self), int(self.lengths.max(initial=0))), fill, dtype=np.int32)
        out[self.owners, positions_within(self.lengths)] = self.rows
        return out


@dataclass(frozen=True)
class Sequences:
    """Every user's whole history in order of (time, input order).

    Attributes:
        rows: int32[T], item rows of all users one after the other.
        offsets: int64[U+1]; user u owns `rows[offsets[u]:offsets[u + 1]]`.
        users: the caller's user ids, U of them. With a "given" split one user may own several lines.
        times: int64[T] or float64[T] of the events, or None where the source has only an order.
    """

    rows: IntArray
    offsets: IntArray
    users: list[str]
    times: IntArray | None = None

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.users) + 1 or self.offsets[-1] != len(self.rows):
            raise DataError(
                f"{len(self.users)} users and {len(self.rows)} events do not fit "
                f"{len(self.offsets)} offsets that end at {self.offsets[-1]}"
            )
        if (np.diff(self.offsets) <= 0).any():
            raise DataError("a user has no interactions", expected="at least one event a user")
        if self.times is not None and len(self.times) != len(self.rows):
            raise DataError(f"{len(self.times)} times for {len(self.rows)} events")

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> IntArray:
        """int64[U], number of events of each user."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> IntArray:
        """int64[T], for each event the position of its user."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def user_keys(self) -> IntArray:
        """int64[U], the `user_keys` of the users."""
        return user_keys(self.users)

    def before(self, users: IntArray, cuts: IntArray, max_items: int = 0) -> Histories:
        """Histories `sequence[max(0, cut - max_items):cut]` of pairs (user, cut), both int[P]."""
        starts, lengths = self.offsets[users], cuts.astype(np.int64)
        if max_items > 0:
            kept = np.minimum(lengths, max_items)
            starts, lengths = starts + lengths - kept, kept
        return Histories(*_gather(self.rows, starts, lengths), self.user_keys[users])

    def targets(self, users: IntArray, cuts: IntArray) -> IntArray:
        """int32[P], the item at position `cut` of each pair's sequence."""
        return self.rows[self.offsets[users] + cuts]


def _gather(rows: IntArray, starts: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Slices `rows[start:start + length]` laid one after the other, and their offsets."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return rows[np.repeat(starts, lengths) + positions_within(lengths)], offsets
