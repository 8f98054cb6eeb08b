"""Attention of many short prefixes over a prompt and over each other's beginnings.

What the scorers of all backbones share: heads, the product that is fastest where it runs, and the keys
and values of a prefix tree's nodes. Leaves out masks of prompts and positions, which differ.
"""

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from sidrec.recommenders.prefix_tree import PrefixTree

__all__ = ["NodeStates", "attend", "is_ancestor", "laid_out", "merge_heads", "reads_paths", "split_heads"]

WIDE_TREE = 512
"""Nodes up to which a prefix attends to the whole tree under a mask. Beyond it reads its own path only, which
costs a copy of it but does not grow with the tree."""


def split_heads(states_UTX: Tensor, num_heads: int) -> Tensor:
    """[U, T, H·D] as [U, H, T, D]."""
    return states_UTX.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(states_UHTD: Tensor) -> Tensor:
    """[U, H, T, D] as [U, T, H·D]."""
    return states_UHTD.transpose(1, 2).flatten(2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float = 1.0) -> Tensor:
    """softmax(scale · Q Kᵀ + bias) V, shape [U, H, T, D].

    Args:
        queries: [U, H, T, D].
        keys: [U, H, S, D].
        values: [U, H, S, D].
        bias: broadcasts to [U, H, T, S]; -inf where a query does not look.
        scale: of the products.
    """
    if _by_products(queries):
        scores = torch.matmul(queries if scale == 1.0 else queries * scale, keys.transpose(2, 3)) + bias
        return torch.matmul(scores.softmax(-1), values)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=scale)


def laid_out(states: Tensor) -> Tensor:
    """Keys or values as `attend` reads them, for those that it will read more than once."""
    return states.contiguous() if _by_products(states) else states


def _by_products(states: Tensor) -> bool:
    """Whether two matrix products beat torch's fused kernel: in bfloat16 on a CPU, where its blocks cost more."""
    return states.dtype == torch.bfloat16 and states.device.type == "cpu"


class NodeStates:
    """Keys and values of the nodes of a prefix tree in one layer, in memory that grows by doubling.

    Args:
        keys: [U, H, C, D], memory for C nodes.
        values: [U, H, C, D].
        size: nodes that it holds.
    """

    def __init__(self, keys: Tensor, values: Tensor, size: int = 0) -> None:
        self._keys, self._values, self._size = keys, values, size

    @classmethod
    def like(cls, keys: Tensor) -> Self:
        """No nodes, for users, heads, width and type of some keys [U, H, S, D]."""
        empty = keys.new_empty(*keys.shape[:2], 0, keys.shape[3])
        return cls(empty, empty)

    def take(self, users: Tensor) -> Self:
        """The nodes of some of the users."""
        return type(self)(self._keys[users], self._values[users], self._size)

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Add nodes; both [U, H, W, D]."""
        first, self._size = self._size, self._size + keys.shape[2]
        if self._size > self._keys.shape[2]:
            room = max(2 * self._keys.shape[2], self._size, 64)
            self._keys, self._values = (_enlarged(old, room) for old in (self._keys, self._values))
        self._keys[:, :, first : self._size] = keys
        self._values[:, :, first : self._size] = values

    def attend(self, queries: Tensor, paths_UWT: Tensor, bias: Tensor) -> Tensor:
        """Attention [U, H, W, D] of new nodes over their own paths.

        Args:
            queries: [U, H, W, D].
            paths_UWT: int64[U, W, T], the nodes of each path.
            bias: over the nodes, [U, H, W, M] with -inf off the path; over the path, broadcast to [U, H, W, T],
                where the tree `reads_paths`.
        """
        keys, values = (states[:, :, : self._size] for states in (self._keys, self._values))
        if not reads_paths(self._size):
            return attend(queries, keys, values, bias)
        index = paths_UWT.flatten(1)[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
        keys, values = (states.gather(2, index).unflatten(2, paths_UWT.shape[1:]) for states in (keys, values))
        scores = (queries[:, :, :, None] * keys).sum(-1) + bias
        return (scores.float().softmax(-1).to(values.dtype)[..., None] * values).sum(3)


def _enlarged(states: Tensor, room: int) -> Tensor:
    out = states.new_empty(*states.shape[:2], room, states.shape[3])
    out[:, :, : states.shape[2]] = states
    return out


def reads_paths(num_nodes: int) -> bool:
    """Whether attention over a tree of so many nodes copies paths instead of masking the tree."""
    return num_nodes > WIDE_TREE


def is_ancestor(paths_UWT: Tensor, tree: PrefixTree) -> Tensor:
    """bool[U, W, M], whether a node lies on a path."""
    shape = (*paths_UWT.shape[:2], tree.num_nodes)
    return torch.zeros(shape, dtype=torch.bool, device=paths_UWT.device).scatter_(2, paths_UWT, True)
