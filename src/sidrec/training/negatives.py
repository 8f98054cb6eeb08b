"""Items drawn to be told apart from the target. Leaves out what a loss does with them.

All numbers come from torch's global random state, which the trainer seeds and keeps in its checkpoints: a resumed run
draws what the uninterrupted one would have drawn.

Legend: P positions with a label · M negatives · N items.
"""

import torch
from torch import Tensor

__all__ = ["draw_each", "draw_shared"]


def draw_each(shares_N: Tensor, targets_P: Tensor, num: int) -> Tensor:
    """int64[P, M], negatives of each position's own, never its target; the other items keep their proportions.

    Args:
        shares_N: float64[N], probability of each item; sums to 1.
        targets_P: int64[P].
        num: M.
    """
    upper_N = shares_N.cumsum(dim=0)
    # The target's interval of [0, 1) is cut out, and what lies behind it moves up.
    share, lower = shares_N[targets_P][:, None], (upper_N - shares_N)[targets_P][:, None]
    points = torch.rand(len(targets_P), num, dtype=shares_N.dtype, device=shares_N.device) * (1 - share)
    rows = _items_at(upper_N, torch.where(points < lower, points, points + share))
    # Rounding at the border of two intervals could hit the target once in 10^15 draws.
    return torch.where(rows == targets_P[:, None], (rows + 1) % len(shares_N), rows)


def draw_shared(shares_N: Tensor, num: int) -> Tensor:
    """int64[M], negatives for all positions; one that is a position's target is for the loss to leave out there.

    Args:
        shares_N: float64[N], probability of each item; sums to 1.
        num: M.
    """
    points = torch.rand(num, dtype=shares_N.dtype, device=shares_N.device)
    return _items_at(shares_N.cumsum(dim=0), points)


def _items_at(upper_N: Tensor, points: Tensor) -> Tensor:
    """The items in whose interval of [0, 1) points lie."""
    return torch.searchsorted(upper_N, points, right=True).clamp(max=len(upper_N) - 1)
