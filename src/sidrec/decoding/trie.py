"""The catalogue as a prefix tree in code space: code path ↔ item rows.

The tree is stored level by level as flat arrays (compressed sparse rows). Items are sorted by their
codes, so the nodes of a level are numbered in the order of their paths, the children of a node are
a range of the next level, and the items under any node are a range of `rows`. A leaf is a list of
items: items with equal codes stand side by side, in row order. Nothing here knows a model, a
vocabulary or a user; what a user must not get is `sidrec.decoding.constraints`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sidrec.errors import ConstraintError, DataError
from sidrec.types import BoolArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ItemTrie", "TrieTensors"]

DENSE_KEY_LIMIT = 2**62
"""Below this many possible paths a path is one int64, which sorts faster than its columns."""


@dataclass(frozen=True)
class TrieTensors:
    """The arrays of an `ItemTrie` on a device, for levels 0 … L-1.

    Attributes:
        child_ptr: int32[n + 2] a level; one more entry than in the trie, so that node n, which stands
            for "no prefix", has no children.
        codes: int32[m] a level, codes of the children.
    """

    child_ptr: "tuple[Tensor, ...]"
    codes: "tuple[Tensor, ...]"


@dataclass(frozen=True, eq=False)
class ItemTrie:
    """A prefix tree over the codes of items. Depth 0 is the root, depth L are the leaves.

    Attributes:
        sizes: (K1, …, KL), number of codes of each level.
        child_ptr: for depth d < L int32[n + 1]; the children of node i are the nodes
            `child_ptr[d][i]` to `child_ptr[d][i + 1]` of depth d + 1.
        codes: for depth d < L the codes of the nodes of depth d + 1, uint16 where they fit.
        item_ptr: int32[leaves + 1]; leaf i holds `rows[item_ptr[i]:item_ptr[i + 1]]`.
        rows: int32[items], catalogue rows in order of (codes, row).
        num_rows: rows in the whole catalogue; more than `len(rows)` in a restricted trie.

    >>> trie = ItemTrie.build(np.array([[1, 0], [0, 2], [1, 0]], np.int32), (2, 3))
    >>> trie.rows_of([1, 0]).tolist(), trie.path_of(1).tolist(), trie.num_nodes
    ([0, 2], [0, 2], (1, 2, 2))
    """

    sizes: tuple[int, ...]
    child_ptr: tuple[IntArray, ...]
    codes: tuple[IntArray, ...]
    item_ptr: IntArray
    rows: IntArray
    num_rows: int

    @classmethod
    def build(cls, codes: IntArray, sizes: Sequence[int]) -> "ItemTrie":
        """The trie of a table of codes int32[N, L] with `0 ≤ codes[:, l] < sizes[l]`.

        Raises:
            DataError: no items, or a shape or code that does not fit `sizes`.
        """
        sizes = tuple(int(size) for size in sizes)
        if codes.ndim != 2 or codes.shape[1] != len(sizes) or not codes.size:
            raise DataError(f"codes of shape {codes.shape} do not fit {len(sizes)} levels", expected="[N ≥ 1, L]")
        if (codes.min(axis=0) < 0).any() or (codes.max(axis=0) >= sizes).any():
            raise DataError("a code lies outside its level", expected=f"0 ≤ code < {sizes}")
        if math.prod(sizes) < DENSE_KEY_LIMIT:
            key = np.zeros(len(codes), dtype=np.int64)
            for level, size in enumerate(sizes):
                key *= size
                key += codes[:, level]
            order = np.argsort(key, kind="stable")
        else:
            order = np.lexsort(codes.T[::-1])
        columns = [codes[order, level] for level in range(len(sizes))]
        return cls._of_sorted(columns, sizes, order.astype(np.int32), len(codes))

    @classmethod
    def _of_sorted(
        cls, columns: Sequence[IntArray], sizes: tuple[int, ...], rows: IntArray, num_rows: int
    ) -> "ItemTrie":
        """The trie of items in order of (codes, row), one column of codes a level."""
        starts_node = np.zeros(len(rows), dtype=np.bool_)
        starts_node[0] = True
        child_ptr: list[IntArray] = []
        codes: list[IntArray] = []
        starts = np.zeros(1, dtype=np.int32)
        for column, size in zip(columns, sizes, strict=True):
            starts_node[1:] |= column[1:] != column[:-1]
            children = np.flatnonzero(starts_node).astype(np.int32)
            ptr = np.append(np.searchsorted(children, starts), len(children))
            child_ptr.append(ptr.astype(np.int32))
            codes.append(column[children].astype(np.uint16 if size <= 2**16 else np.int32))
            starts = children
        item_ptr = np.append(starts, len(rows)).astype(np.int32)
        return cls(sizes, tuple(child_ptr), tuple(codes), item_ptr, rows, num_rows)

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
        """int32[num_rows], position of each catalogue row in `rows`; -1 where the trie does not hold it."""
        out = np.full(self.num_rows, -1, dtype=np.int32)
        out[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        return out

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the stored arrays."""
        return sum(array.nbytes for array in (*self.child_ptr, *self.codes, self.item_ptr, self.rows))

    def nodes_at(self, depth: int, positions: IntArray) -> IntArray:
        """int64[…], nodes of a depth that hold the items at these positions of `rows`."""
        return np.searchsorted(self.node_items[depth], positions, side="right") - 1

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
            DataError: the trie does not hold the row.
        """
        position = self.positions[row] if 0 <= row < self.num_rows else -1
        if position < 0:
            raise DataError(
                f"the trie does not hold row {row}", expected=f"one of its {len(self.rows)} of {self.num_rows} rows"
            )
        nodes = [int(self.nodes_at(depth + 1, np.asarray(position))) for depth in range(self.num_levels)]
        return np.asarray([self.codes[depth][node] for depth, node in enumerate(nodes)], dtype=np.int32)

    def restrict(self, allowed: BoolArray) -> "ItemTrie":
        """The trie of those items whose rows are allowed, bool[num_rows]; rows keep their numbers.

        Raises:
            DataError: the mask has not one entry a catalogue row.
            ConstraintError: no item is left.
        """
        if allowed.shape != (self.num_rows,):
            raise DataError(f"an allow-list of shape {allowed.shape} for a catalogue of {self.num_rows} items")
        kept = allowed[self.rows]
        if kept.all():
            return self
        if not kept.any():
            raise ConstraintError(
                "the allow-list holds no item that can be recommended",
                where=f"{int(allowed.sum())} items allowed, {len(self.rows)} in the trie",
                expected="at least one common item",
            )
        columns = [
            np.repeat(codes, np.diff(items))[kept] for codes, items in zip(self.codes, self.node_items[1:], strict=True)
        ]
        return ItemTrie._of_sorted(columns, self.sizes, self.rows[kept], self.num_rows)

    @cached_property
    def _on_device(self) -> "dict[str, TrieTensors]":
        return {}

    def to(self, device: object) -> TrieTensors:
        """The tree's arrays as tensors on a torch device, made once a device."""
        import torch

        name = str(device)
        if name not in self._on_device:
            padded = [np.append(ptr, ptr[-1]) for ptr in self.child_ptr]
            self._on_device[name] = TrieTensors(
                tuple(torch.from_numpy(ptr).to(name) for ptr in padded),
                tuple(torch.from_numpy(codes.astype(np.int32)).to(name) for codes in self.codes),
            )
        return self._on_device[name]
