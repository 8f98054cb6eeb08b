"""Which nodes of the beam tree each beam has come through. Shared by the scorers of both backbones.

Keys and values of beams are never reordered: every step appends its nodes, and a beam remembers the
positions of its ancestors among them. Attention then reads a beam's own path only, so its cost grows
linearly with the number of beams.
"""

import torch
from torch import Tensor

__all__ = ["extend_paths", "no_paths"]


def no_paths(num_users: int, device: torch.device) -> Tensor:
    """Paths before the first step, int64[U, 1, 0]: one root a user, which has no node."""
    return torch.empty(num_users, 1, 0, dtype=torch.long, device=device)


def extend_paths(paths_UWT: Tensor, parents_UW: Tensor, num_nodes: int) -> Tensor:
    """Paths of new beams: those of their parents, and their own new node at the end.

    Args:
        paths_UWT: int64[U, W', T], nodes of each earlier beam from the root on.
        parents_UW: int64[U, W], for each new beam its parent among the earlier beams.
        num_nodes: nodes that exist already; the new beams become nodes num_nodes … num_nodes + W - 1.

    Returns:
        int64[U, W, T + 1].

    >>> extend_paths(torch.tensor([[[0, 1], [0, 2]]]), torch.tensor([[1, 1, 0]]), 3).tolist()
    [[[0, 2, 3], [0, 2, 4], [0, 1, 5]]]
    """
    own_UW = (num_nodes + torch.arange(parents_UW.shape[1], device=parents_UW.device)).expand_as(parents_UW)
    index = parents_UW[..., None].expand(-1, -1, paths_UWT.shape[2])
    return torch.cat([paths_UWT.gather(1, index), own_UW[..., None]], dim=2)
