"""The log of a softmax's denominator over many items, in memory that does not grow with them."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["log_partition"]


def log_partition(hidden_PD: Tensor, items_ND: Tensor, slice_size: int) -> Tensor:
    """float32[P], log Σₙ exp(hidden · itemₙ), with exact gradients.

    Logits of one slice of items, and an array or two of their size, are held at a time; the backward pass computes them
    again. Besides, memory is
    needed for the gradients only, which have the shapes of the arguments.

    Args:
        hidden_PD: float[P, D].
        items_ND: float[N, D].
        slice_size: items whose logits are held at once, P × `slice_size` numbers.
    """
    device = hidden_PD.device.type
    if torch.is_autocast_enabled(device):
        # The backward pass runs outside of autocast: both passes must multiply the same rounded numbers.
        dtype = torch.get_autocast_dtype(device)
        hidden_PD, items_ND = hidden_PD.to(dtype), items_ND.to(dtype)
    result: Any = _LogPartition.apply(hidden_PD, items_ND, slice_size)
    return result


class _LogPartition(torch.autograd.Function):
    """Forward keeps a running logarithm of the sum, backward one slice of probabilities after the other."""

    @staticmethod
    def forward(ctx: Any, hidden_PD: Tensor, items_ND: Tensor, slice_size: int) -> Tensor:
        total_P = torch.full((len(hidden_PD),), -torch.inf, device=hidden_PD.device)
        for items in items_ND.split(slice_size):
            part_P = (hidden_PD @ items.T).float().logsumexp(dim=1)
            total_P = torch.logaddexp(total_P, part_P)
        ctx.save_for_backward(hidden_PD, items_ND, total_P)
        ctx.slice_size = slice_size
        return total_P

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_PD, items_ND, total_P = ctx.saved_tensors
        hidden_gradient = torch.zeros_like(hidden_PD, dtype=torch.float32)
        items_gradient = torch.empty_like(items_ND)
        for start in range(0, len(items_ND), ctx.slice_size):
            items = items_ND[start : start + ctx.slice_size]
            # In place: only one array of logits exists at a time.
            weights_PN = (hidden_PD @ items.T).float().sub_(total_P[:, None]).exp_().mul_(gradients[0][:, None])
            weights_PN = weights_PN.to(items.dtype)
            hidden_gradient += weights_PN @ items
            items_gradient[start : start + ctx.slice_size] = weights_PN.T @ hidden_PD
        return hidden_gradient.to(hidden_PD.dtype), items_gradient, None
