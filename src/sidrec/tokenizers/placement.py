"""Moving colliding items to the nearest free codes: assignment inside a prefix, a walk when it is full.

Pure arithmetic on codes, latent points and codebooks. Which items collide, and what a policy makes
of it, is decided in `collisions`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from sidrec.errors import DataError
from sidrec.types import BoolArray, FloatArray, IntArray, Metric

__all__ = ["Quantized", "first_of_each", "place_nearest"]


@dataclass(frozen=True)
class Quantized:
    """Codes before collisions are settled, and what a policy may look at.

    Attributes:
        codes: int32[N, L].
        sizes: codes in each level.
        latents: float32[N, D], the points that were quantised; None for imported codes.
        codebooks: for each level float32[K, D]; residuals of a level are latents minus earlier codes.
        fixed: int32[M, L'], final codes of the first M items, which had theirs before.
        fixed_sizes: sizes of the L' levels of `fixed`.
        metric: what makes a code the nearest.
    """

    codes: IntArray
    sizes: tuple[int, ...]
    latents: FloatArray | None = None
    codebooks: Sequence[FloatArray] = field(default_factory=list)
    fixed: IntArray | None = None
    fixed_sizes: tuple[int, ...] = ()
    metric: Metric = "l2"

    @property
    def num_fixed(self) -> int:
        """M, items that keep their codes."""
        return 0 if self.fixed is None else len(self.fixed)

    def joined(self) -> IntArray:
        """A copy of the codes with those of the fixed items in place."""
        codes = self.codes.copy()
        if self.fixed is not None:
            codes[: len(self.fixed)] = self.fixed
        return codes

    def points(self) -> FloatArray:
        """The latent points; only policies that need vectors may ask."""
        assert self.latents is not None, "a policy that needs vectors was given none"
        return self.latents

    def last_residuals(self) -> FloatArray:
        """float32[N, D], what the last level quantises, for the codes of the vectors themselves."""
        residuals = self.points().copy()
        for level, codebook in enumerate(self.codebooks[:-1]):
            residuals -= codebook[self.codes[:, level]]
        return residuals


def first_of_each(ordered: IntArray) -> BoolArray:
    """Whether an element of a sorted array is the first of its value."""
    return np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]


def place_nearest(codes: IntArray, quantized: Quantized) -> int:
    """Make `codes` unique in place, moving as few items as possible; returns how many left their prefix.

    Raises:
        DataError: there are more items than codes.
    """
    if len(codes) > math.prod(quantized.sizes):
        raise DataError(
            f"{len(codes)} items cannot have different codes: there are only {math.prod(quantized.sizes)}",
            where=f"codes in each level: {quantized.sizes}",
            expected="more levels, larger codebooks or the policy 'append_level'",
            next="raise tokenizer.levels; small codebooks also mean that many items have equal vectors",
        )
    residuals = quantized.last_residuals()
    distances = np.square(residuals - quantized.codebooks[-1][codes[:, -1]]).sum(axis=1)
    overflow: list[int] = []
    for movers, free in _crowded_prefixes(codes, distances, quantized):
        cost = _distances(residuals[movers], quantized.codebooks[-1][free])
        # Of a hopeless crowd only the nearest compete for the free codes; the rest must leave anyway.
        contenders = np.sort(np.argsort(cost.min(axis=1, initial=np.inf), kind="stable")[: 16 * len(free)])
        rows, columns = linear_sum_assignment(cost[contenders])
        codes[movers[contenders[rows]], -1] = free[columns]
        overflow.extend(np.delete(movers, contenders[rows]).tolist())
    if overflow:
        _send_on(codes, sorted(overflow), quantized)
    return len(overflow)


def _crowded_prefixes(
    codes: IntArray, distances: FloatArray, quantized: Quantized
) -> Iterator[tuple[IntArray, IntArray]]:
    """For each prefix with collisions the rows that must move and the free codes of its last level.

    Old items stay; of the others behind one code the nearest stays, the first row among equals.
    """
    group = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    is_new = np.arange(len(codes)) >= quantized.num_fixed
    order = np.lexsort((np.arange(len(codes)), distances, is_new, group))
    stays = np.empty(len(codes), np.bool_)
    stays[order] = first_of_each(group[order])
    stays |= ~is_new
    if stays.all():
        return
    prefix = np.unique(codes[:, :-1], axis=0, return_inverse=True)[1].reshape(-1)
    by_prefix = np.argsort(prefix, kind="stable")
    crowds = np.split(by_prefix, np.flatnonzero(first_of_each(prefix[by_prefix]))[1:])
    for rows in crowds:
        movers = rows[~stays[rows]]
        if len(movers):
            yield movers, np.setdiff1d(np.arange(quantized.sizes[-1]), codes[rows[stays[rows]], -1])


def _distances(points: FloatArray, codebook: FloatArray) -> FloatArray:
    partial = np.square(codebook).sum(axis=1) - 2 * points @ codebook.T
    return np.maximum(partial + np.square(points).sum(axis=1, keepdims=True), 0)


def _send_on(codes: IntArray, rows: Sequence[int], quantized: Quantized) -> None:
    """Give items whose prefix is full the nearest codes with room, keeping as many levels as possible."""
    sizes, num_levels = quantized.sizes, len(quantized.sizes)
    leaving = set(rows)
    settled = [tuple(code) for row, code in enumerate(codes.tolist()) if row not in leaving]
    taken = Counter(code[:depth] for code in settled for depth in range(num_levels + 1))
    room = [math.prod(sizes[depth:]) for depth in range(num_levels + 1)]
    points = quantized.points()
    for row in rows:
        path = tuple(codes[row].tolist())
        depth = next(d for d in range(num_levels - 1, -1, -1) if taken[path[:d]] < room[d])
        path = path[:depth]
        residual = points[row] - sum(quantized.codebooks[level][code] for level, code in enumerate(path))
        while len(path) < num_levels:
            level = len(path)
            nearest = np.argsort(np.square(quantized.codebooks[level] - residual).sum(axis=1), kind="stable").tolist()
            path = (*path, next(code for code in nearest if taken[(*path, code)] < room[level + 1]))
            residual = residual - quantized.codebooks[level][path[-1]]
        taken.update(path[:depth] for depth in range(num_levels + 1))
        codes[row] = path
