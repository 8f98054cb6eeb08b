"""Moving colliding items to the nearest free codes: assignment inside a prefix, a walk when it is full.

Pure arithmetic on codes, latent points and codebooks. Items with equal codes or prefixes are found in
prefix trees, one of the items to settle and one of those that have their codes already. What a policy
makes of collisions is decided in `collisions` and `reassignment`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment

from sidrec.decoding.trie import ItemTrie
from sidrec.errors import DataError
from sidrec.types import BoolArray, FloatArray, IntArray, Metric

__all__ = ["Quantized", "first_of_each", "place_nearest"]

BLOCK = 1024
"""Items whose distances are computed together, at least."""
ROOM_LIMIT = 2**62
"""More free codes than these are counted as these."""


@dataclass(frozen=True)
class Quantized:
    """Codes before collisions are settled, and what a policy may look at.

    Attributes:
        codes: int32[N, L].
        sizes: codes in each level.
        latents: float32[N, D], the points that were quantised; None for imported codes.
        codebooks: for each level float32[K, D]; residuals of a level are latents minus earlier codes.
        metric: what makes a code the nearest.
        taken: the final codes of other items, which had theirs before; with the level that the policy adds.
    """

    codes: IntArray
    sizes: tuple[int, ...]
    latents: FloatArray | None = None
    codebooks: Sequence[FloatArray] = field(default_factory=list)
    metric: Metric = "l2"
    taken: ItemTrie | None = None

    @cached_property
    def index(self) -> ItemTrie:
        """The items in order of their codes."""
        return ItemTrie.build(self.codes, self.sizes)

    @cached_property
    def is_crowded(self) -> BoolArray:
        """For each node of `index` at depth L-1 whether it has more items, taken ones counted, than its level codes."""
        depth = len(self.sizes) - 1
        bounds = self.index.node_items[depth]
        held = self.num_taken(self.codes[self.index.rows[bounds[:-1]], :depth])
        return np.diff(bounds) + held > self.sizes[-1]

    @cached_property
    def num_copies(self) -> int | None:
        """Items with the very latents of an earlier one, which no code of a vector tells apart; None if not known."""
        if self.latents is None:
            return None
        shared = np.repeat(counts := np.diff(self.index.item_ptr), counts) > 1
        # Adding zero gives -0.0 and 0.0 the same bytes.
        points = np.ascontiguousarray(self.latents[self.index.rows[shared]] + 0.0)
        rows_of_bytes = points.view(np.dtype((np.void, points.itemsize * points.shape[1])))
        return len(points) - len(np.unique(rows_of_bytes))

    def behind(self, count: int) -> "Quantized":
        """Those of the items from row `count` on."""
        latents = None if self.latents is None else self.latents[count:]
        return replace(self, codes=self.codes[count:], latents=latents)

    def num_taken(self, paths: IntArray) -> IntArray:
        """int64[M], items that have their codes already behind each prefix int[M, D]."""
        if self.taken is None:
            return np.zeros(len(paths), np.int64)
        nodes, items = self.taken.nodes_of(paths), self.taken.node_items[paths.shape[1]]
        return np.where(nodes < 0, 0, items[nodes + 1] - items[nodes])

    def residuals(self, rows: IntArray) -> FloatArray:
        """float64[M, D], what the last level quantises of these items."""
        assert self.latents is not None, "a policy that needs vectors was given none"
        residuals = self.latents[rows].astype(np.float64)
        for level, codebook in enumerate(self.codebooks[:-1]):
            residuals -= codebook[self.codes[rows, level]]
        return residuals


def first_of_each(ordered: IntArray) -> BoolArray:
    """Whether an element of a sorted array is the first of its value."""
    return np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]


def place_nearest(codes: IntArray, quantized: Quantized) -> int:
    """Make `codes` unique in place, moving as few items as possible; returns how many left their prefix.

    Args:
        codes: int32[N, L] of the items, which may differ from those of `quantized` in the last level.
        quantized: what is known of them.

    Raises:
        DataError: there are more items than codes.
    """
    _check_room(len(codes), quantized)
    index = ItemTrie.build(codes, quantized.sizes)
    stays = _staying(codes, index, quantized)
    if stays.all():
        return 0
    leaving: list[IntArray] = []
    for block in _blocks(_crowds(codes, index, stays, quantized)):
        costs = _costs(quantized, np.concatenate([movers for movers, _ in block]))
        for movers, free in block:
            own, costs = costs[: len(movers)], costs[len(movers) :]
            placed, chosen = _assigned(own[:, free])
            codes[movers[placed], -1] = free[chosen]
            leaving.append(np.delete(movers, placed))
    rows = np.sort(np.concatenate(leaving))
    if len(rows):
        _send_on(codes, rows, quantized)
    return len(rows)


def _check_room(num_items: int, quantized: Quantized) -> None:
    held = 0 if quantized.taken is None else len(quantized.taken.rows)
    if held + num_items > math.prod(quantized.sizes):
        raise DataError(
            f"{held + num_items} items cannot have different codes: there are only {math.prod(quantized.sizes)}",
            where=f"codes in each level: {quantized.sizes}",
            expected="more levels, larger codebooks or the policy 'append_level'",
            next="raise tokenizer.levels; small codebooks also mean that many items have equal vectors",
        )


def _staying(codes: IntArray, index: ItemTrie, quantized: Quantized) -> BoolArray:
    """bool[N], the one item behind each code that keeps it: the nearest, the first row among equals.

    Nobody keeps a code that was taken before.
    """
    stays = np.ones(len(codes), np.bool_)
    counts = np.diff(index.item_ptr)
    leaf = np.repeat(np.arange(len(counts)), counts)
    is_held = quantized.num_taken(codes[index.rows[index.item_ptr[:-1]]]) > 0
    stays[index.rows[is_held[leaf]]] = False
    shared = counts[leaf] > 1
    rows, leaf = index.rows[shared], leaf[shared]
    distances = _paired(quantized.residuals(rows), quantized.codebooks[-1][codes[rows, -1]], quantized.metric)
    order = np.lexsort((distances, leaf))
    stays[rows[order[~first_of_each(leaf[order])]]] = False
    return stays


def _crowds(
    codes: IntArray, index: ItemTrie, stays: BoolArray, quantized: Quantized
) -> Iterator[tuple[IntArray, IntArray]]:
    """For each prefix with items that must move these rows, and the free codes of its last level."""
    depth = len(quantized.sizes) - 1
    moving = np.flatnonzero(~stays[index.rows])
    nodes, starts = np.unique(index.nodes_at(depth, moving), return_index=True)
    bounds = index.node_items[depth]
    paths = codes[index.rows[bounds[nodes]], :depth]
    taken = quantized.taken
    held = np.full(len(nodes), -1) if taken is None else taken.nodes_of(paths)
    # `codes` changes while this runs, but only for items that move.
    for node, old, movers in zip(nodes, held, np.split(index.rows[moving], starts[1:]), strict=True):
        is_free = np.ones(quantized.sizes[-1], np.bool_)
        members = index.rows[bounds[node] : bounds[node + 1]]
        is_free[codes[members[stays[members]], -1]] = False
        if taken is not None and old >= 0:
            first, last = taken.child_ptr[depth][old : old + 2]
            is_free[taken.codes[depth][first:last]] = False
        yield np.sort(movers), np.flatnonzero(is_free)


def _blocks(crowds: Iterable[tuple[IntArray, IntArray]]) -> Iterator[list[tuple[IntArray, IntArray]]]:
    """Crowds in blocks of many items, whose distances are one matrix product."""
    block: list[tuple[IntArray, IntArray]] = []
    count = 0
    for crowd in crowds:
        block.append(crowd)
        count += len(crowd[0])
        if count >= BLOCK:
            yield block
            block, count = [], 0
    if block:
        yield block


def _costs(quantized: Quantized, rows: IntArray) -> FloatArray:
    """float64[M, K], distances of items to the codes of the last level."""
    import torch

    from sidrec.tokenizers.residual import distances

    points, codebook = quantized.residuals(rows), quantized.codebooks[-1].astype(np.float64)
    return distances(torch.from_numpy(points), torch.from_numpy(codebook), quantized.metric).numpy()


def _assigned(costs: FloatArray) -> tuple[IntArray, IntArray]:
    """The cheapest assignment of as many items as can be: items and the columns they get."""
    num_free = costs.shape[1]
    if len(costs) == 1 and num_free:
        return np.zeros(1, np.int64), costs.argmin(axis=1)
    if len(costs) <= num_free or not num_free:
        return linear_sum_assignment(costs)
    # Of a crowd only the cheapest items of a column can get it: if a dearer one had it, one of these would be left.
    contenders = np.unique(np.argpartition(costs, num_free - 1, axis=0)[:num_free])
    items, columns = linear_sum_assignment(costs[contenders])
    return contenders[items], columns


def _paired(points: FloatArray, chosen: FloatArray, metric: Metric) -> FloatArray:
    """Distance of each point to the code beside it; equal rows get equal values, unlike those of a matrix product."""
    if metric == "l2":
        return np.square(points - chosen).sum(axis=-1)
    similarity = (points * chosen).sum(axis=-1)
    if metric == "cosine":
        lengths = np.linalg.norm(points, axis=-1) * np.linalg.norm(chosen, axis=-1)
        similarity = similarity / np.maximum(lengths, np.finfo(np.float32).tiny)
    return -similarity


def _send_on(codes: IntArray, rows: IntArray, quantized: Quantized) -> None:
    """Give items whose prefix is full the nearest codes with room, changing as few levels as possible."""
    others = np.delete(codes, rows, axis=0)
    taken = quantized.taken
    settled = ItemTrie.build(others, quantized.sizes) if taken is None else taken.extended(others)
    room = _Room(settled)
    assert quantized.latents is not None, "a policy that needs vectors was given none"
    for row in rows:
        codes[row] = _walk(codes[row].tolist(), quantized.latents[row], quantized, room)


def _walk(path: list[int], point: FloatArray, quantized: Quantized, room: "_Room") -> list[int]:
    """The codes with room that share most levels with `path`; below these the nearest at every level."""
    path = path[:-1]
    while not room.behind(path).any():
        path.pop()
    residual = point.astype(np.float64)
    for level, code in enumerate(path):
        residual = residual - quantized.codebooks[level][code]
    for codebook in quantized.codebooks[len(path) :]:
        distances = _paired(residual, codebook, quantized.metric)
        code = int(np.where(room.behind(path) > 0, distances, np.inf).argmin())
        path.append(code)
        residual = residual - codebook[code]
    room.take(path)
    return path


class _Room:
    """Free codes behind every prefix, counted where somebody asks.

    Args:
        settled: the items that have their codes, no two the same.
    """

    def __init__(self, settled: ItemTrie) -> None:
        self._settled = settled
        self._free: dict[tuple[int, ...], IntArray] = {}

    def behind(self, path: Sequence[int]) -> IntArray:
        """int64[K], free codes behind each child of a prefix."""
        key = tuple(path)
        if key not in self._free:
            trie, depth = self._settled, len(path)
            free = np.full(trie.sizes[depth], min(math.prod(trie.sizes[depth + 1 :]), ROOM_LIMIT), np.int64)
            node = trie.nodes_of(np.asarray([key], np.int64).reshape(1, depth))[0]
            if node >= 0:
                first, last = trie.child_ptr[depth][node : node + 2]
                free[trie.codes[depth][first:last]] -= np.diff(trie.node_items[depth + 1][first : last + 1])
            self._free[key] = free
        return self._free[key]

    def take(self, path: Sequence[int]) -> None:
        """Count a code as used."""
        for depth, code in enumerate(path):
            self.behind(path[:depth])[code] -= 1
