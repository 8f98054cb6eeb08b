"""Balanced assignment and balanced k-means: every code gets at least so many points and at most so many.

The size-constrained k-means that LETTER (2024, arXiv:2405.07314) initialises codebooks with and clusters
codes with, there by a min-cost flow (package `k-means-constrained`). Here the assignment is an auction
(Bertsekas, 1988, The auction algorithm): every code has a price, crowded codes raise theirs until enough points prefer
another code, empty ones lower theirs until enough points come. Each round serves all such codes at
once, and touches only their points. The sum of distances usually comes within a per cent of the least possible; where
the rounds run out, the rest is settled greedily, so the bounds hold always. Left out: the exact optimum.
"""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sidrec.errors import DataError
from sidrec.tokenizers.kmeans import cluster_means, kmeans
from sidrec.tokenizers.placement import first_of_each
from sidrec.tokenizers.residual import squared_distances
from sidrec.types import FloatArray, IntArray

__all__ = ["balanced_codes", "balanced_kmeans", "size_bounds"]

PRECISION = 1e-3
"""ε of the first round as a share of how much farther a code is on average than the nearest."""
GROWTH = 1.1
"""Growth of ε a round, so that codes that outbid each other over the same points come to an end."""
ROUNDS = 200
"""Rounds of the auction at most, in each direction."""
PATIENCE, STALE_WORK, FAST_GROWTH = 10, 4_000_000, 2.0
"""Rounds without fewer points out of bounds after which ε grows faster: more of them where a round costs little. Long
duels find the optimum of small problems; among the many equal points of large ones they are for nothing."""


