"""The tree of prefixes that a search has scored, for each user: which nodes each node has come through.

Keys and values of prefixes are never reordered: every step appends its nodes. Attention reads the whole
tree under a mask while it is small, and a prefix's own path alone where it is not, so its cost grows
linearly with the prefixes. Shared by the scorers of all backbones. Left out: what the scorers keep for the nodes.
"""

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PrefixTree"]


class PrefixTree:
    """Paths of the nodes of U users. Node 0 is the empty prefix.

    Attributes:
        depths_M: int64[M], number of codes of each node, the same for all users.

    >>> tree = PrefixTree.at_root(1, "cpu")
    >>> tree.add(torch.tensor([[0, 0]]), 1).tolist()
    [[[0, 1], [0, 2]]]
    >>> tree.add(torch.tensor([[2, 2, 1]]), 2).tolist()
    [[[0, 2, 3], [0, 2, 4], [0, 1, 5]]]
    >>> tree.add(torch.tensor([[0]]), 1).tolist()
    [[[0, 6]]]
    """

    def __init__(self, paths_UMT: Tensor, depths_M: Tensor) -> None:
        self._paths_UMT, self.depths_M = paths_UMT, depths_M

    @classmethod
    def at_root(cls, num_users: int, device: torch.device | str) -> Self:
        """Trees that hold nothing but the empty prefix."""
        paths_UMT = torch.zeros(num_users, 1, 1, dtype=torch.long, device=device)
        return cls(paths_UMT, torch.zeros(1, dtype=torch.long, device=device))

    @property
    def num_nodes(self) -> int:
        """Nodes of each user."""
        return self._paths_UMT.shape[1]

    def add(self, parents_UW: Tensor, depth: int) -> Tensor:
        """Add a node under each parent.

        Args:
            parents_UW: int64[U, W], nodes of depth `depth - 1`.
            depth: of the new nodes, number of codes.

        Returns:
            int64[U, W, depth + 1], the new nodes' paths from node 0 to themselves.
        """
        first, width = self.num_nodes, parents_UW.shape[1]
        own_UW = torch.arange(first, first + width, device=parents_UW.device).expand_as(parents_UW)
        index_UWT = parents_UW[..., None].expand(-1, -1, depth)
        paths_UWT = torch.cat([self._paths_UMT[..., :depth].gather(1, index_UWT), own_UW[..., None]], dim=2)
        longest = max(self._paths_UMT.shape[2], depth + 1)
        parts = [F.pad(paths, (0, longest - paths.shape[2])) for paths in (self._paths_UMT, paths_UWT)]
        self._paths_UMT = torch.cat(parts, dim=1)
        self.depths_M = torch.cat([self.depths_M, self.depths_M.new_full((width,), depth)])
        return paths_UWT

    def take(self, users: Tensor) -> Self:
        """The trees of some of the users."""
        return type(self)(self._paths_UMT[users], self.depths_M)
