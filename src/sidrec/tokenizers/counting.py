"""Collision policies that look at codes alone: keep them, count items, or deal out last codes in turns."""

import zlib
from typing import Literal

import numpy as np
from pydantic import Field

from sidrec.config import Config
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError
from sidrec.tokenizers.collisions import CollisionPolicy, Settled
from sidrec.tokenizers.placement import Quantized
from sidrec.types import IntArray

__all__ = ["AppendLevel", "HashedRoundRobin", "Keep"]


class Keep(CollisionPolicy):
    """Collisions stay; decoding and evaluation treat the items of a group as tied. Consistent."""

    is_consistent = True

    class Config(Config):
        """Collisions stay."""

        kind: Literal["keep"] = "keep"

    @property
    def is_unique(self) -> bool:
        """No."""
        return False

    def settle(self, quantized: Quantized) -> Settled:
        """The codes as they are."""
        return Settled(quantized.codes, quantized.sizes)


class AppendLevel(CollisionPolicy):
    """One more level counts the items behind the same codes, in row order. Consistent.

    As in TIGER (2023, arXiv:2305.05065); ETEGRec's suffix (2024, arXiv:2409.05546) is the same counter, with 256
    codes whatever the data: `size=256`. The level is always there, so that L does not depend on the data and does
    not change when items are added.
    """

    is_consistent = True

    class Config(Config):
        """One more level counts the items behind the same codes."""

        kind: Literal["append_level"] = "append_level"
        size: int = Field(default=0, ge=0)
        """Codes of the added level, with room for items to come; 0 takes those of the largest group (1 if nothing
        collides)."""

    @property
    def extra_levels(self) -> int:
        """One."""
        return 1

    def settle(self, quantized: Quantized) -> Settled:
        """The codes with a counter appended; new items count on from the old ones of their group.

        Raises:
            DataError: more items behind one code than the configured size.
        """
        index, taken = quantized.index, quantized.taken
        paths = quantized.codes[index.rows[index.item_ptr[:-1]]]
        first = np.zeros(len(paths), np.int64)
        if taken is not None:
            nodes = taken.nodes_of(paths)
            last_child = taken.child_ptr[-1][nodes + 1] - 1
            first = np.where(nodes < 0, 0, taken.codes[-1][last_child].astype(np.int64) + 1)
        counters = _turns(index, first)
        size = _counter_size(int(counters.max()) + 1, taken, self.config.size)
        return Settled(np.column_stack([quantized.codes, counters]).astype(np.int32), (*quantized.sizes, size))


class HashedRoundRobin(CollisionPolicy):
    """The last codes of a prefix are dealt out in row order, from an offset that a hash decides. Consistent.

    FORGE's rule (2025, arXiv:2509.20904) as a public fork of ETEGRec has it: items with the same codes in all
    levels but the last form a group; the i-th of them in row order gets the last code `(offset + i) mod K`, where
    the offset is the Adler-32 checksum of the prefix written as a Python tuple, such as `(12, 7)`. The last code
    that was learnt is thrown away: that is its price. A group of more than K items is an error, unless a suffix
    counts on.
    """

    is_consistent = True

    class Config(Config):
        """The last codes of a prefix are dealt out in turns."""

        kind: Literal["hashed_round_robin"] = "hashed_round_robin"
        suffix: bool = False
        """Append a level that counts how often the last codes of a group went round: ETEGRec's suffix."""

    @property
    def extra_levels(self) -> int:
        """One with the suffix."""
        return int(self.config.suffix)

    def settle(self, quantized: Quantized) -> Settled:
        """The codes with the last one dealt out anew; new items go on where the old ones of their group ended.

        Raises:
            DataError: a group is larger than the last level, and there is no suffix.
        """
        codes, sizes, depth = quantized.codes.copy(), quantized.sizes, len(quantized.sizes) - 1
        # A constant in front, so that there is a prefix even where one level is all.
        prefixes = np.column_stack([np.zeros(len(codes), np.int32), codes[:, :depth]])
        index = ItemTrie.build(prefixes, (1, *sizes[:depth]))
        paths = prefixes[index.rows[index.item_ptr[:-1]], 1:]
        held = quantized.num_taken(paths)
        if not self.config.suffix:
            _refuse_large_groups(paths, held + np.diff(index.item_ptr), sizes[-1])
        offsets = np.array([zlib.adler32(str(tuple(path)).encode()) % sizes[-1] for path in paths.tolist()])
        turns = _turns(index, held)
        codes[:, -1] = (_turns(index, held + offsets)) % sizes[-1]
        num_moved = int((codes[:, -1] != quantized.codes[:, -1]).sum())
        if not self.config.suffix:
            return Settled(codes, sizes, num_moved)
        rounds = turns // sizes[-1]
        size = _counter_size(int(rounds.max()) + 1, quantized.taken, 0)
        return Settled(np.column_stack([codes, rounds]).astype(np.int32), (*sizes, size), num_moved)


def _turns(index: ItemTrie, first: IntArray) -> IntArray:
    """int64[N], for each item how many of its leaf stand before it in row order, plus the leaf's `first`."""
    turns = np.empty(len(index.rows), np.int64)
    turns[index.rows] = np.arange(len(turns)) - np.repeat(index.item_ptr[:-1] - first, np.diff(index.item_ptr))
    return turns


def _counter_size(needed: int, taken: ItemTrie | None, configured: int) -> int:
    if configured and needed > configured:
        raise DataError(
            f"{needed} items have the same codes; the level that counts them has {configured}",
            expected="collisions.size at least as large, or 0, which takes what is needed",
            next="raise collisions.size, or look at the quality report for duplicated items",
        )
    return max(needed, configured, 1 if taken is None else taken.sizes[-1])


def _refuse_large_groups(paths: IntArray, counts: IntArray, size: int) -> None:
    is_large = counts > size
    if is_large.any():
        fullest = int(counts.argmax())
        raise DataError(
            f"{int(is_large.sum())} prefixes hold more items than their last level has codes ({size})",
            where=f"codes {tuple(paths[fullest].tolist())}: {counts[fullest]} items",
            expected="larger codebooks, or a suffix that counts on: collisions.suffix=true",
            next="look at the quality report: crowded prefixes are a sign of codes that are not used evenly",
        )