def size_bounds(num_points: int, num_clusters: int, *, most: int = 50, ratio: int = 4) -> tuple[int, int]:
    """The fewest and the most points of a cluster, as LETTER chooses them; always feasible.

    At least half the average but never more than `most`; at most `ratio` times that. Where these
    clusters could not hold all points, at most twice the average.

    >>> size_bounds(10_000, 256), size_bounds(256, 10, most=10, ratio=6), size_bounds(100_000, 256), size_bounds(3, 4)
    ((19, 76), (10, 60), (50, 782), (0, 2))
    """
    smallest = min(num_points // (2 * num_clusters), most)
    largest = ratio * smallest
    if largest * num_clusters < num_points:
        largest = 2 * math.ceil(num_points / num_clusters)
    return smallest, largest


def balanced_codes(distances_NK: Tensor, min_size: int, max_size: int) -> Tensor:
    """Codes int64[N] with a small sum of distances, every code between `min_size` and `max_size` times.

    Args:
        distances_NK: of N points to K codes, on any device; computed with on the CPU.
        min_size: fewest points of a code.
        max_size: most points of a code.

    Raises:
        DataError: no assignment has these sizes.

    >>> balanced_codes(torch.tensor([[0.0, 5.0], [0.0, 1.0], [0.0, 2.0]]), 1, 2).tolist()
    [0, 1, 0]
    """
    return _assigned(distances_NK, min_size, max_size)[0]


def balanced_kmeans(
    points_ND: Tensor,
    size: int,
    *,
    min_size: int,
    max_size: int,
    iterations: int = 10,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """K centres and K clusters of bounded size: plain k-means first, then the same steps with balanced assignment.

    Args:
        points_ND: the points, on any device.
        size: K; centres coincide where there are fewer distinct points.
        min_size: fewest points of a cluster, at least 1 for a centre that stands for something.
        max_size: most points of a cluster.
        iterations: steps of either kind at most; it stops when no assignment changes.
        seed: of all draws.
        advance: called after every balanced step.

    Returns:
        Centres float32[K, D] and codes int64[N]; a centre is the mean of its points.

    Raises:
        DataError: no clusters have these sizes.

    >>> points_ND = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    >>> balanced_kmeans(points_ND, 2, min_size=2, max_size=2)[1].bincount().tolist()
    [2, 2]
    """
    centres_KD = kmeans(points_ND, size, iterations=iterations, seed=seed)
    centres_KD = centres_KD[torch.arange(size, device=points_ND.device) % len(centres_KD)]
    codes_N, prices_K = _assigned(squared_distances(points_ND, centres_KD), min_size, max_size)
    for step in range(iterations):
        if step:
            before_N, distances_NK = codes_N, squared_distances(points_ND, centres_KD)
            codes_N, prices_K = _assigned(distances_NK, min_size, max_size, prices_K)
            if torch.equal(before_N, codes_N):
                break
        centres_KD = cluster_means(points_ND, codes_N, centres_KD)
        advance()
    return centres_KD, codes_N


def _assigned(
    distances_NK: Tensor, min_size: int, max_size: int, prices_K: FloatArray | None = None
) -> tuple[Tensor, FloatArray]:
    """Balanced codes int64[N] and the prices that they end with, beginning with those of a similar problem."""
    num_points, num_codes = distances_NK.shape
    if not num_codes * min_size <= num_points <= num_codes * max_size:
        raise DataError(
            f"{num_points} points cannot be shared out to {num_codes} codes with {min_size} to {max_size} points each",
            expected=f"between {num_codes * min_size} and {num_codes * max_size} points",
            next="ask size_bounds for bounds that fit",
        )
    auction = _Auction(distances_NK.detach().cpu().numpy().astype(np.float32, copy=False), min_size, max_size, prices_K)
    return torch.from_numpy(auction.run()).to(distances_NK.device), auction.prices_K


class _Auction:
    """Codes with prices: a point wants the code whose distance plus price is least.

    In the end a code with a price above zero is full and one below zero has the fewest points: the
    conditions for the least sum of distances, up to ε.
    """

    def __init__(
        self, distances_NK: FloatArray, min_size: int, max_size: int, prices_K: FloatArray | None = None
    ) -> None:
        self.distances_NK, self.min_size, self.max_size = distances_NK, min_size, max_size
        self.codes_N = distances_NK.argmin(axis=1)
        self.prices_K = np.zeros(distances_NK.shape[1], np.float32)
        spread = float(distances_NK.mean(dtype=np.float64) - self._own().mean(dtype=np.float64))
        resolution = 1e-6 * float(np.abs(distances_NK).max())
        self.epsilon = max(PRECISION * spread, resolution, float(np.finfo(np.float32).tiny))
        if prices_K is not None and prices_K.any():
            self.prices_K = prices_K.copy()
            self.codes_N = (distances_NK + prices_K).argmin(axis=1)

    def run(self) -> IntArray:
        """Codes int64[N] within the bounds."""
        self._until_settled(self._shed)
        self._until_settled(self._attract)
        self._force()
        return self.codes_N

    def _until_settled(self, round_of: Callable[[float], int]) -> None:
        """Rounds until nothing is out of bounds; larger steps where equal points outbid each other in vain."""
        epsilon, fewest, stale = self.epsilon, len(self.codes_N) + 1, 0
        patience = max(PATIENCE, STALE_WORK // self.distances_NK.size)
        for _ in range(ROUNDS):
            outside = round_of(epsilon)
            fewest, stale = (outside, 0) if outside < fewest else (fewest, stale + 1)
            if not outside:
                return
            epsilon *= GROWTH if stale < patience else FAST_GROWTH

    def _counts(self) -> IntArray:
        return np.bincount(self.codes_N, minlength=len(self.prices_K))

    def _own(self) -> FloatArray:
        """Distance plus price of every point's own code."""
        return self.distances_NK[np.arange(len(self.codes_N)), self.codes_N] + self.prices_K[self.codes_N]

    def _shed(self, epsilon: float) -> int:
        """Codes with too many points raise their price until only as many as fit still want them.

        Returns how many points were too many. Below zero a price rises for every point beyond the
        fewest, but not above zero for it.
        """
        counts_K = self._counts()
        limit_K = np.where(self.prices_K < 0, self.min_size, self.max_size)
        over_E = np.flatnonzero(counts_K > limit_K)
        if not len(over_E):
            return 0
        rows_M = np.flatnonzero((counts_K > limit_K)[self.codes_N])
        every_M, mine_M = np.arange(len(rows_M)), self.codes_N[rows_M]
        cost_MK = self.distances_NK[rows_M] + self.prices_K
        own_M = cost_MK[every_M, mine_M]
        cost_MK[every_M, mine_M] = np.inf
        other_M = cost_MK.argmin(axis=1)
        loss_M = cost_MK[every_M, other_M] - own_M
        # Cluster by cluster, those first that lose least by leaving.
        order_M = np.lexsort((loss_M, mine_M))
        counts_E, price_E = counts_K[over_E], self.prices_K[over_E]
        start_E, excess_E = np.cumsum(counts_E) - counts_E, counts_E - limit_K[over_E]
        # The price may rise until the first of those that stay would rather leave, too.
        rise_E = np.maximum(loss_M[order_M[start_E + excess_E]], 0) + np.float32(epsilon)
        rise_E = np.where(price_E < 0, np.minimum(rise_E, -price_E), rise_E)
        rank_M = every_M - np.repeat(start_E, counts_E)
        leave = order_M[(rank_M < np.repeat(excess_E, counts_E)) & (loss_M[order_M] <= np.repeat(rise_E, counts_E))]
        self.prices_K[over_E] = price_E + rise_E
        self.codes_N[rows_M[leave]] = other_M[leave]
        return int(excess_E.sum())

    def _attract(self, epsilon: float) -> int:
        """Codes with too few points lower their price until as many come as are missing.

        Returns how many points were missing. Above zero a price falls for every point that there is
        room for, but not below zero for it.
        """
        counts_K = self._counts()
        missing_K = np.where(self.prices_K > 0, self.max_size, self.min_size) - counts_K
        short_E = np.flatnonzero(missing_K > 0)
        if not len(short_E):
            return 0
        gaps_EN = self._columns_KN[short_E]
        gaps_EN += self.prices_K[short_E, None]
        gaps_EN -= self._own()
        gaps_EN[self.codes_N == short_E[:, None]] = np.inf
        points, codes, gains = [], [], []
        for code, gap_N in zip(short_E, gaps_EN, strict=True):
            most = self.prices_K[code] if self.prices_K[code] > 0 else np.inf
            come, cut = _cheapest(gap_N, int(missing_K[code]), most, epsilon)
            self.prices_K[code] -= cut
            points.append(come)
            codes.append(np.full(len(come), code))
            gains.append(cut - gap_N[come])
        point, code, gain = np.concatenate(points), np.concatenate(codes), np.concatenate(gains)
        # A point that several codes won goes where it gains most.
        order = np.lexsort((-gain, point))
        chosen = order[first_of_each(point[order])]
        self.codes_N[point[chosen]] = code[chosen]
        return int(missing_K[short_E].sum())

    @cached_property
    def _columns_KN(self) -> FloatArray:
        return np.ascontiguousarray(self.distances_NK.T)

    def _force(self) -> None:
        """Keep the bounds even where the rounds ran out: one point after the other, the cheapest moves first."""
        counts_K = self._counts()
        for code in np.flatnonzero(counts_K > self.max_size):
            rows = np.flatnonzero(self.codes_N == code)
            room = np.where(counts_K < self.max_size, 0, np.inf)
            loss = (self.distances_NK[rows] + room).min(axis=1) - self.distances_NK[rows, code]
            for row in rows[np.argsort(loss, kind="stable")[: counts_K[code] - self.max_size]]:
                target = np.where(counts_K < self.max_size, self.distances_NK[row], np.inf).argmin()
                self._move(row, target, counts_K)
        for code in np.flatnonzero(counts_K < self.min_size):
            loss = self.distances_NK[:, code] - self._own()
            for row in np.argsort(loss, kind="stable"):
                if counts_K[code] == self.min_size:
                    break
                if counts_K[self.codes_N[row]] > self.min_size:
                    self._move(row, code, counts_K)

    def _move(self, row: np.intp, code: np.intp, counts_K: IntArray) -> None:
        counts_K[self.codes_N[row]] -= 1
        counts_K[code] += 1
        self.codes_N[row] = code


def _cheapest(gap_N: FloatArray, missing: int, most: float, epsilon: float) -> tuple[IntArray, float]:
    """The points that come and by how much the price falls: until the next one would come, too, but by `most`."""
    near = np.flatnonzero(gap_N <= most)
    if len(near) > missing:
        order = near[np.argpartition(gap_N[near], missing)]
        return order[:missing], min(most, float(gap_N[order[missing]]) + epsilon)
    return near, most
