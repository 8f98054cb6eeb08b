"""Lloyd's k-means in torch, on the CPU or a GPU, the same bits for the same seed.

Assignment is one matrix product a chunk, the update adds rows into their clusters, starts are
greedy k-means++ on a small sample, which grows to all points while k-means runs. Left out: several restarts;
at equal time, more iterations from one good start reach a lower error. Balanced clusters are in `balanced`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sidrec.tokenizers.residual import CHUNK, nearest_codes, squared_distances

__all__ = ["cluster_means", "distinct_rows", "kmeans"]

SEEDING_POINTS = 32
"""Points a cluster that k-means++ chooses from."""


def kmeans(
    points_ND: Tensor,
    size: int,
    *,
    iterations: int = 20,
    sample: int = 65536,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Tensor:
    """Centres float32[K, D] of at most `size` clusters.

    Args:
        points_ND: the points, on any device.
        size: number of clusters; fewer if there are fewer distinct points, which then are the centres.
        iterations: Lloyd steps at most; it stops when no assignment changes.
        sample: points used at most, drawn without replacement.
        seed: of all draws.
        advance: called after every step.

    >>> kmeans(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), 2).sort(0).values.tolist()
    [[1.0], [11.0]]
    """
    distinct_KD = distinct_rows(points_ND, size + 1)
    if len(distinct_KD) <= size:
        return distinct_KD
    generator = torch.Generator().manual_seed(seed)
    seeding = SEEDING_POINTS * size
    if len(points_ND) > min(sample, seeding):
        # In random order, so that its first rows are a sample of the sample.
        points_ND = points_ND[_draw(len(points_ND), sample, generator).to(points_ND.device)]
    centres_KD = _plus_plus(points_ND[:seeding], size, generator)
    before_N: Tensor | None = None
    for step in range(iterations):
        part_MD = points_ND[: _num_looked_at(step, iterations, len(points_ND), seeding)]
        codes_M, distances_M = nearest_codes(part_MD, centres_KD)
        if before_N is not None and torch.equal(before_N, codes_M):
            break
        centres_KD = _updated(part_MD, codes_M, distances_M, centres_KD)
        before_N = codes_M if len(part_MD) == len(points_ND) else None
        advance()
    return centres_KD


def _num_looked_at(step: int, iterations: int, num_points: int, seeding: int) -> int:
    """Points that a step looks at: in its first half k-means goes from those that seeded it to all, doubling.

    Early steps move centres far, and a part of the points knows where to as well as all of them.
    """
    doublings = max(0, (num_points // seeding).bit_length() - 1)
    left = max(0, doublings - 2 * doublings * step // iterations)
    return num_points if left == 0 else max(seeding, num_points >> left)


def distinct_rows(points_ND: Tensor, limit: int) -> Tensor:
    """The first `limit` distinct rows, in order of appearance; stops reading as soon as it has them."""
    seen: set[bytes] = set()
    keep: list[int] = []
    for start in range(0, len(points_ND), CHUNK):
        # Adding zero turns -0.0 into 0.0, which compares equal but has other bytes.
        for offset, row in enumerate((points_ND[start : start + CHUNK] + 0.0).cpu().numpy()):
            key = row.tobytes()
            if key not in seen:
                seen.add(key)
                keep.append(start + offset)
            if len(keep) >= limit:
                return points_ND[keep]
    return points_ND[keep]


def _draw(total: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` of `total` positions, drawn without replacement."""
    return torch.randperm(total, generator=generator)[:count]


def _plus_plus(points_MD: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007): of a few draws by squared distance keep the best."""
    trials = 2 + int(math.log(size))
    draws_KT = torch.rand(size, trials, generator=generator, dtype=torch.float64).to(points_MD.device)
    norms_M1 = points_MD.square().sum(1, keepdim=True)
    first = int(draws_KT[0, 0] * len(points_MD))
    chosen = [torch.tensor(first, device=points_MD.device)]
    nearest_M = squared_distances(points_MD, points_MD[first : first + 1])[:, 0]
    for draws_T in draws_KT[1:]:
        mass_M = nearest_M.double().cumsum(0)
        picks_T = torch.searchsorted(mass_M, draws_T * mass_M[-1]).clamp_max_(len(points_MD) - 1)
        norms_MT = norms_M1 + norms_M1[picks_T].T
        distances_MT = torch.addmm(norms_MT, points_MD, points_MD[picks_T].T, alpha=-2).clamp_min_(0)
        candidates_MT = torch.minimum(distances_MT, nearest_M[:, None])
        best = candidates_MT.sum(0).argmin()
        nearest_M = candidates_MT[:, best]
        chosen.append(picks_T[best])
    return points_MD[torch.stack(chosen)].clone()


def cluster_means(points_ND: Tensor, codes_N: Tensor, centres_KD: Tensor) -> Tensor:
    """Means float32[K, D] of the points of every cluster; an empty one keeps its centre."""
    counts_K1 = torch.bincount(codes_N, minlength=len(centres_KD))[:, None]
    means_KD = _cluster_sums(points_ND, codes_N, len(centres_KD)) / counts_K1.clamp_min(1)
    return torch.where(counts_K1 > 0, means_KD, centres_KD)


def _updated(points_ND: Tensor, codes_N: Tensor, distances_N: Tensor, centres_KD: Tensor) -> Tensor:
    """Means of the clusters; an empty one moves to the worst represented point that is still free."""
    updated_KD = cluster_means(points_ND, codes_N, centres_KD)
    empty_E = torch.nonzero(torch.bincount(codes_N, minlength=len(centres_KD)) == 0)[:, 0]
    if len(empty_E):
        worst_E = distances_N.sort(descending=True, stable=True).indices[: len(empty_E)]
        updated_KD[empty_E[: len(worst_E)]] = points_ND[worst_E]
    return updated_KD


def _cluster_sums(points_ND: Tensor, codes_N: Tensor, size: int) -> Tensor:
    sums_KD = points_ND.new_zeros(size, points_ND.shape[1])
    if points_ND.device.type == "cpu":
        return sums_KD.index_add_(0, codes_N, points_ND)
    # Elsewhere index_add_ adds in no fixed order; a one-hot product gives the same bits every time.
    for points_BD, codes_B in zip(points_ND.split(CHUNK), codes_N.split(CHUNK), strict=True):
        sums_KD += torch.nn.functional.one_hot(codes_B, size).to(points_BD.dtype).T @ points_BD
    return sums_KD
