"""The catalogue as a prefix tree in code space: code path ↔ item rows.

The tree is stored level by level as flat arrays (compressed sparse rows). Items are sorted by their
codes, so the nodes of a level are numbered in the order of their paths, the children of a node are
a range of the next level, and the items under any node are a range of `rows`. A leaf is a list of
items: items with equal codes stand side by side, in row order. New items are merged in at the speed
of copying. Nothing here knows a model, a vocabulary or a user; what a user must not get is
`sidrec.decoding.constraints`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sidrec.decoding.trie_file import TrieArrays, read_trie, write_trie
from sidrec.errors import DataError
from sidrec.types import BoolArray, IntArray

__all__ = ["ItemTrie"]

PACKED_LIMIT = 2**63
"""Below this many pairs of path and row a pair is one int64, which sorts faster than columns, and in place."""
MAX_ITEMS, MAX_CODES = 2**30, 2**31
"""Items of a trie, and codes of a level: what is numbered in int32, with room to count beyond the last."""
DENSE_ENTRIES = 2**20
"""Paths of the first levels that have a table of their own (4 MB of int32), so that looking them up is one index."""
DENSE_WORTH = 64
"""Entries of that table that are made in the time of one search for a path."""


@dataclass(frozen=True, eq=False)
class ItemTrie:
    """A prefix tree over the codes of items. Depth 0 is the root, depth L are the leaves.

    Attributes:
        sizes: (K1, …, KL), number of codes of each level.
        child_ptr: for depth d < L int32[n + 1]; the children of node i are the nodes
            `child_ptr[d][i]` to `child_ptr[d][i + 1]` of depth d + 1.
        codes: for depth d < L the codes of the nodes of depth d + 1, uint16 where they fit.
        item_ptr: int32[leaves + 1]; leaf i holds `rows[item_ptr[i]:item_ptr[i + 1]]`.
        rows: int32[N], catalogue rows in order of (codes, row).

    >>> trie = ItemTrie.build(np.array([[1, 0], [0, 2], [1, 0]], np.int32), (2, 3))
    >>> trie.rows_of([1, 0]).tolist(), trie.path_of(1).tolist(), trie.num_nodes
    ([0, 2], [0, 2], (1, 2, 2))
    """

    sizes: tuple[int, ...]
    child_ptr: tuple[IntArray, ...]
    codes: tuple[IntArray, ...]
    item_ptr: IntArray
    rows: IntArray

    @classmethod
    def build(cls, codes: IntArray, sizes: Sequence[int]) -> "ItemTrie":
        """The trie of a table of codes int32[N, L] with `0 ≤ codes[:, l] < sizes[l]`.

        Raises:
            DataError: no items, or a shape or code that does not fit `sizes`.
        """
        sizes = tuple(int(size) for size in sizes)
        _check_limits(len(codes), sizes)
        if codes.ndim != 2 or codes.shape[1] != len(sizes) or not codes.size:
            raise DataError(f"codes of shape {codes.shape} do not fit {len(sizes)} levels", expected="[N ≥ 1, L]")
        if any(_is_outside(codes[:, level], size) for level, size in enumerate(sizes)):
            raise DataError("a code lies outside its level", expected=f"0 ≤ code < {sizes}")
        order = _order(codes, sizes)
        starts_node = np.zeros(len(order), dtype=np.bool_)
        starts_node[0] = True
        child_ptr: list[IntArray] = []
        of_nodes: list[IntArray] = []
        for level, size in enumerate(sizes):
            column = codes[order, level]
            starts_parent = starts_node.copy()
            starts_node[1:] |= column[1:] != column[:-1]
            child_ptr.append(_positions(starts_parent[starts_node]))
            of_nodes.append(column[starts_node].astype(_code_type(size)))
        return cls(sizes, tuple(child_ptr), tuple(of_nodes), _positions(starts_node), order.astype(np.int32))

    @classmethod
    def load(cls, path: Path | str) -> "ItemTrie":
        """The trie of a file of `save`, mapped into memory: nothing is copied, and pages are read as they are used.

        Raises:
            DataError: there is no such file, it holds no trie of this format, or it is damaged.
        """
        return cls(*read_trie(Path(path)))

    def save(self, path: Path | str) -> None:
        """Write one file, of the size of `nbytes`.

        Raises:
            DataError: it cannot be written there.
        """
        write_trie(Path(path), TrieArrays(self.sizes, self.child_ptr, self.codes, self.item_ptr, self.rows))

    def extended(self, codes: IntArray, sizes: Sequence[int] | None = None) -> "ItemTrie":
        """The trie with more items behind the catalogue's, equal to one built of all; the old ones stay in place.

        The new items become a small trie, which is merged depth by depth at the speed of copying.

        Args:
            codes: int32[M, L] of the new items, whose rows are `num_rows` to `num_rows + M - 1`.
            sizes: of the levels where they have grown.

        Raises:
            DataError: a shape or code that does not fit `sizes`, or a level has shrunk.
        """
        sizes = self.sizes if sizes is None else tuple(int(size) for size in sizes)
        if len(sizes) != self.num_levels or any(new < old for new, old in zip(sizes, self.sizes, strict=True)):
            raise DataError(
                f"levels of {self.sizes} codes cannot become {sizes}", expected="the same levels, or larger"
            )
        if not len(codes):
            return replace(self, sizes=sizes)
        _check_limits(self.num_rows + len(codes), sizes)
        new = ItemTrie.build(codes, sizes)
        child_ptr: list[IntArray] = []
        merged: list[IntArray] = []
        at, is_old = np.zeros(1, np.int64), np.ones(1, np.bool_)
        for depth, (ptr, wanted) in enumerate(zip(new.child_ptr, new.codes, strict=True)):
            counts = np.diff(ptr)
            child_at, child_is_old = self._find(depth, np.repeat(at, counts), np.repeat(is_old, counts), wanted)
            added = np.add.reduceat(~child_is_old, ptr[:-1], dtype=np.int32)
            child_ptr.append(_merged_ptr(self.child_ptr[depth], at, is_old, added))
            old_codes = self.codes[depth].astype(_code_type(sizes[depth]), copy=False)
            merged.append(np.insert(old_codes, child_at[~child_is_old], wanted[~child_is_old]))
            at, is_old = child_at, child_is_old
        added = np.diff(new.item_ptr)
        item_ptr = _merged_ptr(self.item_ptr, at, is_old, added)
        # Behind the old items of its leaf, because rows of new items are higher.
        behind = np.repeat(self.item_ptr[at + is_old], added)
        rows = np.insert(self.rows, behind, new.rows + self.num_rows)
        return ItemTrie(sizes, tuple(child_ptr), tuple(merged), item_ptr, rows)

    def _find(self, depth: int, parents: IntArray, is_node: BoolArray, wanted: IntArray) -> tuple[IntArray, BoolArray]:
        """For parents of a depth, where their children of the wanted codes are or would be, and whether they are.

        A parent that is no node itself stands where it would be.
        """
        ptr, codes = self.child_ptr[depth], self.codes[depth]
        first = ptr[parents].astype(np.int64)
        end = np.where(is_node, ptr[np.minimum(parents + 1, len(ptr) - 1)], first)
        last = end.copy()
        for _ in range(int((last - first).max(initial=0)).bit_length()):
            middle = (first + last) // 2
            is_below = (middle < last) & (codes[np.minimum(middle, len(codes) - 1)] < wanted)
            first, last = np.where(is_below, middle + 1, first), np.where(is_below, last, middle)
        return first, (first < end) & (codes[np.minimum(first, len(codes) - 1)] == wanted)

    def nodes_of(self, paths: IntArray) -> IntArray:
        """int64[M], nodes at depth D that paths int[M, D] of codes lead to; -1 where there is none."""
        nodes, is_node, known = np.zeros(len(paths), np.int64), np.ones(len(paths), np.bool_), 0
        dense = self._dense_levels
        entries = math.prod(self.sizes[:dense])
        if dense <= paths.shape[1] and len(paths) * DENSE_WORTH >= entries:
            inside = ((paths[:, :dense] >= 0) & (paths[:, :dense] < self.sizes[:dense])).all(axis=1)
            nodes = self._dense[np.where(inside, _packed(paths, self.sizes, 0, dense), entries)]
            nodes, is_node, known = nodes.astype(np.int64), nodes >= 0, dense
        for depth in range(known, paths.shape[1]):
            nodes, is_node = self._find(depth, nodes, is_node, paths[:, depth])
        return np.where(is_node, nodes, -1)

    @cached_property
    def _dense_levels(self) -> int:
        """First levels of which all paths, whether nodes or not, fit in a table of `DENSE_ENTRIES`."""
        return sum(int(entries) <= DENSE_ENTRIES for entries in np.cumprod(self.sizes, dtype=np.float64))

    @cached_property
    def _dense(self) -> IntArray:
        """int32[K1 ⋯ KD + 1], nodes at depth D = `_dense_levels` of all paths; -1 where there is none, and last."""
        paths = np.zeros(1, np.int64)
        for ptr, codes, size in zip(self.child_ptr, self.codes, self.sizes[: self._dense_levels], strict=False):
            paths = np.repeat(paths * size, np.diff(ptr)) + codes
        table = np.full(math.prod(self.sizes[: self._dense_levels]) + 1, -1, np.int32)
        table[paths] = np.arange(len(paths), dtype=np.int32)
        return table

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.rows)

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.sizes)

    @cached_property
    def num_nodes(self) -> tuple[int, ...]:
        """Nodes at depth 0 … L."""
        return (1, *(len(codes) for codes in self.codes))

    @cached_property
    def max_children(self) -> tuple[int, ...]:
        """Children of the widest node at depth 0 … L-1."""
        return tuple(int(np.diff(ptr).max()) for ptr in self.child_ptr)

    @cached_property
    def node_items(self) -> tuple[IntArray, ...]:
        """For depth 0 … L int32[n + 1]; the items under node i are at positions `[i]` to `[i + 1]` of `rows`."""
        out = [self.item_ptr]
        for ptr in reversed(self.child_ptr):
            out.append(out[-1][ptr])
        return tuple(reversed(out))

    @cached_property
    def positions(self) -> IntArray:
        """int32[N], position of each catalogue row in `rows`."""
        out = np.empty(self.num_rows, dtype=np.int32)
        out[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        return out

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the stored arrays."""
        return sum(array.nbytes for array in (*self.child_ptr, *self.codes, self.item_ptr, self.rows))

    def nodes_at(self, depth: int, positions: IntArray) -> IntArray:
        """int64[…], nodes of a depth that hold the items at these positions of `rows`."""
        return _range_of(self.node_items[depth], positions)

    def parents_of(self, depth: int, nodes: IntArray) -> IntArray:
        """int64[…], the nodes of the depth above of which these of a depth (from 1) are children."""
        return _range_of(self.child_ptr[depth - 1], nodes)

    def rows_of(self, path: Sequence[int] | IntArray) -> IntArray:
        """int32[…], rows of the items whose codes begin with `path`, whole or partial; empty if there is none.

        The inverse of `path_of`.
        """
        node = 0
        for depth, code in enumerate(path):
            first, last = self.child_ptr[depth][node : node + 2]
            node = first + np.searchsorted(self.codes[depth][first:last], code)
            if node == last or self.codes[depth][node] != code:
                return self.rows[:0]
        first, last = self.node_items[len(path)][node : node + 2]
        # A partial path runs over several leaves, within which alone rows are in order.
        return self.rows[first:last] if len(path) == self.num_levels else np.sort(self.rows[first:last])

    def path_of(self, row: int) -> IntArray:
        """int32[L], codes of an item; the inverse of `rows_of`.

        Raises:
            DataError: there is no such row.
        """
        if not 0 <= row < self.num_rows:
            raise DataError(f"the trie does not hold row {row}", expected=f"0 to {self.num_rows - 1}")
        nodes = [int(self.nodes_at(depth + 1, self.positions[row])) for depth in range(self.num_levels)]
        return np.asarray([self.codes[depth][node] for depth, node in enumerate(nodes)], dtype=np.int32)

    @cached_property
    def copies(self) -> dict[str, Any]:
        """Device → the arrays there; kept by `sidrec.decoding.trie_tensors`."""
        return {}


