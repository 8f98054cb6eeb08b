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


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """softmax(Q Kᵀ + bias) V, shape [U, H, T, D]. Products are not scaled, as in a T5.

    Args:
        queries: [U, H, T, D].
        keys: [U, H, S, D].
        values: [U, H, S, D].
        bias: broadcasts to [U, H, T, S]; -inf where a query does not look.
    """
    if _by_products(queries):
        scores = torch.matmul(queries, keys.transpose(2, 3)) + bias
        return torch.matmul(scores.softmax(-1), values)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=1.0)


def laid_out(states: Tensor) -> Tensor:
    """Keys or values as `attend` reads them, for those that it will read more than once."""
    return states.contiguous() if _by_products(states) else states


def _by_products(states: Tensor) -> bool:
    """Whether two matrix products beat torch's fused kernel: in bfloat16 on a CPU, where its blocks cost more."""
    return states.dtype == torch.bfloat16 and states.device.type == "cpu"


class NodeStates:
    """Keys and values of one layer, to which a search appends those of its prefixes; memory grows as needed.

    Args:
        keys: [U, H, C, D], memory for C tokens.
        values: [U, H, C, D].
        size: tokens that it holds.
    """

    def __init__(self, keys: Tensor, values: Tensor, size: int) -> None:
        self._keys, self._values, self.size = keys, values, size

    @classmethod
    def like(cls, keys: Tensor) -> Self:
        """Nothing yet, for users, heads, width and type of some keys [U, H, S, D]."""
        return cls(keys[:, :, :0], keys[:, :, :0], 0)

    @property
    def keys(self) -> Tensor:
        """[U, H, size, D], a view."""
        return self._keys[:, :, : self.size]

    @property
    def values(self) -> Tensor:
        """[U, H, size, D], a view."""
        return self._values[:, :, : self.size]

    def take(self, users: Tensor, size: int | None = None) -> Self:
        """A copy for some of the users, of the first `size` tokens or of all."""
        keys, values = self.keys[:, :, :size], self.values[:, :, :size]
        return type(self)(keys[users], values[users], keys.shape[2])

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Add tokens; both [U, H, W, D]."""
        first, last = self.size, self.size + keys.shape[2]
        if last > self._keys.shape[2]:
            room = last + max(64, last // 4)
            self._keys, self._values = _enlarged(self.keys, room), _enlarged(self.values, room)
        self._keys[:, :, first:last] = keys
        self._values[:, :, first:last] = values
        self.size = last

    def attend_paths(self, queries: Tensor, paths_UWT: Tensor, bias: Tensor) -> Tensor:
        """Attention [U, H, W, D] of each of W tokens over a path of its own.

        Args:
            queries: [U, H, W, D].
            paths_UWT: int64[U, W, T], places of the tokens of each path.
            bias: broadcasts to [U, H, W, T].
        """
        index = paths_UWT.flatten(1)[:, None, :, None].expand(-1, self._keys.shape[1], -1, self._keys.shape[3])
        keys, values = (
            states.gather(2, index).unflatten(2, paths_UWT.shape[1:]) for states in (self.keys, self.values)
        )
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
