"""Sinkhorn-Knopp: assign points to codes so that every code gets about the same share.

As in LC-Rec (uniform semantic mapping, 2023, arXiv:2311.09049) and LETTER (2024, arXiv:2405.07314):
distances scaled to about [-1, 1], ε = 0.003, 50 rounds in double precision, the column step last.
Instead of the whole matrix the two scaling vectors are updated, which is the same iteration.
"""

import torch
from torch import Tensor

__all__ = ["sinkhorn", "sinkhorn_codes"]


def sinkhorn(distances_BK: Tensor, epsilon: float = 0.003, iterations: int = 50) -> Tensor:
    """The transport plan float64[B, K] times B: columns sum to B/K, rows nearly to 1.

    Args:
        distances_BK: squared distances of points to codes.
        epsilon: smaller is closer to the nearest code, larger closer to an even spread.
        iterations: row and column normalisations.

    >>> sinkhorn(torch.tensor([[0.0, 1.0], [0.0, 2.0]])).argmax(1).tolist()
    [1, 0]
    """
    num_points, num_codes = distances_BK.shape
    high, low = distances_BK.max(), distances_BK.min()
    middle = (high + low) / 2
    scaled_BK = ((distances_BK - middle) / (high - middle + 1e-5)).double()
    # A factor per row is undone by the first row step, so shifting rows changes nothing but overflow.
    kernel_BK = torch.exp((scaled_BK.amin(1, keepdim=True) - scaled_BK) / epsilon)
    tiny = torch.finfo(torch.float64).tiny
    columns_K = kernel_BK.new_ones(num_codes)
    rows_B = kernel_BK.new_ones(num_points)
    for _ in range(iterations):
        rows_B = 1 / (num_points * (kernel_BK @ columns_K).clamp_min_(tiny))
        columns_K = 1 / (num_codes * (rows_B @ kernel_BK).clamp_min_(tiny))
    return num_points * rows_B[:, None] * kernel_BK * columns_K


def sinkhorn_codes(
    distances_BK: Tensor, epsilon: float = 0.003, iterations: int = 50, *, spread_ties: bool = False
) -> Tensor:
    """Balanced codes int64[B]: the largest entry of every row of the plan.

    Args:
        distances_BK: squared distances of points to codes.
        epsilon: see `sinkhorn`.
        iterations: see `sinkhorn`.
        spread_ties: rows with equal distances take turns in the order of their preference. Without
            it they all get one code, because nothing in the plan tells them apart.
    """
    plan_BK = sinkhorn(distances_BK, epsilon, iterations)
    if not spread_ties:
        return plan_BK.argmax(dim=1)
    group_B = torch.unique(distances_BK, dim=0, return_inverse=True)[1]
    earlier_BB = (group_B[:, None] == group_B) & (torch.arange(len(group_B))[:, None] > torch.arange(len(group_B)))
    turn_B = earlier_BB.sum(1) % distances_BK.shape[1]
    # Equal rows end in entries equal up to rounding; distance then says which code is preferred.
    by_distance_BK = distances_BK.argsort(dim=1, stable=True)
    rounded_BK = (plan_BK / plan_BK.amax(1, keepdim=True)).mul(1e9).round().gather(1, by_distance_BK)
    preference_BK = by_distance_BK.gather(1, rounded_BK.argsort(dim=1, descending=True, stable=True))
    return preference_BK.gather(1, turn_B[:, None])[:, 0]