def _check_limits(num_items: int, sizes: Sequence[int]) -> None:
    """Raise `DataError` where a number would not fit the int32 in which it is stored."""
    if num_items > MAX_ITEMS:
        raise DataError(f"{num_items:,} items", expected=f"at most {MAX_ITEMS:,} in one trie")
    if any(size > MAX_CODES for size in sizes):
        raise DataError(f"levels of {sizes} codes", expected=f"at most {MAX_CODES:,} a level")


def _is_outside(column: IntArray, size: int) -> bool:
    return bool(column.min() < 0 or column.max() >= size)


def _order(codes: IntArray, sizes: Sequence[int]) -> IntArray:
    """int64[N], rows in order of (codes, row)."""
    if math.prod(sizes) * len(codes) >= PACKED_LIMIT:
        return _order_of_columns(codes, sizes)
    packed = _packed(codes, sizes, 0, len(sizes))
    packed *= len(codes)
    packed += np.arange(len(codes))
    packed.sort()
    packed %= len(codes)
    return packed


def _order_of_columns(codes: IntArray, sizes: Sequence[int]) -> IntArray:
    """The order where a path and a row do not fit one integer: as few sorts as integers hold the levels."""
    columns: list[IntArray] = []
    first = 0
    for level in range(1, len(sizes) + 1):
        if level == len(sizes) or math.prod(sizes[first : level + 1]) >= PACKED_LIMIT:
            columns.append(_packed(codes, sizes, first, level))
            first = level
    return np.lexsort(columns[::-1])


def _packed(codes: IntArray, sizes: Sequence[int], first: int, last: int) -> IntArray:
    """int64[N], the codes of levels `first` to `last` as one number, in which order of numbers is order of paths."""
    packed = np.zeros(len(codes), np.int64)
    for level in range(first, last):
        packed *= sizes[level]
        packed += codes[:, level]
    return packed


def _range_of(ptr: IntArray, at: IntArray) -> IntArray:
    """int64[…], which of the ranges between pointers holds a place; empty ranges hold none."""
    # Of the pointers' own type: searching with another one would copy them all.
    return np.searchsorted(ptr, at.astype(ptr.dtype), side="right") - 1


def _code_type(size: int) -> type[np.integer[Any]]:
    """The smallest type for codes of a level."""
    return np.uint16 if size <= 2**16 else np.int32


def _positions(starts: BoolArray) -> IntArray:
    """int32, where ranges start, and where the last ends."""
    return np.append(np.flatnonzero(starts).astype(np.int32), np.int32(len(starts)))


def _merged_ptr(ptr: IntArray, at: IntArray, is_old: BoolArray, added: IntArray) -> IntArray:
    """Pointers after nodes gained children or new nodes with children went in before those at `at`."""
    counts = np.diff(ptr)
    counts[at[is_old]] += added[is_old]
    counts = np.insert(counts, at[~is_old], added[~is_old])
    return np.append(np.int32(0), np.cumsum(counts, dtype=np.int32))
